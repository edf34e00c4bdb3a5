"""The command line: arguments in, text out. Results go to stdout, everything else to stderr."""

import sys
from collections.abc import Sequence

import typer

from linreg.cli.commands import app
from linreg.cli.progress import Stopped
from linreg.cli.text import printable, say, shorten, tolerate_any_text
from linreg.errors import LinregError
from linreg.plugins import plugin_at_fault
from linreg.system.memory import is_out_of_memory

__all__ = ["app", "main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; every error becomes its message here, and nowhere else."""
    tolerate_any_text()
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        code = app(args=arguments or ["--help"], prog_name="linreg", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except (LinregError, typer.TyperException) as error:
        caught: BaseException = error
        message = _usage(error) if isinstance(error, typer.TyperException) else str(error)
        exit_code = error.exit_code
    except typer.Abort as error:
        caught, message, exit_code = error, "aborted", 130
    except Stopped as stop:
        return stop.exit_code
    except SystemExit as stop:
        if isinstance(stop.__context__, BrokenPipeError):  # a pipe that nobody reads any more; Typer exits with 1
            return 0
        caught, plugin = stop, plugin_at_fault(stop)
        if not plugin:
            return stop.code if isinstance(stop.code, int) else 1
        message, exit_code = f"--plugin {plugin}: SystemExit: {stop.code}; mend the plugin", 2
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        caught, message, exit_code = error, f"{what}; check the disk and the permissions", 5
    except Exception as error:
        caught, plugin = error, plugin_at_fault(error)
        if is_out_of_memory(error):
            reason = str(error).partition("\n")[0]
            message, exit_code = f"not enough memory: {reason}; ask for less, or set data.memory: mapped", 3
        elif plugin:
            message, exit_code = f"--plugin {plugin}: {type(error).__name__}: {error}; mend the plugin", 2
        else:
            message = f"{type(error).__name__}: {error}; a bug of linreg, please report it with --debug"
            exit_code = 1
    if "--debug" in arguments:
        import traceback

        say("".join(traceback.format_exception(caught)).rstrip())
    for line in getattr(caught, "problems", (message,)):
        say(f"error: {shorten(printable(line))}")
    del caught  # or its traceback would keep open, until the interpreter is gone, what its frames were reading
    return exit_code


def _usage(error: typer.TyperException) -> str:
    """Say what is wrong with the arguments, and where to look."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "linreg"
    return f"{error.format_message().rstrip('.')}; {command} -h shows the usage".replace("\n", " ")
