"""Registries: a component is one function under one name, and its signature is the schema of its params.

Positional parameters are what the pipeline hands over; keyword-only parameters are what a spec may set, and
their annotations say what is allowed:

    @OPTIMIZERS.register("sgd")
    def sgd(parameters, *, lr: PositiveFloat, momentum: NonNegativeFloat = 0.0): ...

`Registry.check` turns `{name: sgd, lr: 0.1}` into a `ComponentSpec`, and `Registry.build` calls the function.
A builder refuses params that do not go together by raising ValueError.
"""

import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic_core import PydanticCustomError

from linreg.errors import DataError, LinregError, SpecError, UsageError
from linreg.system.memory import is_out_of_memory

Builder = TypeVar("Builder", bound=Callable[..., Any])

# Strict: nothing is converted but a whole number where a real one is asked for; closed: no unknown key.
STRICT = ConfigDict(
    strict=True,
    extra="forbid",
    frozen=True,
    allow_inf_nan=False,
    arbitrary_types_allowed=True,
    hide_input_in_errors=True,
    protected_namespaces=(),
)


@dataclass(frozen=True)
class ComponentSpec:
    """A checked choice of a component: its name and all its params, defaults filled in."""

    name: str
    params: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "params", MappingProxyType(dict(self.params)))

    def to_dict(self) -> dict[str, Any]:
        """Give the component as a spec has it: the name, and the params flat beside it."""
        return {"name": self.name, **self.params}


@dataclass(frozen=True)
class Component:
    """A registered builder and what its signature says."""

    kind: str
    name: str
    builder: Callable[..., Any]

    @property
    def doc(self) -> str:
        """The builder's docstring."""
        return inspect.getdoc(self.builder) or ""

    @property
    def summary(self) -> str:
        """The first line of the builder's docstring."""
        return self.doc.partition("\n")[0]

    @cached_property
    def params(self) -> dict[str, tuple[Any, Any]]:
        """The annotation and the default (`...` for none) of each param, in the order of the signature."""
        found: dict[str, tuple[Any, Any]] = {}
        for parameter in inspect.signature(self.builder).parameters.values():
            if parameter.kind is parameter.KEYWORD_ONLY:
                annotation = parameter.annotation
                if isinstance(annotation, str):  # only the params': other annotations may name torch
                    annotation = eval(annotation, getattr(self.builder, "__globals__", {}))
                default = ... if parameter.default is parameter.empty else parameter.default
                found[parameter.name] = (annotation, default)
        return found

    @cached_property
    def schema(self) -> type[BaseModel]:
        """The pydantic model of the params."""
        # Under an alias, so that a param may be called what a pydantic model has as a method.
        fields = {
            f"param_{name}": (type_, Field(default, alias=name)) for name, (type_, default) in self.params.items()
        }
        return create_model(f"{self.kind} {self.name}", __config__=STRICT, **fields)  # type: ignore[call-overload, no-any-return]  # the stubs cannot say **fields

    def described(self) -> dict[str, dict[str, str]]:
        """Say of each param what it takes (`type`) and what it is if not given (`default`), in words."""
        properties = self.schema.model_json_schema()["properties"] if self.params else {}
        return {
            name: {
                "type": describe(properties[name]),
                "default": "required" if default is ... else write(default),
            }
            for name, (_, default) in self.params.items()
        }

    def to_dict(self) -> dict[str, Any]:
        """Give the component in plain values."""
        params = {name: {**said, "required": self.params[name][1] is ...} for name, said in self.described().items()}
        return {"kind": self.kind, "name": self.name, "summary": self.summary, "params": params}

    @property
    def is_own(self) -> bool:
        """Whether it is linreg's, not a plugin's."""
        return self.builder.__module__.startswith("linreg.")

    @property
    def where(self) -> str:
        """The file and line of the builder, to point a plugin's author to."""
        code = getattr(inspect.unwrap(self.builder), "__code__", None)
        return f"{code.co_filename}:{code.co_firstlineno}" if code else f"{self.kind} {self.name!r}"


