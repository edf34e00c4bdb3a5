"""The most numbers that a calibration keeps in a checkpoint."""

from linreg.data.rows import Rows
from linreg.data.split import Parts
from linreg.errors import SpecError
from linreg.spec.schema import ExperimentSpec

MOST_VALUES = 2**22  # 32 MiB
_SMALLER = {"split": "lower data.split.calibration_ratio", "cv_plus": "use split", "jackknife_plus": "use cv_plus"}


def refuse_large(spec: ExperimentSpec, rows: Rows, parts: Parts, n_columns: int) -> None:
    """Raise a SpecError for more numbers than a calibration keeps: n_columns for each of its rows, also those of other
    processes."""
    assert spec.intervals is not None
    n_rows = len(parts.train if parts.calibration is None else parts.calibration)
    if rows.cut is not None:
        n_rows = sum(rows.cut.shards.share(n_rows))
    if n_rows * n_columns > MOST_VALUES:
        raise SpecError(
            [
                f"{spec.where('intervals')}: {n_rows} calibration rows with {n_columns} numbers each, must be <= "
                f"{MOST_VALUES} numbers; {_SMALLER[spec.intervals.method]}"
            ]
        )
