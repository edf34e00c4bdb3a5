"""Checks that the states in a checkpoint fit what its spec builds, before memory is taken and a state is loaded.

The optimizers and schedulers of torch do not check the states that they load.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn, optim

from linreg.checkpoint import Checkpoint
from linreg.checkpoint.summarizing import PREPROCESSED
from linreg.components.models import MODELS
from linreg.data.derived import Transforms
from linreg.data.preprocessing import (
    FILLING,
    Preprocessed,
    Preprocessing,
    TargetTransform,
    columns_of,
    features_of,
)
from linreg.errors import CheckpointError, LinregError, SpecError
from linreg.experiment.building import Experiment
from linreg.experiment.data import dates_of, recipe_of
from linreg.experiment.network import build_network
from linreg.spec.schema import ExperimentSpec

# The state of an optimizer for each parameter: always, and with some settings.
_KEPT: dict[type[optim.Optimizer], tuple[set[str], dict[str, str]]] = {
    optim.SGD: (set(), {}),
    optim.Adam: ({"step", "exp_avg", "exp_avg_sq"}, {"amsgrad": "max_exp_avg_sq"}),
    optim.AdamW: ({"step", "exp_avg", "exp_avg_sq"}, {"amsgrad": "max_exp_avg_sq"}),
    optim.RMSprop: ({"step", "square_avg"}, {"momentum": "momentum_buffer", "centered": "grad_avg"}),
    optim.Adagrad: ({"step", "sum"}, {}),
}
_OF_WRONG_VALUES = (RuntimeError, ValueError, TypeError, IndexError, KeyError)  # raised by a transform
_MAY_CHANGE = ("nesterov",)  # in a resumed run


def assemble(saved: Checkpoint, spec: ExperimentSpec, device: torch.device) -> nn.Module:
    """Build the model of a checkpoint, without its state: the network, with its preprocessing if it has one."""
    preprocessed = PREPROCESSED in saved.model_state_dict
    preprocessing = _preprocessing(saved, spec)
    n_columns = len(preprocessing.column_names) if preprocessed else saved.n_features
    with torch.random.fork_rng(devices=[]):  # building draws random numbers
        network = build_network(spec, n_columns, saved.n_targets, device)
    return Preprocessed(preprocessing, network) if preprocessed else network


def _preprocessing(saved: Checkpoint, spec: ExperimentSpec) -> Preprocessing:
    """Build the preprocessing of a checkpoint, with the values that its transforms learnt. Raises CheckpointError."""
    recipe, features = recipe_of(spec), features_of(saved.preprocessing)
    transforms, target = None, None
    if recipe.derives:
        transforms = Transforms(columns_of(features, dates_of(spec)))
        try:
            for transform in recipe.transforms:
                transforms.add(transform, None, _below("preprocessing.transforms.", saved.model_state_dict))
            with torch.device("cpu"):  # the caller may build on the device meta
                transforms(torch.zeros(1, len(transforms.before), dtype=torch.float64)[:0])
        except (LinregError, *_OF_WRONG_VALUES) as error:
            reason = str(error).partition("\n")[0]
            raise CheckpointError(
                f"{saved.path}: its transforms do not fit: {reason}; use another checkpoint"
            ) from None
    if recipe.target is not None:
        learnt = _below("preprocessing.target.", saved.model_state_dict)
        target = TargetTransform(recipe.target, learnt, saved.target_names)
    fills = saved.preprocessing["missing"] in FILLING
    return Preprocessing(features, saved.n_targets, fills=fills, transforms=transforms, target=target)


def _below(prefix: str, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return copies of the tensors whose names have a prefix, without it."""
    return {name.removeprefix(prefix): value.clone() for name, value in state.items() if name.startswith(prefix)}


def check_model(saved: Checkpoint, spec: ExperimentSpec) -> None:
    """Compare names, shapes and types of the model's state with those of the spec's model, built without memory.

    `load_state_dict` checks a plugin's model that cannot be built without memory. Raises CheckpointError.
    """
    meta = torch.device("meta")
    try:
        with meta:
            wanted = _shapes(assemble(saved, spec, meta).state_dict())
    except Exception as error:
        if not MODELS.is_own(spec.model.name):
            return
        if not isinstance(error, SpecError):
            raise
        raise CheckpointError(f"{saved.path}: its spec builds no model: {error}") from None
    shapes = _shapes(saved.model_state_dict)
    problems = [f"{name!a} is missing" for name in wanted if name not in shapes]
    problems += [f"{name!a} is unknown" for name in shapes if name not in wanted]
    problems += [
        f"{name!a} is {shapes[name]}, not {wanted[name]}"
        for name in wanted
        if name in shapes and shapes[name] != wanted[name]
    ]
    if problems:
        raise _unfit(saved, problems)


