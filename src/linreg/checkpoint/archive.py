"""The file of a checkpoint as bytes, and the records in it: whether they are laid out as `torch.save` does it.

Nothing else is let through: what zip allows beyond that (compression, overlaps, a second table of contents, names that
lead elsewhere, bytes before or behind) is where one reader can be shown another file than the next.
"""

import os
import re
import stat
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

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
    short = min(number, 0xFFFF)
    expected = (
        *(b"PK\6\6", 44, found[2], found[3], 0, 0, number, number, size, start),
        *(b"PK\6\7", 0, end, 1),
        *(b"PK\5\6", 0, 0, short, short, size, start, 0),
    )
    if found != expected or start + size != end:
        raise Unsound(_DAMAGED.format("its table of contents is not at its end"))
    return start, number


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
