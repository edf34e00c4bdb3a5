"""A run that is killed at any moment, and gone on with, is as one that was never killed."""

import json
import subprocess
import sys

from tests.conftest import ROOT


def test_sixty_kills_at_random_moments_change_no_bit():
    """In a process of its own: it forks the sessions, and must have no threads. `make torture` does two thousand."""
    command = [sys.executable, "-m", "tests.faults.kills", "60", "1"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert answer.stdout, answer.stderr
    figures = json.loads(answer.stdout)
    assert figures["wrong"] == [], answer.stderr
    assert figures["kills"] == 60
    assert figures["in saves"] >= 5
