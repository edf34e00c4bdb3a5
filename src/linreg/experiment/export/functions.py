"""The functions of a description as expressions: those of columns, activations, inverses of the target's transform."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from operator import mul
from typing import Any

from linreg.experiment.export.expressions import Expression, call, constant

Function = Callable[[Expression], Expression]


def activation(name: str) -> Function:
    """Return an activation."""
    return _ACTIVATIONS[name]


def _sigmoid(x: Expression) -> Expression:
    return (call("tanh", x * 0.5) + 1.0) * 0.5  # without the overflow of exp


_ACTIVATIONS: dict[str, Function] = {
    "relu": lambda x: call("maximum", x, 0.0),
    "tanh": lambda x: call("tanh", x),
    "sigmoid": _sigmoid,
    "gelu": lambda x: x * 0.5 * (call("erf", x * math.sqrt(0.5)) + 1.0),
    "silu": lambda x: x * _sigmoid(x),
    "elu": lambda x: call("if_less", 0.0, x, x, call("expm1", call("minimum", x, 0.0))),
    "leaky_relu": lambda x: call("if_less", 0.0, x, x, x * 0.01),
}


def inverse(step: Mapping[str, Any], target: int) -> Function:
    """Return the inverse of a target's transform, of a step `invert`. target: its position."""
    if step["function"] == "box_cox":
        return lambda z: _box_cox(z, step["lmbda"][target])
    return _INVERSES[step["function"]]


_INVERSES: dict[str, Function] = {
    "log": lambda z: call("exp", z),
    "log1p": lambda z: call("expm1", z),
    "sqrt": lambda z: _square(call("maximum", z, 0.0)),
}


def _square(x: Expression) -> Expression:
    return x * x


def _box_cox(z: Expression, lmbda: float) -> Expression:
    if lmbda == 0:
        return call("exp", z)
    scaled = z * lmbda
    power = call("exp", call("log1p", scaled) / lmbda)
    return call("if_less", -1.0, scaled, power, 0.0) if lmbda > 0 else power


def derived(column: dict[str, Any], x: Sequence[Expression]) -> Expression:
    """Return a column of a step `derive`, from all columns x before it."""
    sources: list[Expression] = [x[i] for i in column["of"]]
    first, *others = sources
    match column["function"]:
        case "copy":
            return first
        case "power":
            return call("power", first, column["exponent"])
        case "clip":
            low, high = column["minimum"], column["maximum"]
            raised = first if low is None else call("maximum", first, low)
            return raised if high is None else call("minimum", raised, high)
        case "interval":
            low, high = column["from"], column["below"]
            is_below = constant(1.0) if high is None else call("if_less", first, high, 1.0, 0.0)
            return is_below if low is None else call("if_less", first, low, 0.0, is_below)
        case "spline":
            return _spline(first, column["knots"], column["number"])
        case "product":
            return reduce(mul, others, first)
        case "date_part":
            return _date_part(first, column["part"])
        case "sin" | "cos":
            angle = (_date_part(first, column["part"]) - column["first"]) * (2 * math.pi) / column["period"]
            return call(column["function"], angle)
    return call(column["function"], first)


def _spline(x: Expression, knots: Sequence[float], number: int) -> Expression:
    """Return column `number` of a natural cubic spline. Source: as for the transform `spline`."""

    def cube(knot: float) -> Expression:
        above = call("maximum", x - knot, 0.0)
        return above * above * above

    last = cube(knots[-1])

    def d(position: int) -> Expression:
        return (cube(knots[position]) - last) / (knots[-1] - knots[position])

    return (d(number - 2) - d(len(knots) - 2)) / (knots[-1] - knots[0]) ** 2


def _date_part(x: Expression, part: str) -> Expression:
    """Return a part of a date in days since 1970-01-01. Source: as for the transform `date_parts`."""
    day = call("floor", x)
    if part == "hour":
        return call("floor", (x - day) * 24 + 1e-6)
    if part == "weekday":
        return day + 3 - _quotient(day + 3, 7) * 7 + 1
    shifted = day + 719_468
    era = _quotient(shifted, 146_097)
    of_era = shifted - era * 146_097
    leaps = _quotient(of_era, 1460) - _quotient(of_era, 36_524) + _quotient(of_era, 146_096)
    year_of_era = _quotient(of_era - leaps, 365)
    of_year = of_era - (year_of_era * 365 + _quotient(year_of_era, 4) - _quotient(year_of_era, 100))
    shifted_month = _quotient(of_year * 5 + 2, 153)
    month = call("if_less", shifted_month, 10, shifted_month + 3, shifted_month - 9)
    year = year_of_era + era * 400 + call("if_less", month, 3, 1, 0)
    match part:
        case "year":
            return year
        case "quarter":
            return _quotient(month + 2, 3)
        case "month":
            return month
        case "day":
            return of_year - _quotient(shifted_month * 153 + 2, 5) + 1
    is_leap = _is_multiple(year, 4) - _is_multiple(year, 100) + _is_multiple(year, 400)
    return call("if_less", 2, month, of_year + 60 + is_leap, of_year - 305)


