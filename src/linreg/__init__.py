"""Train regression models with PyTorch from YAML experiment specs.

The names below are imported when they are first used, so that `import linreg` alone does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from linreg.system.version import __version__ as __version__

if TYPE_CHECKING:
    from linreg.checkpoint import Checkpoint, load, save
    from linreg.components.losses import LOSSES
    from linreg.components.models import MODELS
    from linreg.components.optimizers import OPTIMIZERS
    from linreg.components.schedulers import SCHEDULERS, Schedule, on_loss, per_epoch, per_step
    from linreg.components.transforms import TARGET_TRANSFORMS, TRANSFORMS, Derived, OfTarget
    from linreg.data.dataset import CustomDataset
    from linreg.data.loaders import make_loaders
    from linreg.data.sources import DATASETS, Samples
    from linreg.data.split import split
    from linreg.errors import (
        CheckpointError,
        DataError,
        DivergedError,
        ExpectationError,
        GroupError,
        LinregError,
        SpecError,
        StorageError,
        UsageError,
    )
    from linreg.experiment.building import Experiment, build
    from linreg.experiment.checking import check
    from linreg.experiment.evaluating import Evaluation, evaluate
    from linreg.experiment.predicting import Prediction, predict
    from linreg.experiment.predicting_table import predict_table
    from linreg.experiment.result import Result
    from linreg.experiment.resuming import resume, train_or_resume
    from linreg.experiment.session import train
    from linreg.registry import ComponentSpec, Registry
    from linreg.runs.plots import plot_losses
    from linreg.runs.writer import open_writer
    from linreg.spec.schema import ExperimentSpec, load_spec
    from linreg.training.loops import EpochLosses, fit, mini_batch
    from linreg.training.steps import make_train_step_fn, make_val_step_fn

_HOMES = {
    "checkpoint": ["Checkpoint", "load", "save"],
    "data.sources": ["DATASETS", "Samples"],
    "errors": [
        "CheckpointError",
        "DataError",
        "DivergedError",
        "ExpectationError",
        "GroupError",
        "LinregError",
        "SpecError",
        "StorageError",
        "UsageError",
    ],
    "experiment.building": ["Experiment", "build"],
    "experiment.checking": ["check"],
    "experiment.evaluating": ["Evaluation", "evaluate"],
    "experiment.predicting": ["Prediction", "predict"],
    "experiment.predicting_table": ["predict_table"],
    "experiment.result": ["Result"],
    "experiment.resuming": ["resume", "train_or_resume"],
    "experiment.session": ["train"],
    "data.dataset": ["CustomDataset"],
    "data.loaders": ["make_loaders"],
    "data.split": ["split"],
    "training.loops": ["EpochLosses", "fit", "mini_batch"],
    "components.losses": ["LOSSES"],
    "components.models": ["MODELS"],
    "components.optimizers": ["OPTIMIZERS"],
    "runs.plots": ["plot_losses"],
    "registry": ["ComponentSpec", "Registry"],
    "components.transforms": ["TARGET_TRANSFORMS", "TRANSFORMS", "Derived", "OfTarget"],
    "components.schedulers": ["SCHEDULERS", "Schedule", "on_loss", "per_epoch", "per_step"],
    "spec.schema": ["ExperimentSpec", "load_spec"],
    "training.steps": ["make_train_step_fn", "make_val_step_fn"],
    "runs.writer": ["open_writer"],
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [  # written out: type checkers read it
    "DATASETS",
    "LOSSES",
    "MODELS",
    "OPTIMIZERS",
    "SCHEDULERS",
    "TARGET_TRANSFORMS",
    "TRANSFORMS",
    "Checkpoint",
    "CheckpointError",
    "ComponentSpec",
    "CustomDataset",
    "DataError",
    "Derived",
    "DivergedError",
    "EpochLosses",
    "Evaluation",
    "ExpectationError",
    "Experiment",
    "ExperimentSpec",
    "GroupError",
    "LinregError",
    "OfTarget",
    "Prediction",
    "Registry",
    "Result",
    "Samples",
    "Schedule",
    "SpecError",
    "StorageError",
    "UsageError",
    "build",
    "check",
    "evaluate",
    "fit",
    "load",
    "load_spec",
    "make_loaders",
    "make_train_step_fn",
    "make_val_step_fn",
    "mini_batch",
    "on_loss",
    "open_writer",
    "per_epoch",
    "per_step",
    "plot_losses",
    "predict",
    "predict_table",
    "resume",
    "save",
    "split",
    "train",
    "train_or_resume",
]


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(import_module(f"linreg.{_HOME_OF[name]}"), name)
    raise AttributeError(f"module 'linreg' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
