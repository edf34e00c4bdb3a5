"""The memory of this machine, what asks for more than that, and what libraries keep of it."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

MMAP_THRESHOLD = -3  # M_MMAP_THRESHOLD of malloc.h


def usable_bytes() -> int:
    """Give the memory of this machine, less a tenth for all else."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * 9 // 10


def refuse_beyond_memory(n_bytes: int) -> None:
    """Refuse, in a builder's way, what cannot be in memory: better than that the system ends the process. Raises
    ValueError."""
    usable = usable_bytes()
    if n_bytes > usable:
        raise ValueError(f"needs {gigabytes(n_bytes)} of memory, more than the {gigabytes(usable)} here; ask for less")


def gigabytes(n_bytes: int) -> str:
    """Show a size: 24.9 GB."""
    return f"{n_bytes / 1e9:.3g} GB" if n_bytes < 1e12 else f"{n_bytes // 10**9:,} GB"


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error is of Python, NumPy or torch for want of memory."""
    if isinstance(error, RuntimeError):  # torch has no type of its own for it, but on a GPU
        return "allocate memory" in str(error) or "out of memory" in str(error)
    return isinstance(error, MemoryError)


def return_freed_blocks() -> None:
    """Let glibc give a large block that is freed back to the system at once. By itself it keeps, in each thread's heap,
    blocks up to the size of the largest that it has seen freed: of a large table that is read, some slices' worth.
    Costs time where blocks come and go, a seventh of a table's predictions.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library
        return
    mallopt(MMAP_THRESHOLD, 2**20)


def give_back_what_is_free() -> None:
    """Have glibc give back what is free in its heaps, and lies between what is not.

    Saves 4 MB at the peak of a large table that is kept whole, and takes less than a millisecond.
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):  # another C library
        return
    trim(0)


@contextmanager
def arrow_keeps_nothing() -> Iterator[None]:
    """Read tables with arrow's memory straight from the system, where what is freed goes back to.

    Saves 5 MB at the peak of a large table that is kept whole, which arrow's own pool keeps for the next, and costs a
    tenth of the time.
    """
    arrow = sys.modules.get("pyarrow")
    if arrow is None:
        yield
        return
    pool = arrow.default_memory_pool()
    arrow.set_memory_pool(arrow.system_memory_pool())
    try:
        yield
    finally:
        arrow.set_memory_pool(pool)
