"""Converts a checkpoint to the bytes of its file in one pass, in the layout of `torch.save`. `files.save` uses it.

Calling `torch.save` after the same checks would be shorter, but takes 1.3 ms instead of 0.45 ms for a small model.
`linreg train configs/simple_linear_regression.yaml checkpoint.every=1` then takes 2.67 s instead of 2.48 s, 8 % more
(medians of 20 runs on two cloud cores). With the default `checkpoint.every` the difference is below 1 %.
"""

import io
import pickle as p
import zlib
from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np
import torch
from torch._utils import _rebuild_tensor_v2  # the function that torch.save refers to

from linreg.checkpoint import archive, pickles
from linreg.checkpoint.archive import Record, Unsound
from linreg.checkpoint.contents import FORMAT, KEYS, VERSION, Checkpoint, is_finite
from linreg.errors import CheckpointError, DivergedError

_STORAGES = {dtype: getattr(torch, name) for name, dtype in pickles.STORAGES.items()}
_ALLOWED = (_rebuild_tensor_v2, OrderedDict, *_STORAGES.values())
_NUMBERS = ("loss", "val_loss", "lr", "position")
_PLAIN_TYPES = frozenset({str, float, bool, type(None), list, tuple})  # any value is allowed
_KEY_TYPES = frozenset({str, int})
_BUILTIN_REFUSED = (bytes, bytearray, set, frozenset, p.PickleBuffer)  # the pickler calls no reducer_override for these


def serialize(checkpoint: Checkpoint) -> bytes:
    """Return the bytes of a checkpoint's file.

    Raises DivergedError for a non-finite tensor, and CheckpointError for a value that is neither plain nor a dense
    tensor, or for too many bytes: `load` refuses all of these."""
    parts = {key: getattr(checkpoint, key) for key in sorted(KEYS)}
    if checkpoint.best and checkpoint.best["states"]["model_state_dict"] is checkpoint.model_state_dict:
        parts["best"] = _copy_containers(checkpoint.best)
    numbers = {key: parts.pop(key) for key in _NUMBERS}
    try:
        pickle, records = _pickle_content({"format": FORMAT, "version": VERSION, **parts}, numbers)
        return archive.join(pickle, records)
    except _NotFinite as error:
        raise DivergedError(f"{_key_path({**parts, **numbers}, error.value)} is no longer finite") from None
    except _NotPlain as error:
        path = _key_path({**parts, **numbers}, error.value) or "a value"
        reason = f"{path} must be a plain value or a dense tensor, got {type(error.value).__name__}"
    except Unsound as error:
        reason = str(error)
    raise CheckpointError(f"{checkpoint.run['name']}: cannot write a checkpoint: {reason}")


def _pickle_content(parts: dict[str, Any], numbers: dict[str, list[float]]) -> tuple[bytes, list[Record]]:
    """Pickle parts and numbers as one dictionary, and return the records of its tensors too."""
    first, second = io.BytesIO(), io.BytesIO()
    pickler = _Pickler(first, protocol=2)
    pickler.dump(parts)
    numbers_pickler = _NumbersPickler(second, protocol=2)
    numbers_pickler.fast = True  # without a memo, which would overwrite that of the first pickler
    numbers_pickler.dump({**numbers, "checksums": [record.crc for record in pickler.records]})
    items = second.getvalue().removeprefix(p.PROTO + b"\2" + p.EMPTY_DICT)
    return first.getvalue().removesuffix(p.STOP) + items, pickler.records


class _Refused(Exception):  # noqa: N818  # the subclasses describe the value
    """A value that a checkpoint cannot hold."""

    def __init__(self, value: object) -> None:
        self.value = value


class _NotPlain(_Refused):
    pass


class _NotFinite(_Refused):
    pass


class _StorageId(NamedTuple):
    """The placeholder of a tensor's memory in a pickle."""

    persistent_id: tuple[Any, ...]


class _NoHooks:
    """The placeholder of a tensor's hooks in a pickle."""


class _NumbersPickler(p.Pickler):
    """Pickles lists of numbers without a call for each, which would be slow after many epochs."""

    def reducer_override(self, value: Any) -> Any:
        """Reduce a value of no builtin type, or raise _NotPlain."""
        raise _NotPlain(value)


class _Pickler(p.Pickler):
    """Pickles plain values and dense tensors, and refuses all other values.

    Each tensor gets a record with exactly its elements, even if it is strided or shares its memory. A tensor object
    that occurs twice is written once."""

    def __init__(self, file: io.BytesIO, protocol: int) -> None:
        super().__init__(file, protocol)
        self.records: list[Record] = []

    def persistent_id(self, value: Any) -> tuple[Any, ...] | None:
        """Check a value before it is written, and return torch's id for the memory of a tensor."""
        kind = type(value)
        if kind in _PLAIN_TYPES or kind is torch.Tensor:
            return None
        if isinstance(value, _StorageId):
            return value.persistent_id
        is_refused = (
            (kind is int and value.bit_length() > 64)
            or (kind is dict and not _KEY_TYPES.issuperset(map(type, value)))
            or kind in _BUILTIN_REFUSED
        )
        if is_refused:
            raise _NotPlain(value)
        return None

    def reducer_override(self, value: Any) -> Any:
        """Reduce a value of no builtin type, or raise _NotPlain."""
        if isinstance(value, torch.Tensor):
            return _rebuild_tensor_v2, self._record(value)
        if type(value) is _NoHooks:
            return OrderedDict, ()
        if any(value is name for name in _ALLOWED):
            return NotImplemented
        raise _NotPlain(value)

    def _record(self, tensor: torch.Tensor) -> tuple[Any, ...]:
        """Add a record for a tensor, and return the arguments that rebuild the tensor."""
        storage = _STORAGES.get(tensor.dtype)
        if storage is None or tensor.layout != torch.strided or tensor.is_meta:
            raise _NotPlain(tensor)
        if not is_finite(tensor):
            raise _NotFinite(tensor)
        readable = tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor  # unknown to NumPy
        array = np.ascontiguousarray(readable.numpy(force=True))
        data = array.reshape(-1).data.cast("B")
        key, size = str(len(self.records)), tuple(tensor.shape)
        self.records.append(Record(f"data/{key}", data, zlib.crc32(data)))
        memory = _StorageId(("storage", storage, key, "cpu", tensor.numel()))
        return memory, 0, size, pickles.strides(size), False, _NoHooks()


def _copy_containers(value: Any) -> Any:
    """Copy dictionaries and lists, but not the values in them. Without a copy, both uses would load as one object."""
    if isinstance(value, dict):
        return {key: _copy_containers(item) for key, item in value.items()}
    return [_copy_containers(item) for item in value] if isinstance(value, list) else value


def _key_path(values: Any, wanted: object) -> str | None:
    """Return the keys that lead to an object in plain values; None if it is not there."""
    pairs = (
        values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list | tuple) else ()
    )
    for key, value in pairs:
        if value is wanted:
            return str(key)
        if (deeper := _key_path(value, wanted)) is not None:
            return f"{key}.{deeper}"
    return None
