"""The `sweep` block of a spec: which keys vary, how trials are drawn, and how they are compared."""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, PositiveInt, Tag, model_validator

from linreg.data.sources import Seed
from linreg.spec.parts import Part

MOST_TRIALS = 10_000
DIGITS = 3  # of a number that is drawn, so that it can be typed again
FIRST_TRIALS = 10  # of `tpe`, at random
MOST_WHOLE = 2**40  # that `tpe` draws; Optuna computes in float64


class Range(Part):
    """Numbers from min to max: whole ones if both are whole, else with three digits."""

    min: float | int = Field(description="the smallest number")
    max: float | int = Field(description="the largest number")
    log: bool = Field(False, description="whether the logarithm is drawn evenly")

    @model_validator(mode="after")
    def _is_range(self) -> Self:
        if not self.min < self.max:
            raise ValueError(f"min must be < max, got {self.min:g} and {self.max:g}")
        if self.log and self.min <= 0:
            raise ValueError(f"log needs min > 0, got {self.min:g}")
        return self

    @property
    def is_whole(self) -> bool:
        """Whether the numbers are whole."""
        return isinstance(self.min, int) and isinstance(self.max, int)

    @property
    def is_narrow(self) -> bool:
        """Whether `tpe` can draw from the range."""
        if self.is_whole:
            return max(abs(self.min), abs(self.max)) <= MOST_WHOLE
        return math.isfinite(self.max - self.min)

    @property
    def ends(self) -> Sequence[Any]:
        """The smallest and the largest number."""
        return self.min, self.max

    def value(self, point: float) -> float | int:
        """Return the number for a point in [0, 1)."""
        low, high = (math.log(self.min), math.log(self.max)) if self.log else (self.min, self.max)
        if isinstance(self.min, int) and isinstance(self.max, int) and not self.log:
            return self.min + int(point * (self.max - self.min + 1))
        number = low + point * (high - low)
        return self.rounded(math.exp(number) if self.log else number)

    def has(self, value: Any) -> bool:
        """Return whether a value can be drawn."""
        return isinstance(value, int | float) and self.min <= value <= self.max and self.rounded(value) == value

    def rounded(self, number: float) -> float | int:
        """Return a number of the range that can be typed again."""
        rounded = round(number) if self.is_whole else float(f"{number:.{DIGITS}g}")
        return min(max(rounded, self.min), self.max)


class Values(Part):
    """A list of values, which may be whole components."""

    values: Annotated[list[Any], Field(min_length=1)] = Field(description="the values")

    @property
    def ends(self) -> Sequence[Any]:
        """All values."""
        return self.values

    def has(self, value: Any) -> bool:
        """Return whether a value is in the list."""
        return repr(value) in map(repr, self.values)

    def value(self, point: float) -> Any:
        """Return the value for a point in [0, 1)."""
        return self.values[int(point * len(self.values))]


def _kind(value: Any) -> str:
    """Return which of the two a parameter is, for messages about it."""
    keys = value if isinstance(value, Mapping) else vars(value) if isinstance(value, Part) else ()
    return "values" if "values" in keys else "range"


_Drawn = Annotated[Range, Tag("range")] | Annotated[Values, Tag("values")]


class HalvingSpec(Part):
    """Successive halving: after some epochs only the best part of the trials continues."""

    factor: Annotated[int, Field(ge=2)] = Field(3, description="one in `factor` trials continues")
    min_epochs: PositiveInt = Field(description="epochs before the first trials leave")


