"""Workbooks of Excel and OpenDocument, read by python-calamine."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from linreg.data.tables.formats.batch import BLOCK_ROWS, Batch, Columns, Format
from linreg.data.tables.formats.files import File
from linreg.data.tables.formats.values import values_batch
from linreg.errors import DataError, suggest

INSTALL = "reading a workbook needs python-calamine; pip install 'linreg[excel]', or save the sheet as CSV"


def column_names(file: File, format: Format) -> list[str]:
    """Read the first row with a cell."""
    return _header(next(_rows(file, format), []))


def read(file: File, format: Format, columns: Columns) -> Iterator[Batch]:
    """Read the rows below the header in batches, without blank rows at the end. Raises DataError for bad cells."""
    rows = _rows(file, format)
    names, first = _header(next(rows, [])), 0
    while block := list(islice(rows, BLOCK_ROWS)):
        columns_of = dict(zip(names, map(list, zip(*block, strict=True)), strict=False))
        yield values_batch(file, format, columns, columns_of, first)
        first += len(block)


def _header(row: list[Any]) -> list[str]:
    width = max((position + 1 for position, value in enumerate(row) if value is not None), default=0)
    return ["" if value is None else str(value) for value in row[:width]]


def _rows(file: File, format: Format) -> Iterator[list[Any]]:
    """Read the rows with a cell; an empty cell is None. Raises DataError."""
    try:
        import python_calamine
    except ImportError:
        raise DataError(f"{file}: {INSTALL}") from None
    assert isinstance(file, Path)
    try:
        workbook = python_calamine.CalamineWorkbook.from_path(str(file))
    except (python_calamine.CalamineError, OSError) as error:
        raise DataError(f"{file}: cannot be read as a workbook: {error}; save the sheet as CSV") from None
    names = workbook.sheet_names
    if format.table and format.table not in names:
        raise DataError(f"{file}: has no sheet {format.table!r}; {suggest(format.table, names)}")
    sheet = workbook.get_sheet_by_name(format.table or names[0])
    for row in sheet.iter_rows():
        cells = [None if value == "" else value for value in row]
        if any(value is not None for value in cells):
            yield cells
