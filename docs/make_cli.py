"""Write docs/cli.md from the code: `make docs`."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from linreg.cli.app import app
from linreg.errors import LinregError

sys.path.insert(0, str(Path(__file__).parent))
from make_spec import table

ROOT = Path(__file__).parent.parent

HEAD = """\
# Command line reference

```sh
linreg --version
linreg train configs/smoke.yaml
linreg train configs/simple_linear_regression.yaml
```

`make docs` generates this page from the code, and a test compares the two. Another test runs its examples in order.

Options follow the command. Results go to stdout; progress, summaries, warnings and errors go to stderr. With `--json` a
command that succeeds, or that fails only an `--expect`, prints exactly one JSON document. After any other error stdout
is empty. [runs.md](runs.md), [tables.md](tables.md) and [ci.md](ci.md) explain the options by task.

## Exit codes
"""

MEANINGS = {
    0: "success",
    1: "a bug in linreg; please report it with the output of `--debug`",
    2: "wrong usage, or a wrong spec",
    3: "the data cannot be used",
    4: "the checkpoint cannot be opened, or does not fit",
    5: "storage: disk full, no permission, or the run is in use",
    6: "training diverged: a loss or parameter is not finite",
    7: "an `--expect` is not met",
    8: "another process of the group has ended, or does not answer",
    129: "SIGHUP; `train` and `resume` save first, and the run can be resumed",
    130: "SIGINT (Ctrl-C); likewise",
    143: "SIGTERM; likewise",
}
ALWAYS = (0, 1, 2, 130)
SIGNALS = (129, 143)
CODES = {  # beside ALWAYS; a test compares the commands with those of the app
    "train": (3, 4, 5, 6, 7, 8, *SIGNALS),
    "resume": (3, 4, 5, 6, 7, 8, *SIGNALS),
    "predict": (3, 4, 5, *SIGNALS),
    "evaluate": (3, 4, 5, 7),
    "export": (4, 5),
    "report": (4, 5),
    "sweep": (3, 4, 5, 6, 8, *SIGNALS),
    "cv": (3, 5, 6, 8, *SIGNALS),
    "init": (3, 5),
    "check": (3, 5, 6),
    "inspect": (3, 4, 5),
    "list": (),
    "schema": (),
    "completion": (),
    "runs": (5,),
    "runs rm": (5,),
    "runs compare": (5,),
    "cache": (5,),
    "cache clear": (5,),
}


def commands() -> Iterator[tuple[str, Any]]:
    """Yield the name and the command object of every command, subcommands after their group."""

    def walk(group: Any, prefix: str) -> Iterator[tuple[str, Any]]:
        for name, command in sorted(group.commands.items()) if prefix else group.commands.items():
            yield prefix + name, command
            if hasattr(command, "commands"):
                yield from walk(command, f"{prefix}{name} ")

    yield from walk(typer.main.get_command(app), "")


def example(command: Any) -> str:
    """Return the example line of a command, without its label."""
    return str(command.epilog).rpartition("Example: ")[2].partition("\n")[0]


def signature(param: Any) -> str:
    """Return an argument or option as a user types it."""
    if param.param_type_name == "argument":
        return str(param.metavar)
    value = "" if param.is_flag else f" {param.metavar}"
    return ", ".join(sorted(param.opts, key=len, reverse=True)) + value


def default(param: Any) -> str:
    """Return the default that the help shows, empty where there is none."""
    if param.required:
        return "required"
    return f"`{param.default}`" if param.show_default and not param.is_flag else ""


def section(name: str, command: Any) -> str:
    """Describe one command: its example, arguments and options, and exit codes."""
    params = sorted(command.params, key=lambda param: param.param_type_name)  # arguments first
    rows = [[f"`{signature(param)}`", default(param), param.help] for param in params]
    codes = ", ".join(str(code) for code in sorted((*ALWAYS, *CODES[name])))
    return "\n\n".join(
        [
            f"## {name}",
            command.help,
            f"```sh\n{example(command)}\n```",
            table(["argument or option", "default", ""], rows),
            f"Exit codes: {codes}.",
        ]
    )


def page() -> str:
    """Return the text of docs/cli.md. Raises ValueError for an error class whose exit code has no meaning here."""
    missing = {kind.exit_code for kind in LinregError.__subclasses__()} - set(MEANINGS)
    if missing:
        raise ValueError(f"exit codes without a meaning: {missing}; add them to MEANINGS")
    codes = table(["code", "meaning"], [[str(code), meaning] for code, meaning in MEANINGS.items()])
    sections = [section(name, command) for name, command in commands()]
    return "\n\n".join([f"{HEAD}\n{codes}", *sections]) + "\n"


if __name__ == "__main__":
    (ROOT / "docs" / "cli.md").write_text(page())
