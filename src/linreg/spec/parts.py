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
            test_ratio = value.get("test_ratio", 0.0)
            value = {**value, "train_ratio": 1.0 - test_ratio if isinstance(test_ratio, float) else 1.0}
        return check(value)

    @model_validator(mode="after")
    def _ratios_fit(self) -> Self:
        total = self.train_ratio + self.test_ratio
        if total > 1 + 1e-9:
            raise ValueError(f"train_ratio + test_ratio must be <= 1, got {total:g}")
        if self.val is not None and total < 1 - 1e-9:
            raise ValueError("train_ratio: val has the validation part already; remove train_ratio")
        if self.test is not None and self.test_ratio:
            raise ValueError("test_ratio: test has the test part already; remove one")
        if self.by != "random" and total > 1 - 1e-9 and not self.test_ratio and self.folds is None:
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
    def rule(self) -> tuple[str, str | None]:
        """The rule of the division, and its column or None."""
        if not isinstance(self.by, ByColumn):
            return self.by, None
        ((rule, column),) = self.by.model_dump(exclude_none=True).items()
        return rule, column


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
    plots: bool = Field(True, description="losses.png in the run's folder")
