"""Malicious checkpoints, made by a grammar: what a pickle may call, by which opcodes, and where in a checkpoint it does."""

import pickle as p
import struct
from collections.abc import Callable, Iterator

from tests.faults.damage import records_of, rewritten

# What an attacker would call. The first leave a file called `attacked` behind if they are.
CALLS: list[tuple[str, str, tuple[object, ...]]] = [
    ("os", "system", ("touch attacked",)),
    ("posix", "system", ("touch attacked",)),
    ("os", "mkdir", ("attacked",)),
    ("builtins", "eval", ("open('attacked', 'w')",)),
    ("builtins", "exec", ("open('attacked', 'w')",)),
    ("__builtin__", "eval", ("open('attacked', 'w')",)),
    ("builtins", "open", ("attacked", "w")),
    ("io", "open", ("attacked", "w")),
    ("subprocess", "Popen", (["touch", "attacked"],)),
    ("subprocess", "check_output", (["touch", "attacked"],)),
    ("pathlib", "Path", ("attacked",)),
    ("shutil", "copyfile", ("/etc/hostname", "attacked")),
    ("runpy", "run_path", ("attacked.py",)),
    ("builtins", "__import__", ("antigravity",)),
    ("importlib", "import_module", ("antigravity",)),
    ("builtins", "getattr", ("a", "b")),
    ("builtins", "bytearray", (2**30,)),
    ("builtins", "set", ([1],)),
    ("builtins", "complex", (1, 2)),
    ("_codecs", "encode", ("a", "latin1")),
    ("operator", "attrgetter", ("a",)),
    ("functools", "partial", (1,)),
    ("pickle", "loads", (b"\x80\2N.",)),
    ("marshal", "loads", (b"N",)),
    ("types", "CodeType", ()),
    ("ctypes", "CDLL", ("libc.so.6",)),
    ("socket", "create_connection", (("127.0.0.1", 9),)),
    ("urllib.request", "urlopen", ("http://127.0.0.1:9",)),
    ("webbrowser", "open", ("http://127.0.0.1:9",)),
    ("numpy", "load", ("attacked.npy",)),
    ("numpy.core.multiarray", "_reconstruct", ()),
    ("collections", "Counter", ({"a": 1},)),
    ("collections", "OrderedDict", ([["a", 1]],)),
    ("torch", "load", ("attacked",)),
    ("torch.hub", "load", ("a/b", "c")),
    ("torch.jit", "load", ("attacked",)),
    ("torch.package", "PackageImporter", ("attacked",)),
    ("torch.utils.cpp_extension", "load", ("a", "attacked")),
    ("torch._inductor.codecache", "PyCodeCache.load", ("open('attacked', 'w')",)),
    ("torch.storage", "_load_from_bytes", (b"x",)),
    ("torch.serialization", "_get_layout", ("torch.sparse_coo",)),
    ("torch", "Size", ([1, 2],)),
    ("torch", "device", ("cuda:7",)),
    ("torch", "FloatTensor", (10**9,)),
    ("torch", "UntypedStorage", (2**30,)),
    ("torch.nn.parameter", "Parameter", ()),
    ("torch._utils", "_rebuild_parameter", (None, True, {})),
    ("torch._utils", "_rebuild_tensor", (None, 0, (1,), (1,))),
    ("torch._utils", "_rebuild_tensor_v3", (None, 0, (1,), (1,), False, {}, None)),
    ("torch._utils", "_rebuild_sparse_tensor", (None, ())),
    ("torch._utils", "_rebuild_meta_tensor_no_storage", (None, (10**9,), (1,), False)),
    ("torch._utils", "_rebuild_wrapper_subclass", ()),
    ("torch._utils", "_rebuild_device_tensor_from_numpy", ()),
    ("torch._tensor", "_rebuild_from_type_v2", ()),
    ("linreg.plugins", "load_plugin", ("attacked.py",)),
    ("linreg.experiment", "train", ()),
]


def _name(module: str, name: str) -> bytes:
    return p.GLOBAL + f"{module}\n{name}\n".encode()


def _text(text: str) -> bytes:
    return p.BINUNICODE + struct.pack("<I", len(text)) + text.encode()


