"""The method `tpe`: draws trials by Optuna near those with good results.

`next_trials` builds Optuna's study anew from the results, in memory, with a seed for each round of trials. So a resumed
sweep draws the trials of an uninterrupted one, and nothing of Optuna is saved.
"""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from linreg.errors import SpecError
from linreg.experiment.sweeps.ranking import cost_of, rank
from linreg.spec.sweep_block import Range, SweepSpec, Values
from linreg.spec.sweeps import Sweep, Trial, distinct, trials_of

if TYPE_CHECKING:
    import optuna

log = logging.getLogger("linreg")

LEAST_OF_A_ROUND = 8
SHARE_OF_A_ROUND = 0.25  # of the trials before it


def require_optuna(spec: Sweep) -> None:
    """Raise SpecError if Optuna cannot be imported."""
    try:
        import optuna  # noqa: F401  # of the extra optuna
    except ImportError as error:
        where = f"{spec.document.where(('sweep', 'method'))}: sweep.method: tpe needs Optuna, got {str(error)!r}"
        raise SpecError([f"{where}; pip install 'linreg[optuna]', or use method: random"]) from None


def versions_for(settings: SweepSpec) -> dict[str, str]:
    """Return the version of Optuna, on which the trials depend; nothing for another method."""
    return {"optuna": version("optuna")} if settings.grows else {}


def next_trials(spec: Sweep, trials: Sequence[Trial], lines: Sequence[Mapping[str, Any]]) -> list[Trial]:
    """Return the next round of trials, which are new; none after the last round, and with another method.

    lines: the results of all trainings of `trials`. A trial that diverged or failed counts as worse than all others. A
    combination of values that is no valid spec is left out.
    """
    settings, new = spec.sweep, list[Trial]()
    if not settings.grows or settings.trials is None or len(trials) >= settings.trials:
        return new
    n_new = min(max(LEAST_OF_A_ROUND, int(SHARE_OF_A_ROUND * len(trials))), settings.trials - len(trials))
    seed = int(np.random.SeedSequence([settings.seed, len(trials)]).generate_state(1)[0])
    costs = {one.trial: cost_of(one, settings.metric) for one in rank(trials, lines, settings)}
    asked = _asked(settings, trials, [costs[trial.number] for trial in trials], seed, 10 * n_new)
    for parameters in distinct(asked, (trial.parameters for trial in trials)):
        try:
            new += trials_of(spec, [parameters], len(trials) + len(new))
        except SpecError as error:
            log.warning("a drawn trial is left out: %s", error.problems[0])
        if len(new) == n_new:
            break
    return new


def _asked(
    settings: SweepSpec, trials: Sequence[Trial], costs: Sequence[float], seed: int, n_asked: int
) -> Iterator[dict[str, Any]]:
    """Yield the parameters that Optuna suggests after trials and their costs, each away from those before it."""
    from optuna.trial import create_trial

    study = _new_study(seed)
    items = settings.parameters
    distributions = {name: _distribution(item) for name, item in items.items()}
    for trial, cost in zip(trials, costs, strict=True):
        numbers = {name: _number(items[name], value) for name, value in trial.parameters.items()}
        study.add_trial(create_trial(params=numbers, distributions=distributions, value=cost))
    for _ in range(n_asked):
        suggested = study.ask(distributions).params
        yield {name: _value(item, suggested[name]) for name, item in items.items()}


def _new_study(seed: int) -> "optuna.Study":
    """Return an empty study, which minimizes. The parameters are drawn together, and trials that have no result yet
    repel others."""
    import optuna

    with _quiet():
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=0, multivariate=True, constant_liar=True)
        return optuna.create_study(sampler=sampler)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Optuna from reporting a new study, and versions before 5 from warning of the sampler's options."""
    import optuna

    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(level)


def _distribution(item: Range | Values) -> "optuna.distributions.BaseDistribution":
    """Return the distribution of a parameter; values are categories, by their positions."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(item, Values):
        return CategoricalDistribution(range(len(item.values)))
    return (IntDistribution if item.is_whole else FloatDistribution)(item.min, item.max, log=item.log)


def _number(item: Range | Values, value: Any) -> float | int:
    """Return a value of a parameter as a number of its distribution."""
    number: float | int = list(map(repr, item.values)).index(repr(value)) if isinstance(item, Values) else value
    return number


def _value(item: Range | Values, number: float | int) -> Any:
    """Return the value of a parameter for a number of its distribution."""
    return item.values[int(number)] if isinstance(item, Values) else item.rounded(number)
