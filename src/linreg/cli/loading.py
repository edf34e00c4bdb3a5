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


def checkpoint_or_latest(checkpoint: Path | None, checkpoints: Path) -> Path:
    """Return the checkpoint, or the newest one in the folder if none is given. Raises CheckpointError."""
    if checkpoint is not None:
        return checkpoint
    from linreg.runs.folders import latest_checkpoint

    latest = latest_checkpoint(checkpoints)
    if latest is None:
        raise CheckpointError(f"{checkpoints / 'latest'}: no checkpoint yet; train first, or name one")
    print_stderr(f"using {latest}")
    return latest
