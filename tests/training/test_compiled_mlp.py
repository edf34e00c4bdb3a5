"""The compiled engine for multilayer perceptrons: its gradients are autograd's, its runs the textbook's up to rounding."""

import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from linreg.training.engines.compiled.arrays import Loss, Mlp, Rows, Sgd, make_problem, train_steps
from linreg.training.engines.compiled.mlp import PIECE
from tests.conftest import same, write_spec

MODULES = [nn.ReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.SiLU, nn.ELU, nn.LeakyReLU]
SLOPES = {5: 1.0, 6: 0.01}
LOSSES = {
    Loss("mse"): nn.MSELoss(reduction="none"),
    Loss("mae"): nn.L1Loss(reduction="none"),
    Loss("huber", 0.7): nn.HuberLoss("none", 0.7),
}


def network(widths, module):
    layers = []
    for n_in, n_out in pairwise(widths):
        layers += [nn.Linear(n_in, n_out), module()]
    return nn.Sequential(*layers[:-1]).double()


@pytest.mark.parametrize("widths", [(3, 5, 2), (1, 1, 1), (4, 6, 3, 5, 1), (2, 70, 33, 3)], ids=str)
@pytest.mark.parametrize("kind", range(7), ids=[module.__name__ for module in MODULES])
@pytest.mark.parametrize("loss", LOSSES, ids=["mse", "mae", "huber"])
@pytest.mark.parametrize("batch_size", [1, 19, PIECE, PIECE + 1, 395])
def test_a_gradient_is_that_of_autograd(batch_size, loss, kind, widths):
    torch.manual_seed(kind)
    model = network(widths, MODULES[kind])
    x, y, weight = torch.randn(400, widths[0]), torch.randn(400, widths[-1]), torch.rand(400, 1)
    x, y, weight = x.double(), y.double(), weight.double()
    order = np.random.default_rng(0).permutation(400)
    batch = order[:batch_size]
    expected = (weight[batch] * LOSSES[loss](model(x[batch]), y[batch])).mean()
    expected.backward()
    for most in (None, 1e9, 1e-3):  # the last one changes what torch has
        p = np.concatenate([parameter.detach().numpy().ravel() for parameter in model.parameters()])
        moments = np.zeros((1, len(p)))
        mlp = Mlp(np.array(widths), kind, SLOPES.get(kind, 0.0))
        points = Rows(x.numpy(), y.numpy(), weight.numpy())
        problem = make_problem(points, mlp, loss, Sgd(), clip_grad_norm=most)
        # with momentum the buffer starts as the gradient
        rates = np.array([[0.0], [0.5]])
        losses = train_steps(problem, p, moments, batch, batch_size=batch_size, rates=rates, steps_done=0)
        assert losses == pytest.approx([expected.item()], rel=1e-13)
        if most:
            nn.utils.clip_grad_norm_(model.parameters(), most)
        theirs = np.concatenate([parameter.grad.numpy().ravel() for parameter in model.parameters()])
        assert np.abs(moments[0] - theirs).max() < 1e-12 * np.abs(theirs).max()


VARIANTS = {
    "sgd": {},
    "momentum": {"optimizer": {"name": "sgd", "lr": 0.02, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}},
    "adam": {"optimizer": {"name": "adam", "lr": 0.01}},
    "amsgrad": {"optimizer": {"name": "adam", "lr": 0.01, "amsgrad": True, "weight_decay": 0.01}},
    "adamw": {"optimizer": {"name": "adamw", "lr": 0.01, "weight_decay": 0.1}},
    "rmsprop": {"optimizer": {"name": "rmsprop", "lr": 0.003, "weight_decay": 0.01}},
    "centered": {"optimizer": {"name": "rmsprop", "lr": 0.003, "momentum": 0.5, "centered": True}},
    "rmsprop with momentum": {"optimizer": {"name": "rmsprop", "lr": 0.003, "momentum": 0.9}},
    "adagrad": {"optimizer": {"name": "adagrad", "lr": 0.05, "lr_decay": 0.01, "weight_decay": 0.01}},
    "initial sum": {"optimizer": {"name": "adagrad", "lr": 0.05, "initial_accumulator_value": 0.1}},
    "clip": {"clip_grad_norm": 0.1},
    "schedule": {"scheduler": {"name": "one_cycle", "max_lr": 0.05}},
    "huber": {"loss": {"name": "huber", "delta": 0.5}},
    "deep": {"model": {"name": "mlp", "hidden": [7, 6, 5], "activation": "gelu"}},
    "full batch": {"data__batch_size": "full"},
    "standardize": {"data__standardize": True},
    "no validation": {"data__split": {"train_ratio": 1.0}},
}


