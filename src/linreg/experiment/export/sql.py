"""The SQL form of a description: one SELECT that adds a column for each target, as SQLite, PostgreSQL and DuckDB take
it.

Each target is one expression. Where values occur more than once, they are columns of a WITH inside the expression.
LIMIT 1 OFFSET 0 keeps the databases from copying such a column to each place of its use, whose number would grow with
each layer.
"""

import math
import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from linreg.errors import UsageError
from linreg.experiment.export.describing import Description, Step, output_names
from linreg.experiment.export.expressions import Expression, call, in_order, substitute, text_of, variable
from linreg.experiment.export.functions import REPLACEMENTS, activation, derived, inverse
from linreg.experiment.export.rows import Rows

TABLE = "input"
WIDEST = 1600  # columns of a SELECT: PostgreSQL takes 1664, SQLite 2000
TERMS = 40  # of a sum before a parenthesis: SQLite takes 1000 levels of an expression
LARGEST_EXPONENT, SMALLEST_EXPONENT = 709.78, -700.0
DOUBLE = "DOUBLE PRECISION"

# No ELSE where a condition on a value decides: NULL stays NULL.
_CALLS = {
    "add": "({0} + {1})",
    "subtract": "({0} - {1})",
    "multiply": "({0} * {1})",
    "divide": "({0} / {1})",
    "maximum": "CASE WHEN {0} >= {1} THEN {0} WHEN {0} < {1} THEN {1} END",
    "minimum": "CASE WHEN {0} <= {1} THEN {0} WHEN {0} > {1} THEN {1} END",
    "absolute": "ABS({0})",
    "floor": "FLOOR({0})",
    "sqrt": "CASE WHEN {0} >= 0 THEN SQRT({0}) END",
    "exp": f"CASE WHEN {{0}} < {SMALLEST_EXPONENT} THEN 0e0 WHEN {{0}} < {LARGEST_EXPONENT} THEN EXP({{0}}) END",
    "log": "CASE WHEN {0} > 0 THEN LN({0}) END",
    "tanh": "TANH({0})",
    "sin": "SIN({0})",
    "cos": "COS({0})",
    "if_less": "CASE WHEN {0} < {1} THEN {2} WHEN {0} >= {1} THEN {3} END",
    "if_equal": "CASE WHEN {0} = {1} THEN {2} WHEN {0} <> {1} THEN {3} END",
}
_NAME = re.compile(r"v\d+_\d+")
_MAY_OVERFLOW = ("power", "product", "spline")


@dataclass(frozen=True)
class Stage:
    """Columns, as expressions on the last of the SELECTs in a WITH, or on the table if there is none."""

    selects: tuple[str, ...]
    columns: tuple[str, ...]

    @property
    def source(self) -> str:
        """The name that the columns are selected from."""
        return f" FROM s{len(self.selects) - 1}" if self.selects else ""

    def named(self, *more: str) -> "Stage":
        """Return a stage where the columns, and more expressions, are names. Raises UsageError for too many."""
        texts = [*self.columns, *more]
        if all(map(_NAME.fullmatch, texts)):
            return self
        if len(texts) > WIDEST:
            raise UsageError(
                f"--to sql: a layer has {len(texts)} columns, and databases take up to {WIDEST}; use --to c or onnx"
            )
        names = tuple(text if _NAME.fullmatch(text) else f"v{len(self.selects)}_{i}" for i, text in enumerate(texts))
        listed = ",\n    ".join(
            name if text == name else f"{text} AS {name}" for text, name in zip(texts, names, strict=True)
        )
        return Stage((*self.selects, f"SELECT {listed}{self.source} LIMIT 1 OFFSET 0"), names)


def write(description: Description) -> str:
    """Return the statement. Raises UsageError for what SQL cannot have."""
    stage = Stage((), tuple(_encoded(description)))
    for step in description["steps"][1:]:
        stage = _applied(step, stage)
    if stage.selects:
        stage = _finite(stage, range(len(stage.columns)))
    with_ = ",\n  ".join(f"s{i} AS ({select})" for i, select in enumerate(stage.selects))
    columns = []
    for name, column in zip(output_names(description), stage.columns, strict=True):
        select = f"(WITH {with_}\n  SELECT {column}{stage.source})" if with_ else column
        columns.append(f"{select} AS {identifier(name)}")
    selected = ",\n  ".join(["t.*", *columns])
    return f"SELECT\n  {selected}\nFROM {identifier(TABLE)} AS t\n"


def identifier(name: str) -> str:
    """Return a name as SQL writes it."""
    return '"' + _without_nul(name).replace('"', '""') + '"'


