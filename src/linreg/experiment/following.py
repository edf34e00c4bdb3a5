"""`follow`: the work of a process that is not the first of its group. It computes its shards, and writes nothing."""

from collections.abc import Callable
from typing import Any

from linreg.experiment.building import build
from linreg.experiment.group import open_exchange
from linreg.experiment.session import run_epochs
from linreg.experiment.solving import follow_solution
from linreg.experiment.state import restore
from linreg.experiment.stopping import StopRequested, stopping_together
from linreg.runs.folders import FINISHED
from linreg.spec.schema import ExperimentSpec, spec_from_dict


def follow(spec: ExperimentSpec | None, stop: Callable[[], bool] = lambda: False) -> str:
    """Train the shards of this process until the first process has trained; return the outcome.

    spec: what the first process is expected to train; None if that is not known.
    stop: returns whether this process was asked to stop, which stops all. Raises the errors of `train`, and
    GroupError."""
    if spec is not None and spec.solver == "exact":
        follow_solution(spec)
        return "finished"
    exchange = open_exchange(spec)
    exchange.form(listen=stop)  # from the first call on, a signal stops between steps
    plain, planned_epochs = exchange.follow()
    experiment = build(spec_from_dict(plain, "the first process"), planned_epochs=planned_epochs, exchange=exchange)
    saved = exchange.follow()
    progress = restore(experiment, saved)
    nothing: Any = _Nothing()
    if progress.outcome not in FINISHED:
        run_epochs(experiment, progress, nothing, nothing, None, exchange.agreed(stop))
    if progress.outcome in FINISHED:  # a signal ends what the first process still does
        exchange.relay_stop(stop)
    try:
        with stopping_together(exchange):
            exchange.wait_for_first()
    except StopRequested:
        return "interrupted"
    return progress.outcome


class _Nothing:
    """The writer and the saver of a process that writes nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args, **kwargs: None
