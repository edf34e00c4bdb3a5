"""Kills of sweeps: sessions of `linreg sweep --resume` are ended by SIGKILL or SIGTERM at random moments and at file
operations. The finished sweep is compared with one that was never interrupted:

python -m tests.faults.sweeps --kills 200 --stops 30 --seed 1
"""

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from linreg.errors import shorten
from linreg.experiment.sweeps.group import STATES
from linreg.runs.folders import last_run, latest_checkpoint
from linreg.runs.records import read_info
from tests.conftest import Answer
from tests.faults.draws import draw_sweep
from tests.faults.kills import (
    CHECKPOINTS,
    RUNS,
    START,
    WHEN,
    WHOLE,
    kill_process,
    make_killing,
    unlike_run,
    unreadable,
)
from tests.faults.operations import Operation
from tests.faults.sessions import command, fork, measured, prepare

MOST_SIGNALS = 6  # of one sweep
SHARE_AT_OPERATIONS = 1 / 2  # of the signals; the others are sent at moments
SHARE_OF_PROCESSES = 1 / 25  # sessions that are started as users start them
SECONDS_A_SAVE = 0.02  # of the states of a sweep, which has short epochs here
NAME, SWEEP = "small", "small_sweep_001"
ARGUMENTS = ["sweep", "spec.yaml", "--quiet", "--json"]
STOPPED = "interrupted; to continue, run the same command with --resume"
EQUAL = ("trials.jsonl", "spec.yaml", "ranking.png")  # to the last byte
VARYING = {"seconds", "models"}  # keys of the result: the time, and how many models were trained in stacks


@dataclass
class Budget:
    """The signals to send in all, the expected share of each, and the counts so far: of sweeps, of each signal, and of
    the places that it hit."""

    kills: int
    stops: int
    figures: Counter[str] = field(default_factory=Counter)

    @property
    def left(self) -> int:
        """How many signals are left."""
        return self.kills + self.stops - self.figures["kills"] - self.figures["stops"]

    def draw(self, chance: random.Random) -> signal.Signals:
        """Draw a signal, by its share: a case that is repeated draws the same."""
        return signal.SIGKILL if chance.randrange(self.kills + self.stops) < self.kills else signal.SIGTERM


@dataclass(frozen=True)
class Whole:
    """An uninterrupted sweep: its answer, its seconds, and the number of its file operations of each kind."""

    answer: Answer
    seconds: float
    counts: Counter[str]


def torment(
    budget: Budget, seed: int, folder: Path, say: Callable[[str], None], only: int | None = None
) -> dict[str, Any]:
    """Signal sweeps, each drawn at random, until the budget is used. Return the counts, and the problems of each sweep
    that differs. only: the number of the one case to run. The process must be `prepare`d."""
    begin, wrong, case = time.monotonic(), [], 0 if only is None else only - 1
    while budget.left > 0 and (only is None or case < only):
        case += 1
        chance = random.Random(f"{seed} {case}")
        place = folder / str(case)
        place.mkdir()
        spec = draw_sweep(chance, place)
        try:
            problems = list(_case(spec, chance, place, budget))
        except Exception as error:  # report the case
            problems = [repr(error)]
        budget.figures["sweeps"] += 1
        if problems:
            signals = f"--kills {budget.kills} --stops {budget.stops}"
            repeat = f"python -m tests.faults.sweeps {signals} --seed {seed} --case {case}"
            wrong.append({"case": case, "problems": problems, "repeat": repeat})
            say(f"case {case}: {'; '.join(problems)}\n  {json.dumps(spec)}\n  repeat with: {repeat}")
        shutil.rmtree(place)
        if case % 20 == 0:
            say(f"{budget.left} signals left, {time.monotonic() - begin:.0f} s")
    return {**budget.figures, "seconds": round(time.monotonic() - begin, 1), "wrong": wrong}