def text_literal(text: str) -> str:
    """Return a text as SQL writes it."""
    return "'" + _without_nul(text).replace("'", "''") + "'"


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise UsageError(f"--to sql: {text!r} has a NUL character, which databases refuse; use --to json")
    return text


def number_literal(value: float) -> str:
    """Return a number with an exponent, as a number without one is a decimal for DuckDB."""
    text = repr(value)
    return text if "e" in text else f"{text}e0"


def _encoded(description: Description) -> Iterator[str]:
    """Yield the columns of the inputs: gaps filled, categories one-hot."""
    for entry in description["inputs"]:
        name = f"t.{identifier(entry['name'])}"
        if entry["kind"] != "category":
            number = f"CAST({name} AS {DOUBLE})"
            yield number if entry["gap"] is None else f"COALESCE({number}, {number_literal(entry['gap'])})"
            continue
        text = f"CAST({name} AS VARCHAR)"
        text = text if entry["gap"] is None else f"COALESCE({text}, {text_literal(entry['gap'])})"
        texts = [[own, *(other for other, same in entry["also"].items() if same == own)] for own in entry["categories"]]
        if entry["unseen"] == "error":
            other = f"WHEN {_is_one_of(text, [word for own in texts for word in own])} THEN 0"
        else:
            other = "ELSE 0" if entry["gap"] is not None else f"WHEN {text} IS NOT NULL THEN 0"
        for own in texts:
            yield f"CAST(CASE WHEN {_is_one_of(text, own)} THEN 1 {other} END AS {DOUBLE})"


def _is_one_of(text: str, words: Sequence[str]) -> str:
    literals = list(map(text_literal, words))
    return f"{text} = {literals[0]}" if len(literals) == 1 else f"{text} IN ({', '.join(literals)})"


def _applied(step: Step, stage: Stage) -> Stage:
    """Return the stage after a step."""
    match step["step"]:
        case "derive":
            at_risk = [i for i, column in enumerate(step["columns"]) if column["function"] in _MAY_OVERFLOW]
            return _finite(_mapped(stage, lambda x: [derived(column, x) for column in step["columns"]]), at_risk)
        case "standardize":
            scaled = zip(stage.columns, step["mean"], step["scale"], strict=True)
            return Stage(stage.selects, tuple(_standardized(*parts) for parts in scaled))
        case "powers":
            powers = range(2, step["degree"] + 1)
            return _mapped(stage, lambda x: [*x, *(call("power", column, n) for n in powers for column in x)])
        case "linear":
            before = stage.named() if len(step["bias"]) > 1 else stage
            rows = zip(step["weights"], step["bias"], strict=True)
            return Stage(before.selects, tuple(_sum(before.columns, *row) for row in rows))
        case "activation":
            return _mapped(stage, lambda x: list(map(activation(step["function"]), x)))
        case "restore":
            restored = zip(stage.columns, step["mean"], step["scale"], strict=True)
            texts = (f"{number_literal(mean)} + {number_literal(scale)} * ({y})" for y, mean, scale in restored)
            return Stage(stage.selects, tuple(texts))
    return _mapped(stage, lambda z: [inverse(step, target)(column) for target, column in enumerate(z)])


def _standardized(text: str, mean: float, scale: float) -> str:
    if not scale:
        return f"(0e0 * {text})"  # keeps NULL
    centred = f"({text} - {number_literal(mean)})" if mean else text
    return f"({centred} / {number_literal(scale)})" if scale != 1 else centred


def _sum(columns: Sequence[str], weights: Sequence[float], bias: float) -> str:
    """Return a weighted sum, with parentheses around each `TERMS` terms of a long one."""
    terms = [number_literal(bias)]
    terms += [f"{number_literal(weight)} * {column}" for weight, column in zip(weights, columns, strict=True)]
    while len(terms) > TERMS:
        terms = [f"({' + '.join(terms[i : i + TERMS])})" for i in range(0, len(terms), TERMS)]
    return "\n      + ".join(terms)


def _finite(stage: Stage, positions: Sequence[int]) -> Stage:
    """Return a stage where some columns are NULL if they are not finite."""
    if not positions:
        return stage
    named = stage.named()
    texts = list(named.columns)
    for i in positions:
        texts[i] = f"CASE WHEN {texts[i]} - {texts[i]} = 0 THEN {texts[i]} END"
    return Stage(named.selects, tuple(texts))


