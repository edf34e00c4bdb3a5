"""Trains the same data by one tool after the other, each as its own documentation has it, with all extras off.

`python -m benchmarks.peers NAME` is one tool in a process of its own. It reads the name of a workload a line, trains
once and answers with the seconds that a mini-batch took; the first answer for a workload is its warm-up.
"""

import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from contextlib import chdir
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.rows import timed

ENOUGH = 0.1  # seconds: what takes less is repeated, and the mean is taken


@dataclass(frozen=True)
class Workload:
    """What is trained: rows of standard normal features; MSE; SGD, or with hidden layers Adam. lr: the learning rate;
    epochs: how many are timed together."""

    name: str
    title: str
    n_steps: int
    n_features: int
    batch_size: int
    hidden: tuple[int, ...] = ()
    lr: float = 0.01
    epochs: int = 3

    @property
    def n_rows(self) -> int:
        """The rows of the data: no batch is a short one, which JAX would have to compile apart."""
        return self.n_steps * self.batch_size


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("short_1x16", "linear, 1 feature, batch 16, SGD, 5 steps an epoch", 5, 1, 16, epochs=200),
        Workload("linear_1x16", "linear, 1 feature, batch 16, SGD", 200, 1, 16),
        Workload("linear_10x32", "linear, 10 features, batch 32, SGD", 200, 10, 32),
        Workload("mlp_10x32", "MLP 10-32-1, batch 32, Adam", 200, 10, 32, hidden=(32,), lr=0.001),
        Workload("mlp_20x128", "MLP 20-64-64-1, batch 128, Adam", 200, 20, 128, hidden=(64, 64), lr=0.001),
        Workload("many_1x16", "linear, 100,000 x 1, batch 16, SGD", 6250, 1, 16, epochs=1),
        Workload("many_10x32", "linear, 100,000 x 10, batch 32, SGD", 3125, 10, 32, epochs=1),
        Workload("million_20x32", "linear, 1,000,000 x 20, batch 32, SGD", 31250, 20, 32, epochs=1),
    )
}
SMALL = ("short_1x16", "linear_1x16", "linear_10x32", "mlp_10x32")
MILLION = ("million_20x32",)
DEEP = ("mlp_20x128",)
LARGE = ("many_1x16", "many_10x32", *MILLION)
LINEAR = ("short_1x16", "linear_1x16", "linear_10x32", *LARGE)


def make_data(workload: Workload) -> tuple[np.ndarray, np.ndarray]:
    """Make x (n_rows, n_features) and y (n_rows, 1) in float32: a line with a little noise."""
    random = np.random.RandomState(42)
    x = random.standard_normal((workload.n_rows, workload.n_features))
    y = 1 + x @ np.linspace(1, 2, workload.n_features) + 0.1 * random.standard_normal(workload.n_rows)
    return x.astype(np.float32), y[:, None].astype(np.float32)


# A tool's function builds everything and returns one that trains for workload.epochs and gives the seconds it took.
Train = Callable[[], float]


