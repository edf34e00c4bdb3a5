"""NumPy's `.npy` and `.npz`."""

import math
import tokenize
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from linreg.data.tables.formats.batch import BLOCK_ROWS, MOST_COLUMNS, Batch, Columns, Format
from linreg.data.tables.formats.errors import first_line
from linreg.data.tables.formats.files import File
from linreg.data.tables.formats.typed import typed_batch
from linreg.errors import DataError, shorten, show
from linreg.system.memory import refuse_beyond_memory


def column_names(file: File, format: Format) -> list[str]:
    """Read the column names."""
    return list(_columns(file))


def read(file: File, format: Format, columns: Columns) -> Iterator[Batch]:
    """Read the rows in batches. Raises DataError for bad cells."""
    arrays = _columns(file)
    for first in range(0, len(next(iter(arrays.values()))), BLOCK_ROWS):
        part = {name: _to_arrow(array[first : first + BLOCK_ROWS]) for name, array in arrays.items()}
        yield typed_batch(file, format, columns, part, first)


def _columns(file: File) -> dict[str, NDArray[Any]]:
    """Open the columns (n,) of a file by name. Raises DataError, OSError, ValueError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy warns about old headers
            assert isinstance(file, Path)  # standard input is CSV, Parquet or JSON lines
            return _loaded(file)
    except (TypeError, RuntimeError, MemoryError, SyntaxError, tokenize.TokenError) as error:
        raise ValueError(first_line(error)) from None  # NumPy and zipfile raise these for damaged files


def _loaded(file: Path) -> dict[str, NDArray[Any]]:
    with file.open("rb") as stream:
        is_archive = stream.read(2) == b"PK"
    if is_archive:  # a .npz, whatever its name
        _refuse_wrong_sizes(file)
    arrays = np.load(file, allow_pickle=False, mmap_mode="r")  # a .npy is mapped: names are read without the rows
    if isinstance(arrays, np.ndarray):
        if arrays.dtype.names and arrays.ndim == 1:
            return {name: arrays[name] for name in arrays.dtype.names}
        return _split("x", arrays)
    with arrays:
        return _merged(arrays)


def _merged(arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    columns: dict[str, NDArray[Any]] = {}
    for name in arrays:
        more = _split(name, arrays[name])
        duplicates = [column for column in more if column in columns]
        if duplicates:
            raise ValueError(f"two arrays have a column {duplicates[0]!r}; rename one")
        columns |= more
    return columns


def _refuse_wrong_sizes(file: Path) -> None:
    """Refuse a .npz before its arrays are read: if one is shorter than its header says, if they differ in length, or if
    they do not fit in memory. Raises DataError, ValueError."""
    lengths: dict[str, int] = {}
    n_bytes = 0
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            with archive.open(member) as stream:
                if np.lib.format.read_magic(stream) == (1, 0):
                    shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
                else:
                    shape, _, dtype = np.lib.format.read_array_header_2_0(stream)
            size = math.prod(shape) * dtype.itemsize
            if size > member.file_size:
                raise ValueError(f"array {show(member.filename)} has fewer than the {size:,} bytes of its header")
            n_bytes += size
            lengths[member.filename.removesuffix(".npy")] = shape[0] if shape else 0
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{shorten(name)} has {length}" for name, length in lengths.items())
        raise DataError(f"{file}: the arrays differ in length: {listed}; save arrays of one length")
    refuse_beyond_memory(n_bytes)


def _split(name: str, array: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Return the columns of an array (n,) or (n, n_columns) by name."""
    if array.ndim == 1 and not array.dtype.names:
        return {name: array}
    if array.ndim != 2 or array.dtype.names:
        raise ValueError(f"array {name!r} has {array.ndim} dimensions; it must have rows, or rows and columns")
    if array.shape[1] > MOST_COLUMNS:
        raise ValueError(f"array {name!r} has {array.shape[1]:,} columns; at most {MOST_COLUMNS:,} are read")
    if array.shape[1] == 1 and name != "x":
        return {name: array[:, 0]}
    return {f"{name}{i + 1}" if array.shape[1] > 1 else name: array[:, i] for i in range(array.shape[1])}


def _to_arrow(array: NDArray[Any]) -> Any:
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8")
    return pa.array(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("="), copy=False))
