"""The parts of a split, from the command line: by order, time, group and stratum, from files, and the test part."""

import json
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from linreg.data.split import Column, divide
from linreg.errors import DataError
from tests.conftest import write_spec

SOURCE = {"name": "csv", "path": "t.csv", "target": "y", "features": "x"}


def load(path):
    return torch.load(path, weights_only=True)


def write_table(n_rows=60, path="t.csv", seed=0, **columns):
    """Write x, y and more columns; return x and y."""
    random = np.random.default_rng(seed)
    x, y = random.normal(size=n_rows), random.normal(size=n_rows)
    columns = {"x": x, "y": y, **columns}
    lines = [",".join(map(str, row)) for row in zip(*columns.values(), strict=True)]
    Path(path).write_text("\n".join([",".join(columns), *lines]) + "\n")
    return x, y


def parts_of(linreg, split, source=SOURCE, *options):
    """Solve a model of the mean on the parts of a split; return the mean squared error of each part about the training
    mean, and the number of its points."""
    source = {**source, "features": []}
    spec = write_spec(data__source=source, data__split=split, solver="exact")
    assert linreg("train", spec, *options).code == 0
    values = {}
    for part in ("train", "val", "test"):
        answer = linreg("evaluate", "--part", part, "--json")
        if answer.code == 0:
            measured = json.loads(answer.out)
            values[part] = (measured["metrics"]["y"]["mse"], measured["n_samples"])
    return values


def expected(y, train, val=None, test=None):
    """Return the same by hand, from the rows of the parts."""
    mean = y[train].mean()
    parts = {"train": train, "val": val, "test": test}
    return {
        name: (pytest.approx(((y[rows] - mean) ** 2).mean(), rel=1e-12), len(y[rows]))
        for name, rows in parts.items()
        if rows is not None
    }


def test_random_is_the_order_of_torch_with_the_test_part_at_the_end(linreg):
    _, y = write_table()
    order = torch.randperm(60, generator=torch.Generator().manual_seed(7)).numpy()
    answer = parts_of(linreg, {"train_ratio": 0.5, "test_ratio": 0.2, "seed": 7})
    assert answer == expected(y, order[:30], order[30:48], order[48:])


def test_order_takes_the_first_rows_for_training_and_the_last_ones_for_test(linreg):
    _, y = write_table()
    answer = parts_of(linreg, {"train_ratio": 0.5, "test_ratio": 0.2, "by": "order"})
    assert answer == expected(y, slice(30), slice(30, 48), slice(48, 60))


def test_without_validation_all_but_the_training_part_is_test(linreg):
    _, y = write_table(n_rows=61)
    answer = parts_of(linreg, {"train_ratio": 0.8, "test_ratio": 0.2, "by": "order"})
    assert answer == expected(y, slice(48), None, slice(48, 61))


@pytest.mark.parametrize("memory", ["resident", "mapped"])
@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_time_keeps_equal_times_in_one_part_and_later_ones_out_of_training(linreg, format, memory):
    day = np.random.default_rng(1).integers(0, 12, size=60)
    dates = [f"2024-03-{d + 1:02}" for d in day]
    x, y = write_table(sold=dates)
    if format == "parquet":
        days = pa.array(np.array(dates, dtype="datetime64[D]"))
        pq.write_table(pa.table({"x": x, "y": y, "sold": days}), "t.parquet")
    source = {**SOURCE, "name": format, "path": f"t.{format}"}
    answer = parts_of(linreg, {"train_ratio": 0.5, "by": {"time": "sold"}}, source, f"data.memory={memory}")
    ends = np.cumsum(np.bincount(day))
    last = int(np.argmin(np.abs(ends - 30)))  # the day after which about half of the rows lie
    assert answer == expected(y, np.flatnonzero(day <= last), np.flatnonzero(day > last))


def test_time_may_be_a_feature_or_a_number(linreg):
    times = np.random.default_rng(1).permutation(60) * 1.5e9
    _, y = write_table(t=times)
    order = np.argsort(times)
    by_time = {"train_ratio": 0.5, "test_ratio": 0.25, "by": {"time": "t"}}
    assert parts_of(linreg, by_time) == expected(y, order[:30], order[30:45], order[45:])
    for memory in ("resident", "mapped"):
        spec = write_spec(data__source={**SOURCE, "features": ["x", "t"]}, data__split=by_time, data__memory=memory,
                          data__standardize=True, epochs=1, engine="auto")  # fmt: skip
        assert linreg("train", spec).code == 0
        assert json.loads(linreg("evaluate", "--part", "test", "--json").out)["n_samples"] == 15
    first, second = (load(f"checkpoints/small_00{number}/last.pth") for number in (2, 3))
    assert first["loss"] == second["loss"] and first["val_loss"] == second["val_loss"]


