"""Notes on a table: how it is read, what is left out and why, and what a spec could use. `linreg init` prints them."""

from collections.abc import Iterator, Mapping, Sequence

from linreg.data.tables.column import Column, short
from linreg.data.tables.formats import Numbers
from linreg.data.tables.profile import Profile

NEAR_CONSTANT = 0.99  # share of one value
MANY_MAGNITUDES = 100.0  # ratio of the largest and the smallest target
MOST_NOTES = 20  # on columns


def notes(table: Profile, excluded: Mapping[str, str], features: Sequence[Column]) -> list[str]:
    """Return the notes on a table, a line each."""
    on_columns = [*_left_out(excluded), *_on_features(features), *_on_groups(table)]
    more = len(on_columns) - MOST_NOTES
    shown = [
        *on_columns[:MOST_NOTES],
        *([f"and {more} more notes on columns; see the comments of the spec"] * (more > 0)),
    ]
    return [*_on_layout(table), *shown, *_on_targets(table), *_on_time(features)]


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
            yield (
                f"{name}: a date, read as days since 1970; for its parts add to data "
                f"transforms: [{{name: date_parts, columns: {name}}}]"
            )
            if len(column.date_formats) > 1 and "/" in column.date_formats[0]:
                yield f"{name}: day and month cannot be told apart; check date_format"
        elif most > NEAR_CONSTANT * column.n_known:
            value = column.counts.most_common(1)[0][0]
            yield f"{name}: nearly constant, {most} of {column.n_known} rows have {short(value)}; consider exclude"
        single = [value for value, count in column.counts.items() if count == 1] if column.is_category else []
        if single:
            yield f"{name}: {len(single)} of its categories have a single row, such as {short(single[0])}"


def _on_groups(table: Profile) -> Iterator[str]:
    for column in table.columns.values():
        n_values = len(column.counts)
        repeats = not column.is_many and 10 <= n_values <= column.n_known / 3
        if column.name.lower().endswith(("_id", "id")) and repeats:
            yield (
                f"{short(column.name)}: {n_values} values in {column.n_known} rows; if rows of one value are alike, "
                f"set data.split.by: {{group: {short(column.name)}}}"
            )


def _on_targets(table: Profile) -> Iterator[str]:
    for name in table.targets:
        column = table.columns[name]
        if column.minimum > 0 and column.maximum > MANY_MAGNITUDES * column.minimum:
            yield (
                f"{short(name)}: from {column.minimum:g} to {column.maximum:g}; if errors grow with it, "
                "set data.target_transform: {name: log}"
            )


def _on_time(features: Sequence[Column]) -> Iterator[str]:
    dates = [column for column in features if column.date_formats]
    if dates:
        yield f"to validate on the latest rows, set data.split.by: {{time: {short(dates[0].name)}}}"
