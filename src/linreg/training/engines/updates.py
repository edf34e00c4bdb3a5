"""The optimizers' updates without the hooks, profiling and switches around `step`. All fast engines use this module."""

from collections.abc import Callable
from typing import Any

import torch
from torch import optim
from torch.optim import optimizer as torch_optimizer

SWITCHES = ("maximize", "foreach", "fused", "capturable", "differentiable")  # each selects other operations


def make_update_fn(optimizer: optim.Optimizer) -> Callable[[], None]:
    """Make the function that changes the parameters as `optimizer.step()` does; call it under `torch.no_grad()`."""

    def step_with_hooks() -> None:
        with torch.enable_grad():  # a user's own step may need it
            optimizer.step()

    if not is_from_torch(optimizer):
        return step_with_hooks
    step: Any = type(optimizer).step
    while hasattr(step, "__wrapped__"):  # the wrappers call hooks and a profiler, and import torch's compiler
        step = step.__wrapped__
    mark_as_stepped(optimizer)
    group, hooks = optimizer.param_groups[0], hooks_of(optimizer)
    is_special = any(map(group.get, SWITCHES)) or isinstance(group.get("lr"), torch.Tensor)
    own_update = None if is_special else _UPDATES.get(type(optimizer))

    def update() -> None:
        groups = optimizer.param_groups
        if any(hooks):
            step_with_hooks()
        elif own_update is None or len(groups) > 1 or not own_update(groups[0], optimizer.state):
            step(optimizer)

    return update


def mark_as_stepped(optimizer: optim.Optimizer) -> None:
    """Stop a scheduler from warning that `optimizer.step` was never called."""
    optimizer._opt_called = True  # type: ignore[attr-defined]  # torch sets it, too


def is_from_torch(optimizer: optim.Optimizer) -> bool:
    """Return whether an optimizer is one of torch's with its class's own step, which a scheduler may have wrapped."""
    is_torchs = type(optimizer).__module__.startswith("torch.optim.") and not isinstance(optimizer, optim.LBFGS)
    replaced = vars(optimizer).get("step")
    return is_torchs and (replaced is None or getattr(replaced, "__wrapped__", None) is type(optimizer).step)


def hooks_of(optimizer: optim.Optimizer) -> list[dict[int, Any]]:
    """Return torch's tables of the hooks of `step`; a hook that is registered later appears in them."""
    return [
        optimizer._optimizer_step_pre_hooks,
        optimizer._optimizer_step_post_hooks,
        torch_optimizer._global_optimizer_pre_hooks,
        torch_optimizer._global_optimizer_post_hooks,
    ]


def plain_group(optimizer: optim.Optimizer) -> dict[str, Any] | None:
    """Return the only parameter group of an optimizer from torch without hooks or switches; None for any other."""
    group, *others = optimizer.param_groups
    if others or not is_from_torch(optimizer) or any(hooks_of(optimizer)) or any(map(group.get, SWITCHES)):
        return None
    return group


def plain_sgd_group(optimizer: optim.Optimizer) -> dict[str, Any] | None:
    """Return the `plain_group` of SGD with a number as its learning rate; None for any other optimizer."""
    group = plain_group(optimizer)
    if group is None or type(optimizer) is not optim.SGD or isinstance(group["lr"], torch.Tensor):
        return None
    return group


def _sgd(group: dict[str, Any], state: dict[Any, Any]) -> bool:
    """Update the parameters by SGD, with the operations of `torch.optim.sgd`. Return True: it always applies."""
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
                with torch.inference_mode(False):  # the buffer outlives the step
                    buffer = state[parameter]["momentum_buffer"] = grad.clone()
            else:
                buffer.mul_(momentum).add_(grad, alpha=1 - group["dampening"])
            grad = grad.add(buffer, alpha=momentum) if group["nesterov"] else buffer
        parameter.add_(grad, alpha=-lr)
    return True


def _adam(group: dict[str, Any], state: dict[Any, Any]) -> bool:
    """Update the parameters by Adam or AdamW, with each operation on all parameters at once.

    Return False, without any change, before the first step, with amsgrad, and for parameters at different steps."""
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


# This module's updates, of the same bits as torch's.
_UPDATES: dict[type[optim.Optimizer], Callable[..., bool]] = {optim.SGD: _sgd, optim.Adam: _adam, optim.AdamW: _adam}
