"""The diagnostics of `evaluate` against statsmodels, the refitted model, and arithmetic."""

import json
from pathlib import Path

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats
from statsmodels.nonparametric.smoothers_lowess import lowess
from statsmodels.stats.diagnostic import het_breuschpagan
from statsmodels.stats.outliers_influence import OLSInfluence
from statsmodels.stats.stattools import durbin_watson, jarque_bera

from linreg.exact import diagnostics
from linreg.exact.diagnostics import Diagnosis
from linreg.experiment import diagnosing
from linreg.experiment.diagnosing import diagnose, divided
from linreg.experiment.loaded import LoadedModel
from linreg.experiment.selection import select
from linreg.runs.residual_plots import smooth
from tests.conftest import run_with_peak, write_spec
from tests.exact.test_exact import COLUMNS, DESIGN, N, exact_spec, write_table

CLOSE = {"rtol": 1e-9, "atol": 0}
M = N * 3 // 4
ORDER = {"data__split": {"by": "order", "train_ratio": 0.75}}  # M rows for training


def train(linreg, *arguments):
    answer = linreg("train", *arguments, "-q")
    assert answer.code == 0, answer.err


def diagnostics_of(linreg, *options):
    answer = linreg("evaluate", "--json", "--diagnostics", *options)
    assert answer.code == 0, answer.err
    return json.loads(answer.out)["diagnostics"]


def drawn(*, part="train"):
    """All rows of a small part, in the order of the table."""
    model = LoadedModel("checkpoints/small_001/last.pth", device="cpu")
    (one,) = diagnose(model, select(model, part=part))
    return one.found.drawn.take(np.argsort(one.found.drawn.number))


def whitened(y, weight, design=DESIGN):
    """A least-squares fit of rows that are multiplied by the square roots of their weights."""
    root = np.sqrt(weight)
    return sm.OLS(root * y, root[:, None] * design).fit()


@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_diagnostics_of_a_fit_are_those_of_statsmodels(linreg, table, weighted, standardize):
    source = {"sample_weight": "w"} if weighted else {}
    train(linreg, exact_spec(source=source, data__standardize=standardize, **ORDER))
    (found,) = diagnostics_of(linreg, "--part", "train")
    y, design = COLUMNS["y"][:M], DESIGN[:M]
    fit = whitened(y, COLUMNS["w"][:M] if weighted else np.ones(M), design)
    influence, rows = OLSInfluence(fit), drawn()
    for name, expected in {
        "residual": y - design @ fit.params,
        "leverage": influence.hat_matrix_diag,
        "standardized": influence.resid_studentized_internal,
        "studentized": influence.resid_studentized_external,
        "cooks_distance": influence.cooks_distance[0],
    }.items():
        np.testing.assert_allclose(getattr(rows, name), expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())
    lm, p, *_ = het_breuschpagan(fit.resid, design)
    assert found["breusch_pagan"]["value"] == pytest.approx(lm, rel=1e-9)
    assert found["breusch_pagan"]["p"] == pytest.approx(p, rel=1e-9)
    assert (found["breusch_pagan"]["degrees_of_freedom"], found["breusch_pagan"]["regressors"]) == (2, "columns")
    value, p, skew, kurtosis = jarque_bera(fit.resid)
    expected = {"value": value, "degrees_of_freedom": 2, "p": p, "skew": skew, "kurtosis": kurtosis}
    assert found["jarque_bera"] == pytest.approx(expected, rel=1e-9)
    assert found["durbin_watson"] == pytest.approx(durbin_watson(fit.resid), rel=1e-9)
    assert found["residual_std"] == pytest.approx(np.sqrt(fit.mse_resid), rel=1e-9)
    assert (found["n_rows"], found["n_coefficients"], found["notes"]) == (M, 3, [])


def test_the_influential_rows_are_those_that_change_the_fit_most_when_they_are_left_out(linreg, table):
    train(linreg, exact_spec())
    (found,) = diagnostics_of(linreg)
    whole, distances = np.linalg.lstsq(DESIGN, COLUMNS["y"], rcond=None)[0], []
    variance = ((COLUMNS["y"] - DESIGN @ whole) ** 2).sum() / (N - 3)
    for row in range(N):
        others = np.arange(N) != row
        without = np.linalg.lstsq(DESIGN[others], COLUMNS["y"][others], rcond=None)[0]
        distances.append(((DESIGN @ (whole - without)) ** 2).sum() / (3 * variance))  # Cook's definition
    order = np.argsort(distances)[::-1][:10]
    assert [(row["file"], row["row"]) for row in found["influential"]] == [("t.csv", row + 1) for row in order]
    cooks = [row["cooks_distance"] for row in found["influential"]]
    np.testing.assert_allclose(cooks, np.array(distances)[order], rtol=1e-8)
    assert [row["y"] for row in found["influential"]] == [COLUMNS["y"][row] for row in order]


