"""The file of a checkpoint as bytes, and the records in it, laid out as `torch.save` does it.

Nothing else is let through as it is read: what zip allows beyond that (compression, overlaps, a second table of
contents, names that lead elsewhere, bytes before or behind) is where one reader is shown another file than the next.
"""

import os
import re
import stat
import struct
import sys
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

MOST_BYTES = 2**32 - 1  # beyond it zip has other fields
_DAMAGED = "damaged: {}; use another checkpoint of the run"
_FOREIGN = "{}; name a .pth file that linreg train wrote"

_LOCAL = struct.Struct("<4s5H3I2H")
_DESCRIPTOR = struct.Struct("<4s3I")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4sQ2H2I4Q" + "4sIQI" + "4s4H2IH")  # those of zip64, their locator, and those of zip
_PLAIN, _DESCRIBED = 0x800, 0x808  # names in UTF-8; and the checksum behind the data

_FIRST, _NEEDED = "data.pkl", {"data.pkl", "byteorder", "version"}
_TOLD = {".format_version", ".storage_alignment", ".data/serialization_id"}
_STORAGE = re.compile(r"data/(0|[1-9][0-9]{0,8})")
_CONTENTS = {
    "byteorder": rb"little|big",
    "version": rb"3\n?",
    ".format_version": rb"1",
    ".storage_alignment": rb"[1-9][0-9]{0,5}",
}
_MADE_BY = (0x31E, 45)  # the versions of zip that torch writes, and says one needs
_ALIGNMENT = 64  # of each record's data, so that it can be mapped
_MOST_AROUND = 512  # bytes that stand in a file for a record, but for its data


class Record(NamedTuple):
    """A record that is to be written: its name, its bytes, their checksum."""

    name: str
    data: memoryview
    crc: int


class Unsound(Exception):  # noqa: N818  # it says what the file is
    """A file is not a checkpoint; the text says why, and what would do, without its path."""


def read(path: Path) -> bytes:
    """Read a regular file whole, once: what is verified is what is loaded, whatever becomes of the file meanwhile."""
    with open(path, "rb", opener=_open_without_waiting) as file:  # pathlib takes no opener
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise Unsound(_FOREIGN.format("not a regular file"))
        if not found.st_size:
            raise Unsound(_FOREIGN.format("empty"))
        if found.st_size > MOST_BYTES:
            raise Unsound(_FOREIGN.format(f"{found.st_size} bytes, and a checkpoint has at most {MOST_BYTES}"))
        beginning = file.read(4)
        if beginning[:2] != b"PK":
            raise Unsound(_FOREIGN.format("not a checkpoint, nor any file that torch.save writes"))
        file.seek(max(0, found.st_size - _END.size))
        if file.read(4) != b"PK\6\6":
            raise Unsound(_DAMAGED.format("its table of contents is not at its end"))
        file.seek(0)
        content: bytes = file.read(found.st_size)
    if len(content) != found.st_size:
        raise Unsound(_DAMAGED.format("it changed while it was read"))
    return content


def join(pickle: bytes, storages: Iterable[Record]) -> bytes:
    """Make the file of a pickle and the records of its tensors. Raises Unsound if it is too large for zip."""
    few = (("data.pkl", pickle), ("byteorder", sys.byteorder.encode()), ("version", b"3\n"))
    first, byteorder, version = (Record(name, memoryview(data), zlib.crc32(data)) for name, data in few)
    records = [first, byteorder, *storages, version]
    whole = sum(record.data.nbytes + _MOST_AROUND for record in records)
    if whole > MOST_BYTES:
        raise Unsound(f"it would have about {whole} bytes, and at most {MOST_BYTES} are read; train a smaller model")
    pieces: list[bytes | memoryview] = []
    entries: list[bytes] = []
    position = 0
    for name, data, crc in records:
        path, size = f"archive/{name}".encode(), data.nbytes
        flags = _DESCRIBED if size else _PLAIN
        gap = -(position + _LOCAL.size + len(path) + 4) % _ALIGNMENT
        header = _LOCAL.pack(b"PK\3\4", 0, flags, 0, 0, 0, 0, 0, 0, len(path), 4 + gap)
        filling = b"FB" + gap.to_bytes(2, "little") + gap * b"Z"
        descriptor = _DESCRIPTOR.pack(b"PK\7\x08", crc, size, size) if size else b""
        numbers = (0, 0, flags, 0, 0, 0, crc, size, size, len(path), 0, 0, 0, 0, 0, position)
        entries += [_CENTRAL.pack(b"PK\1\2", *numbers), path]
        pieces += [header, path, filling, data, descriptor]
        position += len(header) + len(path) + len(filling) + size + len(descriptor)
    end = _ending(*_MADE_BY, len(records), sum(map(len, entries)), position)
    return b"".join([*pieces, *entries, _END.pack(*end)])


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)  # a pipe would wait for a writer


