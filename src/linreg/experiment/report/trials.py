"""The reports of a sweep and of a cross-validation: ranking, failures, and spread over folds and seeds."""

import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from linreg.errors import StorageError, brief
from linreg.experiment.report import charts
from linreg.experiment.report.page import Block, Cell, Charts, Code, Page, Section, Table, Tile, is_number, number
from linreg.experiment.sweeps.ranking import Ranked, rank, winners
from linreg.experiment.sweeps.records import read_trials, results_of
from linreg.experiment.sweeps.sweeping import draw
from linreg.runs.records import RESULTS, read_info
from linreg.spec.sweep_block import Range, SweepSpec
from linreg.spec.sweeps import load_sweep, make_trials

MOST_TRIALS, MOST_FAILED = 100, 50  # in tables
MOST_LINES = 200  # in parallel coordinates
MOST_SPREAD = 15  # rows of a chart
MOST_AXES = 8
FAILED = ("diverged", "failed")
METRICS = ("loss", "val_loss", "rmse", "mae", "r2")


def report_sweep(folder: Path) -> Page:
    """Describe a sweep. Raises StorageError if its files are damaged, and SpecError."""
    settings, ranking = _ranking(folder)
    info = read_info(folder)
    best = winners(ranking, settings)
    scored = [one for one in ranking if one.mean is not None]
    failed = [one for one in ranking if one.outcome in FAILED]
    sections = []
    if len(scored) > 1 and settings.parameters:
        sections.append(Section("Parameters and results", list(_parallel(scored, best, settings))))
    if scored and len(scored[0].scores) > 1:
        sections.append(Section("Spread over folds and seeds", list(_spread(scored, settings))))
    sections.append(Section("Ranking", list(_table(ranking, best, settings))))
    if failed:
        sections.append(Section("Failures", list(_failures(failed))))
    names = info.get("winners")
    runs = [str(name) for name in names] if isinstance(names, list) else []
    sections.append(Section("Commands", list(_commands(folder, runs))))
    tiles = [
        Tile("Trials", f"{len(ranking):,}", f"{len(failed):,} diverged or failed" if failed else "none failed"),
        Tile("Trainings of a trial", f"{settings.n_trainings:,}", _trainings(settings)),
        Tile("Best " + settings.metric, number(best[0].mean) if best and best[0].mean is not None else "–"),
    ]
    subtitle = f"sweep over {', '.join(settings.parameters)}; {info.get('outcome', 'interrupted')}"
    return Page(folder.name, subtitle, list(_verdict(best, scored, settings)), tiles, sections, _notes(scored, ranking))


def _ranking(folder: Path) -> tuple[SweepSpec, list[Ranked]]:
    spec = load_sweep(folder / "spec.yaml")
    trials = read_trials(spec, folder, make_trials(spec, draw))
    try:
        return spec.sweep, rank(trials, results_of(folder / RESULTS), spec.sweep)
    except (KeyError, TypeError, ValueError):
        raise StorageError(f"{folder / RESULTS}: damaged; run the sweep again") from None


def _trainings(settings: SweepSpec) -> str:
    folds = f"{settings.folds} folds" if settings.folds else ""
    seeds = f"{settings.seeds} seeds" if settings.seeds > 1 else ""
    return ", ".join(filter(None, [folds, seeds])) or "one split, one seed"


def _verdict(best: Sequence[Ranked], scored: Sequence[Ranked], settings: SweepSpec) -> Iterator[str]:
    if not best or best[0].mean is None:
        yield "No trial has a result."
        return
    first = best[0]
    values = ", ".join(f"{key} = {brief(value)}" for key, value in first.parameters.items())
    yield f"Trial {first.trial} wins with {settings.metric} {number(first.mean or 0.0)}: {values}."
    near = [one for one in scored if one.interval is not None and one.interval[0] <= 0 <= one.interval[1]]
    if near:
        yield (
            f"{len(near)} other {'trials are' if len(near) > 1 else 'trial is'} not clearly worse: the 95 % interval "
            "of the difference to the first has 0 inside."
        )


def _notes(scored: Sequence[Ranked], ranking: Sequence[Ranked]) -> list[str]:
    notes = []
    if len(scored) > 1:
        notes.append(f"The score of the winner is the best of {len(scored):,}, so it is optimistic.")
    if any(not one.is_reached for one in ranking):
        notes.append("The sweep was interrupted: linreg sweep SPEC --resume continues it.")
    return notes


def _table(ranking: Sequence[Ranked], best: Sequence[Ranked], settings: SweepSpec) -> Iterator[Block]:
    several = settings.n_trainings > 1
    header = ["rank", "trial", *settings.parameters, settings.metric]
    header += ["sd", "difference", "95 % interval"] if several else []
    header += ["epochs", "parameters", "outcome"]
    rows: list[list[Cell]] = []
    for position, one in enumerate(ranking[:MOST_TRIALS]):
        cells: list[Cell] = [position + 1, one.trial, *map(brief, one.parameters.values()), one.mean]
        if several:
            interval = None if one.interval is None else " to ".join(number(end) for end in one.interval)
            cells += [one.sd, one.gap, interval]
        rows.append([*cells, one.epochs, one.n_parameters, one.outcome.replace("_", " ")])
    chosen = {one.trial for one in best}
    marked = frozenset(i for i, one in enumerate(ranking[:MOST_TRIALS]) if one.trial in chosen)
    yield Table(header, rows, marked=marked, is_sortable=True)
    if len(ranking) > MOST_TRIALS:
        yield f"{len(ranking) - MOST_TRIALS:,} more trials, with worse results or none, are in trials.jsonl."


