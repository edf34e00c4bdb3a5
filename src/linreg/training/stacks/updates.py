"""The optimizers' updates of a stack, each operation on all parameters of all models at once.

They compute what `torch.optim` computes for one model, with a column of numbers (n_models, 1) in place of each number:
the formulas below have the bits of torch's fused operations. A probe compares them with the optimizers themselves.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn, optim

from linreg.training.engines.updates import make_update_fn
from linreg.training.stacks.flat import Layout

MOST_PROBED = 16  # models
PROBED_STEPS = 3

# The tensors in an optimizer's state for each parameter: always, and those that a setting asks for.
_STATE: dict[type[optim.Optimizer], tuple[tuple[str, ...], dict[str, str]]] = {
    optim.SGD: ((), {"momentum": "momentum_buffer"}),
    optim.Adam: (("exp_avg", "exp_avg_sq"), {}),
    optim.AdamW: (("exp_avg", "exp_avg_sq"), {}),
    optim.RMSprop: (("square_avg",), {"momentum": "momentum_buffer", "centered": "grad_avg"}),
    optim.Adagrad: (("sum",), {}),
}
FLAGS = ("momentum", "weight_decay", "nesterov", "amsgrad", "centered")  # zero or not: each selects operations


def can_update(optimizer: optim.Optimizer) -> bool:
    """Return whether a stack can update by this optimizer."""
    return type(optimizer) in _STATE and not optimizer.param_groups[0].get("amsgrad")


class Updates:
    """The updates of a stack's parameters by its optimizers, which are alike except for their numbers.

    The states of the optimizers become views of this object's tensors, so `optimizer.state_dict()` stays true after
    `write_counts`. n_steps: the number of steps so far."""

    def __init__(self, optimizers: Sequence[optim.Optimizer], layout: Layout, rows: torch.Tensor) -> None:
        self.optimizers, self.layout, self.rows = optimizers, layout, rows
        self.kind, group = type(optimizers[0]), optimizers[0].param_groups[0]
        always, optional = _STATE[self.kind]
        keys = [*always, *(key for setting, key in optional.items() if group[setting])]
        self.state = {key: torch.zeros_like(rows) for key in keys}
        first = optimizers[0].state.get(group["params"][0], {})
        self.n_steps = int(first["step"]) if "step" in first else 0
        self.has_state = bool(keys) and first.get(keys[-1]) is not None
        for number, optimizer in enumerate(optimizers):
            self._adopt(optimizer, number)
        self.read_settings()

    def _adopt(self, optimizer: optim.Optimizer, number: int) -> None:
        if self.kind is not optim.SGD:
            for parameter in optimizer.param_groups[0]["params"]:
                optimizer.state[parameter].setdefault("step", torch.tensor(0.0))
        for key, rows in self.state.items():
            views = self.layout.own_views(rows[number])
            for parameter, view in zip(optimizer.param_groups[0]["params"], views, strict=True):
                own = optimizer.state[parameter]
                if own.get(key) is not None:
                    view.copy_(own[key])
                own[key] = view

    def read_settings(self) -> None:
        """Read the numbers of the optimizers, which a scheduler may have changed."""
        groups = [optimizer.param_groups[0] for optimizer in self.optimizers]
        numbers: dict[str, Any] = {
            key: np.array([group[key] for group in groups], dtype=np.float64)
            for key, value in groups[0].items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        }
        if "betas" in groups[0]:
            numbers["beta1"], numbers["beta2"] = np.array([group["betas"] for group in groups], dtype=np.float64).T
        self.numbers = numbers
        of_sgd = {"minus_lr": -numbers["lr"], "weight_decay": numbers.get("weight_decay")}
        self.columns = {key: self.column(values) for key, values in {**numbers, **of_sgd}.items() if values is not None}
        for key in ("beta1", "beta2", "alpha", "dampening"):
            if key in numbers:
                self.columns[f"1-{key}"] = self.column(1 - numbers[key])
        if "weight_decay" in numbers:
            self.columns["decay"] = self.column(1 - numbers["lr"] * numbers["weight_decay"])

    def column(self, numbers: Any) -> torch.Tensor:
        """Return numbers (n_models,) as a column (n_models, 1)."""
        return torch.from_numpy(np.ascontiguousarray(numbers)).to(self.rows.dtype).unsqueeze(1)

    def step(self, grads: torch.Tensor) -> None:
        """Change the parameters by their gradients (n_models, layout.width)."""
        self.n_steps += 1
        _STEPS[self.kind](self, grads)
        self.has_state = True

    def write_counts(self) -> None:
        """Write the number of steps to the states of the optimizers."""
        if self.kind is not optim.SGD:
            for optimizer in self.optimizers:
                for state in optimizer.state.values():
                    state["step"].fill_(self.n_steps)
        elif self.state and not self.has_state:
            for optimizer in self.optimizers:
                for state in optimizer.state.values():
                    state["momentum_buffer"] = None


def _sgd(of: Updates, grads: torch.Tensor) -> None:
    group, c = of.optimizers[0].param_groups[0], of.columns
    if group["weight_decay"]:
        grads = torch.addcmul(grads, of.rows, c["weight_decay"])
    if group["momentum"]:
        buffer = of.state["momentum_buffer"]
        if of.has_state:
            buffer.mul_(c["momentum"]).addcmul_(grads, c["1-dampening"])
        else:
            buffer.copy_(grads)
        grads = torch.addcmul(grads, buffer, c["momentum"]) if group["nesterov"] else buffer
    of.rows.addcmul_(grads, c["minus_lr"])


def _adam(of: Updates, grads: torch.Tensor) -> None:
    group, c, numbers = of.optimizers[0].param_groups[0], of.columns, of.numbers
    if group["weight_decay"] and group["decoupled_weight_decay"]:
        of.rows.mul_(c["decay"])
    elif group["weight_decay"]:
        grads = torch.addcmul(grads, of.rows, c["weight_decay"])
    mean, squares = of.state["exp_avg"], of.state["exp_avg_sq"]
    mean.lerp_(grads, c["1-beta1"])
    squares.mul_(c["beta2"]).addcmul_(grads * c["1-beta2"], grads)
    denominator = squares.sqrt().div_(of.column(_corrections(numbers["beta2"], of.n_steps) ** 0.5)).add_(c["eps"])
    step_sizes = of.column(-(numbers["lr"] / _corrections(numbers["beta1"], of.n_steps)))
    of.rows.addcdiv_(mean * step_sizes, denominator)


def _corrections(betas: Any, n_steps: int) -> Any:
    """Return 1 - beta ** n_steps (n_models,) by Python's power, as torch.optim computes it."""
    powers = {beta: 1 - beta**n_steps for beta in set(betas.tolist())}
    return np.array([powers[beta] for beta in betas.tolist()])


