"""Tables that are mapped: the same bits as in memory, a bounded memory, a cache that is whole or not there."""

import errno
import json
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from linreg.checkpoint import load
from linreg.data import cache, conversion, mapped
from linreg.data.cache import FORMAT, cache_folder, clear, entries, new_entry
from linreg.data.conversion import open_mapped
from linreg.data.mapped import MappedRows
from linreg.data.rows import Rows
from linreg.data.sources import DATASETS, Samples
from linreg.errors import StorageError
from linreg.experiment.building import build
from linreg.experiment.data import prepare
from linreg.spec.schema import load_spec
from tests.conftest import differences, run_with_peak, write_spec

MIB = 2**20


def write_table(path="table.csv", n=300, seed=0, *, gaps=False, rare=True):
    """A table with two numbers, a category, a weight and two targets."""
    rng = np.random.RandomState(seed)
    lines = ["a,b,kind,count,y,z"]
    for i in range(n):
        a = "" if gaps and i % 7 == 3 else f"{rng.randn() * 0.5 + 2:.4f}"
        kind = "" if gaps and i % 11 == 5 else "rare" if rare and i == 8 else ["one", "two", "three"][rng.randint(3)]
        lines.append(f"{a},{rng.rand():.6f},{kind},{rng.randint(1, 5)},{rng.randn():.5f},{rng.randn() * 3:.5f}")
    Path(path).write_text("\n".join(lines) + "\n")
    return Path(path)


def trained_otherwise(a, b):
    """The parts in which two checkpoints differ, other than by where their specs have the data."""
    return differences(*(replace(saved, best={**saved.best, "spec": None}) for saved in (load(a), load(b))))


def csv_source(**changes):
    return {"name": "csv", "path": "table.csv", "target": ["y", "z"], "categorical": "kind"} | {
        "unseen": "zeros",
        **changes,
    }


SETTINGS = {
    "plain": {"data__source": {"name": "friedman1", "n_samples": 300}},
    "float64": {"data__source": {"name": "friedman1", "n_samples": 300}, "dtype": "float64"},
    "standardised": {"data__source": {"name": "friedman1", "n_samples": 30_000}, "data__standardize": True},
    "one feature, full": {"data__source": {"name": "sine", "n_samples": 77}, "data__batch_size": "full"},
    "without validation": {"data__source": {"name": "linear"}, "data__split": {"train_ratio": 1.0}},
    "categories": {"data__source": csv_source(sample_weight=None, exclude="count"), "data__batch_size": 7},
    "weights": {"data__source": csv_source(sample_weight="count"), "data__standardize": "target"},
    "means": {"data__source": csv_source(missing="mean"), "data__standardize": True, "dtype": "float64"},
    "medians": {"data__source": csv_source(missing="median", sample_weight="count"), "data__standardize": "features"},
    "dropped": {"data__source": csv_source(missing="drop"), "data__shuffle": False},
}


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("engine", ["auto", "textbook", "compiled"])
def test_a_mapped_run_is_the_one_in_memory_to_the_last_bit(linreg, monkeypatch, name, engine):
    write_table(gaps=name in {"means", "medians", "dropped"})
    settings = {"optimizer": {"name": "sgd", "lr": 0.001, "momentum": 0.5}, "epochs": 2, "engine": engine}
    spec = write_spec(**(settings | SETTINGS[name]))
    monkeypatch.setattr(mapped, "BLOCK", 2**12)  # so that a small table has many blocks
    assert linreg("train", spec).code == 0
    assert linreg("train", spec, "data.memory=mapped").code == 0
    a, b = (f"checkpoints/small_{number}/last.pth" for number in ("001", "002"))
    assert trained_otherwise(a, b) == []
    assert load(a).data_fingerprint == load(b).data_fingerprint
    records = [Path(f"runs/small_{number}/metrics.jsonl").read_text() for number in ("001", "002")]
    assert records[0] == records[1]  # the exact optimum with it


def test_points_are_the_same_one_by_one_many_at_once_and_in_any_order(monkeypatch):
    write_table()
    spec = load_spec(write_spec(data__source=csv_source(sample_weight="count"), data__standardize=True))
    there = prepare(spec).dataset
    monkeypatch.setattr(mapped, "WINDOW", 2**9)
    data = prepare(load_spec("small.yaml", ["data.memory=mapped", "data.memory_limit=16"])).dataset
    fitting = data.points
    bounded = reopened(fitting, memory_limit=4 * 2**9)
    indices = torch.randperm(300)[:120]
    expected = there.rows(indices)
    for points in (fitting, bounded):
        data.points = points
        for part, other in zip(data.rows(indices), expected, strict=True):
            assert torch.equal(part, other) and part.dtype == other.dtype and part.is_contiguous()
        for part, other in zip(data[7], there[7], strict=True):
            assert torch.equal(part, other) and part.shape == other.shape
    assert len(data) == len(there) == 300


