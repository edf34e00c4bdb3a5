"""Formats the content of a checkpoint for people: the fit with its inference, then facts of the run. `inspect` uses
it."""

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from linreg.cli.text import (
    describe_penalty,
    filled,
    format_count,
    format_probability,
    format_value,
    printable,
    shorten_middle,
    width_of,
)
from linreg.errors import brief

MOST_COEFFICIENTS = 60
MOST_NAMES = 6  # in a list
LEAST_NAME = 12  # characters of the name of a coefficient
MOST_DIGITS = 10  # characters of a number, and its decimals
LARGE_CONDITION = 30.0  # Belsley, Kuh and Welsch (1980), section 3.2
LARGE_INFLATION = 10.0
LABEL = 10  # characters before a fact
LEAST_WIDTH = 79

Row = Mapping[str, Any]


def summary_text(content: Mapping[str, Any], *, width: int) -> str:
    """Format the content of a checkpoint (see `checkpoint.summary`) for a terminal of a width."""
    width = max(width - 1, LEAST_WIDTH)
    reason = (
        "no coefficients with standard errors: they need a model that is linear in its parameters, the loss mse, "
        "and solver: exact or the baseline"
    )
    blocks = _fit(content, width) if "coefficients" in content else [_wrapped(reason, width)]
    facts = [
        textwrap.fill(printable(text), width, initial_indent=label.ljust(LABEL), subsequent_indent=" " * LABEL)
        for label, text in _facts(content)
    ]
    return "\n\n".join([*blocks, "\n".join(facts)])


def _fit(content: Mapping[str, Any], width: int) -> list[str]:
    """Return the blocks about a fit: what it is, a table and statistics for each target, notes."""
    targets = content["targets"]
    blocks = [_wrapped(_headline(content), width)]
    for number, target in enumerate(targets):
        rows = [row for row in content["coefficients"] if row.get("target", target) == target]
        title = f"{printable(target)}\n" if len(targets) > 1 else ""
        blocks.append(title + _coefficients(rows, content["level"], width))
        lines = _statistics(content, None if len(targets) == 1 else number, rows)
        blocks.append("\n".join(_wrapped(line, width) for line in lines))
    notes = [*_left_out(content), *content["notes"]]
    return [*blocks, "\n".join(_wrapped(f"note: {note}", width) for note in notes)] if notes else blocks


def _headline(content: Mapping[str, Any]) -> str:
    """Return a sentence: the method, the target, the number of rows."""
    spec, covariance = content["spec"], content["covariance"]
    method = "least squares"
    if _part(spec, "data", "source").get("sample_weight") is not None:
        method = "weighted least squares"
    how = "solved exactly"
    if "penalty" in content:
        method, how = content["penalty"]["name"].replace("_", " "), describe_penalty(content["penalty"])
    elif spec.get("solver") != "exact":
        method = f"{_part(spec, 'model').get('name')} model"
        how = f"trained by {_part(spec, 'optimizer').get('name')}, {format_count(content['epochs'], 'epoch')}"
    elif spec.get("ridge"):
        method = f"ridge regression (ridge: {format_value(spec['ridge'])})"
    rows = format_count(content["n_rows"], "training row")
    if content["n_observations"] != content["n_rows"]:
        rows += f", {content['n_observations']} of them with a weight > 0"
    text = f"{method} of {', '.join(content['targets'])} on {rows}; {how}"
    if covariance["column"] is not None:
        text += f"; standard errors clustered by {covariance['column']}, {covariance['n_groups']} groups"
    elif covariance["name"] != "nonrobust":
        text += f"; robust standard errors, {covariance['name']}"
    return text


def _coefficients(rows: Sequence[Row], level: float, width: int) -> str:
    """Format the coefficients of a target. A row has common decimals, by the digits of its standard error."""
    has_errors = any(row["t"] is not None for row in rows)
    bounds = [f"{100 * end:.4g} %" for end in ((1 - level) / 2, (1 + level) / 2)]
    head = ["estimate", *(["std error", "t", "p", *bounds] if has_errors else [])]
    cells = [_cells(row)[: len(head)] for row in rows[:MOST_COEFFICIENTS]]
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    room = max(width - sum(widths) - 2 * len(widths), LEAST_NAME)
    names = [shorten_middle(printable(row["name"]), room) for row in rows[:MOST_COEFFICIENTS]]
    first = max(map(width_of, names), default=0)
    lines = [
        "  ".join([filled(name, first), *(cell.rjust(size) for cell, size in zip(line, widths, strict=True))])
        for name, line in zip(["", *names], [head, *cells], strict=True)
    ]
    if len(rows) > MOST_COEFFICIENTS:
        lines.append(f"... {len(rows) - MOST_COEFFICIENTS} more in --json")
    return "\n".join(lines)


def _cells(row: Row) -> list[str]:
    """Format estimate, standard error, t, p and bounds of a coefficient."""
    error = row["std_error"]
    if row["t"] is None:
        return [f"{row['estimate']:.6g}", *"-----"]
    numbers = [row[key] for key in ("estimate", "std_error", "low", "high")]
    decimals = max(0, 2 - math.floor(math.log10(error)))
    texts = [f"{number:.{min(decimals, MOST_DIGITS)}f}" for number in numbers]
    if max(map(len, texts)) > MOST_DIGITS:
        texts = [f"{number:#.4g}".rstrip(".") for number in numbers]
    t = f"{row['t']:.2f}" if abs(row["t"]) < 1e5 else f"{row['t']:.2g}"
    return [texts[0], texts[1], t, format_probability(row["p"]), *texts[2:]]


