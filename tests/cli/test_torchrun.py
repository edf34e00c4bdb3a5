"""torchrun itself: it restarts a run whose process was killed, and forms a group of several agents."""

import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest
import yaml

from linreg.checkpoint import load
from tests.cli.test_groups import ranks_of
from tests.conftest import ROOT, same, small_spec

SPEC = small_spec(
    epochs=200,
    data__shards=3,
    data__batch_size=10,
    model={"name": "mlp", "hidden": [6], "dropout": 0.1},
    optimizer={"name": "adam", "lr": 0.003},
    checkpoint={"every_seconds": 0.1},
    baseline=False,
)
COMMAND = ["-m", "linreg", "train", "spec.yaml", "--quiet"]
LAST = "checkpoints/small_001/last.pth"


def torchrun(folder, *options):
    """Start an agent of torchrun, with one thread a process."""
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *options, *COMMAND],
        cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1", "LINREG_TIMEOUT": "60"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The checkpoint of one process that nobody interrupts."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "spec.yaml").write_text(yaml.safe_dump(SPEC))
    subprocess.run([sys.executable, *COMMAND], cwd=folder, check=True, capture_output=True, timeout=300)
    return load(folder / LAST)


def is_same(found, expected):
    return found.loss == expected.loss and same(found.model_state_dict, expected.model_state_dict)


def test_a_run_goes_on_exactly_after_torchrun_has_restarted_its_processes(tmp_path, whole):
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(SPEC))
    agent = torchrun(tmp_path, "--standalone", "--nproc-per-node", "2", "--max-restarts", "3")
    deadline = time.monotonic() + 120
    while not (tmp_path / LAST).exists() and time.monotonic() < deadline and agent.poll() is None:
        time.sleep(0.02)
    os.kill(ranks_of(agent)[1], signal.SIGKILL)
    _, errors = agent.communicate(timeout=300)
    assert agent.returncode == 0, errors
    found = load(tmp_path / LAST)
    assert found.resumed_at
    assert is_same(found, whole)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["small_001"]


def test_two_agents_train_as_one_process(tmp_path, whole):
    """Two agents are what two machines have."""
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(SPEC))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--local-addr", "127.0.0.1"]
    agents = [torchrun(tmp_path, *options, "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", "1") for _ in range(2)]
    answers = [agent.communicate(timeout=300) for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], answers
    assert is_same(load(tmp_path / LAST), whole)
    assert sorted(out for out, _ in answers) == ["", f"{LAST}\n"]  # the first process alone prints


def test_the_manifest_of_the_page_starts_a_pod_for_each_machine():
    page = (ROOT / "docs" / "processes.md").read_text()
    (text,) = re.findall(r"```yaml\n(apiVersion.*?)```", page, re.DOTALL)
    service, job = yaml.safe_load_all(text)
    pods = job["spec"]
    (container,) = pods["template"]["spec"]["containers"]
    words = container["command"]
    assert pods["completionMode"] == "Indexed"
    assert pods["completions"] == pods["parallelism"] == int(words[words.index("--nnodes") + 1])
    domain = pods["template"]["spec"]["subdomain"]
    assert service["metadata"]["name"] == domain
    host, _, port = words[words.index("--rdzv-endpoint") + 1].partition(":")
    assert host == f"{job['metadata']['name']}-0.{domain}"  # the name of the first pod of an indexed job
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    assert int(port) == service["spec"]["ports"][0]["port"]
    mounted = {one["name"] for one in container["volumeMounts"]}
    assert mounted == {one["name"] for one in pods["template"]["spec"]["volumes"]}
    assert words[words.index("linreg") :] == ["linreg", "train", "spec.yaml", "data.shards=8", "--resume"]
    int(words[words.index("--nproc-per-node") + 1])
