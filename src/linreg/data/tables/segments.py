"""Tables in segments, so that a process reads the rows of its shards only.

A segment is a row group of Parquet, also at a URL, or some bytes of a CSV file on a disk that end with a row. A file of
any other format, or a compressed one, is one segment: each process reads it, and keeps its own rows.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from linreg.data.shards import Shards
from linreg.data.sources import Block, blocks_between
from linreg.data.tables.formats import File, Span, spans_of

if TYPE_CHECKING:
    from linreg.data.tables.reading import Table


@dataclass(frozen=True)
class Segment:
    """A part of a file. n_rows: the rows that the table yields, without those it drops; n_in_file: all rows."""

    file: File
    span: Span | None
    n_rows: int
    n_in_file: int


def read_segments(table: "Table", files: Sequence[File], shards: Shards) -> list[Segment]:
    """Find the segments of files, and count their rows. Raises DataError.

    The row groups of Parquet know their sizes, unless rows are dropped. Otherwise the processes count the rows of some
    segments each, in one pass over the table."""
    found = [(file, span) for file in files for span in spans_of(file, table.format)]
    if table.missing != "drop" and all(span is not None and span.n_rows is not None for _, span in found):
        return [Segment(file, span, _size(span), _size(span)) for file, span in found]
    own = shards.part_of(len(found))
    counts = shards.share_lists([_count(table, *found[number]) for number in own])
    return [Segment(*place, *count) for place, count in zip(found, counts, strict=True)]


def _size(span: Span | None) -> int:
    return 0 if span is None else span.n_rows or 0


def _count(table: "Table", file: File, span: Span | None) -> tuple[int, int]:
    """Return the number of rows of a segment that the table yields, and the number of all."""
    n_rows = n_in_file = 0
    with closing(table.blocks_of(file, span, 0)) as blocks:
        for block, n_read, n_skipped in blocks:
            n_rows, n_in_file = n_rows + len(block.x), n_in_file + n_read + n_skipped
    return n_rows, n_in_file


def blocks_of_rows(table: "Table", segments: Sequence[Segment], rows: range) -> Iterator[Block]:
    """Read some rows of files in blocks; open no segment without them. Raises DataError."""
    first, wanted = 0, []
    in_file: dict[File, int] = {}
    for segment in segments:
        before = in_file.get(segment.file, 0)
        in_file[segment.file] = before + segment.n_in_file
        if first < rows.stop and first + segment.n_rows > rows.start:
            wanted.append((segment, first, before))
        first += segment.n_rows
    for file, group in groupby(wanted, key=lambda one: one[0].file):
        run = list(group)
        _, first, before = run[0]
        spans = [segment.span for segment, *_ in run]
        span = None if spans[0] is None else spans[0].until(spans[-1])
        with closing(table.blocks_of(file, span, before)) as blocks:
            yield from blocks_between((block for block, *_ in blocks), rows, first=first)
