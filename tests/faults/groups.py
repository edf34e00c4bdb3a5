"""Signals to groups: one process of a group that trains together is killed at a random moment, or all are, or one is
asked to stop, or all are asked twice. The run is resumed by a group of another size, and when it is finished, compared
with that of one process that was never interrupted:

python -m tests.faults.groups 100 1
"""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import yaml

from linreg.checkpoint import load
from linreg.runs.records import read_info
from tests.conftest import ROOT, same, small_spec
from tests.faults.sessions import command, fork, prepare

SIZES = (1, 2, 2, 3)  # of the groups
TIMEOUT = 30  # seconds that a process of a group may wait for the others
KINDS = {"kill": signal.SIGKILL, "kill all": signal.SIGKILL, "term": signal.SIGTERM, "term all": signal.SIGTERM}
SPECS = [
    small_spec(
        name="group",
        epochs=80,
        data__source={"name": "friedman1", "n_samples": 120, "n_features": 5},
        data__batch_size=24,
        checkpoint={"every_seconds": 0.03},
        **changes,
    )
    for changes in (
        {
            "data__shards": 3,
            "model": {"name": "mlp", "hidden": [8], "dropout": 0.1},
            "optimizer": {"name": "adam", "lr": 0.01},
            "early_stopping": {"patience": 70},
        },
        {
            "data__shards": 4,
            "data__memory": "mapped",
            "model": {"name": "polynomial", "degree": 2},
            "optimizer": {"name": "sgd", "lr": 0.01, "momentum": 0.9},
            "scheduler": {"name": "one_cycle", "max_lr": 0.02},
        },
        {
            "data__shards": 7,
            "data__standardize": True,
            "model": {"name": "mlp", "hidden": [6, 4]},
            "loss": {"name": "huber"},
            "optimizer": {"name": "adamw", "lr": 0.01},
            "clip_grad_norm": 1.0,
        },
    )
]
ARGUMENTS = ["train", "spec.yaml", "--resume", "--quiet"]


def environment_of(rank, size, port, timeout):
    """Return the variables that torchrun sets, and others of a test."""
    return {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1", "LINREG_TIMEOUT": str(timeout),
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }  # fmt: skip


