"""Damage to checkpoints: `python -m tests.faults.damage N SEED` tries N mutations and prints what came of them.

Each is either refused with one CheckpointError, or opens to what was saved, in every value; never to anything else.
"""

import gzip
import io
import os
import random
import sys
import tarfile
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch

from linreg import checkpoint
from linreg.checkpoint import Checkpoint
from linreg.errors import CheckpointError
from linreg.experiment.session import train
from linreg.spec.schema import spec_from_dict
from tests.conftest import same, small_spec

SPECS = {
    "linear": {},
    "momentum": {"optimizer": {"name": "sgd", "lr": 0.01, "momentum": 0.9}, "data__standardize": True},
    "adam": {"model": {"name": "mlp", "hidden": [8, 4], "dropout": 0.2}, "optimizer": {"name": "adam", "lr": 0.01}},
    "cycle": {
        "model": {"name": "polynomial", "degree": 3},
        "optimizer": {"name": "adamw", "lr": 0.01, "amsgrad": True},
        "scheduler": {"name": "one_cycle", "max_lr": 0.1},
        "dtype": "float64",
    },
    "plateau": {"optimizer": {"name": "rmsprop", "lr": 0.01, "centered": True}, "scheduler": {"name": "plateau"}},
    "exact": {"solver": "exact"},
}
WRITTEN_BY_TORCH = {"version", ".data/serialization_id"}


def make_samples() -> dict[Path, bytes]:
    """Train small runs in this folder, some to their end and some not; give their checkpoints, by their paths."""
    for name, changes in SPECS.items():
        spec = small_spec(name=name, data__source={"name": "friedman1", "n_samples": 40}, **changes)
        if changes.get("solver") == "exact":
            del spec["epochs"], spec["optimizer"]
        asked = iter(range(1000))
        train(spec_from_dict(spec, name), stop=lambda asked=asked, name=name: name == "adam" and next(asked) > 3)
    return {path: path.read_bytes() for path in sorted(Path("checkpoints").glob("*/*.pth"))}


def mutate(content: bytes, other: bytes, rng: random.Random) -> tuple[str, bytes]:
    """Damage a checkpoint in one way, chosen at random; other: a checkpoint that may lend a part."""
    how = rng.choice(WAYS)
    return how.__name__.removeprefix("_"), how(content, other, rng)


def _flip(content: bytes, other: bytes, rng: random.Random, number: int = 1) -> bytes:
    damaged = bytearray(content)
    for _ in range(number):
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def _flips(content: bytes, other: bytes, rng: random.Random) -> bytes:
    return _flip(content, other, rng, rng.randrange(2, 50))


def _flip_in_headers(content: bytes, other: bytes, rng: random.Random) -> bytes:
    """In the table of contents or the headers of records, which are few of all bytes."""
    places = [
        i for mark in (b"PK\3\4", b"PK\1\2", b"PK\7\x08", b"PK\5\6", b"PK\6\6", b"PK\6\7") for i in _all(content, mark)
    ]
    damaged = bytearray(content)
    at = min(rng.choice(places) + rng.randrange(64), len(content) - 1)
    damaged[at] = rng.choice([damaged[at] ^ (1 << rng.randrange(8)), 0, 255, rng.randrange(256)])
    return bytes(damaged)


def _all(content: bytes, mark: bytes) -> Iterator[int]:
    at = content.find(mark)
    while at >= 0:
        yield at
        at = content.find(mark, at + 1)


