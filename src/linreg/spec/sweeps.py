"""Sweeps: `load_sweep` reads a spec with its sweep block, from the file and from `KEY=V1,V2` on the command line.

`make_trials` makes the spec of every trial, and reports every problem of every trial at once. With `method: tpe` these
are the first trials; `trials_of` makes those that are drawn later. No torch is imported here.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from linreg.errors import SpecError, show
from linreg.spec.document import MOST_PROBLEMS, Document, varied_values, write_yaml
from linreg.spec.messages import explain
from linreg.spec.parts import Part
from linreg.spec.schema import ExperimentSpec, check_spec, read_spec
from linreg.spec.sweep_block import MOST_TRIALS, SweepSpec, Values

MOST_ENDS = 1000  # combinations of the ends of ranges that are checked

Points = Sequence[Sequence[float]]  # a row for each trial, in [0, 1)


class _WithSweep(Part):
    sweep: SweepSpec


@dataclass(frozen=True)
class Trial:
    """A trial: its number, the values of its parameters, and its spec."""

    number: int
    parameters: dict[str, Any]
    spec: ExperimentSpec


@dataclass(frozen=True)
class Sweep:
    """A checked sweep block, and the rest of the spec, which is checked with the values of each trial."""

    sweep: SweepSpec
    document: Document

    def to_yaml(self) -> str:
        """Return the spec with its block as YAML; `linreg sweep` on it repeats the sweep."""
        block = {key: value for key, value in self.sweep.model_dump(exclude_none=True).items() if value != {}}
        return write_yaml({**self.document.value, "sweep": block})


def load_sweep(path: str | Path, overrides: Sequence[str] = ()) -> Sweep:
    """Read a spec and its sweep block, after `KEY=VALUE` overrides; several values, or a range, make a parameter.

    Raises SpecError with every problem of the block; those of the rest are reported by `make_trials`."""
    document = read_spec(path)
    if not isinstance(document.value, dict):
        check_spec(document)  # reports it
    problems: list[str] = []
    for override in overrides:
        try:
            varied = varied_values(override)
            if varied is None:
                document.override(override)
            else:
                _add_parameter(document, override, varied)
        except SpecError as error:
            problems += error.problems
    if problems:
        raise SpecError(problems)
    block = document.value.pop("sweep", None)
    block = {} if block is None else block
    try:
        sweep = _WithSweep.model_validate({"sweep": block}).sweep
    except ValidationError as error:
        wrapped = Document(document.file, {"sweep": block}, document.places, document.key_places)
        raise SpecError(explain(error, wrapped, _WithSweep)) from None
    return Sweep(sweep, document)


def _add_parameter(document: Document, override: str, varied: Any) -> None:
    key = override.partition("=")[0]
    block = document.value.get("sweep")
    if block is None:
        block = document.value["sweep"] = {}
    if not isinstance(block, dict) or not isinstance(block.setdefault("parameters", {}), dict):
        return  # the check of the block reports it
    block["parameters"][key] = varied
    for path in (("sweep",), ("sweep", "parameters"), ("sweep", "parameters", key)):
        document.places.setdefault(path, f"override {override!r}")


def make_trials(sweep: Sweep, draw: Callable[[SweepSpec, int], Points]) -> list[Trial]:
    """Make the trials that do not depend on results, and check their specs.

    draw: returns points for a number of trials. If others are drawn later, the ends of each range and every value are
    checked, too. Raises SpecError with every problem of every trial, once each.
    """
    settings = sweep.sweep
    if settings.grows:
        trials_of(sweep, _ends(settings))
    return trials_of(sweep, _combinations(settings, draw))


def trials_of(sweep: Sweep, combinations: Iterable[dict[str, Any]], first: int = 0) -> list[Trial]:
    """Return a trial for each combination of parameters, numbered from `first`. Raises SpecError with every problem of
    every trial, once each."""
    settings, document = sweep.sweep, sweep.document
    trials: list[Trial] = []
    problems: dict[str, int] = {}
    for parameters in combinations:
        own = Document(
            document.file, _with(document.value, parameters), dict(document.places), dict(document.key_places)
        )
        for key, value in parameters.items():
            path = tuple(key.split("."))
            place = document.where(("sweep", "parameters", key))
            own.places[path] = own.key_places[path] = f"{place}: {key}={show(value)}"
        try:
            spec = check_spec(own)
            if settings.folds is not None or settings.seeds > 1:
                member_spec(spec, settings, 0, 0 if settings.folds else None)
            trials.append(Trial(first + len(trials), parameters, spec))
        except SpecError as error:
            for problem in error.problems:
                problems.setdefault(problem, len(trials))
    if problems:
        listed = list(problems)
        more = [f"{document.file}: and {len(listed) - MOST_PROBLEMS} more"] if len(listed) > MOST_PROBLEMS else []
        raise SpecError(listed[:MOST_PROBLEMS] + more)
    return trials


def _combinations(settings: SweepSpec, draw: Callable[[SweepSpec, int], Points]) -> Iterator[dict[str, Any]]:
    """Yield the parameters of each trial; of equal ones only the first."""
    names = list(settings.parameters)
    if settings.is_grid:
        values = [item.values for item in settings.parameters.values() if isinstance(item, Values)]
        n_trials = math.prod(map(len, values))
        if n_trials > MOST_TRIALS:
            raise SpecError([f"sweep: {n_trials:,} combinations, must be <= {MOST_TRIALS:,}; use method: random"])
        yield from distinct(dict(zip(names, combination, strict=True)) for combination in product(*values))
        return
    assert settings.n_first is not None
    points = draw(settings, 10 * settings.n_first)
    yield from islice(distinct(_parameters_at(settings, point) for point in points), settings.n_first)


def _parameters_at(settings: SweepSpec, point: Sequence[float]) -> dict[str, Any]:
    """Return the parameters for a point in [0, 1)."""
    items = zip(settings.parameters.items(), point, strict=True)
    return {name: item.value(coordinate) for (name, item), coordinate in items}


def distinct(
    combinations: Iterable[dict[str, Any]], known: Iterable[Mapping[str, Any]] = ()
) -> Iterator[dict[str, Any]]:
    """Yield the parameters that differ from those before them, and from known ones."""
    seen = set(map(repr, known))
    for parameters in combinations:
        if repr(parameters) not in seen:
            seen.add(repr(parameters))
            yield parameters


def _ends(settings: SweepSpec) -> Iterator[dict[str, Any]]:
    """Yield the combinations of the ends of ranges and of values; of many, each end beside the first of the others."""
    ends = {name: item.ends for name, item in settings.parameters.items()}
    if math.prod(map(len, ends.values())) <= MOST_ENDS:
        yield from (dict(zip(ends, combination, strict=True)) for combination in product(*ends.values()))
        return
    first = {name: some[0] for name, some in ends.items()}
    yield from ({**first, name: end} for name, some in ends.items() for end in some)


def _with(value: Any, parameters: Mapping[str, Any]) -> Any:
    """Return a copy of a spec with other values of dotted keys."""
    changed = _copied(value)
    for key, item in parameters.items():
        *parents, last = key.split(".")
        target = changed
        for parent in parents:
            inner = target.get(parent)
            target[parent] = target = inner if isinstance(inner, dict) else {}
        target[last] = _copied(item)
    return changed


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


def member_spec(spec: ExperimentSpec, settings: SweepSpec, seed: int, fold: int | None) -> ExperimentSpec:
    """Return the spec of one training of a trial: an ordinary spec.

    seed: added to the seed; fold: with folds, the number of the training, which has the fold `fold % folds` of the
    repeat `fold // folds`. Raises SpecError.
    """
    changes: dict[str, Any] = {"seed": spec.seed + seed} if seed else {}
    if fold is not None and settings.folds is not None:
        repeat, number = divmod(fold, settings.folds)
        split = spec.data.split
        if split.val is not None or split.folds is not None:
            key = "val" if split.val is not None else "folds"
            raise SpecError(
                [f"{spec.where('data', 'split', key)}: the sweep divides the rows into folds; remove {key}"]
            )
        changes["data"] = spec.data.model_copy(
            update={
                "split": split.model_copy(update={"folds": settings.folds, "fold": number, "seed": split.seed + repeat})
            }
        )
    return spec.model_copy(update=changes) if changes else spec
