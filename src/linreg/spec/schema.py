"""The experiment spec: a YAML file and overrides, checked into a frozen object. No torch is imported here."""

import difflib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    PrivateAttr,
    ValidationError,
    model_validator,
)
from pydantic_core import core_schema

from linreg.components.losses import LOSSES
from linreg.components.models import MODELS
from linreg.components.optimizers import OPTIMIZERS
from linreg.components.schedulers import SCHEDULERS
from linreg.components.transforms import TARGET_TRANSFORMS, TRANSFORMS
from linreg.data.sources import DATASETS, Seed
from linreg.data.tables import csv as _csv  # noqa: F401  # registers the sources that read tables
from linreg.errors import SpecError, show_text
from linreg.registry import ComponentSpec, Registry
from linreg.spec.document import MAX_BYTES, MOST_PROBLEMS, Document, read_yaml, varied_values, write_yaml
from linreg.spec.intervals import IntervalsSpec, misfit
from linreg.spec.messages import explain
from linreg.spec.parts import CheckpointSpec, EarlyStoppingSpec, Part, PenaltySpec, SplitSpec, WriterSpec
from linreg.spec.sweep_block import SweepSpec

REGISTRIES = {
    registry.kind: registry
    for registry in (DATASETS, TRANSFORMS, TARGET_TRANSFORMS, MODELS, LOSSES, OPTIMIZERS, SCHEDULERS)
}
_OF_GRADIENTS = ("epochs", "optimizer", "scheduler", "clip_grad_norm", "early_stopping", "engine", "baseline")
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


@dataclass(frozen=True)
class _From:
    """Marks a field that takes a component: `Annotated[ComponentSpec, _From(MODELS)]`."""

    registry: Registry

    def __get_pydantic_core_schema__(self, source: object, handler: object) -> core_schema.CoreSchema:
        to_dict = core_schema.plain_serializer_function_ser_schema(ComponentSpec.to_dict)
        return core_schema.no_info_plain_validator_function(self.registry.check, serialization=to_dict)

    def __get_pydantic_json_schema__(self, schema: object, handler: object) -> dict[str, Any]:
        return {"title": self.registry.kind}  # `json_schema` puts the reference here


class DataSpec(Part):
    """The source of the data, and its way to the model."""

    source: Annotated[ComponentSpec, _From(DATASETS)] = Field(description="the source of the data")
    split: SplitSpec = Field(default_factory=SplitSpec, description="training, validation and test parts")
    batch_size: Annotated[int, Field(gt=0, le=2**31 - 1)] | Literal["full"] = Field(
        16, description="points in a mini-batch; `full` is batch gradient descent, each part in one batch"
    )
    shards: Annotated[int, Field(gt=0, le=1024)] | None = Field(
        None,
        description="parts of each mini-batch, whose gradients are added in a fixed order: processes that share the "
        "parts have the results of one process",
    )
    shuffle: bool = Field(True, description="whether each epoch reads the training part in a new order")
    standardize: bool | Literal["features", "target"] = Field(
        False,
        description="whether to scale features and target to mean 0 and standard deviation 1 in the training part",
    )
    transforms: list[Annotated[ComponentSpec, _From(TRANSFORMS)]] = Field(
        default_factory=list, description="columns derived from features, in order: `[{name: log, columns: area}]`"
    )
    target_transform: Annotated[ComponentSpec, _From(TARGET_TRANSFORMS)] | None = Field(
        None, description="a transform of the target, inverted in predictions, losses and metrics"
    )
    memory: Literal["resident", "mapped"] = Field(
        "resident", description="where the points are: in memory, or in a file that is converted once and mapped"
    )
    memory_limit: Annotated[int, Field(ge=16)] = Field(
        1024, description="with `memory: mapped`, the MiB of the map that may be resident at once"
    )


