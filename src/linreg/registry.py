"""Registries: a component is one function under one name, and its signature is the schema of its params.

The pipeline passes the positional parameters; a spec sets the keyword-only ones, within their annotations:

    @OPTIMIZERS.register("sgd")
    def sgd(parameters, *, lr: PositiveFloat, momentum: NonNegativeFloat = 0.0): ...

`Registry.check` turns `{name: sgd, lr: 0.1}` into a `ComponentSpec`, and `Registry.build` calls the function.
A builder raises ValueError for params that do not fit together.
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

# Strict: only a whole number is converted, to a real one; closed: no unknown keys.
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
    """A validated component of a spec: its name and all its params, with defaults."""

    name: str
    params: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "params", MappingProxyType(dict(self.params)))

    def to_dict(self) -> dict[str, Any]:
        """Return the component as in a spec: the name, and the params beside it."""
        return {"name": self.name, **self.params}


@dataclass(frozen=True)
class Component:
    """A registered builder, and the schema from its signature."""

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
        """The annotation and the default (`...` if required) of each param, in the order of the signature."""
        params: dict[str, tuple[Any, Any]] = {}
        for parameter in inspect.signature(self.builder).parameters.values():
            if parameter.kind is parameter.KEYWORD_ONLY:
                annotation = parameter.annotation
                if isinstance(annotation, str):  # of params only: others may name torch
                    annotation = eval(annotation, getattr(self.builder, "__globals__", {}))
                default = ... if parameter.default is parameter.empty else parameter.default
                params[parameter.name] = (annotation, default)
        return params

    @cached_property
    def schema(self) -> type[BaseModel]:
        """The pydantic model of the params."""
        # Aliases, so that a param may have the name of a pydantic method.
        fields = {
            f"param_{name}": (type_, Field(default, alias=name)) for name, (type_, default) in self.params.items()
        }
        return create_model(f"{self.kind} {self.name}", __config__=STRICT, **fields)  # type: ignore[call-overload, no-any-return]  # the stubs cannot say **fields

    def described(self) -> dict[str, dict[str, str]]:
        """Describe the `type` and `default` of each param in words."""
        properties = self.schema.model_json_schema()["properties"] if self.params else {}
        return {
            name: {
                "type": describe(properties[name]),
                "default": "required" if default is ... else write(default),
            }
            for name, (_, default) in self.params.items()
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the component as plain values."""
        params = {name: {**words, "required": self.params[name][1] is ...} for name, words in self.described().items()}
        return {"kind": self.kind, "name": self.name, "summary": self.summary, "params": params}

    @property
    def is_own(self) -> bool:
        """Whether linreg defines it, not a plugin."""
        return self.builder.__module__.startswith("linreg.")

    @property
    def where(self) -> str:
        """The file and line of the builder, for the author of a plugin."""
        code = getattr(inspect.unwrap(self.builder), "__code__", None)
        return f"{code.co_filename}:{code.co_firstlineno}" if code else f"{self.kind} {self.name!r}"


