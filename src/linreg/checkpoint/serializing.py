"""Converts a checkpoint to the bytes of its file, by `torch.save`. `files.save` and the saver of a run use it.

`load` accepts only plain values, and dense finite tensors that each cover their memory. So the values are checked, and
copied where needed, before `torch.save` sees them.
"""

import io
import zlib
from collections.abc import Iterable
from typing import Any

import torch

from linreg.checkpoint import archive
from linreg.checkpoint.contents import FORMAT, KEYS, VERSION, Checkpoint, is_finite
from linreg.checkpoint.pickles import STORAGES
from linreg.errors import CheckpointError, DivergedError

_HISTORIES = ("loss", "val_loss", "lr", "position")
_PLAIN = frozenset({str, float, bool, int, type(None)})


def serialize(checkpoint: Checkpoint) -> bytes:
    """Return the bytes of a checkpoint's file.

    Raises DivergedError for a non-finite tensor, and CheckpointError for a value that is neither plain nor a dense
    tensor, or for too many bytes: `load` refuses all of these."""
    content, buffer = _Content(), io.BytesIO()
    try:
        parts = {key: content.plain(getattr(checkpoint, key), key) for key in sorted(KEYS)}
        torch.save(
            {"format": FORMAT, "version": VERSION, "checksums": checksums(content.tensors.values()), **parts}, buffer
        )
        _refuse_large(buffer.getbuffer().nbytes)
    except (TypeError, OverflowError) as error:
        raise CheckpointError(f"{checkpoint.run['name']}: cannot write a checkpoint: {error}") from None
    return buffer.getvalue()


def checksums(tensors: Iterable[torch.Tensor]) -> list[int]:
    """Return the checksums of dense tensors.

    They detect swapped and incompletely read tensors, which the checksums of the zip do not."""
    return [zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data) for tensor in tensors]


class _Content:
    """Copies the containers of a checkpoint, and its tensors to the CPU. A tensor that occurs twice stays one."""

    def __init__(self) -> None:
        self.tensors: dict[int, torch.Tensor] = {}  # by the id of the original
        self.used: set[int] = set()  # addresses of their memory
        self.n_bytes = 0

    def plain(self, value: Any, path: str) -> Any:
        """Return a copy of a value. path: its keys, for an error. Raises TypeError, OverflowError, DivergedError."""
        kind = type(value)
        if kind is dict and all(type(key) in (str, int) for key in value):
            return {key: self.plain(item, f"{path}.{key}") for key, item in value.items()}
        if path in _HISTORIES:  # of numbers only, and long
            for number, item in enumerate(value):
                if type(item) is not float and item is not None:
                    raise _not_plain(item, f"{path}.{number}")
            return list(value)
        if kind in (list, tuple):
            return kind(self.plain(item, f"{path}.{number}") for number, item in enumerate(value))
        if isinstance(value, torch.Tensor):
            if id(value) not in self.tensors:
                self.tensors[id(value)] = self._dense(value, path)
            return self.tensors[id(value)]
        if kind not in _PLAIN or (kind is int and value.bit_length() > 64):
            raise _not_plain(value, path)
        return value

    def _dense(self, tensor: torch.Tensor, path: str) -> torch.Tensor:
        """Return a tensor that covers memory of its own, on the CPU."""
        if tensor.dtype not in STORAGES.values() or tensor.layout != torch.strided or tensor.is_meta:
            raise _not_plain(tensor, path)
        if not is_finite(tensor):
            raise DivergedError(f"{path} is no longer finite")
        self.n_bytes += tensor.nbytes
        _refuse_large(self.n_bytes)
        dense = tensor.detach().cpu().contiguous()
        memory = dense.untyped_storage()
        if type(dense) is not torch.Tensor or memory.nbytes() != dense.nbytes or memory.data_ptr() in self.used:
            dense = torch.empty(dense.shape, dtype=dense.dtype).copy_(dense)
        self.used.add(dense.untyped_storage().data_ptr())
        return dense


def _not_plain(value: Any, path: str) -> TypeError:
    return TypeError(f"{path} must be a plain value or a dense tensor, got {type(value).__name__}")


def _refuse_large(n_bytes: int) -> None:
    if n_bytes > archive.MOST_BYTES:
        raise OverflowError(f"at least {n_bytes} bytes, must be <= {archive.MOST_BYTES}; train a smaller model")
