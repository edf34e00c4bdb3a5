"""What a split takes from a table: the column that decides about the parts, and the files of separate parts."""

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from linreg.data.sources import no_part
from linreg.data.split import Column
from linreg.data.tables import cells
from linreg.data.tables.formats import Format, StandardInput, canonical_name
from linreg.data.tables.formats.quotes import unquoted
from linreg.data.tables.formats.typed import as_float64, decoded, is_number, is_text, to_numpy
from linreg.data.tables.paths import common_columns, files_of, is_same, refuse_names, refuse_other_content
from linreg.data.tables.reading import Table

_Convert = Callable[[Any, Format], NDArray[np.float64] | None]


def with_files(table: Table, *, val: str | Sequence[str] | None, test: str | Sequence[str] | None) -> Table:
    """Add the files of the validation and the test part to a table. Raises DataError, and ValueError for a file that
    lacks a column or is used twice."""
    used = [file for file in table.files if not isinstance(file, StandardInput)]
    parts = []
    for key, path in (("val", val), ("test", test)):
        files = [] if path is None else files_of(path, table.format)
        if files:
            for file in files:
                refuse_other_content(file, table.format)
                if any(is_same(file, other) for other in used):
                    raise ValueError(f"{key}: {file} is also in another part; remove it from one")
                used.append(file)
            known = common_columns(files, table.format)
            weight = [table.sample_weight] if table.sample_weight else []
            needed = [*table.feature_names, *table.target_names, *weight]
            refuse_names(key, [name for name in needed if name not in known][:1], known, files[0])
        parts.append(tuple(files))
    return replace(table, part_files=(parts[0], parts[1]))


def read_column(table: Table, name: str) -> Column:
    """Read a column of the rows that the table yields. Raises ValueError for an unknown column, DataError for a gap."""
    name = canonical_name(name)
    refuse_names("by", [name], common_columns(table.files, table.format), table.files[0])
    if table.missing == "drop":  # the same rows as without the column
        alone = replace(table, part_files=((), ()), keep=(name,))
    else:
        empty: dict[str, Any] = {"feature_names": (), "target_names": (), "categorical": (), "dates": ()}
        alone = replace(table, part_files=((), ()), keep=(name,), sample_weight=None, missing="keep", **empty)
    tries: list[_Convert] = [_as_days, _as_numbers] if name in table.dates else [_as_numbers, _as_days]
    for convert in [] if name in table.categorical else tries:
        values = _converted(alone, name, convert)
        if values is not None:
            return Column(values, is_number=True)
    positions: dict[str, int] = {}
    values = _converted(alone, name, lambda column, format: _as_codes(column, format, positions))
    assert values is not None
    return Column(values, is_number=False)


def _converted(table: Table, name: str, convert: _Convert) -> NDArray[np.float64] | None:
    """Convert a column block by block (n_rows,). Returns None if a block cannot be converted."""
    parts = []
    with closing(table.blocks()) as blocks:
        for block in blocks:
            part = convert(decoded(block.kept[name]), table.format)
            if part is None:
                return None
            if np.isnan(part).any():
                raise no_part(block.where(int(np.nonzero(np.isnan(part))[0][0])), name)
            parts.append(part)
    return np.concatenate(parts)


def _as_numbers(column: Any, format: Format) -> NDArray[np.float64] | None:
    if is_number(column.type):
        return to_numpy(as_float64(column))
    if not is_text(column.type):
        return np.full(len(column), np.nan) if pa.types.is_null(column.type) else None
    texts = cells.with_gaps(cells.without_blanks(column), format.missing_values)
    return None if cells.are_wrong(texts, format.numbers).any() else cells.parse_numbers(texts, format.numbers)


def _as_days(column: Any, format: Format) -> NDArray[np.float64] | None:
    if pa.types.is_date(column.type) or pa.types.is_timestamp(column.type):
        return cells.days(column)
    if not is_text(column.type):
        return None
    try:
        texts = cells.with_gaps(cells.without_blanks(column), format.missing_values)
        return cells.parse_dates(texts, format.date_format)
    except pa.ArrowInvalid:
        return None


def _as_codes(column: Any, format: Format, positions: dict[str, int]) -> NDArray[np.float64]:
    """Return the number of each text, in order of first appearance, NaN for a gap. Adds new texts to the positions."""
    texts = column if is_text(column.type) else column.cast(pa.string())
    texts = unquoted(texts) if format.name == "csv" else texts
    encoded = cells.with_gaps(cells.without_blanks(texts), format.missing_values).dictionary_encode()
    codes = [
        float(positions.setdefault(cells.canonical(text), len(positions))) for text in encoded.dictionary.to_pylist()
    ]
    indices = encoded.indices.to_numpy(zero_copy_only=False).astype(np.float64)  # NaN where null
    known = ~np.isnan(indices)
    indices[known] = np.array(codes)[indices[known].astype(np.int64)] if codes else 0.0
    return np.asarray(indices)
