"""The inference of `inspect` against statsmodels, NIST's certified values, and arithmetic."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import statsmodels.api as sm
from rich.cells import cell_len
from statsmodels.stats.outliers_influence import variance_inflation_factor

from linreg.checkpoint import load, save
from linreg.exact.robust import HC
from tests.conftest import write_spec
from tests.exact.test_exact import COLUMNS, DESIGN, N, exact_spec, inspected, write_table

CLOSE = {"rtol": 1e-9, "atol": 0}


def inspect(linreg, *options):
    answer = linreg("inspect", "--json", *options)
    assert answer.code == 0, answer.err
    return json.loads(answer.out)


def column(found, key):
    return [row[key] for row in found["coefficients"]]


def reference(design=DESIGN, y=COLUMNS["y"], weight=None, **options):
    if weight is not None:
        return sm.WLS(y, design, weights=weight).fit(use_t=True, **options)
    return sm.OLS(y, design).fit(use_t=True, **options)


def compare(found, expected, level=0.95):
    np.testing.assert_allclose(column(found, "estimate"), expected.params, **CLOSE)
    np.testing.assert_allclose(column(found, "std_error"), expected.bse, **CLOSE)
    np.testing.assert_allclose(column(found, "t"), expected.tvalues, **CLOSE)
    np.testing.assert_allclose(column(found, "p"), expected.pvalues, rtol=1e-7)  # the far tail multiplies rounding
    bounds = np.array([column(found, "low"), column(found, "high")]).T
    np.testing.assert_allclose(bounds, expected.conf_int(1 - level), **CLOSE)
    f = found["f"]
    assert f["value"] == pytest.approx(float(expected.fvalue), rel=1e-9)
    assert f["p"] == pytest.approx(float(expected.f_pvalue), rel=1e-7)
    for key, value in (("log_likelihood", expected.llf), ("aic", expected.aic), ("bic", expected.bic)):
        assert found[key] == pytest.approx(value, rel=1e-9)
    assert found["adjusted_r2"] == pytest.approx(expected.rsquared_adj, rel=1e-9)
    assert found["r2_uncentred" if "r2_uncentred" in found else "r2"] == pytest.approx(expected.rsquared, rel=1e-9)


@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_usual_inference_is_that_of_statsmodels(linreg, table, weighted, standardize):
    source = {"sample_weight": "w"} if weighted else {}
    found = inspected(linreg, exact_spec(source=source, data__standardize=standardize))
    expected = reference(weight=COLUMNS["w"] if weighted else None)
    compare(found, expected)
    assert (found["f"]["degrees_of_freedom"], found["n_observations"]) == ([2, N - 3], N)
    compare(inspect(linreg, "--level", "0.5"), expected, level=0.5)
    root = np.sqrt(COLUMNS["w"] if weighted else np.ones(N))[:, None]
    inflation = [variance_inflation_factor(root * DESIGN, 1 + i) for i in range(2)]
    if not weighted:  # with weights, statsmodels does not see the intercept
        np.testing.assert_allclose(column(found, "vif")[1:], inflation, **CLOSE)
        scaled = (DESIGN[:, 1:] - DESIGN[:, 1:].mean(axis=0)) / DESIGN[:, 1:].std(axis=0)
        condition = reference(np.c_[np.ones(N), scaled]).condition_number
        assert found["condition_number"] == pytest.approx(condition, rel=1e-9)
    assert column(found, "vif")[0] is None


@pytest.mark.parametrize("kind", HC)
@pytest.mark.parametrize("standardize", [False, True])
def test_heteroskedasticity_consistent_errors_are_those_of_statsmodels(linreg, table, kind, standardize):
    inspected(linreg, exact_spec(data__standardize=standardize))
    found = inspect(linreg, "--robust", kind)
    compare(found, reference(cov_type=kind))
    assert found["covariance"] == {"name": kind, "column": None, "n_groups": None, "degrees_of_freedom": N - 3}
    inspected(linreg, exact_spec(source={"sample_weight": "w"}, data__standardize=standardize))
    compare(inspect(linreg, "--robust", kind), reference(weight=COLUMNS["w"], cov_type=kind))


@pytest.mark.parametrize("weighted", [False, True])
def test_clustered_errors_are_those_of_statsmodels(linreg, weighted):
    groups = np.arange(N) % 11
    write_table(g=groups)
    source = {"sample_weight": "w"} if weighted else {}
    inspected(linreg, exact_spec(source=source))
    found = inspect(linreg, "--robust", "cluster=g")
    weight = COLUMNS["w"] if weighted else None
    compare(found, reference(weight=weight, cov_type="cluster", cov_kwds={"groups": groups}))
    assert found["covariance"] == {"name": "cluster", "column": "g", "n_groups": 11, "degrees_of_freedom": 10}
    assert found["notes"] == ["11 groups are few: clustered standard errors are then often too small"]


def test_few_groups_have_no_f_test(linreg):
    groups = np.arange(N) % 2
    write_table(g=groups)
    inspected(linreg, exact_spec())
    found = inspect(linreg, "--robust", "cluster=g")
    expected = reference(cov_type="cluster", cov_kwds={"groups": groups})
    np.testing.assert_allclose(column(found, "std_error"), expected.bse, rtol=1e-9)
    assert found["f"] is None
    assert found["notes"][0] == "no F test: the covariance of the slopes is singular"
    write_table(g=np.arange(N) % 3)
    inspected(linreg, exact_spec())
    assert inspect(linreg, "--robust", "cluster=g")["f"] is not None


def test_groups_may_be_texts_and_only_training_rows_count(linreg):
    names = np.array([f"plant {i % 30}" for i in range(N)])
    write_table(g=names)
    inspected(linreg, exact_spec(data__split={"train_ratio": 0.6, "by": "order"}))
    found = inspect(linreg, "--robust", "cluster=g")
    some = slice(0, 48)
    options = {"cov_type": "cluster", "cov_kwds": {"groups": np.unique(names[some], return_inverse=True)[1]}}
    compare(found, reference(DESIGN[some], COLUMNS["y"][some], **options))
    compare(inspect(linreg, "--robust", "HC2"), reference(DESIGN[some], COLUMNS["y"][some], cov_type="HC2"))


def test_rows_of_weight_0_do_not_count(linreg):
    weight = np.where(np.arange(N) % 4 == 0, 0.0, COLUMNS["w"])
    groups = np.where(weight > 0, np.arange(N) % 25, 99)
    write_table(w=weight, g=groups)
    some = weight > 0
    found = inspected(linreg, exact_spec(source={"sample_weight": "w"}))
    compare(found, reference(DESIGN[some], COLUMNS["y"][some], weight[some]))
    assert (found["n_rows"], found["n_observations"]) == (N, some.sum())
    expected = reference(DESIGN[some], COLUMNS["y"][some], weight[some], cov_type="HC1")
    compare(inspect(linreg, "--robust", "HC1"), expected)
    options = {"cov_type": "cluster", "cov_kwds": {"groups": groups[some]}}
    found = inspect(linreg, "--robust", "cluster=g")
    compare(found, reference(DESIGN[some], COLUMNS["y"][some], weight[some], **options))


@pytest.mark.parametrize("kind", [None, "HC0", "HC3"])
def test_without_an_intercept_all_coefficients_are_tested(linreg, table, kind):
    found = inspected(linreg, exact_spec(model={"name": "linear", "bias": False}))
    options = {} if kind is None else {"cov_type": kind}
    expected = reference(DESIGN[:, 1:], **options)
    compare(found if kind is None else inspect(linreg, "--robust", kind), expected)
    assert found["f"]["degrees_of_freedom"] == [2, N - 2]
    inflation = [1 / (1 - sm.OLS(DESIGN[:, i], DESIGN[:, 3 - i]).fit().rsquared) for i in (1, 2)]
    np.testing.assert_allclose(column(found, "vif"), inflation, **CLOSE)


def test_categories_polynomials_and_several_targets_are_those_of_statsmodels(linreg, table):
    found = inspected(linreg, exact_spec(source={"features": ["a", "k"], "categorical": "k"}))
    kept = [row for row in found["coefficients"] if row["std_error"] is not None]
    levels = [row["name"].removeprefix("k=") for row in kept[2:]]
    design = np.c_[DESIGN[:, :2], *[COLUMNS["k"] == level for level in levels]]
    expected = reference(design.astype(float))
    compare({**found, "coefficients": kept}, expected)
    (left,) = [row for row in found["coefficients"] if row["std_error"] is None]
    assert [left[key] for key in ("t", "p", "low", "high", "vif")] == [None] * 5
    assert found["references"] == [left["name"]] == found["left_out"]
    inflation = [variance_inflation_factor(design.astype(float), i) for i in range(1, 5)]
    np.testing.assert_allclose([row["vif"] for row in kept[1:]], inflation, **CLOSE)

    inspected(
        linreg,
        exact_spec(source={"features": "z"}, model={"name": "polynomial", "degree": 3}, data__standardize="target"),
    )
    compare(inspect(linreg, "--robust", "HC2"), reference(COLUMNS["z"][:, None] ** np.arange(4), cov_type="HC2"))

    inspected(linreg, exact_spec(source={"target": ["y", "z"]}))
    found = inspect(linreg, "--robust", "HC3")
    for number, target in enumerate(("y", "z")):
        one = {**found, "coefficients": [row for row in found["coefficients"] if row["target"] == target]}
        keys = ("r2", "adjusted_r2", "f", "log_likelihood", "aic", "bic")
        compare({**one, **{key: found[key][number] for key in keys}}, reference(y=COLUMNS[target], cov_type="HC3"))
    text = linreg("inspect").out
    assert text.count("F test of all slopes") == 2


def test_a_trained_model_has_its_own_estimates_with_the_errors_of_the_optimum(linreg, table):
    for weighted in (False, True):
        source = {"name": "csv", "path": "t.csv", "target": "y", "features": ["a", "b"]} | (
            {"sample_weight": "w"} if weighted else {}
        )
        spec = write_spec(
            "trained.yaml",
            dtype="float64",
            data__source=source,
            data__standardize=True,
            data__split={"train_ratio": 1.0},
            epochs=1 if weighted else 6,
        )
        found = inspected(linreg, spec)
        expected = reference(weight=COLUMNS["w"] if weighted else None)
        np.testing.assert_allclose(column(found, "std_error"), expected.bse, **CLOSE)
        np.testing.assert_allclose(column(found, "exact"), expected.params, rtol=1e-8)
        np.testing.assert_allclose(column(found, "t"), np.divide(column(found, "estimate"), expected.bse), **CLOSE)
        assert found["log_likelihood"] == pytest.approx(expected.llf, rel=1e-9)
        assert found["f"]["value"] == pytest.approx(float(expected.fvalue), rel=1e-9)
        distances = np.abs(np.subtract(column(found, "estimate"), column(found, "exact"))) / expected.bse
        name = column(found, "name")[int(np.argmax(distances))]
        assert found["notes"] == [
            "the estimates are the trained model's, all other numbers are those of the exact optimum",
            f"largest distance from the optimum: {distances.max():.2g} standard errors ({name})"
            + ("; p values and intervals do not hold, train longer" if weighted else ""),
        ]
        robust = reference(weight=COLUMNS["w"] if weighted else None, cov_type="HC3")
        np.testing.assert_allclose(column(inspect(linreg, "--robust", "HC3"), "std_error"), robust.bse, rtol=1e-7)


def test_a_trained_model_with_dependent_columns_has_no_distance(linreg):
    write_table(double=2 * COLUMNS["a"])
    source = {"name": "csv", "path": "t.csv", "target": "y", "features": ["a", "double"]}
    found = inspected(linreg, write_spec("trained.yaml", data__source=source, data__standardize=True))
    assert found["notes"][1] == (
        "it divides the effect among linearly dependent columns, so p values and intervals do not hold"
    )
    assert "other columns: no standard error" in " ".join(linreg("inspect").out.split())


def test_longley_has_the_certified_statistics(linreg):
    """https://www.itl.nist.gov/div898/strd/lls/data/Longley.shtml"""
    from tests.exact.test_certified import SETS

    (case,) = [case for case in SETS if case.name == "Longley"]
    rows = [",".join(map(str, row)) for row in case.table]
    Path("t.csv").write_text("\n".join(["x1,x2,x3,x4,x5,x6,y", *rows]) + "\n")
    found = inspected(linreg, exact_spec(source={"features": [f"x{i}" for i in range(1, 7)]}))
    assert found["f"]["value"] == pytest.approx(330.285339234588, rel=1e-11)
    assert found["r2"] == pytest.approx(0.995479004577296, rel=1e-12)
    assert found["residual_std_error"] == pytest.approx(304.854073561965, rel=1e-11)
    assert "condition number 110.5: some columns nearly depend on others" in linreg("inspect").out
    assert "largest VIF 1789 (x2); 5 above 10" in linreg("inspect").out


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"ridge": 2.0}, "a penalty biases the coefficients, so there are no standard errors"),
        ({"penalty": {"name": "lasso", "strength": 0.1}}, "a penalty biases the coefficients, so there are no standard errors"),
        (
            {"source": {"path": "three.csv"}},
            "3 coefficients for 3 rows leave no degrees of freedom, so there are no standard errors",
        ),
        (
            {"source": {"target": "perfect"}},
            "perfect fit of perfect: residuals are zero up to rounding, so standard errors and tests are not meaningful",
        ),
    ],
)  # fmt: skip
def test_missing_inference_is_described(linreg, changes, note):
    write_table(perfect=1 + 2 * COLUMNS["a"] - COLUMNS["b"])
    Path("three.csv").write_text("".join(Path("t.csv").read_text().splitlines(keepends=True)[:4]))
    found = inspected(linreg, exact_spec(**changes))
    assert found["notes"] == [note]
    for key in ("t", "p", "low", "high"):
        assert column(found, key) == [None] * 3
    assert found["f"] is found["log_likelihood"] is found["aic"] is found["bic"] is None
    text = linreg("inspect").out
    assert " ".join(text.split()).count(f"note: {note}") == 1
    assert "nan" not in text
    answer = linreg("inspect", "--robust", "HC3")
    if "perfect" in note:
        assert column(inspect(linreg, "--robust", "HC3"), "t") == [None] * 3
    else:
        assert (answer.code, answer.err.splitlines()[-1]) == (2, f"error: --robust: {found['checkpoint']}: {note}")


