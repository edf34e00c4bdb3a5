"""Engines: the ways to run an epoch. `experiment.building` picks one by the `engine` of a spec.

`textbook` is the textbook's loop. `auto` computes the same bits in a fraction of the time; on a GPU it replays captured
steps where possible. `compiled` trains the models linear and mlp in compiled code, with results close to those bits.
"""

from collections.abc import Callable

from linreg.training.engines.compiled import make_compiled_engine
from linreg.training.engines.eager import make_auto_engine, make_textbook_engine
from linreg.training.engines.training import Engine, Training

__all__ = ["ENGINES", "Engine", "Training"]

# Keys: the values of `engine` in a spec.
ENGINES: dict[str, Callable[[Training], Engine]] = {
    "auto": make_auto_engine,
    "textbook": make_textbook_engine,
    "compiled": make_compiled_engine,
}