def _mapped(stage: Stage, function: Callable[[list[Expression]], list[Expression]]) -> Stage:
    """Return a stage with the columns that a function makes of the columns before. A value that a text would have more
    than once becomes a column of a SELECT before it."""
    stage = stage.named()
    roots = [substitute(root, REPLACEMENTS) for root in function([variable(name) for name in stage.columns])]
    levels, names = _levels(roots), dict[int, str]()
    for level in range(1, max(levels.values(), default=0) + 1):
        chosen = [expression for expression in in_order(roots) if levels.get(id(expression)) == level]
        stage = stage.named(*(_text(expression, names) for expression in chosen))
        names |= {id(e): name for e, name in zip(chosen, stage.columns[-len(chosen) :], strict=True)}
    return Stage(stage.selects, tuple(_text(root, names) for root in roots))


def _levels(roots: Sequence[Expression]) -> dict[int, int]:
    """Return which expressions need a name, by their id, and the SELECT that each is in, counted from 1: after those of
    the names that it uses."""
    uses: dict[int, int] = {}
    for expression in in_order(roots):
        for i, argument in enumerate(expression.arguments):
            count = _template(expression).count(f"{{{i}}}")
            uses[id(argument)] = uses.get(id(argument), 0) + count
    levels: dict[int, int] = {}  # of the names that an expression needs
    named: dict[int, int] = {}
    for expression in in_order(roots):
        level = max((levels[id(argument)] for argument in expression.arguments), default=0)
        if not expression.is_leaf and uses.get(id(expression), 0) > 1:
            level = named[id(expression)] = level + 1
        levels[id(expression)] = level
    return named


def _template(expression: Expression) -> str:
    """Return the text of an operation, with {0}, {1}, ... for its arguments."""
    if expression.operation != "power":
        return _CALLS[expression.operation]
    exponent = expression.arguments[1].value  # always a constant
    if exponent in (2.0, 3.0):
        return f"({' * '.join(['{0}'] * int(exponent))})"
    power = "POWER({0}, {1})"
    if exponent != int(exponent):
        return f"CASE WHEN {{0}} {'>=' if exponent > 0 else '>'} 0 THEN {power} END"
    return power if exponent >= 0 else f"CASE WHEN {{0}} <> 0 THEN {power} END"


def _text(root: Expression, names: dict[int, str]) -> str:
    """Return the text of an expression, with the names of those that have one."""
    text = text_of(root, names, number=number_literal, template=_template)
    return f"CAST({text} AS {DOUBLE})" if text.startswith("CASE") else text  # a CASE of constants is a decimal


def run(content: bytes, description: Description, rows: Rows) -> NDArray[np.float64]:
    """Predict with SQLite: (N, n_targets). Raises RuntimeError where it cannot."""
    inputs = description["inputs"]
    columns = [f"{identifier(entry['name'])} {'TEXT' if entry['kind'] == 'category' else DOUBLE}" for entry in inputs]
    n_targets = len(description["outputs"])
    table = zip(range(rows.n_rows), *(_cells(rows.values[entry["name"]]) for entry in inputs), strict=True)
    place = identifier(_free("row", [*rows.values, *description["outputs"]]))
    database = sqlite3.connect(":memory:")
    try:
        _add_functions(database)
        database.execute(f"CREATE TABLE {identifier(TABLE)} ({', '.join([f'{place} INTEGER', *columns])})")
        values = ", ".join("?" * (len(inputs) + 1))
        database.executemany(f"INSERT INTO {identifier(TABLE)} VALUES ({values})", table)
        answers = database.execute(content.decode("utf-8", "surrogateescape")).fetchall()
    except sqlite3.Error as error:
        raise RuntimeError(f"SQLite: {error}") from None
    finally:
        database.close()
    return np.array([row[-n_targets:] for row in sorted(answers)], dtype=np.float64).reshape(-1, n_targets)


def _cells(values: Sequence[Any]) -> list[Any]:
    return [None if value is None or (isinstance(value, float) and math.isnan(value)) else value for value in values]


def _free(name: str, taken: Sequence[str]) -> str:
    while any(name.lower() == other.lower() for other in taken):
        name += "_"
    return name


def _add_functions(database: sqlite3.Connection) -> None:
    """Add the mathematical functions to an SQLite that is built without them."""
    try:
        database.execute("SELECT EXP(1), TANH(1), FLOOR(1.5)")
    except sqlite3.OperationalError:
        for name in ("exp", "tanh", "sqrt", "floor", "sin", "cos"):
            database.create_function(name, 1, _without_null(getattr(math, name)))
        database.create_function("ln", 1, _without_null(math.log))
        database.create_function("power", 2, _without_null(math.pow))


def _without_null(function: Callable[..., float]) -> Callable[..., float | None]:
    return lambda *values: None if None in values else function(*values)