def reopened(points, *, memory_limit):
    (entry,) = entries(cache_folder())
    return MappedRows(*cache.open_entry(cache_folder(), entry.key), memory_limit=memory_limit, source=points.source)


def test_parts_of_a_gather_have_no_more_windows_than_may_be_resident(monkeypatch):
    monkeypatch.setattr(mapped, "WINDOW", 2**9)
    samples = Samples(np.random.RandomState(0).rand(1000, 3), np.zeros((1000, 1)))  # rows of 32 bytes, 16 a window
    points = open_mapped(samples, source={"name": "x"}, memory_limit=6 * 2**9)  # 3 windows, each with one it may reach
    ordered = np.sort(np.random.RandomState(1).permutation(1000)[:200])
    parts = [ordered[part] for part in points._parts(ordered)]
    assert np.array_equal(np.concatenate(parts), ordered)
    assert max(len(set(part // 16)) for part in parts) == 3
    assert np.array_equal(points.take(ordered[::-1]).x, samples.x[ordered[::-1]])


def peaks(*limits):
    """Read all of an entry under each limit, in a process of its own. Gives by how many MiB its memory rose at most."""
    code = """
import numpy as np
from linreg.data.cache import cache_folder, open_entry
from linreg.data.sources import Samples
from linreg.data.mapped import MappedRows
def points(limit):
    return MappedRows(*open_entry(cache_folder(), "key"), memory_limit=limit * 2**20, source=Samples(np.zeros((1, 1)), np.zeros((1, 1))))
def all_rows(points):
    for block in points.blocks():
        pass
    order = np.random.RandomState(0).permutation(points.n_rows)
    for first in range(0, len(order), 2**14):
        points.take(order[first : first + 2**14])
    return points
for limit in map(int, sys.argv[1:]):
    opened = points(limit)
    open("/proc/self/clear_refs", "w").write("5")  # the peak begins anew
    before = peak()
    all_rows(opened)
    print((peak() - before) / 2**20)
    del opened
"""
    return [float(line) for line in run_with_peak(code, *map(str, limits)).splitlines()]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells the peak of a process")
def test_no_more_of_the_map_is_resident_than_the_limit_says():
    n_rows, n_columns = 2**20, 32  # 256 MiB, as a file with nothing in it, which takes no room on the disk
    with new_entry(cache_folder(), "key") as temporary:
        with (temporary / "points.bin").open("wb") as file:
            file.truncate(n_rows * n_columns * 8)
        cache.publish(temporary, "key", meta_of(n_rows, n_columns))
    bounded, unbounded = peaks(16, 1024)
    # a gather has 4 MiB of rows, and a part of them once more; the order has 8; 16 more are for the allocator
    assert bounded < 16 + 2 * 4 + 8 + 16
    assert unbounded > 256  # where all may stay


def meta_of(n_rows, n_columns):
    names = [f"x{i}" for i in range(n_columns - 1)]
    return {
        "feature_names": names, "target_names": ["y"], "categories": {}, "weighted": False, "n_rows": n_rows,
        "sizes": [], "n_columns": n_columns, "minimum": [0.0] * n_columns, "maximum": [0.0] * n_columns, "fingerprint": "f",
        "sums": [0, 0, 0],
        "source": "s",
    }  # fmt: skip


@pytest.mark.parametrize("first", ["mapped", "resident"])
def test_a_run_resumes_mapped_or_in_memory_as_if_never_interrupted(linreg, first):
    write_table()
    second = {"mapped": "resident", "resident": "mapped"}[first]
    spec = write_spec(data__source=csv_source(), data__standardize=True, epochs=4, checkpoint__every=1)
    assert linreg("train", spec, "--name", "whole").code == 0
    assert linreg("train", spec, "--name", "parts", "epochs=2", f"data.memory={first}").code == 0
    answer = linreg("resume", "checkpoints/parts_001/last.pth", "epochs=4", f"data.memory={second}")
    assert answer.code == 0
    assert "warning" not in answer.err
    assert Path("checkpoints/parts_001/last.pth").exists() and not Path("checkpoints/parts_002").exists()
    assert trained_otherwise("checkpoints/whole_001/last.pth", "checkpoints/parts_001/last.pth") == []


def test_where_the_data_is_may_change_within_an_epoch(linreg):
    from linreg.experiment.changes import changes

    old = load_spec(write_spec())
    new = load_spec("small.yaml", ["data.memory=mapped", "data.memory_limit=99", "data.batch_size=3"])
    found = changes(old, new, planned_in_steps=False, within_an_epoch=True)
    assert {change.key: change.verdict for change in found} == {
        "data.memory": "free",
        "data.memory_limit": "free",
        "data.batch_size": "refused",
    }


def test_solve_evaluate_and_check_read_the_map(linreg, monkeypatch):
    write_table()
    spec = write_spec(data__source=csv_source(), data__memory="mapped", solver="exact")
    held = write_spec("held.yaml", data__source=csv_source(), solver="exact")
    for key in ("epochs", "optimizer"):
        for path in (spec, held):
            path.write_text("\n".join(line for line in path.read_text().splitlines() if not line.startswith(key)))
    spec.write_text(spec.read_text().replace("  lr: 0.1\n  name: sgd\n", "").replace("  name: sgd\n  lr: 0.1\n", ""))
    held.write_text(held.read_text().replace("  lr: 0.1\n  name: sgd\n", "").replace("  name: sgd\n  lr: 0.1\n", ""))
    losses = [json.loads(linreg("train", path, "--json").out)["loss"] for path in (spec, held)]
    assert losses[0] == losses[1]
    monkeypatch.setattr("linreg.data.tables.reading.Table.blocks", None)  # nothing reads the table any more
    assert linreg("evaluate", "checkpoints/small_001/last.pth").code == 0
    assert linreg("check", spec).code == 0


def test_medians_of_a_map_are_solved_with_without_keeping_the_inputs(linreg, monkeypatch):
    write_table(gaps=True)
    Path("exact.yaml").write_text(
        "name: exact\nsolver: exact\nmodel: {name: linear}\ndata: {source: {name: csv, path: table.csv, "
        "target: [y, z], categorical: kind, unseen: zeros, missing: median}}\n"
    )
    assert linreg("train", "exact.yaml").code == 0
    monkeypatch.setattr(Rows, "columns_of", None)  # which keeps the inputs
    assert linreg("train", "exact.yaml", "data.memory=mapped").code == 0
    a, b = (load(f"checkpoints/exact_{number}/last.pth") for number in ("001", "002"))
    assert differences(a, b) == []


def test_an_unchanged_table_is_not_read_again_and_a_changed_one_is(linreg, monkeypatch):
    table = write_table()
    spec = write_spec(data__source=csv_source(), data__memory="mapped", epochs=1)
    assert "converting" in linreg("train", spec).err
    assert "converting" not in linreg("train", spec).err
    assert linreg("train", spec, "data.source.target=y").err.count("converting") == 1  # other columns
    assert len(entries(cache_folder())) == 2
    first = load("checkpoints/small_001/last.pth")
    write_table(seed=1)
    os.utime(table, ns=(1, table.stat().st_mtime_ns + 1))
    assert "converting" in linreg("train", spec).err
    assert load("checkpoints/small_004/last.pth").data_fingerprint != first.data_fingerprint
    answer = linreg("resume", "checkpoints/small_001/last.pth")
    assert answer.code == 3 and "data.source has changed since training" in answer.err


def test_a_table_that_changes_while_it_is_read_is_refused(linreg, monkeypatch):
    table = write_table()
    spec = load_spec(write_spec(data__source=csv_source(), data__memory="mapped"))
    real = conversion._convert

    def convert(*arguments):
        found = real(*arguments)
        table.write_text(table.read_text() + "1,2,one,1,3,4\n")
        return found

    monkeypatch.setattr(conversion, "_convert", convert)
    with pytest.raises(
        Exception, match="small.yaml:.*: data.source: a file changed while it was read; run the command again"
    ):
        build(spec)
    assert list(cache_folder().iterdir()) == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda entry: os.truncate(entry / "points.bin", (entry / "points.bin").stat().st_size - 8),
        lambda entry: (entry / "meta.json").unlink(),
        lambda entry: (entry / "meta.json").write_text("{"),
        lambda entry: (entry / "meta.json").write_text(
            (entry / "meta.json").read_text().replace(f'"format": {FORMAT}', '"format": 0')
        ),
        lambda entry: (entry / "meta.json").write_text(f'{{"format": {FORMAT}}}'),
        lambda entry: (entry / "points.bin").unlink(),
        lambda entry: (entry / "points.bin").write_bytes(bytes((entry / "points.bin").stat().st_size)),
        lambda entry: (entry / "points.bin").unlink() or (entry / "points.bin").mkdir(),
    ],
    ids=["cut", "no meta", "half a meta", "another format", "less of a meta", "no points", "overwritten", "a folder"],
)
def test_a_damaged_entry_is_noticed_and_made_anew(linreg, damage):
    write_table()
    spec = write_spec(data__source=csv_source(), data__memory="mapped", epochs=1)
    assert linreg("train", spec).code == 0
    (entry,) = entries(cache_folder())
    assert not entry.damaged
    damage(cache_folder() / entry.key)
    assert entries(cache_folder())[0].damaged
    answer = linreg("train", spec)
    assert answer.code == 0 and "converting" in answer.err
    assert not entries(cache_folder())[0].damaged
    assert trained_otherwise("checkpoints/small_001/last.pth", "checkpoints/small_002/last.pth") == []


def test_a_killed_conversion_leaves_nothing_that_the_next_one_trips_over(linreg):
    write_table()
    spec = write_spec(data__source=csv_source(), data__memory="mapped", epochs=1)
    code = """
import os, sys
from linreg.data import conversion
from linreg.cli.main import main
real = conversion.publish
def publish(*arguments):
    print("converted", flush=True)
    sys.stdin.read()
conversion.publish = publish
main(["train", "small.yaml"])
"""
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout.readline() == b"converted\n"
    left = {path.suffix for path in cache_folder().iterdir()}
    assert left == {".tmp", ".lock"}
    assert entries(cache_folder()) == []
    clear(cache_folder())
    assert {path.suffix for path in cache_folder().iterdir()} == left  # what is under way stays
    child.kill()
    child.wait()
    for pipe in (child.stdin, child.stdout):
        pipe.close()
    held = filled("another")
    assert [path.suffix for path in cache_folder().iterdir()] == [""]
    assert linreg("train", spec).code == 0
    assert {entry.source for entry in entries(cache_folder())} == {"another", str(Path("table.csv").absolute())}
    assert held.n_rows == 1000


def test_a_stopped_conversion_leaves_nothing(monkeypatch):
    write_table()
    spec = load_spec(write_spec(data__source=csv_source(), data__memory="mapped"))

    def interrupted(*_):
        raise KeyboardInterrupt  # not by a signal, which a process in the background of a shell ignores

    monkeypatch.setattr(conversion, "publish", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build(spec)
    assert list(cache_folder().iterdir()) == []


def test_a_table_that_another_process_converted_is_not_converted_again(monkeypatch):
    write_table()
    spec = load_spec(write_spec(data__source=csv_source(), data__memory="mapped"))
    real, conversions = conversion._convert, []

    @contextmanager
    def after_another(folder, name):
        monkeypatch.setattr(conversion, "new_entry", new_entry)
        build(spec)
        with new_entry(folder, name) as temporary:
            yield temporary

    monkeypatch.setattr(conversion, "new_entry", after_another)
    monkeypatch.setattr(conversion, "_convert", lambda *arguments: conversions.append(1) or real(*arguments))
    build(spec)
    assert conversions == [1]


def test_a_waiting_process_continues_when_the_other_is_done():
    with new_entry(cache_folder(), "name"):
        code = """
from linreg.data import cache
sleep = cache.time.sleep
def told(seconds):
    print("waits", flush=True)
    cache.time.sleep = sleep
cache.time.sleep = told
with cache.new_entry(cache.cache_folder(), "name"):
    print("mine")
"""
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert child.stdout.readline() == b"waits\n"
    assert child.communicate(timeout=30)[0] == b"mine\n"


def filled(name, n=1000):
    samples = Samples(np.random.RandomState(len(name)).rand(n, 7), np.zeros((n, 1)))
    return open_mapped(samples, source={"name": name}, memory_limit=16 * MIB)


def test_the_least_recently_used_table_is_removed_unless_in_use(monkeypatch):
    size = 1000 * 8 * 8
    monkeypatch.setenv("LINREG_CACHE_GIB", str(2.5 * size / 2**30))
    held = filled("a")
    filled("bb")
    for entry in entries(cache_folder()):
        os.utime(cache_folder() / entry.key / "meta.json", (1, 1) if entry.source == "a" else (2, 2))
    filled("ccc")
    assert {entry.source: entry.in_use for entry in entries(cache_folder())} == {"a": True, "ccc": False}
    del held
    for entry in entries(cache_folder()):
        os.utime(cache_folder() / entry.key / "meta.json", (1, 1) if entry.source == "a" else (2, 2))
    filled("dddd")
    assert {entry.source for entry in entries(cache_folder())} == {"ccc", "dddd"}
    with pytest.raises(
        StorageError, match=r"needs more than .* and the limit of the cache is .*; increase LINREG_CACHE_GIB"
    ):
        filled("eeeee", n=3000)
    assert not list(cache_folder().glob(".*"))


def test_an_entry_that_another_process_removes_meanwhile_makes_no_trouble(monkeypatch):
    filled("a")
    listed = entries(cache_folder())
    clear(cache_folder())
    monkeypatch.setattr(cache, "entries", lambda folder: listed)
    assert clear(cache_folder()) == (listed, [])
    filled("a")
    monkeypatch.setattr(cache.Path, "exists", lambda path: True)  # as it was a moment ago
    listed = [replace(listed[0], key="gone")]
    assert clear(cache_folder()) == (listed, [])


def test_a_cache_without_enough_space_is_a_storage_error(monkeypatch):
    filled("a")
    monkeypatch.setenv("LINREG_CACHE_GIB", str(2**-20))
    monkeypatch.setattr(cache.Path, "rename", full)
    with pytest.raises(StorageError, match=r"No space left on device \(\d+ bytes free\); free some space"):
        cache.make_room(cache_folder(), 8)


def test_entries_are_locked_as_network_file_systems_want_it_and_where_nothing_can_be_written(monkeypatch):
    filled("a")
    flock, os_open = cache.fcntl.flock, os.open

    def flock_of_nfs(file, operation):
        mode = cache.fcntl.fcntl(file, cache.fcntl.F_GETFL) & os.O_ACCMODE
        if operation & cache.fcntl.LOCK_EX and mode == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        flock(file, operation)

    def open_read_only(path, flags, *mode, **where):
        if flags & os.O_RDWR:
            raise OSError(errno.EROFS, "Read-only file system")
        return os_open(path, flags, *mode, **where)

    with monkeypatch.context() as patch:
        patch.setattr(cache.fcntl, "flock", flock_of_nfs)
        assert [entry.in_use for entry in entries(cache_folder())] == [False]
    monkeypatch.setattr(os, "open", open_read_only)
    assert [entry.in_use for entry in entries(cache_folder())] == [False]


def test_opening_an_entry_counts_as_using_it():
    write_table()
    spec = load_spec(write_spec(data__source=csv_source(), data__memory="mapped"))
    build(spec)
    (entry,) = entries(cache_folder())
    os.utime(cache_folder() / entry.key / "meta.json", (1, 1))
    build(spec)
    assert entries(cache_folder())[0].used > "2000"


def test_a_full_disk_leaves_nothing_half_written(linreg, monkeypatch):
    write_table()
    spec = write_spec(data__source=csv_source(), data__memory="mapped")
    monkeypatch.setattr(conversion.os, "fsync", full)
    answer = linreg("train", spec)
    assert answer.code == 5
    assert re.sub(r"\d+ bytes free", "N bytes free", answer.err.splitlines()[-1]) == (
        f"error: {cache_folder()}: No space left on device (N bytes free); free some space (linreg cache clear), or "
        "set XDG_CACHE_HOME to a folder on another disk"
    )
    assert list(cache_folder().iterdir()) == []
    assert not Path("runs").exists()


def full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_an_unwritable_cache_is_a_storage_error(linreg, monkeypatch):
    Path("file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(Path("file").absolute()))
    answer = linreg("train", write_spec(data__memory="mapped"))
    assert answer.code == 5
    assert answer.err == (
        f"error: {cache_folder()}: Not a directory; set XDG_CACHE_HOME to a writable folder, or "
        "data.memory to resident\n"
    )


def test_the_cache_is_where_the_standard_says(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    for given, there in (("", "/home/me/.cache"), ("relative", "/home/me/.cache"), ("/elsewhere", "/elsewhere")):
        monkeypatch.setenv("XDG_CACHE_HOME", given)
        assert cache_folder() == Path(there) / "linreg" / "tables"


def test_the_commands_show_and_clear_the_cache(linreg):
    assert json.loads(linreg("cache", "--json").out)["tables"] == []
    write_table()
    assert linreg("train", write_spec(data__source=csv_source(), data__memory="mapped", epochs=1)).code == 0
    held = filled("held")
    found = json.loads(linreg("cache", "--json").out)
    assert found["folder"] == str(cache_folder())
    assert found["bytes"] == sum(table["bytes"] for table in found["tables"]) == 300 * 6 * 8 + 1000 * 8 * 8
    by_source = {table["source"]: table for table in found["tables"]}
    assert by_source[str(Path("table.csv").absolute())]["n_rows"] == 300
    assert by_source["held"]["in_use"] and not by_source[str(Path("table.csv").absolute())]["in_use"]
    assert "table.csv" in linreg("cache").out
    assert "in use" in linreg("cache").out

    cleared = json.loads(linreg("cache", "clear", "--json").out)
    assert [table["source"] for table in cleared["removed"]] == [str(Path("table.csv").absolute())]
    assert [table["source"] for table in cleared["in_use"]] == ["held"]
    assert held.take(np.array([3])).x.shape == (1, 7)
    del held
    assert linreg("cache", "clear").err == "removed 1 table, 0.061 MiB\n"
    assert list(cache_folder().iterdir()) == []
    assert linreg("cache", "--json", "clear").code == 2


@pytest.mark.parametrize("value", ["-1", "0", "much", "nan"])
def test_an_invalid_cache_limit_is_an_error(linreg, monkeypatch, value):
    monkeypatch.setenv("LINREG_CACHE_GIB", value)
    answer = linreg("cache")
    assert answer.code == 2
    assert answer.err.startswith(f"error: LINREG_CACHE_GIB: must be a number of GiB > 0, got '{value}'")


@pytest.mark.parametrize("memory", ["resident", "mapped"])
def test_unusable_values_are_refused_as_in_memory(linreg, memory):
    Path("table.csv").write_text("a,y\n" + "1,2\n" * 20 + "1e39,2\n" + "1,2\n" * 20)
    source = {"name": "csv", "path": "table.csv", "target": "y"}
    answer = linreg("train", write_spec(data__source=source, data__memory=memory))
    assert answer.code == 3 and "1e+39" in answer.err and "float32" in answer.err
    assert linreg("train", "small.yaml", "dtype=float64", "data.standardize=true").code == 0


@pytest.mark.parametrize("standardize", ["true", "false"])
@pytest.mark.parametrize("other", ["data.memory=resident", "data.memory=mapped", "solver=exact"])
def test_a_non_finite_value_is_reported_with_row_and_column(linreg, other, standardize):
    x = np.random.RandomState(0).rand(40, 2)
    x[3, 1] = np.nan
    DATASETS.register("given")(lambda: Samples(x, x[:, :1]))
    answer = linreg("train", write_spec(data__source={"name": "given"}), other, f"data.standardize={standardize}")
    assert answer.code == 3
    assert answer.err.endswith("data.source: row 4, column 'x2': nan is not finite; fix it\n")


@pytest.mark.parametrize("memory", ["resident", "mapped"])
def test_a_category_only_in_validation_is_reported_with_its_row(linreg, memory):
    write_table(rare=False)
    lines = Path("table.csv").read_text().splitlines()
    last_of_validation = next(row for row in range(len(lines) - 1) if not in_training(row))
    cells = lines[last_of_validation + 1].split(",")
    lines[last_of_validation + 1] = ",".join([*cells[:2], "new", *cells[3:]])
    Path("table.csv").write_text("\n".join(lines) + "\n")
    answer = linreg("train", write_spec(data__source=csv_source(unseen="error"), data__memory=memory, baseline=False))
    assert answer.code == 3
    assert f"table.csv: row {last_of_validation + 1}, column 'kind': 'new' is not among the categories" in answer.err
    assert not Path("runs").exists()


def in_training(row):
    order = torch.randperm(300, generator=torch.Generator().manual_seed(13))
    return row in order[:240].tolist()


def test_shapes_and_values_that_are_no_points_leave_nothing_in_the_cache(linreg):
    @DATASETS.register("odd")
    def odd(*, empty: bool) -> Samples:
        x = np.zeros((3, 0)) if empty else np.array([[1.0], [np.inf], [2.0]])
        return Samples(x, np.zeros((3, 1)))

    for empty, message in ((True, "x is empty"), (False, "inf is not finite")):
        with pytest.raises(Exception, match=message):
            build(load_spec(write_spec(data__source={"name": "odd", "empty": empty}, data__memory="mapped")))
    assert list(cache_folder().iterdir()) == []
