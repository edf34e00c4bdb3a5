"""A table as the points of a data set, read in blocks of rows. Columns are found by name.

The table sources open it for training, prediction and evaluation open one like it.
"""

import logging
from bisect import bisect_right
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from linreg.data.sources import Block, Points
from linreg.data.tables.formats import Batch, Columns, File, Format, Span, StandardInput, canonical_name, map_batches
from linreg.data.tables.formats.errors import refuse
from linreg.data.tables.paths import (
    common_columns,
    files_of,
    first_file,
    format_of,
    refuse_names,
    refuse_other_content,
    stamp_of,
    unchanged,
)
from linreg.data.tables.segments import Segment, blocks_of_rows, read_segments
from linreg.errors import DataError

if TYPE_CHECKING:
    from linreg.data.shards import Shards
    from linreg.data.split import Column

log = logging.getLogger("linreg")


@dataclass(frozen=True)
class Table(Points):
    """Files, read as one table. missing: also `keep`, for rows whose gaps stay; keep: columns that a prediction copies
    to its output. names: the positions of the categories by feature, in order of appearance. part_files: separate files
    of the validation and the test part, whose rows follow."""

    files: Sequence[File]
    format: Format
    feature_names: Sequence[str]
    target_names: Sequence[str]
    categorical: Sequence[str] = ()
    dates: Sequence[str] = ()
    sample_weight: str | None = None
    missing: str = "error"
    unseen: str = "error"
    keep: Sequence[str] = ()
    gap_hint: str = "add the value, or set missing: drop, mean or median"
    names: Mapping[str, dict[str, int]] = field(default_factory=dict)
    part_files: tuple[Sequence[File], Sequence[File]] = ((), ())
    sizes: list[int] = field(default_factory=list)
    segments: list[list[Segment]] = field(default_factory=list)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", {name: {} for name in self.categorical})
        object.__setattr__(self, "sizes", [])
        object.__setattr__(self, "segments", [])

    @property
    def categories(self) -> Mapping[str, Sequence[str]]:  # type: ignore[override]  # grows as the table is read
        """The categories in the rows read so far."""
        return {feature: list(positions) for feature, positions in self.names.items()}

    @property
    def columns(self) -> Columns:
        """The columns to read: as numbers, as text, unchanged, and as dates."""
        others = {*self.categorical, *self.dates}
        numbers = [name for name in self.feature_names if name not in others]
        numbers += [*self.target_names, *self._weights]
        return Columns(numbers, list(self.categorical), list(self.keep), list(self.dates))

    @property
    def _weights(self) -> list[str]:
        return [self.sample_weight] if self.sample_weight else []

    def blocks(self) -> Generator[Block, None, None]:
        """Read the files in order. Raises DataError, which lists at most ten bad cells."""
        sizes = []
        for files in (self.files, *self.part_files):
            n_usable = 0
            for block in self._blocks_of(files):
                n_usable += len(block.x)
                yield block
            sizes.append(n_usable)
        self.sizes[:] = sizes

    def count(self, shards: "Shards") -> Sequence[int]:
        """Find the segments of the files, and count their rows together with other processes. Raises DataError."""
        self.segments[:] = [read_segments(self, files, shards) for files in (self.files, *self.part_files)]
        for files, segments in zip((self.files, *self.part_files), self.segments, strict=True):
            _refuse_empty(files, sum(one.n_rows for one in segments), sum(one.n_in_file for one in segments))
        self.sizes[:] = [sum(one.n_rows for one in segments) for segments in self.segments]
        return self.sizes

    def between(self, group: int, rows: range) -> Iterator[Block]:
        """Read some rows of the files, after `count`. Raises DataError."""
        return blocks_of_rows(self, self.segments[group], rows)

    def blocks_of(self, file: File, span: Span | None, first: int) -> Generator[tuple[Block, int, int], None, None]:
        """Read a part of a file, which begins with row `first`, in blocks that may be empty, each with the number of
        rows that it is made from, and of rows that repeat the header. Raises DataError."""
        rows_of = map_batches(self._rows, file, self.format, self.columns, span, first)
        with unchanged(file), closing(rows_of) as batches:
            for rows in batches:
                yield self._block(rows, partial(_place, file, first, rows.skipped)), rows.n_rows, len(rows.skipped)
                first += rows.n_rows + len(rows.skipped)

    def _blocks_of(self, files: Sequence[File]) -> Generator[Block, None, None]:
        n_usable = n_rows = 0
        for file in files:
            with closing(self.blocks_of(file, None, 0)) as blocks:
                for block, n_read, _ in blocks:
                    n_rows, n_usable = n_rows + n_read, n_usable + len(block.x)
                    if len(block.x):
                        yield block
        _refuse_empty(files, n_usable, n_rows)

    def column(self, name: str) -> "Column":
        """Read a column of the files without those of separate parts, for the split."""
        from linreg.data.tables.split import read_column  # imports pyarrow.compute

        return read_column(self, name)

    def stamp(self) -> list[list[str | int]] | None:
        """Return the path, size in bytes and modification time in nanoseconds of each file; of a remote one its URL,
        size and ETag. Returns None if a web server sends nothing that identifies a file."""
        every = [file for files in (self.files, *self.part_files) for file in files]
        stamps = [stamp_of(file) for file in every if not isinstance(file, StandardInput)]
        known = [stamp for stamp in stamps if stamp is not None]
        return known if len(known) == len(stamps) else None

    def _rows(self, batch: Batch) -> "_Rows":
        """Make matrices of the columns, uninitialized for categories. Runs in any thread, in any order."""
        x, y, w = (self._matrix(batch, names) for names in (self.feature_names, self.target_names, self._weights))
        return _Rows(batch.n_rows, x, y, w[:, 0] if self._weights else None, batch.texts, batch.others, batch.skipped)

    def _matrix(self, batch: Batch, names: Sequence[str]) -> NDArray[np.float64]:
        matrix = np.empty((batch.n_rows, len(names)))
        for position, name in enumerate(names):
            if name not in self.names:
                matrix[:, position] = batch.numbers[name]
        return matrix

    def _block(self, rows: "_Rows", where: Callable[[int], str]) -> Block:
        """Encode the categories, then refuse or drop rows with a gap. Runs in the order of the rows."""
        x, y, weight, kept = rows.x, rows.y, rows.weight, rows.others
        for name in self.categorical:
            x[:, self.feature_names.index(name)] = self._codes(rows.texts[name], self.names[name])
        gaps = np.isnan(x).any() or np.isnan(y).any() or (weight is not None and np.isnan(weight).any())
        if gaps and self.missing not in ("drop", "keep"):
            self._refuse_gaps(x, y, weight, where)
        if weight is not None and (weight < 0).any():
            row = int(np.nonzero(weight < 0)[0][0])
            raise DataError(f"{where(row)}, column {self.sample_weight!r}: must be >= 0, got {weight[row]:g}; use 0")
        if not gaps or self.missing != "drop":
            return Block(x, y, weight, where, kept)
        dropped = np.isnan(x).any(axis=1) | np.isnan(y).any(axis=1) | (False if weight is None else np.isnan(weight))
        chosen = np.nonzero(~dropped)[0]
        kept = {name: column.take(pa.array(chosen)) for name, column in kept.items()}
        weight = None if weight is None else weight[chosen]
        return Block(x[chosen], y[chosen], weight, lambda row: where(int(chosen[row])), kept)

    def _codes(self, texts: Any, positions: dict[str, int]) -> NDArray[np.float64]:
        """Return the positions of categories (n,), NaN for a gap. Adds new categories to the positions."""
        from linreg.data.tables.cells import canonical  # imports pyarrow.compute

        encoded, codes = texts.dictionary_encode(), []
        gaps = {"", *self.format.missing_values}
        for value in encoded.dictionary.to_pylist():
            form = canonical(value)
            is_gap = value in gaps or value.strip() in gaps or form in gaps
            codes.append(np.nan if is_gap else positions.setdefault(form, len(positions)))
        indices = encoded.indices.to_numpy(zero_copy_only=False).astype(np.float64)  # NaN where null
        known = ~np.isnan(indices)
        indices[known] = np.array(codes, dtype=np.float64)[indices[known].astype(np.int64)] if codes else 0.0
        return np.asarray(indices)

    def _refuse_gaps(
        self, x: NDArray[Any], y: NDArray[Any], weight: NDArray[Any] | None, where: Callable[[int], str]
    ) -> None:
        """Raise a DataError that lists the gaps which are not filled in later."""
        parts: list[tuple[Sequence[str], NDArray[Any], str]] = [
            (self.target_names, y, "missing, and a target is not filled in; add the value, or set missing: drop"),
        ]
        if weight is not None and self.sample_weight is not None:
            problem = "missing, and a weight is not filled in; add the value, or set missing: drop"
            parts.append(([self.sample_weight], weight[:, None], problem))
        if self.missing == "error":
            parts.insert(0, (self.feature_names, x, f"missing; {self.gap_hint}"))
        problems = []
        for names, values, problem in parts:
            for row, column in zip(*np.nonzero(np.isnan(values)), strict=True):
                problems.append((row, f"{where(int(row))}, column {names[column]!r}: {problem}"))
        refuse([text for _, text in sorted(problems, key=lambda item: item[0])])


