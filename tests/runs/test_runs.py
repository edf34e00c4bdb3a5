"""Run folders: what is in them, their numbers, listing, comparing, removing."""

import json
import multiprocessing
import platform
import shutil
from pathlib import Path

import pytest

from linreg import __version__
from linreg.errors import StorageError
from linreg.runs import folders, listing, lock
from linreg.runs.folders import create, hold, latest_checkpoint
from linreg.spec.schema import load_spec
from tests.conftest import write_spec

RUNS, CHECKPOINTS = Path("runs"), Path("checkpoints")


def test_a_run_writes_the_files_of_the_readme(linreg):
    linreg("train", write_spec(writer={}), "-q")
    folder = Path("runs/small_001")
    names = {path.name.partition(".vm")[0].partition(".1")[0] for path in folder.iterdir()}
    assert names == {
        ".lock", "events.out.tfevents", "loss_exact", "loss_training", "loss_validation", "losses.png", "metrics.jsonl", "run.json", "spec.yaml",
    }  # fmt: skip
    assert sorted(path.name for path in Path("checkpoints/small_001").iterdir()) == ["best.pth", "last.pth"]
    assert load_spec(folder / "spec.yaml") == load_spec("small.yaml")
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [list(record) for record in records] == [["epoch", "loss", "val_loss", "lr", "exact"]] * 6
    assert [record["epoch"] for record in records] == list(range(6))
    info = json.loads((folder / "run.json").read_text())
    assert (info["name"], info["outcome"]) == ("small_001", "finished")
    (session,) = info["sessions"]
    assert session["environment"]["linreg"] == __version__
    assert session["environment"]["python"] == platform.python_version()
    assert session["started"] <= session["ended"]
    assert (folder / "losses.png").read_bytes().startswith(b"\x89PNG")


def test_the_spec_of_a_run_repeats_it(linreg):
    linreg("train", write_spec(), "-q", "epochs=4", "optimizer.lr=0.05")
    linreg("train", "runs/small_001/spec.yaml", "-q")
    assert Path("runs/small_001/metrics.jsonl").read_text() == Path("runs/small_002/metrics.jsonl").read_text()


def test_numbers_go_up_and_are_not_used_again():
    for expected in ("a_001", "a_002"):
        with create("a", RUNS, CHECKPOINTS) as run:
            assert run.name == expected
            run.write_info()
    Path("runs/a_007").mkdir()
    Path("checkpoints/a_010").mkdir()
    Path("runs/a_b_050").mkdir()
    with create("a", RUNS, CHECKPOINTS) as run:
        assert run.name == "a_011"


def test_the_folder_of_a_process_that_was_killed_at_the_start_is_used():
    for _ in range(2):
        with create("a", RUNS, CHECKPOINTS) as run:  # leaves without run.json, as a killed process does
            assert run.name == "a_001"
            with create("a", RUNS, CHECKPOINTS) as other:
                assert other.name == "a_002"
            shutil.rmtree("runs/a_002")
            shutil.rmtree("checkpoints/a_002")
    Path("runs/a_001/notes.txt").write_text("mine")
    with create("a", RUNS, CHECKPOINTS) as run:
        assert run.name == "a_002"
    Path("checkpoints/a_002/last.pth").touch()
    with create("a", RUNS, CHECKPOINTS) as run:
        assert run.name == "a_003"
    Path("runs/elsewhere").mkdir()
    Path("runs/a_004").symlink_to("elsewhere")
    with create("a", RUNS, CHECKPOINTS) as run:
        assert run.name == "a_005"


def make_a_run(number):
    with create("a", RUNS, CHECKPOINTS) as run:
        run.write_info()
        return run.name


def test_processes_that_start_at_once_get_runs_of_their_own():
    with multiprocessing.get_context("fork").Pool(8) as pool:
        names = pool.map(make_a_run, range(24))
    assert sorted(names) == [f"a_{number:03}" for number in range(1, 25)]


