"""What makes a command start quickly: work-arounds for what libraries do, and import, that a command has no use for.

Each says what it saves. Each changes the process as a whole, and so is for the command line, whose process it is, and
not for those who import linreg. Where a library is not as a work-around expects it, that does nothing: all works as
before, only later.
"""

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

COMPILER = "torch._dynamo"


@contextmanager
def importing_torch() -> Iterator[None]:
    """Make what the block does quick, the first import of torch, and then the first use of its optimizers."""
    if "torch" in sys.modules:
        yield
    else:
        with uncollected():
            yield
    if "torch" in sys.modules and COMPILER not in sys.modules:
        spare_compiler()


@contextmanager
def uncollected() -> Iterator[None]:
    """Import without the garbage collector, which is to pass over what was imported ever after, too.

    Saves a quarter of `import torch`: its half a million objects would be gone through again and again as they are
    made, and once more at the end of the process, and none of them is garbage.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


def spare_compiler() -> None:
    """Let optimizers be made and used without importing torch's compiler, for as long as nothing else imports it.

    Saves more than the import of torch itself: the compiler is 800 modules, sympy among them, and all that an
    optimizer wants of it is to say "do not compile this". While it is not imported nothing is compiled, so there is
    nothing to say; from its import on, every call goes torch's own way.
    """
    from torch import optim

    for kind in [optim.Optimizer, *_subclasses(optim.Optimizer)]:
        for name, method in list(vars(kind).items()):
            if _is_made_in(method, "_disable_dynamo"):
                _fill_cache(method)
            elif _is_made_in(method, "_use_grad_for_differentiable"):
                setattr(kind, name, _without_compiler(method))


def _subclasses(kind: type) -> Iterator[type]:
    found: type
    for found in kind.__subclasses__():
        yield found
        yield from _subclasses(found)


def _is_made_in(method: Any, decorator: str) -> bool:
    """Whether a method is what one of torch's decorators made of another function, which it names."""
    code = getattr(method, "__code__", None)
    return code is not None and code.co_qualname.startswith(f"{decorator}.<locals>.") and hasattr(method, "__wrapped__")


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
