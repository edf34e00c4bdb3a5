"""A check of a checkpoint's `data.pkl`: it may build only plain values and whole tensors. `files.load` uses it.

The check walks the opcodes and neither builds nor calls anything. A pickle passes if it uses only the opcodes and names
that `torch.save` writes for plain values and dense tensors, in the same way. `torch.load(weights_only=True)` then has
nothing left to refuse.
"""

import math
import pickle as p
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from linreg.checkpoint.archive import Unsound

BUDGET = 150_000_000  # the most bytes of memory that the values may take, without the data of the tensors
_DIMENSIONS, _DEPTH = 8, 64
_LOCATION = re.compile(r"cpu|(cuda|mps)(:[0-9]{1,3})?")

STORAGES = {
    "ByteStorage": torch.uint8, "CharStorage": torch.int8, "BoolStorage": torch.bool, "ShortStorage": torch.int16,
    "IntStorage": torch.int32, "LongStorage": torch.int64, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "FloatStorage": torch.float32, "DoubleStorage": torch.float64,
}  # fmt: skip
_HOOKS, _REBUILD = b"collections\nOrderedDict\n", b"torch._utils\n_rebuild_tensor_v2\n"
_CLASSES = {f"torch\n{name}\n".encode(): dtype.itemsize for name, dtype in STORAGES.items()}
_NAMES = re.compile(b"|".join(re.escape(name) for name in (_HOOKS, _REBUILD, *_CLASSES)))
_FLOATS, _NONES = re.compile(b"(?:G.{8})+", re.DOTALL), re.compile(b"N+")


class _Kind(NamedTuple):
    """The entry on the stack for a value of which only the kind matters."""

    name: str


class _Name(NamedTuple):
    """The entry on the stack for a class or function."""

    text: bytes


class _Storage(NamedTuple):
    """The entry on the stack for the memory of a tensor."""

    numel: int


_VALUE, _LIST, _DICT, _NO_HOOKS, _TENSOR = map(_Kind, ("value", "list", "dict", "hooks", "tensor"))


def strides(size: Sequence[int]) -> tuple[int, ...]:
    """Return the strides of a contiguous tensor of this size."""
    return tuple(math.prod(max(1, length) for length in size[axis + 1 :]) for axis in range(len(size)))


def check(data: bytes, sizes: Mapping[str, int]) -> None:
    """Walk a pickle. Raises Unsound if it does anything that no checkpoint does.

    sizes: the bytes of each storage's record, by its key. Exactly one tensor must cover each storage completely.
    """
    walk = _Walk(data, sizes)
    try:
        walk.run()
    except (IndexError, UnicodeDecodeError):  # an empty stack, an unknown memo, the end of the data; a bad string
        raise _unsound("truncated or invalid pickle") from None
    if walk.unused:
        raise _unsound("a record without a tensor")


def _unsound(reason: str) -> Unsound:
    return Unsound(f"holds more than plain values and tensors ({reason}); use a checkpoint written by linreg train")


# The bytes of an opcode's argument, and its cost: at least the memory that it takes, so that a few bytes cannot claim
# much. Strings and runs cost more by their length.
_OPCODES = {
    p.NONE: (0, 16), p.BINFLOAT: (8, 40), p.NEWTRUE: (0, 100), p.NEWFALSE: (0, 100), p.BININT1: (1, 100),
    p.BININT2: (2, 100), p.BININT: (4, 100), p.LONG1: (1, 100), p.BINUNICODE: (4, 100), p.GLOBAL: (0, 100),
    p.EMPTY_TUPLE: (0, 100), p.EMPTY_LIST: (0, 250), p.EMPTY_DICT: (0, 250), p.MARK: (0, 100), p.TUPLE: (0, 400),
    p.TUPLE1: (0, 400), p.TUPLE2: (0, 400), p.TUPLE3: (0, 400), p.APPEND: (0, 100), p.APPENDS: (0, 100),
    p.SETITEM: (0, 200), p.SETITEMS: (0, 100), p.BINPUT: (1, 100), p.LONG_BINPUT: (4, 100), p.BINGET: (1, 100),
    p.LONG_BINGET: (4, 100), p.BINPERSID: (0, 800), p.REDUCE: (0, 700), p.STOP: (0, 0),
}  # fmt: skip
_SIZES = {p.TUPLE1: 1, p.TUPLE2: 2, p.TUPLE3: 3}


