"""A check of a checkpoint's `data.pkl`: it may build only plain values and whole tensors. `files.load` uses it.

The check walks the opcodes and neither builds nor calls anything. A pickle passes if it uses only the opcodes and names
that `torch.save` writes for plain values and dense tensors, in the same way. `torch.load(weights_only=True)` then has
nothing left to refuse.
"""

import math
import pickle as p
import re
from collections.abc import Callable, Mapping, Sequence
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


_Action = Callable[["_Walk", int], None]


class _Walk:
    """A walk over the opcodes of a pickle, with the stack, marks and memo of an unpickler.

    budget: the bytes that further values may take. unused: the sizes of the records that no tensor has used yet."""

    def __init__(self, data: bytes, sizes: Mapping[str, int]) -> None:
        self.data, self.position, self.budget, self.unused = data, 0, BUDGET, dict(sizes)
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: list[Any] = []

    def run(self) -> None:
        """Do the action of each opcode. Raises Unsound, or IndexError for a truncated pickle."""
        if self.read(2) != p.PROTO + b"\2":
            raise _unsound("unexpected pickle protocol")
        opcode = b""
        while opcode != p.STOP:
            opcode = self.read(1)
            if not opcode:
                raise IndexError
            if opcode not in _OPCODES:
                raise _unsound(f"opcode {opcode!r}")
            length, cost, act = _OPCODES[opcode]
            argument = int.from_bytes(self.read(length), "little", signed=opcode == p.BININT)
            self.budget -= cost
            if self.budget < 0:
                raise Unsound("holds more values than a checkpoint can have; use another checkpoint of the run")
            act(self, argument)

    def read(self, length: int) -> bytes:
        """Return the next bytes, fewer at the end of the data."""
        self.position += length
        return self.data[self.position - length : self.position]

    def push(self, value: Any) -> None:
        """Add an entry to the stack."""
        self.stack.append(value)

    def pop(self, length: int | None) -> list[Any]:
        """Remove the last entries from the stack, or with None those above the last mark, and return them."""
        if length is not None:
            return [self.stack.pop() for _ in range(length)][::-1]
        items, self.stack = self.stack, self.marked.pop()
        return items


# The actions of the opcodes, on a walk and the opcode's argument.


def _push(value: Any) -> _Action:
    return lambda walk, _: walk.stack.append(value)


def _push_run(pattern: re.Pattern[bytes], n_bytes: int, cost: int) -> _Action:
    """Make the action that pushes a run of values of n_bytes each at once: a history has many."""

    def push_run(walk: _Walk, _: int) -> None:
        match = pattern.match(walk.data, walk.position - n_bytes)
        if match is None:
            raise IndexError
        count = (match.end() - match.start()) // n_bytes
        walk.budget -= cost * (count - 1)
        walk.stack += [_VALUE] * count
        walk.position = match.end()

    return push_run


def _push_long(walk: _Walk, length: int) -> None:
    number = int.from_bytes(walk.read(length), "little", signed=True)
    if number.bit_length() > 64:
        raise _unsound("an integer of more than 64 bits")
    walk.push(number)


def _push_string(walk: _Walk, length: int) -> None:
    walk.budget -= 4 * length
    walk.push(walk.read(length).decode())


def _push_name(walk: _Walk, _: int) -> None:
    match = _NAMES.match(walk.data, walk.position)
    if match is None:
        text = walk.data[walk.position : walk.position + 60].decode(errors="replace")
        raise _unsound(f"names {text.split(chr(10))[:2]!a}")
    walk.push(_Name(match[0]))
    walk.position = match.end()


def _memoize(walk: _Walk, number: int) -> None:
    if number != len(walk.memo):
        raise _unsound("memo out of order")
    walk.memo.append(walk.stack[-1])


def _push_memo(walk: _Walk, number: int) -> None:
    walk.push(walk.memo[number])


def _mark(walk: _Walk, _: int) -> None:
    walk.marked.append(walk.stack)
    walk.stack = []
    if len(walk.marked) > _DEPTH:
        raise _unsound("values nested too deeply")


def _check_end(walk: _Walk, _: int) -> None:
    if len(walk.stack) != 1 or walk.stack[0] is not _DICT or walk.marked or walk.position != len(walk.data):
        raise _unsound("pickle is not a single dictionary")


def _take(length: int | None, act: Callable[[_Walk, list[Any]], None]) -> _Action:
    """Make the action that removes entries from the stack, as `_Walk.pop` does, and acts on them."""
    return lambda walk, _: act(walk, walk.pop(length))


