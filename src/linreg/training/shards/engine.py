"""The engine of a spec with `data.shards`: it adds the gradients of the pieces of a mini-batch, shard by shard."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from linreg.data.loaders import ShuffleSampler
from linreg.data.shards import ShardedPart
from linreg.training.engines.training import Engine, Training
from linreg.training.engines.updates import make_update_fn
from linreg.training.loops import EpochFn, make_epoch_fn, mean_of
from linreg.training.shards.exchange import Exchange
from linreg.training.shards.pieces import LARGEST_SEED, Pieces


def make_sharded_engine(
    training: Training, train: ShardedPart, val: ShardedPart | None, exchange: Exchange, *, batch_size: int | None
) -> Engine:
    """Make the engine that computes each shard's part of a mini-batch by itself, with one thread.

    train, val: the parts, with the rows of this process; batch_size: None puts each part in one batch.

    The loss of a mini-batch is the sum of the losses of its pieces, each weighted by its share of the rows; so are the
    gradients. Dropout draws the numbers of each piece from a seed of its own."""
    loader: Any = training.loaders.train
    dataset, generator, n_shards = loader.dataset.dataset, training.loaders.generator, len(train.sizes)
    shuffle = isinstance(loader.sampler, ShuffleSampler)
    pieces = Pieces(dataset, train, batch_size=batch_size, generator=generator, shuffle=shuffle)
    train_epoch = _make_train_epoch(training, pieces, n_shards, exchange)
    if val is None:
        return Engine("sharded", train_epoch, None)
    val_pieces = Pieces(dataset, val, batch_size=batch_size, generator=None, shuffle=False)
    return Engine("sharded", train_epoch, _make_val_epoch(training, val_pieces, n_shards, exchange))


def _make_train_epoch(training: Training, pieces: Pieces, n_shards: int, exchange: Exchange) -> EpochFn:
    model, device, own = training.model, training.device, list(pieces.rows)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    sizes = [parameter.numel() for parameter in parameters]
    rows = torch.zeros(len(own), sum(sizes) + 1, dtype=parameters[0].dtype, device=device)  # gradients and the loss
    update = make_update_fn(training.optimizer)
    draws = any(isinstance(module, nn.Dropout) and module.p > 0 for module in model.modules())

    def step(batch: int, of_batch: list[Any], seed: int) -> float:
        n_rows = pieces.n_rows(batch)
        rows.zero_()
        for row, shard, piece in zip(rows, own, of_batch, strict=True):
            if piece is not None:
                if draws:
                    torch.manual_seed((seed + batch * n_shards + shard) % LARGEST_SEED)
                _add_piece(row, training, parameters, piece, len(piece[0]) / n_rows)
        total = exchange.total(rows, n_shards)
        gradients = zip(parameters, torch.split(total[:-1], sizes), strict=True)
        for parameter, gradient in gradients:
            parameter.grad = gradient.view_as(parameter)
        if training.clip_grad_norm is not None:
            nn.utils.clip_grad_norm_(parameters, training.clip_grad_norm)
        with torch.no_grad():
            update()
        for parameter in parameters:
            parameter.grad = None
        if training.after_step is not None:
            training.after_step()
        return float(total[-1])

    def begin(n_done: int) -> Callable[[int], list[float]]:
        seed = _seed_of(training.loaders.generator)
        pieces_of, batches = pieces.begin(), iter(range(n_done, pieces.n_batches))

        def run(n_steps: int) -> list[float]:
            losses: list[float] = []
            model.train()
            with _one_thread(), _kept_generator(draws):
                for batch in batches:
                    losses.append(step(batch, pieces_of(batch), seed))
                    if len(losses) == n_steps or exchange.stopped:
                        break
            return losses

        return run

    return make_epoch_fn(pieces.n_batches, begin)


def _add_piece(
    row: torch.Tensor, training: Training, parameters: Sequence[nn.Parameter], piece: Any, share: float
) -> None:
    """Write the gradients of a piece and its part of the loss into a row (width,)."""
    x, y, *weight = (part.to(training.device) for part in piece)
    yhat = training.model(x)
    loss = training.loss_fn(yhat, y, *weight)
    (loss * share).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    reported = training.reported_loss_fn
    reported_loss = loss.detach() if reported is None else reported(yhat.detach(), y, *weight)
    place = 0
    for parameter in parameters:
        if parameter.grad is not None:
            row[place : place + parameter.numel()] = parameter.grad.reshape(-1)
            parameter.grad = None
        place += parameter.numel()
    row[-1] = reported_loss * share


def _make_val_epoch(training: Training, pieces: Pieces, n_shards: int, exchange: Exchange) -> EpochFn:
    model, device, loss_fn = training.model, training.device, training.val_loss_fn

    def val_epoch(*, mini_batch_losses: list[float] | None = None, pause: Callable[[], None] = lambda: None) -> float:
        model.eval()
        pieces_of = pieces.begin()
        rows = torch.zeros(len(pieces.rows), pieces.n_batches, dtype=torch.float64)
        with torch.no_grad(), _one_thread():
            for batch in range(pieces.n_batches):
                if exchange.size == 1:
                    pause()
                n_rows = pieces.n_rows(batch)
                for row, piece in zip(rows, pieces_of(batch), strict=True):
                    if piece is not None:
                        x, y, *weight = (part.to(device) for part in piece)
                        row[batch] = float(loss_fn(model(x), y, *weight)) * (len(x) / n_rows)
        losses: list[float] = exchange.total(rows, n_shards).tolist()
        return mean_of(losses)

    return val_epoch


def _seed_of(generator: torch.Generator) -> int:
    """Return a seed from the state of a generator, which stays as it is."""
    copy = torch.Generator()
    copy.set_state(generator.get_state())
    return int(torch.empty((), dtype=torch.int64).random_(generator=copy).item())


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute with one thread: several add numbers in another order."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


@contextmanager
def _kept_generator(draws: bool) -> Iterator[None]:
    """Restore the global generator, which a model with dropout is given a seed for each piece."""
    with torch.random.fork_rng(devices=[], enabled=draws):
        yield
