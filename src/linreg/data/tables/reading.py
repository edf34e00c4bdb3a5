"""Reading tables in blocks of rows: columns by name, numbers strictly, every bad cell by file, row and column."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from linreg.data.sources import Block, Points
from linreg.data.tables.formats import (
    Batch,
    Columns,
    File,
    Format,
    StandardInput,
    column_names,
    map_batches,
)
from linreg.data.tables.formats.errors import refuse
from linreg.errors import DataError, show, suggest

SUFFIXES = {
    "csv": (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".txt"),
    "parquet": (".parquet", ".pq"),
    "npz": (".npz",),
    "npy": (".npy",),
    "jsonl": (".jsonl", ".ndjson", ".json"),
}

_ENDINGS = tuple(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)

__all__ = ["Format", "Table", "format_of", "open_table"]


@dataclass(frozen=True)
class Table(Points):
    """Files, read as one table. names: what categories were met, in the order in which they were."""

    files: Sequence[File]
    format: Format
    feature_names: Sequence[str]
    target_names: Sequence[str]
    categorical: Sequence[str] = ()
    sample_weight: str | None = None
    missing: str = "error"
    unseen: str = "error"
    keep: Sequence[str] = ()
    names: Mapping[str, dict[str, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", {name: {} for name in self.categorical})

    @property
    def categories(self) -> Mapping[str, Sequence[str]]:  # type: ignore[override]  # grows as the table is read
        """The categories met so far."""
        return {name: list(met) for name, met in self.names.items()}

    @property
    def columns(self) -> Columns:
        """The columns to read: as numbers, as text, as they are."""
        weight = [self.sample_weight] if self.sample_weight else []
        numbers = [name for name in self.feature_names if name not in self.categorical]
        return Columns([*numbers, *self.target_names, *weight], list(self.categorical), list(self.keep))

    def blocks(self) -> Generator[Block, None, None]:
        """Read the files, one after the other. Raises DataError, with at most ten of the cells that are wrong."""
        empty, n_rows = True, 0
        for file in self.files:
            first = 0
            with closing(map_batches(self._rows, file, self.format, self.columns)) as found:
                for rows in found:
                    block = self._block(rows, partial(_place, file, first))
                    first += rows.n_rows
                    n_rows += rows.n_rows
                    if len(block.x):
                        empty = False
                        yield block
        if empty:
            files = ", ".join(map(str, self.files))
            what = f"each of its {n_rows} rows has a gap" if n_rows else "no rows, only the names of columns"
            raise DataError(f"{files}: {what}; a table needs at least one row to use")

    def stamp(self) -> list[list[str | int]] | None:
        """Tell one state of the files from another."""
        files = [Path(file).absolute() for file in self.files if not isinstance(file, StandardInput)]
        return [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in files]

    def _rows(self, batch: Batch) -> "_Rows":
        """Put columns side by side; those that are categories stay empty. Called in any thread, in any order."""
        weight = [self.sample_weight] if self.sample_weight else []
        x, y, w = (self._matrix(batch, names) for names in (self.feature_names, self.target_names, weight))
        return _Rows(batch.n_rows, x, y, w[:, 0] if weight else None, batch.texts, batch.others)

    def _matrix(self, batch: Batch, names: Sequence[str]) -> NDArray[np.float64]:
        matrix = np.empty((batch.n_rows, len(names)))
        for position, name in enumerate(names):
            if name not in self.names:
                matrix[:, position] = batch.numbers[name]
        return matrix

    def _block(self, rows: "_Rows", where: Callable[[int], str]) -> Block:
        x, y, weight, kept = rows.x, rows.y, rows.weight, rows.others
        for name in self.categorical:
            x[:, self.feature_names.index(name)] = self._codes(rows.texts[name], self.names[name])
        gaps = np.isnan(x).any() or np.isnan(y).any() or (weight is not None and np.isnan(weight).any())
        if gaps and self.missing != "drop":
            self._refuse_gaps(x, y, weight, where)
        if weight is not None and (weight < 0).any():
            row = int(np.nonzero(weight < 0)[0][0])
            raise DataError(f"{where(row)}, column {self.sample_weight!r}: a negative weight, {weight[row]:g}; use 0")
        if not gaps or self.missing != "drop":
            return Block(x, y, weight, where, kept)
        found = np.isnan(x).any(axis=1) | np.isnan(y).any(axis=1) | (False if weight is None else np.isnan(weight))
        chosen = np.nonzero(~found)[0]
        kept = {name: column.take(pa.array(chosen)) for name, column in kept.items()}
        weight = None if weight is None else weight[chosen]
        return Block(x[chosen], y[chosen], weight, lambda row: where(int(chosen[row])), kept)

    def _codes(self, texts: Any, met: dict[str, int]) -> NDArray[np.float64]:
        """Give a category's texts as their positions (n,) among those met so far, NaN for a gap."""
        encoded = texts.dictionary_encode()
        places = [met.setdefault(value, len(met)) for value in encoded.dictionary.to_pylist()]
        indices = encoded.indices.to_numpy(zero_copy_only=False).astype(np.float64)  # NaN where null
        there = ~np.isnan(indices)
        indices[there] = np.array(places, dtype=np.float64)[indices[there].astype(np.int64)] if places else 0.0
        return np.asarray(indices)

    def _refuse_gaps(
        self, x: NDArray[Any], y: NDArray[Any], weight: NDArray[Any] | None, where: Callable[[int], str]
    ) -> None:
        parts: list[tuple[Sequence[str], NDArray[Any], str]] = [
            (self.target_names, y, "a target cannot be filled in; use missing: drop, or give it"),
        ]
        if weight is not None and self.sample_weight is not None:
            remedy = "a weight cannot be filled in; use missing: drop, or give it"
            parts.append(([self.sample_weight], weight[:, None], remedy))
        if self.missing == "error":
            parts.insert(0, (self.feature_names, x, "give it, or set missing: drop, mean or median"))
        found = []
        for names, values, remedy in parts:
            for row, column in zip(*np.nonzero(np.isnan(values)), strict=True):
                found.append((row, f"{where(int(row))}, column {names[column]!r}: missing; {remedy}"))
        refuse([text for _, text in sorted(found, key=lambda item: item[0])])


