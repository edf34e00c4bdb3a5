"""Train regression models with PyTorch from YAML experiment specs.

The names below are imported when they are first used, so that `import linreg` alone does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from linreg.version import __version__ as __version__

if TYPE_CHECKING:
    from linreg.checkpoint import Checkpoint, load, save
    from linreg.datasets import DATASETS, Samples
    from linreg.errors import (
        CheckpointError,
        DataError,
        DivergedError,
        ExpectationError,
        LinregError,
        SpecError,
        StorageError,
        UsageError,
    )
    from linreg.experiment import (
        Evaluation,
        Experiment,
        Prediction,
        Result,
        build,
        check,
        evaluate,
        predict,
        predict_table,
        resume,
        train,
        train_or_resume,
    )
    from linreg.loaders import CustomDataset, make_loaders, split
    from linreg.loops import EpochLosses, fit, mini_batch
    from linreg.losses import LOSSES
    from linreg.models import MODELS
    from linreg.optimizers import OPTIMIZERS
    from linreg.plots import plot_losses
    from linreg.registry import ComponentSpec, Registry
    from linreg.schedulers import SCHEDULERS, Schedule, on_loss, per_epoch, per_step
    from linreg.spec import ExperimentSpec, load_spec
    from linreg.steps import make_train_step_fn, make_val_step_fn
    from linreg.writer import open_writer

_HOMES = {
    "checkpoint": ["Checkpoint", "load", "save"],
    "datasets": ["DATASETS", "Samples"],
    "errors": [
        "CheckpointError",
        "DataError",
        "DivergedError",
        "ExpectationError",
        "LinregError",
        "SpecError",
        "StorageError",
        "UsageError",
    ],
    "experiment": [
        "Evaluation",
        "Experiment",
        "Prediction",
        "Result",
        "build",
        "check",
        "evaluate",
        "predict",
        "predict_table",
        "resume",
        "train",
        "train_or_resume",
    ],
    "loaders": ["CustomDataset", "make_loaders", "split"],
    "loops": ["EpochLosses", "fit", "mini_batch"],
    "losses": ["LOSSES"],
    "models": ["MODELS"],
    "optimizers": ["OPTIMIZERS"],
    "plots": ["plot_losses"],
    "registry": ["ComponentSpec", "Registry"],
    "schedulers": ["SCHEDULERS", "Schedule", "on_loss", "per_epoch", "per_step"],
    "spec": ["ExperimentSpec", "load_spec"],
    "steps": ["make_train_step_fn", "make_val_step_fn"],
    "writer": ["open_writer"],
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)  # noqa: PLE0605  # a list of strings; a test holds it true


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(import_module(f"linreg.{_HOME_OF[name]}"), name)
    raise AttributeError(f"module 'linreg' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