class ExperimentSpec(Part):
    """A checked experiment: everything that decides the outcome of a run."""

    name: Annotated[str, Field(pattern=NAME_PATTERN)] = Field(
        description="at most 64 letters, digits, `.`, `_` and `-`, the first a letter or digit"
    )
    seed: Seed = Field(42, description="seed of the model's initialisation and of the shuffling")
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda|cuda:[0-9]{1,3}|mps)$")] = Field(
        "auto", description="auto, cpu, cuda, cuda:1 or mps"
    )
    dtype: Literal["float32", "float64"] = Field(
        "float32", description="precision of data and parameters; with `solver: exact`, float64 by default"
    )
    engine: Literal["auto", "textbook", "compiled"] = Field(
        "auto",
        description="how an epoch runs; `auto` gives the textbook's bits; `compiled`, for linear and mlp, "
        "is faster, close to those bits, and needs numba",
    )
    solver: Literal["gradient", "exact"] = Field(
        "gradient", description="`exact` solves for the optimum of mse, without epochs and optimizer"
    )
    ridge: NonNegativeFloat = Field(
        0.0,
        description="with `solver: exact`, the penalty: this times the squared weights, added to the sum of squares",
    )
    penalty: PenaltySpec | None = Field(
        None, description="with `solver: exact`, a penalty on standardised columns, whose strength may be chosen"
    )
    baseline: bool = Field(
        True, description="whether to report the exact optimum beside the losses, where there is one"
    )
    epochs: PositiveInt = Field(description="passes over the training part")
    data: DataSpec = Field(description="the data")
    model: Annotated[ComponentSpec, _From(MODELS)] = Field(description="the model")
    loss: Annotated[ComponentSpec, _From(LOSSES)] = Field(
        default_factory=lambda: LOSSES.check({"name": "mse"}), description="the loss function"
    )
    optimizer: Annotated[ComponentSpec, _From(OPTIMIZERS)] = Field(description="the optimizer")
    scheduler: Annotated[ComponentSpec, _From(SCHEDULERS)] | None = Field(
        None, description="how the learning rate changes"
    )
    clip_grad_norm: PositiveFloat | None = Field(None, description="largest norm of the gradient of a step")
    early_stopping: EarlyStoppingSpec | None = Field(None, description="the rule for stopping before the last epoch")
    intervals: IntervalsSpec | None = Field(
        None, description="the rows that calibrate `predict --interval`, for every model"
    )
    checkpoint: CheckpointSpec = Field(default_factory=CheckpointSpec, description="when to save; checkpoints to keep")
    writer: WriterSpec = Field(default_factory=WriterSpec, description="the output for people: TensorBoard and plots")

    _document: Document | None = PrivateAttr(None)
    _unused: tuple[str, ...] = PrivateAttr(())

    @model_validator(mode="wrap")
    @classmethod
    def _fill_unused(cls, value: Any, check: Callable[[Any], Self]) -> Self:
        """Fill in epochs and optimizer for an exact solution, which needs neither, so they are never shown; and its
        precision, float64."""
        exact = isinstance(value, Mapping) and value.get("solver") == "exact"
        if not exact:
            return check(value)
        checked = check({"epochs": 1, "optimizer": {"name": "sgd", "lr": 0.1}, "dtype": "float64", **value})
        checked._unused = tuple(key for key in _OF_GRADIENTS if key in value)
        return checked

    @model_validator(mode="after")
    def _exact_fits(self) -> Self:
        if self.ridge and self.solver != "exact":
            raise ValueError("ridge needs solver: exact; with gradients, set the weight_decay of the optimizer")
        if self.penalty is not None and self.solver != "exact":
            raise ValueError("penalty needs solver: exact; with gradients, set the weight_decay of the optimizer")
        if self.penalty is not None and self.ridge:
            raise ValueError("ridge: penalty shrinks the coefficients already; remove one")
        if self.data.shards is not None and self.solver != "exact":
            self._shards_fit()
        if self.solver == "exact" and self.loss.name != "mse":
            raise ValueError(f"solver: exact minimises mse, not {self.loss.name}; remove loss, or use gradients")
        return self

    @model_validator(mode="after")
    def _intervals_fit(self) -> Self:
        problem = misfit(
            self.intervals,
            self.data.split,
            solver=self.solver,
            is_penalised=self.penalty is not None,
            is_sharded=self.data.shards is not None,
        )
        if problem is not None:
            raise ValueError(problem)
        return self

    def _shards_fit(self) -> None:
        """Raise a ValueError for a component that does not work on parts of a mini-batch."""
        if self.engine == "compiled":
            raise ValueError("data.shards: engine: compiled has no shards; remove one")
        for registry, component in ((MODELS, self.model), (LOSSES, self.loss)):
            if not registry.is_own(component.name):
                kind = f"{registry.kind} {component.name}"
                raise ValueError(
                    f"data.shards: {kind} is from a plugin, and may need whole mini-batches; remove shards"
                )

    @property
    def unused(self) -> tuple[str, ...]:
        """The keys of the spec that the solver ignores."""
        return self._unused

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ExperimentSpec) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]  # it has mappings

    def to_dict(self) -> dict[str, Any]:
        """Return the resolved spec in plain types: every default filled in, absent parts left out."""
        exclude = set(_OF_GRADIENTS) if self.solver == "exact" else None
        return self.model_dump(exclude_none=True, exclude=exclude)

    def to_yaml(self) -> str:
        """Write the resolved spec as YAML; `linreg train` on it repeats the run."""
        return write_yaml(self.to_dict())

    def where(self, *path: str | int) -> str:
        """Return the place of a part of the spec: `configs/x.yaml:20:12: optimizer`."""
        name = ".".join(map(str, path))
        return f"{self._document.where(path)}: {name}" if self._document else name


