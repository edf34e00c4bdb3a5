"""The memory of this machine, and what asks for more than that."""

import os


def physical_bytes() -> int:
    """Give the memory that this machine has."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def refuse_beyond_memory(n_bytes: int) -> None:
    """Refuse, in a builder's way, what cannot be in memory: better than that the system ends the process. Raises
    ValueError."""
    if n_bytes > physical_bytes():
        raise ValueError(
            f"needs {gigabytes(n_bytes)}, and this machine has {gigabytes(physical_bytes())}; ask for less"
        )


def gigabytes(n_bytes: int) -> str:
    """Show a size: 24.9 GB."""
    return f"{n_bytes / 1e9:.3g} GB" if n_bytes < 1e12 else f"{n_bytes // 10**9:,} GB"


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error is of Python, NumPy or torch for want of memory."""
    if isinstance(error, RuntimeError):  # torch has no type of its own for it, but on a GPU
        return "allocate memory" in str(error) or "out of memory" in str(error)
    return isinstance(error, MemoryError)