@pytest.mark.parametrize("as_numbers", [True, False])
def test_a_group_is_in_one_part(linreg, as_numbers):
    number = np.random.default_rng(1).integers(0, 14, size=200)
    patient = number if as_numbers else [f"p{n}" for n in number]
    write_table(n_rows=200, patient=patient)
    split = {"train_ratio": 0.6, "test_ratio": 0.2, "by": {"group": "patient"}}
    spec = write_spec(data__source=SOURCE, data__split=split)
    checked = json.loads(linreg("check", spec, "--json").out)
    sizes = [checked[key] for key in ("n_train", "n_val", "n_test")]
    assert sum(sizes) == 200 and np.allclose(sizes, [120, 40, 40], atol=20)
    parts = divide(200, train_ratio=0.6, test_ratio=0.2, seed=13, by="group", column=Column(number * 1.0, True))
    groups = [set(number[rows]) for rows in (parts.train, parts.val, parts.test)]
    assert sum(map(len, groups)) == 14 == len(set.union(*groups))
    assert [len(parts.train), len(parts.val), len(parts.test)] == sizes


@pytest.mark.parametrize("seed", range(5))
def test_each_part_has_a_group_however_large_the_groups_are(seed):
    group = Column(np.array([0.0] * 90 + [1.0] * 5 + [2.0] * 5), True)
    parts = divide(100, train_ratio=0.8, test_ratio=0.1, seed=seed, by="group", column=group)
    assert min(len(parts.train), len(parts.val), len(parts.test)) == 5


