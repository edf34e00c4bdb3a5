"""The pieces of rows that an exact solution needs: a part, or folds of it to choose the strength of a penalty on."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from linreg.data.rows import Rows
from linreg.data.split import TRAIN, VAL, Parts
from linreg.exact.least_squares import Triangle, stack
from linreg.exact.penalties import Penalty
from linreg.experiment.data import folds_of, inner_folds
from linreg.spec.schema import ExperimentSpec


@dataclass(frozen=True)
class Pieces:
    """numbers (n_rows,): the piece of each row, -1 for a row of none; n_pieces: how many; train: the pieces of the
    training part; val: the piece of the validation part, or None; folds: the pieces for training and the one for
    validation of each fold of the training part; key: equal for the folds of one division, which share all pieces."""

    numbers: NDArray[np.integer]
    n_pieces: int
    train: Sequence[int]
    val: int | None
    folds: Sequence[tuple[Sequence[int], int]] = ()
    key: str | None = None

    @property
    def used(self) -> list[int]:
        """The pieces of both parts."""
        return [*self.train, *([] if self.val is None else [self.val])]

    def parts_of(self, triangles: Sequence[Triangle]) -> tuple[Triangle, Triangle | None]:
        """Return the triangles of the training and the validation part."""
        return _stacked(triangles, self.train), None if self.val is None else triangles[self.val]

    def folds_of(self, triangles: Sequence[Triangle]) -> list[tuple[Triangle, Triangle]]:
        """Return the triangles of both sides of each fold."""
        return [(_stacked(triangles, train), triangles[val]) for train, val in self.folds]


def _stacked(triangles: Sequence[Triangle], numbers: Sequence[int]) -> Triangle:
    return stack([triangles[number] for number in numbers])


def pieces_of(spec: ExperimentSpec, rows: Rows, parts: Parts) -> Pieces:
    """Return the pieces of the rows of a spec with `solver: exact`. Raises SpecError, DataError."""
    penalty = penalty_of(spec)
    if spec.penalty is None or penalty is None or not penalty.is_chosen:
        if spec.data.split.fold is not None:
            return _outer(spec, rows, spec.data.split.fold)
        numbers = np.where(parts.codes <= VAL, parts.codes, -1) if not parts.train_on_all else parts.codes
        return Pieces(numbers, 1 if parts.val is None else 2, [TRAIN], None if parts.val is None else VAL)
    where = spec.where("penalty", "folds")
    folds = inner_folds(spec, rows, parts, folds=spec.penalty.folds, where=where)
    numbers, n_pieces, val = folds.numbers(parts.n_rows), len(folds.pieces), None
    if parts.val is not None:
        val = n_pieces
        numbers[parts.val] = val
    pairs = [(folds.train_pieces(fold), folds.val_piece(fold)) for fold in range(folds.n_folds)]
    return Pieces(numbers, n_pieces + (val is not None), range(n_pieces), val, pairs)


def _outer(spec: ExperimentSpec, rows: Rows, fold: int) -> Pieces:
    """Return the pieces of the folds of a split."""
    folds = folds_of(spec, rows)
    plain = spec.data.model_dump()
    del plain["split"]["fold"]
    key = json.dumps([plain, spec.dtype, spec.seed, spec.model.to_dict()], sort_keys=True, default=str)
    return Pieces(
        folds.numbers(rows.n_rows), len(folds.pieces), folds.train_pieces(fold), folds.val_piece(fold), key=key
    )


def penalty_of(spec: ExperimentSpec) -> Penalty | None:
    """Return the penalty of a spec, or None."""
    penalty = spec.penalty
    if penalty is None:
        return None
    strengths = penalty.strength
    l1_ratio = {"ridge": None, "lasso": 1.0, "elastic_net": penalty.l1_ratio or 0.5}[penalty.name]
    return Penalty(
        penalty.name,
        None
        if strengths == "auto"
        else [float(one) for one in strengths]
        if isinstance(strengths, list)
        else [float(strengths)],
        l1_ratio,
        penalty.select,
    )