@dataclass(frozen=True)
class _Rows:
    """A batch as matrices: x (n_rows, n_features), y (n_rows, n_targets), weight (n_rows,) or None. skipped: as in
    `Batch`."""

    n_rows: int
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    weight: NDArray[np.float64] | None
    texts: Mapping[str, Any]
    others: Mapping[str, Any]
    skipped: Sequence[int]


def open_table(
    path: str | Sequence[str],
    format: Format,
    *,
    target: str | Sequence[str],
    features: str | Sequence[str] | None,
    exclude: str | Sequence[str],
    categorical: str | Sequence[str],
    dates: str | Sequence[str] = (),
    sample_weight: str | None,
    missing: str,
    unseen: str,
) -> Table:
    """Find the files and columns of a table; read no row. Raises DataError for files, ValueError for column names."""
    files = files_of(path, format)
    for file in files:
        refuse_other_content(file, format)
    known = common_columns(files, format)
    chosen = None if features is None else _list(features)
    listed = {
        "target": _list(target),
        "exclude": _list(exclude),
        "features": chosen or [],
        "categorical": _list(categorical),
        "dates": _list(dates),
        "sample_weight": [] if sample_weight is None else _list(sample_weight),
    }
    for key, names in listed.items():
        refuse_names(key, names, known, files[0])
    for key in ("features", "sample_weight"):
        both = [name for name in listed[key] if name in listed["target"]]
        if both:
            raise ValueError(f"{key}: {both[0]!r} is also a target; remove it from one")
    unused = {*listed["exclude"], *listed["sample_weight"]}
    if clash := [name for name in listed["features"] if name in unused]:
        raise ValueError(f"features: {clash[0]!r} is also in exclude or sample_weight; remove it from one")
    if chosen is None:
        chosen = [name for name in known if name not in {*listed["target"], *unused}]
        if not chosen:
            columns = ", ".join(known)
            raise ValueError(
                f"{files[0]}: no column is left as a feature; the columns are {columns}; or set features: []"
            )
    for key in ("categorical", "dates"):
        stray = [name for name in listed[key] if name not in chosen]
        if stray:
            raise ValueError(f"{key}: {stray[0]!r} is not a feature; remove it, or add it to features")
    if both := [name for name in listed["dates"] if name in listed["categorical"]]:
        raise ValueError(f"dates: {both[0]!r} is also in categorical; remove it from one")
    return Table(
        files,
        format,
        tuple(chosen),
        tuple(listed["target"]),
        categorical=tuple(listed["categorical"]),
        dates=tuple(listed["dates"]),
        sample_weight=None if sample_weight is None else listed["sample_weight"][0],
        missing=missing,
        unseen=unseen,
    )


