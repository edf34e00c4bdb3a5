"""Apache Parquet."""

from collections.abc import Iterator

from linreg.data.tables.formats.batch import BLOCK_ROWS, Batch, Columns, Format, Span
from linreg.data.tables.formats.files import File, open_native
from linreg.data.tables.formats.typed import typed_batch
from linreg.data.tables.remote import Remote


def column_names(file: File, format: Format) -> list[str]:
    """Read the column names."""
    from pyarrow import parquet  # takes long to import

    with open_native(file) as stream:
        return list(parquet.ParquetFile(stream).schema_arrow.names)


def spans(file: File, format: Format) -> list[Span]:
    """Return the row groups of a file."""
    from pyarrow import parquet

    with open_native(file) as stream:
        metadata = parquet.ParquetFile(stream).metadata
        return [Span(i, i + 1, metadata.row_group(i).num_rows) for i in range(metadata.num_row_groups)]


def read(file: File, format: Format, columns: Columns, span: Span | None = None, first: int = 0) -> Iterator[Batch]:
    """Read the rows in batches. span: only these row groups, of which the first begins with row `first`. Raises
    DataError for bad cells."""
    from pyarrow import parquet

    with open_native(file) as stream:
        is_remote = isinstance(file, Remote)
        # pre_buffer requests the columns of some row groups together, and keeps them in memory until the next ones
        opened = parquet.ParquetFile(stream, pre_buffer=is_remote)
        groups = range(opened.num_row_groups) if span is None else range(span.start, span.stop)
        for some in [[group] for group in groups] if is_remote else [list(groups)]:
            for batch in opened.iter_batches(batch_size=BLOCK_ROWS, columns=columns.all, row_groups=some):
                yield typed_batch(file, format, columns, {name: batch[name] for name in columns.all}, first)
                first += len(batch)
