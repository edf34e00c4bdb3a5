"""From a spec to everything that training needs. Nothing here touches the disk, but the cache of mapped tables."""

import logging
import warnings
from dataclasses import dataclass

import torch
from torch import nn, optim

from linreg.components.losses import LOSSES, InTargetUnits, weighted
from linreg.components.models import MODELS
from linreg.components.optimizers import OPTIMIZERS
from linreg.components.schedulers import SCHEDULERS, Schedule
from linreg.data.dataset import CustomDataset
from linreg.data.loaders import Loaders, make_loaders
from linreg.data.mapped import MappedDataset, MappedPoints
from linreg.data.pipeline import Data
from linreg.data.preprocessing import Preprocessed, Preprocessing
from linreg.errors import SpecError, UsageError
from linreg.exact.closed_form import Exact, baseline, largest_stable_lr
from linreg.experiment.data import open_points
from linreg.experiment.mapped import prepare_mapped
from linreg.experiment.resident import prepare_resident
from linreg.spec.schema import ExperimentSpec
from linreg.system import generators
from linreg.system.memory import give_back_what_is_free
from linreg.training.engines import ENGINES, Engine, Training
from linreg.training.steps import LossFn, StepFn

log = logging.getLogger("linreg")


@dataclass(frozen=True)
class Experiment:
    """A spec, built: all that the loops take. network: what is trained, on the preprocessed data; model: the whole,
    with the preprocessing before it, or the network itself where there is none; baseline: the optimum, if it is known.
    """

    spec: ExperimentSpec
    device: torch.device
    data: Data
    model: nn.Module
    network: nn.Module
    optimizer: optim.Optimizer
    schedule: Schedule | None
    loaders: Loaders
    train_step_fn: StepFn
    val_step_fn: StepFn
    engine: Engine
    baseline: Exact | None

    @property
    def dataset(self) -> CustomDataset | MappedDataset:
        """The points, as the network takes them."""
        return self.data.dataset

    @property
    def feature_names(self) -> list[str]:
        """The names of the inputs."""
        return list(self.data.feature_names)

    @property
    def target_names(self) -> list[str]:
        """The names of the targets."""
        return list(self.data.target_names)

    @property
    def x_sample(self) -> torch.Tensor:
        """The first inputs of the data, as many as a batch has; taking them draws no random number."""
        size = min(self.loaders.train.batch_size or 1, len(self.dataset))
        return self.dataset.rows(torch.arange(size))[0].to(self.device)


def build(spec: ExperimentSpec, *, planned_epochs: int | None = None) -> Experiment:
    """Build everything that a spec names, in the textbook's order. Seeds torch's global generator, as the text does.

    planned_epochs: the epochs that a scheduler is planned for, where they are not those of the spec, as in a run
    that is continued beyond its end. Raises SpecError, DataError.
    """
    device = choose_device(spec)
    data = prepare(spec)

    generators.seed(spec.seed)
    network = build_network(spec, data.n_columns, len(data.target_names), device)

    batch_size = None if spec.data.batch_size == "full" else spec.data.batch_size
    parts = make_loaders(data.train_data, data.val_data, batch_size=batch_size, shuffle=spec.data.shuffle)

    loss_fn = LOSSES.build(spec.loss, where=spec.where("loss"))
    _probe(spec, network, loss_fn, data.dataset, device)
    if data.is_weighted:
        loss_fn = _weighted(spec, loss_fn)
    reported_loss_fn = loss_fn
    if data.preprocessing is not None and spec.data.standardize in (True, "target"):
        reported_loss_fn = _in_target_units(loss_fn, data.preprocessing, device)
    optimizer = OPTIMIZERS.build(spec.optimizer, network.parameters(), where=spec.where("optimizer"))
    schedule = None
    if spec.scheduler is not None:
        total_steps = (planned_epochs or spec.epochs) * len(parts.train)
        schedule = SCHEDULERS.build(spec.scheduler, optimizer, total_steps, where=spec.where("scheduler"))

    training = Training(
        device,
        parts,
        network,
        loss_fn,
        optimizer,
        clip_grad_norm=spec.clip_grad_norm,
        after_step=schedule.after_step if schedule else None,
        reported_loss_fn=None if reported_loss_fn is loss_fn else reported_loss_fn,
    )
    engine = _engine(spec, training)
    optimum = baseline(spec, data, network) if spec.baseline else None
    give_back_what_is_free()  # before the first pass, which draws the order of all rows
    return Experiment(
        spec=spec,
        device=device,
        data=data,
        model=network if data.preprocessing is None else Preprocessed(data.preprocessing, network),
        network=network,
        optimizer=optimizer,
        schedule=schedule,
        loaders=parts,
        train_step_fn=training.train_step_fn,
        val_step_fn=training.val_step_fn,
        engine=engine,
        baseline=optimum,
    )