def _statistics(content: Mapping[str, Any], target: int | None, rows: Sequence[Row]) -> Iterator[str]:
    """Yield lines about the fit of a target. target: its number, None for the only one."""
    keys = ("r2", "r2_uncentred", "adjusted_r2", "residual_std_error", "f", "log_likelihood", "aic", "bic")
    of = {key: content.get(key) for key in keys}
    if target is not None:
        of = {key: value[target] if isinstance(value, list) else value for key, value in of.items()}
    of_optimum = "" if content["spec"].get("solver") == "exact" else " of the optimum"
    r2 = f"R2{of_optimum} {format_value(of['r2'])}"
    if of["r2_uncentred"] is not None:
        r2 += f"; uncentred, as without an intercept: {format_value(of['r2_uncentred'])}"
    yield r2 + ("" if of["adjusted_r2"] is None else f", adjusted {format_value(of['adjusted_r2'])}")
    if of["residual_std_error"]:
        error = format_value(of["residual_std_error"])
        yield f"residual standard error {error} on {content['degrees_of_freedom']} degrees of freedom"
    if of["f"] is not None:
        degrees = ", ".join(map(str, of["f"]["degrees_of_freedom"]))
        p = format_probability(of["f"]["p"])
        what = "slopes" if of["r2_uncentred"] is None else "coefficients"
        yield f"F test of all {what}: F({degrees}) = {of['f']['value']:.5g}, p {p if p[0] == '<' else f'= {p}'}"
    if of["log_likelihood"] is not None:
        yield ", ".join(
            f"{name} {of[key]:.6g}"
            for name, key in (("log-likelihood", "log_likelihood"), ("AIC", "aic"), ("BIC", "bic"))
        )
    yield from _collinearity(content["condition_number"], rows)


def _collinearity(condition: float | None, rows: Sequence[Row]) -> Iterator[str]:
    if condition is not None and sum(row["vif"] is not None for row in rows) > 1:
        large = ": some columns nearly depend on others, so their coefficients are uncertain"
        yield f"condition number {condition:.4g}{large if condition > LARGE_CONDITION else ''}"
    inflated = [row for row in rows if row["vif"] is not None and row["vif"] > LARGE_INFLATION]
    if inflated:
        row = max(inflated, key=lambda row: float(row["vif"]))
        yield f"largest VIF {row['vif']:.4g} ({printable(row['name'])}); {len(inflated)} above {LARGE_INFLATION:g}"


def _left_out(content: Mapping[str, Any]) -> Iterator[str]:
    """Yield notes on coefficients without a standard error."""
    references = content["references"]
    dependent = [name for name in content["left_out"] if name not in references]
    if references:
        yield f"reference categories: {_listed(references)}"
    if dependent:
        are = "is" if len(dependent) == 1 else "are"
        effect = "coefficient 0" if content["spec"].get("solver") == "exact" else "no standard error"
        yield f"{_listed(dependent)} {are} constant, or linearly dependent on other columns: {effect}"


def _facts(content: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield facts of the run, each with a label."""
    spec, environment = content["spec"], content["environment"]
    run = f"{content['run']}, {content['outcome'].replace('_', ' ')}, {format_count(content['epochs'], 'epoch')}"
    if content["batches_into_next_epoch"]:
        run += f" and {content['batches_into_next_epoch']} steps"
    run += "" if content["best_epoch"] is None else f", best epoch {content['best_epoch']}"
    run += f", resumed at {', '.join(map(str, content['resumed_at']))}" if content["resumed_at"] else ""
    losses = [f"{name} {content[name]:.6g}" for name in ("loss", "val_loss") if content[name] is not None]
    yield "run", run
    if losses:
        yield "losses", ", ".join(losses)
    yield "model", f"{brief(_part(spec, 'model'))}; {', '.join(content['targets'])} from {_listed(content['features'])}"
    source = _part(spec, "data", "source")
    identity = " ".join(part.partition("=")[2][:8] for part in content["data_fingerprint"].split()[1:])
    yield (
        "data",
        " ".join([str(source.get("name")), *([str(source["path"])] if "path" in source else []), f"({identity})"]),
    )
    versions = [f"{name} {environment[name]}" for name in ("linreg", "torch") if name in environment]
    yield "file", f"{content['checkpoint']}, by {', '.join(versions)}"
    yield "more", "linreg inspect --json: all digits, parameters, spec, environment"


def _part(spec: Any, *keys: str) -> Mapping[str, Any]:
    """Return a part of the spec of a checkpoint, which may be any file; an empty one if it is missing."""
    for key in keys:
        spec = spec.get(key) if isinstance(spec, Mapping) else None
    return spec if isinstance(spec, Mapping) else {}


def _listed(names: Sequence[str]) -> str:
    """List names; many or long ones are shortened."""
    some = ", ".join(shorten_middle(name, 32) for name in names[:MOST_NAMES])
    return (some or "no features") + (f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else "")


def _wrapped(text: str, width: int) -> str:
    return textwrap.fill(printable(text), width, subsequent_indent="  ")
