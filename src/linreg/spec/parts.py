"""The parts of a spec: the split, early stopping, checkpoints and the writer. `schema` puts them together."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from linreg.data.sources import Seed
from linreg.data.tables.sources import Files
from linreg.registry import STRICT


class Part(BaseModel):
    """A part of a spec."""

    model_config = STRICT


class ByColumn(Part):
    """A column that decides about the parts."""

    time: str | None = Field(None, description="no training row is later than a validation row; tests are the latest")
    group: str | None = Field(None, description="rows with the same value are in the same part")
    stratify: str | None = Field(None, description="each part has the same share of each value, or of each decile")

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if len(self.model_dump(exclude_none=True)) != 1:
            raise ValueError("must be one of {time: COLUMN}, {group: COLUMN} and {stratify: COLUMN}")
        return self


class SplitSpec(Part):
    """The division of the data into a training, a validation and a test part."""

    train_ratio: Annotated[float, Field(gt=0, le=1)] = Field(
        0.8, description="share of the points for training; 1.0 uses all points, without validation"
    )
    test_ratio: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="share of the points for `evaluate --part test`; training never uses them"
    )
    calibration_ratio: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="share of the points for `intervals: {method: split}`; training never uses them"
    )
    by: Literal["random", "order"] | ByColumn = Field(
        "random",
        description="`random`; `order`: first rows for training, last ones for test; or a column: `{time: sold}`, "
        "`{group: patient}`, `{stratify: price}`",
    )
    val: Files | None = Field(None, description="a file, or a list, with the validation part; all else is training")
    test: Files | None = Field(None, description="a file, or a list, with the test part")
    folds: Annotated[int, Field(ge=2)] | None = Field(
        None,
        description="folds of all rows that are not for test, one of them for validation; `linreg cv` trains on all",
    )
    fold: NonNegativeInt | None = Field(None, description="with `folds`, the one for validation, counted from 0")
    seed: Seed = Field(13, description="seed of `random_split`")

    @model_validator(mode="wrap")
    @classmethod
    def _train_on_the_rest(cls, value: Any, check: Callable[[Any], Self]) -> Self:
        """With a validation file, train on all rows that are not for test."""
        by = value.get("by") if isinstance(value, Mapping) else None
        if isinstance(by, str) and by in ByColumn.model_fields:
            raise ValueError(f"by: {by} needs a column; write by: {{{by}: COLUMN}}")
        if isinstance(value, Mapping) and value.get("val") is not None and "train_ratio" not in value:
            others = [value.get(key, 0.0) for key in ("test_ratio", "calibration_ratio")]
            value = {**value, "train_ratio": 1.0 - sum(ratio for ratio in others if isinstance(ratio, float))}
        return check(value)

    @model_validator(mode="after")
    def _ratios_fit(self) -> Self:
        if self.total > 1 + 1e-9:
            names = "train_ratio + test_ratio" + " + calibration_ratio" * bool(self.calibration_ratio)
            raise ValueError(f"{names} must be <= 1, got {self.total:g}")
        if self.val is not None and self.total < 1 - 1e-9:
            raise ValueError("train_ratio: val has the validation part already; remove train_ratio")
        if self.test is not None and self.test_ratio:
            raise ValueError("test_ratio: test has the test part already; remove one")
        is_divided = self.total < 1 - 1e-9 or self.test_ratio or self.calibration_ratio or self.folds is not None
        if self.rule[0] in ("group", "stratify") and not is_divided:  # an order is of use without a division, too
            raise ValueError("by: all rows of the source are for training; remove by")
        return self

    @model_validator(mode="after")
    def _folds_fit(self) -> Self:
        if self.fold is not None and self.folds is None:
            raise ValueError("fold needs folds; add for instance folds: 5")
        if self.folds is not None and self.val is not None:
            raise ValueError("folds: val has the validation part already; remove one")
        if self.folds is not None and self.fold is None:
            raise ValueError(f"folds needs fold, from 0 to {self.folds - 1}; to train on each, use linreg cv")
        if self.folds is not None and self.fold is not None and self.fold >= self.folds:
            raise ValueError(f"fold must be < folds ({self.folds}), got {self.fold}")
        return self

    @property
    def total(self) -> float:
        """The share of the points that the ratios divide; the others are for validation."""
        return self.train_ratio + self.test_ratio + self.calibration_ratio

    @property
    def rule(self) -> tuple[str, str | None]:
        """The rule of the division, and its column or None."""
        if not isinstance(self.by, ByColumn):
            return self.by, None
        ((rule, column),) = self.by.model_dump(exclude_none=True).items()
        return rule, column


class PenaltySpec(Part):
    """The penalty of `solver: exact`: shrinks the slopes of standardised columns, and may choose how much."""

    name: Literal["ridge", "lasso", "elastic_net"] = Field(
        description="ridge: squared slopes; lasso: absolute slopes, many of which become 0; elastic_net: both"
    )
    strength: Literal["auto"] | NonNegativeFloat | Annotated[list[NonNegativeFloat], Field(min_length=1)] = Field(
        "auto", description="a number, a list to choose from, or `auto`, which makes a list of 100"
    )
    l1_ratio: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="with elastic_net, the share of the absolute slopes; 0.5 by default"
    )
    folds: Annotated[int, Field(ge=2)] = Field(
        5, description="folds of the training part, on which a strength is chosen from several"
    )
    select: Literal["best", "one_se"] = Field(
        "best", description="`best`, or the largest strength within one standard error of the best"
    )

    @model_validator(mode="after")
    def _only_elastic_net_has_a_ratio(self) -> Self:
        if self.l1_ratio is not None and self.name != "elastic_net":
            raise ValueError(f"l1_ratio is for elastic_net, not {self.name}; remove it")
        return self


class EarlyStoppingSpec(Part):
    """The rule for stopping before the last epoch."""

    patience: PositiveInt = Field(description="epochs without improvement after which training stops")
    min_delta: NonNegativeFloat = Field(0.0, description="the smallest decrease of the loss that counts as improvement")


class CheckpointSpec(Part):
    """The times at which checkpoints are written, and the ones that are kept."""

    every: PositiveInt | None = Field(
        None, description="epochs between checkpoints; `null` saves by the clock, about once a second"
    )
    every_seconds: PositiveFloat | None = Field(
        None, description="seconds between checkpoints, also within an epoch; with `every` or without it"
    )
    keep: NonNegativeInt = Field(0, description="the number of numbered checkpoints to keep beside `last.pth`")
    best: bool = Field(True, description="whether to keep the best epoch in `best.pth`")

    @model_validator(mode="after")
    def _keep_needs_every(self) -> Self:
        if self.keep and self.every is None:
            raise ValueError("keep needs every; add for instance every: 50")
        return self


class WriterSpec(Part):
    """The output for people: TensorBoard and plots."""

    graph: bool = Field(True, description="the model's graph in TensorBoard")
    hparams: bool = Field(True, description="the hyperparameters in TensorBoard")
    histograms: NonNegativeInt = Field(0, description="epochs between histograms of the parameters; 0 for none")
    figures: bool = Field(False, description="the losses also as a figure in TensorBoard")
    plots: bool = Field(True, description="losses.png in the run's folder, ranking.png in that of a sweep")
