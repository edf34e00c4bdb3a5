"""The closed form against numpy's, the preprocessing against arithmetic, and both in a checkpoint like any other."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import csv, parquet
from scipy import stats

from linreg.checkpoint import load
from linreg.data.preprocessing import Feature
from linreg.data.ranges import Ranges
from linreg.data.split import divide
from linreg.data.statistics import Statistics
from linreg.data.tables.reading import Table
from linreg.exact.least_squares import ROWS, Factor, solve
from linreg.experiment.building import build, prepare
from linreg.spec.schema import load_spec
from linreg.training.loops import mini_batch
from tests.conftest import run_with_peak, write_spec

RANDOM = np.random.default_rng(0)
N = 80
COLUMNS = {
    "a": RANDOM.normal(50, 10, N), "b": RANDOM.normal(0, 0.01, N), "k": RANDOM.choice(["u", "v", "10", "9"], N),
    "w": RANDOM.uniform(0.1, 3, N), "z": RANDOM.normal(0, 1, N),
}  # fmt: skip
COLUMNS["y"] = 3 + 0.5 * COLUMNS["a"] - 200 * COLUMNS["b"] + (COLUMNS["k"] == "u") * 4 + RANDOM.normal(0, 1, N)


def write_table(path="t.csv", **changes):
    columns = {**COLUMNS, **changes}
    rows = zip(*columns.values(), strict=True)
    Path(path).write_text(",".join(columns) + "\n" + "".join(",".join(map(str, row)) + "\n" for row in rows))


def exact_spec(**changes):
    source = {"name": "csv", "path": "t.csv", "target": "y", "features": ["a", "b"], **changes.pop("source", {})}
    return write_spec(
        "exact.yaml", **{"solver": "exact", "dtype": "float64", "data__source": source, "data__split": {"train_ratio": 1.0}, **changes}
    )  # fmt: skip


def inspected(linreg, *arguments):
    answer = linreg("train", *arguments, "-q")
    assert answer.code == 0, answer.err
    return json.loads(linreg("inspect", answer.out.strip(), "--json").out)


def training_mask(**split):
    return divide(N, **split).mask


def ordinary(design, y, weight=None):
    """Coefficients, standard errors and R2 by the normal equations, as a textbook has them."""
    w = np.ones(len(y)) if weight is None else weight
    inverse = np.linalg.inv((design * w[:, None]).T @ design)
    beta = inverse @ (design * w[:, None]).T @ y
    residual = (w * (y - design @ beta) ** 2).sum()
    total = (w * (y - np.average(y, weights=w)) ** 2).sum()
    return beta, np.sqrt(residual / (len(y) - len(beta)) * np.diag(inverse)), 1 - residual / total


DESIGN = np.stack([np.ones(N), COLUMNS["a"], COLUMNS["b"]], axis=1)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("standardize", [False, True, "features", "target"])
def test_coefficients_standard_errors_t_and_r2_are_the_textbooks(linreg, table, weighted, standardize):
    source = {"sample_weight": "w"} if weighted else {}
    found = inspected(linreg, exact_spec(source=source, data__standardize=standardize))
    beta, errors, r2 = ordinary(DESIGN, COLUMNS["y"], COLUMNS["w"] if weighted else None)
    rows = found["coefficients"]
    assert [row["name"] for row in rows] == ["intercept", "a", "b"]
    np.testing.assert_allclose([row["estimate"] for row in rows], beta, rtol=1e-10)
    np.testing.assert_allclose([row["std_error"] for row in rows], errors, rtol=1e-9)
    np.testing.assert_allclose([row["t"] for row in rows], beta / errors, rtol=1e-9)
    assert found["r2"] == pytest.approx(r2, rel=1e-12)


def test_several_targets_polynomials_and_no_bias_are_solved_too(linreg, table):
    found = inspected(linreg, exact_spec(source={"target": ["y", "z"]}))
    for target in ("y", "z"):
        estimates = [row["estimate"] for row in found["coefficients"] if row["target"] == target]
        np.testing.assert_allclose(estimates, ordinary(DESIGN, COLUMNS[target])[0], rtol=1e-9)
    found = inspected(linreg, exact_spec(source={"features": "a"}, model={"name": "polynomial", "degree": 2}))
    powers = COLUMNS["a"][:, None] ** np.arange(3)
    np.testing.assert_allclose(
        [r["estimate"] for r in found["coefficients"]], ordinary(powers, COLUMNS["y"])[0], rtol=1e-8
    )
    assert [r["name"] for r in found["coefficients"]] == ["intercept", "a", "a^2"]
    found = inspected(linreg, exact_spec(model={"name": "linear", "bias": False}))
    beta = np.linalg.lstsq(DESIGN[:, 1:], COLUMNS["y"], rcond=None)[0]
    np.testing.assert_allclose([r["estimate"] for r in found["coefficients"]], beta, rtol=1e-10)


@pytest.mark.parametrize("standardize", [False, "features", True])
def test_ridge_adds_rows_for_all_but_the_intercept(linreg, table, standardize):
    found = inspected(linreg, exact_spec(ridge=7.0, data__standardize=standardize))
    x = DESIGN[:, 1:]
    mean, scale = (x.mean(axis=0), x.std(axis=0)) if standardize else (np.zeros(2), np.ones(2))
    centred = (x - mean) / scale
    design = np.vstack([np.c_[np.ones(N), centred], np.c_[np.zeros(2), np.sqrt(7.0) * np.eye(2)]])
    beta = np.linalg.lstsq(design, np.r_[COLUMNS["y"], 0, 0], rcond=None)[0]
    slopes = beta[1:] / scale
    np.testing.assert_allclose(
        [row["estimate"] for row in found["coefficients"]], [beta[0] - slopes @ mean, *slopes], rtol=1e-9
    )
    assert [row["std_error"] for row in found["coefficients"]] == [None] * 3


def test_many_blocks_have_the_solution_of_lstsq():
    x, y = RANDOM.normal(5, 2, (40_000, 6)), RANDOM.normal(0, 1, (40_000, 2))
    weight = RANDOM.uniform(0, 2, 40_000)
    factor = Factor(6, 2)
    for first in range(0, 40_000, 777):
        rows = slice(first, first + 777)
        factor.add(x[rows], y[rows], weight[rows])
    root = np.sqrt(weight)[:, None]
    expected = np.linalg.lstsq(root * x, root * y, rcond=None)[0]
    solution = solve(factor.triangle())
    np.testing.assert_allclose(solution.coefficients, expected, rtol=1e-9, atol=1e-12)
    residual = (weight[:, None] * (y - x @ expected) ** 2).sum(axis=0)
    np.testing.assert_allclose(solution.losses, residual / weight.sum(), rtol=1e-12)


@given(
    cuts=st.lists(st.integers(0, 3 * ROWS), max_size=8),
    n_rows=st.sampled_from([5, 1000, ROWS - 1, ROWS, ROWS + 1, 3 * ROWS]),
    weighted=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_the_solution_is_the_same_to_the_bit_however_the_rows_are_cut(cuts, n_rows, weighted):
    random = np.random.default_rng(n_rows)
    x, y, weight = random.normal(5, 2, (n_rows, 3)), random.normal(0, 1, (n_rows, 1)), random.uniform(0, 2, n_rows)
    triangles, losses = [], []
    for edges in ([0, n_rows], sorted([0, n_rows, *(min(cut, n_rows) for cut in cuts)])):
        factor = Factor(3, 1)
        for first, last in pairwise(edges):
            factor.add(x[first:last], y[first:last], weight[first:last] if weighted else None)
        triangles.append(factor.triangle().values)
        losses.append(solve(factor.triangle()).losses)
    np.testing.assert_array_equal(*triangles)
    np.testing.assert_array_equal(*losses)


@pytest.mark.parametrize("width", [1, 3, 22, 64, 65, 130])
def test_the_triangle_of_any_width_is_that_of_all_rows_at_once(width):
    rows = np.random.default_rng(width).normal(size=(ROWS + 5000, width))
    factor = Factor(width - 1, 1)
    factor.add(rows[:, :-1], rows[:, -1:])
    expected, found = (
        r * np.sign(np.diag(r))[:, None] for r in (np.linalg.qr(rows, mode="r"), factor.triangle().values)
    )
    # sqrt(m n) u, the bound of M. P. Connolly and N. J. Higham, Probabilistic rounding error analysis of Householder
    # QR factorization (2023), for either; such columns are all but orthogonal, which adds no more than a factor of 2
    bound = 4 * np.sqrt(rows.size) * np.finfo(float).eps / 2
    np.testing.assert_allclose(found, expected, rtol=0, atol=bound * np.linalg.norm(rows, axis=0).max())


def test_many_rows_lose_no_more_digits_than_their_condition_takes():
    random = np.random.default_rng(1)
    n_rows = 2 * ROWS + 1000
    a, c = random.integers(-1000, 1001, n_rows), random.integers(-10, 11, n_rows)
    design = np.stack([np.ones(n_rows), a, 10**6 * a + c], axis=1).astype(float)  # without rounding, and so is y
    beta = np.array([7.0, 2.0, 3.0])
    factor = Factor(3, 1)
    factor.add(design, (design @ beta)[:, None])
    norms = np.linalg.norm(design, axis=0)
    condition = np.linalg.cond(design / norms)
    assert 1e8 < condition < 1e9  # by the normal equations, which square it, nothing would be left
    errors = (solve(factor.triangle()).coefficients[:, 0] - beta) * norms
    bound = condition * np.sqrt(design.size) * np.finfo(float).eps / 2  # as above, and Higham, ASNA, theorem 20.1
    assert np.abs(errors).max() <= bound * np.linalg.norm(beta * norms)


@pytest.mark.parametrize(("standardize", "n_passes"), [(False, 2), (True, 3)])
def test_a_table_is_read_once_to_count_once_to_learn_if_there_is_something_and_once_to_solve(
    linreg, table, monkeypatch, standardize, n_passes
):
    passes, blocks = [], Table.blocks
    monkeypatch.setattr(Table, "blocks", lambda self: passes.append(self) or blocks(self))
    assert linreg("train", exact_spec(data__standardize=standardize), "-q").code == 0
    assert len(passes) == n_passes


def test_beside_the_data_there_is_memory_for_a_block_of_rows_alone():
    code = """
