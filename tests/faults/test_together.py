"""Several processes at one run."""

import json
import subprocess
import sys

from tests.conftest import ROOT, times


def test_of_eight_processes_one_gets_the_run_and_readers_never_see_half_a_file():
    """In a process of its own: it forks the sessions, and must have no threads."""
    command = [sys.executable, "-m", "tests.faults.together", str(times(1, 5))]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert answer.stdout, answer.stderr
    figures = json.loads(answer.stdout)
    assert figures["wrong"] == []
    assert figures["questions"] > 10
