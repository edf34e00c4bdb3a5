"""`solver: exact` against the values that NIST certifies, and those against rational arithmetic."""

import sys
from fractions import Fraction

import numpy as np
import pytest

from tests.conftest import ROOT

sys.path.insert(0, str(ROOT / "docs"))

from certified import SETS
from make_accuracy import certified_values, digits, measure

HARD = {"Filip", "Wampler4", "Wampler5"}


def rational_solution(case):
    """Solve the normal equations without rounding: coefficients, and the squares of the standard deviations."""
    table = [[Fraction(cell) for cell in row] for row in case.table]
    lowest = 0 if case.intercept else 1
    if case.degree == 1:
        rows = [([Fraction(1)] if case.intercept else []) + row[:-1] for row in table]
    else:
        rows = [[row[0] ** power for power in range(lowest, case.degree + 1)] for row in table]
    y = [row[-1] for row in table]
    p = len(rows[0])
    augmented = [
        [sum(row[i] * row[j] for row in rows) for j in range(p)]
        + [sum(row[i] * value for row, value in zip(rows, y, strict=True))]
        + [Fraction(int(i == j)) for j in range(p)]
        for i in range(p)
    ]
    for i in range(p):
        pivot = augmented[i][i]
        augmented[i] = [value / pivot for value in augmented[i]]
        for k in range(p):
            if k != i:
                factor = augmented[k][i]
                augmented[k] = [a - factor * b for a, b in zip(augmented[k], augmented[i], strict=True)]
    coefficients = [row[p] for row in augmented]
    residual = sum(
        (value - sum(c * x for c, x in zip(coefficients, row, strict=True))) ** 2
        for row, value in zip(rows, y, strict=True)
    )
    return coefficients, [residual / (len(rows) - p) * augmented[i][p + 1 + i] for i in range(p)]


@pytest.mark.parametrize("case", SETS, ids=lambda case: case.name)
def test_the_certified_values_are_those_of_the_data(case):
    coefficients, variances = rational_solution(case)
    estimates, deviations = certified_values(case)
    assert digits(np.array([float(c) for c in coefficients]), estimates) > 13.5
    assert digits(np.array([float(v) ** 0.5 for v in variances]), deviations) > 13.5


@pytest.mark.parametrize("case", SETS, ids=lambda case: case.name)
def test_the_exact_solution_has_the_certified_digits_and_no_fewer_than_lstsq(case, tmp_path):
    coefficients, deviations, by_lstsq, deviations_by_lstsq = measure(case, tmp_path)
    assert coefficients >= by_lstsq - 0.5  # half a digit is what the rounding of the last place moves
    assert deviations >= deviations_by_lstsq - 0.5
    if case.name not in HARD:
        assert min(coefficients, deviations) >= 9