def load_spec(path: str | Path, overrides: Sequence[str] = ()) -> ExperimentSpec:
    """Read and check the YAML spec at `path`, after setting each `KEY=VALUE` of `overrides` in it.

    Raises SpecError with every problem at once, each as `file:line:column: key: problem; hint`.
    """
    return check_spec(read_spec(path), overrides)


def read_spec(path: str | Path) -> Document:
    """Read the YAML at `path`. Raises SpecError."""
    path = Path(path)
    try:
        # a pipe without a writer is empty: do not wait for it
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            os.set_blocking(file.fileno(), True)
            text = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise SpecError([f"{path}: {_reason(path, error)}"]) from None
    return read_yaml(text, str(path))


def spec_from_dict(value: Mapping[str, Any], where: str, overrides: Sequence[str] = ()) -> ExperimentSpec:
    """Check a spec in plain types, as a checkpoint has it; its errors start with `where`."""
    return check_spec(Document(where, _copy(value)), overrides)


def check_spec(document: Document, overrides: Sequence[str] = ()) -> ExperimentSpec:
    """Apply the overrides to a parsed document, and check it. Raises SpecError with every problem."""
    malformed: list[str] = []
    for override in overrides:
        try:
            document.override(override)
        except SpecError as error:
            malformed += error.problems
            if len(malformed) >= MOST_PROBLEMS:
                raise SpecError(malformed) from None
    if isinstance(document.value, dict) and "sweep" in document.value:
        place = document.where(("sweep",), key=True)
        malformed.append(f"{place}: sweep: this command takes one model; use linreg sweep, or remove the block")
        document.value.pop("sweep")
    if document.value is None and not malformed:
        raise SpecError([f"{document.file}:1:1: empty; a spec has at least name, epochs, data, model and optimizer"])
    try:
        spec = ExperimentSpec.model_validate(document.value)
    except ValidationError as error:
        raise SpecError(_with_hints([*malformed, *explain(error, document, ExperimentSpec)], overrides)) from None
    if malformed:
        raise SpecError(_with_hints(malformed, overrides))
    spec._document = document
    return spec


def _with_hints(problems: Sequence[str], overrides: Sequence[str]) -> list[str]:
    """Add to problems with an override of several values that `linreg sweep` takes these."""
    varied = tuple(f"override {show_text(override, 200)}" for override in overrides if varied_values(override))
    hint = "; for several values, use linreg sweep"
    return [problem + hint if varied and problem.startswith(varied) else problem for problem in problems]


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a spec, with every registered component."""
    schema = ExperimentSpec.model_json_schema()
    of_gradients = [key for key in schema["required"] if key in _OF_GRADIENTS]
    schema["required"] = [key for key in schema["required"] if key not in of_gradients]
    schema["anyOf"] = [
        {"required": of_gradients},
        {"properties": {"solver": {"const": "exact"}}, "required": ["solver"]},
    ]
    for kind, registry in REGISTRIES.items():
        reference = {"$ref": f"#/$defs/{kind}"}
        schema["$defs"][kind] = registry.json_schema()
        in_data = schema["$defs"]["DataSpec"]["properties"]
        if kind == "transform":
            in_data["transforms"]["items"] = reference
            continue
        owner = schema["$defs"]["DataSpec"] if kind in in_data else schema
        field = owner["properties"][kind]
        choice = {"anyOf": [reference, {"type": "null"}]} if "anyOf" in field else reference
        owner["properties"][kind] = {**choice, "description": field["description"]}
    block = SweepSpec.model_json_schema(ref_template="#/$defs/{model}")
    schema["$defs"] |= block.pop("$defs")
    parameter = block["properties"]["parameters"]["additionalProperties"]
    parameter["anyOf"] = [{"type": "array", "minItems": 1}, *parameter.pop("oneOf")]
    schema["properties"]["sweep"] = {**block, "description": "the trials of `linreg sweep`; other commands refuse it"}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "linreg experiment"}


def _reason(path: Path, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        files = {file.name: file for folder in (Path("configs"), path.parent) for file in folder.glob("*.y*ml")}
        near = difflib.get_close_matches(path.name, files, n=1)
        return f"no such file; did you mean '{files[near[0]]}'?" if near else "no such file; name a YAML spec"
    if isinstance(error, IsADirectoryError):
        return "a folder; name a YAML spec in it"
    return f"cannot be read: {error.strerror}"


def _copy(value: Any) -> Any:
    """Copy plain values deeply, tuples as lists, so that overrides leave the original alone."""
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list | tuple) else value
