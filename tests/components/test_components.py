"""Every registered component: built from a spec, and the same as PyTorch's own."""

import numpy as np
import pytest
import torch
from torch import nn, optim
from torch.optim import lr_scheduler

from linreg.components.losses import LOSSES
from linreg.components.models import MODELS
from linreg.components.optimizers import OPTIMIZERS
from linreg.components.schedulers import SCHEDULERS
from linreg.data.sources import DATASETS
from linreg.errors import SpecError, UsageError
from linreg.experiment.building import build
from linreg.plugins import load_plugins
from linreg.registry import Registry
from linreg.spec.schema import spec_from_dict
from tests.conftest import small_spec, write_spec


def made(registry, name, *args, **params):
    return registry.build(registry.check({"name": name, **params}), *args)


def test_the_linear_source_draws_the_textbooks_points():
    np.random.seed(42)
    x = np.random.rand(100, 1)
    y = 1 + 2 * x + 0.1 * np.random.randn(100, 1)
    samples = made(DATASETS, "linear")
    assert np.array_equal(samples.x, x)
    assert np.array_equal(samples.y, y)


def test_a_list_of_weights_makes_as_many_features():
    samples = made(DATASETS, "linear", weight=[1.0, -2.0, 3.0], noise=0.0, n_samples=7)
    assert samples.x.shape == (7, 3)
    assert np.allclose(samples.y[:, 0], 1 + samples.x @ [1.0, -2.0, 3.0])


def test_the_curved_sources_are_their_formulas():
    samples = made(DATASETS, "sine", noise=0.0, amplitude=3.0, frequency=2.0)
    assert np.allclose(samples.y, 3 * np.sin(4 * np.pi * samples.x))
    x, y = (samples := made(DATASETS, "friedman1", noise=0.0)).x, samples.y[:, 0]
    expected = 10 * np.sin(np.pi * x[:, 0] * x[:, 1]) + 20 * (x[:, 2] - 0.5) ** 2 + 10 * x[:, 3] + 5 * x[:, 4]
    assert x.shape == (1000, 10)
    assert np.allclose(y, expected)


def test_the_linear_model_is_the_textbooks_module():
    assert str(made(MODELS, "linear", 1, 1)) == str(nn.Sequential(nn.Linear(1, 1)))
    assert made(MODELS, "linear", 3, 2, bias=False)[0].bias is None


def test_the_mlp_has_the_layers_that_it_is_asked_for():
    model = made(MODELS, "mlp", 4, 2, hidden=[16, 8], activation="tanh", dropout=0.25)
    kinds = [type(layer).__name__ for layer in model]
    assert kinds == ["Linear", "Tanh", "Dropout", "Linear", "Tanh", "Dropout", "Linear"]
    assert [layer.weight.shape for layer in model if isinstance(layer, nn.Linear)] == [(16, 4), (8, 16), (2, 8)]
    assert model[2].p == 0.25


def test_the_polynomial_is_linear_in_the_powers():
    model = made(MODELS, "polynomial", 2, 1, degree=3)
    x = torch.tensor([[2.0, 3.0]])
    weights = torch.arange(1.0, 7.0)
    with torch.no_grad():
        model[1].weight.copy_(weights[None])
        model[1].bias.fill_(0.5)
    assert model(x).item() == 1 * 2 + 2 * 3 + 3 * 4 + 4 * 9 + 5 * 8 + 6 * 27 + 0.5