class Registry:
    """The components of one kind, by name."""

    def __init__(self, kind: str, *, arguments: tuple[str, ...], returns: str, needs: tuple[str, ...] = ()) -> None:
        """arguments: the positional arguments of a builder; returns: the full name of the type that it returns,
        imported by the first build; needs: the params that every builder must have."""
        self.kind = kind
        self.arguments = arguments
        self.returns = returns
        self.needs = needs
        self._components: dict[str, Component] = {}

    def __iter__(self) -> Iterator[Component]:
        return iter(self._components.values())

    @property
    def names(self) -> list[str]:
        """The names of the components, in the order of registration."""
        return list(self._components)

    def register(self, name: str) -> Callable[[Builder], Builder]:
        """Register the decorated builder under `name`. Raises UsageError for a name that is taken, or a signature that
        cannot be a schema."""
        if not isinstance(name, str) or not name.isidentifier():
            raise UsageError(f'{self.kind}: {name!r} is not a name; write @....register("my_{self.kind}")')

        def add(builder: Builder) -> Builder:
            component = Component(self.kind, name, builder)
            self._refuse_unusable(component)
            self._components[name] = component
            return builder

        return add

    def is_own(self, name: str) -> bool:
        """Return whether linreg defines a component, not a plugin."""
        return self._components[name].is_own

    def check(self, value: object) -> ComponentSpec:
        """Validate `{name: ..., and the params beside it}`.

        Raises a PydanticCustomError of type `component`, with all problems in its context, in the form of
        `ValidationError.errors()`.
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
            # as JSON, in which a list may be a tuple: YAML has no tuples
            checked = self._components[name].schema.model_validate_json(json.dumps(params))
        except ValidationError as error:
            context = {"component": self._components[name]}
            problems = [{**problem, "ctx": {**problem.get("ctx", {}), **context}} for problem in error.errors()]
            raise _component_error(problems) from None
        return ComponentSpec(name, checked.model_dump(by_alias=True))

    def build(self, spec: ComponentSpec, *args: Any, where: str | None = None) -> Any:
        """Call the builder of `spec` with the arguments of the pipeline. A ValueError of the builder becomes a
        SpecError that begins with `where`, any other exception one that names the builder."""
        component = self._components[spec.name]
        try:
            made = component.builder(*args, **spec.params)
        except LinregError:
            raise
        except OSError as error:
            raise DataError(f"{where or self.kind}: {spec.name}: {error}; name a file that can be read") from error
        except ValueError as error:
            raise SpecError([f"{where or self.kind}: {spec.name}: {error}"]) from error
        except (Exception, SystemExit) as error:  # a builder may raise anything
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
        """Return the JSON Schema of a component of this kind."""
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
            owner = self._components[component.name].builder.__module__
            raise UsageError(f"{where}: the name is already registered by {owner}; choose another")
        for name, parameter in inspect.signature(component.builder).parameters.items():
            if parameter.kind is parameter.KEYWORD_ONLY and parameter.annotation is parameter.empty:
                raise UsageError(f"{where}: the param {name!r} has no annotation; write {name}: float, or the like")
        if "name" in component.params:
            raise UsageError(f"{where}: a param cannot be called 'name', which names the component; rename it")
        if absent := [name for name in self.needs if name not in component.params]:
            raise UsageError(f"{where}: a {self.kind} needs the param {absent[0]!r}; add it after a *")
        kinds = [parameter.kind for parameter in inspect.signature(component.builder).parameters.values()]
        positional = [kind for kind in kinds if kind in (kind.POSITIONAL_ONLY, kind.POSITIONAL_OR_KEYWORD)]
        if len(positional) != len(self.arguments) or any(
            kind in (kind.VAR_POSITIONAL, kind.VAR_KEYWORD) for kind in kinds
        ):
            takes = ", ".join(self.arguments)
            raise UsageError(f"{where}: a {self.kind} takes ({takes}) and, after a *, its params")
        if not component.is_own:  # slow; built-in ones are tested
            try:
                component.described()
            except Exception as error:  # pydantic raises many kinds
                reason = str(error).partition("\n")[0]
                raise UsageError(f"{where}: its params cannot be a schema: {reason}; annotate them simply") from None


def describe(schema: Mapping[str, Any]) -> str:
    """Describe a JSON Schema in words: `number > 0`, `list of whole number > 0`, `relu | tanh`."""
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
    """Format a limit without trailing zeros."""
    return f"{limit:g}" if isinstance(limit, float) else str(limit)


def write(value: object) -> str:
    """Format a default as in YAML."""
    if isinstance(value, list):
        return f"[{', '.join(map(write, value))}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _component_error(problems: list[dict[str, Any]]) -> PydanticCustomError:
    return PydanticCustomError("component", "the component is wrong", {"problems": problems})
