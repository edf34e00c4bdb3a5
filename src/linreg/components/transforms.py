"""Transforms: each builder returns how columns are derived from columns, or how the target is transformed.

They are a part of the preprocessing, so values that they learn are saved with the model. All work in float64.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from linreg.registry import Registry

if TYPE_CHECKING:
    import torch

TRANSFORMS = Registry("transform", arguments=(), returns="linreg.components.transforms.Derived", needs=("columns",))
TARGET_TRANSFORMS = Registry("target_transform", arguments=(), returns="linreg.components.transforms.OfTarget")

Column = Annotated[str, Field(min_length=1)]
Columns = Column | Annotated[list[Column], Field(min_length=1)]
Share = Annotated[float, Field(ge=0, le=1)]
DatePart = Literal["year", "quarter", "month", "day", "weekday", "day_of_year", "hour"]

PERIODS = {"quarter": 4, "month": 12, "day": 31, "weekday": 7, "day_of_year": 366, "hour": 24}  # of parts of a date

Learnt = dict[str, "torch.Tensor"]


@dataclass(frozen=True)
class Derived:
    """How columns are derived from others: from each column alone, or jointly from all columns of a transform.

    names: returns the names of the derived columns for the name of the column (joint: for all names); apply: maps x
    (N, 1) (joint: (N, n_columns)) to them (N, n_derived). learn: returns values for x of the training part, which names
    and apply also receive, by name. keep: whether the columns themselves stay. needs: the requirement on x, for the
    message about a result that is not finite. takes: the kind of columns. indicators: whether the derived columns are 0
    or 1 and add to 1; such columns are not standardized.
    """

    names: Callable[..., Sequence[str]]
    apply: Callable[..., "torch.Tensor"]
    learn: Callable[["torch.Tensor"], Learnt] | None = None
    keep: bool = False
    joint: bool = False
    needs: str = "other numbers"
    takes: Literal["numbers", "dates", "any"] = "numbers"
    indicators: bool = False


@dataclass(frozen=True)
class OfTarget:
    """A transform of the targets: the model learns the transformed target, and predictions are transformed back.

    name: returns the name of the transformed target; apply, invert: map y (N, n_targets) to it, and back. learn:
    returns values for y of the training part, which apply and invert also receive, by name. needs: as in `Derived`.
    """

    name: Callable[[str], str]
    apply: Callable[..., "torch.Tensor"]
    invert: Callable[..., "torch.Tensor"]
    learn: Callable[["torch.Tensor"], Learnt] | None = None
    needs: str = "other numbers"


@TRANSFORMS.register("log")
def log(*, columns: Columns, keep: bool = False) -> Derived:
    """The natural logarithm of numbers > 0: log(area)."""
    import torch

    return Derived(lambda name: [f"log({name})"], torch.log, keep=keep, needs="numbers > 0")


@TRANSFORMS.register("log1p")
def log1p(*, columns: Columns, keep: bool = False) -> Derived:
    """The natural logarithm of 1 + x, for numbers > -1 such as counts: log1p(visits)."""
    import torch

    return Derived(lambda name: [f"log1p({name})"], torch.log1p, keep=keep, needs="numbers > -1")


@TRANSFORMS.register("sqrt")
def sqrt(*, columns: Columns, keep: bool = False) -> Derived:
    """The square root of numbers >= 0: sqrt(area)."""
    import torch

    return Derived(lambda name: [f"sqrt({name})"], torch.sqrt, keep=keep, needs="numbers >= 0")


@TRANSFORMS.register("power")
def power(*, columns: Columns, exponent: float, keep: bool = True) -> Derived:
    """A power: area^2. By default the column stays beside it."""
    import torch

    needs = (
        "numbers >= 0" if exponent != int(exponent) else "smaller numbers" if exponent > 0 else "numbers other than 0"
    )
    return Derived(lambda name: [f"{name}^{exponent:g}"], lambda x: torch.pow(x, exponent), keep=keep, needs=needs)


@TRANSFORMS.register("clip")
def clip(
    *,
    columns: Columns,
    minimum: float | None = None,
    maximum: float | None = None,
    quantiles: Annotated[list[Share], Field(min_length=2, max_length=2)] | None = None,
    keep: bool = False,
) -> Derived:
    """Limits a column to a range: clip(income).

    The range is given, or lies between two quantiles of the training part, such as `quantiles: [0.01, 0.99]`.
    """

    if (quantiles is None) == (minimum is None and maximum is None):
        raise ValueError("quantiles: set either quantiles, or minimum and maximum")
    low, high = quantiles or (-math.inf if minimum is None else minimum, math.inf if maximum is None else maximum)
    if not low < high:
        raise ValueError(f"the range {low:g} to {high:g} is empty; set a larger maximum")

    def learn(x: "torch.Tensor") -> Learnt:
        return {"range": _quantiles(x, [low, high])}

    if quantiles:
        return Derived(
            lambda name, range: [f"clip({name})"], lambda x, range: x.clamp(range[0], range[-1]), learn, keep=keep
        )
    return Derived(lambda name: [f"clip({name})"], lambda x: x.clamp(low, high), keep=keep)


@TRANSFORMS.register("bins")
def bins(
    *,
    columns: Columns,
    n_bins: Annotated[int, Field(ge=2, le=1000)] | None = None,
    edges: Annotated[list[float], Field(min_length=1)] | None = None,
    keep: bool = False,
) -> Derived:
    """Intervals, each with a column that is 1 for a number in it: age<18, 18<=age<65, age>=65.

    edges: the ends of the intervals; or n_bins, by default 5, with the same number of rows of the training part.
    """
    import torch

    if edges is not None and n_bins is not None:
        raise ValueError("n_bins: edges has the intervals already; remove one")
    number = n_bins or 5

    if edges is not None and sorted(set(edges)) != edges:
        raise ValueError(f"edges: must be ascending, got {edges}; sort them")

    def learn(x: "torch.Tensor") -> Learnt:
        if edges is not None:
            return {"edges": torch.tensor(edges, dtype=torch.float64)}
        ends = _quantiles(x, [i / number for i in range(1, number)])
        return {"edges": ends[ends > x.min()]}  # otherwise the first interval is empty

    def names(name: str, edges: "torch.Tensor") -> list[str]:
        ends = [f"{edge:.6g}" for edge in edges.tolist()]
        if not ends:
            return [f"{name} (one bin)"]
        between = [f"{low}<={name}<{high}" for low, high in pairwise(ends)]
        return [f"{name}<{ends[0]}", *between, f"{name}>={ends[-1]}"]

    def apply(x: "torch.Tensor", edges: "torch.Tensor") -> "torch.Tensor":
        place = torch.bucketize(x.contiguous(), edges, right=True)
        return (place == torch.arange(len(edges) + 1)).double()

    return Derived(names, apply, learn, keep=keep, indicators=True)


@TRANSFORMS.register("spline")
def spline(
    *,
    columns: Columns,
    knots: Annotated[int, Field(ge=3, le=100)] | Annotated[list[float], Field(min_length=3)] = 5,
    keep: bool = False,
) -> Derived:
    """A natural cubic spline, which is linear outside its knots: spline1(age), spline2(age), ...

    knots: their number, at quantiles of the training part from its minimum to its maximum, or their places. K knots
    give K - 1 columns; the first is the column itself. Source of the basis: T. Hastie, R. Tibshirani and J. Friedman,
    The Elements of Statistical Learning, 2nd ed., eq. 5.4 and 5.5, divided by the squared distance of the outer knots.
    """
    import torch

    if isinstance(knots, list) and sorted(set(knots)) != knots:
        raise ValueError(f"knots: must be ascending, got {knots}; sort them")

    def learn(x: "torch.Tensor") -> Learnt:
        if isinstance(knots, list):
            return {"knots": torch.tensor(knots, dtype=torch.float64)}
        places = _quantiles(x, [i / (knots - 1) for i in range(knots)])
        if len(places) < 3:
            raise ValueError("has too few different values for a spline; use fewer knots, or bins")
        return {"knots": places}

    def names(name: str, knots: "torch.Tensor") -> list[str]:
        return [f"spline{i + 1}({name})" for i in range(len(knots) - 1)]

    def apply(x: "torch.Tensor", knots: "torch.Tensor") -> "torch.Tensor":
        cubes = (x - knots).clamp(min=0) ** 3  # (N, K)
        d = (cubes[:, :-1] - cubes[:, -1:]) / (knots[-1] - knots[:-1])
        return torch.cat([x, (d[:, :-1] - d[:, -1:]) / (knots[-1] - knots[0]) ** 2], dim=1)

    return Derived(names, apply, learn, keep=keep)


@TRANSFORMS.register("interaction")
def interaction(*, columns: Annotated[list[Column], Field(min_length=2)]) -> Derived:
    """The product of columns, beside them: area:rooms. A category stands for each of its columns: area:city=Rome."""
    return Derived(
        lambda *names: [":".join(names)],
        lambda x: x.prod(dim=1, keepdim=True),
        keep=True,
        joint=True,
        needs="smaller numbers",
        takes="any",
    )


@TRANSFORMS.register("date_parts")
def date_parts(
    *,
    columns: Columns,
    parts: Annotated[list[DatePart], Field(min_length=1)] = ["year", "month", "weekday"],  # noqa: B006  # the registry shows a default as YAML; nothing changes it
    cyclic: bool = False,
    keep: bool = False,
) -> Derived:
    """Parts of a date: year(sold), month(sold), weekday(sold) with Monday as 1. Times are in UTC.

    cyclic: whether all parts but the year are angles, with their sine and cosine: sin(month(sold)), cos(month(sold)).
    """
    import torch

    as_angles = [part for part in parts if cyclic and part != "year"]

    def names(name: str) -> list[str]:
        return [
            text
            for part in parts
            for text in ([f"sin({part}({name}))", f"cos({part}({name}))"] if part in as_angles else [f"{part}({name})"])
        ]

    def apply(x: "torch.Tensor") -> "torch.Tensor":
        every, derived = _date_parts(x), []
        for part in parts:
            value = every[part]
            if part in as_angles:
                angle = 2 * math.pi * (value - int(part != "hour")) / PERIODS[part]
                derived += [torch.sin(angle), torch.cos(angle)]
            else:
                derived.append(value)
        return torch.cat(derived, dim=1)

    return Derived(names, apply, keep=keep, takes="dates")


def _date_parts(x: "torch.Tensor") -> dict[str, "torch.Tensor"]:
    """Return the parts of dates in days since 1970-01-01, like x (N, 1). Source: H. Hinnant, chrono-Compatible
    Low-Level Date Algorithms, civil_from_days."""
    import torch

    day = x.floor().long()
    shifted = day + 719_468  # days since 0000-03-01
    era = torch.div(shifted, 146_097, rounding_mode="floor")
    of_era = shifted - era * 146_097
    year_of_era = (of_era - of_era // 1460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)  # from March 1
    month = (5 * of_year + 2) // 153
    day_of_month = of_year - (153 * month + 2) // 5 + 1
    month = torch.where(month < 10, month + 3, month - 9)
    year = year_of_era + era * 400 + (month <= 2).long()
    is_leap = ((year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))).long()
    day_of_year = torch.where(month > 2, of_year + 60 + is_leap, of_year - 305)
    parts = {
        "year": year,
        "quarter": (month + 2) // 3,
        "month": month,
        "day": day_of_month,
        "weekday": (day + 3) % 7 + 1,
        "day_of_year": day_of_year,
        "hour": ((x - x.floor()) * 24 + 1e-6).floor(),  # days are rounded to 1e-11
    }
    return {name: part.double() for name, part in parts.items()}


def _quantiles(x: "torch.Tensor", shares: Sequence[float]) -> "torch.Tensor":
    """Return quantiles of x (N, 1) without duplicates, by linear interpolation. torch takes at most 2^24 values."""
    import numpy as np
    import torch

    return torch.from_numpy(np.unique(np.quantile(x.numpy()[:, 0], shares)))


@TARGET_TRANSFORMS.register("log")
def log_of_target() -> OfTarget:
    """The natural logarithm of a target > 0: errors are relative."""
    import torch

    return OfTarget(lambda name: f"log({name})", torch.log, torch.exp, needs="numbers > 0")


@TARGET_TRANSFORMS.register("log1p")
def log1p_of_target() -> OfTarget:
    """The natural logarithm of 1 + y, for a target > -1 such as a count."""
    import torch

    return OfTarget(lambda name: f"log1p({name})", torch.log1p, torch.expm1, needs="numbers > -1")


@TARGET_TRANSFORMS.register("sqrt")
def sqrt_of_target() -> OfTarget:
    """The square root of a target >= 0."""
    import torch

    return OfTarget(lambda name: f"sqrt({name})", torch.sqrt, lambda z: z.clamp(min=0).square(), needs="numbers >= 0")


@TARGET_TRANSFORMS.register("box_cox")
def box_cox(*, lmbda: Annotated[float, Field(ge=-5, le=5)] | None = None) -> OfTarget:
    """Box and Cox's power transform (y^lmbda - 1) / lmbda of a target > 0; for 0 the logarithm.

    lmbda: by default the most likely one for each target in the training part. Source: G. E. P. Box and D. R. Cox, An
    Analysis of Transformations (1964).
    """
    import torch

    def learn(y: "torch.Tensor") -> Learnt:
        if lmbda is not None:
            return {"lmbda": torch.full((y.shape[1],), lmbda, dtype=torch.float64)}
        from scipy.stats import boxcox_normmax  # takes half a second

        likely = [float(boxcox_normmax(column, method="mle")) for column in y.numpy().T]
        return {"lmbda": torch.tensor(likely, dtype=torch.float64)}

    def apply(y: "torch.Tensor", lmbda: "torch.Tensor") -> "torch.Tensor":
        logs = torch.log(y)
        return torch.where(lmbda == 0, logs, torch.expm1(lmbda * logs) / torch.where(lmbda == 0, 1.0, lmbda))

    def invert(z: "torch.Tensor", lmbda: "torch.Tensor") -> "torch.Tensor":
        logs = torch.log1p((lmbda * z).clamp(min=-1)) / torch.where(lmbda == 0, 1.0, lmbda)
        return torch.exp(torch.where(lmbda == 0, z, logs))

    return OfTarget(lambda name: f"box_cox({name})", apply, invert, learn, needs="numbers > 0")
