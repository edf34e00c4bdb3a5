"""Converts a checkpoint to the bytes of its file, by `torch.save`. `files.save` and the saver of a run use it.

`load` accepts only plain values, and dense finite tensors that each cover their memory. So the values are checked, and
copied where needed, before `torch.save` sees them. Equal content gives equal bytes.
"""

import io
import sys
import zlib
from collections.abc import Mapping
from typing import Any

import torch

from linreg.checkpoint import archive
from linreg.checkpoint.archive import Unsound
from linreg.checkpoint.contents import FORMAT, KEYS, VERSION, Checkpoint, is_finite
from linreg.checkpoint.pickles import STORAGES
from linreg.errors import CheckpointError, DivergedError

_HISTORIES = ("loss.", "val_loss.", "lr.", "position.")  # of numbers only


def serialize(checkpoint: Checkpoint) -> bytes:
    """Return the bytes of a checkpoint's file.

    Raises DivergedError for a non-finite tensor, and CheckpointError for a value that is neither plain nor a dense
    tensor, or for too many bytes: `load` refuses all of these."""
    parts = {key: getattr(checkpoint, key) for key in sorted(KEYS)}
    return to_bytes(parts, format=FORMAT, version=VERSION, name=checkpoint.run["name"])


def to_bytes(parts: Mapping[str, Any], *, format: str, version: int, name: str) -> bytes:
    """Return the bytes of a file of plain values and tensors, with their checksums. Raises as `serialize`; name: for
    an error."""
    content, buffer = _Content(), io.BytesIO()
    try:
        plain = {key: content.plain(value, key) for key, value in parts.items()}
        tensors = content.tensors.values()
        _refuse_large(sum(tensor.nbytes for tensor in tensors))
        envelope = {"format": format, "version": version, "checksums": [checksum(tensor) for tensor in tensors]}
        torch.save({**envelope, **plain}, buffer)
        _refuse_large(buffer.tell())
    except Unsound as error:
        raise CheckpointError(f"{name}: cannot write a checkpoint: {error}") from None
    return buffer.getvalue()


def checksum(tensor: torch.Tensor) -> int:
    """Return the checksum of a contiguous tensor on the CPU."""
    return zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data)


class _Content:
    """Copies the containers of a checkpoint, and its tensors to the CPU. A tensor that occurs twice stays one."""

    def __init__(self) -> None:
        self.tensors: dict[int, torch.Tensor] = {}  # by the id of the original, in the order of the content
        self.used: set[int] = set()  # addresses of their memory

    def plain(self, value: Any, path: str) -> Any:
        """Return a copy of a value. path: its keys, for an error. Raises Unsound and DivergedError."""
        kind = type(value)
        if kind is str:
            return sys.intern(value)  # pickle writes a string again unless it is the same object
        if kind is dict and all(type(key) in (str, int) for key in value):
            return {self.plain(key, path): self.plain(item, f"{path}.{key}") for key, item in value.items()}
        if kind is list and {float, type(None)}.issuperset(map(type, value)):
            return [*value]  # at once: a history is long
        if kind in (list, tuple):
            return kind([self.plain(item, f"{path}.{number}") for number, item in enumerate(value)])
        if isinstance(value, torch.Tensor) and not path.startswith(_HISTORIES):
            if id(value) not in self.tensors:
                self.tensors[id(value)] = self._dense(value, path)
            return self.tensors[id(value)]
        if kind in (float, bool, type(None)) or (kind is int and value.bit_length() <= 64):
            return value
        raise _not_plain(value, path)

    def _dense(self, tensor: torch.Tensor, path: str) -> torch.Tensor:
        """Return a tensor that covers memory of its own, on the CPU."""
        if tensor.dtype not in STORAGES.values() or tensor.layout != torch.strided or tensor.is_meta:
            raise _not_plain(tensor, path)
        if not is_finite(tensor):
            raise DivergedError(f"{path} is no longer finite")
        dense = tensor.detach().cpu().contiguous()
        memory = dense.untyped_storage()
        if type(dense) is not torch.Tensor or memory.nbytes() != dense.nbytes or memory.data_ptr() in self.used:
            dense = torch.empty(dense.shape, dtype=dense.dtype).copy_(dense)
        self.used.add(dense.untyped_storage().data_ptr())
        return dense


def _not_plain(value: Any, path: str) -> Unsound:
    return Unsound(f"{path} must be a plain value or a dense tensor, got {type(value).__name__}")


def _refuse_large(n_bytes: int) -> None:
    if n_bytes > archive.MOST_BYTES:
        raise Unsound(f"at least {n_bytes} bytes, must be <= {archive.MOST_BYTES}; train a smaller model")
