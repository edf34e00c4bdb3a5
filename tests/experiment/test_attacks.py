"""What went wrong once, or would: each is told in a line, with the right exit code, and leaves nothing behind."""

import shutil
from pathlib import Path

import pytest
import torch

from linreg import checkpoint
from linreg.errors import StorageError
from linreg.experiment import resuming
from linreg.experiment.resuming import resume
from linreg.experiment.session import train
from linreg.spec.schema import spec_from_dict
from tests.conftest import differences, small_spec, write_spec


@pytest.fixture
def trained(linreg):
    assert linreg("train", write_spec(), "--quiet").code == 0
    return "checkpoints/small_001/last.pth"


@pytest.mark.parametrize("name", ["..", ".", "", "small", "../small_001", "small_001/", "/small_001"])
def test_only_a_run_can_be_removed(linreg, trained, name):
    Path("precious").mkdir()
    shutil.copy("runs/small_001/run.json", "run.json")
    shutil.copy("runs/small_001/run.json", "runs/run.json")
    answer = linreg("runs", "rm", name)
    assert answer.code == 2
    assert Path("precious").exists()
    assert Path(trained).exists()


def test_options_before_a_subcommand_are_not_ignored(linreg, trained):
    answer = linreg("runs", "--runs", "nope", "rm", "small_001")
    assert (answer.code, Path(trained).exists()) == (2, True)
    assert answer.err == "error: runs: write --runs and --checkpoints after rm, not before it\n"


def test_one_folder_for_runs_and_checkpoints_is_refused(linreg):
    answer = linreg("train", write_spec(), "--runs", "same", "--checkpoints", "same")
    assert (answer.code, Path("same").exists()) == (2, False)


def test_a_checkpoint_that_another_process_resumed_is_refused(trained, monkeypatch):
    build = resuming.build

    def slow_build(spec, **options):
        experiment = build(spec, **options)
        monkeypatch.setattr(resuming, "build", build)
        resume(trained, ["epochs=20"])  # another process, meanwhile
        return experiment

    monkeypatch.setattr(resuming, "build", slow_build)
    with pytest.raises(StorageError, match="another process resumed it; run the command again"):
        resume(trained, ["epochs=8"])
    assert checkpoint.load(trained).epoch == 20
    assert len(Path("runs/small_001/metrics.jsonl").read_text().splitlines()) == 20


@pytest.mark.parametrize("value", ["1e39", "3.4e38", "-1e300"])
def test_values_beyond_float32_are_refused(linreg, trained, value):
    for arguments in ([], ["--json"]):
        answer = linreg("predict", "--inputs", value, *arguments)
        assert (answer.code, answer.out) == (2, "")
        assert answer.err.count("\n") == 2


@pytest.mark.parametrize(
    ("optimizer", "override"),
    [
        ("adam", "optimizer.amsgrad=true"),
        ("rmsprop", "optimizer.momentum=0.9"),
        ("rmsprop", "optimizer.centered=true"),
        ("adagrad", "optimizer.initial_accumulator_value=3.0"),
    ],
)
def test_a_setting_that_the_saved_state_is_not_made_for_is_refused(linreg, optimizer, override):
    linreg("train", write_spec(optimizer={"name": optimizer, "lr": 0.01}), "-q")
    answer = linreg("resume", "checkpoints/small_001/last.pth", override)
    assert answer.code == 2
    assert answer.err.endswith("it does not fit the saved state of the optimizer; train again\n")


@pytest.mark.parametrize("momentum", ["0.9", "0.0"])
def test_the_momentum_of_sgd_can_be_changed(linreg, momentum):
    linreg("train", write_spec(optimizer={"name": "sgd", "lr": 0.01, "momentum": 0.5}), "-q")
    assert linreg("resume", "checkpoints/small_001/last.pth", f"optimizer.momentum={momentum}").code == 0


def test_a_cycle_keeps_its_batches(linreg):
    linreg("train", write_spec(scheduler={"name": "one_cycle", "max_lr": 0.1}), "-q")
    answer = linreg("resume", "checkpoints/small_001/last.pth", "data.batch_size=4")
    assert answer.code == 2
    assert "the scheduler was planned in steps of the old batches" in answer.err


@pytest.mark.parametrize(
    ("override", "code"),
    [
        ("data.batch_size=9223372036854775808", 2),
        ("optimizer.lr=1e308", 6),
        ("data.source.n_samples=100000000000000", 2),
        ("model={name: mlp, hidden: [100000000000000]}", 2),
        ("model={name: mlp, hidden: [100000000000000000000000]}", 2),
        ("scheduler={name: one_cycle, max_lr: 0.1, pct_start: 1e-300}", 0),
    ],
)
def test_huge_values_are_reported_in_a_line(linreg, override, code):
    answer = linreg("check", write_spec(), override, "baseline=false")
    assert answer.code == code, answer.err
    assert answer.err.count("\n") == 1


