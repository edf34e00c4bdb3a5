"""Steps and loops, compared with arithmetic by hand."""

import math

import pytest
import torch
from torch import nn, optim

from linreg.training.loops import Patience, fit, mini_batch
from linreg.training.steps import make_train_step_fn, make_val_step_fn


def line(weight, bias):
    model = nn.Linear(1, 1)
    with torch.no_grad():
        model.weight.fill_(weight)
        model.bias.fill_(bias)
    return model


X = torch.tensor([[0.0], [1.0], [2.0]])
Y = torch.tensor([[1.0], [3.0], [5.0]])  # y = 1 + 2x


def test_a_train_step_is_one_gradient_step():
    model = line(1.0, 0.0)  # errors yhat - y: -1, -2, -3
    step = make_train_step_fn(model, nn.MSELoss(), optim.SGD(model.parameters(), lr=0.1))
    assert step(X, Y) == pytest.approx(14 / 3)
    # d/dw = 2/3 (0 + -2 + -6) = -16/3; d/db = 2/3 (-6) = -4
    assert model.weight.item() == pytest.approx(1 + 0.1 * 16 / 3)
    assert model.bias.item() == pytest.approx(0.4)
    assert model.weight.grad is None


def test_a_long_gradient_is_clipped_to_the_given_norm():
    model = line(1.0, 0.0)
    step = make_train_step_fn(model, nn.MSELoss(), optim.SGD(model.parameters(), lr=1.0), clip_grad_norm=0.5)
    step(X, Y)
    moved = math.hypot(model.weight.item() - 1.0, model.bias.item())
    assert moved == pytest.approx(0.5, rel=1e-4)
    assert (model.weight.item() - 1.0) / model.bias.item() == pytest.approx(16 / 3 / 4, rel=1e-4)


def test_a_validation_step_uses_eval_mode_and_changes_nothing():
    model = nn.Sequential(line(1.0, 0.0), nn.Dropout(0.9))
    model.train()
    step = make_val_step_fn(model, nn.MSELoss())
    assert step(X, Y) == pytest.approx(14 / 3)
    assert not model.training
    assert model[0].weight.item() == 1.0


def test_a_train_step_sets_train_mode():
    model = line(1.0, 0.0)
    model.eval()
    make_train_step_fn(model, nn.MSELoss(), optim.SGD(model.parameters(), lr=0.1))(X, Y)
    assert model.training


def test_after_step_is_called_after_each_update():
    model = line(1.0, 0.0)
    seen = []
    step = make_train_step_fn(
        model, nn.MSELoss(), optim.SGD(model.parameters(), lr=0.1), after_step=lambda: seen.append(model.bias.item())
    )
    step(X, Y)
    assert seen == [pytest.approx(0.4)]


def test_mini_batch_returns_the_mean_of_the_batch_losses():
    batches = [(X[:2], Y[:2]), (X[2:], Y[2:])]
    assert mini_batch("cpu", batches, lambda x, y: float(len(x))) == 1.5


def test_mini_batch_resumes_after_the_batches_already_done():
    batches = [(X[i : i + 1], Y[i : i + 1]) for i in range(3)]
    seen = []
    position = [10.0, 20.0]
    assert mini_batch("cpu", batches, lambda x, y: seen.append(x.item()) or 60.0, mini_batch_losses=position) == 30.0
    assert seen == [2.0]
    assert position == [10.0, 20.0, 60.0]


def test_fit_validates_without_gradients_and_numbers_the_given_epochs():
    modes = []
    epochs = list(fit(lambda: 1.0, lambda: modes.append(torch.is_grad_enabled()) or 2.0, range(3, 5)))
    assert [(losses.epoch, losses.loss, losses.val_loss) for losses in epochs] == [(3, 1.0, 2.0), (4, 1.0, 2.0)]
    assert modes == [False, False]
    assert torch.is_grad_enabled()


def test_fit_without_validation_has_no_validation_loss():
    assert [losses.val_loss for losses in fit(lambda: 1.0, None, range(2))] == [None, None]


def test_fit_trains_an_epoch_only_on_request():
    trained = []
    epochs = fit(lambda: trained.append(1) or 1.0, None, range(10))
    next(epochs)
    assert len(trained) == 1


def test_patience_runs_out_after_the_given_number_of_epochs_without_improvement():
    patience = Patience(2, 0.1)
    losses = [1.0, 0.95, 0.5, 0.5, 0.45, 0.1]
    assert [(patience.runs_out(loss), patience.left) for loss in losses] == [
        (False, 2), (False, 1), (False, 2), (False, 1), (True, 2), (False, 2),
    ]  # fmt: skip
