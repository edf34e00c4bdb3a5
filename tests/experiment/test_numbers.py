"""A number that linreg shows is right to the digits shown, or a warning names the column that makes it doubtful."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import write_spec

RANDOM = np.random.default_rng(5)


def write_table(path="t.csv", **columns):
    rows = zip(*columns.values(), strict=True)
    Path(path).write_text("\n".join([",".join(columns), *(",".join(map(str, row)) for row in rows)]) + "\n")


def spec(exact=True, source=None, **changes):
    table = {"name": "csv", "path": "t.csv", "target": "y", **(source or {})}
    solver = {"solver": "exact"} if exact else {}
    return write_spec(**{"data__source": table, "data__split": {"train_ratio": 1.0}, **solver, **changes})


def inspected(linreg):
    return json.loads(linreg("inspect", "--json").out)


def measured(linreg, *arguments):
    return json.loads(linreg("evaluate", "--json", *arguments).out)["metrics"]["y"]


def least_squares(x, y):
    """Solve with centred columns, which loses no digits: mean squared error and R2."""
    x, y = x - x.mean(axis=0), y - y.mean()
    residual = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
    return (residual**2).mean(), 1 - (residual**2).sum() / (y**2).sum()


LARGE = {
    "unix seconds": (1.7e9 + 60.0 * np.arange(200), lambda x: 800 + 1e-4 * (x - 1.7e9)),
    "near 2^32": (2.0**32 + np.arange(200.0), lambda x: 0.5 * (x - 2.0**32)),
    "years cubed": (np.arange(1900.0, 2100) ** 3, lambda x: 1e-9 * x),
    "targets of 1e8": (np.arange(200.0), lambda x: 1e8 + 0.01 * x),
}


@pytest.mark.parametrize("name", LARGE)
def test_an_exact_fit_of_large_numbers_is_what_predict_evaluate_and_inspect_show(linreg, name):
    x, line = LARGE[name]
    y = line(x) + RANDOM.normal(0, 1, len(x))
    write_table(x=x.tolist(), y=y.tolist())
    reported = json.loads(linreg("train", spec(), "--json", "-q").out)
    mse, r2 = least_squares(x[:, None], y)
    assert reported["loss"] == pytest.approx(mse, rel=1e-10)
    assert inspected(linreg)["loss"] == reported["loss"]
    found = measured(linreg, "--data", "t.csv")
    assert found["mse"] == pytest.approx(reported["loss"], rel=1e-10)
    assert found["r2"] == pytest.approx(r2, abs=1e-10)
    predicted = np.array(linreg("predict", "--input", "t.csv").out.split()[1:], dtype=float)
    rounding = np.abs(y).max() * np.finfo(float).eps / 2  # of a printed prediction
    assert ((predicted - y) ** 2).mean() == pytest.approx(mse, rel=1e-10, abs=2 * rounding * np.sqrt(mse))


def test_a_polynomial_of_years_is_measured_as_it_is_stored(linreg):
    x = np.arange(1990.0, 2030)
    write_table(x=x.tolist(), y=(np.sin(x) + 5).tolist())
    reported = json.loads(linreg("train", spec(model={"name": "polynomial", "degree": 3}), "--json", "-q").out)
    assert measured(linreg, "--data", "t.csv")["mse"] == pytest.approx(reported["loss"], rel=1e-10)


def test_float32_is_warned_of_where_the_stored_model_differs(linreg):
    x = np.arange(200.0)
    write_table(x=x.tolist(), y=(3 * x + RANDOM.normal(0, 1e-5, 200)).tolist())
    assert linreg("train", spec(), "-q").err == ""
    answer = linreg("train", spec(dtype="float32"), "-q")
    assert "the stored model has the loss" in answer.err
    assert measured(linreg, "--data", "t.csv")["mse"] == pytest.approx(inspected(linreg)["loss"], rel=1e-10)


@pytest.mark.parametrize("memory", ["resident", "mapped"])
def test_a_column_that_loses_its_variation_is_named_before_training(linreg, memory):
    x = 1.7e9 + 60 * np.arange(200)
    write_table(t=x.tolist(), a=RANDOM.normal(size=200).tolist(), y=(1e8 + RANDOM.normal(size=200)).tolist())
    err = linreg("check", spec(exact=False, data__memory=memory, optimizer={"name": "sgd", "lr": 1e-25}), "-q").err
    error = np.sqrt(((x.astype(np.float32) - x) ** 2).sum() / ((x - x.mean()) ** 2).sum())
    assert error > 1e-3
    assert f"column 't' varies too little for float32: rounding changes its variation by {100 * error:.2g} %" in err
    assert "column 'y' varies too little" in err
    assert "'a'" not in err
    standardized = spec(exact=False, data__memory=memory, data__standardize=True)
    assert "varies too little" not in linreg("check", standardized, "-q").err
    assert "varies too little" not in linreg("check", standardized, "-q", "dtype=float64", "data.standardize=false", "optimizer.lr=1e-25").err  # fmt: skip


@pytest.mark.parametrize("memory", ["resident", "mapped"])
@pytest.mark.parametrize("standardize", [False, "target"])
def test_a_number_that_does_not_fit_is_an_error_with_row_and_column(linreg, memory, standardize):
    write_table(a=[1, 2, 1e39, 4], b=[1, 2, 3, 5], y=[1, 2, 3, 4])
    answer = linreg("check", spec(exact=False, data__memory=memory, data__standardize=standardize))
    assert answer.code == 3
    assert "t.csv: row 3, column 'a': 1e+39 does not fit float32; fix it, or set dtype: float64" in answer.err


def test_a_prediction_that_is_not_finite_is_an_error_with_its_row(linreg):
    write_table(a=[1, 2, 3, 4], y=[1, 3, 2, 4])
    assert linreg("train", spec(exact=False), "-q").code == 0
    write_table("big.csv", a=[1, 1e300], y=[1, 2])
    for arguments in (("predict", "--input", "big.csv"), ("evaluate", "--data", "big.csv")):
        answer = linreg(*arguments)
        assert (answer.code, "big.csv: row 2: its prediction is not finite" in answer.err) == (3, True)


@pytest.mark.parametrize("value", [14.62, 0.1, 1e9 + 0.3])
@pytest.mark.parametrize("exact", [True, False])
def test_a_column_constant_in_the_training_part_contributes_nothing(linreg, value, exact):
    a = RANDOM.normal(size=100)
    write_table(a=a.tolist(), k=[value] * 100, y=(2 * a + 1).tolist())
    changes = {} if exact else {"optimizer": {"name": "adam", "lr": 0.1}}
    answer = linreg("train", spec(exact, data__standardize=True, **changes), "-q")
    assert "column 'k' is constant in the training part; " in answer.err
    near, far = (linreg("predict", "--inputs", f"a=1,k={k}").out for k in (value, 2 * value + 1))
    assert near == far
    assert {row["name"]: row["estimate"] for row in inspected(linreg)["coefficients"]}["k"] == 0.0


def test_the_r2_of_a_constant_target_is_undefined_in_every_command(linreg):
    write_table(a=RANDOM.normal(size=50).tolist(), y=[0.1] * 50)
    for changes in ({}, {"data__standardize": True}):
        assert "R2 -" in linreg("train", spec(**changes)).err
        assert inspected(linreg)["r2"] is None
        assert measured(linreg)["r2"] is None


def test_rows_of_weight_0_are_no_observations(linreg):
    a, y = RANDOM.normal(size=40), RANDOM.normal(size=40)
    write_table(a=a.tolist(), y=y.tolist(), w=[1] * 25 + [0] * 15)
    assert linreg("train", spec(source={"sample_weight": "w"}), "-q").code == 0
    weighted = inspected(linreg)
    write_table(a=a[:25].tolist(), y=y[:25].tolist())
    assert linreg("train", spec(), "-q").code == 0
    alone = inspected(linreg)
    assert weighted["degrees_of_freedom"] == alone["degrees_of_freedom"] == 23
    for ours, theirs in zip(weighted["coefficients"], alone["coefficients"], strict=True):
        assert ours["std_error"] == pytest.approx(theirs["std_error"], rel=1e-10)


def test_a_table_without_the_weights_is_measured_without_and_says_so(linreg):
    a, y = RANDOM.normal(size=40), RANDOM.normal(size=40)
    write_table(a=a.tolist(), y=y.tolist(), w=(1 + np.arange(40)).tolist())
    assert linreg("train", spec(source={"sample_weight": "w"}), "-q").code == 0
    write_table("plain.csv", a=a.tolist(), y=y.tolist())
    answer = linreg("evaluate", "--data", "plain.csv", "--json")
    assert "plain.csv: has no column 'w'; its rows are measured without weights" in answer.err
    write_table("ones.csv", a=a.tolist(), y=y.tolist(), w=[1] * 40)
    assert json.loads(answer.out)["metrics"]["y"] == measured(linreg, "--data", "ones.csv")


@pytest.mark.parametrize("exact", [True, False])
def test_a_row_that_leaves_the_relation_of_dependent_columns_is_warned_of(linreg, exact):
    a = RANDOM.normal(size=50)
    write_table(a=a.tolist(), b=(2 * a + 1).tolist(), y=a.tolist())
    assert linreg("train", spec(exact), "-q").code == 0
    write_table("p.csv", a=[0.1, 0.2, 0.3], b=[1.2, 1.4, -1.0])
    err = linreg("predict", "--input", "p.csv").err
    assert (
        "b: in the training part it is a linear combination of 'a', but not in 1 of 3 rows, the first is row 3" in err
    )
    write_table("p.csv", a=[0.1, 0.2], b=[1.2, 1.4])
    assert "linear combination" not in linreg("predict", "--input", "p.csv").err


def test_unseen_categories_that_count_as_zeros_are_warned_of_once_with_their_counts(linreg):
    write_table(k=["u", "v"] * 20, y=RANDOM.normal(size=40).tolist())
    assert linreg("train", spec(source={"categorical": "k", "unseen": "zeros"}), "-q").code == 0
    write_table("p.csv", k=["u", "x", "x", "z"], y=[1, 2, 3, 4])
    for arguments in (("predict", "--input", "p.csv"), ("evaluate", "--data", "p.csv")):
        lines = [line for line in linreg(*arguments).err.splitlines() if line.startswith("warning: k: ")]
        assert lines == ["warning: k: 3 of 4 rows have a category that is not in the training part, and count as none of its categories: 'x' (2), 'z' (1)"]  # fmt: skip


@pytest.mark.parametrize("exact", [True, False])
def test_without_an_intercept_r2_is_around_the_mean_and_the_uncentred_one_has_its_own_name(linreg, exact):
    a = RANDOM.normal(5, 1, 60)
    y = 2 * a + 3 + RANDOM.normal(size=60)
    write_table(a=a.tolist(), y=y.tolist())
    optimizer = {"name": "sgd", "lr": 0.01}
    assert linreg("train", spec(exact, model={"name": "linear", "bias": False}, optimizer=optimizer, epochs=400), "-q").code == 0  # fmt: skip
    residual = ((y - a * (a @ y) / (a @ a)) ** 2).sum()
    expected = [1 - residual / ((y - y.mean()) ** 2).sum(), 1 - residual / (y**2).sum()]
    found = inspected(linreg)
    assert [found["r2"], found["r2_uncentred"]] == pytest.approx(expected, rel=1e-6)
    if exact:
        found = measured(linreg)
        assert [found["r2"], found["r2_uncentred"]] == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("exact", [True, False])
def test_without_an_intercept_zero_in_gives_zero_out_also_standardized(linreg, exact):
    a = RANDOM.normal(5, 1, 60)
    write_table(a=a.tolist(), y=(2 * a + 3).tolist())
    model = {"name": "linear", "bias": False}
    assert linreg("train", spec(exact, model=model, data__standardize=True), "-q").code == 0
    assert float(linreg("predict", "--inputs", "0").out) == 0.0


@pytest.mark.parametrize("exact", [True, False])
def test_a_perfect_fit_is_said_in_words(linreg, exact):
    a = np.arange(40.0)
    write_table(a=a.tolist(), y=(3 * a - 2).tolist())
    changes = {} if exact else {"optimizer": {"name": "adam", "lr": 0.1}, "data__standardize": True}
    err = linreg("train", spec(exact, **changes)).err
    assert "perfect fit: residuals are zero up to rounding; standard errors are not meaningful\n" in err
    assert [row["t"] for row in inspected(linreg)["coefficients"]] == [None, None]
    assert "%" not in err


def test_a_line_with_noise_is_no_perfect_fit(linreg):
    a = np.arange(40.0)
    write_table(a=a.tolist(), y=(1e6 + a + RANDOM.normal(0, 1e-3, 40)).tolist())
    assert "perfect fit" not in linreg("train", spec()).err
    assert "perfect fit" not in linreg("train", spec(False, data__standardize=True)).err


def test_cosine_beyond_t_max_is_warned_of(linreg):
    cosine = {"name": "cosine", "t_max": 6}
    assert "rises again" not in linreg("train", write_spec(scheduler=cosine), "-q").err
    assert (
        "after t_max (6 epochs) the learning rate rises again" in linreg("resume", "small_001", "--epochs", 9, "-q").err
    )


def test_the_best_epoch_is_used_where_early_stopping_is_set_and_resume_goes_on_from_the_last(linreg):
    overfits = {"early_stopping": {"patience": 3}, "epochs": 60, "optimizer": {"name": "sgd", "lr": 0.99}}
    source = {"name": "sine", "n_samples": 40}
    path = write_spec(data__source=source, model={"name": "mlp", "hidden": [30]}, **overfits)
    result = json.loads(linreg("train", path, "-q", "--json").out)
    assert result["best_epoch"] < result["epochs"] - 1
    assert Path("checkpoints/latest").read_text() == "checkpoints/small_001/best.pth\n"
    best = json.loads(linreg("evaluate", "checkpoints/small_001/best.pth", "--json").out)
    for arguments in ((), ("small_001",)):
        answer = linreg("evaluate", *arguments, "--json")
        assert answer.err == "using checkpoints/small_001/best.pth, the best epoch of a run with early_stopping\n"
        assert json.loads(answer.out) == best
    last = json.loads(linreg("evaluate", "checkpoints/small_001/last.pth", "--json").out)
    assert last["metrics"] != best["metrics"]
    resumed = json.loads(linreg("resume", "small_001", "-q", "--json", "early_stopping=null", "epochs=65").out)
    assert resumed["epochs"] == 65
    assert Path("checkpoints/latest").read_text() == "checkpoints/small_001/last.pth\n"


@pytest.mark.parametrize("missing", ["error", "drop"])
def test_a_row_with_a_gap_is_predicted_empty_on_request(linreg, missing):
    write_table(a=[1, 2, 3, 4], y=[2, 4, 6.5, 8])
    assert linreg("train", spec(source={"missing": missing}), "-q").code == 0
    Path("p.csv").write_text('a\n1\n""\n3\n')
    refused = linreg("predict", "--input", "p.csv", "--on-gap", "error")
    assert "p.csv: row 2, column 'a': missing; add the value, or use --on-gap empty" in refused.err
    empty = linreg("predict", "--input", "p.csv", "--on-gap", "empty")
    first, gap, third = empty.out.splitlines()[1:]
    assert (float(first), gap, float(third)) == (pytest.approx(2.0, abs=0.2), "", pytest.approx(6.2, abs=0.2))
    assert "1 of 3 rows have a gap; their predictions are empty" in empty.err
    by_default = linreg("predict", "--input", "p.csv")
    assert (by_default.code, by_default.out) == ((0, empty.out) if missing == "drop" else (3, ""))


def test_a_model_without_features_is_the_mean(linreg):
    write_table(a=[1, 2, 3], y=[2, 4, 9])
    assert linreg("train", spec(source={"features": []}), "-q").err == ""
    (row,) = inspected(linreg)["coefficients"]
    assert (row["name"], row["estimate"], row["std_error"]) == (
        "intercept",
        5.0,
        pytest.approx(np.sqrt(13 / 3), rel=1e-12),
    )
    assert linreg("predict", "--input", "t.csv").out == "y_predicted\n5\n5\n5\n"
    assert linreg("train", write_spec(**{**small_changes(), "epochs": 2}), "-q").code == 0


def small_changes():
    return {
        "data__source": {"name": "csv", "path": "t.csv", "target": "y", "features": []},
        "data__split": {"train_ratio": 1.0},
    }


def test_inputs_are_read_as_the_cells_of_a_table(linreg):
    write_table(
        k=["1.0", "2", "1", "2.0"], when=["2024-05-01", "2024-05-02", "2024-05-04", "2024-05-03"], y=[1, 2, 3, 5]
    )
    assert linreg("train", spec(source={"categorical": "k", "dates": "when"}), "-q").code == 0
    table = linreg("predict", "--input", "t.csv").out.split()[1:]
    rows = ["k=1,when=2024-05-01", "k=2.0,when=2024-05-02", "k=1.0,when=2024-05-04", "k=2,when=2024-05-03"]
    assert linreg("predict", "--inputs", *rows).out.split() == table


def test_truth_values_are_one_category_in_every_form(linreg):
    write_table(k=["True", "False"] * 5, y=[1, 3] * 5)
    assert linreg("train", spec(source={"categorical": "k"}), "-q").code == 0
    Path("p.jsonl").write_text('{"k": true}\n{"k": false}\n')
    write_table("p.csv", k=["1", "0", "TRUE"])
    assert (
        linreg("predict", "--input", "p.jsonl").out.split()[1:]
        == linreg("predict", "--input", "p.csv").out.split()[1:3]
    )