@pytest.mark.parametrize(
    ("name", "params", "expected"),
    [("mse", {}, (0.25 + 9) / 2), ("mae", {}, 1.75), ("huber", {"delta": 1.0}, (0.125 + 2.5) / 2), ("huber", {"delta": 2.0}, (0.125 + 4) / 2)],
)  # fmt: skip
def test_losses_are_their_formulas(name, params, expected):
    yhat, y = torch.tensor([[0.5], [3.0]]), torch.zeros(2, 1)
    assert made(LOSSES, name, **params)(yhat, y).item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "params", "theirs"),
    [
        ("sgd", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
         lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01)),
        ("adam", {"lr": 0.1, "betas": [0.8, 0.9], "amsgrad": True}, lambda p: optim.Adam(p, lr=0.1, betas=(0.8, 0.9), amsgrad=True)),
        ("adamw", {"lr": 0.1}, lambda p: optim.AdamW(p, lr=0.1)),
        ("rmsprop", {"lr": 0.1, "centered": True, "momentum": 0.5}, lambda p: optim.RMSprop(p, lr=0.1, centered=True, momentum=0.5)),
        ("adagrad", {"lr": 0.1, "lr_decay": 0.01}, lambda p: optim.Adagrad(p, lr=0.1, lr_decay=0.01)),
    ],
)  # fmt: skip
def test_optimizers_are_pytorchs(name, params, theirs):
    mine = made(OPTIMIZERS, name, [nn.Parameter(torch.ones(2))], **params)
    theirs = theirs([nn.Parameter(torch.ones(2))])
    assert type(mine) is type(theirs)
    settings = [{k: v for k, v in o.param_groups[0].items() if k != "params"} for o in (mine, theirs)]
    assert settings[0] == settings[1]


@pytest.mark.parametrize("name", OPTIMIZERS.names)
def test_the_defaults_of_optimizers_are_pytorchs(name):
    mine = made(OPTIMIZERS, name, [nn.Parameter(torch.ones(2))], lr=0.1)
    theirs = type(mine)([nn.Parameter(torch.ones(2))], lr=0.1)
    assert mine.defaults == theirs.defaults


SCHEDULES = [
    ({"name": "step", "step_size": 2, "gamma": 0.5}, lambda o: lr_scheduler.StepLR(o, 2, 0.5)),
    ({"name": "exponential", "gamma": 0.9}, lambda o: lr_scheduler.ExponentialLR(o, 0.9)),
    ({"name": "cosine", "t_max": 4, "eta_min": 0.01}, lambda o: lr_scheduler.CosineAnnealingLR(o, 4, 0.01)),
]


@pytest.mark.parametrize(
    ("params", "theirs"), SCHEDULES, ids=lambda value: value["name"] if isinstance(value, dict) else ""
)
def test_a_schedule_by_epochs_gives_pytorchs_learning_rates(params, theirs):
    optimizers = [optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1) for _ in range(2)]
    schedule = SCHEDULERS.build(SCHEDULERS.check(params), optimizers[0], 100)
    their_scheduler = theirs(optimizers[1])
    for _ in range(6):
        for optimizer in optimizers:
            optimizer.step()
        schedule.after_epoch(1.0)
        their_scheduler.step()
        assert optimizers[0].param_groups[0]["lr"] == optimizers[1].param_groups[0]["lr"]
    assert schedule.after_step is None


def test_one_cycle_moves_at_every_step_and_holds_its_last_value():
    mine, theirs = (optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1) for _ in range(2))
    schedule = made(SCHEDULERS, "one_cycle", mine, 10, max_lr=0.5)
    their_scheduler = lr_scheduler.OneCycleLR(theirs, max_lr=0.5, total_steps=10, cycle_momentum=False)
    for _ in range(9):
        for optimizer in (mine, theirs):
            optimizer.step()
        schedule.after_step()
        their_scheduler.step()
        assert mine.param_groups[0]["lr"] == theirs.param_groups[0]["lr"]
    last = mine.param_groups[0]["lr"]
    for _ in range(5):
        mine.step()
        schedule.after_step()
    assert mine.param_groups[0]["lr"] == last == pytest.approx(0.5 / 25 / 1e4)


def test_plateau_lowers_the_learning_rate_when_the_loss_stays():
    optimizer = optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)
    schedule = made(SCHEDULERS, "plateau", optimizer, 100, patience=1, factor=0.5)
    rates = []
    for loss in (1.0, 0.5, 0.5, 0.5, 0.5):
        schedule.after_epoch(loss)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == [0.1, 0.1, 0.1, 0.05, 0.05]


def test_params_that_do_not_go_together_are_an_error_at_the_components_place():
    spec = spec_from_dict(small_spec(optimizer__nesterov=True), "x.yaml")
    with pytest.raises(SpecError, match="^x.yaml: optimizer: sgd: Nesterov momentum requires a momentum"):
        build(spec)


def test_float64_is_float64_from_data_to_parameters():
    experiment = build(spec_from_dict(small_spec(dtype="float64"), "test"))
    assert experiment.dataset.x.dtype == experiment.model[0].weight.dtype == torch.float64