def textbook(workload: Workload) -> Train:
    """The loop that courses teach: DataLoader, autograd, optimizer.step, .item()."""
    import torch

    device = torch.device("cpu")
    model, loss_fn, optimizer = _torch_parts(workload)
    train_loader = _torch_loader(workload)

    def perform_train_step_fn(x: Any, y: Any) -> Any:
        model.train()
        yhat = model(x)
        loss = loss_fn(yhat, y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    def train() -> None:
        for _ in range(workload.epochs):
            mini_batch_losses = []
            for x_batch, y_batch in train_loader:
                x_batch = x_batch.to(device)  # noqa: PLW2901  # as the textbook has it
                y_batch = y_batch.to(device)  # noqa: PLW2901  # likewise
                mini_batch_losses.append(perform_train_step_fn(x_batch, y_batch))
            np.mean(mini_batch_losses)

    return timed(train)


def linreg_engine(engine: str, workload: Workload) -> Train:
    """An engine of linreg, by the public functions."""
    import linreg

    @linreg.DATASETS.register(workload.name)
    def source() -> linreg.Samples:
        """The data of the workload."""
        return linreg.Samples(*make_data(workload))

    linear = not workload.hidden
    text = f"""\
        {{name: benchmark, engine: {engine}, device: cpu, baseline: false, epochs: {workload.epochs},
         data: {{source: {{name: {workload.name}}}, batch_size: {workload.batch_size}, split: {{train_ratio: 1.0}}}},
         model: {"{name: linear}" if linear else f"{{name: mlp, hidden: {list(workload.hidden)}}}"},
         optimizer: {{name: {"sgd" if linear else "adam"}, lr: {workload.lr}}}}}"""
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        Path("benchmark.yaml").write_text(text)
        experiment = linreg.build(linreg.load_spec("benchmark.yaml"))

    def train() -> None:
        if experiment.engine.group is not None:  # as a run does
            experiment.engine.group(0, workload.epochs, 0.0)
            return
        for _ in range(workload.epochs):
            experiment.engine.train_epoch()

    return timed(train)


def lightning(workload: Workload) -> Train:
    """PyTorch Lightning's Trainer, barebones: no logger, checkpoints, progress bar, validation."""
    import lightning

    model, loss_fn, optimizer = _torch_parts(workload)
    warnings.filterwarnings("ignore", module="lightning")  # advice: workers for the loader, what barebones leaves out

    class Regression(lightning.LightningModule):
        """The textbook's step as a LightningModule; takes the time from its first batch to its last."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def training_step(self, batch: Any, _: int) -> Any:
            x, y = batch
            return loss_fn(self.model(x), y)

        def configure_optimizers(self) -> Any:
            return optimizer

        def on_train_start(self) -> None:
            self.start = perf_counter()

        def on_train_end(self) -> None:
            self.seconds = perf_counter() - self.start

    module, loader = Regression(), _torch_loader(workload)

    def train() -> float:
        trainer = lightning.Trainer(barebones=True, accelerator="cpu", devices=1, max_epochs=workload.epochs)
        trainer.fit(module, loader)
        return module.seconds

    return train


def skorch(workload: Workload) -> Train:
    """skorch's NeuralNetRegressor without callbacks and validation."""
    from skorch import NeuralNetRegressor
    from torch import nn, optim

    model, _, _ = _torch_parts(workload)
    net = NeuralNetRegressor(
        model,
        criterion=nn.MSELoss,
        optimizer=optim.Adam if workload.hidden else optim.SGD,
        lr=workload.lr,
        batch_size=workload.batch_size,
        max_epochs=workload.epochs,
        iterator_train__shuffle=True,
        train_split=None,
        callbacks="disable",
        verbose=0,
    ).initialize()
    x, y = make_data(workload)
    return timed(lambda: net.partial_fit(x, y))


def ignite(workload: Workload) -> Train:
    """ignite's supervised trainer without handlers."""
    from ignite.engine import create_supervised_trainer

    model, loss_fn, optimizer = _torch_parts(workload)
    trainer, loader = create_supervised_trainer(model, optimizer, loss_fn), _torch_loader(workload)
    return timed(lambda: trainer.run(loader, max_epochs=workload.epochs))


def keras(workload: Workload) -> Train:
    """Keras' fit, on the backend that KERAS_BACKEND names."""
    import keras

    hidden = [keras.layers.Dense(n, activation="relu") for n in workload.hidden]
    model = keras.Sequential([keras.Input((workload.n_features,)), *hidden, keras.layers.Dense(1)])
    optimizer = keras.optimizers.Adam if hidden else keras.optimizers.SGD
    model.compile(optimizer=optimizer(workload.lr), loss="mse")
    x, y = make_data(workload)
    return timed(lambda: model.fit(x, y, batch_size=workload.batch_size, epochs=workload.epochs, verbose=0))


def jax_scan(workload: Workload) -> Train:
    """An epoch as one jitted `lax.scan` over the mini-batches of a permutation; SGD or Adam written out."""
    import jax
    import jax.numpy as jnp

    x, y = (jnp.asarray(array) for array in make_data(workload))
    widths = [workload.n_features, *workload.hidden, 1]
    keys = jax.random.split(jax.random.key(42), len(widths))
    layers = [
        (jax.random.normal(key, (before, after)) / before**0.5, jnp.zeros(after))
        for key, before, after in zip(keys, widths, widths[1:], strict=False)
    ]
    zeros = jax.tree.map(jnp.zeros_like, layers)

    def loss_of(layers: Any, x: Any, y: Any) -> Any:
        for weight, bias in layers[:-1]:
            x = jax.nn.relu(x @ weight + bias)
        weight, bias = layers[-1]
        return jnp.mean((x @ weight + bias - y) ** 2)

    def sgd(state: Any, rows: Any) -> Any:
        (layers,) = state
        loss, gradients = jax.value_and_grad(loss_of)(layers, x[rows], y[rows])
        return (jax.tree.map(lambda p, g: p - workload.lr * g, layers, gradients),), loss

    def adam(state: Any, rows: Any) -> Any:
        layers, means, squares, step = state
        loss, gradients = jax.value_and_grad(loss_of)(layers, x[rows], y[rows])
        step += 1
        means = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, means, gradients)
        squares = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, squares, gradients)
        size = workload.lr * jnp.sqrt(1 - 0.999**step) / (1 - 0.9**step)
        layers = jax.tree.map(lambda p, m, v: p - size * m / (jnp.sqrt(v) + 1e-8), layers, means, squares)
        return (layers, means, squares, step), loss

    @jax.jit
    def run_epoch(state: Any, key: Any) -> Any:
        order = jax.random.permutation(key, workload.n_rows).reshape(-1, workload.batch_size)
        state, losses = jax.lax.scan(adam if workload.hidden else sgd, state, order)
        return state, losses.mean()

    state: Any = (layers, zeros, zeros, jnp.float32(0)) if workload.hidden else (layers,)
    key = keys[-1]

    def train() -> None:
        nonlocal state, key
        for _ in range(workload.epochs):
            key, now = jax.random.split(key)
            state, loss = run_epoch(state, now)
            float(loss)

    return timed(train)


