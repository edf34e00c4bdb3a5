"""Learning-rate schedulers: each builder takes an optimizer and the number of steps of the whole run.

It returns a Schedule: the scheduler, and the functions to call after a step and after an epoch. `per_epoch`, `per_step`
and `on_loss` make one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from linreg.registry import Registry

if TYPE_CHECKING:
    from torch import optim
    from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

SCHEDULERS = Registry(
    "scheduler", arguments=("optimizer", "total_steps"), returns="linreg.components.schedulers.Schedule"
)

Fraction = Annotated[float, Field(gt=0, lt=1)]


@dataclass(frozen=True)
class Schedule:
    """A scheduler, and when it moves: after each training step, or after each epoch with the epoch's loss (the
    validation loss, if there is one)."""

    scheduler: "LRScheduler"
    after_step: Callable[[], None] | None = None
    after_epoch: Callable[[float], None] | None = None


def per_epoch(scheduler: "LRScheduler") -> Schedule:
    """Step the scheduler after each epoch."""
    return Schedule(scheduler, after_epoch=lambda loss: scheduler.step())


def per_step(scheduler: "LRScheduler", total_steps: int) -> Schedule:
    """Step the scheduler after each training step. After its last planned step the learning rate stays constant, so
    that a run can be resumed."""

    def after_step() -> None:
        if scheduler.last_epoch < total_steps - 1:
            scheduler.step()

    return Schedule(scheduler, after_step=after_step)


def on_loss(scheduler: "ReduceLROnPlateau") -> Schedule:
    """Step the scheduler with the loss after each epoch."""
    return Schedule(scheduler, after_epoch=scheduler.step)


@SCHEDULERS.register("step")
def step(
    optimizer: "optim.Optimizer", total_steps: int, *, step_size: PositiveInt, gamma: PositiveFloat = 0.1
) -> Schedule:
    """Multiplies the learning rate by gamma every step_size epochs."""
    from torch.optim.lr_scheduler import StepLR

    return per_epoch(StepLR(optimizer, step_size=step_size, gamma=gamma))


@SCHEDULERS.register("exponential")
def exponential(optimizer: "optim.Optimizer", total_steps: int, *, gamma: PositiveFloat) -> Schedule:
    """Multiplies the learning rate by gamma every epoch."""
    from torch.optim.lr_scheduler import ExponentialLR

    return per_epoch(ExponentialLR(optimizer, gamma=gamma))


@SCHEDULERS.register("cosine")
def cosine(
    optimizer: "optim.Optimizer", total_steps: int, *, t_max: PositiveInt, eta_min: NonNegativeFloat = 0.0
) -> Schedule:
    """Lowers the learning rate along a cosine, to eta_min after t_max epochs."""
    from torch.optim.lr_scheduler import CosineAnnealingLR

    return per_epoch(CosineAnnealingLR(optimizer, T_max=t_max, eta_min=eta_min))


@SCHEDULERS.register("plateau")
def plateau(
    optimizer: "optim.Optimizer",
    total_steps: int,
    *,
    factor: Fraction = 0.1,
    patience: NonNegativeInt = 10,
    threshold: NonNegativeFloat = 1e-4,
    threshold_mode: Literal["rel", "abs"] = "rel",
    cooldown: NonNegativeInt = 0,
    min_lr: NonNegativeFloat = 0.0,
    eps: NonNegativeFloat = 1e-8,
) -> Schedule:
    """Multiplies the learning rate by factor when the loss has not improved for patience epochs."""
    params = {name: value for name, value in locals().items() if name != "total_steps"}
    from torch.optim.lr_scheduler import ReduceLROnPlateau

    return on_loss(ReduceLROnPlateau(**params))


@SCHEDULERS.register("one_cycle")
def one_cycle(
    optimizer: "optim.Optimizer",
    total_steps: int,
    *,
    max_lr: PositiveFloat,
    pct_start: Fraction = 0.3,
    anneal_strategy: Literal["cos", "linear"] = "cos",
    cycle_momentum: bool = False,
    base_momentum: Fraction = 0.85,
    max_momentum: Fraction = 0.95,
    div_factor: PositiveFloat = 25.0,
    final_div_factor: PositiveFloat = 1e4,
    three_phase: bool = False,
) -> Schedule:
    """Raises the learning rate to max_lr and lowers it again, once in the whole run, moving at every step."""
    params = locals()
    from torch.optim.lr_scheduler import OneCycleLR

    return per_step(OneCycleLR(**params), total_steps)