def test_a_transformed_target_and_left_out_columns_are_described(linreg):
    write_table(double=2 * COLUMNS["a"], y=np.exp(COLUMNS["z"]))
    changes = {"source": {"features": ["a", "double"]}, "data__target_transform": {"name": "log"}}
    found = inspected(linreg, exact_spec(**changes))
    expected = reference(DESIGN[:, :2], COLUMNS["z"])
    np.testing.assert_allclose(column(found, "std_error")[:2], expected.bse, **CLOSE)
    assert found["notes"] == ["all numbers describe log(y), not the target itself"]
    text = " ".join(linreg("inspect").out.split())
    assert "least squares of log(y) on 80 training rows; solved exactly" in text
    assert "note: double is constant, or linearly dependent on other columns: coefficient 0" in text
    expected = reference(DESIGN[:, :2], COLUMNS["z"], cov_type="HC3")
    robust = inspect(linreg, "--robust", "HC3")
    np.testing.assert_allclose(column(robust, "std_error")[:2], expected.bse, **CLOSE)


def test_names_of_wide_characters_are_aligned(linreg):
    names = ["長さ", "とても長い名前の列" * 4]
    columns = dict(zip([*names, "y"], (COLUMNS[name].tolist() for name in "aby"), strict=True))
    rows = zip(*columns.values(), strict=True)
    Path("t.csv").write_text(",".join(columns) + "\n" + "".join(",".join(map(str, row)) + "\n" for row in rows))
    inspected(linreg, exact_spec(source={"features": names}))
    lines = linreg("inspect").out.splitlines()
    rows = [line for line in lines if re.match("intercept|長さ|とても.*…", line)]
    assert len(rows) == 3
    assert len({cell_len(line) for line in rows}) == 1
    assert cell_len(rows[0]) <= 79