class Registry:
    """The components of one kind, by name."""

    def __init__(self, kind: str, *, arguments: tuple[str, ...], returns: str) -> None:
        """arguments: the positional arguments of a builder; makes: the full name of the type that it returns, which
        is imported when the first one is built."""
        self.kind = kind
        self.arguments = arguments
        self.returns = returns
        self._components: dict[str, Component] = {}

    def __iter__(self) -> Iterator[Component]:
        return iter(self._components.values())

    @property
    def names(self) -> list[str]:
        """The names of the components, in the order of registration."""
        return list(self._components)

    def register(self, name: str) -> Callable[[Builder], Builder]:
        """Register the decorated builder under `name`; a name that is taken, or a signature that cannot be a
        schema, is a UsageError."""

        if not isinstance(name, str) or not name.isidentifier():
            raise UsageError(f'{self.kind}: {name!r} is not a name; write @....register("my_{self.kind}")')

        def add(builder: Builder) -> Builder:
            component = Component(self.kind, name, builder)
            self._refuse_unusable(component)
            self._components[name] = component
            return builder

        return add

    def is_own(self, name: str) -> bool:
        """Whether a component is linreg's, not a plugin's."""
        return self._components[name].is_own

    def check(self, value: object) -> ComponentSpec:
        """Check `{name: ..., params flat beside it}`.

        Raises a PydanticCustomError of type `component` whose context holds every problem, each a dictionary
        like one of `ValidationError.errors()`.
        """
        if isinstance(value, ComponentSpec):
            value = value.to_dict()
        if not isinstance(value, Mapping):
            raise _component_error([self._problem("component_type", (), value)])
        params = {key: given for key, given in value.items() if key != "name"}
        name = value.get("name")
        if "name" not in value:
            raise _component_error([self._problem("missing_name", ("name",), value)])
        if not isinstance(name, str):
            raise _component_error([{"type": "string_type", "loc": ("name",), "input": name}])
        if name not in self._components:
            raise _component_error([self._problem("unknown_name", ("name",), name)])
        try:
            # as JSON: there a list may stand for a tuple, which YAML has no word for
            checked = self._components[name].schema.model_validate_json(json.dumps(params))
        except ValidationError as error:
            context = {"component": self._components[name]}
            problems = [{**problem, "ctx": {**problem.get("ctx", {}), **context}} for problem in error.errors()]
            raise _component_error(problems) from None
        return ComponentSpec(name, checked.model_dump(by_alias=True))

    def build(self, spec: ComponentSpec, *args: Any, where: str | None = None) -> Any:
        """Call the builder of `spec` with what the pipeline hands over. A ValueError of the builder, its way to
        refuse params, becomes a SpecError that begins with `where`; any other fault one that names the builder."""
        component = self._components[spec.name]
        try:
            made = component.builder(*args, **spec.params)
        except LinregError:
            raise
        except OSError as error:
            raise DataError(f"{where or self.kind}: {spec.name}: {error}; name a file that can be read") from error
        except ValueError as error:
            raise SpecError([f"{where or self.kind}: {spec.name}: {error}"]) from error
        except (Exception, SystemExit) as error:  # anything may go wrong in a builder, memory first of all
            reason = str(error).partition("\n")[0]
            what = f"its builder failed: {type(error).__name__}: {reason}; change the params, or fix {component.where}"
            if is_out_of_memory(error):
                what = f"not enough memory: {reason}; use less"
            raise SpecError([f"{where or self.kind}: {spec.name}: {what}"]) from error
        module, _, type_ = self.returns.rpartition(".")
        if not isinstance(made, getattr(import_module(module), type_)):
            what = f"its builder returned {type(made).__name__}, not a {self.returns}; fix {component.where}"
            raise SpecError([f"{where or self.kind}: {spec.name}: {what}"])
        return made

    def json_schema(self) -> dict[str, Any]:
        """Make the JSON Schema of a component of this kind."""
        variants = []
        for component in self:
            schema = component.schema.model_json_schema()
            name = {"const": component.name, "description": component.summary}
            variants.append(
                {
                    **schema,
                    "title": component.name,
                    "description": component.summary,
                    "properties": {"name": name, **schema.get("properties", {})},
                    "required": ["name", *schema.get("required", [])],
                }
            )
        return {"title": self.kind, "type": "object", "oneOf": variants}

    def _problem(self, type_: str, loc: tuple[str, ...], value: object) -> dict[str, Any]:
        return {"type": type_, "loc": loc, "input": value, "ctx": {"kind": self.kind, "known": self.names}}

    def _refuse_unusable(self, component: Component) -> None:
        where = f"{component.where}: {self.kind} {component.name!r}"
        if not inspect.isfunction(component.builder):
            raise UsageError(f"{where}: {component.builder!r} is not a function; register a function that builds it")
        if component.name in self._components:
            raise UsageError(
                f"{where}: the name is taken by {self._components[component.name].builder.__module__}; choose another"
            )
        for name, parameter in inspect.signature(component.builder).parameters.items():
            if parameter.kind is parameter.KEYWORD_ONLY and parameter.annotation is parameter.empty:
                raise UsageError(f"{where}: the param {name!r} has no annotation; write {name}: float, or the like")
        if "name" in component.params:
            raise UsageError(f"{where}: a param cannot be called 'name', which names the component; rename it")
        kinds = [parameter.kind for parameter in inspect.signature(component.builder).parameters.values()]
        positional = [kind for kind in kinds if kind in (kind.POSITIONAL_ONLY, kind.POSITIONAL_OR_KEYWORD)]
        if len(positional) != len(self.arguments) or any(
            kind in (kind.VAR_POSITIONAL, kind.VAR_KEYWORD) for kind in kinds
        ):
            takes = ", ".join(self.arguments)
            raise UsageError(f"{where}: a {self.kind} takes ({takes}) and, after a *, its params")
        if not component.is_own:  # ours are tested; this takes a while
            try:
                component.described()
            except Exception as error:  # of what an annotation may be, pydantic raises many kinds
                reason = str(error).partition("\n")[0]
                raise UsageError(f"{where}: its params cannot be a schema: {reason}; annotate them simply") from None


def describe(schema: Mapping[str, Any]) -> str:
    """Say in words what a JSON Schema takes: `number > 0`, `list of whole number > 0`, `relu | tanh`."""
    if "anyOf" in schema:
        return " or ".join(describe(option) for option in schema["anyOf"])
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if "const" in schema:
        return str(schema["const"])
    if schema.get("type") == "array":
        return f"list of {describe(schema.get('items', {}))}"
    words = {"integer": "whole number", "number": "number", "boolean": "true | false", "string": "text"}
    limits = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
    bounds = [f"{sign} {plain(schema[key])}" for key, sign in limits.items() if key in schema]
    return " ".join([words.get(schema.get("type", ""), schema.get("type", "anything")), " and ".join(bounds)]).rstrip()


def plain(limit: float) -> str:
    """Write a limit without needless zeros."""
    return f"{limit:g}" if isinstance(limit, float) else str(limit)


def write(value: object) -> str:
    """Write a default as YAML would have it."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _component_error(problems: list[dict[str, Any]]) -> PydanticCustomError:
    return PydanticCustomError("component", "the component is wrong", {"problems": problems})