def _push_tuple(walk: _Walk, items: list[Any]) -> None:
    """Push the entry for a tuple. The content of tuples nested three deep does not matter."""
    is_deep = any(type(item) is tuple and any(type(inner) is tuple for inner in item) for item in items)
    walk.push(_VALUE if is_deep else tuple(items))


def _append(walk: _Walk, _: list[Any]) -> None:
    if walk.stack[-1] is not _LIST:
        raise _unsound("items for a value that is not a list")


def _set_items(walk: _Walk, items: list[Any]) -> None:
    """Check that keys and values, in turn, are set in a dictionary."""
    if walk.stack[-1] is not _DICT or len(items) % 2:
        raise _unsound("items for a value that is not a dictionary")
    if not all(type(key) is str or type(key) is int for key in items[::2]):
        raise _unsound("a key that is not a string or an integer")
    walk.budget -= 50 * len(items)


def _push_storage(walk: _Walk, items: list[Any]) -> None:
    """Push the entry for the storage of a persistent id, and remove its record from the unused ones."""
    match items[0]:
        case ("storage", _Name(text), str(key), str(location), int(numel)) if type(items[0]) is tuple:
            size = walk.unused.pop(key, None)
            if text not in _CLASSES or size is None or not _LOCATION.fullmatch(location) or type(numel) is not int:
                raise _unsound("an unknown storage, or one that two tensors share")
            if numel * _CLASSES[text] != size:
                raise _unsound("a storage of another size than its record")
            walk.push(_Storage(numel))
        case _:
            raise _unsound("a persistent id that is not a storage's")


def _strides(size: Sequence[int]) -> tuple[int, ...]:
    """Return the strides of a contiguous tensor of this size."""
    return tuple(math.prod(max(1, length) for length in size[axis + 1 :]) for axis in range(len(size)))


def _call(walk: _Walk, items: list[Any]) -> None:
    """Push the entry for the result of a call. Only the two calls that torch.save writes are allowed."""
    match items:
        case [_Name(text), ()] if text == _HOOKS:
            walk.push(_NO_HOOKS)
        case [_Name(text), (_Storage(numel), 0 as offset, tuple(size), tuple(stride), False, hooks)] if (
            text == _REBUILD
        ):
            is_shape = len(size) <= _DIMENSIONS and all(type(length) is int and length >= 0 for length in size)
            is_whole = is_shape and math.prod(size) == numel and stride == _strides(size)
            if not is_whole or type(offset) is not int or hooks is not _NO_HOOKS:
                raise _unsound("a tensor that does not cover its storage in order")
            walk.push(_TENSOR)
        case _:
            raise _unsound("an unexpected call")


# Of each opcode: the bytes of its argument, its cost and its action. The cost is at least the memory that it takes, so
# that a few bytes cannot claim much. Strings and runs cost more by their length.
_OPCODES: dict[bytes, tuple[int, int, _Action]] = {
    p.NONE: (0, 16, _push_run(_NONES, 1, 16)), p.BINFLOAT: (8, 40, _push_run(_FLOATS, 9, 40)),
    p.NEWTRUE: (0, 100, _push(True)), p.NEWFALSE: (0, 100, _push(False)),
    p.BININT1: (1, 100, _Walk.push), p.BININT2: (2, 100, _Walk.push), p.BININT: (4, 100, _Walk.push),
    p.LONG1: (1, 100, _push_long), p.BINUNICODE: (4, 100, _push_string), p.GLOBAL: (0, 100, _push_name),
    p.EMPTY_TUPLE: (0, 100, _push(())), p.EMPTY_LIST: (0, 250, _push(_LIST)), p.EMPTY_DICT: (0, 250, _push(_DICT)),
    p.MARK: (0, 100, _mark), p.TUPLE: (0, 400, _take(None, _push_tuple)), p.TUPLE1: (0, 400, _take(1, _push_tuple)),
    p.TUPLE2: (0, 400, _take(2, _push_tuple)), p.TUPLE3: (0, 400, _take(3, _push_tuple)),
    p.APPEND: (0, 100, _take(1, _append)), p.APPENDS: (0, 100, _take(None, _append)),
    p.SETITEM: (0, 200, _take(2, _set_items)), p.SETITEMS: (0, 100, _take(None, _set_items)),
    p.BINPUT: (1, 100, _memoize), p.LONG_BINPUT: (4, 100, _memoize),
    p.BINGET: (1, 100, _push_memo), p.LONG_BINGET: (4, 100, _push_memo),
    p.BINPERSID: (0, 800, _take(1, _push_storage)), p.REDUCE: (0, 700, _take(2, _call)),
    p.STOP: (0, 0, _check_end),
}  # fmt: skip
