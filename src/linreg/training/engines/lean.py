"""The textbook's steps with nothing around them: the same operations on the same numbers, so the same bits.

Each function here makes one that runs a few mini-batches, one step after the other, and returns their losses, which
nothing has waited for in between. `make_lean_train_fn` leaves out what surrounds a step: modes are set once, gradients
are let go instead of zeroed, the optimizer's update is called without the hooks, profiling and switches around it.
`make_direct_steps_fn` leaves out autograd, too: for linear layers, activations between them, and mse it calls what
autograd would.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn, optim
from torch.nn.modules import module as torch_module
from torch.optim import optimizer as torch_optimizer

from linreg.training.steps import LossFn

Batch = tuple[torch.Tensor, ...]
RunFn = Callable[[Iterable[Batch]], list[float]]  # of mini-batches, gives their losses
StepsFn = Callable[[Iterable[Batch]], torch.Tensor]  # gives them as a tensor (n,), which nothing has waited for

SWITCHES = ("maximize", "foreach", "fused", "capturable", "differentiable")  # of an optimizer: other operations
SPLIT_AT = 2**15  # elements; a sum of so many is divided among torch's threads


def make_lean_train_fn(
    model: nn.Module,
    loss_fn: LossFn,
    optimizer: optim.Optimizer,
    *,
    clip_grad_norm: float | None = None,
    after_step: Callable[[], None] | None = None,
    reported_loss_fn: LossFn | None = None,
) -> RunFn:
    """Make the function that does to each mini-batch what the one of `make_train_step_fn` does."""
    parameters = list(model.parameters())
    update = make_update_fn(optimizer)

    def train(batches: Iterable[Batch]) -> list[float]:
        model.train()
        losses = []
        for x, y, *weight in batches:
            yhat = model(x)
            loss = loss_fn(yhat, y, *weight)
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            if clip_grad_norm is not None:
                nn.utils.clip_grad_norm_(parameters, clip_grad_norm)
            with torch.no_grad():
                update()
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad = None
            if after_step is not None:
                after_step()
            losses.append(loss.detach() if reported_loss_fn is None else reported_loss_fn(yhat.detach(), y, *weight))
        return _read(losses)

    return train


def make_lean_val_fn(model: nn.Module, loss_fn: LossFn) -> RunFn:
    """Make the function that does to each mini-batch what the one of `make_val_step_fn` does."""

    def validate(batches: Iterable[Batch]) -> list[float]:
        model.eval()
        with torch.no_grad():
            return _read([loss_fn(model(x), y, *weight) for x, y, *weight in batches])

    return validate


def make_direct_steps_fn(
    basis: Sequence[nn.Module],
    layers: Sequence[nn.Module],
    optimizer: optim.Optimizer,
    *,
    after_step: Callable[[], None] | None = None,
    reported_loss_fn: LossFn | None = None,
) -> StepsFn:
    """Make the function that trains layers(basis(x)) by the mean squared error, a step for each mini-batch.

    The gradient of the loss with respect to yhat (N, n_targets) is 2 (yhat - y) / (N n_targets); `_LAYERS` has how each
    layer hands it on: the operations that torch's derivatives.yaml has for each.
    """
    forwards, backwards = zip(*(_LAYERS[type(layer)](layer) for layer in layers), strict=True)
    backwards_by_number = list(enumerate(backwards))[::-1]
    parameters = [parameter for layer in layers for parameter in layer.parameters()]
    update = make_update_fn(optimizer)
    factors: dict[int, torch.Tensor] = {}  # 2 / (N n_targets), as tensors: a number would be made one at each step

    def steps(batches: Iterable[Batch]) -> torch.Tensor:
        for module in basis:
            module.train()
        errors, reported = [], []
        with torch.no_grad():
            for x, y in batches:
                for module in basis:
                    x = module(x)  # noqa: PLW2901  # what the layers are given
                # Step 1: predictions - forward pass
                values = [x]
                for forward in forwards:
                    values.append(forward(values[-1]))
                yhat = values[-1]
                # Step 2: what the loss is the mean square of; that is taken for many batches at once
                error = yhat - y
                # Step 3: gradients of the loss with respect to every parameter
                n = error.numel()
                if n not in factors:
                    factors[n] = parameters[0].new_tensor(2 / n)
                grad = error * factors[n]
                for number, backward in backwards_by_number:
                    grad = backward(grad, values[number], values[number + 1], number == 0)
                # Step 4: new parameters, from the gradients and the learning rate
                update()
                if after_step is not None:
                    after_step()
                if reported_loss_fn is None:
                    errors.append(error)
                else:
                    reported.append(reported_loss_fn(yhat, y))
            for parameter in parameters:
                parameter.grad = None
            return mean_squares(errors) if reported_loss_fn is None else _stacked(reported)

    return steps


Forward = Callable[[torch.Tensor], torch.Tensor]
Backward = Callable[
    ..., torch.Tensor
]  # of the gradient of yhat, x, yhat, and whether nobody needs that of x; gives that


def _linear(layer: Any) -> tuple[Forward, Backward]:
    """For yhat = x W' + b (N, m) and g the gradient of yhat that of W is g' x, of b the sum of g over the batch, of x
    g W."""
    weight, bias, linear = layer.weight, layer.bias, nn.functional.linear

    def backward(grad: torch.Tensor, x: torch.Tensor, yhat: torch.Tensor, is_first: bool) -> torch.Tensor:
        weight.grad = grad.t().mm(x)
        if bias is not None:
            bias.grad = grad.sum(0)
        if is_first:
            return grad
        # of one number torch's autograd reads x as column-major, and multiplies the transposes
        return weight.t().mm(grad.t()).t() if x.numel() == 1 else grad.mm(weight)

    return lambda x: linear(x, weight, bias), backward


def _activation(derivative: Callable[[Any, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]) -> Any:
    """derivative: of the module, the gradient of yhat, x and yhat, gives the gradient of x."""
    return lambda module: (module.forward, lambda grad, x, yhat, is_first: derivative(module, grad, x, yhat))


_aten = torch.ops.aten
_LAYERS: dict[type[nn.Module], Callable[[Any], tuple[Forward, Backward]]] = {
    nn.Linear: _linear,
    nn.ReLU: _activation(lambda module, grad, x, yhat: _aten.threshold_backward.default(grad, yhat, 0)),
    nn.Tanh: _activation(lambda module, grad, x, yhat: _aten.tanh_backward.default(grad, yhat)),
    nn.Sigmoid: _activation(lambda module, grad, x, yhat: _aten.sigmoid_backward.default(grad, yhat)),
    nn.GELU: _activation(
        lambda module, grad, x, yhat: _aten.gelu_backward.default(grad, x, approximate=module.approximate)
    ),
    nn.SiLU: _activation(lambda module, grad, x, yhat: _aten.silu_backward.default(grad, x)),
    nn.ELU: _activation(
        lambda module, grad, x, yhat: _aten.elu_backward.default(grad, module.alpha, 1.0, 1.0, False, x)
    ),
    nn.LeakyReLU: _activation(
        lambda module, grad, x, yhat: _aten.leaky_relu_backward.default(grad, x, module.negative_slope, False)
    ),
}


def layers_of(model: nn.Module) -> tuple[list[nn.Module], list[nn.Module]] | None:
    """Take apart a model that is modules without parameters, and after them linear layers with activations between.
    None for any other."""
    if type(model) is not nn.Sequential or not len(model) or type(model[-1]) is not nn.Linear:
        return None
    modules = list(model)
    n_basis = next(number for number, module in enumerate(modules) if next(module.parameters(), None) is not None)
    basis, layers = modules[:n_basis], modules[n_basis:]
    if type(layers[0]) is not nn.Linear or not all(type(layer) in _LAYERS for layer in layers):
        return None
    return None if any(getattr(layer, "inplace", False) for layer in layers) else (basis, layers)


def make_watched_fn(modules: Sequence[nn.Module]) -> Callable[[], bool]:
    """Make the function that tells whether any of the modules has a hook, or a frozen parameter, which a direct call
    would pass over."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    hooks = [getattr(module, kind) for module in modules for kind in kinds]
    parameters = [parameter for module in modules for parameter in module.parameters()]
    any_global: Callable[[], bool] = torch_module._has_any_global_hook

    def watched() -> bool:
        of_parameters = any(
            p._backward_hooks or p._post_accumulate_grad_hooks or not p.requires_grad for p in parameters
        )
        return of_parameters or any(hooks) or any_global()

    return watched


