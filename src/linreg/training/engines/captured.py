"""Steps that a CUDA graph captures once and replays, many at a time, with the bits of single steps. `auto` uses them.

On a GPU a step on few rows mostly takes the time to launch its operations. A CUDA graph launches those of many steps at
once. It holds fixed operations, numbers among them such as the learning rate, and memory, so a change of any of these
takes a new capture. The first replay is compared with the same steps taken one by one. If any bit differs, no step is
replayed. (Global switches of torch, such as the one for TF32, stay as they were at the capture.)
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import nn, optim

from linreg.training.engines.training import Batch, RunFn, StepsFn
from linreg.training.engines.updates import plain_sgd_group

CHUNK = 32  # the most steps in one replay
WAIT = 16  # chunks in one state before the capture, which takes as long as many steps; a guess, not measured

WorkFn = Callable[[], torch.Tensor]
Capture = Callable[[WorkFn], WorkFn]  # takes work on fixed memory, returns the function that repeats it

log = logging.getLogger("linreg")


def capture_on(device: torch.device) -> Capture | None:
    """Return the function that captures work on a device; None for devices without a gain."""
    return partial(_capture_graph, device) if device.type == "cuda" else None


def _capture_graph(device: torch.device, work: WorkFn) -> WorkFn:
    """Run work once, then capture it in a CUDA graph, both on a stream of their own, as torch's documentation requires.

    The capture itself computes nothing. The next replay overwrites the result of the one before."""
    stream, graph = torch.cuda.Stream(device), torch.cuda.CUDAGraph()  # type: ignore[no-untyped-call]  # torch's
    stream.wait_stream(torch.cuda.current_stream(device))
    try:
        with torch.cuda.stream(stream):  # around both: a failing capture does not restore the stream
            work()
            with torch.cuda.graph(graph, stream=stream):
                result = work()
    finally:
        torch.cuda.synchronize(device)

    def replay() -> torch.Tensor:
        graph.replay()
        return result

    return replay


def make_captured_train_fn(
    steps: StepsFn, layers: Sequence[nn.Module], optimizer: optim.Optimizer, capture: Capture, *, n_steps: int
) -> RunFn:
    """Make the function that takes steps of `make_direct_steps_fn`, by replays of n_steps where possible.

    The model must have no basis. The losses are read once, after all steps are launched."""
    parameters = [parameter for layer in layers for parameter in layer.parameters()]
    state: Any = None  # what a recording of the last chunk would hold fixed
    n_alike = 0  # consecutive chunks in that state
    replay: StepsFn | None = None
    gave_up = False

    def take_steps(chunk: list[Batch], now: Any) -> torch.Tensor:
        nonlocal state, n_alike, replay, gave_up
        if gave_up or now is None or len(chunk) < n_steps or _shapes(chunk[0]) != _shapes(chunk[-1]):
            return steps(chunk)
        if state != (now, _shapes(chunk[0])):
            state, n_alike, replay = (now, _shapes(chunk[0])), 0, None
        n_alike += 1
        if replay is not None:
            return replay(chunk)
        if n_alike <= WAIT:
            return steps(chunk)
        losses, replay = _record(steps, chunk, _changed_tensors(parameters, optimizer), capture)
        gave_up = replay is None
        return losses

    @torch.no_grad()
    def train(batches: Iterable[Batch]) -> list[float]:
        batches, now, losses = iter(batches), _fixed_state(parameters, layers, optimizer), []
        while chunk := list(islice(batches, n_steps)):
            losses.append(take_steps(chunk, now))
        for parameter in parameters:
            parameter.grad = None  # a failed capture may leave gradients
        floats: list[float] = torch.cat(losses).tolist() if losses else []
        return floats

    return train


def _record(
    steps: StepsFn, chunk: list[Batch], changed: list[torch.Tensor], capture: Capture
) -> tuple[torch.Tensor, StepsFn | None]:
    """Take the steps of a chunk and capture them. Return the losses and the replay, or None if its bits differ.

    changed: the tensors that the steps change. They end as after one execution of the steps."""
    before = [tensor.clone() for tensor in changed]
    losses = steps(chunk)
    after = [tensor.clone() for tensor in changed]
    try:
        # a tensor of its own for each batch, so that its memory is aligned as in single steps
        places = [tuple(torch.zeros_like(part) for part in batch) for batch in chunk]
        repeat = capture(partial(steps, places))

        def replay(chunk: Iterable[Batch]) -> torch.Tensor:
            torch._foreach_copy_(_parts(places), _parts(chunk))
            return repeat().clone()

        torch._foreach_copy_(changed, before)
        replayed = replay(chunk)
        if all(map(_same_bits, [replayed, *changed], [losses, *after])):
            return losses, replay
        reason = "the bits of a replay differ"
    except RuntimeError as error:
        reason = str(error).strip().partition("\n")[0]
    torch._foreach_copy_(changed, after)
    log.info("cannot replay captured steps, using single steps: %s", reason)
    return losses, None


def _fixed_state(parameters: list[nn.Parameter], layers: Sequence[nn.Module], optimizer: optim.Optimizer) -> Any:
    """Return the state of model and optimizer that a capture holds fixed; None if steps cannot be captured.

    They can with plain SGD alone, and with momentum only after the first step, which creates the buffers."""
    group = plain_sgd_group(optimizer)
    if group is None:
        return None
    changed = _changed_tensors(parameters, optimizer)
    if not set(group["params"]) <= set(parameters) or any(tensor is None for tensor in changed):
        return None
    numbers = [group[name] for name in ("lr", "momentum", "dampening", "weight_decay", "nesterov")]
    return numbers, repr(layers), [tensor.data_ptr() for tensor in [*changed, *group["params"]]]


def _changed_tensors(parameters: list[nn.Parameter], optimizer: optim.Optimizer) -> list[Any]:
    """Return the tensors that a step of SGD changes: parameters and momentum buffers, None for a missing buffer."""
    (group,) = optimizer.param_groups
    with_momentum = group["params"] if group["momentum"] else []
    return [*parameters, *(optimizer.state.get(p, {}).get("momentum_buffer") for p in with_momentum)]


def _shapes(batch: Batch) -> list[Any]:
    return [(part.shape, part.dtype) for part in batch]


def _parts(batches: Iterable[Batch]) -> list[torch.Tensor]:
    return [part for batch in batches for part in batch]


def _same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.equal(a.view(torch.uint8), b.view(torch.uint8))