def sgd_regressor(workload: Workload) -> Train:
    """scikit-learn's SGDRegressor, which steps after every row: the time is that for the rows of a mini-batch."""
    from sklearn.linear_model import SGDRegressor

    model = SGDRegressor(
        penalty=None, learning_rate="constant", eta0=workload.lr, max_iter=workload.epochs, tol=None, random_state=42
    )
    x, y = make_data(workload)
    return timed(lambda: model.fit(x, y[:, 0]))


def mlp_regressor(workload: Workload) -> Train:
    """scikit-learn's MLPRegressor, with a stop that is never reached."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPRegressor

    warnings.simplefilter("ignore", ConvergenceWarning)  # the epochs asked for are all that is wanted
    model = MLPRegressor(
        hidden_layer_sizes=workload.hidden,
        alpha=0,
        batch_size=workload.batch_size,
        learning_rate_init=workload.lr,
        max_iter=workload.epochs,
        n_iter_no_change=workload.epochs,
        random_state=42,
    )
    x, y = make_data(workload)
    return timed(lambda: model.fit(x, y[:, 0]))


def linear_regression(workload: Workload) -> Train:
    """scikit-learn's LinearRegression: the optimum without training, as the limit."""
    from sklearn.linear_model import LinearRegression

    x, y = make_data(workload)
    return timed(lambda: LinearRegression().fit(x, y))


