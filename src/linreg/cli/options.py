"""The arguments and options that several commands share, each defined once."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from json import dumps
from pathlib import Path
from typing import Annotated, Any

import typer

RUNS, CHECKPOINTS = Path("runs"), Path("checkpoints")


def argument(metavar: str, help: str) -> Any:
    """Describe an argument, for `Annotated`."""
    return typer.Argument(metavar=metavar, help=help, show_default=False)


def option(name: str, metavar: str, help: str) -> Any:
    """Describe an option that takes a value and has no default to show, for `Annotated`."""
    return typer.Option(name, metavar=metavar, help=help, show_default=False)


Spec = Annotated[Path, argument("SPEC", "A YAML experiment spec.")]
Overrides = Annotated[list[str] | None, argument("KEY=VALUE", "Keys of the spec to override, as optimizer.lr=0.05.")]
LatestCheckpoint = Annotated[
    Path | None, argument("CKPT|RUN", "A checkpoint (.pth), or a run; by default the newest run.")
]
Device = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="NAME",
        envvar="LINREG_DEVICE",
        help="auto, cpu, cuda, cuda:1 or mps.",
        show_default=False,
    ),
]
Name = Annotated[str | None, option("--name", "NAME", "Name of the experiment and its folders.")]
Epochs = Annotated[int | None, option("--epochs", "N", "Total number of epochs.")]
Runs = Annotated[Path, typer.Option("--runs", metavar="DIR", envvar="LINREG_RUNS", help="Folder of the runs.")]
Checkpoints = Annotated[
    Path,
    typer.Option("--checkpoints", metavar="DIR", envvar="LINREG_CHECKPOINTS", help="Folder of the checkpoints."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no summary.")]
Expect = Annotated[
    list[str] | None,
    option("--expect", "TEXT", 'Exit with 7 if not met, as "val_loss<0.02" (< <= > >= == !=); repeatable.'),
]
Plugin = Annotated[list[Path] | None, option("--plugin", "FILE.py", "Import your own components; repeatable.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]  # `main` reads it


Processes = Annotated[
    int | None, typer.Option("--processes", metavar="N", min=1, help="Processes of this machine that share the run.")
]


@dataclass(frozen=True)
class TrainOptions:
    """The options that `train` and `resume` share."""

    overrides: Overrides = None
    epochs: Epochs = None
    device: Device = None
    name: Name = None
    runs: Runs = RUNS
    checkpoints: Checkpoints = CHECKPOINTS
    json: Json = False
    quiet: Quiet = False
    expect: Expect = None
    plugin: Plugin = None

    def all_overrides(self) -> list[str]:
        """Return the overrides of the spec, those of its keys that have their own option among them."""
        return add_overrides(self.overrides, epochs=self.epochs, device=self.device, name=self.name)


def add_overrides(overrides: list[str] | None, **options: object) -> list[str]:
    """Return the overrides, followed by the options that are set, as overrides."""
    return [*(overrides or []), *(f"{key}={dumps(value)}" for key, value in options.items() if value is not None)]


def flatten_options(function: Callable[..., None]) -> Callable[..., None]:
    """Make a function for Typer: one parameter for each field of a parameter that is a dataclass, and `--debug`."""
    parameters: dict[str, inspect.Parameter] = {}
    groups: dict[str, type] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        group = parameter.annotation
        if isinstance(group, type) and is_dataclass(group):
            groups[name] = group
            parameters |= {f.name: _keyword(f.name, f.type, f.default) for f in fields(group)}
        else:
            parameters[name] = parameter.replace(kind=parameter.KEYWORD_ONLY)
    parameters["debug"] = _keyword("debug", Debug, False)

    @wraps(function)
    def command(**values: Any) -> None:
        del values["debug"]
        options = {name: group(**{f.name: values.pop(f.name) for f in fields(group)}) for name, group in groups.items()}
        function(**values, **options)

    command.__signature__ = inspect.Signature(list(parameters.values()))  # type: ignore[attr-defined]  # Typer reads it
    return command


def _keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