def _rmsprop(of: Updates, grads: torch.Tensor) -> None:
    group, c = of.optimizers[0].param_groups[0], of.columns
    if group["weight_decay"]:
        grads = torch.addcmul(grads, of.rows, c["weight_decay"])
    squares = of.state["square_avg"]
    squares.mul_(c["alpha"]).addcmul_(grads * c["1-alpha"], grads)
    if group["centered"]:
        mean = of.state["grad_avg"].lerp_(grads, c["1-alpha"])
        root = squares.addcmul(mean, mean, value=-1).sqrt_()
    else:
        root = squares.sqrt()
    root.add_(c["eps"])
    if group["momentum"]:
        buffer = of.state["momentum_buffer"].mul_(c["momentum"]).addcdiv_(grads, root)
        of.rows.addcmul_(buffer, c["minus_lr"])
    else:
        of.rows.addcdiv_(grads * c["minus_lr"], root)


def _adagrad(of: Updates, grads: torch.Tensor) -> None:
    group, c, numbers = of.optimizers[0].param_groups[0], of.columns, of.numbers
    if group["weight_decay"]:
        grads = torch.addcmul(grads, of.rows, c["weight_decay"])
    total = of.state["sum"].addcmul_(grads, grads, value=1)
    lr = of.column(-(numbers["lr"] / (1 + (of.n_steps - 1) * numbers["lr_decay"])))
    of.rows.addcdiv_(grads * lr, total.sqrt().add_(c["eps"]))


_STEPS: dict[type[optim.Optimizer], Callable[[Updates, torch.Tensor], None]] = {
    optim.SGD: _sgd,
    optim.Adam: _adam,
    optim.AdamW: _adam,
    optim.RMSprop: _rmsprop,
    optim.Adagrad: _adagrad,
}


def updates_alone(optimizers: Sequence[optim.Optimizer], layout: Layout, grads: torch.Tensor) -> Callable[[], None]:
    """Make the function that updates one model after another by its own optimizer."""
    updates = [make_update_fn(optimizer) for optimizer in optimizers]
    parameters = [parameter for optimizer in optimizers for parameter in optimizer.param_groups[0]["params"]]
    views = [view for row in grads for view in layout.own_views(row)]

    def update() -> None:
        for parameter, view in zip(parameters, views, strict=True):
            parameter.grad = view
        for update_one in updates:
            update_one()
        for parameter in parameters:
            parameter.grad = None

    return update


@torch.no_grad()
def have_equal_bits(optimizers: Sequence[optim.Optimizer], layout: Layout) -> bool:
    """Return whether `Updates` changes random parameters as copies of the optimizers do, to the last bit."""
    chosen = [optimizers[int(i)] for i in np.unique(np.linspace(0, len(optimizers) - 1, MOST_PROBED).astype(int))]
    alone, stacked = (copy.deepcopy(chosen) for _ in range(2))
    rows = torch.zeros((len(chosen), layout.width), dtype=chosen[0].param_groups[0]["params"][0].dtype)
    generator = torch.Generator().manual_seed(0)

    def random() -> torch.Tensor:
        return torch.randn(rows.shape, dtype=rows.dtype, generator=generator)

    parameters: list[list[nn.Parameter]] = [optimizer.param_groups[0]["params"] for optimizer in alone]
    starts = random()
    for row, start, own in zip(rows, starts, parameters, strict=True):
        for view, value, parameter in zip(layout.own_views(row), layout.own_views(start), own, strict=True):
            view.copy_(value)
            parameter.data.copy_(value)
    updates = Updates(stacked, layout, rows)
    single = [make_update_fn(optimizer) for optimizer in alone]
    for _ in range(PROBED_STEPS):
        grads = random()
        updates.step(grads)
        for number, (update, own) in enumerate(zip(single, parameters, strict=True)):
            for parameter, grad in zip(own, layout.own_views(grads[number]), strict=True):
                parameter.grad = grad.clone()
            update()
            pairs = zip(layout.own_views(rows[number]), own, strict=True)
            if not all(torch.equal(view, parameter) for view, parameter in pairs):
                return False
    return True
