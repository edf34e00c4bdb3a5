"""Whether more processes make a spec faster: the time of a step against that of its exchange."""

import time
from itertools import islice
from typing import Any

from linreg.experiment.building import Experiment
from linreg.experiment.network import count_parameters
from linreg.training.loops import mini_batch

# of a gather and a broadcast between two processes over loopback, by gloo; see docs/processes.md
SECONDS_AN_EXCHANGE = 0.25e-3
SECONDS_A_PARAMETER = 4e-9
WORTHWHILE = 5.0  # a step takes this many exchanges, so that two processes take at most 0.7 of the time
N_STEPS = 5  # of which the fastest counts


def estimate(experiment: Experiment) -> dict[str, Any]:
    """Time some steps of the textbook; return its seconds, those of an exchange, and the smallest batch for
    which two processes pay, in the keys of `check`."""
    step = min(_seconds_of_step(experiment) for _ in range(N_STEPS))
    exchange = SECONDS_AN_EXCHANGE + SECONDS_A_PARAMETER * count_parameters(experiment.network)
    size = experiment.loaders.train.batch_size or 1
    return {
        "step_seconds": step,
        "exchange_seconds": exchange,
        "worthwhile_batch_size": None if step >= WORTHWHILE * exchange else round(size * WORTHWHILE * exchange / step),
    }


def _seconds_of_step(experiment: Experiment) -> float:
    begin = time.perf_counter()
    mini_batch(experiment.device, islice(experiment.loaders.train, 1), experiment.train_step_fn)
    return time.perf_counter() - begin
