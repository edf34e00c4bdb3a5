"""Rows of inputs to compare an export with `predict` on."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from linreg.data.transform import codes_of

N_ROWS = 200
SHARE = 0.1  # of cells that are gaps, and of categories that are unseen
MOST_ALTERED = 10  # categories that are altered to texts which are none


@dataclass(frozen=True)
class Rows:
    """Rows of inputs. values: of each input, in the order of the description: floats with NaN for gaps, or texts with
    None; codes: the same as the model takes them (N, n_features), see `Preprocessing`; is_known: which rows the model
    takes, as far as gaps and categories decide (N,)."""

    n_rows: int
    values: dict[str, Sequence[Any]] = field(default_factory=dict)
    codes: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))
    is_known: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, dtype=bool))


def draw_rows(inputs: Sequence[dict[str, Any]], seed: int = 0) -> Rows:
    """Draw rows from the ranges and categories of the training part.

    Some have gaps and unseen categories, where the model takes them. The last rows have one each, also where it does
    not. The codes of texts are those that `predict` reads in a table.
    """
    generator = np.random.default_rng(seed)
    strangers = [_strangers(entry) for entry in inputs]
    n_rows = N_ROWS + sum(1 + len(texts) for texts in strangers)
    values: dict[str, Sequence[Any]] = {}
    codes = np.zeros((n_rows, len(inputs)))
    is_known = np.ones(n_rows, dtype=bool)
    gap = N_ROWS
    for position, (entry, texts) in enumerate(zip(inputs, strangers, strict=True)):
        fills, unseen = entry["gap"] is not None, slice(gap + 1, gap + 1 + len(texts))
        is_gap = np.zeros(n_rows, dtype=bool)
        is_gap[:N_ROWS] = fills & (generator.random(N_ROWS) < SHARE)
        is_gap[gap] = True
        if entry["kind"] == "category":
            drawn = _draw_categories(entry, texts, n_rows, generator)
            drawn[unseen] = texts
            own = [None if empty else text for empty, text in zip(is_gap, drawn, strict=True)]
            values[entry["name"]], codes[:, position] = own, _codes(entry, own)
            is_known &= (codes[:, position] != -1) | (entry["unseen"] == "zeros")
        else:
            low, high = (entry[key] or 0.0 for key in ("minimum", "maximum"))
            codes[:, position] = low + (high - low) * generator.random(n_rows)
            codes[:2, position] = low, high
            codes[is_gap, position] = np.nan
            values[entry["name"]] = codes[:, position].tolist()
        is_known &= ~is_gap | fills
        gap = unseen.stop
    return Rows(n_rows, values, codes, is_known)


def _strangers(entry: dict[str, Any]) -> list[str]:
    """Return texts that look like categories and are none; one empty text for a number, which has no such texts."""
    if entry["kind"] != "category":
        return [""]
    from linreg.data.tables.cells import canonical  # imports pyarrow.compute

    known, unseen = {*entry["categories"], *entry["also"]}, "unseen"
    while unseen in known:
        unseen += "_"
    own = entry["categories"][:MOST_ALTERED]
    swapped = [text.swapcase() for text in own]
    altered = [*(f'"{text}"' for text in own), *(text for text in swapped if canonical(text) == text)]
    return list(dict.fromkeys([unseen, *(text for text in altered if text not in known)]))


def _draw_categories(
    entry: dict[str, Any], strangers: Sequence[str], n_rows: int, generator: np.random.Generator
) -> list[str]:
    """Draw a text for each row: of a category one of its forms, and some strangers where the model takes them."""
    forms = [[own, *(text for text, same in entry["also"].items() if same == own)] for own in entry["categories"]]
    drawn = generator.integers(0, len(forms), n_rows).tolist()
    texts = [forms[code][row % len(forms[code])] for row, code in enumerate(drawn)]
    if entry["unseen"] == "zeros":
        for row in np.flatnonzero(generator.random(N_ROWS) < SHARE).tolist():
            texts[row] = strangers[row % len(strangers)]
    return texts


def _codes(entry: dict[str, Any], texts: Sequence[str | None]) -> list[float]:
    """Return the positions of texts among the categories as `predict` finds them, -1 for an unseen one, NaN for a
    gap."""
    from linreg.data.tables.cells import canonical  # imports pyarrow.compute

    code = codes_of(entry["categories"])
    return [np.nan if text is None else code(canonical(text)) for text in texts]
