"""Work-arounds that make a command start fast. `benchmarks/start.py` measures what each of them saves.

They change the whole process, so only the command line uses them, not `import linreg`. A work-around does nothing if a
library differs from what it expects: the command then only starts later.
"""

import gc
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from types import FunctionType
from typing import Any

COMPILER = "torch._dynamo"
QUIET = ("TORCH_CPP_LOG_LEVEL", "FATAL")  # of a process in a group: errors of torch are raised, and reported in a line


@contextmanager
def importing_torch() -> Iterator[None]:
    """Speed up the first import of torch, in the block, and the first use of its optimizers."""
    if "torch" in sys.modules:
        yield
    else:
        if "WORLD_SIZE" in os.environ:
            os.environ.setdefault(*QUIET)
        with without_collector():
            yield
    if "torch" in sys.modules and COMPILER not in sys.modules:
        skip_compiler_import()


@contextmanager
def without_collector() -> Iterator[None]:
    """Import without the garbage collector, and let it ignore the imported objects afterwards.

    The collector would visit the half a million objects of torch again and again. Without it `import torch` takes 0.78
    s instead of 1.19 s.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


def skip_compiler_import() -> None:
    """Let optimizers run without importing torch's compiler, as long as nothing else imports it.

    An optimizer imports the compiler, 800 modules, only to exclude itself from compilation. Without that, the first
    step of SGD takes 1.5 s instead of 2.9 s, with the import of torch. After an import of the compiler every call works
    as in torch.
    """
    from torch import optim

    for kind in [optim.Optimizer, *_subclasses(optim.Optimizer)]:
        for name, method in list(vars(kind).items()):
            if _is_made_by("_disable_dynamo", method):
                _fill_cache(method)
            elif _is_made_by("_use_grad_for_differentiable", method):
                setattr(kind, name, _without_compiler(method))


def _subclasses(kind: type) -> Iterator[type]:
    subclass: type
    for subclass in kind.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)


# All names in the functions that torch's two decorators return. A function with other names may do more.
_NAMES_OF = {
    "_disable_dynamo": {"getattr", "torch", "torch._dynamo", "_dynamo", "disable", "__dynamo_disable"},
    "_use_grad_for_differentiable": {
        *{"torch", "torch._dynamo", "_dynamo", "graph_break", "cast", "Optimizer"},
        *{"is_grad_enabled", "set_grad_enabled", "defaults"},
    },
}


def _is_made_by(decorator: str, method: object) -> bool:
    """Return whether this decorator of torch, in the form that is known here, returned a method."""
    return (
        isinstance(method, FunctionType)
        and isinstance(getattr(method, "__wrapped__", None), FunctionType)
        and method.__code__.co_qualname.startswith(f"{decorator}.<locals>.")
        and set(method.__code__.co_names) <= _NAMES_OF[decorator]
    )


def _fill_cache(method: Any) -> None:
    """Skip the compiler in a method with the decorator `torch._compile._disable_dynamo`.

    Its first call imports the compiler and caches the function to call from then on. Here the cache is filled first,
    with a function that empties it when the compiler is imported."""
    function = method.__wrapped__

    def uncompiled(*args: Any, **kwargs: Any) -> Any:
        if COMPILER not in sys.modules:
            return function(*args, **kwargs)
        if vars(function).get("__dynamo_disable") is uncompiled:
            del function.__dynamo_disable
        return method(*args, **kwargs)

    function.__dynamo_disable = uncompiled


def _without_compiler(method: Any) -> Callable[..., Any]:
    """Skip the compiler in a step with the decorator `torch.optim.optimizer._use_grad_for_differentiable`, which
    imports it only to mark where gradients are switched off and on."""
    import torch

    function = method.__wrapped__

    @wraps(method)
    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        if COMPILER in sys.modules:
            return method(self, *args, **kwargs)
        with torch.set_grad_enabled(self.defaults["differentiable"]):
            return function(self, *args, **kwargs)

    return step