def prepare(spec: ExperimentSpec) -> Data:
    """Read the data of a spec, divide it, learn the preprocessing of its training part. Raises SpecError, DataError."""
    points = open_points(spec)
    return prepare_mapped(spec, points) if isinstance(points, MappedPoints) else prepare_resident(spec, points)


def _engine(spec: ExperimentSpec, training: Training) -> Engine:
    try:
        return ENGINES[spec.engine](training)
    except UsageError as error:
        raise UsageError(f"{spec.where('engine')}: {error}") from None
    except ValueError as error:
        raise SpecError([f"{spec.where('engine')}: {spec.engine} {error}"]) from None


def build_network(spec: ExperimentSpec, n_columns: int, n_targets: int, device: torch.device) -> nn.Module:
    """Build the model of a spec for so many columns and targets."""
    network: nn.Module = MODELS.build(spec.model, n_columns, n_targets, where=spec.where("model"))
    return network.to(device=device, dtype=getattr(torch, spec.dtype))


def _weighted(spec: ExperimentSpec, loss_fn: LossFn) -> LossFn:
    try:
        return weighted(loss_fn)
    except ValueError as error:
        raise SpecError([f"{spec.where('loss')}: {error}"]) from None


def _in_target_units(loss_fn: LossFn, preprocessing: Preprocessing, device: torch.device) -> LossFn:
    precise = torch.float32 if device.type == "mps" else torch.float64
    return InTargetUnits(loss_fn, *(v.to(device, precise) for v in (preprocessing.y_scale, preprocessing.y_mean)))


def choose_device(spec: ExperimentSpec) -> torch.device:
    """Give the device that a spec names, `auto` being a GPU where there is one. One that is not there is a
    SpecError."""
    name = spec.device
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "mps":
        there = torch.backends.mps.is_available()
    else:
        kind, _, index = name.partition(":")
        there = kind == "cpu" or int(index or 0) < torch.cuda.device_count()
    if not there:
        raise SpecError([f"{spec.where('device')}: no {name} on this machine; use auto or cpu"])
    if name == "mps" and spec.dtype == "float64":
        raise SpecError([f"{spec.where('dtype')}: mps has no float64; use float32, or another device"])
    return torch.device(name)


def warn_of_slopes(experiment: Experiment) -> None:
    """Warn of a learning rate that is too large for the data, and of columns that say nothing of their own."""
    spec, found = experiment.spec, experiment.baseline
    if found is None:
        return
    for told in found.left_out:
        log.warning("%s", told)
    largest, lr = largest_stable_lr(spec, found), spec.optimizer.params.get("lr")
    if largest is not None and lr is not None and lr > largest and spec.clip_grad_norm is None:
        other = "" if spec.data.standardize in (True, "features") else " or standardise (data.standardize: true)"
        log.warning(
            "%s: lr %g > %.2g: will diverge; try %.2g%s", spec.where("optimizer"), lr, largest, largest / 2, other
        )


def _probe(
    spec: ExperimentSpec,
    model: nn.Module,
    loss_fn: LossFn,
    dataset: CustomDataset | MappedDataset,
    device: torch.device,
) -> None:
    """Refuse a model or loss that does not fit the data, which broadcasting would pass over."""
    x, y = (part.to(device) for part in dataset.rows(torch.arange(min(2, len(dataset))))[:2])
    model.eval()
    devices = [device] if device.type == "cuda" else []
    with warnings.catch_warnings(), torch.random.fork_rng(devices):  # a look, not a step
        warnings.simplefilter("ignore")
        try:
            yhat = model(x)
        except Exception as error:  # whatever a user's model raises
            reason = f"{type(error).__name__}: {error}".partition("\n")[0]
            raise SpecError(
                [f"{spec.where('model')}: fails on inputs {tuple(x.shape)}: {reason}; mend the model"]
            ) from error
        if not isinstance(yhat, torch.Tensor) or yhat.shape != y.shape:
            met = tuple(yhat.shape) if isinstance(yhat, torch.Tensor) else type(yhat).__name__
            what = f"gives {met} for inputs {tuple(x.shape)}, and the targets are {tuple(y.shape)}; mend the model"
            raise SpecError([f"{spec.where('model')}: {what}"])
        try:
            loss = loss_fn(yhat, y)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".partition("\n")[0]
            raise SpecError(
                [f"{spec.where('loss')}: fails on yhat and y of {tuple(y.shape)}: {reason}; mend it"]
            ) from error
    if not isinstance(loss, torch.Tensor) or loss.ndim or not loss.requires_grad:
        met = f"a tensor {tuple(loss.shape)}" if isinstance(loss, torch.Tensor) else type(loss).__name__
        what = f"gives {met}; it must be one number that depends on the model's parameters"
        raise SpecError([f"{spec.where('loss')}: {what}"])