def _plain(what: object) -> bytes:
    """Push a value without a memo, whose numbers would not fit the pickle around it."""
    match what:
        case tuple():
            return p.MARK + b"".join(map(_plain, what)) + p.TUPLE
        case list():
            return p.EMPTY_LIST + p.MARK + b"".join(map(_plain, what)) + p.APPENDS
        case dict():
            return p.EMPTY_DICT + p.MARK + b"".join(_plain(k) + _plain(v) for k, v in what.items()) + p.SETITEMS
        case str():
            return _text(what)
        case bytes():
            return p.SHORT_BINBYTES + bytes([len(what)]) + what
        case None:
            return p.NONE
        case bool():
            return p.NEWTRUE if what else p.NEWFALSE
        case float():
            return p.BINFLOAT + struct.pack(">d", what)
        case int():
            number = what.to_bytes(what.bit_length() // 8 + 1, "little", signed=True)
            return p.LONG1 + bytes([len(number)]) + number
    raise TypeError(what)


# By which opcodes a call is made, or a name looked up: each pushes one value.
OPCODES: dict[str, Callable[[str, str, tuple[object, ...]], bytes]] = {
    "reduce": lambda m, n, a: _name(m, n) + _plain(a) + p.REDUCE,
    "stack_global": lambda m, n, a: _text(m) + _text(n) + p.STACK_GLOBAL + _plain(a) + p.REDUCE,
    "inst": lambda m, n, a: p.MARK + b"".join(map(_plain, a)) + p.INST + f"{m}\n{n}\n".encode(),
    "obj": lambda m, n, a: p.MARK + _name(m, n) + b"".join(map(_plain, a)) + p.OBJ,
    "newobj": lambda m, n, a: _name(m, n) + _plain(a) + p.NEWOBJ,
    "newobj_ex": lambda m, n, a: _name(m, n) + _plain(a) + _plain({}) + p.NEWOBJ_EX,
    "build": lambda m, n, a: _name(m, n) + _plain(a) + p.BUILD,
    "name": lambda m, n, a: _name(m, n),
    "in_a_dictionary": lambda m, n, a: _plain({}) + _plain("x") + _name(m, n) + _plain(a) + p.REDUCE + p.SETITEM,
    "by_memo": lambda m, n, a: _name(m, n) + p.LONG_BINPUT + struct.pack("<I", 9999) + _plain(a) + p.REDUCE,
    "extension": lambda m, n, a: p.EXT1 + b"\1" + _plain(a) + p.REDUCE,
    "extension_4": lambda m, n, a: p.EXT4 + b"\1\0\0\0" + _plain(a) + p.REDUCE,
}

_STORAGE = _name("torch", "FloatStorage")
_REBUILD = _name("torch._utils", "_rebuild_tensor_v2")
_NO_HOOKS = _name("collections", "OrderedDict") + p.EMPTY_TUPLE + p.REDUCE


def storage(
    kind: bytes = _STORAGE, key: bytes = _plain("0"), location: bytes = _plain("cpu"), numel: bytes = _plain(1)
) -> bytes:
    """Push a storage by its persistent id."""
    return p.MARK + _plain("storage") + kind + key + location + numel + p.TUPLE + p.BINPERSID


def tensor(
    of: bytes = b"", offset: bytes = _plain(0), size: bytes = _plain((1,)), stride: bytes = _plain((1,)),
    requires_grad: bytes = p.NEWFALSE, hooks: bytes = _NO_HOOKS, more: bytes = b"",
) -> bytes:  # fmt: skip
    """Push a tensor as torch.save writes it."""
    arguments = (of or storage()) + offset + size + stride + requires_grad + hooks + more
    return _REBUILD + p.MARK + arguments + p.TUPLE + p.REDUCE


# Where a payload stands: each takes what pushes it and gives what pushes the value of a key of the checkpoint.
PLACES: dict[str, Callable[[bytes], bytes]] = {
    "value": lambda x: x,
    "list": lambda x: p.EMPTY_LIST + x + p.APPEND,
    "deep": lambda x: p.EMPTY_LIST * 20 + x + p.APPEND * 20,
    "tuple": lambda x: _plain(1) + x + p.TUPLE2,
    "state_dict": lambda x: p.EMPTY_DICT + _text("0.weight") + x + p.SETITEM,
    "key": lambda x: p.EMPTY_DICT + x + _plain(1) + p.SETITEM,
    "storage_class": lambda x: tensor(storage(kind=x)),
    "storage_key": lambda x: tensor(storage(key=x)),
    "storage_location": lambda x: tensor(storage(location=x)),
    "storage_numel": lambda x: tensor(storage(numel=x)),
    "persistent_id": lambda x: x + p.BINPERSID,
    "tensor_storage": tensor,
    "tensor_size": lambda x: tensor(size=x),
    "tensor_grad": lambda x: tensor(requires_grad=x),
    "tensor_hooks": lambda x: tensor(hooks=x),
    "tensor_metadata": lambda x: tensor(more=x),
    "items_of": lambda x: x + _plain("a") + _plain(1) + p.SETITEM,
    "appended_to": lambda x: x + _plain(1) + p.APPEND,
}


def payloads() -> Iterator[tuple[str, bytes]]:
    """Give every call by one way to make it and in one place, all ways and places in turn; each with its name."""
    places, number = list(PLACES), 0
    for how, opcodes in OPCODES.items():
        for module, name, arguments in CALLS:
            if how.startswith("extension") and (module, name) != ("os", "system"):
                continue
            place = places[number % len(places)]
            number += 1
            yield f"{how} of {module}.{name} as {place}", PLACES[place](opcodes(module, name, arguments))
    for place, put in PLACES.items():
        yield f"reduce of os.system as {place}", put(OPCODES["reduce"](*CALLS[0]))


def poisoned(content: bytes, payload: bytes, key: str = "fit") -> bytes:
    """Put a payload into a checkpoint: last of all, under a key that is there already, so that it takes its place."""
    records = records_of(content)
    assert records["data.pkl"].endswith(p.SETITEMS + p.STOP)
    pickle = records["data.pkl"][:-2] + _text(key) + payload + p.SETITEMS + p.STOP
    return rewritten({**records, "data.pkl": pickle})
