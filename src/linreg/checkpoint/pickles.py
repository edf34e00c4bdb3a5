"""What `data.pkl` would build, found by walking its opcodes: plain values, and tensors that are what they seem.

Nothing is built or called here. A pickle passes if it uses the opcodes and names that `torch.save` of plain values and
dense tensors uses, in the ways it does; then `torch.load(weights_only=True)` has nothing left to refuse.
"""

import math
import pickle as p
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from linreg.checkpoint.archive import Unsound

BUDGET = 150_000_000  # bytes that the values, without the tensors' data, may come to in memory
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

# Of each opcode, the bytes of its argument, and its share of the budget: what it takes in memory, or more, so that one
# who has but few bytes to send is refused at once. Strings and names are longer by their length.
_OPCODES = {
    p.NONE: (0, 16), p.NEWTRUE: (0, 100), p.NEWFALSE: (0, 100), p.BININT1: (1, 100), p.BININT2: (2, 100),
    p.BININT: (4, 100), p.LONG1: (1, 100), p.BINFLOAT: (8, 40), p.BINUNICODE: (4, 100), p.EMPTY_TUPLE: (0, 100),
    p.EMPTY_LIST: (0, 250), p.EMPTY_DICT: (0, 250), p.MARK: (0, 100), p.TUPLE: (0, 400), p.TUPLE1: (0, 400),
    p.TUPLE2: (0, 400), p.TUPLE3: (0, 400), p.APPEND: (0, 100), p.APPENDS: (0, 100), p.SETITEM: (0, 200),
    p.SETITEMS: (0, 100), p.BINPUT: (1, 100), p.LONG_BINPUT: (4, 100), p.BINGET: (1, 100), p.LONG_BINGET: (4, 100),
    p.GLOBAL: (0, 100), p.BINPERSID: (0, 800), p.REDUCE: (0, 700), p.STOP: (0, 0),
}  # fmt: skip
_FLOATS, _NONES = re.compile(b"(?:G.{8})+", re.DOTALL), re.compile(b"N+")  # a history has many


class _Kind(NamedTuple):
    """What stands on the stack for a value of which no more is needed."""

    name: str


class _Name(NamedTuple):
    """A class or function that a pickle names."""

    text: bytes


class _Storage(NamedTuple):
    """The memory of a tensor, of so many elements."""

    numel: int


_VALUE, _LIST, _DICT, _NO_HOOKS, _TENSOR = map(_Kind, ("value", "list", "dict", "hooks", "tensor"))


def strides(size: Sequence[int]) -> tuple[int, ...]:
    """The strides of a tensor of this size whose elements lie one behind the other."""
    return tuple(math.prod(max(1, length) for length in size[axis + 1 :]) for axis in range(len(size)))


def check(data: bytes, sizes: Mapping[str, int]) -> None:
    """Walk a pickle. Raises Unsound if it does what no checkpoint does.

    sizes: of the record of each storage, in bytes, by its key. Each must belong to one tensor that covers it wholly.
    """
    try:
        left = _walk(data, dict(sizes))
    except (IndexError, UnicodeDecodeError):  # of an empty stack, an unknown memo, beyond the end; of a string
        raise _unsound("a pickle that is cut, or is none") from None
    if left:
        raise _unsound("a record that belongs to no tensor")


def _unsound(what: str) -> Unsound:
    return Unsound(
        f"holds more than plain values and tensors ({what}); "
        "it was not opened, use a checkpoint that linreg train wrote"
    )


