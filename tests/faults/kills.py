"""Kills: sessions of training are ended by SIGKILL at random moments and gone on with, and what comes of it is compared
with a run that was never interrupted: `python -m tests.faults.kills 2000 1`."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from linreg.checkpoint import load, load_states
from linreg.experiment.sweeps.sweeping import STATES
from linreg.runs.folders import FINISHED, latest_checkpoint
from linreg.runs.listing import summaries
from tests.conftest import ROOT, Answer, differences, series
from tests.faults.draws import draw_spec
from tests.faults.operations import Operation
from tests.faults.sessions import command, fork, measured, prepare

RUNS, CHECKPOINTS, WHOLE = Path("runs"), Path("checkpoints"), Path("whole")
PLUGIN = ROOT / "tests/faults/drawing.py"
MOST_KILLS = 6  # of one run
SHARE_OF_SAVES, SHARE_OF_LOGS = 1 / 4, 1 / 8  # of the kills: aimed inside a save; at what else a run writes
GENERATORS = {"rng_state", "numpy_rng_state", "python_rng_state"}  # an exact solution draws nothing
WHEN = ("before", "half", "after")  # of an operation
SHARE_OF_PROCESSES = 1 / 25  # sessions that are started as users start them
START = "import linreg.experiment, torch.utils.tensorboard"  # what such a process does first


def kill_and_compare(n_kills: int, seed: int, folder: Path, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Kill so many sessions of as many runs as that takes, each run drawn by chance; give the figures, and of each run
    that came out otherwise what is wrong. The process must be `prepare`d."""
    begin, figures, wrong = time.monotonic(), Counter[str](), []
    while figures["kills"] < n_kills:
        figures["runs"] += 1
        chance = random.Random(f"{seed} {figures['runs']}")
        place = folder / str(figures["runs"])
        place.mkdir()
        spec = draw_spec(chance, place)
        problems = list(_case(spec, chance, place, figures, n_kills))
        if problems:
            wrong.append({"run": figures["runs"], "problems": problems})
            say(f"run {figures['runs']}: {'; '.join(problems)}: {json.dumps(spec)}")
        shutil.rmtree(place)
        if figures["runs"] % 50 == 0:
            say(f"{figures['kills']} of {n_kills} kills, {time.monotonic() - begin:.0f} s")
    return {**figures, "seconds": round(time.monotonic() - begin, 1), "wrong": wrong}


def _case(
    spec: dict[str, Any], chance: random.Random, folder: Path, figures: Counter[str], n_kills: int
) -> Iterator[str]:
    """Train a spec in one go, and with kills; give what is wrong."""
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))
    arguments = ["train", "spec.yaml", "-q", *(["--plugin", PLUGIN] if spec["model"]["name"] == "drawing" else [])]
    places = ["--runs", WHOLE / RUNS, "--checkpoints", WHOLE / CHECKPOINTS]
    answer, seconds = measured(fork(lambda: command(*arguments, *places), folder).result)
    if answer.code != 0:
        yield f"the whole run ended with {answer.code}: {answer.err}"
        return
    arguments += ["--resume"]
    for number in range(min(chance.randint(2, MOST_KILLS), n_kills - figures["kills"])):
        late = number == 0 and chance.random() < 3 / 4  # most runs are to have a checkpoint to go on from
        kind, ended = _kill_session(arguments, chance, seconds, folder, late=late)
        if ended is not None:  # before its time
            break
        figures["kills"] += 1
        figures[kind] += 1
        yield from (f"after a kill ({kind}), {problem}" for problem in unreadable(folder))
    else:
        ended = fork(lambda: command(*arguments), folder).result()
    if ended.code != 0:
        yield f"the last session ended with {ended.code}: {ended.err}"
        return
    figures["started anew"] += not (folder / CHECKPOINTS / "small_001/last.pth").exists()
    yield from unlike(folder)


def _kill_session(
    arguments: list[Any], chance: random.Random, seconds: float, folder: Path, *, late: bool
) -> tuple[str, Answer | None]:
    """Begin a session that is killed at a moment, or at an operation; say which, and what it said if it came to an end
    before. late: after the first saves."""
    if chance.random() < SHARE_OF_PROCESSES:
        _, start = measured(lambda: subprocess.run([sys.executable, "-c", START], check=True))  # as busy as it now is
        return "processes", kill_process(arguments, start + chance.random() * seconds, folder)
    aim, chunk = chance.random(), chance.choice([0.0, 0.002, 0.05])
    if aim < SHARE_OF_SAVES + SHARE_OF_LOGS:
        saves = aim < SHARE_OF_SAVES
        perform = make_killing(20 * late + chance.randint(1, 30), chance.choice(WHEN), is_save if saves else is_log)
        child = fork(lambda: command(*arguments, perform=perform, seconds_a_chunk=chunk), folder)
        return "in saves" if saves else "in logs", child.result()
    child = fork(lambda: command(*arguments, seconds_a_chunk=chunk), folder)
    if not child.ended(chance.uniform(0.7 if late else 0.3, 1.1) * seconds):
        child.kill()
    return "at moments", child.result()


