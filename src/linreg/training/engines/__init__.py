"""Engines: how an epoch is run.

`textbook` is the text's loop; `auto` gives the same bits in a fraction of the time, on a GPU by replays where it can;
`compiled` trains a linear model in compiled code, near those bits.
"""

from collections.abc import Callable

from linreg.training.engines.compiled import make_compiled_engine
from linreg.training.engines.eager import make_auto_engine, make_textbook_engine
from linreg.training.engines.training import Engine, Training

__all__ = ["ENGINES", "Engine", "Training"]

# By the name that a spec gives it.
ENGINES: dict[str, Callable[[Training], Engine]] = {
    "auto": make_auto_engine,
    "textbook": make_textbook_engine,
    "compiled": make_compiled_engine,
}
