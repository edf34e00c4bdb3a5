"""What makes a command start quickly: work-arounds for what libraries do, and import, that a command has no use for.

Each says what it saves, and `benchmarks/start.py` measures how much time that is. Each changes the process as a whole,
and so is for the command line, whose process it is, and not for those who import linreg. Where a library is not as a
work-around expects it, that does nothing: all works as before, only later.
"""

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from types import FunctionType
from typing import Any

COMPILER = "torch._dynamo"


@contextmanager
def importing_torch() -> Iterator[None]:
    """Make what the block does quick, the first import of torch, and then the first use of its optimizers."""
    if "torch" in sys.modules:
        yield
    else:
        with without_collector():
            yield
    if "torch" in sys.modules and COMPILER not in sys.modules:
        skip_compiler_import()


@contextmanager
def without_collector() -> Iterator[None]:
    """Import without the garbage collector, which is to pass over what was imported ever after, too.

    Saves that the collector goes through the half a million objects of torch again and again as they are made, and once
    more at the end of the process; none of them is garbage.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


def skip_last_collection() -> None:
    """Let the process end without a last search for garbage in what goes anyway."""
    gc.freeze()


def skip_compiler_import() -> None:
    """Let optimizers be made and used without importing torch's compiler, for as long as nothing else imports it.

    Saves the import of 800 modules, sympy's among them, of which all that an optimizer wants is to say "do not compile
    this". While the compiler is not imported nothing is compiled, so there is nothing to say; from its import on, every
    call goes torch's own way.
    """
    from torch import optim

    for kind in [optim.Optimizer, *_subclasses(optim.Optimizer)]:
        for name, method in list(vars(kind).items()):
            if _is_made_by("_disable_dynamo", method):
                _fill_cache(method)
            elif _is_made_by("_use_grad_for_differentiable", method):
                setattr(kind, name, _without_compiler(method))


def _subclasses(kind: type) -> Iterator[type]:
    found: type
    for found in kind.__subclasses__():
        yield found
        yield from _subclasses(found)


# All that the functions which torch's two decorators make speak of: one that speaks of more may do more.
_SPEAK_OF = {
    "_disable_dynamo": {"getattr", "torch", "torch._dynamo", "_dynamo", "disable", "__dynamo_disable"},
    "_use_grad_for_differentiable": {
        *{"torch", "torch._dynamo", "_dynamo", "graph_break", "cast", "Optimizer"},
        *{"is_grad_enabled", "set_grad_enabled", "defaults"},
    },
}


def _is_made_by(decorator: str, method: object) -> bool:
    """Whether a method is what that decorator of torch, as it is known here, made of another function."""
    return (
        isinstance(method, FunctionType)
        and isinstance(getattr(method, "__wrapped__", None), FunctionType)
        and method.__code__.co_qualname.startswith(f"{decorator}.<locals>.")
        and set(method.__code__.co_names) <= _SPEAK_OF[decorator]
    )


def _fill_cache(method: Any) -> None:
    """Spare what `torch._compile._disable_dynamo` has decorated. At its first call that imports the compiler and
    caches what to call from then on; here the cache is filled beforehand, with what empties it in time."""
    function = method.__wrapped__

    def uncompiled(*args: Any, **kwargs: Any) -> Any:
        if COMPILER not in sys.modules:
            return function(*args, **kwargs)
        if vars(function).get("__dynamo_disable") is uncompiled:
            del function.__dynamo_disable
        return method(*args, **kwargs)

    function.__dynamo_disable = uncompiled


def _without_compiler(method: Any) -> Callable[..., Any]:
    """Spare what `torch.optim.optimizer._use_grad_for_differentiable` has decorated: the step of an optimizer. It
    imports the compiler to mark, for it alone, where gradients are switched off and on again."""
    import torch

    function = method.__wrapped__

    @wraps(method)
    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        if COMPILER in sys.modules:
            return method(self, *args, **kwargs)
        with torch.set_grad_enabled(self.defaults["differentiable"]):
            return function(self, *args, **kwargs)

    return step
