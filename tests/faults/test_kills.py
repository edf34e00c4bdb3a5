"""A run or a sweep that is killed at any moment, and resumed, is as one that was never killed."""

import json
import subprocess
import sys

from tests.conftest import ROOT, times
from tests.faults.groups import KINDS


def figures_of(*arguments):
    """Run a program of `tests.faults` in a process of its own, where it may fork; return what it has counted."""
    command = [sys.executable, "-m", *arguments]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert answer.stdout, answer.stderr
    figures = json.loads(answer.stdout)
    assert figures["wrong"] == [], answer.stderr
    return figures


def test_kills_at_random_moments_change_no_bit():
    """`make torture` does two thousand."""
    n_kills = times(20, 60)
    figures = figures_of("tests.faults.kills", str(n_kills), "1")
    assert figures["kills"] == n_kills
    assert figures["in saves"] >= n_kills // 12


def test_signals_at_random_moments_change_no_result_of_a_sweep():
    """`make torture` sends more than 200."""
    n_kills, n_stops = times(3, 7), times(2, 3)
    figures = figures_of("tests.faults.sweeps", "--kills", str(n_kills), "--stops", str(n_stops), "--seed", "1")
    assert figures["kills"] + figures["stops"] == n_kills + n_stops


def test_signals_to_groups_change_no_bit():
    """Groups of one to three processes finish the run. `make torture` sends five hundred."""
    figures = figures_of("tests.faults.groups", "40", "1")
    counts = [figures[kind] for kind in KINDS]
    assert sum(counts) >= 40
    assert min(counts) >= 2
