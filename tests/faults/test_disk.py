"""A disk that is full, or fails: the checkpoint before it stays, the message says so, and the run can be gone on with."""

import json
import os
import re
import resource
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from linreg.checkpoint import load
from linreg.experiment.session import train
from linreg.spec.schema import spec_from_dict
from tests.conftest import ROOT, differences, small_spec, times, write_spec


def test_every_write_fsync_and_rename_may_fail():
    """In a process of its own: it forks the sessions, and must have no threads. Each third one is tried,
    in `make test-thorough` each, and in `make torture` each in every way."""
    command = [sys.executable, "-m", "tests.faults.disk", "1", str(times(3, 1))]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert answer.stdout, answer.stderr
    figures = json.loads(answer.stdout)
    assert figures["wrong"] == [], answer.stderr
    assert figures["faults"] > times(15, 50)


BIG = {"epochs": 2, "model": {"name": "mlp", "hidden": [200, 200]}, "checkpoint": {"every": 1}}


def test_a_limit_of_a_files_size_leaves_the_checkpoint_before_it(linreg):
    write_spec(**BIG)
    linreg("train", "small.yaml", "-q")
    limit = Path("checkpoints/small_001/last.pth").stat().st_size - 1000
    before = Path("checkpoints/small_001/last.pth").read_bytes()
    answer = subprocess.run(
        [sys.executable, "-m", "linreg", "resume", "checkpoints/small_001/last.pth", "-q"],
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert answer.returncode == 5
    assert re.fullmatch(
        r"error: checkpoints/small_001/\w+.pth: File too large \(\d+ bytes needed, \d+ bytes free\); "
        r"raise the limit of a file's size \(ulimit -f\), then use linreg resume\n",
        answer.stderr,
    )
    assert Path("checkpoints/small_001/last.pth").read_bytes() == before
    assert not list(Path().rglob(".*.tmp"))


@contextmanager
def mounted(folder, size):
    """Mount a file system in memory; skip where that is not allowed."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root may mount a small tmpfs")
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a small tmpfs cannot be mounted: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_ends_the_run_until_there_is_space_again(linreg):
    changes = {"epochs": 8, "checkpoint": {"every": 1, "keep": 100}}
    path = write_spec(**changes).absolute()
    whole = train(spec_from_dict(small_spec(**changes), "test"))
    with mounted(Path("small"), size="512k"):
        places = ["--runs", "small/runs", "--checkpoints", "small/checkpoints"]
        Path("small/ballast").write_bytes(bytes(300_000))
        answer = linreg("train", path, "-q", *places)
        assert answer.code == 5
        assert re.fullmatch(
            r"error: small/\S+: No space left on device \((\d+ bytes needed, )?\d+ bytes free\); "
            r"free some space, then use linreg resume\n",
            answer.err,
        )
        saved = load("small/checkpoints/small_001/last.pth")
        assert 0 < saved.epoch < 8
        Path("small/ballast").unlink()
        assert linreg("resume", saved.path, "-q", *places).code == 0
        assert differences(load("small/checkpoints/small_001/last.pth"), load(whole.checkpoint)) == []
        assert not list(Path("small").rglob(".*.tmp"))
