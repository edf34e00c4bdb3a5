"""The loss of a spec, checked with the model on a few points. `build` uses it."""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from linreg.components.losses import LOSSES, InTargetUnits, InvertedTarget, weighted
from linreg.data.pipeline import Data
from linreg.errors import SpecError
from linreg.spec.schema import ExperimentSpec
from linreg.training.steps import LossFn


def build_losses(spec: ExperimentSpec, data: Data, network: nn.Module, device: torch.device) -> tuple[LossFn, LossFn]:
    """Build the loss that is minimised, and the one that is reported, in the target's units.

    Raises SpecError if model or loss do not fit the data."""
    where = spec.where("loss")
    loss_fn: LossFn = LOSSES.build(spec.loss, where=where)
    _probe(network, loss_fn, data.dataset, device, model=spec.where("model"), loss=where)
    if data.is_weighted:
        try:
            loss_fn = weighted(loss_fn)
        except ValueError as error:
            raise SpecError([f"{where}: {error}"]) from None
    if data.preprocessing is None:
        return loss_fn, loss_fn
    target = data.preprocessing.target
    if target is None and spec.data.standardize not in (True, "target"):
        return loss_fn, loss_fn
    precise = torch.float32 if device.type == "mps" else torch.float64
    y_scale, y_mean = (v.to(device, precise) for v in (data.preprocessing.y_scale, data.preprocessing.y_mean))
    in_units = InTargetUnits(loss_fn, y_scale, y_mean)
    if target is None:
        return loss_fn, in_units
    values = {name: value.to(precise) for name, value in target.values(device).items()}
    return loss_fn, InvertedTarget(in_units, partial(target.of_target.invert, **values))


def _probe(network: nn.Module, loss_fn: LossFn, dataset: Any, device: torch.device, *, model: str, loss: str) -> None:
    """Raise a SpecError for a model or a loss that does not fit the data: broadcasting could hide it.

    Draws no random numbers. model, loss: their locations in the spec.
    """
    x, y = (part.to(device) for part in dataset.rows(torch.arange(min(2, len(dataset))))[:2])
    network.eval()
    devices = [device] if device.type == "cuda" else []
    with warnings.catch_warnings(), torch.random.fork_rng(devices):
        warnings.simplefilter("ignore")
        yhat = _call(lambda: network(x), f"{model}: fails on inputs {tuple(x.shape)}", "fix the model")
        if not isinstance(yhat, torch.Tensor) or yhat.shape != y.shape:
            got = tuple(yhat.shape) if isinstance(yhat, torch.Tensor) else type(yhat).__name__
            problem = f"returns {got} for inputs {tuple(x.shape)}, but the targets are {tuple(y.shape)}; fix the model"
            raise SpecError([f"{model}: {problem}"])
        value = _call(lambda: loss_fn(yhat, y), f"{loss}: fails on yhat and y of {tuple(y.shape)}", "fix it")
    if not isinstance(value, torch.Tensor) or value.ndim or not value.requires_grad:
        got = f"a tensor {tuple(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__
        raise SpecError([f"{loss}: returns {got}; it must be one number that depends on the model's parameters"])


def _call(function: Callable[[], Any], problem: str, remedy: str) -> Any:
    try:
        return function()
    except Exception as error:  # a user's own code may raise anything
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise SpecError([f"{problem}: {reason}; {remedy}"]) from error
