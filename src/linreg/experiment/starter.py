"""Starter spec for a table, with comments on its columns: `linreg init`."""

import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from itertools import islice
from math import ceil
from pathlib import Path
from typing import Any

from linreg.data.tables.column import Column, short
from linreg.data.tables.formats import Layout, Numbers
from linreg.data.tables.paths import ALL_SUFFIXES
from linreg.data.tables.profile import Profile, profile
from linreg.data.tables.reading import open_table
from linreg.data.tables.remote import recordable
from linreg.errors import DataError, UsageError, show
from linreg.experiment.hints import Suggestion, notes, suggestions
from linreg.spec.document import MAX_BYTES, write_yaml
from linreg.spec.schema import NAME_PATTERN

log = logging.getLogger("linreg")

MOST_STEPS, FEWEST_EPOCHS, MOST_EPOCHS = 20_000, 20, 1_000
FEWEST_ROWS_FOR_MLP = 200
MOST_GAPS = 0.2  # of a feature, if rows with a gap are dropped
RARE = 5  # rows; the training part may lack a category with fewer
MOST_DESCRIBED = 200  # columns with a comment; a spec has at most 100,000 bytes


def starter_spec(
    path: str, *, targets: Sequence[str], name: str | None, delimiter: str | None, missing_values: Sequence[str]
) -> str:
    """Profile the table at `path` and return a spec for it as commented YAML. Raises DataError, UsageError."""
    try:
        recordable(path)
    except ValueError as error:
        raise UsageError(str(error)) from None
    name = _name_of(Path(path)) if name is None else name
    delimiter = "\t" if delimiter == "\\t" else delimiter  # a shell passes \t as it is
    _refuse_options(targets, name, delimiter)
    table = profile(path, targets=targets, delimiter=delimiter, missing_values=missing_values)
    targets = table.targets
    for target in targets:
        _refuse_target(table, table.columns[target])
    drops = any(table.columns[target].n_gaps for target in targets)
    date_format = _date_format(table)
    excluded = _excluded(table, targets, date_format, drops=drops)
    features = [column for name, column in table.columns.items() if name not in excluded and name not in targets]
    if not features:
        why = "; ".join(f"{short(name)}: {reason}" for name, reason in list(excluded.items())[:3])
        raise DataError(f"{path}: no column is left as a feature{f' ({why})' if why else ''}; add one")
    missing = "drop" if drops else "median" if any(column.n_gaps for column in features) else "error"
    usable = _count_usable(table, excluded, features, missing, date_format)
    suggested = suggestions(table, excluded, _scalar)
    lines = [
        *_head(table, targets, excluded, usable),
        f"name: {_scalar(name)}",
        *_settings(usable, _source(table, targets, excluded, features, missing, date_format), suggested),
    ]
    text = "\n".join(lines)
    if len(text.encode()) > MAX_BYTES:
        what = f"{len(table.columns):,} columns make a spec of more than {MAX_BYTES:,} bytes"
        raise DataError(f"{path}: {what}; remove columns that are not features")
    for note in notes(table, excluded, features, suggested):
        log.info("%s", note)
    return text


def _date_format(table: Profile) -> str:
    """Return the format of the dates, the most frequent among the columns, ISO 8601 if there are none."""
    formats = Counter(format for column in table.columns.values() for format in column.date_formats)
    return formats.most_common(1)[0][0] if formats else ""


def _name_of(path: Path) -> str:
    """Make a name for the experiment from the name of the table."""
    file_name = path.absolute().name
    suffix = next((suffix for suffix in ALL_SUFFIXES if file_name.lower().endswith(suffix)), "")
    stem = file_name[: len(file_name) - len(suffix)]
    return re.sub(r"[^A-Za-z0-9._-]+", "_", stem).strip("._-")[:64] or "table"


def _refuse_options(targets: Sequence[str], name: str, delimiter: str | None) -> None:
    if not re.fullmatch(NAME_PATTERN, name):
        raise UsageError(f"--name {show(name)}: must be 1 to 64 letters, digits, '.', '_' and '-'; choose another")
    if delimiter is not None and len(delimiter) != 1:
        raise UsageError(f"--delimiter {show(delimiter)}: must be one character, such as ';'")
    duplicates = [target for target in targets if targets.count(target) > 1]
    if duplicates:
        raise UsageError(f"--target {duplicates[0]}: duplicate column; remove one")


