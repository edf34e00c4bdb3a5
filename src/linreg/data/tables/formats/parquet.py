"""Apache Parquet."""

from collections.abc import Iterator

from linreg.data.tables.formats.batch import BLOCK_ROWS, Batch, Columns, Format
from linreg.data.tables.formats.files import File, open_native
from linreg.data.tables.formats.typed import typed_batch


def column_names(file: File, format: Format) -> list[str]:
    """Read the column names."""
    from pyarrow import parquet  # takes long to import

    with open_native(file) as stream:
        return list(parquet.ParquetFile(stream).schema_arrow.names)


def read(file: File, format: Format, columns: Columns) -> Iterator[Batch]:
    """Read the rows in batches. Raises DataError for bad cells."""
    from pyarrow import parquet

    with open_native(file) as stream:
        first = 0
        for batch in parquet.ParquetFile(stream).iter_batches(batch_size=BLOCK_ROWS, columns=columns.all):
            yield typed_batch(file, format, columns, {name: batch[name] for name in columns.all}, first)
            first += len(batch)