def test_robust_errors_need_the_data_as_it_was(linreg, table):
    path = inspected(linreg, exact_spec())["checkpoint"]
    Path("t.csv").rename("moved.csv")
    answer = linreg("inspect", "--robust", "HC3")
    assert (answer.code, "t.csv" in answer.err) == (3, True)
    write_table(a=COLUMNS["a"] + 1)
    answer = linreg("inspect", "--robust", "HC3")
    assert answer.code == 3
    assert answer.err.splitlines()[-1] == f"error: {path}: data.source has changed since training; restore the old data"
    assert linreg("inspect").code == 0


def test_mistakes_in_the_options_are_reported(linreg):
    lonely = np.zeros(N)
    lonely[3] = 1.0
    write_table(lonely=lonely, one=np.ones(N), gap=["", *range(1, N)])
    inspected(linreg, exact_spec(source={"features": ["a", "lonely"]}))
    cases = {
        ("--level", "95"): (2, "--level: must be between 0 and 1, got 95; write for instance 0.95"),
        ("--robust", "hc3"): (2, "--robust hc3: did you mean 'HC3'?"),
        ("--robust", "white"): (2, "--robust white: known: HC0, HC1, HC2, HC3, cluster=COLUMN"),
        ("--robust", "cluster"): (2, "--robust cluster: no column; write for instance cluster=plant"),
        ("--robust", "cluster=x"): (2, "--robust cluster=x: t.csv has no column 'x'; known: a, b, k"),
        ("--robust", "cluster=one"): (3, "--robust cluster=one: the training rows are one group; use a column with several"),
        ("--robust", "cluster=gap"): (3, "t.csv: row 1, column 'gap': missing, and it divides the rows"),
        ("--robust", "HC3"): (3, "--robust HC3: t.csv: row 4 has the leverage 1 (it alone determines a coefficient)"),
    }  # fmt: skip
    for arguments, (code, message) in cases.items():
        answer = linreg("inspect", *arguments)
        assert (answer.code, answer.err.splitlines()[-1].startswith(f"error: {message}")) == (code, True), answer.err
    assert linreg("inspect", "--robust", "HC1").code == 0
    linreg("train", write_spec("net.yaml", model={"name": "mlp", "hidden": [3]}), "-q")
    answer = linreg("inspect", "--robust", "HC3")
    assert answer.code == 2
    assert "has no least-squares optimum; it needs a linear model and the loss mse" in answer.err
    assert linreg("inspect").out.startswith("no coefficients with standard errors: they need a model that is linear")