import numpy as np
import torch
from linreg.exact.closed_form import Equations, LinearPart
from linreg.data.preprocessing import Feature, Preprocessing, columns_of

def add(x, y):
    features = [Feature(f"x{i}") for i in range(20)]
    part = LinearPart(torch.nn.Sequential(), torch.nn.Linear(20, 1), "0")
    equations = Equations(part, columns_of(features), Preprocessing(features, 1, fills=False), 1, n_pieces=2)
    equations.add(x, y, None, (np.arange(len(x)) % 5 == 0).astype(np.int8))
    equations.solve(*equations.triangles(), is_result=True)

x = np.random.default_rng(0).normal(size=(400_000, 20))
y = x[:, :1] + 1
add(x[:100], y[:100])  # what the libraries need once
before = peak()
add(x, y)
print(peak() - before)
"""
    block = ROWS * 22 * 8
    # one gathered for either part, NumPy's copy of one, and less than one in chunks
    assert int(run_with_peak(code)) <= 4 * block


def test_columns_that_say_nothing_of_their_own_are_named_and_do_no_harm(linreg):
    write_table(b2=2 * COLUMNS["b"], one=np.full(N, 3.0), sum=COLUMNS["a"] + COLUMNS["z"])
    answer = linreg("train", exact_spec(source={"features": ["a", "b", "b2", "one", "z", "sum"]}), "-q")
    assert answer.err == (
        "warning: column 'b2' repeats 'b'; its coefficient is set to 0\n"
        "warning: column 'one' is constant in the training part; its coefficient is set to 0\n"
        "warning: column 'sum' is a linear combination of 'a', 'z'; its coefficient is set to 0\n"
    )
    found = json.loads(linreg("evaluate", "--json").out)["metrics"]["y"]
    design = np.c_[DESIGN, COLUMNS["z"]]
    assert found["r2"] == pytest.approx(ordinary(design, COLUMNS["y"])[2], rel=1e-10)


@pytest.mark.parametrize("standardize", [False, True])
def test_columns_that_others_explain_are_found_through_the_rounding_of_float32(linreg, standardize):
    write_table(sum=COLUMNS["a"] + COLUMNS["z"])
    source = {"name": "csv", "path": "t.csv", "target": "y", "features": ["a", "z", "sum"]}
    err = linreg("check", write_spec(data__source=source, data__standardize=standardize), "-q").err
    assert (
        "warning: column 'sum' is a linear combination of 'a', 'z'; a trained model divides the effect among them\n"
        in err
    )


def test_coefficients_of_categories_are_relative_to_the_first(linreg, table):
    found = inspected(linreg, exact_spec(source={"features": ["a", "k"], "categorical": "k"}))
    rows = {row["name"]: row["estimate"] for row in found["coefficients"]}
    assert list(rows) == ["intercept", "a", "k=10", "k=9", "k=u", "k=v"]
    design = np.stack([np.ones(N), COLUMNS["a"], *(COLUMNS["k"] == k for k in ("9", "u", "v"))], axis=1)
    beta = ordinary(design, COLUMNS["y"])[0]
    np.testing.assert_allclose([rows[n] for n in ("intercept", "a", "k=9", "k=u", "k=v")], beta, rtol=1e-9)
    assert rows["k=10"] == 0


def test_an_exact_checkpoint_is_like_any_other_but_cannot_be_resumed(linreg, table):
    path = inspected(linreg, exact_spec(data__split={"train_ratio": 0.75, "seed": 3}))["checkpoint"]
    saved = load(path)
    mask = training_mask(train_ratio=0.75, seed=3)
    beta = ordinary(DESIGN[mask], COLUMNS["y"][mask])[0]
    errors = COLUMNS["y"] - DESIGN @ beta
    assert saved.loss == pytest.approx([(errors[mask] ** 2).mean()], rel=1e-10)
    assert saved.val_loss == pytest.approx([(errors[~mask] ** 2).mean()], rel=1e-10)
    assert json.loads(linreg("evaluate", "--json").out)["metrics"]["y"]["mse"] == pytest.approx(
        saved.val_loss[0], rel=1e-9
    )
    assert float(linreg("predict", "--inputs", "a=50", "b=0.01").out) == pytest.approx(beta @ [1, 50, 0.01], rel=1e-12)
    answer = linreg("resume", path)
    assert (answer.code, answer.err) == (2, f"error: {path}: was solved exactly; there is nothing to resume\n")
    assert linreg("train", "runs/small_001/spec.yaml", "-q").code == 0


def test_unused_keys_are_reported_and_optional(linreg, table):
    answer = linreg("train", exact_spec())
    assert "solver: exact: epochs, optimizer: not used\n" in answer.err
    Path("bare.yaml").write_text(
        "name: bare\nsolver: exact\nmodel: {name: linear}\ndata: {source: {name: csv, path: t.csv, target: y, features: a}}\n"
    )
    assert linreg("train", "bare.yaml", "-q").err == ""
    assert "epochs" not in Path("runs/bare_001/spec.yaml").read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"name": "mlp", "hidden": [2]}}, "model: mlp has no closed form"),
        ({"loss": {"name": "mae"}}, "solver: exact minimises mse, not mae"),
        ({"solver": "gradient", "ridge": 1.0}, "ridge needs solver: exact"),
    ],
)
def test_a_model_without_a_closed_form_is_refused(linreg, table, changes, message):
    answer = linreg("train", exact_spec(**changes))
    assert answer.code == 2
    assert message in answer.err
    assert not Path("runs").exists()


def test_the_optimum_is_reported_and_never_above_the_trained_loss(linreg, table):
    spec = write_spec(
        data__source={"name": "csv", "path": "t.csv", "target": "y", "features": ["a", "b"]}, data__standardize=True
    )
    found = json.loads(linreg("train", spec, "--json", "-q").out)
    assert found["exact_loss"] <= found["loss"]
    records = [json.loads(line) for line in Path("runs/small_001/metrics.jsonl").read_text().splitlines()]
    assert {record["exact"] for record in records} == {found["exact_val_loss"]}
    for change in ("baseline=false", "model={name: mlp, hidden: [2]}", "loss={name: mae}"):
        found = json.loads(linreg("train", spec, change, "--json", "-q").out)
        assert found["exact_loss"] is found["exact_val_loss"] is found["fit"] is None


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("batch_size", [7, 16, "full"])
def test_the_optimum_is_measured_as_training_measures(table, batch_size, weighted):
    source = {"name": "csv", "path": "t.csv", "target": "y", "features": ["a", "b"]}
    source |= {"sample_weight": "w"} if weighted else {}
    spec = write_spec(data__source=source, data__standardize=True, dtype="float64", data__batch_size=batch_size)
    experiment = build(load_spec(spec))
    coefficients = experiment.baseline.fit["coefficients"][:, 0]
    with torch.no_grad():
        experiment.network[0].bias.copy_(coefficients[0])
        experiment.network[0].weight.copy_(coefficients[1:])
    val_loss = mini_batch(experiment.device, experiment.loaders.val, experiment.val_step_fn)
    assert experiment.baseline.val_loss == pytest.approx(val_loss, rel=1e-12)


@pytest.mark.parametrize("extra", ["momentum=0.0", "momentum=0.5", "momentum=0.9", "nesterov"])
def test_training_converges_below_the_largest_stable_learning_rate_only(linreg, table, extra):
    optimizer = {
        "name": "sgd",
        "lr": 1.0,
        "momentum": float(extra.partition("=")[2] or 0.9),
        "nesterov": extra == "nesterov",
    }
    spec = write_spec(
        data__source={"name": "csv", "path": "t.csv", "target": "y", "features": ["a", "b"]}, data__standardize=True,
        data__batch_size="full", data__split={"train_ratio": 1.0}, epochs=1500, dtype="float64", optimizer=optimizer,
    )  # fmt: skip
    told = linreg("check", spec, "optimizer.lr=1e3", "-q").err
    assert told.startswith("warning: small.yaml:")
    bound = float(told.partition("> ")[2].partition(":")[0])
    assert "will diverge; try" in told
    below = json.loads(linreg("train", spec, f"optimizer.lr={0.93 * bound}", "--json", "-q").out)
    assert below["loss"] == pytest.approx(below["exact_loss"], rel=1e-6)
    above = linreg("train", spec, f"optimizer.lr={1.07 * bound}", "--json", "-q")
    assert above.code == 6 or json.loads(above.out)["loss"] > 1e6


def test_an_interval_is_that_of_students_t(linreg, table):
    inspected(linreg, exact_spec(data__standardize=True))
    found = json.loads(linreg("predict", "--inputs", "45,0.004", "--interval", "0.9", "--json").out)
    beta, _, _ = ordinary(DESIGN, COLUMNS["y"])
    row = np.array([1, 45, 0.004])
    variance = ((COLUMNS["y"] - DESIGN @ beta) ** 2).sum() / (N - 3)
    half = stats.t.ppf(0.95, N - 3) * np.sqrt(variance * (1 + row @ np.linalg.inv(DESIGN.T @ DESIGN) @ row))
    assert found["predictions"][0][0] == pytest.approx(row @ beta, rel=1e-11)
    assert found["lower"][0][0] == pytest.approx(row @ beta - half, rel=1e-9)
    assert found["upper"][0][0] == pytest.approx(row @ beta + half, rel=1e-9)


def test_an_interval_needs_an_exact_fit_or_calibration(linreg, table):
    linreg("train", write_spec(), "-q")
    answer = linreg("predict", "--inputs", "0.2", "--interval", "0.95")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.endswith(
        "last.pth has no calibrated intervals; train with data.split.calibration_ratio=0.2 'intervals={method: split}', "
        "or with solver: exact\n"
    )


# Preprocessing


def test_statistics_are_those_of_the_training_part_alone(table):
    spec = exact_spec(solver="gradient", data__standardize=True, data__split={"train_ratio": 0.5, "seed": 1})
    mask = training_mask(train_ratio=0.5, seed=1)
    data = prepare(load_spec(spec))
    x = DESIGN[:, 1:]
    np.testing.assert_allclose(data.preprocessing.mean, x[mask].mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(data.preprocessing.scale, x[mask].std(axis=0), rtol=1e-12)
    np.testing.assert_allclose(data.preprocessing.y_scale, [COLUMNS["y"][mask].std()], rtol=1e-12)
    np.testing.assert_allclose(data.dataset.x, (x - x[mask].mean(axis=0)) / x[mask].std(axis=0), atol=1e-12)
    changed = np.where(mask, COLUMNS["a"], 1e6)
    write_table(a=changed)
    assert torch.equal(prepare(load_spec(spec)).preprocessing.mean, data.preprocessing.mean)


@pytest.mark.parametrize(("missing", "fill"), [("mean", np.nanmean), ("median", np.nanmedian)])
def test_gaps_are_filled_from_the_training_part(missing, fill):
    gaps = np.where(RANDOM.random(N) < 0.3, np.nan, COLUMNS["a"])
    write_table(a=["" if np.isnan(value) else value for value in gaps])
    spec = exact_spec(
        solver="gradient", source={"missing": missing}, data__standardize=True, data__split={"train_ratio": 0.6}
    )
    mask = training_mask(train_ratio=0.6, seed=13)
    filled = np.where(np.isnan(gaps), fill(gaps[mask]), gaps)
    expected = (filled - filled[mask].mean()) / filled[mask].std()
    np.testing.assert_allclose(prepare(load_spec(spec)).dataset.x[:, 0], expected, atol=1e-12)


def test_an_unseen_category_is_an_error_or_nothing(linreg, table):
    spec = exact_spec(source={"features": ["a", "k"], "categorical": "k"})
    linreg("train", spec, "-q")
    Path("new.csv").write_text("k,a\nu,50\nnew,50\n")
    answer = linreg("predict", "--input", "new.csv", "--output", "out.csv")
    assert answer.code == 3
    assert (
        "new.csv: row 2, column 'k': 'new' is not among the categories of the training part (9, 10, u, v)"
        in answer.err.replace("10, 9", "9, 10")
    )
    assert not list(Path().glob("*out.csv*"))
    linreg("train", spec, "-q", "data.source.unseen=zeros")
    assert linreg("predict", "--input", "new.csv", "--output", "out.csv").code == 0
    rows = [float(line) for line in Path("out.csv").read_text().splitlines()[1:]]
    found = {r["name"]: r["estimate"] for r in json.loads(linreg("inspect", "--json").out)["coefficients"]}
    assert rows[1] == pytest.approx(found["intercept"] + 50 * found["a"], rel=1e-9)
    assert rows[0] == pytest.approx(rows[1] + found["k=u"], rel=1e-9)


def test_losses_are_reported_in_the_units_of_the_target(linreg, table):
    spec = write_spec(
        data__source={"name": "csv", "path": "t.csv", "target": "y", "features": ["a", "b"]}, data__standardize=True,
        dtype="float64", data__batch_size="full",
    )  # fmt: skip
    found = json.loads(linreg("train", spec, "--json", "-q").out)
    measured = json.loads(linreg("evaluate", "--json").out)["metrics"]["y"]["mse"]
    assert found["val_loss"] == pytest.approx(measured, rel=1e-9)
    predicted = float(linreg("predict", "--inputs", f"{COLUMNS['a'][0]},{COLUMNS['b'][0]}").out)
    assert 0 < predicted < 60


def test_a_weight_of_n_counts_like_n_points(linreg):
    twice = np.where(np.arange(N) % 3 == 0, 2, 1)
    write_table(w=twice)
    weighted = inspected(linreg, exact_spec(source={"sample_weight": "w"}))
    repeated = {name: np.repeat(values, twice) for name, values in COLUMNS.items()}
    rows = zip(*repeated.values(), strict=True)
    Path("t.csv").write_text(",".join(repeated) + "\n" + "".join(",".join(map(str, row)) + "\n" for row in rows))
    plain = inspected(linreg, exact_spec())
    for a, b in zip(weighted["coefficients"], plain["coefficients"], strict=True):
        assert a["estimate"] == pytest.approx(b["estimate"], rel=1e-9)


@pytest.mark.parametrize("loss", ["mse", "mae", "huber"])
def test_a_weighted_preprocessed_run_resumes_to_the_bit(linreg, table, loss):
    spec = write_spec(
        data__source={"name": "csv", "path": "t.csv", "target": "y", "features": ["a", "k"], "categorical": "k", "sample_weight": "w"},
        data__standardize=True, loss={"name": loss}, optimizer={"name": "adam", "lr": 0.01},
    )  # fmt: skip
    linreg("train", spec, "-q", "epochs=8", "name=whole")
    linreg("train", spec, "-q", "epochs=3", "name=cut")
    assert linreg("resume", "checkpoints/cut_001/last.pth", "--epochs", "8", "-q").code == 0
    whole, cut = load("checkpoints/whole_001/last.pth"), load("checkpoints/cut_001/last.pth")
    assert whole.loss == cut.loss
    assert all(torch.equal(whole.model_state_dict[key], cut.model_state_dict[key]) for key in whole.model_state_dict)


def test_the_range_of_the_training_part_has_the_decimals_of_the_table(table):
    write_table(a=np.linspace(0.1, 0.7, N).round(3))
    spec = exact_spec(solver="gradient", dtype="float32", source={"features": "a"})
    assert [(f.minimum, f.maximum) for f in prepare(load_spec(spec)).features] == [(0.1, 0.7)]


@pytest.mark.parametrize(("n", "width"), [(1, 3), (511, 1), (1500, 1), (700, 5), (3, 600)])
def test_ranges_are_the_least_and_the_largest_of_each_column(n, width):
    x = RANDOM.normal(0, 1, (n, width))
    seen, ranges = Statistics(width, 1), Statistics(width, 1)
    for part in (x[: n // 2], x[n // 2 :]):
        seen.add(part, np.zeros((len(part), 1)))
        if len(part):
            ranges.add_ranges(part)
    seen.finish()
    for statistics in (seen, ranges):
        assert statistics.count[:width].tolist() == [n] * width
        assert statistics.minimum[:width].tolist() == x.min(axis=0).tolist()
        assert statistics.maximum[:width].tolist() == x.max(axis=0).tolist()


def test_gaps_do_not_hide_values_outside_the_range():
    x = np.full((1000, 1), np.nan)
    x[700:703, 0] = 0.5, 3.0, -1.0
    ranges = Ranges([Feature("a", 0.0, 1.0)])
    ranges.add(x)
    assert ranges.warnings() == [
        "a: 2 of 1000 rows outside the range of the training part, 0 to 1; the first is row 702 (3)"
    ]


# Tables of predictions


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "parquet", "jsonl"])
def test_a_table_predicted_is_each_row_predicted(linreg, table, ending):
    from linreg.data.tables.reading import like

    linreg("train", exact_spec(data__standardize=True), "-q")
    parquet.write_table(csv.read_csv("t.csv"), "t.parquet")
    answer = linreg("predict", "--input", "t.parquet", "--output", f"out.{ending}", "--keep", "z")
    assert (answer.code, answer.out) == (0, f"out.{ending}\n")
    made = like(
        Path(f"out.{ending}"), {}, features=["z", "y_predicted"], categorical=[], dates=[], targets=[], sample_weight=None,
        missing="error", unseen="error", keep=[], gap_hint="",
    )  # fmt: skip
    found = np.concatenate([block.x for block in made.blocks()])
    np.testing.assert_allclose(found[:, 0], COLUMNS["z"], rtol=1e-15)
    rows = [f"{a},{b}" for a, b in zip(COLUMNS["a"], COLUMNS["b"], strict=True)]
    singly = [float(line) for line in linreg("predict", "--inputs", *rows).out.split()]
    assert found[:, 1].tolist() == singly


def test_a_bad_cell_leaves_no_output(linreg, table):
    linreg("train", exact_spec(), "-q")
    Path("out.csv").write_text("old\n")
    Path("in.csv").write_text("b,a,more\n1,2,x\n1,,y\n")
    answer = linreg("predict", "--input", "in.csv", "--output", "out.csv")
    assert (answer.code, answer.out) == (3, "")
    assert "in.csv: row 2, column 'a': missing" in answer.err
    assert Path("out.csv").read_text() == "old\n"
    assert not list(Path().glob(".*.tmp"))


def test_inputs_outside_the_range_of_training_are_warned_about(linreg, table):
    linreg("train", exact_spec(), "-q")
    answer = linreg("predict", "--inputs", "50,0", "1e4,0", "-5,0")
    assert "warning: a: 2 of 3 rows outside the range of the training part, " in answer.err
    assert "; the first is row 2 (10000)" in answer.err
    assert "warning" not in linreg("predict", "--inputs", "50,0").err


def test_a_table_is_measured_and_drawn(linreg, table):
    linreg("train", exact_spec(), "-q")
    write_table("other.csv", y=COLUMNS["y"] + 1)
    found = json.loads(linreg("evaluate", "--data", "other.csv", "--plot", "p.png", "--json").out)
    beta = ordinary(DESIGN, COLUMNS["y"])[0]
    error = COLUMNS["y"] + 1 - DESIGN @ beta
    assert found["n_samples"] == N
    assert found["metrics"]["y"]["mse"] == pytest.approx((error**2).mean(), rel=1e-10)
    assert found["metrics"]["y"]["mae"] == pytest.approx(np.abs(error).mean(), rel=1e-10)
    assert Path("p.png").read_bytes().startswith(b"\x89PNG")
    assert linreg("evaluate", "--data", "other.csv", "--plot", "other.csv").code == 2
