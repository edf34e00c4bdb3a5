"""Formats diagnostics and importances for people. `evaluate` uses it."""

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from linreg.cli.text import format_count, format_probability, format_table, printable, shorten_middle

LABEL = 15  # characters before a test
LEAST_WIDTH = 79
MOST_PLACE = 24  # characters of a file's name beside a row
SMALL_P = 0.05

Values = Mapping[str, Any]


def evaluation_text(content: Values, *, width: int) -> Iterator[str]:
    """Yield blocks of text about the diagnostics and the importance in an evaluation (see `Evaluation.described`)."""
    width = max(width - 1, LEAST_WIDTH)
    for one in content.get("diagnostics", []):
        yield from _diagnostics(one, width)
    if "importance" in content:
        yield from _importance(content["importance"], width)


def _diagnostics(one: Values, width: int) -> Iterator[str]:
    tests = "\n".join(
        textwrap.fill(text, width, initial_indent=label.ljust(LABEL), subsequent_indent=" " * LABEL)
        for label, text in _tests(one)
    )
    head = f"diagnostics of {printable(one['target'])} on the {_of_rows(one['rows'], one['n_rows'])}"
    yield "\n".join([_wrapped(head, width), *([tests] if tests else [])])
    if one["influential"]:
        yield _influential(one, width)
    if one["notes"]:
        yield "\n".join(_wrapped(f"note: {note}", width) for note in one["notes"])


def _of_rows(rows: str, n_rows: int) -> str:
    return f"{printable(rows)}, {format_count(n_rows, 'row')}"


def _tests(one: Values) -> Iterator[tuple[str, str]]:
    """Yield the name of each test, and its result in words."""
    equal, normal, serial = one["breusch_pagan"], one["jarque_bera"], one["durbin_watson"]
    if equal is not None:
        meaning = f"the variance depends on the {equal['regressors']}"
        yield "Breusch-Pagan", f"{_chi2(equal)}: {meaning if equal['p'] < SMALL_P else 'no sign that ' + meaning}"
    if normal is not None:
        shape = f"skew {normal['skew']:.2f}, kurtosis {normal['kurtosis']:.2f}"
        meaning = "not normal" if normal["p"] < SMALL_P else "no sign that they are not normal"
        yield "Jarque-Bera", f"{_chi2(normal)}: {meaning} ({shape}; 0 and 3 for a normal distribution)"
    if serial is not None:
        yield "Durbin-Watson", f"{serial:.4f}; 2 without serial correlation, 0 if positive, 4 if negative"


def _chi2(test: Values) -> str:
    p = format_probability(test["p"])
    return f"chi2({test['degrees_of_freedom']}) = {test['value']:.5g}, p {p if p[0] == '<' else f'= {p}'}"


def _influential(one: Values, width: int) -> str:
    """Format the listed rows; the file is in the head if all are of one."""
    files = {row["file"] for row in one["influential"]}
    is_single = len(files) == 1 and all(row["row"] is not None for row in one["influential"])
    has_leverage = one["ranked_by"] == "cooks_distance"
    kind = "largest Cook's distance" if has_leverage else "largest residuals"
    file = next(iter(files))
    of_file = f" of {printable(file)}" if is_single and file is not None else ""
    columns = {"fitted": "fitted", "residual": "residual", "standardized": "standardized"}
    if has_leverage:
        columns = {"fitted": "fitted", "residual": "residual", "studentized": "studentized", "leverage": "leverage"}
        columns["cooks_distance"] = "Cook"
    rows = [
        {"row": _place(row, is_single), "actual": _short(row["y"])}
        | {name: _short(row[key]) for key, name in columns.items()}
        for row in one["influential"]
    ]
    names = ["row", "actual", *columns.values()]
    return "\n".join([_wrapped(f"rows{of_file} with the {kind}", width), format_table(rows, names)])


def _place(row: Values, is_single: bool) -> Any:
    if is_single:
        return row["row"]
    place = shorten_middle(printable(row["file"] or ""), MOST_PLACE)
    return place if row["row"] is None else f"{place}: {row['row']}"


def _short(value: float | None) -> float | None:
    """Round a number to four digits, which is enough to read."""
    return None if value is None else float(f"{value:.4g}")


def _importance(importance: Values, width: int) -> Iterator[str]:
    metric, repeats = importance["metric"], format_count(importance["repeats"], "repeat")
    change = "decrease" if metric == "r2" else "increase"
    head = f"{change} of {metric} when the values of a column are shuffled, {repeats}, on the "
    head += _of_rows(importance["rows"], importance["n_rows"])
    if importance["n_rows"] < importance["n_selected"]:
        head += f" of {importance['n_selected']}, chosen at random"
    head += f"; {metric} is {importance['value']:.6g}"
    rows = [
        {"column": printable(column["name"]), change: _short(column["mean"]), "std": _short(column["std"])}
        for column in importance["columns"]
    ]
    table = format_table(rows, ["column", change, *(["std"] if importance["repeats"] > 1 else [])])
    yield "\n".join([_wrapped(head, width), table])
    if importance["is_training"]:
        note = "note: the model was fitted to these rows; held-out rows tell which columns help with new ones"
        yield _wrapped(note, width)


def _wrapped(text: str, width: int) -> str:
    return textwrap.fill(text, width, subsequent_indent="  ")
