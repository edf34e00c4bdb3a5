"""Conversion of a source into a cache entry that is mapped: `data.memory: mapped`."""

import logging
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from linreg.data.cache import POINTS, REMEDIES, cache_folder, key_of, make_room, new_entry, open_entry, publish
from linreg.data.fingerprint import Fingerprint, RowSums
from linreg.data.mapped import MappedRows
from linreg.data.rows import refuse_infinite
from linreg.data.shards import Shards
from linreg.data.sources import Points
from linreg.errors import DataError, StorageError
from linreg.system.files import translated_errors

log = logging.getLogger("linreg")

STRIDE = 2**26  # bytes written between two checks of the free room


def open_mapped(
    points: Points,
    *,
    source: Mapping[str, Any],
    memory_limit: int,
    where: str = "data.source",
    shards: Shards | None = None,
) -> MappedRows:
    """Open the points from the cache, after converting them if necessary.

    source: their component in plain values. With the sizes and times of its files it identifies points from files, so
    an unchanged table is not read again. A fingerprint identifies other points. shards: those whose rows are read, by
    default all. Raises DataError, StorageError.
    """
    folder, stamp = cache_folder(), points.stamp()
    name = str(source["name"]) if stamp is None else ", ".join(str(path) for path, *_ in stamp)
    key = uuid.uuid4().hex if stamp is None else key_of(source, stamp)
    opened = open_entry(folder, key)
    if opened is None:
        with new_entry(folder, key) as temporary:
            opened = open_entry(folder, key)  # another process may have converted them meanwhile
            if opened is None:
                log.info("converting the data into %s, once", folder)
                meta = _convert(points, temporary, where)
                if points.stamp() != stamp:
                    raise DataError(f"{where}: a file changed while it was read; run the command again")
                if stamp is None:
                    key = key_of(meta["fingerprint"])
                publish(temporary, key, {**meta, "source": name})
                opened = open_entry(folder, key)
        if opened is None:
            raise StorageError(f"{folder / key}: removed by another process; run the command again")
    return MappedRows(*opened, memory_limit=memory_limit, source=points, shards=shards, where=where)


def _convert(points: Points, temporary: Path, where: str) -> dict[str, Any]:
    """Write the points into a folder, in one pass. Return the content of meta.json."""
    fingerprint, sums = Fingerprint(points), RowSums(points)
    lows, highs = [], []
    n_bytes = checked = n_columns = 0
    weighted = False
    with (temporary / POINTS).open("wb") as file:
        for block in points.blocks():
            refuse_infinite(block, points, where)
            fingerprint.add(block)
            sums.add(block)
            weighted = block.weight is not None
            parts = [block.x, block.y] if block.weight is None else [block.x, block.y, block.weight[:, None]]
            rows = np.hstack([np.asarray(part, dtype=np.float64) for part in parts])
            rows = np.ascontiguousarray(rows)
            lows.append(np.fmin.reduce(rows, axis=0))
            highs.append(np.fmax.reduce(rows, axis=0))
            n_columns = rows.shape[1]
            n_bytes += rows.nbytes
            if not checked or n_bytes > checked + STRIDE:
                make_room(temporary.parent, n_bytes)
                checked = n_bytes
            with translated_errors(temporary.parent, REMEDIES):
                file.write(rows.data)
        make_room(temporary.parent, n_bytes)
        with translated_errors(temporary.parent, REMEDIES):
            file.flush()
            os.fsync(file.fileno())
    with np.errstate(invalid="ignore"):
        extremes = np.fmin.reduce(lows, axis=0), np.fmax.reduce(highs, axis=0)
    return {
        "feature_names": list(points.feature_names),
        "target_names": list(points.target_names),
        "categories": {name: list(values) for name, values in points.categories.items()},
        "weighted": weighted,
        "n_rows": fingerprint.n_rows,
        "sizes": list(points.sizes),
        "n_columns": n_columns,
        "minimum": [None if np.isnan(value) else float(value) for value in extremes[0]],
        "maximum": [None if np.isnan(value) else float(value) for value in extremes[1]],
        "fingerprint": fingerprint.text(),
        "sums": sums.sums,
    }