def _case(spec: dict[str, Any], chance: random.Random, folder: Path, budget: Budget) -> Iterator[str]:
    """Run a sweep in one go, and with signals. Yield the problems."""
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))
    whole = _whole(folder)
    if whole.answer.code not in (0, 6):
        yield f"the whole sweep ended with {whole.answer.code}: {whole.answer.err}"
        return
    ended, lines = None, list[str]()
    for _ in range(min(chance.randint(1, MOST_SIGNALS), budget.left)):
        number = budget.draw(chance)
        where, ended = _signal_session(number, chance, whole, folder)
        is_cut = ended is None or ended.code == 128 + number
        if is_cut:
            budget.figures["kills" if number == signal.SIGKILL else "stops"] += 1
            budget.figures[where] += 1
            budget.figures["with states"] += (folder / CHECKPOINTS / SWEEP / STATES).exists()
        yield from (f"after {number.name} ({where}), {problem}" for problem in _broken(ended, lines, folder))
        if not is_cut or read_info(folder / RUNS / SWEEP).get("outcome") == "finished":  # also if killed at its end
            break
    else:
        ended = fork(lambda: command(*ARGUMENTS, "--resume"), folder).result()
    yield from _unlike(ended, whole.answer, lines, folder)


def _whole(folder: Path) -> Whole:
    """Run the sweep in one go."""
    places = ["--runs", WHOLE / RUNS, "--checkpoints", WHOLE / CHECKPOINTS]

    def watched() -> tuple[Answer, Counter[str]]:
        counts = Counter[str]()

        def perform(operation: Operation, call: Callable[..., Any]) -> Any:
            counts[kind_of(operation)] += 1
            return call()

        return command(*ARGUMENTS, *places, perform=perform, seconds_a_save=SECONDS_A_SAVE), counts

    (answer, counts), seconds = measured(fork(watched, folder).result)
    return Whole(answer, seconds, counts)


def kind_of(operation: Operation) -> str:
    """Return what an operation is a part of."""
    path, text = operation.path, str(operation.path)
    if not {"runs", "checkpoints"} & set(path.parts):
        return "elsewhere"
    for name in ("results.jsonl", STATES):
        if name in path.name:
            return f"in {name}"
    if "_sweep_" in text:
        return "in run.json" if "run.json" in path.name else "in the folder"
    return "in winners" if f"/{NAME}_" in text or "latest" in text else "in the folder"


def _signal_session(
    number: signal.Signals, chance: random.Random, whole: Whole, folder: Path
) -> tuple[str, Answer | None]:
    """Start or resume the sweep, and signal it. Return where, and the answer; None if the signal killed the process."""
    arguments = [*ARGUMENTS, "--resume"]
    if number == signal.SIGKILL and chance.random() < SHARE_OF_PROCESSES:
        _, start = measured(lambda: subprocess.run([sys.executable, "-c", START], check=True))
        return "in processes", kill_process(arguments, start + chance.random() * whole.seconds, folder)
    times = {
        "seconds_a_chunk": chance.choice([0.0, 0.002, 0.05]),
        "seconds_a_save": chance.choice([SECONDS_A_SAVE, SECONDS_A_SAVE, 1.0]),
    }
    if chance.random() < SHARE_AT_OPERATIONS:
        where = chance.choice(sorted(set(whole.counts) - {"elsewhere"}))
        n = chance.randint(1, whole.counts[where])
        perform = make_killing(n, chance.choice(WHEN), lambda operation: kind_of(operation) == where, number)
        return where, fork(lambda: command(*arguments, perform=perform, **times), folder).result()
    child = fork(lambda: command(*arguments, **times), folder)
    if not child.ended(chance.random() * whole.seconds):
        os.kill(child.pid, number)
    return "at moments", child.result()


def _broken(ended: Answer | None, lines: list[str], folder: Path) -> Iterator[str]:
    """Yield what is wrong after a signal: with the answer, or with the files. lines: of the results before it, which
    become those after it."""
    if ended is not None and ended.code not in (0, 6):
        said = [line for line in ended.err.splitlines() if not line.startswith("warning: trial ")]
        if ended.code != 143 or said not in ([], [STOPPED]):  # silent before there is anything to resume
            yield f"it ended with {ended.code}: {ended.err}"
    yield from unreadable(folder)
    after = results(folder / RUNS / SWEEP)
    if after[: len(lines)] != lines:
        yield f"of {len(lines)} results not all stay: {after}"
    lines[:] = after


def results(folder: Path) -> list[str]:
    """Return the whole lines of results.jsonl."""
    path = folder / "results.jsonl"
    text = path.read_text() if path.exists() else ""
    return text[: text.rfind("\n") + 1].splitlines()