@dataclass(frozen=True)
class _Rows:
    """A batch, side by side: x (n, n_features), y (n, n_targets), weight (n,) or None."""

    n_rows: int
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    weight: NDArray[np.float64] | None
    texts: Mapping[str, Any]
    others: Mapping[str, Any]


def open_table(
    path: str | Sequence[str],
    format: Format,
    *,
    target: str | Sequence[str],
    features: str | Sequence[str] | None,
    exclude: str | Sequence[str],
    categorical: str | Sequence[str],
    sample_weight: str | None,
    missing: str,
    unseen: str,
) -> Table:
    """Find the files and their columns; read no row yet. Raises DataError for files, ValueError for names of columns
    that are not there or that clash."""
    files = files_of(path, format)
    known = common_columns(files, format)
    targets, excluded, categories = (_list(names) for names in (target, exclude, categorical))
    weight = [sample_weight] if sample_weight is not None else []
    chosen = _list(features) if features is not None else None
    for key, names in (
        ("target", targets),
        ("exclude", excluded),
        ("features", chosen or []),
        ("categorical", categories),
        ("sample_weight", weight),
    ):
        _refuse_names(key, names, known, files[0])
    for key, names in (("features", chosen or []), ("sample_weight", weight)):
        both = [name for name in names if name in targets]
        if both:
            raise ValueError(f"{key}: {both[0]!r} is a target, too; a column can be one or the other")
    if chosen is None:
        chosen = [name for name in known if name not in {*targets, *excluded, *weight}]
    else:
        clash = [name for name in chosen if name in {*excluded, *weight}]
        if clash:
            raise ValueError(f"features: {clash[0]!r} is in exclude or sample_weight, too; remove it from one")
    if not chosen:
        raise ValueError(f"{files[0]}: no column is left to learn from; it has {', '.join(known)}")
    stray = [name for name in categories if name not in chosen]
    if stray:
        raise ValueError(f"categorical: {stray[0]!r} is not among the features; remove it, or add it there")
    return Table(
        files,
        format,
        tuple(chosen),
        tuple(targets),
        categorical=tuple(categories),
        sample_weight=sample_weight,
        missing=missing,
        unseen=unseen,
    )


