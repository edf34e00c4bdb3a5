"""`linreg sweep` and `linreg cv`."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from linreg.cli import options as o
from linreg.cli.launching import is_restarted, launch
from linreg.cli.loading import load_plugins
from linreg.cli.progress import open_count
from linreg.cli.signals import StopFlag, stop_on_signals
from linreg.cli.text import (
    format_count,
    format_duration,
    format_interval,
    format_table,
    format_value,
    print_json,
    print_stderr,
    print_stdout,
    setting_cell,
    show_log,
)
from linreg.errors import SpecError, UsageError
from linreg.system.place import place
from linreg.system.startup import importing_torch

if TYPE_CHECKING:
    from linreg.experiment.sweeps.cross_validation import CrossValidation
    from linreg.experiment.sweeps.ranking import Ranked
    from linreg.experiment.sweeps.sweeping import SweepResult
    from linreg.spec.sweeps import Sweep

MOST_SHOWN = 20  # trials in the ranking

Varied = Annotated[
    list[str] | None,
    o.argument("KEY=V1,V2", "Keys of the spec to vary, as optimizer.lr=0.01,0.1 or KEY={min: 1e-4, max: 0.1}."),
]


@dataclass(frozen=True)
class ManyOptions:
    """The options that `sweep` and `cv` share."""

    epochs: o.Epochs = None
    name: o.Name = None
    runs: o.Runs = o.RUNS
    checkpoints: o.Checkpoints = o.CHECKPOINTS
    json: o.Json = False
    quiet: o.Quiet = False
    plugin: o.Plugin = None

    def load(self, spec: Path, overrides: list[str] | None, **keys: object) -> "Sweep":
        """Load a spec with its sweep block, after the plugins that it may need. keys: of the block."""
        from linreg.spec.sweeps import load_sweep

        load_plugins(self.plugin)
        changes = {**{f"sweep.{key}": value for key, value in keys.items()}, "epochs": self.epochs, "name": self.name}
        return load_sweep(spec, o.add_overrides(overrides, **changes))

    @property
    def folders(self) -> dict[str, Any]:
        """The arguments with the folders, for the training."""
        return {"runs": self.runs, "checkpoints": self.checkpoints}

    @contextmanager
    def running(self) -> Iterator[tuple[StopFlag, dict[str, Any]]]:
        """Open the log, the signals and the progress. Yield the flag, and the arguments for the training."""
        show_log(quiet=self.quiet)
        with stop_on_signals() as stop, _open_progress(quiet=self.quiet) as progress:
            yield stop, {**self.folders, "progress": progress, "stop": stop}


def sweep(
    context: typer.Context,
    spec: o.Spec,
    options: ManyOptions,
    overrides: Varied = None,
    trials: Annotated[int | None, o.option("--trials", "N", "Number of trials to draw.")] = None,
    seeds: Annotated[int | None, o.option("--seeds", "N", "Trainings of each trial, with N seeds.")] = None,
    folds: Annotated[int | None, o.option("--folds", "K", "Compare trials by cross-validation.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume this spec's last sweep if it was interrupted, else start.")
    ] = False,
    processes: o.Processes = None,
) -> None:
    """Train many models of one spec, and rank them; print the checkpoint of the winner's run."""
    loaded = options.load(spec, overrides, trials=trials, seeds=seeds, folds=folds)
    if not loaded.sweep.parameters:
        raise SpecError([f"{spec}: nothing varies; add a key with values, as optimizer.lr=0.01,0.1, or use linreg cv"])

    if processes is not None:
        raise typer.Exit(launch(context.obj, processes))

    with importing_torch():
        from linreg.experiment.sweeps.group import follow_sweep
        from linreg.experiment.sweeps.sweeping import first_trials, sweep

    if not place().is_first:
        show_log(quiet=True)
        with stop_on_signals() as stop:
            if follow_sweep(loaded, first_trials(loaded), stop=stop, **options.folders) == "interrupted":
                raise typer.Exit(stop.exit_code)
        return
    with options.running() as (stop, arguments):
        result = sweep(loaded, resume=resume or is_restarted(), **arguments)
    if not options.quiet:
        print_stderr("\n".join(_summary(result)))
    if options.json:
        print_json(_plain(result))
    elif result.checkpoint is not None:
        print_stdout(result.checkpoint)
    if result.outcome == "interrupted":
        print_stderr("interrupted; to continue, run the same command with --resume")
        raise typer.Exit(stop.exit_code)