def spec_of(variant, **changes):
    options = {
        "data__source": {"name": "friedman1", "n_samples": 90},
        "model": {"name": "mlp", "hidden": [8], "activation": "tanh"},
        "optimizer": {"name": "sgd", "lr": 0.01},
        "dtype": "float64",
        "epochs": 5,
    }
    return write_spec(**{**options, **VARIANTS[variant], **changes})


def trained(linreg, spec, name, *options):
    answer = linreg("train", spec, "--name", name, *options)
    assert answer.code == 0, answer.err
    return torch.load(f"checkpoints/{name}_001/last.pth", weights_only=True)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_run_is_the_textbooks_up_to_rounding(linreg, variant):
    spec = spec_of(variant)
    ours, theirs = (trained(linreg, spec, engine, f"engine={engine}") for engine in ("compiled", "textbook"))
    assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-10)
    if theirs["val_loss"][0] is not None:
        assert ours["val_loss"] == pytest.approx(theirs["val_loss"], rel=1e-10)
    for name, tensor in theirs["model_state_dict"].items():
        assert torch.allclose(ours["model_state_dict"][name], tensor, rtol=1e-9, atol=1e-11)
    for ours_of, theirs_of in zip(*(s["optimizer_state_dict"]["state"].values() for s in (ours, theirs)), strict=True):
        for name, value in theirs_of.items():
            if value is not None:
                assert torch.allclose(ours_of[name], value, rtol=1e-8, atol=1e-11)


def test_float32_stays_within_some_eps_a_step(linreg):
    spec = spec_of("adam", dtype="float32", epochs=20)
    ours, theirs = (trained(linreg, spec, engine, f"engine={engine}") for engine in ("compiled", "textbook"))
    n_steps = 20 * 5
    assert ours["loss"] == pytest.approx(theirs["loss"], rel=n_steps * 2**-23)


@pytest.mark.parametrize("variant", ["momentum", "adam", "centered", "adagrad", "schedule"])
def test_a_run_resumes_with_the_same_bits(linreg, variant):
    spec = spec_of(variant, dtype="float32", engine="compiled", checkpoint__every=1)
    whole = trained(linreg, spec, "whole", "epochs=6")
    if variant == "schedule":
        parts = trained(linreg, spec, "parts", "epochs=6")
    else:
        trained(linreg, spec, "parts", "epochs=2")
        assert linreg("resume", "checkpoints/parts_001/last.pth", "epochs=6").code == 0
        parts = torch.load("checkpoints/parts_001/last.pth", weights_only=True)
    assert same(whole["model_state_dict"], parts["model_state_dict"]) and whole["loss"] == parts["loss"]
    assert same(whole["optimizer_state_dict"]["state"], parts["optimizer_state_dict"]["state"])


def test_weights_of_points_count(linreg, own_folder):
    rows = np.random.default_rng(0).normal(size=(60, 3))
    lines = ["a,b,y,w", *(f"{a},{b},{y},{abs(a)}" for a, b, y in rows)]
    (own_folder / "t.csv").write_text("\n".join(lines) + "\n")
    source = {"name": "csv", "path": "t.csv", "target": "y", "sample_weight": "w"}
    spec = spec_of("adam", data__source=source)
    ours, theirs = (trained(linreg, spec, engine, f"engine={engine}") for engine in ("compiled", "textbook"))
    assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-10)


def test_an_engine_may_continue_the_run_of_another(linreg):
    spec = spec_of("adam")
    whole = trained(linreg, spec, "whole", "epochs=6", "engine=textbook")
    trained(linreg, spec, "parts", "epochs=3", "engine=textbook")
    answer = linreg("resume", "checkpoints/parts_001/last.pth", "epochs=6", "engine=compiled", "--json")
    assert json.loads(answer.out)["loss"] == pytest.approx(whole["loss"][-1], rel=1e-10)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"model": {"name": "mlp", "hidden": [3], "dropout": 0.1}}, "models linear and mlp, without dropout and hooks"),
        ({"model": {"name": "polynomial", "degree": 2}}, "models linear and mlp, without dropout and hooks"),
    ],
)
def test_what_has_no_kernel_is_refused_by_name(linreg, changes, message):
    answer = linreg("train", spec_of("sgd", engine="compiled", **changes))
    assert answer.code == 2 and message in answer.err
