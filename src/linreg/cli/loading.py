"""Loads the files that commands name: plugins, specs, the newest checkpoint."""

from pathlib import Path
from typing import TYPE_CHECKING

from linreg.cli.text import print_stderr
from linreg.errors import CheckpointError
from linreg.system.startup import importing_torch

if TYPE_CHECKING:
    from linreg.spec.schema import ExperimentSpec


def load_plugins(plugins: list[Path] | None) -> None:
    """Import the files of `--plugin`."""
    if plugins:
        import linreg.spec.schema  # noqa: F401  # the built-in components first, so that a plugin cannot take their names
        from linreg import plugins as modules

        with importing_torch():
            modules.load_plugins(plugins)


def load_spec(path: Path, overrides: list[str], plugins: list[Path] | None) -> "ExperimentSpec":
    """Load a spec, after the plugins that it may need."""
    from linreg.spec import schema

    load_plugins(plugins)
    return schema.load_spec(path, overrides)


def has_sweep(path: Path, overrides: list[str]) -> bool:
    """Return whether a spec has a sweep block, or an override has several values. Raises SpecError."""
    from linreg.spec.document import varied_values
    from linreg.spec.schema import read_spec

    value = read_spec(path).value
    return (isinstance(value, dict) and "sweep" in value) or any(varied_values(override) for override in overrides)


def checkpoint_or_latest(checkpoint: Path | None, checkpoints: Path) -> Path:
    """Return a checkpoint: the given file, or that of the given run, or of the newest one in the folder.

    That of a run is its best epoch if early_stopping is set, else its last one. Raises CheckpointError."""
    if checkpoint is None:
        from linreg.runs.folders import latest_checkpoint

        path = latest_checkpoint(checkpoints)
        if path is None:
            raise CheckpointError(f"{checkpoints / 'latest'}: no checkpoint yet; train first, or name one")
    elif len(checkpoint.parts) == 1 and not checkpoint.exists() and (checkpoints / checkpoint).is_dir():
        path = checkpoints / checkpoint / "last.pth"
        if not path.exists() and "_sweep_" in checkpoint.name:
            raise CheckpointError(f"{checkpoint}: a sweep, not a run; linreg runs lists the runs of its winners")
    else:
        return checkpoint
    best = path.with_name("best.pth")
    if path.name == "last.pth" and best.is_file():
        with importing_torch():
            from linreg.checkpoint import load_or_advise
        if load_or_advise(path).spec.get("early_stopping"):
            path = best
    why = ", the best epoch of a run with early_stopping" if path == best else ""
    print_stderr(f"using {path}{why}")
    return path