def _refuse_target(table: Profile, column: Column) -> None:
    """Raise a DataError for a target that is not a column of numbers."""
    if column.is_number:
        return
    where = f"{table.path}: target {short(column.name)}"
    if column.unusable:
        raise DataError(f"{where}: has type {column.unusable}, not numbers; name another column")
    if not column.n_known:
        raise DataError(f"{where}: has only gaps; name another column")
    if column.n_numbers > column.n_texts:
        what = f"{_count(column.n_texts, 'cell')} not a number, such as {show(column.stray)}"
        raise DataError(f"{where}: {what}; fix the table, or add --missing-value {column.stray!r} if it is a gap")
    raise DataError(f"{where}: is text, such as {show(column.stray)}; name a column of numbers")


def _excluded(table: Profile, targets: Sequence[str], date_format: str, *, drops: bool) -> dict[str, str]:
    """Return the columns that cannot be features, with the reason. drops: whether rows with a gap are dropped."""
    excluded: dict[str, str] = {}
    first_with = {table.columns[target].content: f"target {short(target)}" for target in targets}
    for name, column in table.columns.items():
        if name in targets:
            continue
        reason = column.useless()
        if column.date_formats and date_format not in column.date_formats:
            reason = f"dates as {column.date_formats[0] or 'ISO 8601'}, and date_format is {date_format or 'ISO 8601'}"
        same = short(name) if column.unusable else first_with.setdefault(column.content, short(name))
        share = column.n_gaps / table.n_profiled
        if not reason and same != short(name):
            reason = f"equal to {same}"
        if not reason and drops and share > MOST_GAPS:
            reason = f"{share:.0%} gaps, and rows with a gap are dropped"
        if reason:
            excluded[name] = reason
    return excluded


def _count_usable(
    table: Profile, excluded: Mapping[str, str], features: Sequence[Column], missing: str, date_format: str
) -> int:
    """Read the profiled rows as the spec does. Returns the number of usable rows in the whole table, an estimate if the
    profile is partial. Raises DataError if there are fewer than two."""
    points = open_table(
        table.path,
        replace(table.format, date_format=date_format),
        target=table.targets,
        features=None,
        exclude=list(excluded),
        categorical=[column.name for column in features if column.is_category],
        dates=[column.name for column in features if column.date_formats],
        sample_weight=None,
        missing=missing,
        unseen="zeros",
    )
    usable = sum(len(block.x) for block in islice(points.blocks(), table.n_blocks))
    if usable < 2:
        raise DataError(f"{table.path}: {_count(usable, 'row')} without a gap; a table needs at least two")
    return round(usable / table.n_read * table.n_rows)


def _head(table: Profile, targets: Sequence[str], excluded: Mapping[str, str], usable: int) -> list[str]:
    """Write the comments at the head: the table, and the content of each column."""
    rows = f"{table.n_profiled:,} rows"
    if table.is_partial:
        about = float(f"{table.n_rows:.2g}")
        rows = f"about {about:,.0f} rows, described by the first {table.n_profiled:,}"
    used = "" if usable == table.n_rows or table.is_partial else f", {usable:,} of them usable"
    names = {name: short(name) for name in list(table.columns)[:MOST_DESCRIBED]}
    width = max(map(len, names.values()))
    described = [
        f"#   {shown:{width}}  {'target, ' * (name in targets)}"
        f"{table.columns[name].facts(is_target=name in targets)}{', excluded' * (name in excluded)}"
        for name, shown in names.items()
    ]
    rest = len(table.columns) - len(names)
    return [
        f"# Starter spec for {short(Path(table.path).name)}: {rows}{used}; {_count(len(table.columns), 'column')}.",
        *described,
        *([f"#   and {_count(rest, 'more column')}"] if rest else []),
    ]