def free_port():
    """Return a port that no process listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def start_fresh(command, *, cwd, env):
    """Start `python -m COMMAND` as a user does. `Forks.start` starts the same without the imports."""
    return subprocess.Popen(
        [sys.executable, "-m", *command], cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def start_group(start, command, size, *, cwd, timeout=120):
    """Start the processes of a group, as torchrun does: `python -m COMMAND`. start: `start_fresh` or `Forks.start`;
    timeout: seconds that one may wait for another, which starts late on a busy machine."""
    port = free_port()
    environments = [{**os.environ, **environment_of(rank, size, port, timeout)} for rank in range(size)]
    return [start(command, cwd=cwd, env=environment) for environment in environments]


def ended(processes, seconds=60):
    """Wait for processes, and kill those that do not end. Return their exit codes and errors."""
    deadline = time.monotonic() + seconds
    errors = []
    for process in processes:
        try:
            errors.append(process.communicate(timeout=max(0.1, deadline - time.monotonic()))[1])
        except subprocess.TimeoutExpired:
            process.kill()
            errors.append(f"still there: {process.communicate()[1]}")
    return [process.returncode for process in processes], errors


def fork_group(size, folder):
    """Start the processes of a group that trains in a folder, from this process, which has imported torch already."""
    port = free_port()

    def train(rank):
        sys.modules["linreg.cli.main"].SECONDS_BEHIND = 0.0  # a wait for torchrun, which is not here
        os.environ.update(environment_of(rank, size, port, TIMEOUT))
        return command(*ARGUMENTS)

    return [fork(partial(train, rank), folder) for rank in range(size)]


def results(children):
    """Wait for forked processes; return their exit codes and errors."""
    answers = [child.result() for child in children]
    codes = [-child.signal if one is None else one.code for child, one in zip(children, answers, strict=True)]
    return codes, ["" if one is None else one.err for one in answers]


def sessions_of(folder):
    """Return the number of sessions of the runs in a folder, and the outcome of the last one."""
    runs = [read_info(run) for run in sorted((folder / "runs").glob("group_*"))]
    return sum(len(run.get("sessions", [])) for run in runs), runs[-1].get("outcome") if runs else None


def wait_for_session(folder, n_before, child):
    """Wait for a session, which begins when all processes have formed their group."""
    deadline = time.monotonic() + 60
    while sessions_of(folder)[0] == n_before:
        if child.ended(0.01) or time.monotonic() > deadline:
            return


def interrupt(folder, draw, counts):
    """Start a group and send signals; return what is wrong with its end, or None."""
    size, kind = draw.choice(SIZES), draw.choice(("kill", *KINDS))
    n_before = sessions_of(folder)[0]
    children = fork_group(size, folder)
    wait_for_session(folder, n_before, children[0])
    time.sleep(draw.uniform(0.0, 0.6))
    victim = draw.randrange(size)
    number = KINDS[kind]
    was_running = not any(child.ended(0) for child in children)
    if was_running:
        for child in children if kind.endswith("all") else [children[victim]]:
            os.kill(child.pid, number)
            if kind == "term all" and size > 1:
                os.kill(child.pid, number)  # torchrun repeats a signal that all processes have received
    codes, errors = results(children)
    if not was_running or codes == [0] * size:
        return None  # it had finished before
    counts[kind] += 1
    if kind == "kill all":
        is_right = set(codes) <= {-9, 0, 8}
    elif kind == "kill":
        # a process that has finished does not miss another
        is_right = codes[victim] == -9 and all(code in (0, 8) for rank, code in enumerate(codes) if rank != victim)
    else:  # a process that has stopped may be ended by the second signal
        is_right = set(codes) <= {143, -15} and sessions_of(folder)[1] == "interrupted"
    if is_right:
        return None
    return f"{size} processes, {kind} to {victim}: {codes} {[error[-200:] for error in errors]}"


def whole_run(spec, folder):
    """Train a spec by one process that is never interrupted; return its checkpoint."""
    folder.mkdir()
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec))
    codes, errors = results(fork_group(1, folder))
    assert codes == [0], errors
    return load(folder / "checkpoints/group_001/last.pth")


def run(n_signals, seed):
    """Interrupt runs until n_signals have hit; return the counts and what was wrong."""
    draw, counts, wrong, n_runs = random.Random(seed), dict.fromkeys(KINDS, 0), [], 0
    with tempfile.TemporaryDirectory() as name:
        wholes = [whole_run(spec, Path(name) / f"whole{number}") for number, spec in enumerate(SPECS)]
        while sum(counts.values()) < n_signals:
            n_runs += 1
            folder = Path(name) / str(n_runs)
            folder.mkdir()
            number = draw.randrange(len(SPECS))
            (folder / "spec.yaml").write_text(yaml.safe_dump(SPECS[number]))
            for _ in range(draw.randrange(1, 5)):
                problem = interrupt(folder, draw, counts)
                wrong += [problem] if problem else []
            codes, errors = results(fork_group(draw.choice(SIZES), folder))
            # a run that was killed before its first checkpoint is begun anew, in another folder
            found = load(max((folder / "checkpoints").glob("group_*/last.pth")))
            keys = ("loss", "val_loss", "model_state_dict", "optimizer_state_dict", "loader_state", "outcome")
            unlike = [key for key in keys if not same(vars(found)[key], vars(wholes[number])[key])]
            if set(codes) != {0} or unlike:
                wrong.append(
                    f"run {n_runs}, spec {number}: {codes} {[error[-200:] for error in errors]}, other {unlike}"
                )
    return {**counts, "runs": n_runs, "wrong": wrong}


if __name__ == "__main__":
    prepare()
    figures = run(int(sys.argv[1]), int(sys.argv[2]))
    print(json.dumps(figures))
    sys.exit(1 if figures["wrong"] else 0)
