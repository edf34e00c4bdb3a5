"""A program that uses the public names of linreg, for `mypy --strict` (tests/test_typing.py) and `make package`.

`assert_type` is checked by mypy. The program runs in a folder with smoke.yaml.
"""

from collections.abc import Callable
from pathlib import Path
from typing import assert_type

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import linreg


@linreg.LOSSES.register("cubic")
def cubic(*, factor: float = 1.0) -> Callable[..., torch.Tensor]:
    """The mean cube of the absolute errors."""

    def loss_fn(yhat: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return factor * (yhat - y).abs().pow(3).mean()

    return loss_fn


@linreg.TRANSFORMS.register("cube_root")
def cube_root(*, columns: str | list[str]) -> linreg.Derived:
    """The cube root: cbrt(x)."""
    return linreg.Derived(lambda name: [f"cbrt({name})"], lambda x: x.sign() * x.abs() ** (1 / 3))


def by_hand(spec: linreg.ExperimentSpec) -> list[linreg.EpochLosses]:
    """Train with the loop of the caller."""
    experiment = linreg.build(spec)
    assert_type(experiment, linreg.Experiment)
    assert_type(experiment.model, nn.Module)

    def train_epoch() -> float:
        return linreg.mini_batch(experiment.device, experiment.loaders.train, experiment.train_step_fn)

    def val_epoch() -> float:
        with torch.no_grad():
            return linreg.mini_batch(experiment.device, experiment.loaders.val or (), experiment.val_step_fn)

    history = list(linreg.fit(train_epoch, val_epoch, range(spec.epochs)))
    assert_type(history[-1].val_loss, float | None)
    return history


def by_linreg(spec: linreg.ExperimentSpec) -> linreg.Result:
    """Train, resume, predict and evaluate as the commands do."""
    result = linreg.train(spec, runs=Path("runs"), checkpoints=Path("checkpoints"))
    result = linreg.resume(result.checkpoint, ["epochs=8"])
    assert_type(result.loss, float | None)
    prediction = linreg.predict(result.checkpoint, [[0.2], {"x": 0.34}, 0.57])
    assert_type(prediction, linreg.Prediction)
    values: NDArray[np.floating] = prediction.predictions
    evaluation = linreg.evaluate(result.checkpoint, part="val")
    assert_type(evaluation.metrics, dict[str, dict[str, float | None]])
    checkpoint = linreg.load(result.checkpoint)
    assert_type(checkpoint.loss, list[float])
    linreg.save(Path("copy.pth"), checkpoint)
    linreg.plot_losses(checkpoint.loss, checkpoint.val_loss).savefig("losses.png")
    print(values.shape, evaluation.n_samples, result.epochs)
    return result


def main() -> None:
    """Train one spec by hand and by linreg, with the same losses."""
    overrides = ["epochs=4", "loss={name: cubic}", "data.transforms=[{name: cube_root, columns: x}]"]
    spec = linreg.load_spec("smoke.yaml", overrides)
    assert_type(spec, linreg.ExperimentSpec)
    losses = [epoch.loss for epoch in by_hand(spec)]
    assert losses == linreg.load(by_linreg(spec).checkpoint).loss[:4]
    try:
        linreg.load_spec("smoke.yaml", ["epoch=4"])
    except linreg.SpecError as error:
        assert_type(error.exit_code, int)
        print(error)


if __name__ == "__main__":
    main()
