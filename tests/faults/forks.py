"""Processes that are forked from one that has imported torch and linreg: `python -m MODULE` without three seconds of
imports. They run the module and end as Python does, with functions of atexit. `Forks` starts them for a test, and this
module as a program is the process that they are forked from, which has no second thread:

python -m tests.faults.forks
"""

import json
import os
import runpy
import select
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent  # here, because conftest imports torch
IMPORTED = [
    *("linreg.cli.main", "linreg.experiment.session", "linreg.experiment.following", "linreg.experiment.solving"),
    *("linreg.experiment.sweeps.cross_validation", "linreg.experiment.sweeps.sweeping", "linreg.runs.events"),
    *("linreg.data.tables.reading", "linreg.data.tables.formats.csv", "linreg.data.tables.split"),
    *("linreg.training.engines.eager", "linreg.training.engines.lean", "linreg.training.shards.engine"),
    *("linreg.training.shards.group", "torch.distributed.launcher.api", "torch.utils.tensorboard"),
    *("scipy.special", "scipy.linalg", "google_crc32c", "optuna.samplers"),
    "pandas",  # pyarrow imports it where it is installed
]


class Forked:
    """A forked process, with the methods of subprocess.Popen that tests use."""

    def __init__(self, forks, pid, files):
        self.pid, self.returncode, self._forks, self._files = pid, None, forks, files

    def poll(self):
        """Return the exit code, None while the process runs."""
        if self.returncode is None:
            self.returncode = self._forks.code_of(self.pid, 0.0)
        return self.returncode

    def communicate(self, timeout=None):
        """Wait for the end; return the texts of stdout and stderr."""
        if self.returncode is None:
            self.returncode = self._forks.code_of(self.pid, timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout)
        return tuple(file.read_text() for file in self._files)

    def send_signal(self, number):
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        """Send SIGKILL, unless the process has ended."""
        self.send_signal(signal.SIGKILL)


class Forks:
    """Starts forked processes."""

    def __init__(self, folder):
        """folder: of the files with what the processes print."""
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
        command = [sys.executable, "-m", "tests.faults.forks"]
        self.server = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.folder, self.n_started = folder, 0
        self._text, self._pids, self._codes = b"", [], {}

    def start(self, command, *, cwd, env):
        """Start `python -m COMMAND` in a folder, with these environment variables. Return the process."""
        self.n_started += 1
        files = [self.folder / f"{self.n_started}.{name}" for name in ("out", "err")]
        request = {"command": list(map(str, command)), "cwd": str(cwd), "env": env, "files": list(map(str, files))}
        self.server.stdin.write(json.dumps(request).encode() + b"\n")
        self.server.stdin.flush()
        while not self._pids:
            self._listen(60)
        return Forked(self, self._pids.pop(), files)

    def code_of(self, pid, timeout):
        """Wait up to `timeout` seconds for the end of a process, or without a limit; return its exit code, None if it
        still runs. The code of a process that a signal has ended is negative."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while pid not in self._codes:
            seconds = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not self._listen(seconds):
                return None
        return self._codes[pid]

    def close(self):
        """End the server, and the processes that still run."""
        self.server.stdin.close()
        self.server.wait()
        self.server.stdout.close()

    def _listen(self, seconds):
        """Read what the server reports, and wait up to `seconds` for it; return whether there was anything."""
        if not select.select([self.server.stdout], [], [], seconds)[0]:
            return False
        chunk = os.read(self.server.stdout.fileno(), 10**5)
        assert chunk, "the process that forks has ended"
        *lines, self._text = (self._text + chunk).split(b"\n")
        for pid, *codes in (map(int, line.split()) for line in lines):
            if codes:
                self._codes[pid] = codes[0]
            else:
                self._pids.append(pid)
        return True


def serve():
    """Fork a process for each line of stdin; report its process ID, and later its exit code. Return the request in the
    forked process, and None in this one at the end of stdin."""
    pipes, text = {}, b""  # of each process, the end of a pipe that its end closes
    while True:
        for ready in select.select([0, *pipes], [], [])[0]:
            if ready in pipes:
                os.close(ready)
                pid, status = os.waitpid(pipes.pop(ready), 0)
                print(pid, os.waitstatus_to_exitcode(status), flush=True)
                continue
            chunk = os.read(0, 10**6)
            if not chunk:
                for pid in pipes.values():
                    os.kill(pid, signal.SIGKILL)
                return None
            *lines, text = (text + chunk).split(b"\n")
            for line in lines:
                receiving, sending = os.pipe()
                pid = os.fork()
                if not pid:
                    return json.loads(line)
                os.close(sending)
                pipes[receiving] = pid
                print(pid, flush=True)


def become(command, cwd, env, files):
    """Run `python -m COMMAND` in this process."""
    for number, path in enumerate([os.devnull, *files]):
        file = os.open(path, os.O_RDWR | os.O_CREAT)
        os.dup2(file, number)
        os.close(file)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.argv[1:] = command[1:]
    runpy.run_module(command[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    from linreg.system.startup import importing_torch

    with importing_torch():
        for name in IMPORTED:
            import_module(name)
    threads = {path.read_text().strip() for path in Path("/proc/self/task").glob("[0-9]*/comm")}
    assert len(threads - {"jemalloc_bg_thd"}) <= 1, threads  # pyarrow's allocator knows of forks
    request = serve()
    if request is not None:
        become(**request)