def _quotient(x: Expression, divisor: int) -> Expression:
    return call("floor", x / divisor)  # exact: whole numbers below 2^53


def _is_multiple(x: Expression, divisor: int) -> Expression:
    return call("if_equal", _quotient(x, divisor) * divisor, x, 1, 0)


# Source of the coefficients: Sun Microsystems, fdlibm, s_erf.c (errors below 1 ulp), the highest power first.
_ERF_SMALL = (
    (-2.37630166566501626084e-05, -5.77027029648944159157e-03, -2.84817495755985104766e-02,
     -3.25042107247001499370e-01, 1.28379167095512558561e-01),
    (-3.96022827877536812320e-06, 1.32494738004321644526e-04, 5.08130628187576562776e-03,
     6.50222499887672944485e-02, 3.97917223959155352819e-01, 1.0),
)  # fmt: skip
_ERF_ONE = 8.45062911510467529297e-01
_ERF_MIDDLE = (
    (-2.16637559486879084300e-03, 3.54783043256182359371e-02, -1.10894694282396677476e-01,
     3.18346619901161753674e-01, -3.72207876035701323847e-01, 4.14856118683748331666e-01,
     -2.36211856075265944077e-03),
    (1.19844998467991074170e-02, 1.36370839120290507362e-02, 1.26171219808761642112e-01,
     7.18286544141962662868e-02, 5.40397917702171048937e-01, 1.06420880400844228286e-01, 1.0),
)  # fmt: skip
_ERF_LARGE = (
    (-9.81432934416914548592e+00, -8.12874355063065934246e+01, -1.84605092906711035994e+02,
     -1.62396669462573470355e+02, -6.23753324503260060396e+01, -1.05586262253232909814e+01,
     -6.93858572707181764372e-01, -9.86494403484714822705e-03),
    (-6.04244152148580987438e-02, 6.57024977031928170135e+00, 1.08635005541779435134e+02,
     4.29008140027567833386e+02, 6.45387271733267880336e+02, 4.34565877475229228821e+02,
     1.37657754143519042600e+02, 1.96512716674392571292e+01, 1.0),
)  # fmt: skip
_ERF_LARGEST = (
    (-4.83519191608651397019e+02, -1.02509513161107724954e+03, -6.37566443368389627722e+02,
     -1.60636384855821916062e+02, -1.77579549177547519889e+01, -7.99283237680523006574e-01,
     -9.86494292470009928597e-03),
    (-2.24409524465858183362e+01, 4.74528541206955367215e+02, 2.55305040643316442583e+03,
     3.19985821950859553908e+03, 1.53672958608443695994e+03, 3.25792512996573918826e+02,
     3.03380607434824582924e+01, 1.0),
)  # fmt: skip


def erf(x: Expression) -> Expression:
    """Return the error function from operations that every format has, within 1e-15."""
    size = call("minimum", call("absolute", x), 6.0)
    square = size * size
    small = size + size * _ratio(_ERF_SMALL, square)
    middle = _ratio(_ERF_MIDDLE, size - 1.0) + _ERF_ONE
    inverse_square = constant(1.0) / call("maximum", square, 1.0)

    def large(coefficients: Sequence[Sequence[float]]) -> Expression:
        tail = call("exp", constant(-0.5625) - square + _ratio(coefficients, inverse_square))
        return constant(1.0) - tail / call("maximum", size, 1.0)

    largest = call("if_less", size, 1 / 0.35, large(_ERF_LARGE), large(_ERF_LARGEST))
    above = call("if_less", size, 1.25, middle, largest)
    positive = call("if_less", size, 0.84375, small, above)
    return call("if_less", x, 0.0, constant(0.0) - positive, positive)


def _ratio(coefficients: Sequence[Sequence[float]], x: Expression) -> Expression:
    above, below = (_polynomial(part, x) for part in coefficients)
    return above / below


def _polynomial(coefficients: Sequence[float], x: Expression) -> Expression:
    value = constant(coefficients[0])
    for coefficient in coefficients[1:]:
        value = value * x + coefficient
    return value


def log1p(x: Expression) -> Expression:
    """Return log(1 + x) from operations that every format has. Source: W. Kahan, in HP-15C Advanced Functions."""
    whole = x + 1.0
    return call("if_equal", whole, 1.0, x, call("log", whole) * x / (whole - 1.0))


def expm1(x: Expression) -> Expression:
    """Return exp(x) - 1, with the rounding error of 1."""
    return call("exp", x) - 1.0


REPLACEMENTS: dict[str, Callable[..., Expression]] = {"erf": erf, "log1p": log1p, "expm1": expm1}
