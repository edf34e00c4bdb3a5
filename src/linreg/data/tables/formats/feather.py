"""Feather and Arrow's IPC file format."""

from collections.abc import Iterator

import pyarrow as pa

from linreg.data.tables.formats.batch import Batch, Columns, Format
from linreg.data.tables.formats.files import File, open_native
from linreg.data.tables.formats.typed import typed_batch


def column_names(file: File, format: Format) -> list[str]:
    """Read the column names."""
    with open_native(file) as stream:
        return list(pa.ipc.open_file(stream).schema.names)


def read(file: File, format: Format, columns: Columns) -> Iterator[Batch]:
    """Read the rows in batches. Raises DataError for bad cells."""
    with open_native(file) as stream:
        reader = pa.ipc.open_file(stream)
        first = 0
        for number in range(reader.num_record_batches):
            batch = reader.get_batch(number)
            yield typed_batch(file, format, columns, {name: batch[name] for name in columns.all}, first)
            first += len(batch)