def test_rows_with_the_weight_0_do_not_count_and_rows_keep_their_numbers(linreg):
    weight = COLUMNS["w"] * (np.arange(N) % 4 > 0)
    write_table(w=weight)
    train(linreg, exact_spec(source={"sample_weight": "w"}, **ORDER))
    (found,) = diagnostics_of(linreg, "--part", "train")
    used = (weight > 0) & (np.arange(N) < M)
    fit = whitened(COLUMNS["y"][used], weight[used], DESIGN[used])
    assert found["n_rows"] == used.sum()
    assert found["durbin_watson"] == pytest.approx(durbin_watson(fit.resid), rel=1e-9)
    cooks = np.zeros(N)
    cooks[used] = OLSInfluence(fit).cooks_distance[0]
    order = np.argsort(cooks)[::-1][:10]
    assert [row["row"] for row in found["influential"]] == (order + 1).tolist()
    np.testing.assert_allclose([row["cooks_distance"] for row in found["influential"]], cooks[order], **CLOSE)


def test_a_categorical_column_without_its_reference_is_a_degree_of_freedom_less(linreg, table):
    train(linreg, exact_spec(source={"features": ["a", "k"], "categorical": "k"}))
    (found,) = diagnostics_of(linreg)
    dummies = [COLUMNS["k"] == level for level in ("9", "u", "v")]
    design = np.column_stack([np.ones(N), COLUMNS["a"], *dummies]).astype(float)
    fit = sm.OLS(COLUMNS["y"], design).fit()
    assert (found["n_coefficients"], found["breusch_pagan"]["degrees_of_freedom"]) == (5, 4)
    assert found["breusch_pagan"]["value"] == pytest.approx(het_breuschpagan(fit.resid, design)[0], rel=1e-9)
    largest = np.sort(OLSInfluence(fit).cooks_distance[0])[::-1][:10]
    np.testing.assert_allclose([row["cooks_distance"] for row in found["influential"]], largest, **CLOSE)


def test_a_model_without_an_intercept_has_one_in_the_breusch_pagan_test(linreg, table):
    train(linreg, exact_spec(model={"name": "linear", "bias": False}))
    (found,) = diagnostics_of(linreg)
    fit = sm.OLS(COLUMNS["y"], DESIGN[:, 1:]).fit()
    assert found["breusch_pagan"]["value"] == pytest.approx(het_breuschpagan(fit.resid, DESIGN)[0], rel=1e-9)
    np.testing.assert_allclose(drawn().leverage, OLSInfluence(fit).hat_matrix_diag, **CLOSE)


def test_each_target_has_its_own_and_a_polynomial_has_leverage(linreg, table):
    train(linreg, exact_spec(source={"target": ["y", "z"], "features": "a"}, model={"name": "polynomial", "degree": 2}))
    found = diagnostics_of(linreg)
    powers = COLUMNS["a"][:, None] ** np.arange(3)
    for one, target in zip(found, ("y", "z"), strict=True):
        fit = sm.OLS(COLUMNS[target], powers).fit()
        largest = np.sort(OLSInfluence(fit).cooks_distance[0])[::-1][:10]
        assert one["target"] == target
        np.testing.assert_allclose([row["cooks_distance"] for row in one["influential"]], largest, rtol=1e-7)
        assert one["jarque_bera"]["value"] == pytest.approx(jarque_bera(fit.resid)[0], rel=1e-7)


def test_a_transformed_target_is_diagnosed_as_the_model_is_fitted(linreg):
    y = np.exp(COLUMNS["y"] / 10)
    write_table(y=y)
    train(linreg, exact_spec(data__target_transform={"name": "log"}))
    (found,) = diagnostics_of(linreg)
    fit = sm.OLS(np.log(y), DESIGN).fit()
    assert found["target"] == "log(y)"
    assert found["jarque_bera"]["value"] == pytest.approx(jarque_bera(fit.resid)[0], rel=1e-8)
    np.testing.assert_allclose(drawn().fitted, fit.fittedvalues, rtol=1e-9)