def _unlike(ended: Answer | None, whole: Answer, lines: list[str], folder: Path) -> Iterator[str]:
    """Yield in what a finished sweep differs from the whole one. ended: the last answer; None if it was killed after it
    had finished."""
    if ended is not None and ended.code != whole.code:
        yield f"it ended with {ended.code}, not {whole.code}: {ended.err}"
        return
    if ended is not None:
        printed, wanted = _plain(ended.out), _plain(whole.out)
        keys = [key for key in wanted if printed.get(key) != wanted[key]]
        yield from (
            f"it printed {key} {shorten(str(printed.get(key)))}, not {shorten(str(wanted[key]))}" for key in keys
        )
    folders = [sorted(path.name for path in place.iterdir()) for place in (folder / RUNS, folder / WHOLE / RUNS)]
    if folders[0] != folders[1]:
        yield f"has the runs {folders[0]}, not {folders[1]}"
        return
    ours, theirs = folder / RUNS / SWEEP, folder / WHOLE / RUNS / SWEEP
    after = results(ours)
    if after[: len(lines)] != lines:
        yield f"of {len(lines)} results not all stay: {after}"
    keys = [(line["trial"], line["seed"], line["fold"]) for line in map(json.loads, after)]
    if len(set(keys)) < len(keys):
        yield f"has results twice: {keys}"
    if _comparable(after) != _comparable(results(theirs)):
        yield f"has other results: {set(_comparable(after)) ^ set(_comparable(results(theirs)))}"
    contents = [
        {path.name: path.read_bytes() for path in place.iterdir() if path.name in EQUAL} for place in (ours, theirs)
    ]
    if contents[0] != contents[1]:
        yield f"has other {[name for name in EQUAL if contents[0].get(name) != contents[1].get(name)]}"
    infos = [read_info(place) for place in (ours, theirs)]
    for key in ("name", "outcome", "winners", "data_fingerprint"):
        if infos[0].get(key) != infos[1].get(key):
            yield f"run.json has {key} {infos[0].get(key)}, not {infos[1].get(key)}"
    files = [sorted(path.name for path in place.iterdir()) for place in (ours, theirs)]
    if files[0] != files[1]:
        yield f"has the files {files[0]}, not {files[1]}"
    latest = [latest_checkpoint(place) for place in (folder / CHECKPOINTS, folder / WHOLE / CHECKPOINTS)]
    if latest[0] != (latest[1] and folder / latest[1].relative_to(folder / WHOLE)):
        yield f"latest is {latest[0]}"
    for name in sorted(set(folders[0]) - {SWEEP}):
        yield from (f"{name} {problem}" for problem in unlike_run(folder, name, name))
    left = [
        str(path.relative_to(folder)) for path in (*folder.rglob(".*.tmp"), *(folder / CHECKPOINTS).glob("*/sweep*"))
    ]
    if left:
        yield f"left {left}"
    if last_run(f"{NAME}_sweep", folder / RUNS) != SWEEP:
        yield "is not the last sweep"


def _comparable(lines: list[str]) -> list[str]:
    """Return results in the order of the trials, without `how`: a model of a stack may be the only one left."""
    values = [{key: value for key, value in json.loads(line).items() if key != "how"} for line in lines]
    return sorted(map(json.dumps, values))


def _plain(text: str) -> dict[str, Any]:
    """Return a printed result without what may vary, under the names of the resumed sweep's folders."""
    if not text:
        return {}
    result = json.loads(re.sub(rf"\b{WHOLE}/", "", text))
    for run in result["runs"]:
        del run["seconds"]
    return {key: value for key, value in result.items() if key not in VARYING}


def main() -> int:
    """Send the signals that the command line asks for. Print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--kills", type=int, default=200, metavar="N", help="SIGKILLs, about")
    parser.add_argument("--stops", type=int, default=0, metavar="N", help="SIGTERMs, about")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--case", type=int, help="the one sweep to run, to repeat a failure")
    given = parser.parse_args()
    prepare()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        budget = Budget(given.kills, given.stops)
        figures = torment(budget, given.seed, Path(folder), lambda text: print(text, file=sys.stderr), given.case)
    print(json.dumps(figures))
    return 1 if figures["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