class SweepSpec(Part):
    """The trials of a sweep, and how they are compared."""

    parameters: dict[str, Annotated[_Drawn, Discriminator(_kind)]] = Field(
        default_factory=dict,
        description="keys as in overrides, each with `[values]`, `{values: [...]}` or `{min, max, log}`",
    )
    method: Literal["grid", "random", "sobol", "tpe"] | None = Field(
        None,
        description="how trials are drawn, with `tpe` near those with good results; by default grid if every key has "
        "values and no trials are given",
    )
    trials: Annotated[int, Field(gt=0, le=MOST_TRIALS)] | None = Field(None, description="the number of trials to draw")
    seed: Seed = Field(0, description="seed of the drawing, not of the training")
    seeds: Annotated[int, Field(gt=0, le=1000)] = Field(
        1, description="trainings of each trial, with the seeds seed, seed + 1, ...; their mean counts"
    )
    folds: Annotated[int, Field(ge=2)] | None = Field(None, description="folds of cross-validation; their mean counts")
    repeats: Annotated[int, Field(gt=0, le=1000)] = Field(
        1,
        description="with `folds`, how often rows are divided anew, with the seeds of the split seed, seed + 1, ...",
    )
    halving: HalvingSpec | None = Field(None, description="when trials leave before their last epoch")
    metric: Literal["val_loss", "rmse", "mae", "r2"] = Field(
        "val_loss", description="what decides, on the validation part or fold"
    )
    select: Literal["best", "one_se"] = Field(
        "best", description="the winner: `best`, or the smallest model within one standard error of the best"
    )
    keep: PositiveInt = Field(1, description="the number of winners that become runs")

    @model_validator(mode="before")
    @classmethod
    def _lists_are_values(cls, value: Any) -> Any:
        parameters = value.get("parameters") if isinstance(value, Mapping) else None
        if not isinstance(parameters, Mapping):
            return value
        spread = {key: {"values": item} if isinstance(item, list) else item for key, item in parameters.items()}
        return {**value, "parameters": spread}

    @model_validator(mode="after")
    def _fits(self) -> Self:
        is_grid = self.is_grid
        if self.method == "grid" and any(isinstance(item, Range) for item in self.parameters.values()):
            raise ValueError("method: grid takes values, and a parameter has a range; list its values, or use random")
        if is_grid and self.trials is not None:
            raise ValueError("trials: a grid has all combinations; remove trials, or use method: random")
        if not is_grid and self.trials is None:
            raise ValueError("trials: missing; a range is drawn from, so add for instance trials: 32")
        if self.repeats > 1 and self.folds is None:
            raise ValueError("repeats needs folds; add for instance folds: 5")
        if self.halving is not None and self.metric != "val_loss":
            raise ValueError(f"halving compares trials by val_loss; remove metric: {self.metric}")
        if self.halving is not None and self.grows:
            raise ValueError("halving: method: tpe learns from whole trainings; remove halving, or use method: random")
        for key, item in self.parameters.items():
            if self.grows and isinstance(item, Range) and not item.is_narrow:
                raise ValueError(f"parameters: {key}: the range is too wide for method: tpe; use method: random")
        if self.select == "one_se" and self.n_trainings < 2:
            raise ValueError("select: one_se needs several measurements of each trial; set folds or seeds")
        keys = sorted(self.parameters)
        for key in keys:
            inside = [other for other in keys if other.startswith(f"{key}.")]
            if inside:
                raise ValueError(
                    f"parameters: {key} and {inside[0]} overlap; write {inside[0]} into the values of {key}"
                )
        return self

    @property
    def is_grid(self) -> bool:
        """Whether the trials are all combinations of values."""
        if self.method is not None:
            return self.method == "grid"
        return self.trials is None and all(isinstance(item, Values) for item in self.parameters.values())

    @property
    def grows(self) -> bool:
        """Whether trials are drawn when the results of others are known."""
        return self.method == "tpe"

    def has(self, parameters: Any) -> bool:
        """Return whether these are parameters of a trial."""
        has_keys = isinstance(parameters, Mapping) and set(parameters) == set(self.parameters)
        return has_keys and all(item.has(parameters[key]) for key, item in self.parameters.items())

    @property
    def n_first(self) -> int | None:
        """The number of trials that are drawn before any result is known; None for a grid."""
        return min(self.trials, FIRST_TRIALS) if self.grows and self.trials is not None else self.trials

    @property
    def n_trainings(self) -> int:
        """The number of trainings of each trial."""
        return self.seeds * (self.folds or 1) * self.repeats
