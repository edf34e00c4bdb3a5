"""Time a training step of linreg's engines and of comparable tools, each in its own process, on one thread."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from benchmarks.peers import (
    AUTO,
    COMPILED,
    IGNITE,
    JAX_SCAN,
    KERAS_JAX,
    KERAS_TORCH,
    LIGHTNING,
    LINEAR_REGRESSION,
    MLP_REGRESSOR,
    OWN_TEXTBOOK,
    PEERS,
    SGD_REGRESSOR,
    SKORCH,
    TEXTBOOK,
    WORKLOADS,
)
from benchmarks.rows import ROOT, Row, compare, in_turn, reason, table

ONE_THREAD = {
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"),
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "JAX_PLATFORMS": "cpu",
    "CUDA_VISIBLE_DEVICES": "",
}

# Seconds a step, or why there are none, of each tool: by workload, then by tool.
Times = dict[str, dict[str, float | str]]

_OWN: dict[str, Mapping[str, float | None]] = {OWN_TEXTBOOK: {TEXTBOOK: None}}
_FRAMEWORKS = {LIGHTNING: 1.0, SKORCH: 1.0, IGNITE: 1.0, KERAS_TORCH: 1.0, KERAS_JAX: 1.0}
_COMPILED_ALIKE = {JAX_SCAN: 1.0, SGD_REGRESSOR: 1.0}

# The comparisons, and the smallest allowed speed-up; 1: at least as fast; None: only reported. Every tool is in
# it with every workload that it takes.
COMPARED: dict[str, dict[str, Mapping[str, float | None]]] = {
    "short_1x16": {
        **_OWN,
        AUTO: {TEXTBOOK: 8.0, **_FRAMEWORKS, JAX_SCAN: None},
        COMPILED: {TEXTBOOK: None, **_COMPILED_ALIKE},
    },
    "linear_1x16": {
        **_OWN,
        AUTO: {TEXTBOOK: 8.0, **_FRAMEWORKS, JAX_SCAN: None},
        COMPILED: {TEXTBOOK: None, **_COMPILED_ALIKE},
    },
    "linear_10x32": {
        **_OWN,
        AUTO: {TEXTBOOK: 8.0, **_FRAMEWORKS, JAX_SCAN: None},
        COMPILED: {TEXTBOOK: None, **_COMPILED_ALIKE},
    },
    "mlp_10x32": {
        **_OWN,
        AUTO: {TEXTBOOK: 2.0, **_FRAMEWORKS, MLP_REGRESSOR: None, JAX_SCAN: None},
        COMPILED: {TEXTBOOK: 30.0, MLP_REGRESSOR: None, JAX_SCAN: 1.5},
    },
    "mlp_20x128": {COMPILED: {TEXTBOOK: None, JAX_SCAN: 1.2}},
    "many_1x16": {COMPILED: {TEXTBOOK: None, SGD_REGRESSOR: None}},
    "many_10x32": {COMPILED: {TEXTBOOK: None, SGD_REGRESSOR: None}},
    "million_20x32": {
        AUTO: {TEXTBOOK: 8.0},
        COMPILED: {TEXTBOOK: 100.0, SGD_REGRESSOR: 2.0, JAX_SCAN: 1.0, LINEAR_REGRESSION: None},
    },
}


@dataclass(frozen=True)
class Running:
    """A tool's process, and the file that its stderr goes to."""

    process: subprocess.Popen[str]
    complaints: IO[str]


class PeerError(Exception):
    """A tool's process ended: not installed, or broken. Says which."""


@contextmanager
def open_peer(name: str, folder: Path) -> Iterator[Running]:
    """Start a tool's process, and end it in the end. folder: where tools may keep settings and caches."""
    env = {**os.environ, **ONE_THREAD, **PEERS[name].env, "KERAS_HOME": str(folder)}
    with tempfile.TemporaryFile("w+") as complaints:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.peers", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            cwd=ROOT,
            env=env,
            text=True,
        )
        try:
            yield Running(process, complaints)
        finally:
            process.kill()
            process.communicate()


def ask(peer: Running, workload: str) -> float:
    """Have a tool train a workload; seconds a step. A tool that ends instead of answering is a PeerError."""
    assert peer.process.stdin is not None
    assert peer.process.stdout is not None
    try:
        peer.process.stdin.write(f"{workload}\n")
        peer.process.stdin.flush()
        answer = peer.process.stdout.readline()
    except BrokenPipeError:
        answer = ""
    if answer:
        return float(answer)
    peer.process.wait()
    peer.complaints.seek(0)
    raise PeerError(reason(peer.complaints.read()))


def time_steps(runs: int) -> Times:
    """Time every tool on every workload that it takes, in turn, after a warm-up; medians of `runs` rounds."""
    times: Times = {workload: {} for workload in WORKLOADS}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        peers = {name: stack.enter_context(open_peer(name, folder)) for name in PEERS}
        for workload, times_of in times.items():
            functions = {}
            for name, peer in peers.items():
                if workload in PEERS[name].workloads:
                    print(f"steps: {workload}: {name}", file=sys.stderr)
                    try:
                        ask(peer, workload)
                        functions[name] = partial(ask, peer, workload)
                    except PeerError as error:
                        times_of[name] = str(error)
            print(f"steps: {workload}: {runs} rounds", file=sys.stderr)
            times_of.update(in_turn(functions, runs, warm_up=0))
    return times


def title(workload: str, engine: str) -> str:
    """Name the rows of an engine of linreg."""
    return f"{WORKLOADS[workload].title}; {engine.removeprefix('linreg, ')}"


def cases() -> Iterator[tuple[str, str, str, float | None]]:
    """Yield workload, engine, tool and target of each comparison."""
    for workload, engines in COMPARED.items():
        for engine, references in engines.items():
            for reference, target in references.items():
                yield workload, engine, reference, target


def compare_steps(times: Times) -> list[Row]:
    """Return a row for each comparison, with the reason if it was not timed."""
    rows = []
    for workload, engine, reference, target in cases():
        values = [times[workload].get(name, "not timed") for name in (engine, reference)]
        seconds = [value if isinstance(value, float) else None for value in values]
        note = "; ".join(value for value in values if isinstance(value, str))
        rows.append(compare(title(workload, engine), reference, *seconds, target=target, better="higher", note=note))
    return rows


def microseconds(rows: Iterable[Row]) -> dict[str, dict[str, float]]:
    """Return the times of a step, from the rows of `compare_steps`, in microseconds: by tool, then by workload."""
    found: dict[str, dict[str, float]] = {name: {} for name in PEERS}
    by_names = {(row.name, row.reference): row for row in rows}
    for workload, engine, reference, _ in cases():
        if row := by_names.get((title(workload, engine), reference)):
            for tool, seconds in ((engine, row.seconds), (reference, row.reference_seconds)):
                if seconds is not None:
                    found[tool][workload] = seconds * 1e6
    return {tool: times for tool, times in found.items() if times}


def measure(runs: int) -> list[Row]:
    """Measure the steps."""
    return compare_steps(time_steps(runs))


if __name__ == "__main__":
    print(table({"steps": measure(int(sys.argv[1]) if len(sys.argv) > 1 else 5)}))
