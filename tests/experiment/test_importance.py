"""The permutation importance of `evaluate` against scikit-learn and arithmetic."""

import json
import re

import numpy as np
import pytest
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.inspection import permutation_importance as reference
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score, root_mean_squared_error

from linreg.checkpoint import load
from linreg.cli import progress
from linreg.experiment import importance
from linreg.experiment.importance import permutation_importance
from linreg.experiment.loaded import LoadedModel
from linreg.experiment.selection import select
from tests.conftest import write_spec
from tests.exact.test_exact import COLUMNS, DESIGN, N, exact_spec, write_table

SCORES = {"mse": mean_squared_error, "rmse": root_mean_squared_error, "mae": mean_absolute_error, "r2": r2_score}


@pytest.fixture
def table():
    write_table()


def train(linreg, *arguments):
    answer = linreg("train", *arguments, "-q")
    assert answer.code == 0, answer.err


def importance_of(linreg, *options, repeats=3):
    answer = linreg("evaluate", "--json", "--importance", repeats, *options)
    assert answer.code == 0, answer.err
    return json.loads(answer.out)["importance"]


def by_name(found):
    return {column["name"]: column for column in found["columns"]}


@pytest.mark.parametrize("metric", SCORES)
def test_the_importance_is_the_change_of_the_metric_after_the_same_permutations(linreg, table, metric):
    train(linreg, exact_spec())
    found = importance_of(linreg, "--metric", metric)
    coefficients = np.linalg.lstsq(DESIGN, COLUMNS["y"], rcond=None)[0]
    score = SCORES[metric]
    value = score(COLUMNS["y"], DESIGN @ coefficients)
    assert found["value"] == pytest.approx(value, rel=1e-9)
    model = LoadedModel("checkpoints/small_001/last.pth", device="cpu")
    rows = importance._Rows(model, select(model), metric)
    order = [int(np.flatnonzero(COLUMNS["a"] == a)[0]) for a in rows.x[:, 0]]  # in which the rows are kept
    for position, name in ((1, "a"), (2, "b")):
        values = []
        for repeat in range(3):
            design = DESIGN[order]
            design[:, position] = design[np.random.default_rng([0, repeat]).permutation(N), position]
            change = score(COLUMNS["y"][order], design @ coefficients) - value
            values.append(-change if metric == "r2" else change)
        column = by_name(found)[name]
        np.testing.assert_allclose(column["values"], values, rtol=1e-7)
        assert column["mean"] == pytest.approx(np.mean(values), rel=1e-7)
        assert column["std"] == pytest.approx(np.std(values, ddof=1), rel=1e-7)


def test_it_agrees_with_scikit_learn_on_a_network_with_categories(linreg):
    write_table(k=COLUMNS["k"])
    spec = exact_spec(
        solver="gradient", dtype="float32", epochs=30, model={"name": "mlp", "hidden": [8]}, data__standardize=True,
        source={"features": ["a", "b", "k"], "categorical": "k"},
    )  # fmt: skip
    train(linreg, spec)
    found = by_name(importance_of(linreg, "--metric", "mse", repeats=200))
    model = LoadedModel("checkpoints/small_001/last.pth", device="cpu")
    codes = [model.features[2].categories.index(text) for text in COLUMNS["k"]]
    x = np.column_stack([COLUMNS["a"], COLUMNS["b"], codes])

    class Wrapped(RegressorMixin, BaseEstimator):
        def fit(self, x, y):
            return self

        def predict(self, x):
            return model(x)[:, 0]

    expected = reference(Wrapped(), x, COLUMNS["y"], scoring="neg_mean_squared_error", n_repeats=200, random_state=0)
    for name, mean, std in zip("abk", expected.importances_mean, expected.importances_std, strict=True):
        assert abs(found[name]["mean"] - mean) < 4 * std * np.sqrt(2 / 200)  # two means of 200 permutations
        assert found[name]["std"] == pytest.approx(std, rel=0.3)


def test_in_expectation_it_is_twice_the_explained_variance_of_a_column(linreg):
    random = np.random.default_rng(1)
    a, b = random.normal(size=(2, N)).round(3)
    write_table(a=a, b=b, y=2 * a - 3 * b)
    train(linreg, exact_spec())
    found = by_name(importance_of(linreg, "--metric", "mse", repeats=500))
    for name, slope, x in (("a", 2, a), ("b", 3, b)):  # (slope (x' - x))^2, with x' each value as often
        assert found[name]["mean"] == pytest.approx(2 * slope**2 * x.var(), rel=0.03)


