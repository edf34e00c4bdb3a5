"""The files of a table: found by path, with the format that their suffix or first line indicates."""

import logging
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from linreg.data.tables.formats import File, Format, Layout, Numbers, StandardInput, Stored, column_names
from linreg.data.tables.formats.errors import unreadable
from linreg.data.tables.formats.files import COMPRESSED, first_bytes, read_head
from linreg.data.tables.remote import Remote, files_at, identity, open_anywhere, place_of
from linreg.errors import DataError, show, suggest

log = logging.getLogger("linreg")

_PLAIN = {
    "csv": (".csv", ".tsv", ".txt", ".data", ".dat", ".tab"),
    "parquet": (".parquet", ".pq"),
    "feather": (".feather", ".arrow", ".ipc"),
    "jsonl": (".jsonl", ".ndjson", ".json"),
    "sqlite": (".sqlite", ".sqlite3", ".db"),
    "excel": (".xlsx", ".xlsm", ".xls", ".ods"),
    "npz": (".npz",),
    "npy": (".npy",),
}
SUFFIXES = {
    name: (*suffixes, *(suffix + more for more in COMPRESSED for suffix in suffixes if name in ("csv", "jsonl")))
    for name, suffixes in _PLAIN.items()
}
ALL_SUFFIXES = tuple(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)
_MAGIC = {
    b"PAR1": "parquet",
    b"ARROW1": "feather",
    b"SQLite format 3\0": "sqlite",
    b"\x93NUMPY": "npy",
    b"\xd0\xcf\x11\xe0": "excel",
}
_STREAMED = ("csv", "parquet", "feather", "jsonl")  # formats that are read from a URL
_TITLES = {
    "csv": "CSV", "parquet": "Parquet", "feather": "Feather", "jsonl": "JSON lines", "sqlite": "a SQLite database",
    "excel": "a workbook", "npz": ".npz of NumPy", "npy": ".npy of NumPy",
}  # fmt: skip


def content_of(file: Stored) -> str:
    """Return the format that the content of a file shows, or an empty text if it may be any text. Raises DataError."""
    try:
        head = first_bytes(file, 2**12)
    except OSError as error:
        raise unreadable(file, error) from None
    for magic, name in _MAGIC.items():
        if head.startswith(magic):
            return name
    if head.startswith(b"PK\x03\x04"):
        return _content_of_zip(file)
    line = head.lstrip(b"\xef\xbb\xbf \t\r\n").partition(b"\n")[0]
    return "jsonl" if re.match(rb'\{\s*("|\})', line) else ""


def _content_of_zip(file: Stored) -> str:
    try:
        with zipfile.ZipFile(file if isinstance(file, Path) else open_anywhere(file)) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError):
        return ""
    if "[Content_Types].xml" in names or "mimetype" in names:
        return "excel"
    return "npz" if names and all(name.endswith(".npy") for name in names) else ""


def refuse_other_content(file: Stored, format: Format) -> None:
    """Raise a DataError if the content of a file shows another format than its spec, or one that is read from a disk
    only."""
    content = content_of(file)
    if content and content != format.name:
        raise DataError(f"{file}: is {_TITLES[content]}, not {_TITLES[format.name]}; set name: {content}")
    _refuse_format(file, format.name)


def _refuse_format(file: Stored, name: str) -> None:
    """Raise a DataError for a remote file whose format is read from a disk only."""
    if isinstance(file, Remote) and name not in _STREAMED:
        raise DataError(f"{file}: is {_TITLES[name]}, which is not read from a URL; download it, or save it as Parquet")


def files_of(path: str | Path | Sequence[str], format: Format) -> list[Stored]:
    """List the files of a path or of several. A folder has its files of the format, in order of name. Raises
    DataError."""
    files: list[Stored] = []
    for name in [path] if isinstance(path, str | Path) else path:
        place = place_of(name)
        if isinstance(place, Remote) or place.is_dir():
            suffixes = SUFFIXES[format.name]
            inside = files_at(place, suffixes) if isinstance(place, Remote) else _tables_in(place, suffixes)
            if not inside:
                listed = " or ".join(_PLAIN[format.name])
                raise DataError(f"{place}: a folder without a file that ends with {listed}; add one")
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


def is_same(a: Stored, b: Stored) -> bool:
    """Return whether two paths or URLs are of one file."""
    return a.samefile(b) if isinstance(a, Path) and isinstance(b, Path) else a == b


