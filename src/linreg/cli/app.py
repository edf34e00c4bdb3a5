"""The list of the commands, as a Typer application. `main` runs it, and docs/cli.md is made from it."""

from collections.abc import Callable
from typing import Annotated

import typer
from typer.core import TyperCommand

from linreg.cli.cache import clear_cache, list_cache
from linreg.cli.check import check
from linreg.cli.completion import completion
from linreg.cli.components import list_components, schema
from linreg.cli.evaluate import evaluate
from linreg.cli.export import export
from linreg.cli.init import init
from linreg.cli.inputs import InputsCommand
from linreg.cli.inspect import inspect
from linreg.cli.options import flatten_options
from linreg.cli.predict import predict
from linreg.cli.report import report
from linreg.cli.runs import compare_runs, list_runs, remove_runs
from linreg.cli.sweep import cv, sweep
from linreg.cli.text import print_stdout
from linreg.cli.train import resume, train
from linreg.system.place import place
from linreg.system.version import __version__

EXIT_CODES = """\
Exit codes: 0 ok, 1 a bug of linreg, 2 usage or spec, 3 data, 4 checkpoint, 5 storage (disk full, no permission,
run in use), 6 diverged, 7 --expect not met, 8 process lost, 129 SIGHUP, 130 SIGINT, 143 SIGTERM."""

SHARED = {"train", "resume", "sweep", "cv"}  # commands that all processes of a group do together

app = typer.Typer(
    help="Train regression models with PyTorch from YAML experiment specs.",
    epilog=f"\b\nExample: linreg train configs/simple_linear_regression.yaml\n\n{EXIT_CODES}",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def add_command(
    name: str,
    function: Callable[..., None],
    example: str,
    *,
    to: typer.Typer = app,
    cls: type[TyperCommand] | None = None,
) -> None:
    """Add a command. Its parameters are its arguments and options (see `flatten_options`), its docstring is its help.

    example: a command line that ends its help, and that a test runs.
    """
    to.command(name, cls=cls, epilog=_epilog(example))(flatten_options(function))


def add_group(name: str, function: Callable[..., None], example: str) -> typer.Typer:
    """Add a command that has subcommands, and return the group to add them to."""
    group = typer.Typer(help=function.__doc__, epilog=_epilog(example), rich_markup_mode=None)
    group.callback()(flatten_options(function))
    app.add_typer(group, name=name, invoke_without_command=True)
    return group


def _epilog(example: str) -> str:
    return f"\b\nExample: {example}"  # \b: do not wrap


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        print_stdout(f"linreg {__version__}")
        raise typer.Exit


@app.callback()
@flatten_options
def _linreg(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    if context.invoked_subcommand not in SHARED and not place().is_first:
        raise typer.Exit  # the first process does it


add_command("train", train, "linreg train configs/simple_linear_regression.yaml optimizer.lr=0.05 epochs=50")
add_command("resume", resume, "linreg resume checkpoints/simple_linear_regression_001/last.pth --epochs 400")
add_command("predict", predict, "linreg predict --inputs 0.2 0.34 -1e-3", cls=InputsCommand)
add_command("evaluate", evaluate, 'linreg evaluate --expect "r2>0.9"')
add_command("export", export, "linreg export --to json")
add_command("report", report, "linreg report -o report.html")
add_command("sweep", sweep, "linreg sweep configs/simple_linear_regression.yaml optimizer.lr=0.01,0.1,0.3 --seeds 3")
add_command("cv", cv, "linreg cv configs/simple_linear_regression.yaml --folds 5")
add_command("init", init, "linreg init houses.csv --target price > houses.yaml")
add_command("check", check, "linreg check configs/simple_linear_regression.yaml data.batch_size=32")
add_command("inspect", inspect, "linreg inspect checkpoints/simple_linear_regression_001/last.pth")
add_command("list", list_components, "linreg list optimizer")
add_command("schema", schema, "linreg schema > linreg.schema.json")
add_command("completion", completion, "linreg completion bash > linreg.bash")

runs = add_group("runs", list_runs, "linreg runs compare simple_linear_regression_001 simple_linear_regression_002")
add_command("rm", remove_runs, "linreg runs rm simple_linear_regression_001", to=runs)
add_command(
    "compare",
    compare_runs,
    "linreg runs compare simple_linear_regression_001 simple_linear_regression_002 smoke_001",
    to=runs,
)

cache = add_group("cache", list_cache, "linreg cache clear")
add_command("clear", clear_cache, "linreg cache clear --json", to=cache)