def _flip_in_pickle(content: bytes, other: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(content)
    damaged[rng.randrange(64, 4000)] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def _truncate(content: bytes, other: bytes, rng: random.Random) -> bytes:
    return content[: rng.choice([rng.randrange(len(content)), len(content) - rng.randrange(1, 200)])]


def _part(content: bytes, rng: random.Random) -> tuple[int, int]:
    start = rng.choice([rng.randrange(len(content)), 512 * rng.randrange(1 + len(content) // 512)])
    return start, min(len(content), start + rng.choice([1, 8, 64, 512, 4096, 16384]))


def _hole(content: bytes, other: bytes, rng: random.Random) -> bytes:
    start, end = _part(content, rng)
    return content[:start] + bytes(end - start) + content[end:]


def _noise(content: bytes, other: bytes, rng: random.Random) -> bytes:
    start, end = _part(content, rng)
    return content[:start] + rng.randbytes(end - start) + content[end:]


def _lost(content: bytes, other: bytes, rng: random.Random) -> bytes:
    start, end = _part(content, rng)
    return content[:start] + content[end:]


def _twice(content: bytes, other: bytes, rng: random.Random) -> bytes:
    start, end = _part(content, rng)
    return content[:end] + content[start:]


def _swapped_blocks(content: bytes, other: bytes, rng: random.Random) -> bytes:
    size = rng.choice([64, 512, 4096])
    one, two = (size * rng.randrange(max(1, len(content) // size)) for _ in range(2))
    damaged = bytearray(content)
    damaged[one : one + size], damaged[two : two + size] = content[two : two + size], content[one : one + size]
    return bytes(damaged)


def _block_of_another(content: bytes, other: bytes, rng: random.Random) -> bytes:
    start, end = _part(content, rng)
    return content[:start] + other[start:end] + content[end:]


def _beginning_of_another(content: bytes, other: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(min(len(content), len(other)))
    return other[:at] + content[at:]


def _appended(content: bytes, other: bytes, rng: random.Random) -> bytes:
    return content + rng.choice([b"\0", bytes(512), rng.randbytes(100), content, other, b"\n"])


def _prepended(content: bytes, other: bytes, rng: random.Random) -> bytes:
    return rng.choice([b"\0", b"PK\3\4", bytes(512), rng.randbytes(100), other, b"\xef\xbb\xbf"]) + content


def _swapped_records(content: bytes, other: bytes, rng: random.Random) -> bytes:
    """Two tensors in each other's place, in a file that is whole."""
    found = records_of(content)
    names = [name for name in found if name.startswith("data/")]
    one = rng.choice(names)
    two = rng.choice([name for name in names if len(found[name]) == len(found[one])])
    found[one], found[two] = found[two], found[one]
    return rewritten(found)


def _records_of_another(content: bytes, other: bytes, rng: random.Random) -> bytes:
    """Some records of another checkpoint, in a file that is whole."""
    found, lent = records_of(content), records_of(other)
    names = sorted(set(found) & set(lent) - WRITTEN_BY_TORCH)
    chosen = rng.choice([["data.pkl"], [name for name in names if name != "data.pkl"], [rng.choice(names)]])
    return rewritten({**found, **{name: lent[name] for name in chosen}})


def _lost_record(content: bytes, other: bytes, rng: random.Random) -> bytes:
    found = records_of(content)
    del found[rng.choice(sorted(set(found) - WRITTEN_BY_TORCH))]
    return rewritten(found)


def _changed_record(content: bytes, other: bytes, rng: random.Random) -> bytes:
    """A tensor that was damaged before the file was written: its checksum in the file is right."""
    found = records_of(content)
    name = rng.choice([name for name in found if name.startswith("data/")])
    found[name] = rng.choice(
        [bytes(len(found[name])), _flip(found[name], b"", rng), found[name] + b"\0", found[name][:-1]]
    )
    return rewritten(found)


def _repacked(content: bytes, other: bytes, rng: random.Random) -> bytes:
    """By another program, as it were: the same records, perhaps compressed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as archive:
        for name, record in records_of(content).items():
            archive.writestr(f"archive/{name}", record)
    return buffer.getvalue()


def records_of(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def rewritten(records: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    writer = torch._C.PyTorchFileWriter(buffer)
    for name, record in records.items():
        if name not in WRITTEN_BY_TORCH:
            writer.write_record(name, record, len(record))
    writer.write_end_of_file()
    return buffer.getvalue()


WAYS: list[Callable[[bytes, bytes, random.Random], bytes]] = [
    _flip, _flip, _flip, _flips, _flip_in_headers, _flip_in_headers, _flip_in_pickle, _truncate, _hole, _noise, _lost,
    _twice, _swapped_blocks, _block_of_another, _beginning_of_another, _appended, _prepended, _swapped_records,
    _records_of_another, _lost_record, _changed_record, _repacked,
]  # fmt: skip


def make_others(folder: Path) -> dict[str, Path]:
    """Write files of other kinds, and what is no file at all."""
    folder.mkdir()
    made = {
        name: folder / name for name in ("npz", "png", "zip", "docx", "gz", "tar", "legacy", "script", "plain", "empty")
    }
    with made["npz"].open("wb") as file:
        np.savez(file, a=np.arange(3))
    made["png"].write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    with zipfile.ZipFile(made["zip"], "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\2}.")
    with zipfile.ZipFile(made["docx"], "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr("word/document.xml", "<document/>")
    made["gz"].write_bytes(gzip.compress(bytes(1000)))
    with tarfile.open(made["tar"], "w") as archive:
        archive.add(made["zip"], "pickle")
    torch.save({"format": "linreg"}, made["legacy"], _use_new_zipfile_serialization=False)
    made["script"].write_bytes(
        rewritten({"data.pkl": b"\x80\2}.", "constants.pkl": b"\x80\2).", "byteorder": b"little"})
    )
    torch.save({"a": torch.ones(3)}, made["plain"])
    made["empty"].touch()
    (folder / "folder").mkdir()
    os.mkfifo(folder / "fifo")
    (folder / "loop").symlink_to("loop")
    more = {name: folder / name for name in ("folder", "fifo", "loop", "missing", "x" * 300, "zero\0byte")}
    return made | more | {"device": Path("/dev/zero"), "under a file": made["zip"] / "x"}


def refusal(path: Path) -> Checkpoint | str:
    """Open a file; give the checkpoint, or the one line that says why not."""
    try:
        return checkpoint.load(path)
    except CheckpointError as error:
        text = str(error)
        assert text.startswith(f"{path}: ") and text.count("\n") == 0, text
        assert text.isprintable() or not str(path).isprintable(), text
        assert "weights_only" not in text and "bug" not in text, text
        return text


def is_same(one: Checkpoint, other: Checkpoint) -> bool:
    """Whether two checkpoints are equal in every value."""
    return all(same(getattr(one, f.name), getattr(other, f.name)) for f in fields(Checkpoint) if f.name != "path")


def torture(number: int, seed: int, samples: dict[Path, bytes]) -> Counter[tuple[str, str]]:
    """Try so many mutations; count what came of each way: `refused`, `opened` to what was saved, or `WRONG`, and leave
    the files that were opened wrongly in this folder."""
    rng, counts, target = random.Random(seed), Counter[tuple[str, str]](), Path("mutated.pth")
    saved = {path: checkpoint.load(path) for path in samples}
    for trial in range(number):
        one, other = rng.choice(list(samples)), rng.choice(list(samples))
        way, damaged = mutate(samples[one], samples[other], rng)
        target.write_bytes(damaged)
        try:
            found = refusal(target)
        except Exception as error:
            found, way = f"{type(error).__name__}: {error}", f"{way}: raised {type(error).__name__}"
            Path(f"wrong_{trial}.pth").write_bytes(damaged)
            counts[way, "WRONG"] += 1
            continue
        if isinstance(found, str):
            counts[way, "refused"] += 1
        elif is_same(found, saved[one]) or is_same(found, saved[other]):
            counts[way, "opened"] += 1
        else:
            Path(f"wrong_{trial}.pth").write_bytes(damaged)
            counts[way, "WRONG"] += 1
    return counts


def main() -> int:
    """Print the figures; exit with 1 if anything was opened wrongly."""
    number, seed = (int(argument) for argument in sys.argv[1:3])
    folder = tempfile.mkdtemp(prefix="linreg_damage_")
    os.chdir(folder)
    samples = make_samples()
    begin = time.perf_counter()
    counts = torture(number, seed, samples)
    seconds = time.perf_counter() - begin
    for (way, what), count in sorted(counts.items()):
        print(f"{way:24} {what:8} {count:6}")
    wrong = sum(count for (_, what), count in counts.items() if what == "WRONG")
    opened = sum(count for (_, what), count in counts.items() if what == "opened")
    print(
        f"{number} mutations of {len(samples)} checkpoints, seed {seed}: {number - wrong - opened} refused, "
        f"{opened} opened to what was saved, {wrong} wrong, {1000 * seconds / number:.1f} ms each"
    )
    if wrong:
        print(f"left in {folder}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
