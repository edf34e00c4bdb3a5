"""Prediction for a whole table, file to file, with memory for a few blocks of rows: `predict_table`."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from linreg.data.sources import Block
from linreg.data.transform import Recode
from linreg.errors import UsageError
from linreg.experiment.doubts import Doubts
from linreg.experiment.loaded import LoadedModel, open_like
from linreg.system.threads import map_in_threads


def predict_table(
    path: str | Path,
    table: Path | None,
    output: Path | None = None,
    *,
    keep: Sequence[str] = (),
    interval: float | None = None,
    device: str = "cpu",
    report: Callable[[int], None] | None = None,
) -> int:
    """Predict for the rows of a table (None: stdin), and write `<target>_predicted` to output (None: stdout), after the
    columns to keep (`*`: all of them); with an interval also `<target>_lower` and `<target>_upper`.

    report: called with the number of finished rows. Return that of all rows. Raises CheckpointError, DataError,
    StorageError.
    """
    from linreg.data.tables.formats import standard_input
    from linreg.data.tables.writing import open_output

    model = LoadedModel(path, device=device)
    saved = model.saved
    if interval is not None:
        model.margin(np.zeros((1, saved.n_features)), interval)  # fail before the table is read
    missing = saved.preprocessing["missing"] if model.fills_gaps else "error"
    points = open_like(model, standard_input() if table is None else table, targets=(), missing=missing, keep=keep)
    if output is not None and table is not None and output.exists() and any(output.samefile(f) for f in points.files):
        raise UsageError(f"--output {output}: is also the input; name another file")
    columns_made = [f"{name}_{what}" for name in saved.target_names for what in ("predicted", "lower", "upper")]
    clash = [name for name in points.keep if name in columns_made]
    if clash:
        raise UsageError(f"--keep {clash[0]}: is also the name of an output column; rename it in the table")
    recode = Recode(model.features, points)
    doubts = Doubts(model, recode)

    def predicted(blocks: Iterable[Block]) -> Iterator[dict[str, Any]]:
        for block in blocks:
            x = recode(block)
            doubts.add(x)
            yield {**block.kept, **_predicted_columns(model, block, x, interval)}

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
    return doubts.n_rows


def _predicted_columns(
    model: LoadedModel, block: Block, x: NDArray[np.floating], interval: float | None
) -> dict[str, NDArray[np.floating]]:
    """Return the output columns for a block with inputs x (N, n_features). Raises DataError."""
    yhat = model.predict(x, block.where)
    margin = None if interval is None else model.margin(x, interval)
    columns = {}
    for position, name in enumerate(model.saved.target_names):
        columns[f"{name}_predicted"] = yhat[:, position]
        if margin is not None:
            columns[f"{name}_lower"] = (yhat - margin).astype(yhat.dtype)[:, position]
            columns[f"{name}_upper"] = (yhat + margin).astype(yhat.dtype)[:, position]
    return columns