def cv(
    context: typer.Context,
    spec: o.Spec,
    options: ManyOptions,
    overrides: o.Overrides = None,
    folds: Annotated[int, typer.Option("--folds", metavar="K", help="Number of folds.")] = 5,
    leave_one_out: Annotated[
        bool, typer.Option("--leave-one-out", help="Leave out each row by itself; needs solver: exact.")
    ] = False,
    repeats: Annotated[
        int, typer.Option("--repeats", metavar="R", help="How often to divide the rows into folds.")
    ] = 1,
    output: Annotated[Path | None, o.option("--output", "FILE.csv", "Where to write the predictions.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume this spec's last cross-validation if it was interrupted.")
    ] = False,
    processes: o.Processes = None,
) -> None:
    """Cross-validate a spec; print the metrics of each fold, their mean and standard deviation."""
    division = {} if leave_one_out else {"folds": folds, "repeats": repeats}
    loaded = options.load(spec, overrides, **division)
    if loaded.sweep.parameters:
        raise SpecError([f"{spec}: sweep.parameters: cv trains one model; use linreg sweep --folds {folds}"])
    if leave_one_out and (processes is not None or place().size > 1):
        raise UsageError("--leave-one-out: solves once, by one process; remove --processes")
    if processes is not None:
        raise typer.Exit(launch(context.obj, processes))

    with importing_torch():
        from linreg.experiment.sweeps.cross_validation import (
            cross_validate,
            follow_cross_validation,
            leave_each_out,
        )

    if not place().is_first:
        show_log(quiet=True)
        with stop_on_signals() as stop:
            if follow_cross_validation(loaded, stop=stop, **options.folders) == "interrupted":
                raise typer.Exit(stop.exit_code)
        return
    with options.running() as (stop, arguments):
        if leave_one_out:
            result = leave_each_out(loaded, runs=options.runs, checkpoints=options.checkpoints, output=output)
        else:
            result = cross_validate(loaded, output=output, resume=resume or is_restarted(), **arguments)
    if result.outcome == "interrupted":
        print_stderr("interrupted; to continue, run the same command with --resume")
        raise typer.Exit(stop.exit_code)
    if options.json:
        print_json(asdict(result))
        return
    print_stdout(format_table(*_folds_table(result)))
    if not options.quiet:
        print_stderr(f"predictions for each row, by the model that was trained without it: {result.predictions}")


@contextmanager
def _open_progress(*, quiet: bool) -> Iterator[Any]:
    with open_count("model {}", quiet=quiet) as show:
        if show is None:
            yield None
            return

        yield lambda n_done, n_models, text: show(n_done, n_models, lambda: text)


def _folds_table(result: "CrossValidation") -> tuple[list[dict[str, Any]], list[str]]:
    metrics = [name for name in ("loss", "val_loss", "rmse", "mae", "r2") if name in result.mean]
    columns = ["fold", "n_val", *metrics]
    rows: list[dict[str, Any]] = [{**fold, "fold": str(fold["fold"])} for fold in result.folds]
    if len(rows) > 1:
        rows.append({"fold": "mean", **result.mean})
    if result.sd:
        rows.append({"fold": "sd", **result.sd})
    return rows, columns


def _summary(result: "SweepResult") -> list[str]:
    """Describe a sweep: the ranking, and what the winner's number is worth."""
    ranking = [one for one in result.ranking if one.is_reached]
    lines = [format_table(*_ranking_table(result, ranking[:MOST_SHOWN]))] if ranking else []
    if len(ranking) > MOST_SHOWN:
        lines.append(f"and {len(ranking) - MOST_SHOWN} more")
    how = {"stack": "in stacks", "alone": "one by one", "exact": "solved exactly"}
    models = ", ".join(f"{number} {how[name]}" for name, number in sorted(result.models.items()) if name in how)
    n_done, trials = sum(result.models.values()), format_count(result.n_trials, "trial")
    of = f" of {result.n_models:,}" if n_done < result.n_models else ""
    trained = f"{n_done:,}{of} models of {trials} in {format_duration(result.seconds)}"
    lines.append(f"{trained}{': ' * bool(models)}{models}")
    if result.winners:
        winner = next(one for one in result.ranking if one.trial == result.winners[0])
        on = "its folds" if any(fold is not None for _, fold in winner.scores) else "the validation part"
        lines.append(
            f"winner: trial {winner.trial}, {result.metric} {format_value(winner.mean)} on {on}: "
            f"the best of {result.n_trials}, so optimistic"
        )
    if result.test is not None:
        for target, metrics in result.test.metrics.items():
            values = ", ".join(f"{name} {format_value(value)}" for name, value in metrics.items())
            lines.append(f"{target} on the test part, measured once: {values}")
    return lines


def _ranking_table(result: "SweepResult", shown: Sequence["Ranked"]) -> tuple[list[dict[str, Any]], list[str]]:
    """Return rows and columns for some trials, without what is the same for all trials of the sweep."""
    several = any(one.sd is not None for one in shown)
    rows = [_ranking_row(number, one, result.metric) for number, one in enumerate(shown, start=1)]
    parameters = [key for key in shown[0].parameters if len({repr(one.parameters[key]) for one in result.ranking}) > 1]
    differs = ["sd", "difference", "95 % interval"] if several else []
    has_bad = any(one.mean is None for one in shown)
    sizes = ["epochs"] if len({one.epochs for one in shown}) > 1 else []
    return rows, ["rank", "trial", *parameters, result.metric, *differs, *sizes, *(["outcome"] if has_bad else [])]


def _ranking_row(number: int, one: "Ranked", metric: str) -> dict[str, Any]:
    return {
        "rank": number if one.mean is not None else None,
        "trial": one.trial,
        **{key: setting_cell(value) for key, value in one.parameters.items()},
        metric: one.mean,
        "sd": one.sd,
        "difference": one.gap,
        "95 % interval": format_interval(one.interval),
        "epochs": one.epochs,
        "outcome": one.outcome,
    }


def _plain(result: "SweepResult") -> dict[str, Any]:
    """Return a result for JSON, which has no pairs as keys."""
    plain = asdict(result)
    plain["test"] = None if result.test is None else result.test.described()
    for one, ranked in zip(plain["ranking"], result.ranking, strict=True):
        one["scores"] = [{"seed": seed, "fold": fold, "score": score} for (seed, fold), score in ranked.scores.items()]
    return plain
