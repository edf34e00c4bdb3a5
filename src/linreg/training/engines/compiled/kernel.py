"""How the functions of `compiled` are compiled, and the types of their arguments.

numba notices a change of the file with an `entry`, but not of the `kernel`s in other files: after changing those,
remove the *.nbi beside `epochs`."""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

Array = NDArray[np.floating]
Order = NDArray[np.int64]
Words = NDArray[np.uint32]
Int = int | np.int64
F = TypeVar("F", bound=Callable[..., Any])

# The compiler may regroup sums, to fill vector registers, and fuse a product with a sum. NaN and infinity keep their
# meaning, without "nnan" and "ninf", because they show the caller that training diverged.
FASTMATH = {"reassoc", "contract", "nsz", "arcp"}


def kernel(function: F) -> F:
    """Let other compiled functions call a function, as a part of them. It cannot be called from Python, which makes it
    compile in three quarters of the time."""
    return _as_part(function, FASTMATH)


def exact_kernel(function: F) -> F:
    """Do the same as `kernel`, but keep sums in the written order."""
    return _as_part(function, False)


def entry(function: F) -> F:
    """Compile a function at its first call from Python, and cache the machine code beside its file or in the user's
    cache folder. If neither is writable, the code is compiled anew in each process."""
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": FASTMATH, "no_cfunc_wrapper": True}
    try:
        compiled: F = njit(cache=True, **options)(function)
    except RuntimeError:  # "cannot cache function ...: no locator available"
        compiled = njit(**options)(function)
    return compiled


def _as_part(function: F, fastmath: Any) -> F:
    options: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    compiled: F = njit(error_model="numpy", fastmath=fastmath, **options)(function)
    return compiled


@intrinsic
def prefetch(typing_context: Any, array: Any, row: Any, column: Any) -> Any:
    """Load the cache line of array[row, column] in advance, by LLVM's instruction of this name."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        struct = context.make_array(signature.args[0])(context, builder, arguments[0])
        element = cgutils.get_item_pointer(  # type: ignore[no-untyped-call]
            context, builder, signature.args[0], struct, arguments[1:]
        )
        address = builder.bitcast(element, cgutils.voidptr_t)
        number = ir.IntType(32)
        instruction = builder.module.declare_intrinsic(
            "llvm.prefetch", [address.type], ir.FunctionType(ir.VoidType(), [address.type, number, number, number])
        )
        read, keep, data = number(0), number(3), number(1)
        builder.call(instruction, [address, read, keep, data])
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp), codegen


prefetched: Any = prefetch  # the type of its calls in kernels, where numba adds the first argument