def _torch_parts(workload: Workload) -> tuple[Any, Any, Any]:
    """Model, loss function and optimizer."""
    import torch
    from torch import nn, optim

    torch.manual_seed(42)
    if not workload.hidden:
        model = nn.Sequential(nn.Linear(workload.n_features, 1))
        return model, nn.MSELoss(), optim.SGD(model.parameters(), lr=workload.lr)
    widths = [workload.n_features, *workload.hidden, 1]
    layers = [layer for pair in pairwise(widths) for layer in (nn.Linear(*pair), nn.ReLU())]
    model = nn.Sequential(*layers[:-1])
    return model, nn.MSELoss(), optim.Adam(model.parameters(), lr=workload.lr)


def _torch_loader(workload: Workload) -> Any:
    """The loader, of shuffled mini-batches."""
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    data = TensorDataset(*(torch.from_numpy(array) for array in make_data(workload)))
    return DataLoader(data, batch_size=workload.batch_size, shuffle=True)


@dataclass(frozen=True)
class Peer:
    """A tool: its function, its workloads, the packages with relevant versions, its environment."""

    make_train: Callable[[Workload], Train]
    workloads: tuple[str, ...] = SMALL
    packages: tuple[str, ...] = ("torch",)
    env: dict[str, str] = field(default_factory=dict)


TEXTBOOK = "textbook loop"
OWN_TEXTBOOK = "linreg, engine: textbook"
AUTO, COMPILED = "linreg, engine: auto", "linreg, engine: compiled"
LIGHTNING, SKORCH, IGNITE = "PyTorch Lightning", "skorch", "ignite"
KERAS_TORCH, KERAS_JAX = "Keras on torch", "Keras on JAX"
JAX_SCAN = "JAX lax.scan"
SGD_REGRESSOR, MLP_REGRESSOR = "scikit-learn SGDRegressor", "scikit-learn MLPRegressor"
LINEAR_REGRESSION = "scikit-learn LinearRegression (exact)"

PEERS = {
    TEXTBOOK: Peer(textbook, (*SMALL, *LARGE, *DEEP)),
    OWN_TEXTBOOK: Peer(partial(linreg_engine, "textbook")),
    AUTO: Peer(partial(linreg_engine, "auto"), (*SMALL, *MILLION)),
    COMPILED: Peer(partial(linreg_engine, "compiled"), (*LINEAR, "mlp_10x32", *DEEP), ("numba",)),
    LIGHTNING: Peer(lightning, packages=("lightning",)),
    SKORCH: Peer(skorch, packages=("skorch",)),
    IGNITE: Peer(ignite, packages=("pytorch-ignite",)),
    KERAS_TORCH: Peer(keras, packages=("keras",), env={"KERAS_BACKEND": "torch"}),
    KERAS_JAX: Peer(keras, packages=("keras", "jax"), env={"KERAS_BACKEND": "jax"}),
    JAX_SCAN: Peer(jax_scan, (*SMALL, *MILLION, *DEEP), ("jax",)),
    SGD_REGRESSOR: Peer(sgd_regressor, LINEAR, ("scikit-learn",)),
    MLP_REGRESSOR: Peer(mlp_regressor, ("mlp_10x32",), ("scikit-learn",)),
    LINEAR_REGRESSION: Peer(linear_regression, MILLION, ("scikit-learn",)),
}


def serve(name: str) -> None:
    """Answer each workload on stdin with the seconds of a mini-batch on stdout, until stdin ends."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever a tool prints must not be taken for an answer
    trains: dict[str, Train] = {}
    for line in sys.stdin:
        workload = WORKLOADS[line.strip()]
        if line not in trains:
            trains[line] = PEERS[name].make_train(workload)
        seconds, count = 0.0, 0
        while seconds < ENOUGH:
            seconds += trains[line]()
            count += 1
        print(seconds / (count * workload.epochs * workload.n_steps), file=answers, flush=True)


if __name__ == "__main__":
    serve(sys.argv[1])
