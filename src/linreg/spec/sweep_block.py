"""The `sweep` block of a spec: which keys vary, how trials are drawn, and how they are compared."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, PositiveInt, Tag, model_validator

from linreg.data.sources import Seed
from linreg.spec.parts import Part

MOST_TRIALS = 10_000
DIGITS = 3  # of a number that is drawn, so that it can be typed again


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

    def value(self, point: float) -> float | int:
        """Return the number for a point in [0, 1)."""
        low, high = (math.log(self.min), math.log(self.max)) if self.log else (self.min, self.max)
        if isinstance(self.min, int) and isinstance(self.max, int):
            if not self.log:
                return self.min + int(point * (self.max - self.min + 1))
            return min(max(round(math.exp(low + point * (high - low))), self.min), self.max)
        number = low + point * (high - low)
        rounded = float(f"{math.exp(number) if self.log else number:.{DIGITS}g}")
        return min(max(rounded, self.min), self.max)


class Values(Part):
    """A list of values, which may be whole components."""

    values: Annotated[list[Any], Field(min_length=1)] = Field(description="the values")

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
    method: Literal["grid", "random", "sobol"] | None = Field(
        None, description="how trials are drawn; by default grid if every key has values and no trials are given"
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
        if self.select == "one_se" and self.seeds * (self.folds or 1) * self.repeats < 2:
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
