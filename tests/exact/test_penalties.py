"""`penalty`: from the command line, against scikit-learn's searches over pipelines on the same folds."""

import csv
import json

import numpy as np
import pytest
from sklearn import linear_model, model_selection
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from linreg.checkpoint import load
from linreg.data.folds import divide_rows
from linreg.data.split import Column, divide
from tests.conftest import write_spec

STRENGTHS = {"ridge": [200.0, 20.0, 2.0, 0.2], "lasso": [1.0, 0.3, 0.1, 0.01], "elastic_net": [1.0, 0.3, 0.1, 0.01]}
COLUMNS = ["a", "b", "c", "d"]
N = 80


@pytest.fixture
def rows():
    """x (N, 4), y (N,), and a column of groups; also as t.csv."""
    random = np.random.default_rng(0)
    x = random.normal(3, 1, (N, 4)) * [1, 10, 0.1, 1] + random.normal(0, 1, (N, 1))
    y = x @ [1.0, 0.3, 0.0, 0.0] + random.normal(0, 3, N)
    group = random.integers(0, 12, N)
    lines = [
        ",".join(map(repr, [*row, target, g]))
        for row, target, g in zip(x.tolist(), y.tolist(), group.tolist(), strict=True)
    ]
    with open("t.csv", "w") as file:
        file.write("\n".join([",".join([*COLUMNS, "y", "g"]), *lines]))
    return x, y, group.astype(float)


def penalised(linreg, name, *overrides, **changes):
    """Train with a penalty; return the JSON of the result."""
    source = {"name": "csv", "path": "t.csv", "target": "y", "features": COLUMNS}
    spec = write_spec(solver="exact", penalty={"name": name}, data__source=source, **changes)
    answer = linreg("train", spec, *overrides, "--json", "-q")
    assert answer.code == 0, answer.err
    return json.loads(answer.out)


def coefficients_of(result):
    return [row["estimate"] for row in result["fit"]["coefficients"]]


def model_of(name, strength, l1_ratio=0.5):
    if name == "ridge":
        return linear_model.Ridge(alpha=strength, solver="svd")
    return linear_model.ElasticNet(
        alpha=strength, l1_ratio=1.0 if name == "lasso" else l1_ratio, tol=1e-15, max_iter=100_000
    )


def unscaled(pipeline):
    """Return the coefficients of a fitted pipeline of a scaler and a model, in the units of the columns."""
    scaler, model = pipeline[0], pipeline[-1]
    slopes = model.coef_ / scaler.scale_
    return [model.intercept_ - slopes @ scaler.mean_, *slopes]


@pytest.mark.parametrize("name", list(STRENGTHS))
def test_one_strength_has_the_coefficients_of_scikit_learn(linreg, rows, name):
    x, y, _ = rows
    train = divide(N, train_ratio=0.8, seed=13).train
    for strength in STRENGTHS[name]:
        found = penalised(linreg, name, f"penalty.strength={strength}")
        expected = make_pipeline(StandardScaler(), model_of(name, strength)).fit(x[train], y[train])
        np.testing.assert_allclose(coefficients_of(found), unscaled(expected), rtol=1e-8, atol=1e-9)
        assert found["loss"] == pytest.approx(((y - expected.predict(x)) ** 2)[train].mean(), rel=1e-9)
        assert found["fit"]["penalty"]["strength"] == strength