def is_mean_square(loss_fn: Any) -> bool:
    """Whether a loss is what `make_direct_steps_fn` trains by."""
    return type(loss_fn) is nn.MSELoss and loss_fn.reduction == "mean"


def mean_squares(errors: list[torch.Tensor]) -> torch.Tensor:
    """Give the mean square of each batch's errors (N, n_targets), as mse_loss has it; all but the last are of one N."""
    if not errors or errors[0].numel() >= SPLIT_AT or errors[0].device.type != "cpu":
        return _stacked([error.square().mean() for error in errors])  # many at once would be summed in another order
    n_alike = len(errors) - (len(errors[-1]) != len(errors[0]))
    squares = torch.stack(errors[:n_alike]).square_().flatten(1)
    found = squares.sum(1).div_(squares.shape[1])  # as mean does it, in half the time
    return found if n_alike == len(errors) else torch.cat([found, errors[-1].square().mean()[None]])


def make_update_fn(optimizer: optim.Optimizer) -> Callable[[], None]:
    """Make the function that does what `optimizer.step()` does; call it under `torch.no_grad()`."""

    def whole_step() -> None:
        with torch.enable_grad():  # as the textbook has it, for a step of a user's own
            optimizer.step()

    if not is_plain(optimizer):
        return whole_step
    step: Any = type(optimizer).step
    while hasattr(step, "__wrapped__"):  # around it are hooks, a profiler, and an import of the compiler
        step = step.__wrapped__
    optimizer._opt_called = True  # type: ignore[attr-defined]  # or a scheduler warns that it was never stepped
    own, hooks = _own_update_of(optimizer), hooks_of(optimizer)

    def update() -> None:
        groups = optimizer.param_groups
        if any(hooks):
            whole_step()
        elif own is None or len(groups) > 1 or not own(groups[0], optimizer.state):
            step(optimizer)

    return update


