"""Reads the zip file of a checkpoint, in the layout of `torch.save`.

Reading refuses everything else that zip allows: compression, overlaps, a second table of contents, names that lead out
of the file, bytes before or after it. With these, two readers can see different content in one file.
"""

import os
import re
import stat
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

MOST_BYTES = 2**32 - 1  # larger zip files have other fields
_DAMAGED = "damaged: {}; use another checkpoint of the run"
_FOREIGN = "{}; use a .pth file written by linreg train"

_LOCAL = struct.Struct("<4s5H3I2H")
_DESCRIPTOR = struct.Struct("<4s3I")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4sQ2H2I4Q" + "4sIQI" + "4s4H2IH")  # of zip64, its locator, and of zip
_PLAIN, _DESCRIBED = 0x800, 0x808  # flags: names in UTF-8; and the checksum after the data

_FIRST, _REQUIRED = "data.pkl", {"data.pkl", "byteorder", "version"}
_OPTIONAL = {".format_version", ".storage_alignment", ".data/serialization_id"}
_STORAGE = re.compile(r"data/(0|[1-9][0-9]{0,8})")
_CONTENTS = {
    "byteorder": rb"little|big",
    "version": rb"3\n?",
    ".format_version": rb"1",
    ".storage_alignment": rb"[1-9][0-9]{0,5}",
}


class Unsound(Exception):  # noqa: N818  # it describes the file
    """A file is not a sound checkpoint. The text has the reason and a hint, without the path."""


def read(path: Path) -> bytes:
    """Read a regular file once and completely, so that later changes of the file do not matter. Raises Unsound."""
    flags = os.O_NONBLOCK | os.O_NOCTTY  # opening a pipe would wait for a writer
    with open(path, "rb", opener=lambda name, mode: os.open(name, mode | flags)) as file:  # Path.open takes no opener
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise Unsound(_FOREIGN.format("not a regular file"))
        if not status.st_size:
            raise Unsound(_FOREIGN.format("empty"))
        if status.st_size > MOST_BYTES:
            raise Unsound(_FOREIGN.format(f"{status.st_size} bytes, must be <= {MOST_BYTES}"))
        beginning = file.read(4)
        if beginning[:2] != b"PK":
            raise Unsound(_FOREIGN.format("not a file of torch.save"))
        file.seek(max(0, status.st_size - _END.size))
        if file.read(4) != b"PK\6\6":
            raise Unsound(_DAMAGED.format("no table of contents at its end"))
        file.seek(0)
        content: bytes = file.read(status.st_size)
    if len(content) != status.st_size:
        raise Unsound(_DAMAGED.format("changed while being read"))
    return content


def records(content: bytes) -> dict[str, memoryview]:
    """Return the records by their names, without the folder.

    Raises Unsound unless they and their headers fill the file without gap or overlap, with correct checksums."""
    view = memoryview(content)
    start, number = _end(view)
    views: dict[str, memoryview] = {}
    top, position, entry = "", 0, start
    for _ in range(number):
        if entry + _CENTRAL.size > len(view) - _END.size:
            raise Unsound(_DAMAGED.format("truncated table of contents"))
        header = _CENTRAL.unpack_from(view, entry)
        method, crc, stored, size, length = header[4], *header[7:11]
        flags = _DESCRIBED if size else _PLAIN
        name = bytes(view[entry + _CENTRAL.size : entry + _CENTRAL.size + length])
        entry += _CENTRAL.size + length
        if method or stored != size or header[3] != flags:
            raise Unsound(_FOREIGN.format("compressed, encrypted or stored otherwise than by torch.save"))
        # no attributes: for a record marked as a folder, torch returns uninitialised memory
        if header != (b"PK\1\2", 0, 0, flags, 0, 0, 0, crc, size, size, length, 0, 0, 0, 0, 0, position):
            raise Unsound(_DAMAGED.format("table of contents and records differ"))
        data, position = _local(view, position, start, name, crc, size)
        folder, _, rest = name.decode(errors="replace").partition("/")
        is_known = rest in _REQUIRED | _OPTIONAL or _STORAGE.fullmatch(rest)
        if (top and folder != top) or rest in views or not is_known:
            raise Unsound(_FOREIGN.format(f"unexpected or duplicate record {rest[:40]!a}"))
        top = folder
        if zlib.crc32(data) != crc:
            raise Unsound(_DAMAGED.format(f"wrong checksum of {rest}"))
        views[rest] = data
    if position != start or entry != len(view) - _END.size:
        raise Unsound(_DAMAGED.format("table of contents and records differ"))
    _check_names(views)
    return views


def _end(view: memoryview) -> tuple[int, int]:
    """Return the start of the table of contents and the number of records."""
    if len(view) < _END.size:
        raise Unsound(_DAMAGED.format("truncated"))
    end = len(view) - _END.size
    fields = _END.unpack_from(view, end)
    made_by, needs, number, size, start = *fields[2:4], *fields[7:10]
    short = min(number, 0xFFFF)
    zip64 = (b"PK\6\6", 44, made_by, needs, 0, 0, number, number, size, start)
    if fields != (*zip64, b"PK\6\7", 0, end, 1, b"PK\5\6", 0, 0, short, short, size, start, 0) or start + size != end:
        raise Unsound(_DAMAGED.format("no table of contents at its end"))
    return start, number


def _local(view: memoryview, position: int, end: int, name: bytes, crc: int, size: int) -> tuple[memoryview, int]:
    """Return the data of the record whose header is at this position, and the position of the next header."""
    wrong = Unsound(_DAMAGED.format("table of contents and records differ"))
    if position + _LOCAL.size > end:
        raise wrong
    header, padding = _LOCAL.unpack_from(view, position), position + _LOCAL.size + len(name)
    data = padding + header[10]
    after = data + size + (_DESCRIPTOR.size if size else 0)
    expected = (b"PK\3\4", 0, _DESCRIBED if size else _PLAIN, 0, 0, 0, 0, 0, 0, len(name), header[10])
    if header != expected or after > end or view[position + _LOCAL.size : padding] != name:
        raise wrong
    if size and _DESCRIPTOR.unpack_from(view, data + size) != (b"PK\7\x08", crc, size, size):
        raise wrong
    return view[data : data + size], after


def _check_names(records: Mapping[str, memoryview]) -> None:
    """Raise Unsound for a missing or misplaced record, or a small one with content that torch.save never writes."""
    missing = sorted(_REQUIRED - set(records))
    if missing or next(iter(records)) != _FIRST:
        problem = f"a zip file without {' and '.join(missing)}" if missing else "records in another order"
        raise Unsound(_FOREIGN.format(problem))
    for name, pattern in _CONTENTS.items():
        if name in records and not re.fullmatch(pattern, records[name]):
            raise Unsound(_FOREIGN.format(f"unexpected content of record {name}"))


def storages(records: Mapping[str, memoryview]) -> dict[str, int]:
    """Return the sizes in bytes of the records of tensors, by their keys."""
    return {name.removeprefix("data/"): len(data) for name, data in records.items() if _STORAGE.fullmatch(name)}
