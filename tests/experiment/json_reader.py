"""A reader of JSON exports, written from docs/export.md alone: plain Python, one row at a time."""

import math
from datetime import date, timedelta


class RefusedError(Exception):
    pass


def predict(model, row):
    """Predict for a row, a mapping of names to numbers, texts or None; None for a row to refuse."""
    try:
        numbers = encode(model["inputs"], row)
        for step in model["steps"][1:]:
            numbers = STEPS[step["step"]](step, numbers)
        return finite(numbers)
    except RefusedError:
        return None


def finite(numbers):
    if not all(math.isfinite(number) for number in numbers):
        raise RefusedError
    return numbers


def encode(inputs, row):
    numbers = []
    for entry in inputs:
        value = row[entry["name"]]
        if value is None:
            value = entry["gap"]
        if value is None:
            raise RefusedError
        if entry["kind"] != "category":
            numbers.append(value)
            continue
        value = entry["also"].get(value, value)
        if value not in entry["categories"] and entry["unseen"] == "error":
            raise RefusedError
        numbers += [1.0 if value == category else 0.0 for category in entry["categories"]]
    return numbers


def power(x, exponent):
    try:
        value = math.pow(x, exponent)
    except (ValueError, OverflowError, ZeroDivisionError):
        raise RefusedError from None
    return value


def logarithm(function, x):
    try:
        return function(x)
    except ValueError:
        raise RefusedError from None


def exp(x):
    try:
        return math.exp(x)
    except OverflowError:
        return math.inf


def part_of(part, x):
    day = date(1970, 1, 1) + timedelta(days=math.floor(x))
    return {
        "year": day.year, "quarter": (day.month - 1) // 3 + 1, "month": day.month, "day": day.day,
        "weekday": day.isoweekday(), "day_of_year": day.timetuple().tm_yday,
        "hour": math.floor(24 * (x - math.floor(x)) + 1e-6),
    }[part]  # fmt: skip


def spline(x, knots, number):
    def d(i):
        return (max(x - knots[i], 0) ** 3 - max(x - knots[-1], 0) ** 3) / (knots[-1] - knots[i])

    return (d(number - 2) - d(len(knots) - 2)) / (knots[-1] - knots[0]) ** 2


def derive(step, numbers):
    derived = []
    for column in step["columns"]:
        x = numbers[column["of"][0]]
        match column["function"]:
            case "copy":
                value = x
            case "log" | "log1p" | "sqrt" as name:
                value = logarithm(getattr(math, name), x)
            case "power":
                value = power(x, column["exponent"])
            case "clip":
                value = x if column["minimum"] is None else max(x, column["minimum"])
                value = value if column["maximum"] is None else min(value, column["maximum"])
            case "interval":
                low, high = column["from"], column["below"]
                value = float((low is None or low <= x) and (high is None or x < high))
            case "product":
                value = math.prod(numbers[i] for i in column["of"])
            case "spline":
                value = spline(x, column["knots"], column["number"])
            case "date_part":
                value = part_of(column["part"], x)
            case "sin" | "cos" as wave:
                angle = 2 * math.pi * (part_of(column["part"], x) - column["first"]) / column["period"]
                value = getattr(math, wave)(angle)
        derived.append(value)
    return finite(derived)


def standardize(step, numbers):
    scaled = zip(numbers, step["mean"], step["scale"], strict=True)
    return [(x - mean) / scale if scale else 0.0 for x, mean, scale in scaled]


def powers(step, numbers):
    return [power(x, n) for n in range(1, step["degree"] + 1) for x in numbers]


def linear(step, numbers):
    return [
        math.fsum(w * x for w, x in zip(row, numbers, strict=True)) + bias
        for row, bias in zip(step["weights"], step["bias"], strict=True)
    ]


ACTIVATIONS = {
    "relu": lambda x: max(x, 0.0),
    "tanh": math.tanh,
    "sigmoid": lambda x: 1 / (1 + exp(-x)),
    "gelu": lambda x: x / 2 * (1 + math.erf(x / math.sqrt(2))),
    "silu": lambda x: x / (1 + exp(-x)),
    "elu": lambda x: x if x > 0 else exp(x) - 1,
    "leaky_relu": lambda x: x if x > 0 else x / 100,
}


def activation(step, numbers):
    return [ACTIVATIONS[step["function"]](x) for x in numbers]


def restore(step, numbers):
    return [x * scale + mean for x, mean, scale in zip(numbers, step["mean"], step["scale"], strict=True)]


def box_cox(z, lmbda):
    return exp(z) if lmbda == 0 else power(max(1 + lmbda * z, 0), 1 / lmbda)


def invert(step, numbers):
    match step["function"]:
        case "log":
            return [exp(z) for z in numbers]
        case "log1p":
            return [exp(z) - 1 for z in numbers]
        case "sqrt":
            return [max(z, 0) ** 2 for z in numbers]
    return [box_cox(z, lmbda) for z, lmbda in zip(numbers, step["lmbda"], strict=True)]


STEPS = {
    "derive": derive, "standardize": standardize, "powers": powers, "linear": linear, "activation": activation,
    "restore": restore, "invert": invert,
}  # fmt: skip
