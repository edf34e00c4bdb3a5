"""The fingerprint of data, by which a resumed run knows its own."""

import hashlib

import numpy as np

from linreg.data.sources import Block, Points


class Fingerprint:
    """Identifies data, block by block, however they are cut: the number of rows, and the SHA-256 of the columns' names
    and of the values of x, y and weight."""

    def __init__(self, points: Points) -> None:
        self.points = points
        self.n_rows = 0
        self.digests = [hashlib.sha256() for _ in range(3)]

    def add(self, block: Block) -> None:
        """Add the rows of a block."""
        self.n_rows += len(block.x)
        for digest, array in zip(self.digests, (block.x, block.y, block.weight), strict=True):
            if array is not None:
                digest.update(np.ascontiguousarray(array, dtype=np.float64).data)

    def text(self) -> str:
        """Give the fingerprint of the rows so far: its parts, each with its name."""
        names = [*self.points.feature_names, *self.points.target_names, *self.points.categories.items()]
        columns = hashlib.sha256(repr(names).encode())
        digests = zip(("columns", "x", "y", "weight"), (columns, *self.digests), strict=True)
        return " ".join([f"rows={self.n_rows}", *(f"{name}={digest.hexdigest()}" for name, digest in digests)])


def differing(then: str, now: str) -> list[str]:
    """Name the parts in which two fingerprints differ, with the rows that there were and are."""
    before, after = (dict(part.partition("=")[::2] for part in text.split()) for text in (then, now))
    rows = [f"{before.get('rows')} rows, now {after.get('rows')}"] if before.get("rows") != after.get("rows") else []
    words = {"columns": "the names of the columns or categories", "x": "values of x", "y": "values of y"}
    others = [name for name in ("columns", "x", "y", "weight") if before.get(name) != after.get(name)]
    return rows + [words.get(name, "weights") for name in others]
