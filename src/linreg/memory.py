"""The memory of this machine, and what asks for more than that."""

import os


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