class _Walk:
    """A walk over the opcodes of a pickle, with the stack, marks and memo of an unpickler.

    budget: the bytes that further values may take. unused: the sizes of the records that no tensor has used yet."""

    def __init__(self, data: bytes, sizes: Mapping[str, int]) -> None:
        self.data, self.position, self.budget, self.unused = data, 0, BUDGET, dict(sizes)
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: list[Any] = []

    def run(self) -> None:
        """Follow each opcode. Raises Unsound, or IndexError for a truncated pickle."""
        if self.read(2) != p.PROTO + b"\2":
            raise _unsound("unexpected pickle protocol")
        opcode = b""
        while opcode != p.STOP:
            opcode = self.read(1)
            if not opcode:
                raise IndexError
            if opcode not in _OPCODES:
                raise _unsound(f"opcode {opcode!r}")
            length, cost = _OPCODES[opcode]
            argument = int.from_bytes(self.read(length), "little")
            self.budget -= cost
            if self.budget < 0:
                raise Unsound("holds more values than a checkpoint can have; use another checkpoint of the run")
            if opcode in (p.NONE, p.BINFLOAT):
                self.push_run(_NONES if opcode == p.NONE else _FLOATS, 1 + length, cost)
            elif not self.push(opcode, argument):
                self.build(opcode)
        if len(self.stack) != 1 or self.stack[0] is not _DICT or self.marked or self.position != len(self.data):
            raise _unsound("pickle is not a single dictionary")

    def read(self, length: int) -> bytes:
        """Return the next bytes, fewer at the end of the data."""
        self.position += length
        return self.data[self.position - length : self.position]

    def push_run(self, pattern: re.Pattern[bytes], n_bytes: int, cost: int) -> None:
        """Push a run of values of n_bytes each at once: a history has many."""
        match = pattern.match(self.data, self.position - n_bytes)
        if match is None:
            raise IndexError
        count = (match.end() - match.start()) // n_bytes
        self.budget -= cost * (count - 1)
        self.stack += [_VALUE] * count
        self.position = match.end()

    def push(self, opcode: bytes, argument: int) -> bool:
        """Follow an opcode that pushes a value, or memoizes one. Return False for another one."""
        value: Any
        match opcode:
            case p.BINPUT | p.LONG_BINPUT:
                if argument != len(self.memo):
                    raise _unsound("memo out of order")
                self.memo.append(self.stack[-1])
                return True
            case p.BINGET | p.LONG_BINGET:
                value = self.memo[argument]
            case p.BINUNICODE:
                self.budget -= 4 * argument
                value = self.read(argument).decode()
            case p.BININT1 | p.BININT2:
                value = argument
            case p.BININT:
                value = argument - 2**32 if argument >= 2**31 else argument
            case p.LONG1:
                value = int.from_bytes(self.read(argument), "little", signed=True)
                if value.bit_length() > 64:
                    raise _unsound("an integer of more than 64 bits")
            case p.NEWTRUE | p.NEWFALSE:
                value = opcode == p.NEWTRUE
            case p.EMPTY_TUPLE | p.EMPTY_LIST | p.EMPTY_DICT:
                value = {p.EMPTY_TUPLE: (), p.EMPTY_LIST: _LIST, p.EMPTY_DICT: _DICT}[opcode]
            case p.GLOBAL:
                match = _NAMES.match(self.data, self.position)
                if match is None:
                    text = self.data[self.position : self.position + 60].decode(errors="replace")
                    raise _unsound(f"names {text.split(chr(10))[:2]!a}")
                value, self.position = _Name(match[0]), match.end()
            case _:
                return False
        self.stack.append(value)
        return True

    def build(self, opcode: bytes) -> None:
        """Follow an opcode that takes values from the stack."""
        match opcode:
            case p.MARK:
                self.marked.append(self.stack)
                self.stack = []
                if len(self.marked) > _DEPTH:
                    raise _unsound("values nested too deeply")
            case p.TUPLE:
                items = self.pop_marked()
                self.stack.append(_tuple(items))
            case p.TUPLE1 | p.TUPLE2 | p.TUPLE3:
                items = [self.stack.pop() for _ in range(_SIZES[opcode])]
                self.stack.append(_tuple(items[::-1]))
            case p.APPEND | p.APPENDS:
                self.pop_marked() if opcode == p.APPENDS else self.stack.pop()
                if self.stack[-1] is not _LIST:
                    raise _unsound("items for a value that is not a list")
            case p.SETITEM | p.SETITEMS:
                items = self.pop_marked() if opcode == p.SETITEMS else [self.stack.pop(), self.stack.pop()][::-1]
                if self.stack[-1] is not _DICT or len(items) % 2:
                    raise _unsound("items for a value that is not a dictionary")
                if not all(type(key) is str or type(key) is int for key in items[::2]):
                    raise _unsound("a key that is not a string or an integer")
                self.budget -= 50 * len(items)
            case p.BINPERSID:
                self.stack.append(_storage(self.stack.pop(), self.unused))
            case p.REDUCE:
                arguments = self.stack.pop()
                self.stack.append(_result(self.stack.pop(), arguments))

    def pop_marked(self) -> list[Any]:
        """Return the items on the stack above the last mark, and remove them."""
        items, self.stack = self.stack, self.marked.pop()
        return items


def _tuple(items: list[Any]) -> Any:
    """Return the entry for a tuple. The content of tuples nested three deep does not matter."""
    is_deep = any(type(item) is tuple and any(type(inner) is tuple for inner in item) for item in items)
    return _VALUE if is_deep else tuple(items)


def _storage(persistent_id: Any, unused: dict[str, int]) -> _Storage:
    """Return the entry for the storage of a persistent id, and remove its record from unused."""
    match persistent_id:
        case ("storage", _Name(text), str(key), str(location), int(numel)) if type(persistent_id) is tuple:
            size = unused.pop(key, None)
            if text not in _CLASSES or size is None or not _LOCATION.fullmatch(location) or type(numel) is not int:
                raise _unsound("an unknown storage, or one that two tensors share")
            if numel * _CLASSES[text] != size:
                raise _unsound("a storage of another size than its record")
            return _Storage(numel)
    raise _unsound("a persistent id that is not a storage's")


def _result(function: Any, arguments: Any) -> _Kind:
    """Return the entry for the result of a call. Only the two calls that torch.save writes are allowed."""
    if function == _Name(_HOOKS) and arguments == ():
        return _NO_HOOKS
    match arguments:
        case (_Storage(numel), 0 as offset, tuple(size), tuple(stride), False, hooks) if function == _Name(_REBUILD):
            is_shape = (
                type(offset) is int
                and len(size) <= _DIMENSIONS
                and all(type(length) is int and length >= 0 for length in size)
            )
            if is_shape and math.prod(size) == numel and stride == strides(size) and hooks is _NO_HOOKS:
                return _TENSOR
            raise _unsound("a tensor that does not cover its storage in order")
    raise _unsound("an unexpected call")
