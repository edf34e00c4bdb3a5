"""The columns that the transforms of a spec derive, as a part of the preprocessing."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import nn

from linreg.components.transforms import Derived, Learnt
from linreg.errors import SpecError, suggest

REMEDY = "fix it, or use another transform"

Values = Callable[[], Iterator[torch.Tensor]]


class UnfitRowError(Exception):
    """A row whose values a transform does not take. row: its position in the inputs; piece: the number of the piece."""

    def __init__(self, row: int, problem: str, piece: int = 0) -> None:
        super().__init__(problem)
        self.row, self.piece = row, piece


@dataclass(frozen=True)
class ColumnInfo:
    """A column of the inputs of the network. feature: the feature that it comes from, if it is a date or one of its
    categories; kind: `number`, `date` or `indicator`; group: of indicators that add to 1, an index or -1; reference:
    whether it is redundant beside an intercept, as the first indicator of a group."""

    name: str
    feature: str = ""
    kind: str = "number"
    group: int = -1
    reference: bool = False


@dataclass(frozen=True)
class TransformSpec:
    """A transform of a spec. columns: the names it applies to; where: its place in the spec."""

    derived: Derived
    columns: Sequence[str]
    where: str


class Piece(nn.Module):
    """Columns that are derived from some columns. sources: their positions; the buffers are what was learnt."""

    def __init__(self, derived: Derived, sources: Sequence[int], learnt: Learnt) -> None:
        super().__init__()
        self.derived, self.sources = derived, list(sources)
        self.learnt = list(learnt)
        for name, value in learnt.items():
            self.register_buffer(name, value)

    def names(self, columns: Sequence[ColumnInfo]) -> list[str]:
        """Return the names of the derived columns."""
        return list(self.derived.names(*(columns[source].name for source in self.sources), **self._values()))

    def given(self, x: torch.Tensor) -> torch.Tensor:
        """Return the columns that it derives from (N, n_sources)."""
        first, *others = self.sources
        return x[:, self.sources] if others else x[:, first : first + 1]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Derive columns (N, n_derived) from all columns (N, n_columns)."""
        derived: torch.Tensor = self.derived.apply(self.given(x), **self._values())
        return derived

    def _values(self) -> Learnt:
        return {name: getattr(self, name) for name in self.learnt}


class Step(nn.ModuleList):
    """A transform of a spec, with a piece for each column, or group of columns, that it applies to."""

    def __init__(self, pieces: Sequence[Piece], n_columns: int) -> None:
        super().__init__(pieces)
        self.pieces = tuple(pieces)
        self.segments = list(_segments(pieces, n_columns))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the columns after the transform. Raises UnfitRowError for a result that is not finite."""
        derived = []
        for number, piece in enumerate(self.pieces):
            derived.append(piece(x))
            if not torch.isfinite(derived[-1]).all():
                row = int(torch.nonzero(~torch.isfinite(derived[-1]).all(dim=1))[0, 0])
                raise UnfitRowError(row, "not finite", number)
        parts = (derived[part] if isinstance(part, int) else x[:, part] for part in self.segments)
        return torch.cat(list(parts), dim=1)

    def after(self, columns: Sequence[ColumnInfo]) -> list[ColumnInfo]:
        """Describe the columns after the transform."""
        after: list[ColumnInfo] = []
        n_groups = max((column.group for column in columns), default=-1) + 1
        for part in self.segments:
            if isinstance(part, slice):
                after += columns[part]
                continue
            piece = self.pieces[part]
            is_group = piece.derived.indicators
            is_redundant = any(columns[source].reference for source in piece.sources)
            kind, group = ("indicator", n_groups) if is_group else ("number", -1)
            for place, name in enumerate(piece.names(columns)):
                after.append(ColumnInfo(name, "", kind, group, is_redundant or (is_group and place == 0)))
            n_groups += is_group
        return after


class Transforms(nn.ModuleList):
    """The transforms of a spec, in order: maps columns (N, n_columns), without gaps and with categories one-hot, to
    those of the network. before: the columns before the first transform."""

    def __init__(self, before: Sequence[ColumnInfo]) -> None:
        super().__init__()
        self.before = list(before)
        self.steps: list[Step] = []

    def add(
        self,
        spec: TransformSpec,
        values: Values | None,
        saved: Mapping[str, torch.Tensor],
        join: Callable[[Iterator[torch.Tensor]], torch.Tensor] = lambda blocks: torch.cat(list(blocks)),
    ) -> None:
        """Add a transform after the others.

        values: returns the columns before the first transform, of the training part, block by block, to learn from;
        None takes what was learnt from saved, which has the names of this module's state. join: puts blocks together,
        also those of other processes. Raises SpecError for columns that do not fit.
        """
        columns = self.columns
        pieces: list[Piece] = []
        first = None if values is None else next(values(), None)
        sample = None if first is None else self(first[:2])
        for sources in _sources(spec, columns):
            piece = Piece(spec.derived, sources, {})
            if values is None:
                prefix = f"{len(self)}.{len(pieces)}."
                learnt = {name.removeprefix(prefix): v for name, v in saved.items() if name.startswith(prefix)}
            elif spec.derived.learn is not None:
                training = join(piece.given(self(block)) for block in values())
                try:
                    learnt = spec.derived.learn(training)
                except ValueError as error:
                    listed = ", ".join(repr(columns[source].name) for source in sources)
                    raise SpecError([f"{spec.where}: column {listed} {error}"]) from None
            else:
                learnt = {}
            pieces.append(Piece(spec.derived, sources, learnt))
            if sample is not None:
                _refuse_shape(pieces[-1], columns, sample, spec.where)
        self.steps.append(Step(pieces, len(columns)))
        self.append(self.steps[-1])
        names = [column.name for column in self.columns]
        if again := [name for name in names if names.count(name) > 1]:
            raise SpecError([f"{spec.where}: makes a second column {again[0]!r}; remove one of them"])

    @property
    def columns(self) -> list[ColumnInfo]:
        """The columns after the last transform."""
        return self._columns(len(self))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the columns of the network. Raises UnfitRowError for a result that is not finite."""
        for number, step in enumerate(self.steps):
            try:
                x = step(x)
            except UnfitRowError as error:
                piece, columns = step.pieces[error.piece], self._columns(number)
                given = ", ".join(f"{value:g}" for value in piece.given(x)[error.row].tolist())
                listed = ", ".join(repr(columns[source].name) for source in piece.sources)
                made, needs = piece.names(columns)[0], piece.derived.needs
                raise UnfitRowError(
                    error.row, f"column {listed}: {made} needs {needs}, got {given}; {REMEDY}"
                ) from None
        return x

    def _columns(self, n_steps: int) -> list[ColumnInfo]:
        columns = self.before
        for step in self.steps[:n_steps]:
            columns = step.after(columns)
        return columns


