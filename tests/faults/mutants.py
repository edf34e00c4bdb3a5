"""Negative controls: twenty mutants of our own code, each of which the suite must notice.

`python -m tests.faults.mutants [NAME ...]` applies each to a copy of the source tree, runs the tests that ought to notice
it there, and says which one did. First the same tests must pass on a copy without a mutant.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.conftest import ROOT

AT_ONCE = 2
SECONDS = 120  # the most that the tests of a mutant may take


@dataclass(frozen=True)
class Mutant:
    """One mistake: in a file under src/linreg the text that occurs once, what is put in its place, and the test that
    ought to notice."""

    name: str
    file: str
    text: str
    instead: str
    test: str


MUTANTS = (
    Mutant(
        "the loaders' generator is not restored",
        "experiment/state.py",
        "experiment.loaders.generator.set_state(saved.loader_state)",
        "pass",
        "tests/experiment/test_resume.py::test_a_stop_at_any_step_resumes_exactly[5]",
    ),
    Mutant(
        "a global generator is not restored",
        "system/generators.py",
        "    random.setstate(",
        "    repr(",
        "tests/experiment/test_resume.py::test_a_model_that_draws_from_every_generator_resumes_exactly[10]",
    ),
    Mutant(
        "the generators are not rewound to where validation began",
        "experiment/state.py",
        "**(progress.generators or generators.states(experiment.device))",
        "**generators.states(experiment.device)",
        "tests/experiment/test_resume.py::test_a_model_that_draws_from_every_generator_resumes_exactly[10]",
    ),
    Mutant(
        "the optimizer is not loaded",
        "experiment/state.py",
        "experiment.optimizer.load_state_dict(copy_of(saved.optimizer_state_dict))",
        "pass",
        "tests/experiment/test_resume.py::test_every_optimizer_resumes_exactly[sgd]",
    ),
    Mutant(
        "best is not restored",
        "experiment/state.py",
        "best=saved.best,",
        "best=None,",
        "tests/experiment/test_resume.py::test_early_stopping_continues_counting",
    ),
    Mutant(
        "a model's state is loaded that has not all its parts",
        "experiment/state.py",
        "strict=True)\n        experiment.model.train()",
        "strict=False)\n        experiment.model.train()",
        "tests/checkpoint/test_hostile_checkpoints.py::test_a_plugins_model_refuses_the_state_of_another_model",
    ),
    Mutant(
        "patience is not replayed",
        "experiment/session.py",
        "        if patience:\n            patience.runs_out(record.monitored)\n",
        "        if patience:\n            pass\n",
        "tests/experiment/test_resume.py::test_early_stopping_continues_counting",
    ),
    Mutant(
        "other data is taken for the same",
        "experiment/resuming.py",
        "is_other = saved.data_fingerprint != experiment.data.fingerprint",
        "is_other = False",
        "tests/experiment/test_resume.py::test_other_data_is_refused",
    ),
    Mutant(
        "old checkpoints are removed though the new one does not read back",
        "experiment/saving.py",
        "if old and self.run.last.read_bytes() != content:",
        "if False:",
        "tests/experiment/test_resume.py::test_no_old_checkpoint_is_removed_if_the_new_one_does_not_read_back",
    ),
    Mutant(
        "the position in an epoch is off by one",
        "training/loops.py",
        "islice(data_loader, len(mini_batch_losses), None)",
        "islice(data_loader, len(mini_batch_losses) + 1, None)",
        "tests/experiment/test_resume.py::test_every_engine_resumes_exactly[textbook-sgd]",
    ),
    Mutant(
        "a pass draws one number less than DataLoader",
        "data/loaders.py",
        "draw_seed(self.generator, self._place)  # DataLoader draws a seed for workers",
        "pass",
        "tests/training/test_engines.py::test_batches_from_tensors_are_those_of_dataloader",
    ),
    Mutant(
        "what was written beyond the checkpoint is kept for an epoch too many",
        "runs/writer.py",
        "if event.step < epochs",
        "if event.step <= epochs",
        "tests/experiment/test_resume.py::test_epochs_written_after_the_checkpoint_are_not_duplicated",
    ),
    Mutant(
        "a file is not synced",
        "system/files.py",
        "            os.fsync(descriptor)\n",
        "            pass\n",
        "tests/checkpoint/test_crashes.py::test_no_crash_leaves_a_run_without_a_checkpoint",
    ),
    Mutant(
        "the folder is not synced after a rename",
        "system/files.py",
        "        raise\n    sync_folder(path.parent)\n",
        "        raise\n",
        "tests/checkpoint/test_crashes.py::test_no_crash_leaves_a_run_without_a_checkpoint",
    ),
    Mutant(
        "a run is not locked",
        "runs/lock.py",
        "_try_lock(descriptor, fcntl.LOCK_EX, tries=5)",
        "True",
        "tests/runs/test_runs.py::test_a_run_in_use_is_not_removed",
    ),
    Mutant(
        "the checksums of the zip are not compared",
        "checkpoint/archive.py",
        "if zlib.crc32(data) != crc:",
        "if False:",
        "tests/checkpoint/test_checkpoint.py::test_a_wrong_checksum_is_reported",
    ),
    Mutant(
        "a pickle may name any function",
        "checkpoint/pickles.py",
        '_NAMES = re.compile(b"|".join(re.escape(name) for name in (_HOOKS, _REBUILD, *_CLASSES)))',
        '_NAMES = re.compile(rb"[^\\n]*\\n[^\\n]*\\n")',
        "tests/checkpoint/test_hostile_checkpoints.py::test_pickles_that_call_something_are_refused_and_call_nothing",
    ),
    Mutant(
        "the checksums of the tensors are not compared",
        "checkpoint/files.py",
        'if not problems and content["checksums"] != checksums(content):',
        "if False:",
        "tests/checkpoint/test_hostile_checkpoints.py::test_a_tensor_that_torch_reads_wrongly_is_detected",
    ),
    Mutant(
        "a state that is not finite is saved",
        "checkpoint/serializing.py",
        "if not is_finite(tensor):",
        "if False:",
        "tests/checkpoint/test_hostile_checkpoints.py::test_saving_a_non_finite_state_is_refused",
    ),
    Mutant(
        "a second signal does not end the process",
        "cli/signals.py",
        "os._exit(128 + number)",
        "return",
        "tests/cli/test_cli.py::test_a_second_signal_ends_the_process_at_once",
    ),
)


def stale(mutants: Sequence[Mutant] = MUTANTS) -> list[str]:
    """Say of which mutants the text does not occur once any more, or the test is gone."""
    found = []
    for mutant in mutants:
        count = (ROOT / "src" / "linreg" / mutant.file).read_text().count(mutant.text)
        if count != 1:
            found.append(f"{mutant.name}: its text occurs {count} times in {mutant.file}; fix the table")
        path, _, test = mutant.test.partition("[")[0].partition("::")
        if f"def {test}(" not in (ROOT / path).read_text():
            found.append(f"{mutant.name}: there is no {test} in {path}; fix the table")
    return found


def run_tests(tree: Path, tests: Sequence[str]) -> tuple[int | None, str]:
    """Run tests in a copy of the source tree until one fails; give the exit status, None if they took too long, and what
    pytest said."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-rfE", "-n", "0", "-p", "no:cacheprovider", *tests]
    process = subprocess.Popen(
        command,
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree / "src")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return None, f"not done after {SECONDS} s"
    finally:
        with contextlib.suppress(ProcessLookupError):  # a failed test may leave processes behind
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, said


