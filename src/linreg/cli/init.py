"""`linreg init`."""

from typing import Annotated

from linreg.cli import options as o
from linreg.cli.text import print_stdout, show_log


def init(
    data: Annotated[str, o.argument("DATA", "A table: a file, a folder of files, or a URL.")],
    target: Annotated[list[str], o.option("--target", "COLUMN", "A column to predict; repeatable.")],
    name: o.Name = None,
    delimiter: Annotated[str | None, o.option("--delimiter", "CHAR", "The character between columns.")] = None,
    missing_value: Annotated[
        list[str] | None, o.option("--missing-value", "TEXT", "A text that marks a missing value; repeatable.")
    ] = None,
) -> None:
    """Look at a table; print a commented spec to start from. Notes on the table go to stderr."""
    show_log(quiet=False)
    from linreg.experiment.starter import starter_spec

    spec = starter_spec(data, targets=target, name=name, delimiter=delimiter, missing_values=missing_value or [])
    print_stdout(spec)
