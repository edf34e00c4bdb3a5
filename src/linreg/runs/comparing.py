"""Compares runs, and cross-validations fold by fold: `linreg runs compare`."""

import contextlib
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from linreg.errors import SpecError, UsageError
from linreg.runs.folders import existing
from linreg.runs.listing import plain, summary
from linreg.runs.pairs import paired_difference, score_of
from linreg.runs.records import first_session, open_regular, read_info, read_metrics, read_results
from linreg.spec.document import MAX_BYTES, Document, flatten, read_yaml
from linreg.spec.schema import REGISTRIES, check_spec

OF_FOLDS = ("data.split.", "sweep.folds", "sweep.repeats")  # settings that decide which rows a fold has


@dataclass(frozen=True)
class Compared:
    """A run in a comparison. epochs: that are done; loss, val_loss: of the model that is the result, which is the best
    epoch with early stopping; settings: those that differ from another run, None where they are not set.

    For a cross-validation: n_folds, and the means over the folds, also of rmse; None if a fold is missing. sd: of the
    metric of the comparison; difference: the mean paired difference to the first one, with its interval."""

    run: str
    outcome: str
    epochs: int
    loss: float | None
    val_loss: float | None
    rmse: float | None
    n_folds: int | None
    sd: float | None
    difference: float | None
    interval: tuple[float, float] | None
    started: str | None
    checkpoint: str | None
    settings: dict[str, Any]


@dataclass(frozen=True)
class Comparison:
    """A comparison of runs, the best first. metric: of the comparison; settings: the dotted keys in which specs
    differ; notes: the limits of the comparison."""

    metric: str
    settings: list[str]
    runs: list[Compared]
    notes: list[str]


@dataclass(frozen=True)
class _Source:
    """The files of a run. spec: with dotted keys; folds: the results of a cross-validation, by fold."""

    folder: Path
    info: dict[str, Any]
    spec: dict[str, Any]
    folds: dict[int, list[dict[str, Any]]]

    @property
    def stops_early(self) -> bool:
        return any(key.startswith("early_stopping.") for key in self.spec)


def compare(names: Sequence[str], runs: Path, checkpoints: Path) -> Comparison:
    """Compare runs: their results, and the settings in which their specs differ.

    Raises UsageError for an unknown run, for a sweep, and for less than two runs, and SpecError for a wrong spec.yaml.
    """
    names = list(dict.fromkeys(names))
    if len(names) < 2:
        raise UsageError(f"runs compare: got one run, {names[0]}; name two or more, linreg runs lists them")
    folders = [existing(name, runs) for name in names]
    _refuse_sweeps(folders)
    sources = [_read(folder) for folder in folders]
    settings = _differing([source.spec for source in sources])
    all_have_folds = all(source.folds for source in sources)
    metric = "rmse" if all_have_folds and any(key.startswith("loss.") for key in settings) else "val_loss"
    reasons = _different_rows(sources, settings)
    scores = {source.folder.name: _scores(source, metric) for source in sources}
    rows = [_row(source, scores[source.folder.name], settings, checkpoints) for source in sources]
    rows.sort(key=lambda row: _in_order(row.rmse) if metric == "rmse" else _in_order(row.val_loss, row.loss))
    if all_have_folds and not reasons:
        rows = [rows[0], *(_with_difference(row, scores, rows[0].run) for row in rows[1:])]
    return Comparison(metric, settings, rows, list(_notes(sources, reasons, settings)))


def _refuse_sweeps(folders: Iterable[Path]) -> None:
    """Raise a UsageError that lists the runs of the winners."""
    problems = []
    for folder in folders:
        info = read_info(folder)
        if first_session(info).get("engine") == "sweep":
            winners = info.get("winners")
            listed = ", ".join(str(plain(name)) for name in winners) if isinstance(winners, list) else ""
            none = "it has no winner; linreg sweep SPEC --resume continues an interrupted one"
            hint = f"name the runs of its winners: {listed}" if listed else none
            problems.append(f"{folder}: a sweep, not a run; {hint}")
    if problems:
        raise UsageError(*problems)


def _read(folder: Path) -> _Source:
    info, spec = read_info(folder), _read_spec(folder / "spec.yaml")
    folds: dict[int, list[dict[str, Any]]] = {}
    if first_session(info).get("engine") == "cv":
        for line in read_results(folder):
            if isinstance(fold := line.get("fold"), int):
                folds.setdefault(fold, []).append(line)
    return _Source(folder, info, spec, folds)


def _read_spec(path: Path) -> dict[str, Any]:
    """Return a spec with dotted keys; empty without the file. That of a cross-validation is resolved."""
    if not path.is_file():
        return {}
    with open_regular(path) as file:
        value = read_yaml(file.read(MAX_BYTES + 1), str(path)).value
    if not isinstance(value, dict):
        return {}
    if isinstance(block := value.pop("sweep", None), dict):
        with contextlib.suppress(SpecError):  # of a component of a plugin: compare what the file says
            value = check_spec(Document(str(path), value)).to_dict()
        value["sweep"] = {key: block[key] for key in ("folds", "repeats", "seeds") if key in block}
    return flatten(value)