def try_mutant(mutant: Mutant, *, tree: Path, folder: Path) -> bool:
    """Say whether the test notices a mutant, made in a copy of the tree, and print it. A test that takes too long, or
    that cannot be run, has not noticed."""
    begin = time.monotonic()
    copy = folder / re.sub(r"\W+", "_", mutant.name)
    shutil.copytree(tree, copy)
    path = copy / "src" / "linreg" / mutant.file
    path.write_text(path.read_text().replace(mutant.text, mutant.instead))
    status, said = run_tests(copy, [mutant.test])
    failed = re.search(r"^FAILED \S*::(\S+)", said, re.MULTILINE)
    killed = status == 1 and failed is not None
    what = f"killed by {failed[1]}" if killed and failed else f"SURVIVED {mutant.test}\n{said}"
    print(f"{mutant.name}: {what}, {time.monotonic() - begin:.0f} s", flush=True)
    return killed


def main(names: Sequence[str]) -> int:
    """Try the mutants named, or all; exit with 1 if one survives, or cannot be tried."""
    mutants = [mutant for mutant in MUTANTS if not names or mutant.name in names]
    problems = stale(mutants) + [f"{name}: no such mutant" for name in set(names) - {m.name for m in mutants}]
    if problems:
        print("\n".join(problems))
        return 1
    with tempfile.TemporaryDirectory(prefix="linreg_mutants_") as name:
        folder = Path(name)
        tree = folder / "tree"
        for part in ("src", "tests", "configs"):
            shutil.copytree(ROOT / part, tree / part, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", tree)
        status, said = run_tests(tree, sorted({mutant.test for mutant in mutants}))
        if status != 0:
            print(f"the tests fail without a mutant:\n{said}")
            return 1
        with ThreadPoolExecutor(AT_ONCE) as pool:
            killed = sum(pool.map(partial(try_mutant, tree=tree, folder=folder), mutants))
    print(f"{killed} of {len(mutants)} killed")
    return 0 if killed == len(mutants) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
