"""Paths from triangles against scikit-learn on columns standardised by hand, refits, and the conditions of optima."""

import warnings
from dataclasses import dataclass, replace

import numpy as np
import pytest
from sklearn import linear_model

from linreg.exact import paths
from linreg.exact.least_squares import Factor, mean_squared_errors, stack


@dataclass(frozen=True)
class Rows:
    """x (n, p), y (n, n_targets), w (n,), and whether the design has an intercept."""

    x: np.ndarray
    y: np.ndarray
    w: np.ndarray
    intercept: bool

    @property
    def triangle(self):
        n, p = self.x.shape
        factor = Factor(p + self.intercept, self.y.shape[1], intercept=self.intercept)
        factor.add(np.hstack([np.ones((n, int(self.intercept))), self.x]), self.y, self.w)
        return factor.triangle()

    @property
    def problem(self):
        return paths.standardise(self.triangle)

    def standardised(self, values):
        """Return values (n, m) on the scale of the training rows' x, a constant column as 0."""
        mean = np.average(self.x, axis=0, weights=self.w) if self.intercept else np.zeros(self.x.shape[1])
        scale = np.sqrt(np.average((self.x - mean) ** 2, axis=0, weights=self.w))
        is_constant = scale < 1e-10 * np.abs(self.x).max(axis=0)
        return np.where(is_constant, 0, values - mean) / np.where(is_constant, 1, scale)

    def chosen(self, index):
        return replace(self, x=self.x[index], y=self.y[index], w=self.w[index])


def make_rows(seed=0, *, intercept=True, weighted=True, n=60, p=6, n_targets=2):
    random = np.random.default_rng(seed)
    x = random.normal(2, 1, (n, p)) * random.uniform(0.1, 30, p) + 0.5 * random.normal(0, 5, (n, 1))
    slopes = random.normal(0, 1, (p, n_targets)) * (random.uniform(0, 1, (p, 1)) < 0.6)
    y = 7 + x @ slopes + random.normal(0, 5, (n, n_targets))
    return Rows(x, y, random.uniform(0.1, 3, n) if weighted else np.ones(n), intercept)


def coefficient_path(problem, strengths, *, l1_ratio):
    return paths.original_coefficients(problem, paths.slopes_path(problem, strengths, l1_ratio=l1_ratio))


CASES = [
    {"seed": 0, "intercept": True, "weighted": True, "n_targets": 1},
    {"seed": 1, "intercept": True, "weighted": False, "n_targets": 3},
    {"seed": 2, "intercept": False, "weighted": True, "n_targets": 2},
    {"seed": 3, "intercept": False, "weighted": False, "n_targets": 1, "p": 1},
    {"seed": 4, "intercept": True, "weighted": True, "n": 300, "p": 20},
]
cases = pytest.mark.parametrize("case", CASES)


