"""The textbook's program, written out plainly, against the tool: `==`, never nearly."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn, optim
from torch.utils.data import DataLoader, TensorDataset, random_split

import linreg
from linreg.checkpoint import load
from linreg.experiment.building import build
from linreg.experiment.session import train
from linreg.spec.schema import spec_from_dict
from linreg.training.loops import fit
from tests.conftest import ROOT, small_spec


def textbook(*, n=100, w=2.0, b=1.0, noise=0.1, data_seed=42, split_seed=13, ratio=0.8, batch_size=16, seed=42, lr=0.1,
             n_epochs=200, make_model=lambda n_features: nn.Sequential(nn.Linear(n_features, 1)),
             make_optimizer=optim.SGD):  # fmt: skip
    """The program of the text (random split, mini-batches, validation), with nothing of linreg in it."""
    np.random.seed(data_seed)
    x = np.random.rand(n, np.size(w))
    y = b + (w * x).sum(axis=1, keepdims=True) + noise * np.random.randn(n, 1)

    torch.manual_seed(split_seed)
    x_tensor = torch.from_numpy(x).float()
    y_tensor = torch.from_numpy(y).float()
    dataset = TensorDataset(x_tensor, y_tensor)
    n_train = int(n * ratio)
    train_data, val_data = random_split(dataset, [n_train, n - n_train])
    train_loader = DataLoader(dataset=train_data, batch_size=batch_size, shuffle=True)
    val_loader = DataLoader(dataset=val_data, batch_size=batch_size)

    torch.manual_seed(seed)
    model = make_model(np.size(w))
    optimizer = make_optimizer(model.parameters(), lr=lr)
    loss_fn = nn.MSELoss(reduction="mean")

    losses, val_losses = [], []
    for _ in range(n_epochs):
        mini_batch_losses = []
        for x_batch, y_batch in train_loader:
            model.train()
            yhat = model(x_batch)
            loss = loss_fn(yhat, y_batch)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            mini_batch_losses.append(loss.item())
        losses.append(np.mean(mini_batch_losses))
        with torch.no_grad():
            mini_batch_losses = []
            for x_batch, y_batch in val_loader:
                model.eval()
                yhat = model(x_batch)
                mini_batch_losses.append(loss_fn(yhat, y_batch).item())
            val_losses.append(np.mean(mini_batch_losses))
    return losses, val_losses, model.state_dict()


def tool(*, n=100, w=2.0, b=1.0, noise=0.1, data_seed=42, split_seed=13, ratio=0.8, batch_size=16, seed=42, lr=0.1,
         n_epochs=200, **changes):  # fmt: skip
    spec = small_spec(
        seed=seed,
        epochs=n_epochs,
        data__source={"name": "linear", "n_samples": n, "weight": w, "bias": b, "noise": noise, "seed": data_seed},
        data__split={"train_ratio": ratio, "seed": split_seed},
        data__batch_size=batch_size,
        optimizer__lr=lr,
        **changes,
    )
    result = train(spec_from_dict(spec, "test"))
    saved = linreg.load(result.checkpoint)
    return saved.loss, saved.val_loss, saved.model_state_dict


def assert_same(a, b):
    assert a[0] == b[0]
    assert a[1] == b[1]
    assert list(a[2]) == list(b[2])
    assert all(torch.equal(a[2][name], b[2][name]) for name in a[2])


def test_the_shipped_config_gives_the_textbooks_numbers(linreg):
    answer = linreg("train", ROOT / "configs" / "simple_linear_regression.yaml", "--quiet")
    saved = load(answer.out.strip())
    assert_same((saved.loss, saved.val_loss, saved.model_state_dict), textbook())
    assert round(saved.model_state_dict["0.weight"].item(), 4) == 1.9438
    assert round(saved.model_state_dict["0.bias"].item(), 4) == 1.0287


@pytest.mark.parametrize(
    "settings_",
    [
        {"batch_size": 1, "n_epochs": 5},
        {"batch_size": 7, "n_epochs": 20},
        {"batch_size": 80, "n_epochs": 20},
        {"batch_size": 1000, "n_epochs": 20},
        {"lr": 0.01, "n_epochs": 30},
        {"lr": 1e-3, "seed": 0, "n_epochs": 30},
        {"ratio": 0.5, "split_seed": 0, "n_epochs": 30},
        {"ratio": 0.29, "n_epochs": 10},  # int(100 * 0.29) is 28
        {"n": 1000, "n_epochs": 5},
        {"n": 13, "batch_size": 4, "n_epochs": 30},
        {"w": -3.5, "b": 0.0, "noise": 0.0, "data_seed": 7, "n_epochs": 30},
    ],
    ids=str,
)
def test_losses_and_parameters_are_the_textbooks_to_the_last_bit(settings_):
    assert_same(tool(**settings_), textbook(**settings_))


TEN = np.linspace(-2, 3, 10).tolist()


@pytest.mark.parametrize(
    ("their", "ours"),
    [
        ({"make_optimizer": partial(optim.SGD, momentum=0.9, nesterov=True, weight_decay=0.01)},
         {"optimizer": {"name": "sgd", "lr": 0.02, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}}),
        ({"make_optimizer": partial(optim.SGD, momentum=0.8, dampening=0.2)},
         {"optimizer": {"name": "sgd", "lr": 0.02, "momentum": 0.8, "dampening": 0.2}}),
        ({"make_optimizer": partial(optim.AdamW, weight_decay=0.1)},
         {"optimizer": {"name": "adamw", "lr": 0.02, "weight_decay": 0.1}}),
        ({"make_model": lambda n: nn.Sequential(nn.Linear(n, 32), nn.ReLU(), nn.Linear(32, 1)), "make_optimizer": optim.Adam},
         {"model": {"name": "mlp", "hidden": [32]}, "optimizer": {"name": "adam", "lr": 0.02}}),
    ],
    ids=["nesterov", "dampening", "adamw", "mlp"],
)  # fmt: skip
@pytest.mark.parametrize("batch_size", [32, 7])
def test_other_models_and_optimizers_are_the_textbooks_to_the_last_bit(their, ours, batch_size):
    settings_ = {"w": TEN, "n": 300, "lr": 0.02, "n_epochs": 12, "batch_size": batch_size}
    assert_same(tool(**settings_, **ours), textbook(**settings_, **their))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.fixed_dictionaries(
        {
            "n": st.integers(2, 120),
            "batch_size": st.integers(1, 64),
            "lr": st.floats(1e-4, 0.5),
            "seed": st.integers(0, 2**32 - 1),
            "split_seed": st.integers(0, 2**32 - 1),
            "data_seed": st.integers(0, 2**32 - 1),
            "n_epochs": st.integers(1, 6),
        }
    )
)
def test_any_settings_give_the_textbooks_bits(settings_):
    assert_same(tool(**settings_), textbook(**settings_))


def test_writing_for_tensorboard_does_not_change_the_losses():
    everything = {"graph": True, "hparams": True, "histograms": 1, "figures": True, "plots": True}
    assert_same(tool(n_epochs=5, writer=everything), textbook(n_epochs=5))


def test_full_batches_are_batch_gradient_descent():
    spec = spec_from_dict(small_spec(data__batch_size="full", data__shuffle=False), "test")
    experiment = build(spec)
    subset = experiment.loaders.train.dataset
    x, y = experiment.dataset.x[subset.indices], experiment.dataset.y[subset.indices]

    torch.manual_seed(spec.seed)
    model = nn.Sequential(nn.Linear(1, 1))
    train_step_fn = linreg.make_train_step_fn(model, nn.MSELoss(), optim.SGD(model.parameters(), lr=0.1))
    losses = [train_step_fn(x, y) for _ in range(6)]

    saved = linreg.load(train(spec).checkpoint)
    assert saved.loss == losses
    assert torch.equal(saved.model_state_dict["0.weight"], model[0].weight)


def test_the_names_of_the_text_work_together_by_themselves():
    x, y = torch.rand(20, 1), torch.rand(20, 1)
    train_data = linreg.CustomDataset(x, y)
    assert train_data[3] == (x[3], y[3])
    assert len(train_data) == len(TensorDataset(x, y)) == 20
    model = nn.Sequential(nn.Linear(1, 1))
    loss_fn, optimizer = nn.MSELoss(reduction="mean"), optim.SGD(model.parameters(), lr=0.1)
    train_step_fn = linreg.make_train_step_fn(model, loss_fn, optimizer)
    val_step_fn = linreg.make_val_step_fn(model, loss_fn)
    train_loader = DataLoader(dataset=train_data, batch_size=16, shuffle=True)
    losses, val_losses = [], []
    for _ in range(3):
        losses.append(linreg.mini_batch("cpu", train_loader, train_step_fn))
        with torch.no_grad():
            val_losses.append(linreg.mini_batch("cpu", train_loader, val_step_fn))
    assert losses[2] < losses[0]
    figure = linreg.plot_losses(losses, val_losses)
    figure.savefig("losses.png")
    assert Path("losses.png").stat().st_size > 5000


def test_fit_in_a_callers_own_loop_is_the_same_training():
    spec = spec_from_dict(small_spec(), "test")
    experiment = build(spec)
    parts = experiment.loaders
    found = list(
        fit(
            lambda: linreg.mini_batch("cpu", parts.train, experiment.train_step_fn),
            lambda: linreg.mini_batch("cpu", parts.val, experiment.val_step_fn),
            range(spec.epochs),
        )
    )
    saved = linreg.load(train(spec).checkpoint)
    assert [losses.loss for losses in found] == saved.loss
    assert [losses.val_loss for losses in found] == saved.val_loss
