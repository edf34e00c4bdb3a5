"""The record of a session in run.json: command, time, commit, environment."""

import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from linreg.system.version import __version__

if TYPE_CHECKING:
    import torch


def new_session(device: "torch.device", engine: str, from_epoch: int, origin: str | None) -> dict[str, Any]:
    """Return the record of a session that starts now, for run.json."""
    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "from_epoch": from_epoch,
        "from_checkpoint": origin,
        "started": now(),
        "ended": None,
        "outcome": None,
        "device": str(device),
        "engine": engine,
        "git_commit": _git_commit(),
        "environment": environment(device),
    }


def environment(device: "torch.device") -> dict[str, Any]:
    """Return the versions and hardware that the exactness of a resumed run depends on."""
    import numpy as np
    import torch  # here: `linreg runs` does not need it

    return {
        "linreg": __version__,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
    }


def now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _git_commit() -> str | None:
    """Return the commit of the working directory, with `+` if files differ from it; None outside a repository."""
    if not any((parent / ".git").exists() for parent in [Path.cwd(), *Path.cwd().parents]):
        return None
    try:
        git = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"]
        described = subprocess.run(git, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip()