@pytest.mark.parametrize(
    "change",
    [
        {"run": {}}, {"epoch": -5}, {"epoch": 10**6}, {"loss": []}, {"loss": [None] * 6}, {"position": ["a"]},
        {"model_state_dict": {"0.weight": 1}}, {"n_features": 3}, {"feature_names": [1]}, {"feature_names": []},
        {"version": True}, {"model_state_dict": {"0.weight": torch.tensor([[float("nan")]]), "0.bias": torch.zeros(1)}},
        {"loss": [float("inf")] * 6}, {"spec": {}}, {"best": {}},
        {"model_state_dict": {"0.weight": torch.zeros(2, 2), "0.bias": torch.zeros(1)}},
    ],
    ids=str,
)  # fmt: skip
def test_a_checkpoint_with_impossible_contents_is_refused(linreg, trained, change):
    content = torch.load(trained, weights_only=True)
    torch.save({**content, **change}, "x.pth")
    for command in (["resume", "x.pth"], ["predict", "x.pth", "--inputs", "1"]):
        answer = linreg(*command)
        assert (answer.code, answer.out) == (4, "")
        assert "error: x.pth: " in answer.err
    assert not Path("runs/small_002").exists()


@pytest.mark.parametrize(
    ("file", "content"),
    [("metrics.jsonl", b'{"a": 1}'), ("metrics.jsonl", b"3"), ("metrics.jsonl", b"\xff"), ("run.json", b'{"sessions": 3}'),
     ("run.json", b"\xff"), ("spec.yaml", b"")],
)  # fmt: skip
def test_one_damaged_run_does_not_hide_the_others(linreg, trained, file, content):
    linreg("train", "small.yaml", "-q")
    Path("runs/small_001", file).write_bytes(content)
    answer = linreg("runs")
    assert answer.code == 0
    assert "small_002  finished" in answer.out
    assert linreg("runs", "compare", "small_001", "small_002").code == 0


PLUGIN = """
import torch
from torch import nn
from linreg import DATASETS, LOSSES, MODELS, OPTIMIZERS, SCHEDULERS, Samples
"""


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("model", "return nn.Linear(n_features, 5)", "model: returns (2, 5) for inputs (2, 1), but the targets are (2, 1); fix the model"),
        ("model", "return nn.Flatten(0)", "model: returns (2,) for inputs (2, 1)"),
        ("model", "return None", "model: mine: its builder returned NoneType, not a torch.nn.Module; fix "),
        ("model", "raise KeyError('oh')", "model: mine: its builder failed: KeyError: 'oh'; change the params, or fix "),
        ("model", "return nn.Linear(7, 1)", "model: fails on inputs (2, 1): RuntimeError: mat1 and mat2 shapes"),
        ("loss", "return None", "loss: mine: its builder returned NoneType, not a collections.abc.Callable; fix "),
        ("loss", "return nn.MSELoss(reduction='none')", "loss: returns a tensor (2, 1); it must be one number"),
        ("loss", "return lambda yhat, y: 3.0", "loss: returns float; it must be one number"),
        ("loss", "return lambda yhat, y: nn.functional.mse_loss(yhat.detach(), y)", "loss: returns a tensor ()"),
        ("optimizer", "return None", "optimizer: mine: its builder returned NoneType, not a torch.optim.Optimizer"),
        ("scheduler", "return torch.optim.lr_scheduler.StepLR(optimizer, 3)", "scheduler: mine: its builder returned StepLR, not a linreg.components.schedulers.Schedule"),
        ("scheduler", "return None", "scheduler: mine: its builder returned NoneType"),
        ("source", "return Samples([[1.0]], [[2.0]])", "data.source: x is list"),
        ("source", "import sys; sys.exit(0)", "source: mine: its builder failed: SystemExit: 0"),
    ],
)  # fmt: skip
def test_an_invalid_result_of_a_plugin_is_reported_with_its_line(linreg, kind, text, message):
    registry = {
        "model": "MODELS",
        "loss": "LOSSES",
        "optimizer": "OPTIMIZERS",
        "scheduler": "SCHEDULERS",
        "source": "DATASETS",
    }
    takes = {"model": "n_features, n_targets", "optimizer": "parameters", "scheduler": "optimizer, total_steps"}.get(
        kind, ""
    )
    Path("p.py").write_text(f'{PLUGIN}\n@{registry[kind]}.register("mine")\ndef mine({takes}):\n    {text}\n')
    key = "data.source" if kind == "source" else kind
    answer = linreg("check", write_spec(), f"{key}={{name: mine}}", "--plugin", "p.py")
    assert answer.code == (3 if text.startswith("return Samples") else 2)
    assert f"{message}" in answer.err
    assert answer.err.count("\n") == 1


