"""After the first save, a loadable checkpoint is on disk after a crash at any time."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import pytest

from linreg.checkpoint import load
from linreg.errors import CheckpointError
from linreg.experiment.resuming import resume
from linreg.experiment.session import train
from linreg.runs.folders import create
from linreg.spec.schema import spec_from_dict
from linreg.system.files import new_file
from tests.conftest import small_spec
from tests.faults.crashes import Disk
from tests.faults.operations import intercepted

FOLDER = Path("checkpoints/small_001")
LAST = FOLDER / "last.pth"


@pytest.fixture(scope="module")
def saves(tmp_path_factory):
    """Record the file operations on checkpoints of a training and a resumed one, in order."""
    recorded = []

    def record(operation, call):
        answer = call()  # recorded afterwards, for the true order of two threads
        recorded.append(operation)
        return answer

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("crashes"))
        spec = spec_from_dict(small_spec(epochs=4, checkpoint={"every": 1, "keep": 2}), "test")
        with intercepted(record):
            resume(train(spec).checkpoint)
    return [operation for operation in recorded if operation.path == Path() or "checkpoints" in operation.path.parts]


@pytest.fixture(scope="module")
def is_valid(tmp_path_factory):
    """Make the function that returns whether `load` accepts a file of this content; results are cached."""
    known, path = {}, tmp_path_factory.mktemp("states") / "x.pth"

    def is_valid(content):
        key = hashlib.sha256(content).digest()
        if key not in known:
            path.write_bytes(content)
            try:
                load(path)
            except CheckpointError:
                known[key] = False
            else:
                known[key] = True
        return known[key]

    return is_valid


@dataclass
class Count:
    states: int = 0
    without_checkpoint: int = 0
    last_not_whole: int = 0  # last.pth is neither the old nor the new one


def count_states(operations, is_valid):
    """Count the possible states of the disk after a crash, after each operation since the first complete save."""
    disk, count, lasts = Disk(), Count(), []
    for operation in operations:
        disk.do(operation)
        if operation.target == LAST:
            lasts.append(disk.seen[LAST].data)
        for state in disk.crashes() if Path("checkpoints/latest") in disk.seen else ():
            count.states += 1
            count.without_checkpoint += not any(is_valid(state[path]) for path in state if path.suffix == ".pth")
            count.last_not_whole += state.get(LAST) not in lasts[-2:]
    return count


def test_no_crash_leaves_a_run_without_a_checkpoint(saves, is_valid):
    count = count_states(saves, is_valid)
    assert count.states > 300
    assert (count.without_checkpoint, count.last_not_whole) == (0, 0)


def test_a_file_is_synced_before_it_gets_its_name():
    recorded = []
    with intercepted(lambda operation, call: recorded.append(operation.kind) or call()), new_file(Path("x")) as file:
        file.write(b"1")
        file.write(b"2")
    assert recorded == ["create", "write", "fsync", "replace", "fsync"]
    assert Path("x").read_bytes() == b"12"


def test_the_folder_of_a_new_run_is_synced():
    recorded = []

    def record(operation, call):
        recorded.append((operation.kind, operation.path))
        return call()

    with intercepted(record), create("small", Path("runs"), Path("checkpoints")):
        pass
    made = recorded.index(("mkdir", Path("runs/small_001")))
    assert ("fsync", Path("runs")) in recorded[made:]


def test_without_syncs_some_crashes_leave_no_checkpoint(saves, is_valid):
    """Without syncing files, their folder, or its parent folders."""
    folders = {FOLDER, *FOLDER.parents}
    unsynced = [
        [operation for operation in saves if operation.kind != "fsync" or operation.path in folders],
        [operation for operation in saves if operation.kind != "fsync" or operation.path != FOLDER],
        [operation for operation in saves if operation.kind != "fsync" or operation.path not in FOLDER.parents],
    ]
    for operations in unsynced:
        count = count_states(operations, is_valid)
        assert count.without_checkpoint > 0
        assert count.last_not_whole > 0