def stamp_of(file: Stored) -> list[str | int] | None:
    """Return what identifies a file and its version, or None if a web server sends no such thing. Raises DataError."""
    if isinstance(file, Remote):
        return identity(file)
    return [str(file.absolute()), file.stat().st_size, file.stat().st_mtime_ns]


@contextmanager
def unchanged(file: File) -> Iterator[None]:
    """Raise a DataError at the end for a remote file that changed meanwhile: it is read in several requests."""
    before = identity(file) if isinstance(file, Remote) else None
    yield
    if isinstance(file, Remote) and identity(file) != before:
        raise DataError(f"{file}: changed while it was read; run the command again")


def first_file(path: str | Path) -> Stored | None:
    """Return the first table in a folder, in order of name, or the file at the path. Returns None if there is no such
    file. Raises DataError for a URL."""
    place = place_of(path)
    if isinstance(place, Remote):
        inside = files_at(place, ALL_SUFFIXES)
        return inside[0] if inside else None
    tables = _tables_in(place, ALL_SUFFIXES) if place.is_dir() else []
    return tables[0] if tables else place if place.is_file() else None


def _tables_in(folder: Path, suffixes: tuple[str, ...]) -> list[Stored]:
    """List the files in a folder that have a suffix, without hidden ones."""
    found = sorted(file for file in folder.iterdir() if file.name.lower().endswith(suffixes))
    return [file for file in found if file.is_file() and not file.name.startswith(".")]


def format_of(file: File, **options: Any) -> Format:
    """Return the format of a file by its content, or by its suffix if the content is text. Raises DataError."""
    if isinstance(file, StandardInput):
        magic = next((name for magic, name in _MAGIC.items() if file.head.startswith(magic)), "")
        if magic and magic not in ("parquet", "feather"):
            raise DataError(f"{file}: is {_TITLES[magic]}, which cannot be piped; name the file")
        return Format(magic or ("jsonl" if file.head.lstrip().startswith(b"{") else "csv"), **options)
    lower, content = file.name.lower(), content_of(file)
    named = next((name for name, suffixes in SUFFIXES.items() if lower.endswith(suffixes)), "")
    if content and content != named:
        log.warning("%s: is %s, whatever its name says; it is read as such", file, _TITLES[content])
    if not content and not named:
        if b"\0" in read_head(file, 2**12):
            raise DataError(f"{file}: unknown file type; the name must end with one of {', '.join(_all_plain())}")
        log.warning("%s: unknown suffix; it is read as CSV", file)
    name = content or named or "csv"
    _refuse_format(file, name)
    if name == "csv" and ".tsv" in lower:
        options = {"delimiter": "\t", **options}
    return Format(name, **options)


def format_options(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a format from the params of a table source."""
    notation = params.get("numbers", {})
    numbers = Numbers(
        decimal=notation.get("decimal", params.get("decimal", ".")),
        thousands=notation.get("thousands", ""),
        strip=tuple(notation.get("strip", ())),
        accounting=notation.get("accounting", False),
    )
    layout = Layout(**{f.name: params[f.name] for f in fields(Layout) if f.name in params})
    plain = ("delimiter", "encoding", "date_format", "table", "query")
    return {
        "numbers": numbers,
        "layout": layout,
        "missing_values": tuple(params.get("missing_values", ())),
        **{key: params[key] for key in plain if key in params},
        **({"table": params["sheet"]} if "sheet" in params else {}),
    }


def _all_plain() -> list[str]:
    return [suffix for suffixes in _PLAIN.values() for suffix in suffixes]


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


def refuse_names(key: str, names: Sequence[str], known: Sequence[str], file: File) -> None:
    """Raise a ValueError for a name that is not a column, or is given twice."""
    unknown = [name for name in names if name not in known]
    if unknown:
        hint = suggest(unknown[0], known)
        delimiters = [character for character in ";\t|" if len(known) == 1 and character in known[0]]
        if delimiters:
            hint = f"the header is one column, {show(known[0])}; set delimiter: {delimiters[0]!r}"
        raise ValueError(f"{key}: {file} has no column {unknown[0]!r}; {hint}")
    duplicates = [name for name in names if list(names).count(name) > 1]
    if duplicates:
        raise ValueError(f"{key}: duplicate column {duplicates[0]!r}; remove one")