PLUGIN = '''
from linreg import MODELS, Samples, DATASETS
from pydantic import PositiveInt

@MODELS.register("{name}")
def wide(n_features, n_targets, *, width: PositiveInt = 4):
    """A wide one."""
    from torch import nn
    return nn.Sequential(nn.Linear(n_features, width), nn.Linear(width, n_targets))
'''


def test_a_users_component_is_checked_listed_and_suggested_like_a_built_in_one(linreg, tmp_path):
    (tmp_path / "mine.py").write_text(PLUGIN.format(name="wide_one"))
    write_spec(model={"name": "wide_one", "width": 0})
    answer = linreg("check", "small.yaml", "--plugin", "mine.py")
    assert (answer.code, answer.err) == (2, "error: small.yaml:10:10: model.width: must be > 0, got 0\n")
    answer = linreg("check", "small.yaml", "model={name: wide_on}", "--plugin", "mine.py")
    assert answer.err.endswith("model.name: unknown model 'wide_on'; did you mean 'wide_one'?\n")
    assert "model wide_one: A wide one.\n    width  whole number > 0  4" in linreg("list", "model").out
    answer = linreg("train", "small.yaml", "model.width=3", "--plugin", "mine.py", "-q")
    assert answer.code == 0
    assert linreg("predict", "--inputs", "0.5", "--plugin", "mine.py").code == 0
    MODELS._components.pop("wide_one")
    answer = linreg("predict", "--inputs", "0.5")
    assert answer.code == 4
    assert "unknown model 'wide_one'" in answer.err
    assert answer.err.endswith("known: linear, mlp, polynomial; your own needs --plugin FILE.py\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def f(:\n", "--plugin p.py:1: SyntaxError: invalid syntax (p.py, line 1); fix the plugin"),
        ("\nimport nonsense_module\n", "--plugin p.py:2: ModuleNotFoundError: No module named 'nonsense_module'; fix the plugin"),
        (PLUGIN.format(name="linear"), "p.py:5: model 'linear': the name is already registered by linreg.components.models; choose another"),
        (PLUGIN.format(name="w").replace(": PositiveInt", ""), "p.py:5: model 'w': the param 'width' has no annotation; write width: float, or the like"),
        (PLUGIN.format(name="w").replace("n_features, n_targets, *", "n_features, *"), "p.py:5: model 'w': a model takes (n_features, n_targets) and, after a *, its params"),
        (PLUGIN.format(name="w").replace("width: P", "name: P"), "p.py:5: model 'w': a param cannot be called 'name', which names the component; rename it"),
    ],
    ids=range(6),
)  # fmt: skip
def test_a_broken_plugin_is_explained(tmp_path, text, message):
    (tmp_path / "p.py").write_text(text)
    with pytest.raises(UsageError) as caught:
        load_plugins([tmp_path / "p.py"])
    said = str(caught.value).replace(f"{tmp_path}/", "").replace(f"({tmp_path}/", "(")
    assert said == message


def test_a_tuple_of_a_users_component_is_read_back_from_a_run(linreg, tmp_path):
    (tmp_path / "mine.py").write_text(
        PLUGIN.format(name="wide_one")
        .replace("width: PositiveInt = 4", "sizes: tuple[int, int] = (3, 4)")
        .replace("width", "sum(sizes)")
    )
    assert linreg("train", write_spec(), "model={name: wide_one}", "--plugin", "mine.py", "-q").code == 0
    assert linreg("resume", "checkpoints/small_001/last.pth", "--plugin", "mine.py", "-q").code == 0
    assert linreg("train", "runs/small_001/spec.yaml", "--plugin", "mine.py", "-q").code == 0
    answer = linreg("check", "small.yaml", "model={name: wide_one, sizes: [1]}", "--plugin", "mine.py")
    assert "model.sizes.1: missing" in answer.err


def test_a_param_may_have_a_name_that_pydantic_uses():
    registry = Registry("thing", arguments=(), returns="builtins.tuple")

    @registry.register("odd")
    def odd(*, json: int, copy: float = 1.0, model_config: bool = True):
        return json, copy, model_config

    assert registry.build(registry.check({"name": "odd", "json": 3})) == (3, 1.0, True)
