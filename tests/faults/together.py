"""Several processes at one run: one of them gets it, the others end before they write anything; readers beside a training
never see half a file: `python -m tests.faults.together`."""

import itertools
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.conftest import Answer, write_spec
from tests.faults.kills import CHECKPOINTS, RUNS, WHOLE, unlike
from tests.faults.operations import Operation
from tests.faults.sessions import LONGEST, command, fork, prepare, run

N_PROCESSES = 8
LAST = CHECKPOINTS / "small_001/last.pth"
WAYS = [["resume", LAST, "-q"], ["train", "small.yaml", "--resume", "-q"]]
QUESTIONS = [["inspect", "--json"], ["runs", "--json"], ["inspect", LAST, "--json"], ["evaluate", "--json"]]


def contend(folder: Path) -> Iterator[str]:
    """Let eight processes go on with one run at the same time; say what is wrong."""
    _make_base(folder)
    start, gate = os.pipe(), os.pipe()
    children = [fork(_make_contender(WAYS[number % 2], start, gate), folder) for number in range(N_PROCESSES)]
    os.close(start[0])
    os.close(gate[0])
    os.close(start[1])  # all begin
    deadline = time.monotonic() + LONGEST
    while sum(child.ended(0.01) for child in children) < N_PROCESSES - 1 and time.monotonic() < deadline:
        pass
    running = [child for child in children if not child.ended(0)]
    losers = [child.result() for child in children if child not in running]
    yield from (f"a loser: {problem}" for loser in losers for problem in _of_loser(*loser))
    if len(running) != 1:
        yield f"{len(running)} of {N_PROCESSES} got the run"
    for arguments in (["runs", "rm", "small_001"], *WAYS):
        yield from _of_loser(run(*arguments, folder=folder), [])
    if json.loads(run("runs", "--json", folder=folder).out)[0]["outcome"] != "running":
        yield "the run is not listed as running"
    os.close(gate[1])  # the winner goes on
    for answer, _ in [child.result() for child in running]:
        if answer.code != 0:
            yield f"the winner ended with {answer.code}: {answer.err}"
    yield from unlike(folder)


def _make_base(folder: Path) -> None:
    """Train in one go, and until a kill after the second save."""
    write_spec(folder / "small.yaml", checkpoint={"every": 1})
    train = ["train", "small.yaml", "-q"]
    assert run(*train, "--runs", WHOLE / RUNS, "--checkpoints", WHOLE / CHECKPOINTS, folder=folder).code == 0
    assert run(*train, folder=folder, perform=make_killing_after_saves(2)) is None


def make_killing_after_saves(n: int) -> Callable[..., Any]:
    """Make what kills its own process after the n-th save."""
    saves = itertools.count(1)

    def perform(operation: Operation, call: Callable[..., Any]) -> Any:
        answer = call()
        if operation.target is not None and operation.target.name == LAST.name and next(saves) == n:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    return perform


def _make_contender(
    arguments: list[Any], start: tuple[int, int], gate: tuple[int, int]
) -> Callable[[], tuple[Answer, list[str]]]:
    """Make a session that begins when the start is closed, and saves first when the gate is; it gives its answer, and
    what it did to files."""

    def contend() -> tuple[Answer, list[str]]:
        os.close(start[1])
        os.close(gate[1])
        done = []

        def perform(operation: Operation, call: Callable[..., Any]) -> Any:
            done.append(f"{operation.kind} {operation.path}")
            if operation.saves:
                os.read(gate[0], 1)
            return call()

        os.read(start[0], 1)
        return command(*arguments, perform=perform), done

    return contend


def _of_loser(answer: Answer, done: list[str]) -> Iterator[str]:
    if answer.code != 5 or answer.err != "error: runs/small_001: in use by another process; wait for it, or stop it\n":
        yield f"ended with {answer.code}: {answer.out}{answer.err}"
    if done:
        yield f"did {done}"


def read_beside(folder: Path, figures: Counter[str]) -> Iterator[str]:
    """Ask again and again of a run that saves as often as it can; say what is wrong."""
    checkpoint = {"every": 1, "keep": 1, "every_seconds": 0.0001}
    write_spec(folder / "small.yaml", epochs=150, checkpoint=checkpoint)
    training = fork(lambda: command("train", "small.yaml", "-q", seconds_a_chunk=0.0), folder)
    while not (folder / CHECKPOINTS / "latest").exists() and not training.ended(0.001):
        pass
    while not training.ended(0):
        for arguments in QUESTIONS:
            answer = run(*arguments, folder=folder)
            figures["questions"] += 1
            if answer.code != 0:
                yield f"{arguments} ended with {answer.code}: {answer.err}"
            else:
                json.loads(answer.out)
    if training.result().code != 0:
        yield f"the training ended with {training.result()}"


def main() -> int:
    """Contend, and read beside a training, as often as the command line says; one line of JSON."""
    n_times = int(sys.argv[1]) if sys.argv[1:] else 20
    prepare()
    begin, figures, wrong = time.monotonic(), Counter[str](), []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(n_times):
            for name, problems in (("contend", contend), ("read", lambda place: read_beside(place, figures))):
                place = Path(folder, name)
                place.mkdir()
                wrong += list(problems(place))
                shutil.rmtree(place)
                figures[name] += 1
    print(json.dumps({**figures, "seconds": round(time.monotonic() - begin, 1), "wrong": wrong}))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