def test_the_summary_fits_80_columns_and_cuts_many_coefficients(linreg):
    rng = np.random.default_rng(5)
    names = [f"a_rather_long_name_of_a_measured_quantity_{i}_in_some_unit" for i in range(70)]
    x = rng.normal(size=(200, 70)) * 10.0 ** rng.integers(-9, 9, 70)
    lines = [",".join([*names, "y"])] + [",".join(map(repr, [*map(float, row), float(row[0])])) for row in x + 0.0]
    Path("t.csv").write_text("\n".join(lines) + "\n")
    noisy = [line.rsplit(",", 1)[0] + f",{rng.normal() * 1e-7!r}" for line in lines[1:]]
    Path("t.csv").write_text("\n".join([lines[0], *noisy]) + "\n")
    linreg("train", exact_spec(source={"features": names}), "-q")
    out = linreg("inspect").out
    assert max(map(len, out.splitlines())) <= 79
    assert "... 11 more in --json" in out
    assert sum(line.startswith("a_rath") for line in out.splitlines()) == 59  # and the intercept
    assert len(inspect(linreg)["coefficients"]) == 71


def test_a_checkpoint_of_an_earlier_version_has_all_but_the_likelihood(linreg, table):
    path = Path(inspected(linreg, exact_spec(source={"sample_weight": "w"}))["checkpoint"])
    old = load(path)
    for key in ("log_weights", "relations", "r2_uncentred", "targets", "penalty"):
        del old.fit[key]
    save(path, old)
    found = inspect(linreg, "--robust", "HC0")
    assert found["aic"] is None
    assert found["f"] is not None
    assert found["notes"] == ["no log-likelihood: the checkpoint of an earlier version lacks a sum; train again"]


