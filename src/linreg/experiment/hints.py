"""Notes on a table: how it is read, what is left out and why, and what a spec could use. `linreg init` prints them."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from linreg.data.tables.cells import parse_dates, parse_numbers
from linreg.data.tables.column import Column, short
from linreg.data.tables.formats import Numbers
from linreg.data.tables.profile import Profile

NEAR_CONSTANT = 0.99  # share of one value
MOST_NOTES = 20  # on columns
FEWEST_VALUES = 30  # of a target, to see its distribution
SKEWED = 1.5  # skewness; that of an exponential distribution is 2
_OF_GROUP = re.compile(
    r"(.*[_ .-])?(id|key|patient|subject|person|user|customer|client|household|school|shop|store|site|device|batch|"
    r"session|group|player|team)",
    re.IGNORECASE,
)
_OF_TIME = re.compile(r"(.*[_ .-])?(date|time|timestamp|year|month|day|week|hour|datetime)", re.IGNORECASE)


@dataclass(frozen=True)
class Suggestion:
    """A key of `data` that the table may need. line: as YAML on one line; why: the reason."""

    line: str
    why: str


def suggestions(table: Profile, excluded: Mapping[str, str], scalar: Callable[[str], str]) -> list[Suggestion]:
    """Return keys that the table may need: a transform of the target, and a split by time or group.

    scalar: writes a name as YAML."""
    found = []
    names = [name for name in table.columns if name not in table.targets]
    for name in names:
        if order := _time_order(table.columns[name], excluded, table.format.numbers):
            why = f"the table is in the order of {short(name)}" if order == "in order" else f"{short(name)} is a date"
            line = f"split: {{train_ratio: 0.8, by: {{time: {scalar(name)}}}}}"
            found.append(Suggestion(line, f"validates on the latest rows: {why}"))
            break
    for name in names:
        if n_values := _groups(table.columns[name], excluded):
            line = f"split: {{train_ratio: 0.8, by: {{group: {scalar(name)}}}}}"
            found.append(Suggestion(line, f"keeps rows of one {short(name)} in one part: {n_values}"))
            break
    names = [_logarithm(table.columns[target], table.format.numbers) for target in table.targets]
    if len(set(names)) == 1 and names[0]:
        target = short(table.targets[0]) if len(names) == 1 else "each target"
        why = f"learns relative errors: {target} is skewed, its logarithm is not"
        found.append(Suggestion(f"target_transform: {{name: {names[0]}}}", why))
    return found


def _time_order(column: Column, excluded: Mapping[str, str], numbers: Numbers) -> str:
    """Return `in order` for a column of ascending times, `date` for other dates, or an empty text."""
    if column.date_formats:
        times = parse_dates(pa.array([str(value) for value in column.counts]), column.date_formats[0])
    elif column.is_number and _OF_TIME.fullmatch(column.name):
        times = _numbers(column, numbers)
    else:
        return ""
    if len(times) > 1 and ((np.diff(times) > 0).all() or (np.diff(times) < 0).all()):
        return "in order"
    return "date" if column.date_formats and column.name not in excluded else ""


def _groups(column: Column, excluded: Mapping[str, str]) -> str:
    """Describe the number of values of a column that seems to name groups of rows; an empty text for another one."""
    if column.date_formats or column.unusable or len(column.counts) < 3 or column.n_known < 2 * len(column.counts):
        return ""
    is_text = column.name in excluded and column.n_texts > 0
    is_named = _OF_GROUP.fullmatch(column.name) is not None and (column.is_whole or column.n_texts > 0)
    number = f"more than {len(column.counts):,}" if column.is_many else f"{len(column.counts):,}"
    return f"{number} values" if is_text or is_named else ""


def _logarithm(target: Column, numbers: Numbers) -> str:
    """Return the transform after which a skewed target is less skewed, or an empty text."""
    values = np.repeat(_numbers(target, numbers), list(target.counts.values()))
    values = values[~np.isnan(values)]
    if target.n_known < FEWEST_VALUES or target.minimum < 0 or _skewness(values) < SKEWED:
        return ""
    name, logs = ("log", np.log) if target.minimum > 0 else ("log1p", np.log1p)
    return name if abs(_skewness(logs(values))) < _skewness(values) / 2 else ""


def _are_days(column: Column) -> bool:
    """Return whether all whole numbers of a column are dates as 20240131."""
    values = [str(value) for value in column.counts]
    if not column.is_number or not all(re.fullmatch(r"(1[89]|2[01])\d{6}", value) for value in values):
        return False
    try:
        return bool(len(parse_dates(pa.array(values), "%Y%m%d")))
    except pa.ArrowInvalid:
        return False


def _numbers(column: Column, numbers: Numbers) -> NDArray[np.float64]:
    """Return the different values of a column of numbers, in order of appearance; NaN for text."""
    if all(isinstance(value, float) for value in column.counts):
        return np.array(list(column.counts), dtype=np.float64)
    return parse_numbers(pa.array([str(value) for value in column.counts]), numbers)


def _skewness(values: NDArray[np.float64]) -> float:
    centred = values - values.mean()
    deviation = float(np.sqrt((centred**2).mean()))
    return float((centred**3).mean()) / deviation**3 if deviation else 0.0


def notes(
    table: Profile, excluded: Mapping[str, str], features: Sequence[Column], suggested: Sequence[Suggestion]
) -> list[str]:
    """Return the notes on a table, a line each."""
    on_columns = [*_left_out(excluded), *_on_features(features)]
    more = len(on_columns) - MOST_NOTES
    shown = [
        *on_columns[:MOST_NOTES],
        *([f"and {more} more notes on columns; see the comments of the spec"] * (more > 0)),
    ]
    return [*_on_layout(table), *shown, *(f"consider {item.line}    # {item.why}" for item in suggested)]


def _on_layout(table: Profile) -> Iterator[str]:
    layout, numbers = table.format.layout, table.format.numbers
    if not layout.header:
        names = ", ".join(list(table.columns)[:3])
        yield f"the first row has numbers, so there is no header: the columns are {names}, ..."
    if layout.skip_lines:
        yield f"the first {layout.skip_lines} lines are skipped (skip_lines): they are above the header"
    if layout.comment:
        yield f"lines that begin with {layout.comment} are skipped (comment)"
    if layout.trailing_delimiter:
        yield "rows end with a delimiter (trailing_delimiter)"
    if layout.row_names:
        yield "the header has no name for the first column; it is called row_name (row_names)"
    if table.format.name == "csv" and table.format.delimiter == " ":
        yield "white space is between the columns (delimiter)"
    if numbers != Numbers():
        parts = [f"decimal sign {numbers.decimal}"]
        parts += [f"thousands separator {numbers.thousands!r}"] if numbers.thousands else []
        parts += [f"without {', '.join(numbers.strip)}"] if numbers.strip else []
        parts += ["(12) is -12"] if numbers.accounting else []
        yield f"numbers are written with {', '.join(parts)}"


def _left_out(excluded: Mapping[str, str]) -> Iterator[str]:
    for name, reason in excluded.items():
        yield f"left out: {short(name)}: {reason}"


def _on_features(features: Sequence[Column]) -> Iterator[str]:
    for column in features:
        name, most = short(column.name), max(column.counts.values(), default=0)
        if column.date_formats:
            yield f"{name}: a date, read as days since 1970"
            if len(column.date_formats) > 1 and "/" in column.date_formats[0]:
                yield f"{name}: day and month cannot be told apart; check date_format"
        elif _are_days(column):
            yield f'{name}: whole numbers that may be dates; consider dates: {name} and date_format: "%Y%m%d"'
        elif most > NEAR_CONSTANT * column.n_known:
            value = column.counts.most_common(1)[0][0]
            yield f"{name}: nearly constant, {most} of {column.n_known} rows have {short(value)}; consider exclude"
        single = [value for value, count in column.counts.items() if count == 1] if column.is_category else []
        if single:
            yield f"{name}: {len(single)} of its categories have a single row, such as {short(single[0])}"