def kill_process(arguments: list[Any], seconds: float, folder: Path) -> Answer | None:
    """Start a session as users do, and kill it after so long."""
    whole = [sys.executable, "-m", "linreg", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # as many as the forked sessions have
    try:  # it kills when the time is over
        ended = subprocess.run(whole, cwd=folder, env=environment, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return None
    return Answer(ended.returncode, ended.stdout, ended.stderr)


def is_save(operation: Operation) -> bool:
    """Return whether an operation is a part of saving a checkpoint."""
    return operation.saves


def is_log(operation: Operation) -> bool:
    """Return whether an operation writes something else of a run."""
    return "runs" in operation.path.parts and not operation.saves


def make_killing(
    n: int, when: str, counts: Callable[[Operation], bool], number: signal.Signals = signal.SIGKILL
) -> Callable[..., Any]:
    """Make what signals its own process before, after, or half way through, the n-th operation that counts. After a
    signal that the process survives, the operation goes on."""
    left = n

    def perform(operation: Operation, call: Callable[..., Any]) -> Any:
        nonlocal left
        if not counts(operation):
            return call()
        left -= 1
        if left != 0:
            return call()
        if number != signal.SIGKILL:
            os.kill(os.getpid(), number)
            return call()
        if when == "half" and operation.kind == "write":
            call(operation.data[: len(operation.data) // 2])
        elif when == "after":
            call()
        os.kill(os.getpid(), number)
        raise AssertionError("alive")

    return perform


def unreadable(folder: Path) -> Iterator[str]:
    """Say what of a run no reader could make sense of."""
    for path in sorted((folder / CHECKPOINTS).rglob("*.pth")):
        try:
            load_states(path) if path.name == STATES else load(path)
        except Exception as error:
            yield str(error)
    latest = latest_checkpoint(folder / CHECKPOINTS)
    if latest is not None and not latest.is_file():
        yield f"latest names {latest}, which is not there"
    for path in (folder / RUNS).glob("*/run.json"):
        json.loads(path.read_text())
    for path in (folder / RUNS).glob("*/spec.yaml"):
        yaml.safe_load(path.read_text())["name"]
    for path in sorted((folder / RUNS).glob("*/*.jsonl")):
        text = path.read_text()
        for line in text[: text.rfind("\n") + 1].splitlines():
            json.loads(line)
    summaries(folder / RUNS, folder / CHECKPOINTS)


def unlike(folder: Path) -> Iterator[str]:
    """Say in what the last run of a folder, once finished, is not as the one that was never interrupted."""
    if problems := list(unreadable(folder)):
        yield from problems
        return
    yield from unlike_run(folder, max((folder / RUNS).iterdir()).name, "small_001")
    left = [str(path.relative_to(folder)) for path in folder.rglob(".*.tmp")]
    if left:
        yield f"left {left}"


def unlike_run(folder: Path, name: str, whole_name: str) -> Iterator[str]:
    """Say in what a run, once finished, is not as one that was never interrupted."""
    last, whole = folder / RUNS / name, folder / WHOLE / RUNS / whole_name
    saves, whole_saves = folder / CHECKPOINTS / name, folder / WHOLE / CHECKPOINTS / whole_name
    files = [sorted(path.name for path in place.iterdir()) for place in (saves, whole_saves)]
    if files[0] != files[1]:
        yield f"has {files[0]}, not {files[1]}"
    for file in sorted(set(files[0]) & set(files[1])):
        saved, wanted_save = load(saves / file), load(whole_saves / file)
        # which of two equal states best.pth is a copy of, the epoch's or the end's, hangs on when it was saved
        ignored = {"outcome"} if file != "last.pth" else set()
        ignored |= GENERATORS if saved.spec.get("solver") == "exact" else set()
        parts = set(differences(saved, wanted_save)) - ignored
        if parts:
            yield f"{file} has other {sorted(parts)}"
    if "last.pth" in files[0] and load(saves / "last.pth").outcome not in FINISHED:
        yield "is not finished"
    if (last / "metrics.jsonl").read_text() != (whole / "metrics.jsonl").read_text():
        yield "has other metrics.jsonl"
    found, wanted = series(last), series(whole)
    if found != wanted:
        keys = [key for key in {**found, **wanted} if found.get(key) != wanted.get(key)]
        yield f"TensorBoard shows other {keys}"


def main() -> int:
    """Kill as often as the command line says; one line of JSON."""
    n_kills, seed = (int(argument) for argument in [*sys.argv[1:], "60", "1"][:2])
    prepare()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        figures = kill_and_compare(n_kills, seed, Path(folder), lambda text: print(text, file=sys.stderr))
    print(json.dumps(figures))
    return 1 if figures["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
