"""Runs one command. Every error becomes a message and an exit code here, and nowhere else."""

import os
import sys
import time
from collections.abc import Sequence

import typer

from linreg.cli import completion
from linreg.cli.app import app
from linreg.cli.completion import VARIABLE
from linreg.cli.signals import Stopped
from linreg.cli.text import escape_unencodable, print_stderr, printable, shorten
from linreg.errors import GroupError, LinregError
from linreg.plugins import plugin_at_fault
from linreg.system.memory import is_out_of_memory

SECONDS_BEHIND = 1.0  # of a process that lost another: torchrun reports the exit code of the first that ends


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    escape_unencodable()
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if VARIABLE in os.environ:
        completion.start()
    try:
        code = app(args=arguments or ["--help"], prog_name="linreg", standalone_mode=False, obj=arguments)
        return code if isinstance(code, int) else 0
    except Stopped as stop:
        return stop.exit_code
    except SystemExit as stop:
        if isinstance(stop.__context__, BrokenPipeError):  # the reader of stdout is gone; Typer exits with 1
            return 0
        if not plugin_at_fault(stop):
            return stop.code if isinstance(stop.code, int) else 1
        caught: BaseException = stop
    except Exception as error:
        caught = error
    exit_code, lines = _describe(caught)
    if "--debug" in arguments:
        import traceback

        print_stderr("".join(traceback.format_exception(caught)).rstrip())
    for line in lines:
        print_stderr(f"error: {_of_process()}{shorten(printable(line))}")
    if isinstance(caught, GroupError):
        time.sleep(SECONDS_BEHIND)
    del caught  # its traceback would keep the files open that its frames were reading
    return exit_code


def _of_process() -> str:
    """Return the rank of a process that is not the first of its group, for its messages."""
    rank = os.environ.get("RANK", "0")  # `place` raises an error where the environment is wrong
    return "" if rank == "0" else f"rank {rank}: "


def _describe(error: BaseException) -> tuple[int, Sequence[str]]:
    """Return the exit code of an error, and its message: one line for each problem."""
    if isinstance(error, LinregError):
        return error.exit_code, error.problems
    if isinstance(error, typer.TyperException):
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "linreg"
        message = f"{error.format_message().rstrip('.')}; {command} -h shows the usage"
        return error.exit_code, [message.replace("\n", " ")]
    if isinstance(error, typer.Abort):
        return 130, ["aborted"]
    if isinstance(error, OSError):
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        return 5, [f"{what}; check the disk and the permissions"]
    if is_out_of_memory(error):
        reason = str(error).partition("\n")[0]
        return 3, [f"not enough memory: {reason}; use less data, or set data.memory: mapped"]
    if plugin := plugin_at_fault(error):
        return 2, [f"--plugin {plugin}: {type(error).__name__}: {error}; fix the plugin"]
    return 1, [f"{type(error).__name__}: {error}; a bug of linreg, please report it with --debug"]