def test_a_trained_model_has_its_own_residuals_and_the_leverage_of_its_columns(linreg, table):
    spec = exact_spec(solver="gradient", epochs=3, data__standardize=True, source={"sample_weight": "w"})
    train(linreg, spec)
    (found,) = diagnostics_of(linreg)
    influence = OLSInfluence(whitened(COLUMNS["y"], COLUMNS["w"]))
    rows = drawn()
    np.testing.assert_allclose(rows.leverage, influence.hat_matrix_diag, rtol=1e-9)
    root, residual = np.sqrt(COLUMNS["w"] / COLUMNS["w"].mean()), rows.residual
    variance = ((root * residual) ** 2).sum() / (N - 3)
    cooks = (root * residual) ** 2 * rows.leverage / (1 - rows.leverage) ** 2 / (3 * variance)
    np.testing.assert_allclose(rows.cooks_distance, cooks, **CLOSE)
    assert np.abs(residual - (COLUMNS["y"] - DESIGN @ whitened(COLUMNS["y"], COLUMNS["w"]).params)).max() > 0.1
    assert "the residuals are those of the trained model; Cook's distance holds if it is near the optimum" in found["notes"]  # fmt: skip


def test_held_out_rows_have_no_leverage_and_say_why(linreg, table):
    train(linreg, exact_spec(data__split={"train_ratio": 0.5, "by": "order"}))
    (found,) = diagnostics_of(linreg)
    half = N // 2
    coefficients = np.linalg.lstsq(DESIGN[:half], COLUMNS["y"][:half], rcond=None)[0]
    error = COLUMNS["y"][half:] - DESIGN[half:] @ coefficients
    assert found["rows"] == "validation part"
    assert found["breusch_pagan"]["value"] == pytest.approx(het_breuschpagan(error, DESIGN[half:])[0], rel=1e-8)
    assert found["durbin_watson"] == pytest.approx(durbin_watson(error), rel=1e-9)
    assert found["jarque_bera"]["value"] == pytest.approx(jarque_bera(error)[0], rel=1e-8)
    order = np.argsort(-np.abs(error))[:10]
    assert [row["row"] for row in found["influential"]] == (half + order + 1).tolist()
    np.testing.assert_allclose(
        [row["standardized"] for row in found["influential"]], (error / np.sqrt(np.mean(error**2)))[order], **CLOSE
    )
    assert {row["cooks_distance"] for row in found["influential"]} == {None}
    assert found["notes"] == ["leverage and Cook's distance exist for the rows of the fit alone: --part train"]


def test_a_table_is_diagnosed_as_a_whole_and_a_network_on_its_fitted_values(linreg, table):
    train(linreg, exact_spec(solver="gradient", dtype="float32", epochs=20, model={"name": "mlp", "hidden": [4]}, data__standardize=True))  # fmt: skip
    (found,) = diagnostics_of(linreg, "--data", "t.csv")
    yhat = LoadedModel("checkpoints/small_001/last.pth", device="cpu")(DESIGN[:, 1:])[:, 0]
    error = COLUMNS["y"] - yhat
    expected = het_breuschpagan(error, sm.add_constant(yhat.astype(float)))
    assert found["breusch_pagan"]["value"] == pytest.approx(expected[0], rel=1e-6)
    assert (found["breusch_pagan"]["regressors"], found["rows"]) == ("fitted values", "t.csv")
    assert found["influential"][0]["row"] == np.argmax(np.abs(error)) + 1
    assert found["notes"] == [
        "no leverage and no Cook's distance: they need a model that is linear in its parameters, the loss mse, and "
        "solver: exact or the baseline",
        "no Durbin-Watson statistic: only a split by order or by a column of times says that rows have an order",
    ]