def _own_update_of(optimizer: optim.Optimizer) -> Callable[..., bool] | None:
    """Give the function here that takes an optimizer's step on a group of parameters; None where that is torch's."""
    group = optimizer.param_groups[0]
    if not is_plain(optimizer) or any(map(group.get, SWITCHES)) or isinstance(group.get("lr"), torch.Tensor):
        return None
    return _UPDATES.get(type(optimizer))


def keeps_nothing(optimizer: optim.Optimizer) -> bool:
    """Whether nothing that a direct step makes is met again after it, so that it may be of `torch.inference_mode`: so
    it is with plain SGD, whose momenta `_sgd` makes otherwise."""
    return _own_update_of(optimizer) is _sgd and len(optimizer.param_groups) == 1 and not any(hooks_of(optimizer))


def is_plain(optimizer: optim.Optimizer) -> bool:
    """Whether an optimizer is one of torch's as it stands, whose step is its class's (a scheduler wraps that)."""
    theirs = type(optimizer).__module__.startswith("torch.optim.") and not isinstance(optimizer, optim.LBFGS)
    replaced = vars(optimizer).get("step")
    return theirs and (replaced is None or getattr(replaced, "__wrapped__", None) is type(optimizer).step)


def hooks_of(optimizer: optim.Optimizer) -> list[dict[int, Any]]:
    """Give the tables of what is to be called before or after each step; a hook registered later appears in them."""
    return [
        optimizer._optimizer_step_pre_hooks,
        optimizer._optimizer_step_post_hooks,
        torch_optimizer._global_optimizer_pre_hooks,
        torch_optimizer._global_optimizer_post_hooks,
    ]


def _sgd(group: dict[str, Any], state: dict[Any, Any]) -> bool:
    """Take a step of SGD, operation by operation as `torch.optim.sgd` does."""
    lr, momentum, weight_decay = group["lr"], group["momentum"], group["weight_decay"]
    for parameter in group["params"]:
        grad = parameter.grad
        if grad is None:
            continue
        if weight_decay:
            grad = grad.add(parameter, alpha=weight_decay)
        if momentum:
            buffer = state[parameter].get("momentum_buffer")
            if buffer is None:
                with torch.inference_mode(False):  # it is kept
                    buffer = state[parameter]["momentum_buffer"] = grad.clone()
            else:
                buffer.mul_(momentum).add_(grad, alpha=1 - group["dampening"])
            grad = grad.add(buffer, alpha=momentum) if group["nesterov"] else buffer
        parameter.add_(grad, alpha=-lr)
    return True


def _adam(group: dict[str, Any], state: dict[Any, Any]) -> bool:
    """Take a step of Adam or AdamW, each operation on all parameters at once; False, and nothing done, before there is
    a state, with amsgrad, and where parameters are not at the same step."""
    parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
    states = [state[parameter] for parameter in parameters]
    if not all(states) or group["amsgrad"]:
        return False
    steps, means, squares = ([state[key] for state in states] for key in ("step", "exp_avg", "exp_avg_sq"))
    counts = {step.item() for step in steps}
    if len(counts) > 1:
        return False
    count = counts.pop() + 1
    lr, (beta1, beta2), weight_decay = group["lr"], group["betas"], group["weight_decay"]
    grads: Any = [parameter.grad for parameter in parameters]
    torch._foreach_add_(steps, 1)
    if weight_decay and group["decoupled_weight_decay"]:
        torch._foreach_mul_(parameters, 1 - lr * weight_decay)
    elif weight_decay:
        grads = torch._foreach_add(grads, parameters, alpha=weight_decay)
    torch._foreach_lerp_(means, grads, 1 - beta1)
    torch._foreach_mul_(squares, beta2)
    torch._foreach_addcmul_(squares, grads, grads, 1 - beta2)
    denominators = torch._foreach_sqrt(squares)
    torch._foreach_div_(denominators, (1 - beta2**count) ** 0.5)
    torch._foreach_add_(denominators, group["eps"])
    torch._foreach_addcdiv_(parameters, means, denominators, -(lr / (1 - beta1**count)))
    return True


_UPDATES: dict[type[optim.Optimizer], Callable[..., bool]] = {
    optim.SGD: _sgd,
    optim.Adam: _adam,
    optim.AdamW: _adam,
}


def _stacked(losses: Sequence[torch.Tensor]) -> torch.Tensor:
    """Put losses, one number each, into a tensor (n,)."""
    return torch.stack(list(losses)) if losses else torch.empty(0)


def _read(losses: Sequence[torch.Tensor]) -> list[float]:
    """Read losses, one number each, at once."""
    found: list[float] = _stacked(losses).tolist()
    return found