def test_an_error_while_a_plugin_runs_names_its_line(linreg):
    Path("p.py").write_text(
        f'{PLUGIN}\n@OPTIMIZERS.register("mine")\ndef mine(parameters):\n    class Mine(torch.optim.SGD):\n'
        "        def step(self, closure=None):\n            raise KeyError('oh')\n    return Mine(parameters, lr=0.1)\n"
    )
    answer = linreg("train", write_spec(), "optimizer={name: mine}", "--plugin", "p.py")
    assert (answer.code, answer.err) == (2, "error: --plugin p.py:10: KeyError: 'oh'; fix the plugin\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('@LOSSES.register("u")\nclass U: ...\n', "is not a function; register a function that builds it"),
        ("@LOSSES.register\ndef u(): ...\n", "is not a name; write @....register(\"my_loss\")"),
        ('@LOSSES.register("")\ndef u(): ...\n', "'' is not a name"),
        ('@MODELS.register("u")\ndef u(a, b, c): ...\n', "a model takes (n_features, n_targets) and, after a *, its params"),
        ('@LOSSES.register("u")\ndef u(*, f: object()): ...\n', "its params cannot be a schema"),
        ("import sys; sys.exit(0)\n", "SystemExit: 0; fix the plugin"),
    ],
)  # fmt: skip
def test_an_invalid_registration_of_a_plugin_is_reported_with_its_line(linreg, text, message):
    Path("p.py").write_text(PLUGIN + text)
    answer = linreg("list", "--plugin", "p.py")
    assert (answer.code, answer.out) == (2, "")
    assert message in answer.err


def test_output_of_a_plugin_does_not_reach_stdout(linreg):
    Path("p.py").write_text("print('hello')\n")
    answer = linreg("list", "--json", "--plugin", "p.py")
    assert answer.out.startswith("[")
    assert answer.err == "hello\n"


def test_a_diverged_run_is_not_resumed(linreg):
    path = write_spec(epochs=500, checkpoint={"every": 1})
    assert linreg("train", path, "optimizer.lr=1.0", "-q", "data.batch_size=full").code == 6
    assert checkpoint.load("checkpoints/small_001/last.pth").epoch > 10
    answer = linreg("train", path, "optimizer.lr=1.0", "-q", "data.batch_size=full", "--resume")
    assert "the last run, small_001, diverged; starting a new one" in answer.err


def test_stopping_in_the_middle_leaves_a_run_that_can_be_resumed(linreg):
    spec = small_spec(epochs=6, checkpoint={"every": 1})
    whole = train(spec_from_dict(spec, "t"), runs=Path("w/r"), checkpoints=Path("w/c"))

    def report(record, experiment):
        if record.epoch == 3:
            raise SystemExit(130)

    with pytest.raises(SystemExit):
        train(spec_from_dict(spec, "test"), report=report)
    assert '"interrupted"' in linreg("runs", "--json").out
    result = resume("checkpoints/small_001/last.pth")
    assert differences(checkpoint.load(whole.checkpoint), checkpoint.load(result.checkpoint)) == []


def test_a_thousand_mistakes_fit_on_a_page(linreg):
    Path("x.yaml").write_text("".join(f"k{number}: 1\n" for number in range(5000)))
    answer = linreg("check", "x.yaml")
    assert answer.err.count("\n") == 51
    assert answer.err.splitlines()[-1].startswith("error: x.yaml: and ")


def test_control_characters_of_a_spec_are_escaped(linreg):
    Path("x.yaml").write_text('"\\e[31mred": 1\n"a\\nerror: b": 1\n')
    answer = linreg("check", "x.yaml")
    assert "\x1b" not in answer.err
    assert not any(line.startswith("error: b") for line in answer.err.splitlines())


def test_options_take_their_value_literally(linreg):
    assert linreg("train", write_spec(), "--name", "2024", "-q").out == "checkpoints/2024_001/last.pth\n"
    answer = linreg("train", "small.yaml", "--name", "a #b", "-q")
    assert (answer.code, Path("runs/a_001").exists()) == (2, False)
    assert linreg("evaluate", "--device", "x y").code == 2


@pytest.mark.parametrize(
    ("text", "place", "hint"),
    [
        ("name: x\nepochs:200\nseed: 1\n", "2:1", "write key: value, with a space after the colon"),
        ("name: x\nmodel: {name: linear\nseed: 1\n", "2:8", "close the brace"),
        ('name: x\nepochs: "200\nseed: 1\n', "2:9", "close the quotes"),
        (
            "name: x\nepochs: 3\nmodel: {name:linear}\n",
            "3:8",
            "'name:linear' needs a space after the colon",
        ),
    ],
)
def test_a_mistake_of_yaml_is_shown_where_it_begins(linreg, text, place, hint):
    Path("x.yaml").write_text(text)
    lines = [line for line in linreg("check", "x.yaml").err.splitlines() if hint in line]
    assert [line.split(": ")[1] for line in lines] == [f"x.yaml:{place}"]


def test_output_that_an_encoding_does_not_have_is_escaped():
    import subprocess
    import sys

    found = subprocess.run(
        [sys.executable, "-m", "linreg", "list", "model"],
        capture_output=True, env={"PYTHONIOENCODING": "ascii", "PATH": ""}, timeout=60, check=True,
    )  # fmt: skip
    assert b"\\u2265 0" in found.stdout