def test_durbin_watson_follows_the_times_and_not_the_rows(linreg):
    times = np.random.default_rng(5).permutation(N)
    write_table(t=times)
    train(linreg, exact_spec(data__split={"by": {"time": "t"}, "train_ratio": 0.75}))
    for part in ("train", "val"):
        (found,) = diagnostics_of(linreg, "--part", part)
        chosen = np.argsort(times)[: N * 3 // 4] if part == "train" else np.argsort(times)[N * 3 // 4 :]
        training = np.argsort(times)[: N * 3 // 4]
        coefficients = np.linalg.lstsq(DESIGN[training], COLUMNS["y"][training], rcond=None)[0]
        error = COLUMNS["y"][chosen] - DESIGN[chosen] @ coefficients
        assert found["durbin_watson"] == pytest.approx(durbin_watson(error), rel=1e-9)
    (table,) = diagnostics_of(linreg, "--data", "t.csv")
    every = np.argsort(times)
    assert table["durbin_watson"] == pytest.approx(durbin_watson((COLUMNS["y"] - DESIGN @ coefficients)[every]), rel=1e-9)  # fmt: skip
    write_table("other.csv")
    (found,) = diagnostics_of(linreg, "--data", "other.csv")
    assert "no Durbin-Watson statistic: other.csv has no column 't'" in found["notes"]
    write_table(t=times // 2)
    train(linreg, exact_spec(name="pairs", data__split={"by": {"time": "t"}, "train_ratio": 0.75}))
    (found,) = diagnostics_of(linreg)
    assert found["durbin_watson"] is None
    needs = "no Durbin-Watson statistic: it needs two rows or more, each with a time of its own"
    assert needs in found["notes"]


@pytest.mark.parametrize("by", ["order", {"time": "t"}])
def test_durbin_watson_of_a_fit_on_all_rows(linreg, by):
    times = np.arange(N) if by == "order" else np.random.default_rng(5).permutation(N)
    write_table(t=times)
    train(linreg, exact_spec(data__split={"by": by, "train_ratio": 1.0}))
    (found,) = diagnostics_of(linreg, "--part", "train")
    residuals = sm.OLS(COLUMNS["y"], DESIGN).fit().resid
    assert found["durbin_watson"] == pytest.approx(durbin_watson(residuals[np.argsort(times)]), rel=1e-9)


@pytest.mark.parametrize("ridge", [{"ridge": 0.5}, {"penalty": {"name": "ridge", "strength": 1.0}}])
def test_a_penalised_fit_has_no_leverage(linreg, table, ridge):
    train(linreg, exact_spec(**ridge))
    (found,) = diagnostics_of(linreg)
    assert "no leverage and no Cook's distance: a penalty shrinks the coefficients" in found["notes"]
    assert found["ranked_by"] == "standardized"


def test_a_perfect_fit_has_no_tests(linreg):
    write_table(y=3 + 0.5 * COLUMNS["a"] - 200 * COLUMNS["b"])
    train(linreg, exact_spec())
    (found,) = diagnostics_of(linreg)
    assert [found[key] for key in ("breusch_pagan", "jarque_bera", "durbin_watson")] == [None] * 3
    assert found["influential"] == []
    assert found["notes"] == ["perfect fit: the residuals are rounding, so there are no tests and no influential rows"]


def test_as_many_coefficients_as_rows_have_no_tests(linreg):
    """Columns that are nearly the same leave residuals of rounding far above those of another perfect fit."""
    write_table(a=COLUMNS["b"] + 1e-8 * COLUMNS["a"])
    train(linreg, exact_spec(data__split={"by": "order", "train_ratio": 3 / N}))
    (found,) = diagnostics_of(linreg, "--part", "train")
    assert found["n_rows"] == 3
    assert [found[key] for key in ("breusch_pagan", "jarque_bera", "influential")] == [None, None, []]
    assert found["notes"][-1].startswith("perfect fit: the residuals are rounding")


def test_a_row_with_the_leverage_1_is_left_out_and_counted(linreg):
    write_table(k=["v"] + ["u"] * (N - 1))
    train(linreg, exact_spec(source={"features": ["a", "k"], "categorical": "k"}))
    (found,) = diagnostics_of(linreg)
    note = "1 row with the leverage 1, each of which alone determines a coefficient, left out of the list"
    assert note in found["notes"]
    assert 1 not in [row["row"] for row in found["influential"]]
    assert np.isnan(drawn().standardized[0])


def test_few_rows_leave_out_what_they_do_not_determine(linreg):
    Path("t.csv").write_text("a,b,y\n1,2,3\n2,1,5\n4,4,4\n5,3,9\n")
    train(linreg, exact_spec())
    (found,) = diagnostics_of(linreg)
    assert found["n_rows"] == len(found["influential"]) == 4
    assert [row["studentized"] for row in found["influential"]] == [None] * 4  # one degree of freedom, none without it
    answer = linreg("evaluate", "--plot", "few.png")
    assert (answer.code, Path("few.png").exists()) == (0, True)


def test_one_row_and_equal_residuals_are_no_error(linreg):
    write_spec(data__source={"name": "linear", "n_samples": 2}, data__split={"train_ratio": 0.5}, data__batch_size=1)
    train(linreg, "small.yaml")
    (found,) = diagnostics_of(linreg, "--part", "val")
    assert (found["n_rows"], found["jarque_bera"], found["breusch_pagan"]) == (1, None, None)
    assert linreg("evaluate", "--part", "val", "--plot", ".").code == 0


def diagnosis_of(residuals, sizes, **options):
    diagnosis = Diagnosis(1, n_coefficients=None, **options)
    start = 0
    for size in sizes:
        some = slice(start, start + size)
        numbers = np.arange(len(residuals))[some]
        diagnosis.add(numbers, residuals[some], residuals[some], np.ones((len(numbers), 1)))
        start += size
    return diagnosis.result()


def test_a_picture_of_many_rows_has_a_sample_and_the_extremes_at_their_ranks(monkeypatch):
    monkeypatch.setattr(diagnostics, "MOST_DRAWN", 100)
    residuals = np.random.default_rng(1).normal(size=20_000)
    found = diagnosis_of(residuals, [20_000])
    rows = found.drawn
    assert 100 <= len(rows.number) <= 120
    order = np.argsort(residuals)
    extremes = np.argsort(-np.abs(residuals))[:10]
    assert found.largest.number.tolist() == extremes.tolist()
    exact = stats.norm.ppf((np.argsort(order) + 0.5) / 20_000)
    at = [int(np.flatnonzero(rows.number == number)[0]) for number in extremes]
    np.testing.assert_allclose(rows.quantile[at], exact[extremes], rtol=1e-9)
    others = ~np.isin(rows.number, extremes)
    assert np.abs(rows.quantile[others] - exact[rows.number[others]]).max() < 0.6  # as well as a sample of 100 knows
    assert (np.diff(rows.quantile) > 0).all()
    small = diagnosis_of(residuals[:90], [90])
    np.testing.assert_allclose(
        small.drawn.quantile, stats.norm.ppf((np.arange(90) + 0.5) / 90), rtol=1e-9
    )  # as R's ppoints


def test_the_blocks_in_which_rows_come_do_not_matter():
    residuals = np.random.default_rng(2).standard_t(3, size=12_000) + 100
    one, many = (diagnosis_of(residuals, sizes, is_ordered=True) for sizes in ([12_000], [1, 2, 4_997, 7_000]))
    assert one.drawn.number.tolist() == many.drawn.number.tolist()
    assert one.influential.number.tolist() == many.influential.number.tolist()
    for found in (one, many):
        assert found.durbin_watson == pytest.approx(durbin_watson(residuals), rel=1e-9)
        value, _, skew, kurtosis = jarque_bera(residuals)
        assert (found.jarque_bera.value, found.skew, found.kurtosis) == pytest.approx((value, skew, kurtosis), rel=1e-9)


@pytest.mark.parametrize("scale", [1e-100, 1e100])
def test_tests_do_not_depend_on_the_unit_of_the_target(scale):
    residuals = np.random.default_rng(3).normal(size=500)
    found = diagnosis_of(scale * residuals, [100, 400], is_ordered=True)
    assert found.jarque_bera.value == pytest.approx(jarque_bera(residuals)[0], rel=1e-9)
    assert found.durbin_watson == pytest.approx(durbin_watson(residuals), rel=1e-9)


def test_the_trend_is_that_of_statsmodels_lowess():
    random = np.random.default_rng(4)
    x = np.sort(random.uniform(0, 10, 300))
    y = np.sin(x) + random.normal(0, 0.3, 300)
    y[40] = 30
    places, heights = smooth(x, y)
    expected = lowess(y, x, frac=2 / 3, it=2, xvals=places)
    np.testing.assert_allclose(heights, expected, atol=0.02)


def test_places_are_divided_into_file_and_row():
    assert divided("a: row 1.csv: row 12") == ("a: row 1.csv", 12)
    assert divided("row 3") == (None, 3)
    assert divided("sheet 4, line 2") == ("sheet 4, line 2", None)
    assert diagnosing.NUMBERED < diagnostics.MOST_LISTED


def test_diagnostics_of_a_mapped_table_name_the_rows_of_its_source(linreg, table):
    train(linreg, exact_spec(data__memory="mapped", **ORDER))
    mapped = diagnostics_of(linreg)
    train(linreg, exact_spec(name="resident", **ORDER))
    assert mapped == diagnostics_of(linreg)


def test_memory_does_not_grow_with_the_rows(linreg):
    write_spec(data__source={"name": "linear", "n_samples": 10})
    code = (
        "import sys\nimport numpy as np\nfrom linreg.exact.diagnostics import Diagnosis\n"
        "n = int(sys.argv[1])\n"
        "diagnosis, random, size = Diagnosis(2, n_coefficients=None, is_ordered=True), np.random.default_rng(0), 2**14\n"
        "for first in range(0, n, size):\n"
        "    e = random.normal(size=size)\n"
        "    diagnosis.add(np.arange(first, first + size), e, e, np.stack([np.ones(size), e], axis=1))\n"
        "assert diagnosis.result().n_rows == n\nprint(peak())\n"
    )
    few, many = (int(run_with_peak(code, str(n * 2**14))) for n in (8, 128))
    assert many - few < 8e6  # 120 blocks of 16,384 rows have 79 MB of residuals, numbers, y and leverage
