"""Gathers the triangles of an exact problem from its rows: by piece, by shard, and from the processes of a group."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from linreg.data.preprocessing import rows_as_data_errors
from linreg.data.rows import Rows, chosen_blocks
from linreg.data.statistics import Statistics, merged_ranges
from linreg.data.transform import Recode
from linreg.errors import DataError
from linreg.exact.closed_form import Equations
from linreg.exact.least_squares import Triangle, stack
from linreg.experiment.pieces import Pieces


@dataclass
class Gathered:
    """The rows of a problem: the triangle of each piece, and the ranges of the features of the training part by its
    first piece, or of each piece where several problems share them."""

    triangles: list[Triangle]
    ranges: dict[int, Statistics]


def gather(
    equations: Equations,
    rows: Rows,
    pieces: Pieces,
    recode: Recode,
    *,
    with_ranges: bool,
    before: dict[str, Gathered] | None,
    where: str,
) -> Gathered:
    """Add the rows to the pieces that a solution uses; or, to keep them in `before` for others, to all pieces.

    equations: with a factor for each piece, and with shards for each piece of each shard of this process. Each process
    adds its rows, and all get the triangles of all. Raises DataError, GroupError."""
    if before is not None and pieces.key is not None and pieces.key in before:
        return before[pieces.key]
    is_kept = before is not None and pieces.key is not None
    used = range(pieces.n_pieces) if is_kept else pieces.used
    groups = [[number] for number in used] if is_kept else [list(pieces.train)]
    try:
        own = _own(equations, rows, pieces, recode, used, groups if with_ranges else [])
        gathered = own if rows.cut is None else _merged(rows.cut.shards.share(own), pieces)
    except OverflowError as error:
        raise DataError(f"{where}: {error}") from None
    if before is not None and pieces.key is not None:
        before[pieces.key] = gathered
    return gathered


def _own(
    equations: Equations,
    rows: Rows,
    pieces: Pieces,
    recode: Recode,
    used: Sequence[int],
    groups: Sequence[list[int]],
) -> Gathered:
    """Gather the rows of this process. The triangles are by shard, and within a shard by piece. groups: the pieces with
    common ranges."""
    numbers, n_pieces = pieces.numbers, pieces.n_pieces
    is_used = np.isin(numbers, used) if len(used) < n_pieces or (numbers.size and numbers.min() < 0) else None
    ranges = {group[0]: Statistics(len(rows.feature_names), len(rows.target_names)) for group in groups}
    for block, positions in chosen_blocks(rows, is_used):
        of_block = numbers[positions]
        for group in groups:
            mask = np.isin(of_block, group)
            if mask.any():
                ranges[group[0]].add_ranges(block.x if mask.all() else block.x[mask])
        x = recode(block)
        if rows.cut is not None:
            of_block = of_block + n_pieces * (rows.cut.numbers[positions].astype(np.int32) - rows.cut.shards.own.start)
        with rows_as_data_errors(equations.preprocessing, x, block.y, block.where):
            equations.add(x, block.y, block.weight, of_block)
    return Gathered(equations.triangles(), ranges)


def _merged(parts: Sequence[Gathered], pieces: Pieces) -> Gathered:
    """Put together what the processes have gathered: the triangles of each piece, in the order of their shards.

    The tree is the same for any number of processes: rows within a shard, then the triangles of all shards. It takes S
    triangles, so dividing it among processes would save less than the exchange costs."""
    all_of = [triangle for part in parts for triangle in part.triangles]
    triangles = [stack(all_of[piece :: pieces.n_pieces]) for piece in range(pieces.n_pieces)]
    ranges = {number: merged_ranges([part.ranges[number] for part in parts]) for number in parts[0].ranges}
    return Gathered(triangles, ranges)