def _numbers_or_texts(values: Sequence[Any]) -> list[Any]:
    return [value if _is_number(value) else brief(value) for value in values]


def _parallel(scored: Sequence[Ranked], best: Sequence[Ranked], settings: SweepSpec) -> Iterator[Block]:
    shown = scored[:MOST_LINES]
    keys = [key for key in settings.parameters if len({repr(one.parameters[key]) for one in shown}) > 1][:MOST_AXES]
    if not keys:
        yield "All trials have the same parameters."
        return
    axes = []
    for key in keys:
        parameter = settings.parameters[key]
        values = _numbers_or_texts([one.parameters[key] for one in shown])
        if isinstance(parameter, Range):
            axes.append(charts.coordinate(key, values, is_log=parameter.log))
        else:
            axes.append(charts.coordinate(key, values, order=list(map(brief, parameter.values))))
    axes.append(charts.coordinate(settings.metric, [one.mean for one in shown]))
    n_best = max(1, len(shown) // 10)
    order = range(len(shown) - 1, -1, -1)
    yield Charts(
        [charts.parallel(axes, order, frozenset(range(n_best)), title="Parameters of each trial, with its score")]
    )
    more = f", the best {MOST_LINES} of {len(scored)}" if len(scored) > MOST_LINES else ""
    yield (
        f"A line is a trial{more}; the best {n_best} are blue."
        if n_best > 1
        else "A line is a trial; the best is blue."
    )


def _spread(scored: Sequence[Ranked], settings: SweepSpec) -> Iterator[Block]:
    rows = [(f"trial {one.trial}", np.array(list(one.scores.values()))) for one in scored[:MOST_SPREAD]]
    yield Charts(
        [charts.spread(rows, x_label=settings.metric, title="Scores of the best trials in each fold and seed")]
    )


def _failures(failed: Sequence[Ranked]) -> Iterator[Block]:
    rows: list[list[Cell]] = [
        [one.trial, one.outcome, one.reason, *map(brief, one.parameters.values())] for one in failed[:MOST_FAILED]
    ]
    yield Table(["trial", "outcome", "reason", *failed[0].parameters], rows, is_sortable=True)
    if len(failed) > MOST_FAILED:
        yield f"{len(failed) - MOST_FAILED:,} more are not listed."


def _commands(folder: Path, runs: Sequence[str]) -> Iterator[Block]:
    yield "To repeat the sweep, and to look at its winners:"
    spec = shlex.quote(str(folder / "spec.yaml"))
    yield Code([f"linreg sweep {spec}", *(f"linreg report {name}" for name in runs[:5])])


def report_folds(folder: Path) -> Page:
    """Describe a cross-validation."""
    lines = results_of(folder / RESULTS)
    info = read_info(folder)
    names = [name for name in METRICS if lines and all(_is_number(line.get(name)) for line in lines)]
    values = {name: np.array([line[name] for line in lines], dtype=np.float64) for name in names}
    sections = []
    if lines:
        sections.append(Section("Folds", list(_folds(lines, values))))
    bad = [line for line in lines if line.get("outcome") in FAILED]
    if bad:
        rows: list[list[Cell]] = [
            [_text(line.get(key)) for key in ("fold", "seed", "outcome", "reason")] for line in bad
        ]
        sections.append(Section("Failures", [Table(["fold", "seed", "outcome", "reason"], rows)]))
    sections.append(Section("Commands", [Code([f"linreg cv {shlex.quote(str(folder / 'spec.yaml'))}"])]))
    verdict = []
    if "rmse" in values:
        rmse = values["rmse"]
        sd = f", standard deviation {number(float(rmse.std(ddof=1)), 3)}" if len(rmse) > 1 else ""
        verdict.append(
            f"Over {len(rmse)} trainings the mean RMSE on the rows left out is {number(float(rmse.mean()), 3)}{sd}."
        )
    subtitle = f"cross-validation; {info.get('outcome', 'interrupted')}"
    return Page(folder.name, subtitle, verdict, [], sections)


def _folds(lines: Sequence[Mapping[str, Any]], values: Mapping[str, Any]) -> Iterator[Block]:
    rows: list[list[Cell]] = [
        [_text(line.get("fold")), _text(line.get("seed")), *(line[name] for name in values)] for line in lines
    ]
    if len(lines) > 1:
        rows.append(["mean", "", *(float(of_all.mean()) for of_all in values.values())])
        rows.append(["sd", "", *(float(of_all.std(ddof=1)) for of_all in values.values())])
    yield Table(["fold", "seed", *values], rows)
    if "rmse" in values and len(lines) > 1:
        seeds = list(dict.fromkeys(str(line.get("seed")) for line in lines))
        of_seeds = [
            (f"seed {seed}", np.array([line["rmse"] for line in lines if str(line.get("seed")) == seed]))
            for seed in seeds[:MOST_SPREAD]
        ]
        yield Charts([charts.spread(of_seeds, x_label="RMSE of each fold", title="RMSE of the folds")])


def _is_number(value: Any) -> bool:
    return is_number(value) and math.isfinite(value)


def _text(value: Any) -> Cell:
    return None if value is None else value if _is_number(value) else brief(value)
