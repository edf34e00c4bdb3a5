"""A first spec for a table: settings that train well as they are, and what its columns hold as comments."""

import re
from collections.abc import Mapping, Sequence
from itertools import islice
from math import ceil
from pathlib import Path

from linreg.data.tables.looking import Column, Look, look_at, short
from linreg.data.tables.paths import SUFFIXES
from linreg.data.tables.reading import open_table
from linreg.errors import DataError, UsageError, show
from linreg.spec.document import MAX_BYTES, write_yaml
from linreg.spec.schema import NAME_PATTERN

MOST_STEPS, FEWEST_EPOCHS, MOST_EPOCHS = 20_000, 20, 1_000
FEWEST_ROWS_FOR_MLP = 200
MOST_GAPS = 0.2  # of a feature, where rows with a gap are dropped
RARE = 5  # rows; a category of fewer may be missing from the training part
MOST_TOLD = 200  # columns whose facts are told: a spec has no more than 100,000 bytes


def starter_spec(
    path: str, *, targets: Sequence[str], name: str | None, delimiter: str | None, missing_values: Sequence[str]
) -> str:
    """Look at the table at `path` and write a commented spec for it, in YAML. Raises DataError, UsageError."""
    name = _name_of(Path(path)) if name is None else name
    delimiter = "\t" if delimiter == "\\t" else delimiter  # as shells have it
    _refuse_options(targets, name, delimiter)
    look = look_at(path, targets=targets, delimiter=delimiter, missing_values=missing_values)
    for target in targets:
        _refuse_target(look, look.columns[target])
    gaps_in_target = sum(look.columns[target].n_gaps for target in targets)
    excluded = _excluded(look, targets, drops=gaps_in_target > 0)
    features = [column for name, column in look.columns.items() if name not in excluded and name not in targets]
    if not features:
        why = "; ".join(f"{short(name)}: {reason}" for name, reason in list(excluded.items())[:3])
        raise DataError(f"{path}: no column is left to learn from{f' ({why})' if why else ''}; give it a feature")
    missing = "drop" if gaps_in_target else "median" if any(column.n_gaps for column in features) else "error"
    categorical = [column for column in features if not column.is_number]
    usable = _usable(look, targets, list(excluded), [column.name for column in categorical], missing)

    source = ["name: " + look.format.name, "path: " + _scalar(path)]
    source += ["target: " + (_scalar(targets[0]) if len(targets) == 1 else _sequence(targets))]
    source += _block("exclude", excluded)
    source += _block("categorical", {column.name: f"{len(column.counts)} names" for column in categorical})
    source += [f"{key}: {_scalar(value)}" for key, value in _reading(look).items()]
    if look.format.missing_values:
        source += [f"missing_values: {_sequence(look.format.missing_values)}    # what stands for a gap"]
    if missing == "drop":
        source += ["missing: drop    # rows with a gap are left out: a target cannot be filled in"]
    elif missing == "median":
        with_gaps = [column for column in features if column.n_gaps]
        n_gaps = sum(column.n_gaps for column in with_gaps)
        what = f"{_count(n_gaps, 'gap')} in {_count(len(with_gaps), 'feature')}"
        source += [
            f"missing: median    # {what}; each gets the median, or the most frequent name, of the training part"
        ]
    rare = [column.name for column in categorical if min(column.counts.values()) < RARE]
    if rare or (categorical and look.more):
        why = f"some names of {short(rare[0])} come in few rows" if rare else "names may come in the rows not looked at"
        source += [f"unseen: zeros    # {why}, and may be missing from the training part"]

    batch_size = 32 if usable < 5_000 else 256 if usable < 200_000 else 1024
    steps = ceil(0.8 * usable / batch_size)
    epochs = min(MOST_EPOCHS, max(FEWEST_EPOCHS, MOST_STEPS // steps))
    mlp, linear = "{name: mlp, hidden: [64, 64]}", "{name: linear}"
    is_mlp = usable >= FEWEST_ROWS_FOR_MLP
    model, other = (mlp, linear) if is_mlp else (linear, mlp)
    alternative = "a plane, easier to explain" if is_mlp else "a network, for curves; it needs more rows than these"
    lines = [
        *_head(look, targets, excluded, usable),
        f"name: {_scalar(name)}",
        f"epochs: {epochs}    # of {_count(steps, 'step')} each, at most",
        "data:",
        "  source:",
        *(f"    {line}" for line in source),
        "  split: {train_ratio: 0.8}",
        f"  batch_size: {batch_size}",
        "  standardize: true    # features and target on one scale; predictions are in the target's own units",
        f"model: {model}",
        f"# model: {other}    # {alternative}",
        f"optimizer: {{name: adam, lr: {0.003 if is_mlp else 0.01}}}",
        f"early_stopping: {{patience: {max(5, min(50, epochs // 4))}}}    # epochs without a better validation loss",
        "# solver: exact    # with model: {name: linear}: the least squares optimum at once, with standard errors",
    ]
    text = "\n".join(lines)
    if len(text.encode()) > MAX_BYTES:
        what = f"its {len(look.columns):,} columns make a spec of more than {MAX_BYTES:,} bytes"
        raise DataError(f"{path}: {what}; leave out those that are not to be learnt from")
    return text


def _name_of(path: Path) -> str:
    """Make a name for the experiment from the name of the table."""
    stem = path.absolute().name
    ending = next((e for endings in SUFFIXES.values() for e in endings if stem.lower().endswith(e)), "")
    return (
        re.sub(r"[^A-Za-z0-9._-]+", "_", stem.removesuffix(stem[len(stem) - len(ending) :])).strip("._-")[:64]
        or "table"
    )


def _refuse_options(targets: Sequence[str], name: str, delimiter: str | None) -> None:
    if not re.fullmatch(NAME_PATTERN, name):
        raise UsageError(f"--name {show(name)}: not 1 to 64 letters, digits, '.', '_' and '-'; choose another")
    if delimiter is not None and len(delimiter) != 1:
        raise UsageError(f"--delimiter {show(delimiter)}: not one character; write for instance ';'")
    twice = [target for target in targets if targets.count(target) > 1]
    if twice:
        raise UsageError(f"--target {twice[0]}: named twice; name each column once")


def _refuse_target(look: Look, column: Column) -> None:
    if column.is_number:
        return
    where = f"{look.path}: target {short(column.name)}"
    if column.unusable:
        raise DataError(f"{where}: holds {column.unusable}, not numbers; name another column")
    if not column.n_known:
        raise DataError(f"{where}: has nothing but gaps; name another column")
    if column.n_numbers > column.n_texts:
        what = f"{_count(column.n_texts, 'cell')} not a number, such as {show(column.stray)}"
        raise DataError(f"{where}: {what}; mend the table, or add --missing-value {column.stray!r} if it is a gap")
    raise DataError(f"{where}: is text, such as {show(column.stray)}; name a column of numbers")


def _excluded(look: Look, targets: Sequence[str], *, drops: bool) -> dict[str, str]:
    """The columns not to learn from, each with the reason."""
    excluded: dict[str, str] = {}
    met = {look.columns[target].content: f"the same as the target {short(target)}" for target in targets}
    for name, column in look.columns.items():
        if name in targets:
            continue
        share = column.n_gaps / look.looked
        same = None if column.unusable else met.setdefault(column.content, f"the same as {short(name)}")
        reason = column.useless()
        if not reason and same != f"the same as {short(name)}":
            reason = same or ""
        if not reason and drops and share > MOST_GAPS:
            reason = f"{share:.0%} gaps, and a row with a gap is left out"
        if reason:
            excluded[name] = reason
    return excluded


def _usable(
    look: Look, targets: Sequence[str], excluded: Sequence[str], categorical: Sequence[str], missing: str
) -> int:
    """Read the rows looked at as the spec will have them read; how many rows of the table that leaves."""
    table = open_table(
        look.path,
        look.format,
        target=targets,
        features=None,
        exclude=excluded,
        categorical=categorical,
        sample_weight=None,
        missing=missing,
        unseen="zeros",
    )
    usable = sum(len(block.x) for block in islice(table.blocks(), look.n_blocks))
    if usable < 2:
        raise DataError(f"{look.path}: {_count(usable, 'row')} without a gap; there must be at least two")
    return round(usable / look.n_read * look.n_rows)


def _reading(look: Look) -> dict[str, str]:
    """The params that say how the file is to be read, where they are not the defaults."""
    if look.format.name != "csv":
        return {}
    given = {"delimiter": look.format.delimiter, "decimal": look.format.decimal, "encoding": look.format.encoding}
    defaults = {"delimiter": ",", "decimal": ".", "encoding": "utf-8"}
    return {key: value for key, value in given.items() if value != defaults[key]}


def _head(look: Look, targets: Sequence[str], excluded: Mapping[str, str], usable: int) -> list[str]:
    """The comments at the head: the table, and what each column holds."""
    rows = f"{look.looked:,} rows"
    if look.more:
        about = float(f"{look.n_rows:.2g}")
        rows = f"more than {look.looked:,} rows, about {about:,.0f}, of which the first {look.looked:,} were looked at"
    used = "" if usable == look.n_rows or look.more else f", {usable:,} of them usable"
    names = {name: short(name) for name in list(look.columns)[:MOST_TOLD]}
    width = max(map(len, names.values()))
    said = [
        f"#   {shown:{width}}  {'target, ' * (name in targets)}{look.columns[name].facts(is_target=name in targets)}"
        f"{', excluded' * (name in excluded)}"
        for name, shown in names.items()
    ]
    rest = len(look.columns) - len(names)
    return [
        f"# A first spec for {short(Path(look.path).name)}: {rows}{used}; {_count(len(look.columns), 'column')}.",
        *said,
        *([f"#   and {_count(rest, 'more column')}"] if rest else []),
    ]


def _block(key: str, items: Mapping[str, str]) -> list[str]:
    """Write a list, an item a line, each with a comment."""
    return [f"{key}:", *(f"  - {_scalar(item)}    # {comment}" for item, comment in items.items())] if items else []


def _sequence(items: Sequence[str]) -> str:
    return f"[{', '.join(map(_scalar, items))}]"


def _scalar(text: str) -> str:
    """Write text as YAML that is read back as the same, wherever it stands."""
    written = write_yaml([text]).strip()  # as - text, or as [text]
    written = written[2:] if written.startswith("- ") else written[1:-1]
    return written.replace("\n", "\n          ")  # folded where it is long


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"
