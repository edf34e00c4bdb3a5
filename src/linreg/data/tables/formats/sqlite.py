"""SQLite databases: a table, or the result of a query. The database is opened read-only."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from linreg.data.tables.formats.batch import BLOCK_ROWS, Batch, Columns, Format
from linreg.data.tables.formats.files import File
from linreg.data.tables.formats.values import values_batch
from linreg.errors import DataError, suggest


def column_names(file: File, format: Format) -> list[str]:
    """Read the names of the columns of the table or query."""
    with closing(_open(file)) as database, closing(database.execute(_query(file, format, database))) as cursor:
        return [name for name, *_ in cursor.description]


def read(file: File, format: Format, columns: Columns) -> Iterator[Batch]:
    """Read the rows in batches. Raises DataError for bad cells."""
    with closing(_open(file)) as database, closing(database.execute(_query(file, format, database))) as cursor:
        names, first = [name for name, *_ in cursor.description], 0
        while rows := cursor.fetchmany(BLOCK_ROWS):
            values = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
            yield values_batch(file, format, columns, values, first)
            first += len(rows)


def _open(file: File) -> sqlite3.Connection:
    assert isinstance(file, Path)  # standard input is no database
    database = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)
    database.set_authorizer(_allow)
    return database


def _allow(action: int, *_: Any) -> int:
    """Let a query read this database only."""
    reads = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE)
    return sqlite3.SQLITE_OK if action in reads else sqlite3.SQLITE_DENY


def _query(file: File, format: Format, database: sqlite3.Connection) -> str:
    """Return the query for the rows. Raises DataError for an unknown table, or a choice between several."""
    if format.query:
        return format.query
    found = database.execute(
        "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite_%'"
    )
    tables = [name for (name,) in found]
    if not tables:
        raise DataError(f"{file}: a database without a table; name another file")
    if not format.table and len(tables) > 1:
        raise DataError(f"{file}: has the tables {', '.join(tables)}; set table: {tables[0]}, or query")
    table = format.table or tables[0]
    if table not in tables:
        raise DataError(f"{file}: has no table {table!r}; {suggest(table, tables)}")
    return 'SELECT * FROM "{}"'.format(table.replace('"', '""'))
