"""Folds: against scikit-learn's, and from the command line."""

import json

import numpy as np
import pytest
from sklearn import model_selection as selection

from linreg.data.folds import divide_into_folds
from linreg.data.split import Column, divide
from linreg.errors import DataError
from tests.conftest import write_spec


def folds_of(n_rows, folds, **options):
    divided = divide_into_folds(n_rows, folds=folds, **{"seed": 13, "train_ratio": 0.7, **options})
    return [divided.parts(fold) for fold in range(divided.n_folds)]


@pytest.mark.parametrize("by", ["random", "group", "stratify"])
def test_each_row_is_validated_once_and_test_rows_never(by):
    column = None if by == "random" else Column(np.random.default_rng(0).integers(0, 12, 103).astype(float), True)
    found = folds_of(103, 5, by=by, column=column, test_ratio=0.2)
    validated = np.concatenate([parts.val for parts in found])
    assert len(set(validated)) == len(validated)
    for parts in found:
        assert sorted(np.concatenate([parts.train, parts.val, parts.test])) == list(range(103))
        assert np.array_equal(parts.test, found[0].test)
        assert set(validated) == set(parts.train) | set(parts.val)
    ordinary = divide(103, train_ratio=0.7, test_ratio=0.2, seed=13, by=by, column=column)
    assert np.array_equal(found[0].test, ordinary.test)


def test_random_folds_have_the_sizes_of_kfold_and_the_order_of_random_split():
    found = folds_of(103, 5)
    expected = [len(val) for _, val in selection.KFold(5).split(np.zeros(103))]
    assert [len(parts.val) for parts in found] == expected
    order = divide(103, train_ratio=1.0, seed=13).train
    assert np.array_equal(np.concatenate([parts.val for parts in found]), order)
    assert np.array_equal(found[1].train, np.concatenate([order[:21], order[42:]]))


@pytest.mark.parametrize(("n_rows", "folds"), [(12, 3), (50, 5), (53, 7)])
def test_folds_by_time_are_those_of_timeseriessplit(n_rows, folds):
    time = np.random.default_rng(1).permutation(n_rows).astype(float)
    order = np.argsort(time)
    expected = list(selection.TimeSeriesSplit(folds).split(order))
    for options in ({"by": "time", "column": Column(time, True)}, {"by": "order"}):
        for parts, (train, val) in zip(folds_of(n_rows, folds, **options), expected, strict=True):
            rows = order if options["by"] == "time" else np.arange(n_rows)
            assert np.array_equal(parts.train, np.sort(rows[train]))
            assert np.array_equal(parts.val, np.sort(rows[val]))


def test_rows_with_equal_times_are_in_one_fold():
    time = np.repeat(np.arange(10.0), 4)
    for parts in folds_of(40, 4, by="time", column=Column(time, True)):
        assert time[parts.train].max() < time[parts.val].min()


def test_groups_are_whole_and_as_balanced_as_those_of_groupkfold():
    groups = np.repeat(np.arange(20.0), np.random.default_rng(2).permutation(20) + 1)
    found = folds_of(len(groups), 4, by="group", column=Column(groups, True))
    expected = [len(val) for _, val in selection.GroupKFold(4).split(groups, groups=groups)]
    assert sorted(len(parts.val) for parts in found) == sorted(expected)
    for parts in found:
        assert not set(groups[parts.train]) & set(groups[parts.val])


def test_strata_have_the_same_share_in_each_fold():
    strata = np.random.default_rng(3).permutation(np.repeat([0.0, 1.0, 2.0], [60, 30, 10]))
    for parts in folds_of(100, 5, by="stratify", column=Column(strata, True)):
        assert [int((strata[parts.val] == value).sum()) for value in (0, 1, 2)] == [12, 6, 2]


