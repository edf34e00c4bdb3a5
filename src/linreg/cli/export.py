"""`linreg export`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from linreg.cli import options as o
from linreg.cli.loading import checkpoint_or_latest, load_plugins
from linreg.cli.text import print_json, print_stderr, print_stdout
from linreg.system.startup import importing_torch

if TYPE_CHECKING:
    from linreg.experiment.export.checking import Check


def export(
    to: Annotated[
        Literal["json", "sql", "c", "onnx", "pt2"],
        typer.Option("--to", metavar="json|sql|c|onnx|pt2", help="The format to write."),
    ],
    checkpoint: o.LatestCheckpoint = None,
    output: Annotated[
        Path | None,
        o.option("--output", "FILE", "File to write or replace; by default a new one, such as NAME.json."),
    ] = None,
    checkpoints: o.Checkpoints = o.CHECKPOINTS,
    json: o.Json = False,
    quiet: o.Quiet = False,
    plugin: o.Plugin = None,
) -> None:
    """Write a model in a form that needs no linreg, and compare it with `predict`."""
    load_plugins(plugin)
    path = checkpoint_or_latest(checkpoint, checkpoints)

    with importing_torch():
        from linreg.experiment.export.exporting import export

    exported = export(path, to, output)
    for line in _lines(exported.check):
        if not quiet or line.startswith("warning"):
            print_stderr(line)
    if json:
        print_json({"checkpoint": str(path), "output": str(exported.path), "check": _json_values(exported.check)})
    else:
        print_stdout(str(exported.path))


def _lines(check: "Check") -> list[str]:
    """Describe a check in lines."""
    if check.problem:
        return [f"warning: not compared with predict: {check.problem}"]
    lines = [
        f"{check.n_rows} rows: differs from predict by at most {check.absolute:.2g} (relative {check.relative:.2g})"
    ]
    if check.n_contrary:
        lines.append(f"warning: takes or refuses {check.n_contrary} rows other than predict does; do not use it")
    if not check.is_close:
        lines.append("warning: differs more than rounding explains; standardize columns, or use dtype: float64")
    return lines


def _json_values(check: "Check") -> dict[str, Any]:
    """Return a check as plain values; an infinite relative difference is null."""
    if check.problem:
        return {"problem": check.problem}
    relative = check.relative if check.relative < float("inf") else None
    return {
        "rows": check.n_rows, "absolute": check.absolute, "relative": relative, "contrary": check.n_contrary,
    }  # fmt: skip
