"""`linreg completion`: the script with which a shell completes commands and options."""

from typing import Annotated, Literal

from linreg.cli import options as o
from linreg.cli.text import print_stdout

VARIABLE = "_LINREG_COMPLETE"  # which the script sets, and Typer reads


def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], o.argument("SHELL", "bash, zsh or fish.")],
) -> None:
    """Print the completion script of a shell."""
    from typer.completion import get_completion_script  # type: ignore[attr-defined]  # not in its __all__

    print_stdout(get_completion_script(prog_name="linreg", complete_var=VARIABLE, shell=shell))


def start() -> None:
    """Let Typer answer the questions of the scripts, if this process was started by one."""
    from typer.completion import completion_init  # type: ignore[attr-defined]  # not in its __all__

    completion_init()
