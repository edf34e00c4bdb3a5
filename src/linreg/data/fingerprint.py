"""Fingerprints of data. A resumed run recognizes its data by them."""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from linreg.data.shards import Shards
from linreg.data.sources import Block, Points

UINT64 = 2**64


class Fingerprint:
    """Identifies data: the number of rows, and the SHA-256 of the columns' names and of the values of x, y and weight.

    It does not depend on how the rows are cut into blocks. A resumed run recognizes its data by it."""

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
        """Return the fingerprint of the rows so far, as parts with names."""
        names = [*self.points.feature_names, *self.points.target_names, *self.points.categories.items()]
        digests = [digest.hexdigest() for digest in self.digests]
        return _text(self.n_rows, [hashlib.sha256(repr(names).encode()).hexdigest(), *digests])


class RowSums:
    """Identifies data with shards: for x, y and weight the sum, modulo 2^64, of a hash of each row and its number.

    It depends neither on the shards nor on who has read them. A category is hashed by its name, as its code depends on
    the rows before. Source of the mixing: G. L. Steele, D. Lea and C. H. Flood, Fast splittable pseudorandom number
    generators (2014), figure 17."""

    def __init__(self, points: Points) -> None:
        self.points = points
        self.n_rows = 0
        self.sums = [0, 0, 0]
        self._of_names: dict[str, NDArray[np.uint64]] = {}

    def add(self, block: Block, numbers: NDArray[np.int64] | None = None) -> None:
        """Add the rows of a block. numbers: of its rows among all rows (n,), by default those after the last ones."""
        if numbers is None:
            numbers = np.arange(self.n_rows, self.n_rows + len(block.x))
        self.n_rows += len(block.x)
        for place, array in enumerate((block.x, block.y, block.weight)):
            if array is not None:
                values = np.array(array.reshape(len(array), -1), dtype=np.float64).view(np.uint64)
                if place == 0:
                    self._name_categories(block, values)
                values ^= values >> np.uint64(32)
                rows = values @ _mixed(np.arange(1, values.shape[1] + 1)) + numbers.astype(np.uint64)
                self.sums[place] = (self.sums[place] + int(_mixed(rows).sum())) % UINT64

    def text(self, shards: Shards) -> str:
        """Return the fingerprint of the rows of all processes, as parts with names."""
        parts = shards.share((self.n_rows, self.sums))
        sums = [sum(sums[place] for _, sums in parts) % UINT64 for place in range(3)]
        categories = shared_categories(self.points, shards)
        return text_of_sums(self.points, categories, sum(n_rows for n_rows, _ in parts), sums)

    def _name_categories(self, block: Block, values: NDArray[np.uint64]) -> None:
        """Replace the codes of categories by hashes of their names."""
        categories = self.points.categories
        for position in self.points.categorical_positions:
            name = self.points.feature_names[position]
            known = self._of_names.get(name, np.empty(0, np.uint64))
            new = [hashlib.sha256(text.encode()).digest()[:8] for text in categories[name][len(known) :]]
            self._of_names[name] = known = np.concatenate([known, np.frombuffer(b"".join(new), np.uint64)])
            codes = block.x[:, position]
            present = ~np.isnan(codes)
            values[present, position] = known[codes[present].astype(np.int64)]


def text_of_sums(points: Points, categories: Mapping[str, Sequence[str]], n_rows: int, sums: Sequence[int]) -> str:
    """Return the fingerprint of rows with these sums. categories: of all rows, sorted."""
    names = [*points.feature_names, *points.target_names, *categories.items()]
    digests = [hashlib.sha256(repr(names).encode()).hexdigest(), *(f"{one:016x}" for one in sums)]
    return _text(n_rows, digests)


def shared_categories(points: Points, shards: Shards) -> dict[str, list[str]]:
    """Return the categories of each feature in the rows of all processes, sorted."""
    parts = shards.share({name: list(values) for name, values in points.categories.items()})
    return {name: sorted({value for part in parts for value in part[name]}) for name in parts[0]}


def differing(then: str, now: str) -> list[str]:
    """Describe the parts in which two fingerprints differ, with both numbers of rows."""
    before, after = (dict(part.partition("=")[::2] for part in text.split()) for text in (then, now))
    rows = [f"{before.get('rows')} rows, now {after.get('rows')}"] if before.get("rows") != after.get("rows") else []
    words = {"columns": "the names of the columns or categories", "x": "values of x", "y": "values of y"}
    others = [name for name in ("columns", "x", "y", "weight") if before.get(name) != after.get(name)]
    return rows + [words.get(name, "weights") for name in others]


def _text(n_rows: int, digests: Sequence[str]) -> str:
    parts = zip(("columns", "x", "y", "weight"), digests, strict=True)
    return " ".join([f"rows={n_rows}", *(f"{name}={digest}" for name, digest in parts)])


def _mixed(numbers: NDArray[np.integer]) -> NDArray[np.uint64]:
    """Return 64 mixed bits for each number (n,)."""
    z = numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)))
