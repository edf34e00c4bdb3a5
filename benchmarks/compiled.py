"""Compiled steps of a linear model beside the textbook loop and scikit-learn's SGDRegressor, on one thread.

    python -m benchmarks.compiled [RUNS]

What is timed of linreg is an epoch by the functions of `linreg.compiled`: drawing the order, the steps, their losses.
Of the textbook loop a part of an epoch is timed, without the drawing of its order; of SGDRegressor a whole `fit` of one
epoch, on the same array. Compiling and importing are left out. The engine of the tool stands in `benchmarks.steps`.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter

import numpy as np
import torch
from torch import nn, optim
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.rows import Row, compare, in_turn, table
from linreg.compiled import Loss, Rows, Sgd, fresh, make_train_chunk_fn

SHAPES = ((1_000_000, 20, 32), (100_000, 10, 32), (100_000, 1, 16))  # rows, features, batch size
TEXTBOOK_STEPS = 2000
LR = 0.01


def make_data(n_rows: int, n_features: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Make x (n_rows, n_features) and y (n_rows, 1), float32, a linear model with noise."""
    generator = torch.Generator().manual_seed(13)
    x = torch.randn(n_rows, n_features, generator=generator)
    y = x @ torch.randn(n_features, 1, generator=generator) + 0.1 * torch.randn(n_rows, 1, generator=generator)
    return x, y


def make_textbook_fn(x: torch.Tensor, y: torch.Tensor, batch_size: int) -> Callable[[], float]:
    """Make the function that gives the seconds a step of the textbook's loop takes."""
    loader = DataLoader(TensorDataset(x, y), batch_size=batch_size, shuffle=True)
    model = nn.Linear(x.shape[1], 1)
    loss_fn = nn.MSELoss()
    optimizer = optim.SGD(model.parameters(), lr=LR)

    def textbook() -> float:
        batches = iter(loader)
        next(batches)
        losses = []
        start = perf_counter()
        for _, (x_batch, y_batch) in zip(range(TEXTBOOK_STEPS), batches, strict=False):
            loss = loss_fn(model(x_batch), y_batch)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        return (perf_counter() - start) / len(losses)

    return textbook


def make_compiled_fn(x: torch.Tensor, y: torch.Tensor, batch_size: int) -> Callable[[], float]:
    """Make the function that gives the seconds a compiled step takes, the drawing of the order included."""
    optimizer = Sgd()
    weight = fresh(np.zeros((1, x.shape[1]), np.float32), optimizer)
    bias = fresh(np.zeros(1, np.float32), optimizer)
    rows = Rows(x.numpy(), y.numpy())
    train_chunk = make_train_chunk_fn(rows, weight, bias, loss=Loss("mse"), optimizer=optimizer, batch_size=batch_size)

    def compiled() -> float:
        start = perf_counter()
        losses = train_chunk(torch.randperm(len(x)).numpy(), lr=LR, momentum=0.0, steps_done=0)
        return (perf_counter() - start) / len(losses)

    return compiled


def make_sgd_regressor_fn(x: torch.Tensor, y: torch.Tensor, batch_size: int) -> Callable[[], float]:
    """Make the function that gives the seconds that SGDRegressor, whose batch is one row, takes for as many rows as a
    step has."""
    from sklearn.linear_model import SGDRegressor

    x_array, y_array = x.numpy(), y.numpy().ravel()

    def sgd_regressor() -> float:
        start = perf_counter()
        SGDRegressor(max_iter=1, tol=None, alpha=0.0, learning_rate="constant", eta0=LR).fit(x_array, y_array)
        return (perf_counter() - start) / len(x_array) * batch_size

    return sgd_regressor


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def measure(runs: int) -> list[Row]:
    """Measure all shapes, in turn; medians of `runs` rounds. The targets are those of the first, the largest."""
    found = []
    for n_rows, n_features, batch_size in SHAPES:
        data = make_data(n_rows, n_features)
        with one_thread():
            seconds = in_turn(
                {
                    "compiled": make_compiled_fn(*data, batch_size),
                    "textbook": make_textbook_fn(*data, batch_size),
                    "SGDRegressor": make_sgd_regressor_fn(*data, batch_size),
                },
                runs,
            )
        first = (n_rows, n_features, batch_size) == SHAPES[0]
        name = f"a compiled step, {n_rows:,} x {n_features}, batch {batch_size}"
        ours = seconds["compiled"]
        for reference, theirs, target in (
            ("the textbook loop", seconds["textbook"], 100.0),
            ("SGDRegressor, as many rows", seconds["SGDRegressor"], 2.0),
        ):
            row = compare(name, reference, ours, theirs, target=target if first else None, better="higher")
            found.append(row)
    return found


if __name__ == "__main__":
    print(table({"compiled": measure(int(sys.argv[1]) if len(sys.argv) > 1 else 5)}), end="")