def _differing(specs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the keys in which specs differ. Without the name, and without params that have their defaults wherever
    they are, if the components differ: the name of a component implies them."""
    keys = dict.fromkeys(key for spec in specs for key in spec if key != "name")
    differing = [key for key in keys if any(spec.get(key) != specs[0].get(key) for spec in specs)]
    return [key for key in differing if not _is_implied(key, specs)]


def _is_implied(key: str, specs: Sequence[Mapping[str, Any]]) -> bool:
    owner, _, param = key.rpartition(".")
    registry = REGISTRIES.get(owner.rpartition(".")[2])
    if registry is None or len({str(spec.get(f"{owner}.name")) for spec in specs}) < 2:
        return False
    defaults = {one.name: one.params[param][1] for one in registry if param in one.params}
    return all(spec[key] == defaults.get(str(spec.get(f"{owner}.name")), ...) for spec in specs if key in spec)


def _different_rows(sources: Sequence[_Source], settings: Iterable[str]) -> list[str]:
    """Return why the validation parts or folds do not have the same rows; nothing if they have."""
    found = [key for key in settings if key.startswith(OF_FOLDS)]
    prints = [
        dict(part.partition("=")[::2] for part in str(one.info.get("data_fingerprint")).split()) for one in sources
    ]
    same = all(one.get(key) == prints[0].get(key) for one in prints for key in ("rows", "y", "weight"))
    return found if same else [*found, "rows or targets of the data"]


def _scores(source: _Source, metric: str) -> dict[int, float]:
    """Return the score of each fold, the mean over its seeds; empty if one of them is missing."""
    values = {fold: [_number(score_of(line, metric)) for line in lines] for fold, lines in source.folds.items()}
    wanted = [source.spec.get(f"sweep.{key}", 1) for key in ("folds", "repeats", "seeds")]
    n_values = sum(len(of_fold) for of_fold in values.values())
    if not all(isinstance(number, int) for number in wanted) or n_values != math.prod(wanted):
        return {}
    whole = {fold: [value for value in of_fold if value is not None] for fold, of_fold in values.items()}
    return {} if whole != values else {fold: float(np.mean(of_fold)) for fold, of_fold in whole.items()}


def _number(value: Any) -> float | None:
    """Return a finite number; None for anything else."""
    is_number = isinstance(value, int | float) and abs(value) <= sys.float_info.max
    return float(value) if is_number else None


def _row(source: _Source, scores: Mapping[int, float], settings: Sequence[str], checkpoints: Path) -> Compared:
    """Describe a run. scores: of its folds, of the metric of the comparison."""
    found = summary(source.folder, checkpoints)
    losses, rmse, epochs = _losses(source.folder, stops_early=source.stops_early), None, found["epochs"]
    if source.folds:
        names = ("best_loss" if source.stops_early else "loss", "val_loss", "rmse")
        means = [_mean(_scores(source, name)) for name in names]
        losses, rmse = (means[0], means[1]), means[2]
        lines = [line for of_fold in source.folds.values() for line in of_fold]
        epochs = int(max(_number(line.get("epochs")) or 0 for line in lines))
    return Compared(
        run=found["run"],
        outcome=str(found["outcome"]),
        epochs=epochs,
        loss=losses[0],
        val_loss=losses[1],
        rmse=rmse,
        n_folds=len(source.folds) or None,
        sd=float(np.std(list(scores.values()), ddof=1)) if len(scores) > 1 else None,
        difference=None,
        interval=None,
        started=found["started"],
        checkpoint=found["checkpoint"],
        settings={key: _plain_deep(source.spec.get(key)) for key in settings},
    )


def _losses(folder: Path, *, stops_early: bool) -> tuple[float | None, float | None]:
    """Return loss and val_loss of the epoch whose model is the result of a run."""
    records = [(_number(record.get("loss")), _number(record.get("val_loss"))) for record in read_metrics(folder)]
    if stops_early:
        return min(records, key=lambda losses: _in_order(losses[1], losses[0]), default=(None, None))
    return records[-1] if records else (None, None)


def _mean(scores: Mapping[int, float]) -> float | None:
    return float(np.mean(list(scores.values()))) if scores else None


def _in_order(*values: float | None) -> tuple[bool, float]:
    """Return a key that sorts by the first value that is known; last if none is."""
    known = [value for value in values if value is not None]
    return (False, known[0]) if known else (True, 0.0)


def _with_difference(row: Compared, scores: Mapping[str, Mapping[int, float]], first: str) -> Compared:
    """Add the paired difference to the first cross-validation."""
    found = paired_difference(scores[row.run], scores[first])
    return row if found is None else replace(row, difference=found.mean, interval=found.interval)


def _notes(sources: Sequence[_Source], reasons: Sequence[str], settings: Iterable[str]) -> Iterator[str]:
    """Yield the limits of the comparison."""
    losses = [key for key in settings if key.startswith("loss.")]
    if empty := [source.folder.name for source in sources if "sweep.seeds" in source.spec and not source.folds]:
        yield f"no results of folds: {', '.join(empty)}"
    names = [source.folder.name for source in sources if source.folds]
    if len(names) == len(sources):
        if reasons:
            yield f"the folds differ ({', '.join(reasons)}), so no paired differences are shown"
        if losses:
            yield f"the loss functions differ ({', '.join(losses)}), so rmse is compared"
        return
    if names:
        yield f"cross-validations, with means over their folds: {', '.join(names)}"
    elif reasons:
        yield f"the validation parts differ ({', '.join(reasons)}), so the losses are of different rows"
    if losses:
        yield f"the loss functions differ ({', '.join(losses)}); linreg evaluate measures rmse, mae and r2"


def _plain_deep(value: Any) -> Any:
    """Return a value of a spec for JSON, which has no infinite numbers."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain_deep(item) for key, item in value.items()}
    return [_plain_deep(item) for item in value] if isinstance(value, list) else plain(value)
