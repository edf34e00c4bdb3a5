"""A checkpoint made into the bytes of its file in one pass, laid out as `torch.save` does it.

A run that saves each epoch waits for this: torch.save alone takes one and a half times as long, and checks nothing.
"""

import io
import pickle as p
import zlib
from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np
import torch
from torch._utils import _rebuild_tensor_v2  # what torch.save names to build a tensor

from linreg.checkpoint import archive, pickles
from linreg.checkpoint.archive import Record, Unsound
from linreg.checkpoint.contents import FORMAT, KEYS, VERSION, Checkpoint, is_finite
from linreg.errors import CheckpointError, DivergedError

_STORAGES = {dtype: getattr(torch, name) for name, dtype in pickles.STORAGES.items()}
_NAMED = (_rebuild_tensor_v2, OrderedDict, *_STORAGES.values())
_LONG = ("loss", "val_loss", "lr", "position")
_PLAIN = frozenset({str, float, bool, type(None), list, tuple})  # whatever its value
_KEYS = frozenset({str, int})
_NEVER_ASKED_OF = (bytes, bytearray, set, frozenset, p.PickleBuffer)  # reducer_override is not


def serialize(checkpoint: Checkpoint) -> bytes:
    """Give what the file of a checkpoint holds. Raises, of what `load` would refuse, CheckpointError for more than
    plain values and tensors, or than a file takes, DivergedError for a tensor that is not finite."""
    parts = {key: getattr(checkpoint, key) for key in sorted(KEYS)}
    if checkpoint.best and checkpoint.best["states"]["model_state_dict"] is checkpoint.model_state_dict:
        parts["best"] = _apart(checkpoint.best)
    long = {key: parts.pop(key) for key in _LONG}
    try:
        pickle, records = _pickled({"format": FORMAT, "version": VERSION, **parts}, long)
        return archive.join(pickle, records)
    except _NotFinite as error:
        raise DivergedError(f"{_place({**parts, **long}, error.value)} is no longer finite") from None
    except _NotPlain as error:
        what = f"{_place({**parts, **long}, error.value) or 'it'} holds {type(error.value).__name__}"
        reason = f"{what}, and a checkpoint takes plain values and dense tensors"
    except Unsound as error:
        reason = str(error)
    raise CheckpointError(f"{checkpoint.run['name']}: no checkpoint can be written: {reason}")


def _pickled(parts: dict[str, Any], long: dict[str, list[float]]) -> tuple[bytes, list[Record]]:
    """Pickle the parts of a checkpoint as one dictionary; long: those that are but lists of numbers."""
    first, second = io.BytesIO(), io.BytesIO()
    pickler = _Pickler(first, protocol=2)
    pickler.dump(parts)
    rest = _NumbersPickler(second, protocol=2)
    rest.fast = True  # without a memo, whose numbers would be those of the first
    rest.dump({**long, "checksums": [record.crc for record in pickler.records]})
    items = second.getvalue().removeprefix(p.PROTO + b"\2" + p.EMPTY_DICT)
    return first.getvalue().removesuffix(p.STOP) + items, pickler.records


class _Refused(Exception):  # noqa: N818  # its kinds say what the value is
    """A value that no checkpoint takes."""

    def __init__(self, value: object) -> None:
        self.value = value


class _NotPlain(_Refused):
    pass


class _NotFinite(_Refused):
    pass


class _Memory(NamedTuple):
    """What stands in a pickle for the memory of a tensor."""

    persistent_id: tuple[Any, ...]


class _NoHooks:
    """What stands in a pickle for the hooks of a tensor."""


class _NumbersPickler(p.Pickler):
    """Pickles numbers without a look at each, which would take a run of many epochs long."""

    def reducer_override(self, value: Any) -> Any:
        """Say how to write what is of none of the builtin types."""
        raise _NotPlain(value)


class _Pickler(p.Pickler):
    """Pickles plain values and dense tensors, and refuses what else it meets. Each tensor has a record with its
    elements and no more, whatever it shares or strides; one met again is the same one, and is written once."""

    def __init__(self, file: io.BytesIO, protocol: int) -> None:
        super().__init__(file, protocol)
        self.records: list[Record] = []

    def persistent_id(self, value: Any) -> tuple[Any, ...] | None:
        """Look at a value before it is written; of the memory of a tensor, give the name that torch knows it by."""
        kind = type(value)
        if kind in _PLAIN or kind is torch.Tensor:
            return None
        if isinstance(value, _Memory):
            return value.persistent_id
        wrong = (
            (kind is int and value.bit_length() > 64)
            or (kind is dict and not _KEYS.issuperset(map(type, value)))
            or kind in _NEVER_ASKED_OF
        )
        if wrong:
            raise _NotPlain(value)
        return None

    def reducer_override(self, value: Any) -> Any:
        """Say how to write what is of none of the builtin types."""
        if isinstance(value, torch.Tensor):
            return _rebuild_tensor_v2, self._recorded(value)
        if type(value) is _NoHooks:
            return OrderedDict, ()
        if any(value is name for name in _NAMED):
            return NotImplemented
        raise _NotPlain(value)

    def _recorded(self, tensor: torch.Tensor) -> tuple[Any, ...]:
        """Make a record of a tensor; give the arguments that build it anew."""
        storage = _STORAGES.get(tensor.dtype)
        if storage is None or tensor.layout != torch.strided or tensor.is_meta:
            raise _NotPlain(tensor)
        if not is_finite(tensor):
            raise _NotFinite(tensor)
        readable = tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor  # which NumPy has not
        array = np.ascontiguousarray(readable.numpy(force=True))
        data = array.reshape(-1).data.cast("B")
        key, size = str(len(self.records)), tuple(tensor.shape)
        self.records.append(Record(f"data/{key}", data, zlib.crc32(data)))
        memory = _Memory(("storage", storage, key, "cpu", tensor.numel()))
        return memory, 0, size, pickles.strides(size), False, _NoHooks()


def _apart(value: Any) -> Any:
    """Copy what holds others, and not what is held. Written once, it would be one and the same where it is loaded."""
    if isinstance(value, dict):
        return {key: _apart(item) for key, item in value.items()}
    return [_apart(item) for item in value] if isinstance(value, list) else value


def _place(values: Any, wanted: object) -> str | None:
    """The keys that lead to an object in plain values; None where it is not."""
    pairs = (
        values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list | tuple) else ()
    )
    for key, value in pairs:
        if value is wanted:
            return str(key)
        if (deeper := _place(value, wanted)) is not None:
            return f"{key}.{deeper}"
    return None
