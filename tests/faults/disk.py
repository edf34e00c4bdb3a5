"""Faults of a disk: each write, fsync and rename of a training fails, and what is left is looked at, and gone on with:
`python -m tests.faults.disk` lets each fail in every way that it can; with a number, in one, which the number turns;
with a second number n, only every n-th of these is tried."""

import errno
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from tests.conftest import Answer, write_spec
from tests.faults.kills import CHECKPOINTS, RUNS, WHOLE, unlike, unreadable
from tests.faults.operations import Operation
from tests.faults.sessions import command, fork, prepare, run
from tests.faults.together import make_killing_after_saves

SPEC = {"epochs": 3, "model": {"name": "mlp", "hidden": [4], "dropout": 0.25}, "checkpoint": {"every": 1, "keep": 1}}
SPEC |= {"writer": {"graph": False, "hparams": False, "plots": True, "histograms": 1}}
TRAIN = ["train", "small.yaml", "--resume", "-q"]
FAILING = {
    "write": ("ENOSPC", "EIO", "short, then ENOSPC", "short"),
    "fsync": ("EIO", "ENOSPC"),
    "replace": ("EIO", "ENOSPC"),
}


@dataclass(frozen=True)
class Fault:
    """What fails: of the operations of a kind on a file, the n-th, counted from 1."""

    kind: str
    file: str
    n: int
    how: str

    def __str__(self) -> str:
        return f"{self.how} at {self.kind} {self.n} of {self.file}"


def name_of(operation: Operation) -> str:
    """Name a file by what is the same whenever the same is trained: without process and time."""
    return re.sub(r"\.[0-9]+\.tmp$|(?<=tfevents)\..*", "", str(operation.path))


def make_failing(fault: Fault) -> Callable[..., Any]:
    """Make what lets one operation fail; once a disk is full, all later writes to that file fail, too."""
    n_done = 0

    def perform(operation: Operation, call: Callable[..., Any]) -> Any:
        nonlocal n_done
        if (operation.kind, name_of(operation)) != (fault.kind, fault.file):
            return call()
        n_done += 1
        short = fault.how.startswith("short") and n_done == fault.n
        if short:
            return call(operation.data[: len(operation.data) // 2])
        if n_done == fault.n or (n_done > fault.n and "ENOSPC" in fault.how):
            number = errno.EIO if "EIO" in fault.how else errno.ENOSPC
            raise OSError(number, os.strerror(number))
        return call()

    return perform


def fail_and_compare(
    turn: int | None, folder: Path, say: Callable[[str], None] = print, *, step: int = 1
) -> dict[str, Any]:
    """Let every operation of a session that continues a run fail, in every way, or in one by turns, of which each
    `step`-th is tried; give the figures, and what is wrong. The process must be `prepare`d."""
    begin, figures, wrong = time.monotonic(), Counter[str](), []
    base = folder / "base"
    faults = [
        Fault(kind, file, n, FAILING[kind][i])
        for (kind, file), number in sorted(_make_base(base).items())
        for n, i in product(range(1, number + 1), range(len(FAILING[kind])))
        if turn is None or (n + turn) % len(FAILING[kind]) == i
    ]
    for fault in faults[::step]:
        place = Path(shutil.copytree(base, folder / "trial"))
        problems = list(_case(fault, place))
        if problems:
            wrong.append({"fault": str(fault), "problems": problems})
            say(f"{fault}: {'; '.join(problems)}")
        shutil.rmtree(place)
        figures["faults"] += 1
        figures[f"{fault.kind} {fault.how}"] += 1
    return {**figures, "seconds": round(time.monotonic() - begin, 1), "wrong": wrong}


def _make_base(base: Path) -> Counter[tuple[str, str]]:
    """Train in one go, and until a kill after the second save; count the operations of the session that goes on."""
    base.mkdir()
    write_spec(base / "small.yaml", **SPEC)
    assert run(*TRAIN, "--runs", WHOLE / RUNS, "--checkpoints", WHOLE / CHECKPOINTS, folder=base).code == 0
    assert run(*TRAIN, folder=base, perform=make_killing_after_saves(2)) is None
    counts = Counter[tuple[str, str]]()

    def count(operation: Operation, call: Callable[..., Any]) -> Any:
        counts[operation.kind, name_of(operation)] += operation.kind in FAILING
        return call()

    copy = Path(shutil.copytree(base, base.with_name("copy")))
    answer, counts = fork(lambda: (command(*TRAIN, perform=count), counts), copy).result()
    assert answer.code == 0
    assert list(unlike(copy)) == []
    return +counts


def _case(fault: Fault, folder: Path) -> Iterator[str]:
    """Let one operation fail; say what is wrong then, and when it is gone on with."""
    answer = run(*TRAIN, folder=folder, perform=make_failing(fault))
    if fault.how != "short":
        yield from _ill_told(fault, answer)
        yield from unreadable(folder)
        if not (folder / CHECKPOINTS / "small_001/last.pth").is_file():
            yield "the checkpoint is gone"
        answer = run(*TRAIN, folder=folder)
    if (answer.code, answer.err) != (0, ""):
        yield f"at last ended with {answer.code}: {answer.err}"
        return
    yield from unlike(folder)


def _ill_told(fault: Fault, answer: Answer) -> Iterator[str]:
    """Say what is wrong in how the end of a session was told."""
    if answer.code != 5 or not answer.err.startswith("error: ") or answer.err.count("\n") != 1 or answer.out:
        yield f"ended with {answer.code}: {answer.out}{answer.err}"
    if "ENOSPC" in fault.how:
        of_known_size = not re.search(r"tfevents|metrics.jsonl", fault.file)
        if " free" not in answer.err or ("bytes needed" not in answer.err and of_known_size):
            yield f"says {answer.err}"


def main() -> int:
    """Try the faults; one line of JSON."""
    turn = int(sys.argv[1]) if sys.argv[1:] else None
    step = int(sys.argv[2]) if sys.argv[2:] else 1
    prepare()
    with tempfile.TemporaryDirectory() as folder:
        figures = fail_and_compare(turn, Path(folder), lambda text: print(text, file=sys.stderr), step=step)
    print(json.dumps(figures))
    return 1 if figures["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
