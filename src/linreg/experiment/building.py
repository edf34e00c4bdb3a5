"""Builds everything that training needs from a spec: `build`. Only the cache of mapped tables writes to disk."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn, optim

from linreg.components.optimizers import OPTIMIZERS
from linreg.components.schedulers import SCHEDULERS, Schedule
from linreg.data.dataset import CustomDataset
from linreg.data.loaders import Loaders, make_loaders
from linreg.data.mapped import MappedDataset
from linreg.data.pipeline import Data
from linreg.data.preprocessing import Preprocessed
from linreg.errors import SpecError, UsageError
from linreg.exact.baseline import baseline
from linreg.exact.closed_form import Exact
from linreg.experiment.data import prepare
from linreg.experiment.losses import build_losses
from linreg.experiment.network import build_network, choose_device
from linreg.spec.schema import ExperimentSpec
from linreg.system import generators
from linreg.training.engines import ENGINES, Engine, Training
from linreg.training.shards import Exchange, make_sharded_engine
from linreg.training.steps import StepFn


@dataclass(frozen=True)
class Experiment:
    """The parts of a spec, built for the loops.

    network: the trained module, on preprocessed data; model: the network with its preprocessing, or the network itself
    without one; baseline: the optimum, if it is known; exchange: with the other processes of a group.
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
    training: Training
    engine: Engine
    baseline: Exact | None
    exchange: Exchange

    @property
    def dataset(self) -> CustomDataset | MappedDataset:
        """The points, as inputs and targets of the network."""
        dataset: CustomDataset | MappedDataset = self.data.dataset
        return dataset

    @property
    def feature_names(self) -> list[str]:
        """The names of the inputs."""
        return list(self.data.feature_names)

    @property
    def target_names(self) -> list[str]:
        """The names of the targets."""
        return list(self.data.target_names)

    @cached_property
    def state(self) -> dict[str, torch.Tensor]:
        """The network's state, whose tensors are those of the network."""
        state: dict[str, torch.Tensor] = self.network.state_dict()
        return state

    def forget_state(self) -> None:
        """Take `state` anew at its next use: the parameters have moved to other memory."""
        vars(self).pop("state", None)

    @property
    def exact_loss(self) -> float | None:
        """The monitored loss at the optimum of the training part, or None."""
        exact = self.baseline
        return None if exact is None else exact.loss if exact.val_loss is None else exact.val_loss

    @property
    def x_sample(self) -> torch.Tensor:
        """A batch of the first inputs, taken without random numbers."""
        size = min(self.loaders.train.batch_size or 1, len(self.dataset))
        return self.dataset.rows(torch.arange(size))[0].to(self.device)


def build(
    spec: ExperimentSpec,
    *,
    planned_epochs: int | None = None,
    data: Data | None = None,
    with_baseline: bool = True,
    exchange: Exchange | None = None,
) -> Experiment:
    """Build everything that a spec names, in the textbook's order. Seeds torch's global generator, as the text does.

    planned_epochs: the epochs that a scheduler was planned for, if a run resumes beyond its end. data: that of the
    spec, if it is prepared already. with_baseline: whether to compute the optimum, if the spec wants it. exchange: with
    the other processes of a group. Raises SpecError, DataError.
    """
    device, exchange = choose_device(spec), exchange or Exchange()
    data = prepare(spec, exchange) if data is None else data

    generators.seed(spec.seed)
    network = build_network(spec, data.n_columns, len(data.target_names), device)
    batch_size = None if spec.data.batch_size == "full" else spec.data.batch_size
    loaders = make_loaders(data.train_data, data.val_data, batch_size=batch_size, shuffle=spec.data.shuffle)

    loss_fn, reported_loss_fn = build_losses(spec, data, network, device)
    optimizer = OPTIMIZERS.build(spec.optimizer, network.parameters(), where=spec.where("optimizer"))
    schedule = None
    if spec.scheduler is not None:
        shards = data.train_shards
        n_batches = len(loaders.train) if shards is None else shards.n_batches(batch_size)
        total_steps = (planned_epochs or spec.epochs) * n_batches
        schedule = SCHEDULERS.build(spec.scheduler, optimizer, total_steps, where=spec.where("scheduler"))

    training = Training(
        device,
        loaders,
        network,
        loss_fn,
        optimizer,
        clip_grad_norm=spec.clip_grad_norm,
        after_step=schedule.after_step if schedule else None,
        reported_loss_fn=None if reported_loss_fn is loss_fn else reported_loss_fn,
    )
    engine = _build_engine(spec, training, data, exchange, batch_size)
    is_least_squares = spec.baseline and spec.loss.name == "mse" and spec.data.target_transform is None
    optimum = baseline(data, network, batch_size=batch_size) if is_least_squares and with_baseline else None
    return Experiment(
        spec=spec,
        device=device,
        data=data,
        model=network if data.preprocessing is None else Preprocessed(data.preprocessing, network),
        network=network,
        optimizer=optimizer,
        schedule=schedule,
        loaders=loaders,
        train_step_fn=training.train_step_fn,
        val_step_fn=training.val_step_fn,
        training=training,
        engine=engine,
        baseline=optimum,
        exchange=exchange,
    )


def _build_engine(
    spec: ExperimentSpec, training: Training, data: Data, exchange: Exchange, batch_size: int | None
) -> Engine:
    if data.train_shards is not None:
        return make_sharded_engine(training, data.train_shards, data.val_shards, exchange, batch_size=batch_size)
    try:
        return ENGINES[spec.engine](training)
    except UsageError as error:
        raise UsageError(f"{spec.where('engine')}: {error}") from None
    except ValueError as error:
        raise SpecError([f"{spec.where('engine')}: {spec.engine} {error}"]) from None