def _source(
    table: Profile,
    targets: Sequence[str],
    excluded: Mapping[str, str],
    features: Sequence[Column],
    missing: str,
    date_format: str,
) -> list[str]:
    """Write the lines of data.source."""
    categorical = [column for column in features if column.is_category]
    lines = ["name: " + table.format.name, "path: " + _scalar(table.path)]
    lines += ["target: " + (_scalar(targets[0]) if len(targets) == 1 else _sequence(targets))]
    lines += _block("exclude", excluded)
    lines += _block("categorical", {column.name: f"{len(column.counts)} names" for column in categorical})
    lines += _block("dates", {column.name: "in days" for column in features if column.date_formats})
    lines += [f"date_format: {_scalar(date_format)}"] if date_format else []
    lines += _dialect(table)
    if table.format.missing_values:
        lines += [f"missing_values: {_sequence(table.format.missing_values)}    # these cells are gaps"]
    if missing == "drop":
        lines += ["missing: drop    # drops rows with a gap; a target is not filled in"]
    elif missing == "median":
        with_gaps = [column for column in features if column.n_gaps]
        n_gaps = sum(column.n_gaps for column in with_gaps)
        what = f"{_count(n_gaps, 'gap')} in {_count(len(with_gaps), 'feature')}"
        lines += [f"missing: median    # fills {what}: the median, or most frequent name, of the training part"]
    rare = [column.name for column in categorical if min(column.counts.values()) < RARE]
    if rare or (categorical and table.is_partial):
        which = f"rare names of {short(rare[0])}" if rare else "names in later rows"
        lines += [f"unseen: zeros    # {which} may be missing from the training part"]
    return lines


def _dialect(table: Profile) -> list[str]:
    """Write how the table is written, where it differs from the defaults."""
    lines, numbers = [], table.format.numbers
    if table.format.name == "csv":
        defaults: dict[str, Any] = {"delimiter": ",", "encoding": "utf-8", **asdict(Layout())}
        params = {"delimiter": table.format.delimiter, "encoding": table.format.encoding, **asdict(table.format.layout)}
        lines += [f"{key}: {_scalar(value)}" for key, value in params.items() if value != defaults[key]]
        if numbers.is_plain and numbers.decimal != ".":
            return [*lines, f"decimal: {_scalar(numbers.decimal)}"]
    if numbers != Numbers():
        lines.append(f"numbers: {_notation(numbers)}")
    return lines


def _notation(numbers: Numbers) -> str:
    """Write a notation of numbers as YAML."""
    parts = {
        key: _scalar(value) for key, value in (("thousands", numbers.thousands), ("decimal", numbers.decimal)) if value
    }
    if numbers.strip:
        parts["strip"] = _sequence(numbers.strip)
    if numbers.accounting:
        parts["accounting"] = "true"
    return f"{{{', '.join(f'{key}: {value}' for key, value in parts.items())}}}"


def _settings(usable: int, source: Sequence[str], suggested: Sequence[Suggestion]) -> list[str]:
    """Write the lines below the name: data, model and training for a number of usable rows."""
    batch_size = 32 if usable < 5_000 else 256 if usable < 200_000 else 1024
    steps = ceil(0.8 * usable / batch_size)
    epochs = min(MOST_EPOCHS, max(FEWEST_EPOCHS, MOST_STEPS // steps))
    mlp, linear = "{name: mlp, hidden: [64, 64]}", "{name: linear}"
    is_mlp = usable >= FEWEST_ROWS_FOR_MLP
    model, other = (mlp, linear) if is_mlp else (linear, mlp)
    alternative = "easier to explain" if is_mlp else "for nonlinear data; needs more rows"
    return [
        f"epochs: {epochs}    # at most; {_count(steps, 'step')} each",
        "data:",
        "  source:",
        *(f"    {line}" for line in source),
        "  split: {train_ratio: 0.8}",
        *(f"  # {item.line}    # {item.why}" for item in suggested),
        f"  batch_size: {batch_size}",
        "  standardize: true    # scales features and target; predictions are in the units of the target",
        f"model: {model}",
        f"# model: {other}    # {alternative}",
        f"optimizer: {{name: adam, lr: {0.003 if is_mlp else 0.01}}}",
        f"early_stopping: {{patience: {max(5, min(50, epochs // 4))}}}    # epochs without a better validation loss",
        "# solver: exact    # with model: {name: linear}: computes the least-squares fit and its standard errors",
    ]


def _block(key: str, items: Mapping[str, str]) -> list[str]:
    """Write a list with one item and its comment per line."""
    return [f"{key}:", *(f"  - {_scalar(item)}    # {comment}" for item, comment in items.items())] if items else []


def _sequence(items: Sequence[str]) -> str:
    return f"[{', '.join(map(_scalar, items))}]"


def _scalar(text: Any) -> str:
    """Write a value as YAML that is read back as the same value, in a block or in a flow sequence."""
    written = write_yaml([text]).strip()  # - text, or [text]
    written = written[2:] if written.startswith("- ") else written[1:-1]
    return written.replace("\n", "\n          ")  # YAML folds long text


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"
