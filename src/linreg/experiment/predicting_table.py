"""Prediction for a whole table, file to file, with memory for a few blocks of rows: `predict_table`."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from linreg.data.sources import Block
from linreg.data.transform import Recode
from linreg.errors import UsageError
from linreg.experiment.doubts import Doubts
from linreg.experiment.intervals.opening import Intervals, open_intervals
from linreg.experiment.loaded import LoadedModel, open_like
from linreg.system.threads import map_in_threads

if TYPE_CHECKING:
    from linreg.data.tables.formats import Stored

log = logging.getLogger("linreg")


def predict_table(
    path: str | Path,
    table: str | Path | None,
    output: Path | None = None,
    *,
    keep: Sequence[str] = (),
    on_gap: str | None = None,
    interval: float | None = None,
    device: str = "cpu",
    report: Callable[[int], None] | None = None,
) -> int:
    """Predict for the rows of a table (None: stdin), and write `<target>_predicted` to output (None: stdout), after the
    columns to keep (`*`: all of them); with an interval also `<target>_lower` and `<target>_upper`.

    on_gap: `empty` leaves the prediction for a row with a gap empty, `error` refuses it; by default empty for a model
    that drops such rows. Not used if the preprocessing fills gaps. report: called with the number of finished rows.
    Return that of all rows. Raises CheckpointError, DataError, StorageError.
    """
    from linreg.data.tables.formats import standard_input
    from linreg.data.tables.writing import open_output

    model = LoadedModel(path, device=device)
    saved = model.saved
    intervals = None if interval is None else open_intervals(model, interval)  # may fail, before the table is read
    leaves_empty = (on_gap or ("empty" if saved.preprocessing["missing"] == "drop" else "error")) == "empty"
    missing = saved.preprocessing["missing"] if model.fills_gaps else "keep" if leaves_empty else "error"
    hint, source = "add the value, or use --on-gap empty", table or standard_input()
    points = open_like(model, source, targets=(), missing=missing, gap_hint=hint, keep=keep)
    if table is not None:
        _refuse_same(output, points.files)
    _refuse_clash(points.keep, saved.target_names)
    recode = Recode(model.features, points)
    doubts, n_empty = Doubts(model, recode), 0

    def predicted(blocks: Iterable[Block]) -> Iterator[dict[str, Any]]:
        nonlocal n_empty
        for block in blocks:
            x = recode(block)
            doubts.add(x)
            gaps = np.isnan(x).any(axis=1) if missing == "keep" else np.zeros(len(x), dtype=bool)
            n_empty += int(gaps.sum())
            yield {**block.kept, **_predicted_columns(model, block, x, gaps, intervals)}

    with (  # threads convert numbers to text
        open_output(output) as out,
        closing(points.blocks()) as blocks,
        closing(map_in_threads(out.ready, predicted(blocks), torch.get_num_threads())) as texts,
    ):
        for text in texts:
            out.write(text)
            if report:
                report(doubts.n_rows)
    doubts.log()
    if n_empty:
        log.warning("%d of %d rows have a gap; their predictions are empty", n_empty, doubts.n_rows)
    return doubts.n_rows


def _refuse_same(output: Path | None, files: Sequence["Stored"]) -> None:
    """Raise a UsageError if the output is one of the input files."""
    from linreg.data.tables.paths import is_same

    if output is not None and output.exists() and any(is_same(output, file) for file in files):
        raise UsageError(f"--output {output}: is also the input; name another file")


def _refuse_clash(keep: Sequence[str], targets: Sequence[str]) -> None:
    """Raise a UsageError for a column to keep that has the name of an output column."""
    columns_made = [f"{name}_{what}" for name in targets for what in ("predicted", "lower", "upper")]
    clash = [name for name in keep if name in columns_made]
    if clash:
        raise UsageError(f"--keep {clash[0]}: is also the name of an output column; rename it in the table")


def _predicted_columns(
    model: LoadedModel, block: Block, x: NDArray[np.floating], gaps: NDArray[np.bool_], intervals: Intervals | None
) -> dict[str, Any]:
    """Return the output columns for a block with inputs x (N, n_features), empty where there are gaps (N,). Raises
    DataError."""
    known = np.flatnonzero(~gaps)
    rows = x if len(known) == len(x) else x[known]
    parts = [model.predict(rows, lambda row: block.where(int(known[row])))]
    parts += [] if intervals is None else intervals.bounds(rows, parts[0])
    columns = [part[:, target] for target in range(parts[0].shape[1]) for part in parts]
    if len(known) < len(x):
        columns = [_spread(values, known, gaps) for values in columns]
    return dict(zip(_output_names(model, intervals), columns, strict=True))


def _output_names(model: LoadedModel, intervals: Intervals | None) -> list[str]:
    kinds = ["predicted"] if intervals is None else ["predicted", "lower", "upper"]
    return [f"{name}_{kind}" for name in model.saved.target_names for kind in kinds]


def _spread(values: NDArray[np.floating], known: NDArray[np.int64], gaps: NDArray[np.bool_]) -> Any:
    """Return an arrow column (N,) with values in the known rows, and null where there are gaps."""
    import pyarrow as pa

    spread = np.zeros(len(gaps), values.dtype)
    spread[known] = values
    return pa.array(spread, mask=gaps)
