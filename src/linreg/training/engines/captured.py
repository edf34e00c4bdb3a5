"""Steps that are recorded once and replayed many at a time, with the bits that they have one by one.

On a GPU a step on few rows is mostly the launch of its operations; a CUDA graph launches those of many steps at once.
What a graph holds is fixed: the operations, the numbers among them such as the learning rate, the memory they work on.
So it stands for one state of model and optimizer, and in another one steps are recorded anew. It is not taken on trust:
the first replay of a recording is compared with the same steps taken one by one, and if it is not the same to the last
bit there is no second. (Switches of torch as a whole, such as that for TF32, are as they were when it was recorded.)
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import nn, optim

from linreg.training.engines.lean import SWITCHES, Batch, RunFn, StepsFn, hooks_of, is_plain

CHUNK = 32  # steps, at most, that are replayed at once
WAIT = 16  # chunks in one state before it is recorded, for that takes as long as many steps; guessed, not measured

WorkFn = Callable[[], torch.Tensor]
Capture = Callable[[WorkFn], WorkFn]  # of work on memory that stays, gives what does it again

log = logging.getLogger("linreg")


def capture_on(device: torch.device) -> Capture | None:
    """Give what captures work on a device; None where nothing is gained by it."""
    return partial(_capture_graph, device) if device.type == "cuda" else None


def _capture_graph(device: torch.device, work: WorkFn) -> WorkFn:
    """Capture work in a CUDA graph after a run of it, both on a stream of their own, as torch's documentation has it:
    capturing alone does nothing. Its result is overwritten by the next replay."""
    stream, graph = torch.cuda.Stream(device), torch.cuda.CUDAGraph()  # type: ignore[no-untyped-call]  # torch's
    stream.wait_stream(torch.cuda.current_stream(device))
    try:
        with torch.cuda.stream(stream):  # around both: a capture that fails does not leave its stream
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
    """Make the function that takes the steps of `make_direct_steps_fn`, made for layers without a basis, n_steps at a
    time by a replay where it can, and reads their losses when all are on their way."""
    parameters = [parameter for layer in layers for parameter in layer.parameters()]
    state: Any = None  # in which a chunk was met last that could be recorded
    n_met = 0  # chunks that were, one after the other, in that state
    replay: StepsFn | None = None
    gave_up = False

    def take(chunk: list[Batch], now: Any) -> torch.Tensor:
        nonlocal state, n_met, replay, gave_up
        if gave_up or now is None or len(chunk) < n_steps or _points(chunk[0]) != _points(chunk[-1]):
            return steps(chunk)
        if state != (now, _points(chunk[0])):
            state, n_met, replay = (now, _points(chunk[0])), 0, None
        n_met += 1
        if replay is not None:
            return replay(chunk)
        if n_met <= WAIT:
            return steps(chunk)
        losses, replay = _record(steps, chunk, _moved(parameters, optimizer), capture)
        gave_up = replay is None
        return losses

    @torch.no_grad()
    def train(batches: Iterable[Batch]) -> list[float]:
        batches, now, losses = iter(batches), _state(parameters, layers, optimizer), []
        while chunk := list(islice(batches, n_steps)):
            losses.append(take(chunk, now))
        for parameter in parameters:
            parameter.grad = None  # a capture that failed leaves some
        found: list[float] = torch.cat(losses).tolist() if losses else []
        return found

    return train


def _record(
    steps: StepsFn, chunk: list[Batch], moved: list[torch.Tensor], capture: Capture
) -> tuple[torch.Tensor, StepsFn | None]:
    """Take the steps of a chunk, and make the function that does so by a replay, or None if that does not give the same
    bits. moved: what the steps move; it is left as they leave it."""
    before = [tensor.clone() for tensor in moved]
    losses = steps(chunk)
    after = [tensor.clone() for tensor in moved]
    try:
        # batch by batch, for memory of their own begins where other batches' does
        places = [tuple(torch.zeros_like(part) for part in batch) for batch in chunk]
        again = capture(partial(steps, places))

        def replay(chunk: Iterable[Batch]) -> torch.Tensor:
            torch._foreach_copy_(_parts(places), _parts(chunk))
            return again().clone()

        torch._foreach_copy_(moved, before)
        replayed = replay(chunk)
        if all(map(_same_bits, [replayed, *moved], [losses, *after])):
            return losses, replay
        reason = "a replay gave other bits"
    except RuntimeError as error:
        reason = str(error).strip().partition("\n")[0]
    torch._foreach_copy_(moved, after)
    log.info("steps are taken one by one, not by replays of a capture: %s", reason)
    return losses, None


def _state(parameters: list[nn.Parameter], layers: Sequence[nn.Module], optimizer: optim.Optimizer) -> Any:
    """Give what a recording holds fixed of model and optimizer; None where steps cannot be recorded: of any optimizer
    but plain SGD, and before the first one has made the momenta."""
    group, *more = optimizer.param_groups
    plain = type(optimizer) is optim.SGD and is_plain(optimizer) and not any(hooks_of(optimizer)) and not more
    if not plain or any(map(group.get, SWITCHES)) or isinstance(group["lr"], torch.Tensor):
        return None
    moved = _moved(parameters, optimizer)
    if not set(group["params"]) <= set(parameters) or any(tensor is None for tensor in moved):
        return None
    numbers = [group[name] for name in ("lr", "momentum", "dampening", "weight_decay", "nesterov")]
    return numbers, repr(layers), [tensor.data_ptr() for tensor in [*moved, *group["params"]]]


def _moved(parameters: list[nn.Parameter], optimizer: optim.Optimizer) -> list[Any]:
    """Give what a step of SGD moves: parameters and, with momentum, their momenta, None for those not made yet."""
    (group,) = optimizer.param_groups
    with_momentum = group["params"] if group["momentum"] else []
    return [*parameters, *(optimizer.state.get(p, {}).get("momentum_buffer") for p in with_momentum)]


def _points(batch: Batch) -> list[Any]:
    return [(part.shape, part.dtype) for part in batch]


def _parts(batches: Iterable[Batch]) -> list[torch.Tensor]:
    return [part for batch in batches for part in batch]


def _same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.equal(a.view(torch.uint8), b.view(torch.uint8))