def test_runs_lists_and_removes(linreg):
    path = write_spec()
    linreg("train", path, "-q")
    linreg("train", path, "-q", "optimizer.lr=0.2", "epochs=3")
    found = json.loads(linreg("runs", "--json").out)
    assert [(run["run"], run["outcome"], run["epochs"]) for run in found] == [
        ("small_001", "finished", 6), ("small_002", "finished", 3),
    ]  # fmt: skip
    lines = linreg("runs").out.splitlines()
    assert lines[0].split() == ["run", "outcome", "epochs", "loss", "val_loss", "started", "checkpoint"]
    assert lines[1].startswith("small_001  finished       6")

    assert latest_checkpoint(CHECKPOINTS) == Path("checkpoints/small_002/last.pth")
    assert linreg("runs", "rm", "small_002").err == "removed small_002\n"
    assert not Path("runs/small_002").exists()
    assert not Path("checkpoints/small_002").exists()
    assert latest_checkpoint(CHECKPOINTS) == Path("checkpoints/small_001/last.pth")
    linreg("runs", "rm", "small_001")
    assert latest_checkpoint(CHECKPOINTS) is None
    assert linreg("runs").err == "runs: no runs yet; linreg train creates one\n"


def test_a_run_in_use_is_not_removed():
    with create("a", RUNS, CHECKPOINTS) as run:
        run.write_info(outcome="running")
        with pytest.raises(StorageError, match=r"^runs/a_001: in use by another process; wait for it, or stop it$"):
            folders.remove("a_001", RUNS, CHECKPOINTS)
        assert listing.summaries(RUNS, CHECKPOINTS)[0]["outcome"] == "running"
    assert listing.summaries(RUNS, CHECKPOINTS)[0]["outcome"] == "interrupted"
    with hold("a_001", RUNS, CHECKPOINTS):
        pass
    folders.remove("a_001", RUNS, CHECKPOINTS)


def test_a_run_removed_while_a_process_waits_for_its_lock_is_an_error(monkeypatch):
    with create("a", RUNS, CHECKPOINTS) as run:
        run.write_info(outcome="running")
    try_lock = lock._try_lock

    def remove_and_lock(*arguments, **named):
        monkeypatch.setattr(lock, "_try_lock", try_lock)
        folders.remove("a_001", RUNS, CHECKPOINTS)
        return try_lock(*arguments, **named)

    monkeypatch.setattr(lock, "_try_lock", remove_and_lock)
    held = hold("a_001", RUNS, CHECKPOINTS)
    with (
        pytest.raises(StorageError, match=r"^runs/a_001: another process removed it; linreg runs lists"),
        held,
    ):
        pass
    assert list(RUNS.iterdir()) + list(CHECKPOINTS.iterdir()) == []


def test_latest_names_the_run_that_has_saved_last():
    with create("a", RUNS, CHECKPOINTS) as a, create("b", RUNS, CHECKPOINTS) as b:
        for run in (a, b, a, a, b):
            run.publish()
            assert latest_checkpoint(CHECKPOINTS) == run.last
        Path("checkpoints/latest").unlink()
        b.publish()
        assert latest_checkpoint(CHECKPOINTS) == b.last


def test_latest_names_the_best_epoch_as_soon_as_there_is_one():
    with create("a", RUNS, CHECKPOINTS) as run:
        for _ in range(3):  # saves within the first epoch
            run.publish()
        assert latest_checkpoint(CHECKPOINTS) == run.last
        for _ in range(3):
            run.publish(best=True)
            assert latest_checkpoint(CHECKPOINTS) == run.checkpoints / "best.pth"


def test_latest_is_found_when_the_folder_has_moved(linreg):
    linreg("train", write_spec(), "-q")
    Path("checkpoints").rename("elsewhere")
    assert linreg("predict", "--checkpoints", "elsewhere", "--inputs", "1").code == 0
