"""The predictions of a cross-validation: for each row, by the model that was trained without it."""

import csv
import io
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from linreg.experiment.measuring import Measured
from linreg.experiment.sweeps.records import part_of, parts_of
from linreg.runs.records import open_regular
from linreg.system.files import replace_file, translated_errors

PART = "predictions.part"  # of the folds that have ended, while others train


class OfModel(NamedTuple):
    """The points that a model predicts: its fold, or None if each row was left out by itself, and its seed."""

    fold: int | None
    seed: int
    measured: Sequence[Measured]


class Predictions:
    """Collects predictions on disk, each model's before its result, so that an interruption loses none. A process of a
    group has a file of its own."""

    def __init__(
        self, folder: Path, target_names: Sequence[str], known: Iterable[tuple[int, int]] = (), rank: int = 0
    ) -> None:
        """known: the folds and seeds with results, from before an interruption; others are dropped. Raises
        StorageError."""
        self.path, self.target_names = part_of(folder / PART, rank), target_names
        parts = parts_of(self.path) if rank == 0 else []
        ids = {f"{fold},{seed}" for fold, seed in known}
        # the last line of a file is empty, or incomplete
        lines = [line for path in [self.path, *parts] for line in _text(path).split("\n")[:-1]]
        self.lines = [line for line in dict.fromkeys(lines) if ",".join(line.split(",")[1:3]) in ids]
        replace_file(self.path, "".join(f"{line}\n" for line in self.lines))
        for path in parts:
            path.unlink()

    def add(self, models: Iterable[OfModel]) -> None:
        """Add the predictions of some models, and wait until they are on disk. Raises StorageError."""
        self.add_lines([line for model in models for line in lines_of(model)])

    def add_lines(self, new: Sequence[str]) -> None:
        """Add lines of `lines_of`, also of another process. Raises StorageError."""
        with translated_errors(self.path), self.path.open("a") as file:
            file.write("".join(f"{line}\n" for line in new))
            file.flush()
            os.fsync(file.fileno())
        self.lines += new

    def counts(self) -> Counter[tuple[int, int]]:
        """Return the number of rows of each fold and seed."""
        return Counter((int(fold), int(seed)) for _, fold, seed, *_ in (line.split(",", 3) for line in self.lines))

    def finish(self, path: Path) -> None:
        """Write all predictions to a file, by row, fold and seed. Raises StorageError."""
        write_predictions(path, self.lines, self.target_names)
        for part in [self.path, *parts_of(self.path)]:
            part.unlink(missing_ok=True)


def _text(path: Path) -> str:
    """Return the content of a file of predictions, of any size; empty without one."""
    try:
        with open_regular(path) as file:
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


def write_predictions(path: Path, lines: Iterable[str], target_names: Sequence[str]) -> None:
    """Write lines of predictions with their head, in the order of the rows, which are counted from 1."""
    buffer = io.StringIO()
    names = ["row", "fold", "seed", *target_names, *(f"{name}_predicted" for name in target_names)]
    csv.writer(buffer, lineterminator="\n").writerow(names)

    def order(line: str) -> tuple[int, ...]:
        return tuple(int(text or 0) for text in line.split(",", 3)[:3])

    replace_file(path, buffer.getvalue() + "".join(f"{line}\n" for line in sorted(lines, key=order)))


def lines_of(model: OfModel) -> Iterator[str]:
    """Yield the predictions of a model as lines of CSV."""
    fold = "" if model.fold is None else str(model.fold)
    for points in model.measured:
        yhat = points.y.astype(np.float64) - points.error
        for row, y, predicted in zip(points.rows.tolist(), points.y.tolist(), yhat.tolist(), strict=True):
            yield ",".join([str(row + 1), fold, str(model.seed), *map(repr, y), *map(repr, predicted)])