def like(
    path: str | Path | StandardInput,
    options: Mapping[str, Any],
    *,
    features: Sequence[str],
    categorical: Sequence[str],
    dates: Sequence[str],
    targets: Sequence[str],
    sample_weight: str | None,
    missing: str,
    unseen: str,
    keep: Sequence[str],
    gap_hint: str,
) -> Table:
    """Open a table with the columns of another one, in any order; other columns are ignored. keep: columns to copy, or
    `*` for all. Raises DataError."""
    files: Sequence[File]
    if isinstance(path, StandardInput):
        format, files = format_of(path, **options), [path]
    else:
        first = first_file(path)
        format = Format("csv") if first is None else format_of(first, **options)  # files_of reports a missing file
        files = files_of(path, format)
    known = common_columns(files, format)
    if sample_weight is not None and sample_weight not in known:
        log.warning("%s: has no column %r; its rows are measured without weights", files[0], sample_weight)
        sample_weight = None
    wanted = [*features, *targets, *([sample_weight] if sample_weight else [])]
    absent = [name for name in [*wanted, *(name for name in keep if name != "*")] if name not in known]
    if absent:
        try:
            refuse_names("columns", absent[:1], known, files[0])
        except ValueError as error:
            raise DataError(str(error).removeprefix("columns: ")) from None
    return Table(
        files,
        format,
        tuple(features),
        tuple(targets),
        categorical=tuple(categorical),
        dates=tuple(dates),
        gap_hint=gap_hint,
        sample_weight=sample_weight,
        missing=missing,
        unseen=unseen,
        keep=tuple(known if "*" in keep else dict.fromkeys(keep)),
    )


def _refuse_empty(files: Sequence[File], n_usable: int, n_rows: int) -> None:
    if files and not n_usable:
        what = f"all of its {n_rows} rows have a gap" if n_rows else "no rows below the header"
        raise DataError(f"{', '.join(map(str, files))}: {what}; a table needs at least one usable row")


def _place(file: File, first: int, skipped: Sequence[int], row: int) -> str:
    return f"{file}: row {first + bisect_right(skipped, row) + row + 1}"


def _list(names: str | Sequence[str]) -> list[str]:
    return [canonical_name(name) for name in ([names] if isinstance(names, str) else names)]