def test_too_many_folds_are_refused():
    with pytest.raises(DataError, match=r"data\.split: 4 points for 5 folds; use fewer folds"):
        divide_into_folds(4, folds=5, seed=13, train_ratio=1.0)
    with pytest.raises(DataError, match="3 groups for 4 folds"):
        divide_into_folds(
            9, folds=4, seed=13, train_ratio=1.0, by="group", column=Column(np.repeat([0.0, 1, 2], 3), True)
        )
    with pytest.raises(DataError, match="3 times for 4 parts"):
        divide_into_folds(
            9, folds=3, seed=13, train_ratio=1.0, by="time", column=Column(np.repeat([0.0, 1, 2], 3), True)
        )


def test_a_fold_is_an_ordinary_spec(linreg):
    spec = write_spec(data__split={"folds": 4, "fold": 1, "test_ratio": 0.1})
    answer = linreg("check", spec, "--json")
    checked = json.loads(answer.out)
    assert (checked["n_samples"], checked["n_train"], checked["n_val"], checked["n_test"]) == (50, 34, 11, 5)
    assert linreg("train", spec).code == 0
    assert linreg("evaluate", "--part", "val").code == 0


@pytest.fixture
def table(tmp_path):
    random = np.random.default_rng(0)
    x = random.normal(size=(53, 2))
    y = x @ [1.0, -2.0] + 3 + random.normal(size=53)
    lines = [
        f"{a!r},{b!r},{t},{c!r}" for (a, b), t, c in zip(x.tolist(), random.permutation(53), y.tolist(), strict=True)
    ]
    (tmp_path / "t.csv").write_text("\n".join(["a,b,t,y", *lines]))
    return np.loadtxt(tmp_path / "t.csv", delimiter=",", skiprows=1)


@pytest.mark.parametrize("memory", ["resident", "mapped"])
@pytest.mark.parametrize("by", ["order", {"time": "t"}])
@pytest.mark.parametrize("test_ratio", [0.0, 0.1])
def test_expanding_folds_are_those_of_a_loop_by_hand(linreg, table, by, test_ratio, memory):
    order = np.arange(53) if by == "order" else np.argsort(table[:, 2])
    used = table[order[: 53 - int(53 * test_ratio)]]
    expected = []
    for train, val in selection.TimeSeriesSplit(4).split(used):
        design = [np.c_[np.ones(len(rows)), used[rows, :2]] for rows in (train, val)]
        solution = np.linalg.lstsq(design[0], used[train, 3])[0]
        expected.append(
            [((used[rows, 3] - x @ solution) ** 2).mean() for rows, x in zip((train, val), design, strict=True)]
        )
    source = {"name": "csv", "path": "t.csv", "target": "y", "features": ["a", "b"]}
    split = {"by": by, "test_ratio": test_ratio}
    plain = {"data__source": source, "data__split": split, "data__memory": memory, "model": {"name": "linear"}}
    answer = linreg("cv", write_spec(**plain, solver="exact"), "--folds", "4", "--json")
    found = [[fold["loss"], fold["val_loss"]] for fold in json.loads(answer.out)["folds"]]
    assert found == [pytest.approx(losses, rel=1e-12) for losses in expected]
    split |= {"folds": 4, "fold": 1}
    assert linreg("train", write_spec(**plain, epochs=3)).code == 0
    if test_ratio:
        answer = linreg("evaluate", "--part", "test", "--json")
        assert json.loads(answer.out)["n_samples"] == int(53 * test_ratio)


@pytest.mark.parametrize(
    ("split", "problem"),
    [
        ({"folds": 3}, "folds needs fold, from 0 to 2; to train on each, use linreg cv"),
        ({"fold": 3}, "fold needs folds; add for instance folds: 5"),
        ({"folds": 3, "fold": 3}, "fold must be < folds (3), got 3"),
        ({"folds": 1, "fold": 0}, "must be >= 2, got 1"),
        ({"folds": 3, "fold": 0, "val": "v.csv"}, "folds: val has the validation part already; remove one"),
    ],
)
def test_wrong_folds_are_refused(linreg, split, problem):
    answer = linreg("check", write_spec(data__split=split))
    assert answer.code == 2
    assert problem in answer.err