def _segments(pieces: Sequence[Piece], n_columns: int) -> Iterator[slice | int]:
    """Yield the columns after a transform: columns that stay, or the number of a piece.

    Columns that are derived from one column take its place, or follow it if it stays; other ones come last."""
    alone = {piece.sources[0]: number for number, piece in enumerate(pieces) if not piece.derived.joint}
    first = 0
    for position in sorted(alone):
        end = position + pieces[alone[position]].derived.keep
        if end > first:
            yield slice(first, end)
        yield alone[position]
        first = position + 1
    if n_columns > first:
        yield slice(first, n_columns)
    yield from (number for number, piece in enumerate(pieces) if piece.derived.joint)


def _sources(spec: TransformSpec, columns: Sequence[ColumnInfo]) -> list[Sequence[int]]:
    """Return the positions of the columns of each piece of a transform. A category stands for each of its columns.
    Raises SpecError."""
    chosen: list[list[int]] = []
    for name in spec.columns:
        matching = [i for i, column in enumerate(columns) if column.name == name]
        matching = matching or [i for i, column in enumerate(columns) if name and column.feature == name]
        if not matching:
            raise SpecError([f"{spec.where}: no column {name!r}; {suggest(name, _known(columns))}"])
        kinds = {columns[i].kind for i in matching}
        if spec.derived.takes == "numbers" and "indicator" in kinds:
            raise SpecError([f"{spec.where}: column {name!r} is a category, and the transform takes numbers"])
        if spec.derived.takes == "dates" and kinds != {"date"}:
            raise SpecError([f"{spec.where}: column {name!r} is not a date; add it to dates of data.source"])
        chosen.append(matching)
    duplicates = [name for name in spec.columns if list(spec.columns).count(name) > 1]
    if duplicates and not spec.derived.joint:
        raise SpecError([f"{spec.where}: duplicate column {duplicates[0]!r}; remove one"])
    if spec.derived.joint:
        return list(product(*chosen))
    return [[source] for sources in chosen for source in sources]


def _refuse_shape(piece: Piece, columns: Sequence[ColumnInfo], x: torch.Tensor, where: str) -> None:
    """Raise a SpecError for a transform that fails, or does not derive a column for each of its names."""
    try:
        names, derived = piece.names(columns), piece(x)
        got = f"{tuple(derived.shape)} of {derived.dtype}"
        fits = derived.shape == (len(x), len(names)) and derived.dtype == torch.float64
    except Exception as error:  # a plugin's code may raise anything
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise SpecError([f"{where}: fails: {reason}; fix the transform"]) from error
    if not fits:
        wanted = f"({len(x)}, {len(names)}) of torch.float64"
        raise SpecError([f"{where}: returns {got} for {len(names)} names, not {wanted}; fix the transform"])


def _known(columns: Sequence[ColumnInfo]) -> list[str]:
    return list(dict.fromkeys(column.feature or column.name for column in columns))