@pytest.mark.parametrize("spec", [{}, {"data": 1, "model": [], "solver": "exact", "ridge": "a"}])
def test_a_checkpoint_with_any_spec_has_a_summary(linreg, table, spec):
    path = Path(inspected(linreg, exact_spec())["checkpoint"])
    save(path, replace(load(path), spec=spec))
    answer = linreg("inspect")
    assert answer.code == 0, answer.err
    assert "R2" in answer.out


def test_robust_errors_read_many_blocks_of_a_mapped_table(linreg):
    n = 40_000
    rng = np.random.default_rng(1)
    x, weight, group = rng.normal(3, 2, n), rng.uniform(0.5, 2, n), rng.integers(0, 500, n)
    y = 1 + 2 * x + rng.normal(0, np.abs(x))
    rows = zip(x.tolist(), weight.tolist(), group.tolist(), y.tolist(), strict=True)
    Path("t.csv").write_text("a,w,g,y\n" + "".join(",".join(map(repr, row)) + "\n" for row in rows))
    inspected(linreg, exact_spec(source={"features": "a", "sample_weight": "w"}, data__memory="mapped"))
    design = np.c_[np.ones(n), x]
    for option, kind, kwds in (("HC3", "HC3", None), ("cluster=g", "cluster", {"groups": group})):
        compare(inspect(linreg, "--robust", option), reference(design, y, weight, cov_type=kind, cov_kwds=kwds))
