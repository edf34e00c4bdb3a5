"""The files of a table: found by path, with the format that their suffix or first line indicates."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from linreg.data.tables.formats import File, Format, StandardInput, column_names
from linreg.errors import DataError, suggest

SUFFIXES = {
    "csv": (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".txt"),
    "parquet": (".parquet", ".pq"),
    "npz": (".npz",),
    "npy": (".npy",),
    "jsonl": (".jsonl", ".ndjson", ".json"),
}
ALL_SUFFIXES = tuple(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)


def files_of(path: str | Sequence[str], format: Format) -> list[Path]:
    """List the files of a path or of several. A folder has its files of the format, in order of name. Raises
    DataError."""
    files: list[Path] = []
    for name in [path] if isinstance(path, str) else path:
        place = Path(name)
        if place.is_dir():
            suffixes = SUFFIXES[format.name]
            inside = _tables_in(place, suffixes)
            if not inside:
                raise DataError(f"{place}: a folder without a file that ends with {' or '.join(suffixes)}; add one")
            files += inside
        elif not place.exists():
            near = suggest(place.name, [file.name for file in place.parent.iterdir()] if place.parent.is_dir() else [])
            hint = near if near.startswith("did") else "paths are relative to the working directory"
            raise DataError(f"{place}: no such file; {hint}")
        elif not place.is_file():
            raise DataError(f"{place}: not a regular file; save it as one, or pipe it into --input -")
        else:
            files.append(place)
    return files


def first_file(path: Path) -> Path:
    """Return the first table in a folder, in order of name. Returns the path itself if it is a file, or if there is no
    table."""
    inside = _tables_in(path, ALL_SUFFIXES) if path.is_dir() else []
    return inside[0] if inside else path


def _tables_in(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """List the files in a folder that have a suffix, without hidden ones."""
    found = sorted(file for file in folder.iterdir() if file.name.lower().endswith(suffixes))
    return [file for file in found if file.is_file() and not file.name.startswith(".")]


def format_of(file: Path | StandardInput, **options: Any) -> Format:
    """Return the format of a file by its suffix, or of standard input by its first line. Raises DataError."""
    if isinstance(file, StandardInput):
        if file.head.startswith(b"PAR1"):
            return Format("parquet", **options)
        return Format("jsonl" if file.head.lstrip().startswith(b"{") else "csv", **options)
    lower = file.name.lower()
    for name, suffixes in SUFFIXES.items():
        if lower.endswith(suffixes):
            if lower.endswith((".tsv", ".tsv.gz")):
                options = {"delimiter": "\t", **options}
            return Format(name, **options)
    raise DataError(f"{file}: unknown file type; the name must end with one of {', '.join(ALL_SUFFIXES)}")


def common_columns(files: Sequence[File], format: Format) -> list[str]:
    """Return the column names of the first file. Raises DataError if another file has other columns."""
    first = column_names(files[0], format)
    for file in files[1:]:
        names = column_names(file, format)
        if set(names) != set(first):
            absent, extra = [n for n in first if n not in names], [n for n in names if n not in first]
            what = f"lacks {absent[0]!r}, a column of" if absent else f"has {extra[0]!r}, which is not a column of"
            raise DataError(f"{file}: {what} {files[0]}; all files of a table must have the same columns")
    return first
