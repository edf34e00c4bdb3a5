"""The pieces of a part of the data: for each mini-batch one from each shard."""

from collections.abc import Callable
from typing import Any

import torch

from linreg.data.dataset import Point
from linreg.data.shards import ShardedPart
from linreg.data.split import draw_seed, permutation

LARGEST_SEED = 2**63


class Pieces:
    """The mini-batches of a part, cut by shards. A shard has the rows of a range of the table.

    part: its rows in the dataset, of the shards of this process; batch_size: None puts the part in one batch;
    generator: of the loaders, or None for a part that is not shuffled. Each mini-batch has its share of each shard,
    which is shuffled by itself."""

    def __init__(
        self,
        dataset: Any,
        part: ShardedPart,
        *,
        batch_size: int | None,
        generator: torch.Generator | None,
        shuffle: bool,
    ) -> None:
        self.dataset, self.part, self.generator, self.shuffle = dataset, part, generator, shuffle
        self.rows = {shard: torch.from_numpy(rows) for shard, rows in part.rows.items()}
        self.n_batches = part.n_batches(batch_size)

    def begin(self) -> Callable[[int], list[Point | None]]:
        """Begin a pass, with the random numbers of a DataLoader. Return the function from the number of a mini-batch to
        the pieces of the own shards, None for one without rows."""
        orders = self.rows
        if self.generator is not None:
            draw_seed(self.generator)  # DataLoader draws a seed for workers
        if self.generator is not None and self.shuffle:
            seed = draw_seed(self.generator)
            orders = {
                shard: rows[permutation(len(rows), (seed + shard) % LARGEST_SEED).long()]
                for shard, rows in self.rows.items()
            }

        def pieces(batch: int) -> list[Point | None]:
            found: list[Point | None] = []
            for shard in self.rows:
                first, last = self.part.ends(shard, batch, self.n_batches)
                found.append(self.dataset.rows(orders[shard][first:last]) if first < last else None)
            return found

        return pieces

    def n_rows(self, batch: int) -> int:
        """Return the number of rows of a mini-batch, from all shards."""
        return self.part.n_in_batch(batch, self.n_batches)