def test_a_constant_or_unused_column_has_0_and_the_most_important_is_first(linreg):
    write_table(c=np.full(N, 7.0))
    train(linreg, exact_spec(source={"features": ["b", "c", "a"]}))
    found = importance_of(linreg)
    assert [column["name"] for column in found["columns"]] == ["a", "b", "c"]
    assert by_name(found)["c"]["values"] == [0.0] * 3


def test_a_column_is_permuted_with_all_that_derives_from_it(linreg):
    """A spline, a square and an interaction: permuted apart, columns of one feature would not fit together."""
    write_table()
    transforms = [{"name": "interaction", "columns": ["a", "b"]}, {"name": "spline", "columns": "a"}]
    train(linreg, exact_spec(data__transforms=transforms))
    found = importance_of(linreg, "--metric", "mse", repeats=1)
    assert {column["name"] for column in found["columns"]} == {"a", "b"}
    model = LoadedModel("checkpoints/small_001/last.pth", device="cpu")
    rows = importance._Rows(model, select(model), "mse")
    x = rows.x.copy()
    x[:, 0] = x[np.random.default_rng([0, 0]).permutation(N), 0]
    change = np.mean((rows.y - model(x)) ** 2) - np.mean((rows.y - model(rows.x)) ** 2)
    assert by_name(found)["a"]["values"] == [pytest.approx(change, rel=1e-9)]


def test_gaps_are_shuffled_like_values(linreg):
    a = [("" if row % 3 == 0 else value) for row, value in enumerate(COLUMNS["a"])]
    write_table(a=a)
    train(linreg, exact_spec(source={"missing": "median"}))
    assert by_name(importance_of(linreg))["a"]["mean"] > 0


def test_the_numbers_are_the_same_each_time_and_those_of_one_repeat_have_no_spread(linreg, table):
    train(linreg, exact_spec(data__split={"train_ratio": 0.5}))
    assert importance_of(linreg) == importance_of(linreg)
    found = importance_of(linreg, repeats=1)
    assert (found["rows"], found["is_training"], found["metric"]) == ("validation part", False, "rmse")
    assert {column["std"] for column in found["columns"]} == {None}
    assert importance_of(linreg, "--data", "t.csv")["rows"] == "t.csv"


def test_the_metric_is_that_of_the_loss(linreg):
    write_spec(loss={"name": "mae"})
    train(linreg, "small.yaml")
    assert importance_of(linreg)["metric"] == "mae"
    answer = linreg("evaluate", "--metric", "mse")
    message = "error: --metric mse: is that of --importance; add for instance --importance 10\n"
    assert (answer.code, answer.err) == (2, message)


def test_weights_count(linreg, table):
    train(linreg, exact_spec(source={"sample_weight": "w"}))
    found = importance_of(linreg, "--metric", "mse")
    weight = COLUMNS["w"]
    beta = np.linalg.solve((DESIGN.T * weight) @ DESIGN, (DESIGN.T * weight) @ COLUMNS["y"])
    expected = np.average((COLUMNS["y"] - DESIGN @ beta) ** 2, weights=weight)
    assert found["value"] == pytest.approx(expected, rel=1e-9)


def test_of_many_rows_a_sample_is_used_and_the_text_says_so(linreg, table, monkeypatch):
    monkeypatch.setattr(importance, "MOST_ROWS", 30)
    train(linreg, exact_spec())
    found = importance_of(linreg)
    assert (found["n_rows"], found["n_selected"]) == (30, N)
    out = linreg("evaluate", "--importance", 3).out
    text = re.sub(r"\s+", " ", out)
    assert f"3 repeats, on the training part, 30 rows of {N}, chosen at random; rmse is" in text
    assert "note: the model was fitted to these rows" in text
    assert max(map(len, out.splitlines())) < 80


def test_the_table_is_read_once(linreg, table, monkeypatch):
    train(linreg, exact_spec())
    model = LoadedModel("checkpoints/small_001/last.pth", device="cpu")
    selection, reads = select(model), []
    blocks = type(selection).blocks
    monkeypatch.setattr(type(selection), "blocks", lambda self: reads.append(1) or blocks(self))
    permutation_importance(model, selection, repeats=5)
    assert reads == [1]


def test_progress_counts_the_columns(linreg, table, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    train(linreg, exact_spec())
    n_columns = len(load("checkpoints/small_001/last.pth").feature_names)
    lines = linreg("evaluate", "--importance", 1).err.splitlines()
    counted = [line.strip() for line in lines if line.startswith("column ")]
    assert counted == [f"column {n_done}/{n_columns}" for n_done in range(1, n_columns + 1)]
    assert "column" not in linreg("evaluate").err