def fitted(estimator, rows):
    """Return the intercept (n_targets,) and the slopes (p, n_targets) of a scikit-learn estimator."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no estimator converges to a tolerance below rounding
        estimator.set_params(fit_intercept=rows.intercept)
        estimator.fit(rows.standardised(rows.x), rows.y, sample_weight=rows.w)
    return np.zeros(rows.y.shape[1]) + estimator.intercept_, np.atleast_2d(estimator.coef_).T


def predictions(coefficients, x, intercept):
    return np.hstack([np.ones((len(x), int(intercept))), x]) @ coefficients


def assert_optimal(rows, slopes, strength, l1_ratio, tolerance=1e-11):
    """Compare the derivatives of the loss over the rows with the subgradient of the penalty."""
    x, w = rows.standardised(rows.x), rows.w[:, None]
    y = rows.y - (np.average(rows.y, axis=0, weights=rows.w) if rows.intercept else 0)
    downhill = (w * x).T @ (y - x @ slopes) / w.sum() - strength * (1 - l1_ratio) * slopes
    allowed = tolerance * np.sqrt(np.average(y**2, axis=0, weights=rows.w))
    violation = np.where(
        slopes != 0, np.abs(downhill - strength * l1_ratio * np.sign(slopes)), np.abs(downhill) - strength * l1_ratio
    )
    assert (violation <= allowed).all(), (violation / allowed).max()


@cases
def test_ridge_path_is_scikit_learns(case):
    rows, strengths = make_rows(**case), np.array([1e4, 30.0, 1.0, 1e-3, 0.0])
    slopes = paths.ridge_path(rows.problem, strengths)
    coefficients = paths.original_coefficients(rows.problem, slopes)
    for i, strength in enumerate(strengths):
        intercept, expected = fitted(linear_model.Ridge(alpha=strength, solver="svd"), rows)
        np.testing.assert_allclose(slopes[i], expected, atol=1e-11 * np.abs(expected).max())
        yhat = predictions(coefficients[i], rows.x, rows.intercept)
        np.testing.assert_allclose(yhat, intercept + rows.standardised(rows.x) @ expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("l1_ratio", [1.0, 0.5, 0.05])
@cases
def test_elastic_net_path_is_scikit_learns(case, l1_ratio):
    rows = make_rows(**case)
    strengths = paths.automatic_strengths(rows.problem, l1_ratio=l1_ratio, n_strengths=12)
    slopes = paths.elastic_net_path(rows.problem, strengths, l1_ratio=l1_ratio)
    coefficients = paths.original_coefficients(rows.problem, slopes)
    for i, strength in enumerate(strengths):
        model = linear_model.ElasticNet(alpha=strength, l1_ratio=l1_ratio, tol=1e-14, max_iter=20_000)
        intercept, expected = fitted(model, rows)
        np.testing.assert_allclose(slopes[i], expected, atol=1e-8 * np.abs(slopes).max())
        yhat = predictions(coefficients[i], rows.x, rows.intercept)
        np.testing.assert_allclose(yhat, intercept + rows.standardised(rows.x) @ expected, atol=1e-7 * np.ptp(rows.y))


@pytest.mark.parametrize("l1_ratio", [1.0, 0.3])
@cases
def test_the_slopes_that_are_not_zero_solve_the_normal_equations_for_their_signs(case, l1_ratio):
    rows = make_rows(**case)
    strengths = paths.automatic_strengths(rows.problem, l1_ratio=l1_ratio)
    slopes = paths.elastic_net_path(rows.problem, strengths, l1_ratio=l1_ratio)
    x, w = rows.standardised(rows.x), rows.w / rows.w.sum()
    for strength, chosen in zip(strengths[1:], slopes[1:], strict=True):
        for b, y in zip(chosen.T, rows.y.T, strict=True):
            active = np.flatnonzero(b)
            design = x[:, active]
            centred = y - (np.average(y, weights=w) if rows.intercept else 0)
            left = (design * w[:, None]).T @ design + strength * (1 - l1_ratio) * np.eye(len(active))
            right = design.T @ (w * centred) - strength * l1_ratio * np.sign(b[active])
            np.testing.assert_allclose(b[active], np.linalg.solve(left, right), rtol=1e-10, atol=1e-12)


def dependent_rows(kind, intercept):
    random = np.random.default_rng(8)
    rows = make_rows(8, intercept=intercept, n=40, p=5)
    x = {
        "duplicates": np.hstack([rows.x, rows.x * [1, -1, 2, -3, 1]]),
        "sums": np.hstack([rows.x, rows.x @ random.integers(-1, 2, (5, 4))]),
        "almost": np.hstack([rows.x, rows.x @ random.integers(-1, 2, (5, 4)) + 1e-7 * random.normal(0, 1, (40, 4))]),
        "dummies": random.integers(0, 2, (40, 12)).astype(float),
        "wide": random.normal(1, 1, (40, 90)),
    }[kind]
    return replace(rows, x=x)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("l1_ratio", [1.0, 0.7])
@pytest.mark.parametrize("kind", ["duplicates", "sums", "almost", "dummies", "wide"])
def test_linearly_dependent_columns_have_an_optimum_too(kind, l1_ratio, intercept):
    rows = dependent_rows(kind, intercept)
    strengths = paths.automatic_strengths(rows.problem, l1_ratio=l1_ratio, n_strengths=40)
    for chosen in (strengths, strengths[-1:], strengths[::-1]):  # the order does not matter
        slopes = paths.elastic_net_path(rows.problem, chosen, l1_ratio=l1_ratio)
        for strength, b in zip(chosen, slopes, strict=True):
            assert_optimal(rows, b, strength, l1_ratio)


@pytest.mark.parametrize("l1_ratio", [1.0, 0.5])
def test_the_search_ends_in_spite_of_rounding(l1_ratio):
    for seed in range(40):  # without a growing tolerance every eighth search goes on for ever
        random = np.random.default_rng(seed)
        x = random.normal(0, 1, (40, 1)) * [1, -1, 1] + 1e-6 * random.normal(0, 1, (40, 3))
        rows = Rows(x, x @ random.integers(-2, 3, (3, 1)), np.ones(40), True)
        strengths = paths.automatic_strengths(rows.problem, l1_ratio=l1_ratio, ratio=1e-6)
        slopes = paths.elastic_net_path(rows.problem, strengths, l1_ratio=l1_ratio)
        for strength, b in zip(strengths, slopes, strict=True):
            assert_optimal(rows, b, strength, l1_ratio, tolerance=1e-9)  # terms that cancel have larger rounding


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("kind", ["duplicates", "sums", "wide"])
def test_ridge_at_strength_0_is_least_squares_of_minimal_norm(kind, intercept):
    rows = dependent_rows(kind, intercept)
    root = np.sqrt(rows.w)[:, None]
    y = rows.y - (np.average(rows.y, axis=0, weights=rows.w) if intercept else 0)
    expected = np.linalg.lstsq(root * rows.standardised(rows.x), root * y, rcond=1e-11)[0]
    for slopes in (
        paths.ridge_path(rows.problem, np.zeros(1)),
        paths.elastic_net_path(rows.problem, np.zeros(1), l1_ratio=1.0),
    ):
        np.testing.assert_allclose(slopes[0], expected, atol=1e-10 * np.abs(expected).max())


@pytest.mark.parametrize("l1_ratio", [None, 1.0, 0.5])
def test_a_constant_column_has_the_coefficient_0_and_changes_no_other(l1_ratio):
    rows = make_rows(5)
    more = replace(rows, x=np.insert(rows.x, 2, 1234.5678, axis=1))
    strengths = paths.automatic_strengths(rows.problem, l1_ratio=l1_ratio, n_strengths=10)
    found = coefficient_path(more.problem, strengths, l1_ratio=l1_ratio)
    assert (found[:, 3] == 0).all()
    expected = coefficient_path(rows.problem, strengths, l1_ratio=l1_ratio)
    np.testing.assert_allclose(np.delete(found, 3, axis=1), expected, rtol=1e-9, atol=1e-12)


def test_a_constant_column_is_like_any_other_without_an_intercept():
    rows = make_rows(5, intercept=False)
    rows = replace(rows, x=np.insert(rows.x, 2, 3.0, axis=1))
    assert (coefficient_path(rows.problem, np.array([0.1]), l1_ratio=1.0)[:, 2] != 0).all()


@pytest.mark.parametrize("l1_ratio", [None, 0.0, 1.0])
def test_a_constant_target_has_slopes_of_0_and_a_design_without_columns_only_an_intercept(l1_ratio):
    rows = make_rows(6, n_targets=1)
    rows = replace(rows, y=np.full_like(rows.y, 0.1))
    strengths = paths.automatic_strengths(rows.problem, l1_ratio=l1_ratio, n_strengths=5)
    assert (strengths > 0).all()
    found = coefficient_path(rows.problem, strengths, l1_ratio=l1_ratio)
    np.testing.assert_allclose(found, np.r_[0.1, np.zeros(6)][None, :, None] * np.ones((5, 1, 1)), rtol=1e-12)
    empty = make_rows(6, p=0)
    strengths = paths.automatic_strengths(empty.problem, l1_ratio=l1_ratio, n_strengths=5)
    found = coefficient_path(empty.problem, strengths, l1_ratio=l1_ratio)
    expected = np.average(empty.y, axis=0, weights=empty.w)
    np.testing.assert_allclose(found, np.tile(expected, (5, 1, 1)), rtol=1e-12)


@pytest.mark.parametrize("l1_ratio", [None, 1.0])
def test_columns_far_from_0_lose_no_digits_by_squares(l1_ratio):
    near = make_rows(7, n=6000, p=4)  # beyond extended precision
    near = replace(near, x=np.round(near.x * 64) / 64)
    far = replace(near, x=near.x + 2.0**26)
    strengths = paths.automatic_strengths(near.problem, l1_ratio=l1_ratio, n_strengths=10)
    found = coefficient_path(far.problem, strengths, l1_ratio=l1_ratio)[:, 1:]
    expected = coefficient_path(near.problem, strengths, l1_ratio=l1_ratio)[:, 1:]
    np.testing.assert_allclose(found, expected, atol=1e-6 * np.abs(expected).max())


@cases
def test_elastic_net_without_l1_is_ridge_with_the_total_weight_times_the_strength(case):
    rows, strengths = make_rows(**case), np.array([2.0, 0.1])
    ridge = paths.ridge_path(rows.problem, strengths * rows.w.sum())
    np.testing.assert_array_equal(paths.elastic_net_path(rows.problem, strengths, l1_ratio=0.0), ridge)
    almost = paths.elastic_net_path(rows.problem, strengths, l1_ratio=1e-9)
    np.testing.assert_allclose(almost, ridge, atol=1e-6 * np.abs(ridge).max())
    for strength, slopes in zip(strengths, ridge, strict=True):
        assert_optimal(rows, slopes, strength, 0.0)


@pytest.mark.parametrize("l1_ratio", [1.0, 0.2])
@cases
def test_the_largest_automatic_strength_is_the_smallest_with_slopes_of_0(case, l1_ratio):
    problem = make_rows(**case).problem
    strengths = paths.automatic_strengths(problem, l1_ratio=l1_ratio, n_strengths=9, ratio=1e-4)
    np.testing.assert_allclose(strengths[1:] / strengths[:-1], 10**-0.5, rtol=1e-12)
    assert len(strengths) == 9
    slopes = paths.elastic_net_path(problem, strengths[0] * np.array([1.5, 1.0, 0.999]), l1_ratio=l1_ratio)
    assert (slopes[:2] == 0).all() and slopes[2].any()
    assert len(paths.automatic_strengths(problem, l1_ratio=l1_ratio)) == 100


def test_automatic_strengths_of_ridge_go_from_slopes_of_almost_0_to_almost_least_squares():
    rows = make_rows(4)
    strengths = paths.automatic_strengths(rows.problem, l1_ratio=None)
    slopes = paths.ridge_path(rows.problem, np.r_[strengths, 0.0])
    assert (np.linalg.norm(slopes[0], axis=0) <= 1e-3 * np.linalg.norm(slopes[-1], axis=0)).all()
    np.testing.assert_allclose(slopes[-2], slopes[-1], rtol=1e-3)
    eigenvalues = np.linalg.eigvalsh((rows.w[:, None] * rows.standardised(rows.x)).T @ rows.standardised(rows.x))
    np.testing.assert_allclose(strengths[[0, -1]], [1e3 * eigenvalues[-1], 1e-6 * eigenvalues[-1]], rtol=1e-9)
    per_weight = paths.automatic_strengths(rows.problem, l1_ratio=0.0)
    np.testing.assert_allclose(per_weight * rows.w.sum(), strengths, rtol=1e-12)


@cases
def test_stacked_triangles_are_the_triangle_of_all_rows(case):
    rows = make_rows(**case)
    parts = [rows.chosen(np.arange(len(rows.x)) % 3 == i) for i in range(3)]
    stacked, whole = stack([part.triangle for part in parts]), rows.triangle
    assert (stacked.n_rows, stacked.total_weight) == (whole.n_rows, pytest.approx(whole.total_weight, rel=1e-14))
    stacked, whole = stacked.values, whole.values
    assert stacked.shape == whole.shape and not np.tril(stacked, -1).any()
    np.testing.assert_allclose(np.abs(stacked).astype(float), np.abs(whole).astype(float), rtol=1e-9, atol=1e-12)


@cases
def test_mean_squared_errors_of_a_path_are_those_on_the_rows(case):
    rows, others = make_rows(**case), make_rows(**{**case, "seed": 99})
    coefficients = coefficient_path(rows.problem, np.array([5.0, 0.5, 0.05]), l1_ratio=1.0)
    found = mean_squared_errors(others.triangle, coefficients)
    for error, b in zip(found, coefficients, strict=True):
        squares = (others.y - predictions(b, others.x, rows.intercept)) ** 2
        np.testing.assert_allclose(error, np.average(squares, axis=0, weights=others.w), rtol=1e-11)


@pytest.mark.parametrize("l1_ratio", [None, 1.0, 0.4])
@cases
def test_cross_validation_is_a_loop_over_folds_with_scikit_learn(case, l1_ratio):
    rows, strengths = make_rows(**case), np.array([20.0, 2.0, 0.2, 0.02])
    fold_of = np.random.default_rng(1).integers(0, 4, len(rows.x))
    folds = [rows.chosen(fold_of == fold) for fold in range(4)]
    pairs = [(rows.chosen(fold_of != number).triangle, fold.triangle) for number, fold in enumerate(folds)]
    scale = np.arange(1.0, rows.y.shape[1] + 1)
    found = paths.cross_validate(pairs, strengths, l1_ratio=l1_ratio, scale=scale)
    expected = np.empty((4, 4))
    for fold, val in enumerate(folds):
        train = rows.chosen(fold_of != fold)
        for i, strength in enumerate(strengths):
            if l1_ratio is None:
                model = linear_model.Ridge(alpha=strength, solver="svd")
            else:
                model = linear_model.ElasticNet(alpha=strength, l1_ratio=l1_ratio, tol=1e-14, max_iter=20_000)
            intercept, slopes = fitted(model, train)
            squares = (val.y - intercept - train.standardised(val.x) @ slopes) ** 2
            expected[fold, i] = (np.average(squares, axis=0, weights=val.w) * scale**2).mean()
    np.testing.assert_allclose(found, expected, rtol=1e-7)


def test_choose_takes_the_least_mean_error_or_the_largest_strength_within_one_standard_error():
    # means 8, 6, 5, 6; the errors at the third have the standard deviation sqrt(8) and the standard error 2
    errors = np.array([[9.0, 6.0, 3.0, 6.0], [7.0, 6.0, 7.0, 6.0]])
    assert paths.choose(errors, "best") == 2
    assert paths.choose(errors, "one_se") == 1
    assert paths.choose(errors - [0.5, 0, 0, 0], "one_se") == 1
    assert paths.choose(errors - [1, 0, 0, 0], "one_se") == 0  # 7 is 5 + 2
    assert paths.choose(np.ones((3, 4)), "best") == 0  # of equal strengths the largest
