"""The page of a report: sections of plain blocks, and their HTML. Nothing else in a report writes HTML."""

import base64
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, TypeGuard

from linreg.experiment.report.charts import Chart, Whisker

Cell = str | float | int | None | Whisker


MOST_TARGETS = 4  # with sentences and charts
MOST_CHARACTERS = 400  # of an error in a note


@dataclass(frozen=True)
class Tile:
    """A number at the top of a page, with its name and a remark."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A table. rows: numbers are aligned to the right, None is a dash; marked: rows that stand out, by position."""

    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    marked: frozenset[int] = frozenset()
    is_sortable: bool = False

    @property
    def numeric(self) -> list[bool]:
        """Whether each column has numbers only."""
        known = [[value for value in column if value is not None] for column in zip(*self.rows, strict=True)]
        return [bool(column) and all(map(is_number, column)) for column in known] or [False] * len(self.header)


@dataclass(frozen=True)
class Code:
    """Lines to copy: commands."""

    lines: Sequence[str]


@dataclass(frozen=True)
class Charts:
    """Charts, beside each other where there is room."""

    charts: Sequence[Chart]


Block = str | Table | Code | Charts  # a text is a paragraph


@dataclass(frozen=True)
class Section:
    """A titled part of a page."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    """A report. verdict: sentences at its top; notes: what limits them."""

    title: str
    subtitle: str
    verdict: Sequence[str]
    tiles: Sequence[Tile]
    sections: Sequence[Section]
    notes: Sequence[str] = field(default_factory=tuple)


def number(value: float, digits: int = 4) -> str:
    """Write a number for people: significant digits, without an exponent where that is readable."""
    if value == 0 or not math.isfinite(value) or not 1e-4 <= abs(value) < 1e7:
        return f"{value:.{digits}g}"
    if float(value).is_integer():
        return f"{value:,.0f}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{decimals}f}"


def cell(value: Cell) -> str:
    """Write the value of a cell that is no chart."""
    if value is None:
        return "–"
    if not is_number(value):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else number(value)


def p_value(p: float) -> str:
    """Write a p value."""
    return "<0.0001" if p < 1e-4 else f"{p:.4f}"


def is_number(value: object) -> TypeGuard[int | float]:
    """Return whether a value is a number, which True and False are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def render(page: Page) -> str:
    """Return a page as one HTML document that needs no other file, and no script to be read."""
    from jinja2 import Environment, PackageLoader, StrictUndefined  # 30 ms, for a report only

    environment = Environment(
        loader=PackageLoader("linreg.experiment.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cell"] = cell
    environment.tests["table"] = _is(Table)
    environment.tests["code"] = _is(Code)
    environment.tests["charts"] = _is(Charts)
    environment.tests["whisker"] = _is(Whisker)
    style, script = _template("style.css"), _template("sort.js")
    is_sortable = any(
        isinstance(block, Table) and block.is_sortable for section in page.sections for block in section.blocks
    )
    return environment.get_template("page.html").render(
        page=page,
        style=style,
        script=script if is_sortable else "",
        policy=f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}",
    )


def _is(kind: type) -> Any:
    return lambda value: isinstance(value, kind)


def _template(name: str) -> str:
    return (resources.files("linreg.experiment.report") / "templates" / name).read_text("utf-8")


def _hash(text: str) -> str:
    """Return the hash by which a content security policy allows a text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