def records(content: bytes) -> dict[str, memoryview]:
    """Find the records by their names, without the folder; they and their headers fill the file without gap or overlap,
    and each has its checksum. Raises Unsound."""
    view = memoryview(content)
    start, number = _end(view)
    found: dict[str, memoryview] = {}
    top, position, entry = "", 0, start
    for _ in range(number):
        if entry + _CENTRAL.size > len(view) - _END.size:
            raise Unsound(_DAMAGED.format("its table of contents is cut"))
        header = _CENTRAL.unpack_from(view, entry)
        method, crc, stored, size, length = header[4], *header[7:11]
        flags = _DESCRIBED if size else _PLAIN
        name = bytes(view[entry + _CENTRAL.size : entry + _CENTRAL.size + length])
        entry += _CENTRAL.size + length
        if method or stored != size or header[3] != flags:
            raise Unsound(_FOREIGN.format("compressed, encrypted or otherwise not as torch.save stores it"))
        # no attributes: of a record that says it is a folder, torch hands out memory as it happens to be
        if header != (b"PK\1\2", 0, 0, flags, 0, 0, 0, crc, size, size, length, 0, 0, 0, 0, 0, position):
            raise Unsound(_DAMAGED.format("its table of contents does not fit its records"))
        data, position = _local(view, position, start, name, (crc, size))
        folder, _, rest = name.decode(errors="replace").partition("/")
        if (top and folder != top) or rest in found or not _is_known(rest):
            raise Unsound(_FOREIGN.format(f"holds {rest[:40]!a}, which no checkpoint has, or has once"))
        top = folder
        if zlib.crc32(data) != crc:
            raise Unsound(_DAMAGED.format(f"the checksum of {rest} is wrong"))
        found[rest] = data
    if position != start or entry != len(view) - _END.size:
        raise Unsound(_DAMAGED.format("its table of contents does not fit its records"))
    _check_names(found)
    return found


def _end(view: memoryview) -> tuple[int, int]:
    """Where the table of contents begins, and how many records it has."""
    if len(view) < _END.size:
        raise Unsound(_DAMAGED.format("it is cut"))
    found = _END.unpack_from(view, len(view) - _END.size)
    number, size, start = found[7], found[8], found[9]
    end = len(view) - _END.size
    if found != _ending(found[2], found[3], number, size, start) or start + size != end:
        raise Unsound(_DAMAGED.format("its table of contents is not at its end"))
    return start, number


def _ending(made_by: int, needs: int, number: int, size: int, start: int) -> tuple[bytes | int, ...]:
    """What stands behind a table of contents of so many records and bytes. made_by, needs: versions of zip."""
    short = min(number, 0xFFFF)
    return (
        *(b"PK\6\6", 44, made_by, needs, 0, 0, number, number, size, start),
        *(b"PK\6\7", 0, start + size, 1),
        *(b"PK\5\6", 0, 0, short, short, size, start, 0),
    )


def _local(view: memoryview, position: int, end: int, name: bytes, told: tuple[int, int]) -> tuple[memoryview, int]:
    """The data of the record whose header is at this position, and where the next one begins."""
    crc, size = told
    wrong = Unsound(_DAMAGED.format("a record does not fit the table of contents"))
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


def _is_known(name: str) -> bool:
    return name in _NEEDED | _TOLD or _STORAGE.fullmatch(name) is not None


def _check_names(found: Mapping[str, memoryview]) -> None:
    """Refuse a file without a record that each has, or whose small records say what torch.save never does."""
    missing = sorted(_NEEDED - set(found))
    if missing or next(iter(found)) != _FIRST:
        raise Unsound(_FOREIGN.format(f"a zip file without {' and '.join(missing)}" if missing else "in another order"))
    for name, wanted in _CONTENTS.items():
        if name in found and not re.fullmatch(wanted, found[name]):
            raise Unsound(_FOREIGN.format(f"its {name} is not that of a checkpoint"))


def storages(found: Mapping[str, memoryview]) -> dict[str, int]:
    """The sizes in bytes of the records that hold tensors, by their keys."""
    return {name.removeprefix("data/"): len(data) for name, data in found.items() if _STORAGE.fullmatch(name)}