def check_training(saved: Checkpoint, experiment: Experiment) -> None:
    """Compare the states of optimizer and scheduler with those that were just built. Raises CheckpointError."""
    if problems := state_problems(saved.optimizer_state_dict, saved.scheduler_state_dict, experiment):
        raise _unfit(saved, problems)


def state_problems(of_optimizer: Mapping[str, Any], of_scheduler: Any, experiment: Experiment) -> list[str]:
    """Describe in what the states of optimizer and scheduler, or None, do not fit an experiment."""
    optimizer, schedule = experiment.optimizer, experiment.schedule
    problems = []
    if type(optimizer) in _KEPT:
        problems += [f"the optimizer's {what}" for what in _optimizer_problems(of_optimizer, optimizer)]
    if (of_scheduler is None) != (schedule is None):
        problems.append(f"it has {'no' if of_scheduler is None else 'a'} state of a scheduler")
    elif schedule is not None and type(schedule.scheduler).__module__.startswith("torch."):
        problems += [f"the scheduler's {what}" for what in _differences(of_scheduler, schedule.scheduler.state_dict())]
    return problems


def _unfit(saved: Checkpoint, problems: list[str]) -> CheckpointError:
    more = f", and {len(problems) - 5} more" if len(problems) > 5 else ""
    return CheckpointError(
        f"{saved.path}: does not fit what its spec builds: {', '.join(problems[:5])}{more}; use another checkpoint"
    )


def _shapes(state: Mapping[str, torch.Tensor]) -> dict[str, str]:
    return {name: f"{list(tensor.shape)} {tensor.dtype}" for name, tensor in state.items()}


def _optimizer_problems(state: Mapping[str, Any], optimizer: optim.Optimizer) -> Iterator[str]:
    """Describe the differences of a state from an optimizer: its groups, and the state of each parameter."""
    if set(state) != {"state", "param_groups"}:
        yield "state has other parts"
        return
    built = optimizer.state_dict()["param_groups"]
    yield from _differences(state["param_groups"], built, "param_groups")
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    groups = [group for group in optimizer.param_groups for _ in group["params"]]
    always, settings = _KEPT[type(optimizer)]
    kept = state["state"] if isinstance(state["state"], dict) else {None: {}}
    for number, values in kept.items():
        if type(number) is not int or not 0 <= number < len(parameters) or type(values) is not dict:
            yield "state is not one for each parameter"
            return
        if not values:  # before the first step
            continue
        needed = always | {name for setting, name in settings.items() if groups[number][setting]}
        allowed = {"momentum_buffer"} if type(optimizer) is optim.SGD else needed
        if not needed <= set(values) <= allowed:
            yield f"state of parameter {number} has {sorted(map(str, values))!a}, not {sorted(needed | allowed)}"
        for name, value in values.items():
            shape = torch.Size() if name == "step" else parameters[number].shape
            none = value is None and type(optimizer) is optim.SGD
            if not none and not (
                isinstance(value, torch.Tensor) and value.is_floating_point() and value.shape == shape
            ):
                yield f"{name!a} of parameter {number} is not a tensor of {list(shape)}"


def _differences(state: Any, built: Any, where: str = "state") -> Iterator[str]:
    """Describe the differences of a state from the built one: keys, lengths, types; also the values of texts, switches
    and `params`."""
    if isinstance(built, dict) and isinstance(state, dict):
        if set(state) != set(built):
            yield f"{where} has other keys"
            return
        for key in built:
            if key == "params" and state[key] != built[key]:
                yield f"{where}.params are others"
            elif key not in _MAY_CHANGE or type(state[key]) is not bool:
                yield from _differences(state[key], built[key], f"{where}.{key}")
    elif isinstance(built, list | tuple) and type(state) is type(built):
        if len(state) != len(built):
            yield f"{where} has another length"
        for one, other in zip(state, built, strict=False):
            yield from _differences(one, other, where)
    elif type(built) in (int, float):
        if type(state) not in (int, float) or not (math.isfinite(state) or state == built):
            yield f"{where} is not a finite number"
    elif type(state) is not type(built) or state != built:
        yield f"{where} is not {built!a}"
