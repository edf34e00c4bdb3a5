"""Plugins: Python files of `--plugin`, which register components when they are imported."""

import contextlib
import importlib.util
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path

from linreg.errors import LinregError, UsageError

PREFIX = "linreg_plugin_"


def load_plugins(paths: Iterable[Path]) -> None:
    """Import each file once. Raises UsageError, with file and line, for one that is missing or fails."""
    for path in paths:
        name = f"{PREFIX}{path.stem}"
        loaded = sys.modules.get(name)
        if loaded is not None and Path(loaded.__file__ or "") == path.resolve():
            continue
        if not path.is_file():
            raise UsageError(f"--plugin {path}: no such file; name a Python file that registers components")
        spec = importlib.util.spec_from_file_location(name, path.resolve())
        if spec is None or spec.loader is None:
            raise UsageError(f"--plugin {path}: not a Python file; its name must end in .py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            with contextlib.redirect_stdout(sys.stderr):  # stdout is for results
                spec.loader.exec_module(module)
        except LinregError:
            del sys.modules[name]
            raise
        except (Exception, SystemExit) as error:  # a plugin may raise anything
            del sys.modules[name]
            line = _line_in(path, error)
            raise UsageError(f"--plugin {path}{line}: {type(error).__name__}: {error}; fix the plugin") from error


def _line_in(path: Path, error: BaseException) -> str:
    lines = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).name == path.name
    ]
    if isinstance(error, SyntaxError) and error.lineno:
        lines.append(error.lineno)
    return f":{lines[-1]}" if lines else ""


def plugin_at_fault(error: BaseException) -> str | None:
    """Return the line of a plugin in the traceback of an error, as `FILE.py:12`; None without one."""
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        if frame.f_globals.get("__name__", "").startswith(PREFIX):
            return f"{Path(frame.f_code.co_filename).name}:{line}"
    return None