@pytest.mark.parametrize("by", ["random", "order", "group"])
@pytest.mark.parametrize("name", list(STRENGTHS))
def test_the_chosen_strength_is_that_of_a_grid_search_on_the_same_folds(linreg, rows, name, by):
    x, y, group = rows
    split = {"by": {"group": "g"} if by == "group" else by}
    column = Column(group, True) if by == "group" else None
    train = divide(N, train_ratio=0.8, seed=13, by=by, column=column).train
    folds = divide_rows(train, folds=4, seed=13, by=by, column=column, where="")
    pairs = [(folds.parts(number).train, folds.parts(number).val) for number in range(folds.n_folds)]
    search = model_selection.GridSearchCV(
        make_pipeline(StandardScaler(), model_of(name, 1.0)),
        {f"{type(model_of(name, 1.0)).__name__.lower()}__alpha": STRENGTHS[name]},
        cv=pairs, scoring="neg_mean_squared_error", refit=False,
    )  # fmt: skip
    search.fit(x, y)
    found = penalised(linreg, name, f"penalty.strength={STRENGTHS[name]}", "penalty.folds=4", data__split=split)
    with open(f"runs/{found['run']}/path.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    errors = [float(line["mean_squared_error"]) for line in lines]
    np.testing.assert_allclose(errors, -search.cv_results_["mean_test_score"], rtol=1e-8)
    assert found["fit"]["penalty"]["strength"] == STRENGTHS[name][int(np.argmin(errors))]
    expected = make_pipeline(StandardScaler(), model_of(name, found["fit"]["penalty"]["strength"]))
    np.testing.assert_allclose(coefficients_of(found), unscaled(expected.fit(x[train], y[train])), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", list(STRENGTHS))
def test_every_line_of_the_path_is_a_refit_with_its_strength(linreg, rows, name):
    found = penalised(linreg, name, "penalty.select=one_se", writer__plots=True)
    with open(f"runs/{found['run']}/path.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 100
    assert [line["strength"] for line in lines if line["chosen"] == "1"] == [str(found["fit"]["penalty"]["strength"])]
    for line in lines[::33]:
        again = penalised(linreg, name, f"penalty.strength={line['strength']}")
        expected = [float(line[key]) for key in ("intercept", *COLUMNS)]
        np.testing.assert_allclose(coefficients_of(again), expected, rtol=1e-10, atol=1e-12)
    with open(f"runs/{found['run']}/path.png", "rb") as file:
        assert file.read(4) == b"\x89PNG"


def test_the_same_penalty_on_raw_and_standardized_columns_is_the_same_model(linreg, rows):
    raw, scaled = (
        penalised(linreg, "lasso", "penalty.strength=0.2", data__standardize=value) for value in (False, "features")
    )
    np.testing.assert_allclose(coefficients_of(raw), coefficients_of(scaled), rtol=1e-9)


def test_ridge_of_a_penalty_is_that_of_the_key_on_standardized_columns(linreg, rows):
    new = penalised(linreg, "ridge", "penalty.strength=7", data__standardize=True)
    old = json.loads(linreg("train", write_spec(**{
        "solver": "exact", "ridge": 7.0, "data__standardize": True,
        "data__source": {"name": "csv", "path": "t.csv", "target": "y", "features": COLUMNS},
    }), "--json").out)  # fmt: skip
    np.testing.assert_allclose(coefficients_of(new), coefficients_of(old), rtol=1e-11)


def test_a_fold_of_a_cross_validation_chooses_its_own_strength(linreg, rows):
    spec = write_spec(
        solver="exact", penalty={"name": "ridge"},
        data__source={"name": "csv", "path": "t.csv", "target": "y", "features": COLUMNS},
    )  # fmt: skip
    folds = json.loads(linreg("cv", spec, "--folds", "3", "--json").out)["folds"]
    for number, fold in enumerate(folds):
        answer = linreg("train", spec, "data.split.folds=3", f"data.split.fold={number}", "--json")
        single = json.loads(answer.out)
        assert (single["loss"], single["val_loss"]) == (fold["loss"], fold["val_loss"])


def test_the_choice_is_told_in_a_line_and_kept_in_the_checkpoint(linreg, rows):
    result = penalised(linreg, "lasso", "penalty.strength=[0.5,0.1]")
    penalty = result["fit"]["penalty"]
    assert load(result["checkpoint"]).fit["penalty"] == penalty
    answer = linreg("train", "small.yaml", "penalty.strength=[0.5,0.1]")
    line = next(line for line in answer.err.split("\n") if line.startswith("lasso"))
    assert line == (
        f"lasso on the training part: R2 {result['fit']['r2']:.6g}; strength {penalty['strength']:.6g}, best of 2 on 5 folds "
        f"(mean squared error {penalty['error']:.6g}, standard error {penalty['standard_error']:.6g}); "
        f"{penalty['n_slopes']} of 4 slopes are not 0"
    )
    assert "std_error" not in answer.err


def test_a_constant_column_has_the_coefficient_0_and_is_reported(linreg, rows):
    with open("t.csv") as file:
        lines = file.read().split("\n")
    with open("t.csv", "w") as file:
        file.write("\n".join([f"k,{lines[0]}", *(f"0.1,{line}" for line in lines[1:])]))
    for name in STRENGTHS:
        answer = linreg("train", write_spec(
            solver="exact", penalty={"name": name, "strength": 0.01},
            data__source={"name": "csv", "path": "t.csv", "target": "y", "features": ["k", *COLUMNS]},
        ), "--json")  # fmt: skip
        assert "column 'k' is constant in the training part; its coefficient is set to 0" in answer.err
        assert coefficients_of(json.loads(answer.out))[1] == 0
    assert linreg("predict", "--inputs", "0.1", "1", "2", "3", "4").err.count("warning") == 0


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"penalty": {"name": "ridge"}}, "penalty needs solver: exact"),
        ({"penalty": {"name": "ridge"}, "ridge": 1.0, "solver": "exact"}, "ridge: penalty shrinks the coefficients already"),
        ({"penalty": {"name": "l2"}, "solver": "exact"}, "penalty.name: must be 'ridge', 'lasso' or 'elastic_net', got 'l2'"),
        ({"penalty": {"name": "lasso", "l1_ratio": 0.3}, "solver": "exact"}, "l1_ratio is for elastic_net, not lasso"),
        ({"penalty": {"name": "elastic_net", "l1_ratio": 1.0}, "solver": "exact"}, "penalty.l1_ratio: must be < 1"),
        ({"penalty": {"name": "lasso", "strength": [0.1, -1.0]}, "solver": "exact"}, "penalty.strength.1: must be >= 0, got -1.0"),
        ({"penalty": {"name": "lasso", "strength": []}, "solver": "exact"}, "penalty.strength: must be 'auto' or a number or must have at least 1 items"),
        ({"penalty": {"name": "lasso", "folds": 1}, "solver": "exact"}, "penalty.folds: must be >= 2, got 1"),
        ({"penalty": {"name": "lasso", "folds": 41}, "solver": "exact"}, "penalty.folds: 40 points for 41 folds; use fewer"),
    ],
)  # fmt: skip
def test_wrong_penalties_are_refused(linreg, changes, problem):
    answer = linreg("train", write_spec(**changes))
    assert answer.code == (3 if "points" in problem else 2)
    assert problem in answer.err
