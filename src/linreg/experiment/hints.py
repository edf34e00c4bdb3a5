"""Notes on a table: how it is read, what is left out and why, and what a spec could use. `linreg init` prints them."""

from collections.abc import Iterator, Mapping, Sequence

from linreg.data.tables.column import Column, short
from linreg.data.tables.formats import Numbers
from linreg.data.tables.profile import Profile

NEAR_CONSTANT = 0.99  # share of one value
MOST_NOTES = 20  # on columns


def notes(table: Profile, excluded: Mapping[str, str], features: Sequence[Column]) -> list[str]:
    """Return the notes on a table, a line each."""
    on_columns = [*_left_out(excluded), *_on_features(features)]
    more = len(on_columns) - MOST_NOTES
    shown = [
        *on_columns[:MOST_NOTES],
        *([f"and {more} more notes on columns; see the comments of the spec"] * (more > 0)),
    ]
    return [*_on_layout(table), *shown]


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
        elif most > NEAR_CONSTANT * column.n_known:
            value = column.counts.most_common(1)[0][0]
            yield f"{name}: nearly constant, {most} of {column.n_known} rows have {short(value)}; consider exclude"
        single = [value for value, count in column.counts.items() if count == 1] if column.is_category else []
        if single:
            yield f"{name}: {len(single)} of its categories have a single row, such as {short(single[0])}"