def test_other_groups_with_another_seed_and_the_same_with_the_same():
    group = Column(np.arange(100) // 5 * 1.0, True)
    one, same, other = (divide(100, train_ratio=0.5, seed=s, by="group", column=group).train for s in (1, 1, 2))
    assert (one == same).all() and set(one) != set(other)


def test_strata_have_their_share_in_each_part(linreg):
    kind = np.repeat(["a", "b", "c"], [600, 300, 100])
    parts = divide(1000, train_ratio=0.7, test_ratio=0.2, seed=1, by="stratify",
                   column=Column(np.unique(kind, return_inverse=True)[1] * 1.0, False))  # fmt: skip
    for rows, share in ((parts.train, 0.7), (parts.val, 0.1), (parts.test, 0.2)):
        counts = [int((kind[rows] == name).sum()) for name in "abc"]
        assert np.allclose(counts, [share * 600, share * 300, share * 100], atol=1)
    other = divide(1000, train_ratio=0.7, test_ratio=0.2, seed=2, by="stratify",
                   column=Column(np.unique(kind, return_inverse=True)[1] * 1.0, False))  # fmt: skip
    assert 0.6 < len(set(parts.train) & set(other.train)) / 700 < 0.8


def test_a_numeric_target_is_stratified_by_its_deciles(linreg):
    _, y = write_table(n_rows=500)
    split = {"train_ratio": 0.8, "by": {"stratify": "y"}}
    parts = divide(500, train_ratio=0.8, seed=13, by="stratify", column=Column(y, True))
    bins = np.searchsorted(np.quantile(y, np.arange(0.1, 1, 0.1)), y)
    assert (np.bincount(bins[parts.train]) == 40).all()
    assert parts_of(linreg, split) == expected(y, parts.train, parts.val)


@pytest.mark.parametrize("memory", ["resident", "mapped"])
def test_separate_files_are_the_validation_and_the_test_part(linreg, memory):
    ys = [write_table(n, path, seed)[1] for seed, (n, path) in enumerate([(40, "t.csv"), (10, "v.csv"), (15, "w.csv")])]
    for _ in range(2):  # converted, then from the cache
        answer = parts_of(linreg, {"val": "v.csv", "test": ["w.csv"]}, SOURCE, f"data.memory={memory}")
        y = np.concatenate(ys)
        assert answer == expected(y, slice(40), slice(40, 50), slice(50, 65))


def test_a_validation_file_leaves_a_test_ratio_to_the_source(linreg):
    ys = [write_table(n, path, seed)[1] for seed, (n, path) in enumerate([(40, "t.csv"), (10, "v.csv")])]
    answer = parts_of(linreg, {"val": "v.csv", "test_ratio": 0.25, "by": "order"})
    assert answer == expected(np.concatenate(ys), slice(30), slice(40, 50), slice(30, 40))


def test_a_run_with_a_split_resumes_from_its_own_spec(linreg):
    write_table()
    write_table(10, "v.csv")
    spec = write_spec(data__source=SOURCE, data__split={"val": "v.csv", "test_ratio": 0.2}, epochs=2)
    assert linreg("train", spec).code == 0
    answer = linreg("resume", "checkpoints/small_001/last.pth", "epochs=4")
    assert answer.code == 0 and "warning" not in answer.err
    assert load("checkpoints/small_001/last.pth")["spec"]["data"]["split"]["train_ratio"] == 0.8


@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("memory", ["resident", "mapped"])
@pytest.mark.parametrize("solver", ["gradient", "exact"])
def test_the_test_part_changes_nothing_in_training(linreg, solver, memory, standardize):
    x, y = np.random.default_rng(0).normal(size=(2, 60))
    kind = np.where(np.arange(60) < 30, "a", "b")

    def train(name, scale, last):
        rows = [f"{a},{b},{k},1" for a, b, k in zip(x[:48], y[:48], kind, strict=False)]
        rows += [f"{a * scale},{b * scale},{last},{scale}" for a, b in zip(x[48:], y[48:], strict=True)]
        Path("t.csv").write_text("x,y,k,w\n" + "\n".join(rows) + "\n")
        source = {**SOURCE, "features": ["x", "k"], "categorical": "k", "sample_weight": "w"}
        split = {"train_ratio": 0.6, "test_ratio": 0.2, "by": "order"}
        options = {} if solver == "gradient" else {"solver": "exact"}
        spec = write_spec(data__source=source, data__split=split, data__standardize=standardize, data__memory=memory,
                          **options)  # fmt: skip
        assert linreg("train", spec, "--name", name).code == 0
        return load(f"checkpoints/{name}_001/last.pth")

    one, other = train("one", 1.0, "b"), train("other", 1e3, "never_in_training")
    assert one["loss"] == other["loss"] and one["val_loss"] == other["val_loss"]
    for name, tensor in one["model_state_dict"].items():
        assert torch.equal(tensor, other["model_state_dict"][name])
    assert one["preprocessing"] == other["preprocessing"]
    answer = linreg("evaluate", "--part", "test")
    assert answer.code == 3 and "'never_in_training'" in answer.err


BAD = {
    "too much": ({"train_ratio": 0.9, "test_ratio": 0.2}, "train_ratio + test_ratio must be <= 1, got 1.1"),
    "two rules": ({"by": {"time": "x", "group": "x"}}, "must be one of {time: COLUMN}, {group: COLUMN}"),
    "no rule": ({"by": {}}, "must be one of {time: COLUMN}"),
    "unknown rule": ({"by": "tme"}, "must be 'random' or 'order' or a mapping, got 'tme'"),
    "rule without column": ({"by": "time"}, "by: time needs a column; write by: {time: COLUMN}"),
    "misspelt rule": ({"by": {"groups": "x"}}, "unknown key; did you mean 'group'?"),
    "unknown column": ({"by": {"group": "xx"}}, "data.split.by.group: t.csv has no column 'xx'; did you mean"),
    "rule without parts": (
        {"train_ratio": 1.0, "by": {"group": "x"}},
        "all rows of the source are for training; remove by",
    ),
    "val twice": ({"train_ratio": 0.8, "val": "v.csv"}, "val has the validation part already; remove train_ratio"),
    "test twice": ({"test_ratio": 0.1, "test": "v.csv"}, "test has the test part already; remove one"),
    "same file": ({"val": "t.csv"}, "data.split.val: t.csv is also in another part; remove it from one"),
    "same file twice": ({"val": "v.csv", "test": "v.csv"}, "data.split.test: v.csv is also in another part"),
    "other columns": ({"val": "o.csv"}, "data.split.val: o.csv has no column 'x'"),
}


@pytest.mark.parametrize("split, message", BAD.values(), ids=list(BAD))
def test_a_wrong_split_is_a_spec_error(linreg, split, message):
    write_table()
    write_table(10, "v.csv")
    Path("o.csv").write_text("z,y\n1,2\n")
    answer = linreg("train", write_spec(data__source=SOURCE, data__split=split))
    assert answer.code == 2 and message in answer.err
    assert not Path("runs").exists()


BAD_DATA = {
    "text as time": ({"by": {"time": "k"}}, "by.time: column 'k' has neither numbers nor ISO dates; set date_format"),
    "a gap": ({"by": {"group": "g"}}, "t.csv: row 3, column 'g': missing, and it divides the rows"),
    "one group": ({"by": {"group": "one"}}, "by.group: 1 group for 2 parts; use fewer parts"),
    "one time": ({"by": {"time": "one"}}, "by.time: 1 time for 2 parts; use fewer parts"),
    "no such file": ({"val": "none.csv"}, "data.split: none.csv: no such file"),
    "few points": ({"test_ratio": 0.01, "train_ratio": 0.5}, "leave 5 for training, 0 for test and 5 for validation"),
}


@pytest.mark.parametrize("split, message", BAD_DATA.values(), ids=list(BAD_DATA))
def test_a_split_that_the_data_does_not_allow_is_a_data_error(linreg, split, message):
    write_table(10, k=list("abcdefghij"), g=["1", "2", "", *"4567890"], one=[1] * 10)
    answer = linreg("train", write_spec(data__source=SOURCE, data__split=split))
    assert answer.code == 3 and message in answer.err


def test_files_of_parts_need_a_source_of_files(linreg):
    write_table()
    answer = linreg("train", write_spec(data__split={"val": "t.csv"}))
    assert answer.code == 2 and "data.split.val: source linear reads no files; remove val" in answer.err


def test_evaluate_refuses_a_part_that_is_not_there(linreg):
    assert linreg("train", write_spec(epochs=1)).code == 0
    answer = linreg("evaluate", "--part", "test")
    assert answer.code == 2
    assert "--part test: the split has no such part; train with data.split.test_ratio" in answer.err
    answer = linreg("evaluate", "--part", "val", "--data", "t.csv")
    assert answer.code == 2 and "--part val: --data measures a table as a whole; remove one" in answer.err


def test_generated_points_are_divided_by_their_columns(linreg):
    split = {"train_ratio": 0.5, "by": {"time": "x"}}
    assert linreg("train", write_spec(data__split=split, epochs=1)).code == 0
    random = np.random.RandomState(42)
    n_train = json.loads(linreg("check", write_spec(data__split=split), "--json").out)["n_train"]
    saved = load("checkpoints/small_001/last.pth")["preprocessing"]["features"][0]
    x = np.sort(random.rand(2 * n_train))
    assert math.isclose(saved["maximum"], x[n_train - 1], rel_tol=1e-6)


def test_a_time_that_drops_with_its_row_stays_in_line_with_the_rows(linreg):
    x, y = write_table(n_rows=20)
    lines = Path("t.csv").read_text().splitlines()
    times = np.random.default_rng(3).permutation(20)
    rows = [f"{line},{time}" for line, time in zip(lines[1:], times, strict=True)]
    rows[3] = "," + rows[3].partition(",")[2]
    Path("t.csv").write_text("\n".join([f"{lines[0]},t", *rows]) + "\n")
    source = {**SOURCE, "missing": "drop"}
    spec = write_spec(data__source=source, data__split={"train_ratio": 0.5, "by": {"time": "t"}}, solver="exact")
    assert linreg("train", spec).code == 0
    train = [row for row in np.argsort(times) if row != 3][:9]
    answer = json.loads(linreg("evaluate", "--part", "train", "--json").out)
    slope, intercept = np.polyfit(x[train], y[train], 1)
    mse = ((y[train] - slope * x[train] - intercept) ** 2).mean()
    assert answer["metrics"]["y"]["mse"] == pytest.approx(mse, rel=1e-10) and answer["n_samples"] == 9


def test_more_parts_than_rows_are_refused():
    with pytest.raises(DataError, match="2 points in the ratio 0.5 leave 1 for training, 0 for test"):
        divide(2, train_ratio=0.5, test_ratio=0.25, seed=1)


def test_each_part_has_a_time_even_if_another_change_is_nearer():
    times = Column(np.array([0.0] + [1.0] * 10 + [2.0]), True)
    parts = divide(12, train_ratio=0.8, test_ratio=0.1, seed=1, by="time", column=times)
    assert [list(rows) for rows in (parts.train, parts.val, parts.test)] == [[0], list(range(1, 11)), [11]]


@pytest.mark.parametrize("memory", ["resident", "mapped"])
def test_a_rule_divides_only_the_source_beside_a_validation_file(linreg, memory):
    times = np.random.default_rng(4).permutation(40)
    write_table(40, t=times)
    write_table(10, "v.csv", 1, t=range(-10, 0))
    split = {"val": "v.csv", "test_ratio": 0.25, "by": {"time": "t"}}
    spec = write_spec(data__source={**SOURCE, "features": ["t"]}, data__split=split, data__memory=memory, epochs=1,
                      data__standardize=True)  # fmt: skip
    assert linreg("train", spec).code == 0
    saved = load("checkpoints/small_001/last.pth")["preprocessing"]["features"][0]
    assert (saved["minimum"], saved["maximum"]) == (0, 29)