def _walk(data: bytes, unused: dict[str, int]) -> dict[str, int]:  # noqa: PLR0915  # a case for each kind of opcode
    """Follow the stack as torch would; give the records that no tensor has."""
    stack: list[Any] = []
    marked: list[list[Any]] = []
    memo: list[Any] = []
    budget, at = BUDGET, 2
    if data[:2] != p.PROTO + b"\2":
        raise _unsound("a pickle of another protocol")
    while True:
        opcode = data[at : at + 1]
        if not opcode:
            raise IndexError
        if opcode not in _OPCODES:
            raise _unsound(f"opcode {opcode!r}")
        length, cost = _OPCODES[opcode]
        number = int.from_bytes(data[at + 1 : at + 1 + length], "little")
        at += 1 + length
        budget -= cost
        if budget < 0:
            raise Unsound("holds more values than a checkpoint can have; use another checkpoint of the run")
        match opcode:
            case p.BINFLOAT | p.NONE:
                run = (_FLOATS if opcode == p.BINFLOAT else _NONES).match(data, at - 1 - length)
                if run is None:
                    raise IndexError
                count = (run.end() - run.start()) // (1 + length)
                budget -= cost * (count - 1)
                stack += [_VALUE] * count
                at = run.end()
            case p.BINPUT | p.LONG_BINPUT:
                if number != len(memo):
                    raise _unsound("a memo out of order")
                memo.append(stack[-1])
            case p.BINGET | p.LONG_BINGET:
                stack.append(memo[number])
            case p.BINUNICODE:
                budget -= 4 * number
                stack.append(data[at : at + number].decode())
                at += number
            case p.BININT1 | p.BININT2:
                stack.append(number)
            case p.NEWTRUE | p.NEWFALSE:
                stack.append(opcode == p.NEWTRUE)
            case p.MARK:
                marked.append(stack)
                stack = []
                if len(marked) > _DEPTH:
                    raise _unsound("values within values without end")
            case p.TUPLE:
                items, stack = stack, marked.pop()
                stack.append(_tuple(items))
            case p.TUPLE1 | p.TUPLE2 | p.TUPLE3:
                items = [stack.pop() for _ in range((p.TUPLE1, p.TUPLE2, p.TUPLE3).index(opcode) + 1)]
                stack.append(_tuple(items[::-1]))
            case p.EMPTY_TUPLE:
                stack.append(())
            case p.EMPTY_LIST:
                stack.append(_LIST)
            case p.EMPTY_DICT:
                stack.append(_DICT)
            case p.APPEND | p.APPENDS:
                if opcode == p.APPEND:
                    stack.pop()
                else:
                    stack = marked.pop()
                if stack[-1] is not _LIST:
                    raise _unsound("items of something else than a list")
            case p.SETITEM | p.SETITEMS:
                if opcode == p.SETITEM:
                    items = [stack.pop(), stack.pop()][::-1]
                else:
                    items, stack = stack, marked.pop()
                if stack[-1] is not _DICT or len(items) % 2:
                    raise _unsound("items of something else than a dictionary")
                if not all(type(key) is str or type(key) is int for key in items[::2]):
                    raise _unsound("a key that is no string or number")
                budget -= 50 * len(items)
            case p.BININT:
                stack.append(number - 2**32 if number >= 2**31 else number)
            case p.LONG1:
                stack.append(int.from_bytes(data[at : at + number], "little", signed=True))
                if stack[-1].bit_length() > 64:
                    raise _unsound("a number of more than 64 bits")
                at += number
            case p.GLOBAL:
                name = _NAMES.match(data, at)
                if name is None:
                    raise _unsound(f"names {data[at : at + 60].decode(errors='replace').split(chr(10))[:2]!a}")
                stack.append(_Name(name[0]))
                at = name.end()
            case p.BINPERSID:
                stack.append(_storage(stack.pop(), unused))
            case p.REDUCE:
                arguments = stack.pop()
                stack.append(_called(stack.pop(), arguments))
            case _:
                if len(stack) != 1 or stack[0] is not _DICT or marked or at != len(data):
                    raise _unsound("a pickle of something else than a dictionary, or with more behind it")
                return unused


def _tuple(items: list[Any]) -> Any:
    """A tuple; of one within one within another no more is needed."""
    deep = any(type(item) is tuple and any(type(inner) is tuple for inner in item) for item in items)
    return _VALUE if deep else tuple(items)


def _storage(told: Any, unused: dict[str, int]) -> _Storage:
    """The storage that a persistent id stands for; its record is used up by it."""
    match told:
        case ("storage", _Name(text), str(key), str(location), int(numel)) if type(told) is tuple:
            size = unused.pop(key, None)
            if text not in _CLASSES or size is None or not _LOCATION.fullmatch(location) or type(numel) is not int:
                raise _unsound("a storage of another kind, or one that two tensors share")
            if numel * _CLASSES[text] != size:
                raise _unsound("a storage of another size than its record")
            return _Storage(numel)
    raise _unsound("a persistent id that is not of a storage")


def _called(function: Any, arguments: Any) -> _Kind:
    """What a call gives, if it is one of the two that torch.save writes, with arguments as it writes them."""
    if function == _Name(_HOOKS) and arguments == ():
        return _NO_HOOKS
    match arguments:
        case (_Storage(numel), 0 as offset, tuple(size), tuple(stride), False, hooks) if function == _Name(_REBUILD):
            lengths = (
                type(offset) is int
                and len(size) <= _DIMENSIONS
                and all(type(length) is int and length >= 0 for length in size)
            )
            if lengths and math.prod(size) == numel and stride == strides(size) and hooks is _NO_HOOKS:
                return _TENSOR
            raise _unsound("a tensor that is not the whole of its storage, in order")
    raise _unsound("a call that is not of torch.save")