def like(
    path: Path | StandardInput,
    options: Mapping[str, Any],
    *,
    features: Sequence[str],
    categorical: Sequence[str],
    targets: Sequence[str],
    sample_weight: str | None,
    missing: str,
    unseen: str,
    keep: Sequence[str],
) -> Table:
    """Open a table that has the columns of another one, in any order, and maybe more. keep: columns to hand on, or `*`
    for all. Raises DataError."""
    if isinstance(path, StandardInput):
        format = piped_format(path, **options)
    else:
        inside = sorted(path.iterdir()) if path.is_dir() else []
        known_files = [file for file in inside if file.name.lower().endswith(_ENDINGS) and file.is_file()]
        format = format_of(known_files[0] if known_files else path, **options)
    files: Sequence[File] = [path] if isinstance(path, StandardInput) else files_of(str(path), format)
    known = common_columns(files, format)
    wanted = [*features, *targets, *([sample_weight] if sample_weight else [])]
    absent = [name for name in [*wanted, *(name for name in keep if name != "*")] if name not in known]
    if absent:
        try:
            _refuse_names("columns", absent[:1], known, files[0])
        except ValueError as error:
            raise DataError(str(error).removeprefix("columns: ")) from None
    return Table(
        files,
        format,
        tuple(features),
        tuple(targets),
        categorical=tuple(categorical),
        sample_weight=sample_weight,
        missing=missing,
        unseen=unseen,
        keep=tuple(known if "*" in keep else dict.fromkeys(keep)),
    )


def piped_format(given: StandardInput, **options: Any) -> Format:
    """Tell the format of what is piped in from its first line."""
    if given.head.startswith(b"PAR1"):
        return Format("parquet", **options)
    return Format("jsonl" if given.head.lstrip().startswith(b"{") else "csv", **options)


def format_of(path: Path, **options: Any) -> Format:
    """Tell the format of a file from its name. Raises DataError."""
    for name, suffixes in SUFFIXES.items():
        if path.name.lower().endswith(suffixes):
            if path.name.lower().endswith((".tsv", ".tsv.gz")):
                options = {"delimiter": "\t", **options}
            return Format(name, **options)
    endings = ", ".join(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)
    raise DataError(f"{path}: its name does not say what it is; let it end with one of {endings}")


def _place(file: File, first: int, row: int) -> str:
    return f"{file}: row {first + row + 1}"


def _list(names: str | Sequence[str]) -> list[str]:
    return [names] if isinstance(names, str) else list(names)


def _refuse_names(key: str, names: Sequence[str], known: Sequence[str], file: File) -> None:
    unknown = [name for name in names if name not in known]
    if unknown:
        hint = suggest(unknown[0], known)
        separators = [other for other in ";\t|" if len(known) == 1 and other in known[0]]
        if separators:
            hint = f"its header is one column, {show(known[0])}; set delimiter: {separators[0]!r}"
        raise ValueError(f"{key}: {file} has no column {unknown[0]!r}; {hint}")
    twice = [name for name in names if list(names).count(name) > 1]
    if twice:
        raise ValueError(f"{key}: {twice[0]!r} is named twice; name each column once")


def files_of(path: str | Sequence[str], format: Format) -> list[Path]:
    """The files that a path names: itself, or in a folder all that have the format's endings, in order of name."""
    files: list[Path] = []
    for name in _list(path):
        place = Path(name)
        if place.is_dir():
            inside = sorted(file for file in place.iterdir() if file.name.lower().endswith(SUFFIXES[format.name]))
            inside = [file for file in inside if file.is_file() and not file.name.startswith(".")]
            if not inside:
                raise DataError(f"{place}: a folder without a file that ends with {' or '.join(SUFFIXES[format.name])}")
            files += inside
        elif not place.exists():
            near = suggest(place.name, [file.name for file in place.parent.iterdir()] if place.parent.is_dir() else [])
            hint = f"; {near}" if near.startswith("did") else "; paths are relative to the working directory"
            raise DataError(f"{place}: no such file{hint}")
        elif not place.is_file():
            raise DataError(f"{place}: not a file that can be read twice; save it first, or pipe it into --input -")
        else:
            files.append(place)
    return files


def common_columns(files: Sequence[File], format: Format) -> list[str]:
    """The names of the columns, which all files must have."""
    first = column_names(files[0], format)
    for file in files[1:]:
        names = column_names(file, format)
        if set(names) != set(first):
            lacks, adds = [n for n in first if n not in names], [n for n in names if n not in first]
            what = f"lacks {lacks[0]!r}" if lacks else f"has {adds[0]!r} besides"
            raise DataError(f"{file}: {what}, compared with {files[0]}; the files of one table have the same columns")
    return first
