"""The command line as people and CI jobs meet it: streams, exit codes, help, progress."""

import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.cells import cell_len

from linreg.checkpoint import load
from linreg.cli.inputs import parse_rows, spread
from linreg.cli.text import format_table, format_wide_table
from linreg.errors import UsageError
from tests.conftest import ROOT, write_spec

COMMANDS = [
    "train",
    "resume",
    "predict",
    "evaluate",
    "export",
    "report",
    "sweep",
    "cv",
    "init",
    "check",
    "inspect",
    "list",
    "schema",
    "completion",
    "runs",
    "runs rm",
    "runs compare",
    "cache",
    "cache clear",
]


def process(*arguments, shell=None, **options):
    command = shell or [sys.executable, "-m", "linreg", *map(str, arguments)]
    return subprocess.run(command, shell=bool(shell), capture_output=True, text=True, timeout=120, **options)


@pytest.fixture
def trained(linreg):
    assert linreg("train", write_spec(), "--quiet").code == 0
    return "checkpoints/small_001/last.pth"


def test_train_prints_the_path_of_the_checkpoint_and_nothing_else(linreg):
    answer = linreg("train", write_spec())
    assert answer.out == "checkpoints/small_001/last.pth\n"
    assert re.fullmatch(
        r"name +estimate +std_error +t +exact\nintercept( +[\d.]+){4}\nx( +[\d.]+){4}\n"
        r"least squares on the training part: R2 0.97\d+, 38 degrees of freedom\n"
        r"finished after 6 epochs, [\d.]+ s on cpu: loss [\d.]+, val_loss [\d.]+ \(exact 0.00942461, \+\d+.\d %\) "
        r"\(best [\d.]+ in epoch 5\)\n",
        answer.err,
    )
    assert Path("checkpoints/latest").read_text() == answer.out


def test_train_json_is_one_document(linreg):
    answer = linreg("train", write_spec(), "--json", "-q")
    found = json.loads(answer.out)
    saved = load(found["checkpoint"])
    assert found.pop("seconds") > 0
    assert [row["name"] for row in found.pop("fit")["coefficients"]] == ["intercept", "x"]
    assert found.pop("exact_loss") < found["loss"]
    assert found.pop("exact_val_loss") < found["val_loss"]
    assert found == {
        "run": "small_001", "checkpoint": "checkpoints/small_001/last.pth", "outcome": "finished", "epochs": 6,
        "loss": saved.loss[-1], "val_loss": saved.val_loss[-1], "best_epoch": 5, "best_loss": saved.loss[5],
        "best_val_loss": saved.val_loss[5], "device": "cpu", "engine": "direct",
    }  # fmt: skip
    assert answer.err == ""


def test_without_validation_there_is_no_validation_loss(linreg):
    found = json.loads(linreg("train", write_spec(), "data.split.train_ratio=1.0", "--json").out)
    assert found["val_loss"] is found["best_val_loss"] is None
    losses = load(found["checkpoint"]).loss
    assert losses[found["best_epoch"]] == min(losses) == found["best_loss"]
    assert linreg("evaluate").err.endswith("training part, 50 points\n")


def test_options_are_overrides_of_their_keys(linreg):
    answer = linreg(
        "train", write_spec(), "--name", "other", "--device", "cpu", "--runs", "r", "--checkpoints", "c", "-q"
    )
    assert answer.out == "c/other_001/last.pth\n"
    assert Path("r/other_001/metrics.jsonl").exists()
    assert linreg("predict", "--checkpoints", "c", "--inputs", "0.5").err == "using c/other_001/last.pth\n"


def test_predictions_are_the_models_and_read_back_as_the_same_float32(linreg, trained):
    answer = linreg("predict", "--inputs", "0.20", "-0.34", "1e-3")
    state = load(trained).model_state_dict
    for line, x in zip(answer.out.splitlines(), [0.2, -0.34, 1e-3], strict=True):
        expected = np.float32(x) * state["0.weight"].numpy()[0, 0] + state["0.bias"].numpy()[0]
        assert np.float32(line) == pytest.approx(expected, rel=1e-6)
        assert str(np.float32(line)) == line
    found = json.loads(linreg("predict", trained, "--inputs", "0.2", "--json").out)
    assert found["inputs"] == [[0.2]]
    assert found["predictions"] == [[float(answer.out.splitlines()[0])]]


def test_float64_models_predict_float64(linreg):
    linreg("train", write_spec(dtype="float64"), "-q")
    line = linreg("predict", "--inputs", "0.2").out.strip()
    assert repr(float(line)) == line
    assert len(line) > 12


def test_rows_of_several_features_can_be_named_and_in_any_order(linreg):
    linreg("train", write_spec(data__source={"name": "linear", "weight": [1, 2, 3]}), "-q")
    plain = linreg("predict", "--inputs", "1,2,3", "-4,5e-1,-.6").out
    assert len(plain.splitlines()) == 2
    assert linreg("predict", "--inputs", "x3=3,x1=1,x2=2", "x1=-4,x2=0.5,x3=-0.6").out == plain
    assert linreg("predict", "--inputs", "x3=3", "x1=1", "x2=2", "x1=-4", "x2=0.5", "x3=-0.6").out == plain
    answer = linreg("predict", "--inputs", "1,2")
    assert (answer.code, answer.err.splitlines()[-1]) == (
        2, "error: --inputs 1,2: 2 values, and the model takes 3 values (x1, x2, x3); put commas within a row, spaces between rows",
    )  # fmt: skip
    answer = linreg("predict", "--inputs", "x1=1,x2=2,x4=2")
    assert answer.err.splitlines()[-1] == (
        "error: --inputs x1=1,x2=2,x4=2: unknown x4; missing x3; the model takes 3 values (x1, x2, x3)"
    )


@pytest.mark.parametrize(
    ("arguments", "spread_out"),
    [
        (["--inputs", "0.2", "-0.34", "-1e-3", "--json"], ["--inputs=0.2", "--inputs=-0.34", "--inputs=-1e-3", "--json"]),
        (["--json", "--inputs", "1"], ["--json", "--inputs=1"]),
        (["c.pth", "--inputs", "-.5", "+3"], ["c.pth", "--inputs=-.5", "--inputs=+3"]),
        (["--inputs", "0.2", "0.3", "c.pth", "--json"], ["--inputs=0.2", "--inputs=0.3", "c.pth", "--json"]),
        (["--inputs=0.2", "0.3"], ["--inputs=0.2", "--inputs=0.3"]),
        (["--inputs=0.2 0.3"], ["--inputs=0.2", "--inputs=0.3"]),
        (["--inputs", "1", "--device", "cpu", "--inputs", "2"], ["--inputs=1", "--device", "cpu", "--inputs=2"]),
        (["--inputs", "1,-2,3e5", "x=1", "x1=-1,b=2"], ["--inputs=1,-2,3e5", "--inputs=x=1", "--inputs=x1=-1,b=2"]),
        (["--inputs", "-inf", "word"], ["--inputs=-inf", "--inputs=word"]),
    ],
    ids=str,
)  # fmt: skip
def test_inputs_take_every_value_up_to_the_next_option(arguments, spread_out):
    assert spread(arguments) == spread_out


@pytest.mark.parametrize("arguments", [["--inputs"], ["--inputs", "--json"], ["c.pth", "--inputs", "-h"]])
def test_inputs_without_a_value_are_refused(arguments):
    with pytest.raises(UsageError, match="--inputs: no value follows; write for instance --inputs 0.2 -0.34 1e-3"):
        spread(arguments)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["nan"], "--inputs nan: nan is not finite; write a finite number"),
        (["-inf"], "--inputs -inf: -inf is not finite; write a finite number"),
        (["1e999"], "--inputs 1e999: 1e999 is not finite; write a finite number"),
        (["1,,2"], "--inputs 1,,2: an empty value is not a number; leave no space beside a comma"),
        ([""], "--inputs : an empty value is not a number; leave no space beside a comma"),
        (["x=1,2"], "--inputs x=1,2: some values have a name and some have none; name all or none"),
        (["x=1,x=2"], "--inputs x=1,x=2: a duplicate name in one row; remove one"),
    ],
)  # fmt: skip
def test_inputs_that_are_no_numbers_are_refused(values, message):
    with pytest.raises(UsageError) as caught:
        parse_rows(values)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "shape",
    [["--inputs", "0.2", "0.34", "{}"], ["{}", "--inputs", "0.2", "0.34"], ["--inputs=0.2", "0.34", "{}"],
     ["--json", "--inputs", "0.2", "0.34", "--device", "cpu", "{}"]],
)  # fmt: skip
def test_the_checkpoint_may_come_at_any_position(linreg, trained, shape):
    assert linreg("predict", *[part.format(trained) for part in shape]).code == 0


def test_expectations_decide_the_exit_code(linreg):
    path = write_spec()
    assert linreg("train", path, "-q", "--expect", "val_loss<1", "--expect", "epochs == 6").code == 0
    answer = linreg("train", path, "-q", "--expect", "val_loss<1e-9", "--expect", "loss>=100", "--expect", "epochs==6")
    assert answer.code == 7
    assert answer.out == "checkpoints/small_002/last.pth\n"
    assert re.fullmatch(
        r"error: --expect 'val_loss<1e-9': not met, val_loss is [\d.]+\n"
        r"error: --expect 'loss>=100': not met, loss is [\d.]+\n", answer.err
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("val_los<1", "--expect 'val_los<1': unknown result 'val_los'; did you mean 'val_loss'?"),
        ("val_loss=1", "--expect 'val_loss=1': not NAME<NUMBER; write for instance 'val_loss<0.02'"),
        ("val_loss<x", "--expect 'val_loss<x': not NAME<NUMBER; write for instance 'val_loss<0.02'"),
    ],
)
def test_an_expectation_that_means_nothing_is_refused_before_training(linreg, text, message):
    answer = linreg("train", write_spec(), "--expect", text)
    assert (answer.code, answer.out, answer.err) == (2, "", f"error: {message}\n")
    assert not Path("runs").exists()


def test_evaluate_measures_the_validation_part(linreg, trained):
    found = json.loads(linreg("evaluate", "--json").out)
    assert (found["part"], found["n_samples"]) == ("validation", 10)
    metrics = found["metrics"]["y"]
    assert metrics["rmse"] == pytest.approx(metrics["mse"] ** 0.5)
    random = np.random.RandomState(42)
    x = random.rand(50, 1)
    y = 1 + 2 * x + 0.1 * random.randn(50, 1)
    val = torch.randperm(50, generator=torch.Generator().manual_seed(13))[40:].numpy()
    state = load(trained).model_state_dict
    error = (y - x * state["0.weight"].item() - state["0.bias"].item())[val]
    assert metrics["mse"] == pytest.approx(np.mean(error**2), rel=1e-5)
    assert metrics["mae"] == pytest.approx(np.mean(np.abs(error)), rel=1e-5)
    assert metrics["r2"] == pytest.approx(1 - np.sum(error**2) / np.sum((y[val] - y[val].mean()) ** 2), rel=1e-5)
    assert linreg("evaluate").out.splitlines()[0].split() == ["target", "mse", "rmse", "mae", "r2"]
    assert linreg("evaluate", "--expect", "y.r2>2").code == 7
    assert linreg("evaluate", "--expect", "r3>2").code == 2


def test_check_prints_the_resolved_spec_and_writes_nothing(linreg):
    answer = linreg("check", write_spec(), "epochs=9")
    Path("resolved.yaml").write_text(answer.out)
    assert "epochs: 9\n" in answer.out
    assert re.match(
        r"ok: 40 of 50 points for training, 1 feature, 2 parameters, on cpu; first batch: loss ", answer.err
    )
    assert sorted(path.name for path in Path().iterdir()) == ["resolved.yaml", "small.yaml"]
    assert linreg("check", "resolved.yaml").out == answer.out
    assert json.loads(linreg("check", "small.yaml", "--json").out)["n_train"] == 40


def test_inspect_shows_the_content_of_a_checkpoint(linreg, trained):
    found = json.loads(linreg("inspect", trained, "--json").out)
    assert (found["run"], found["epochs"], found["n_parameters"]) == ("small_001", 6, 2)
    assert found["parameters"]["0.weight"] == load(trained).model_state_dict["0.weight"].tolist()
    assert "small_001, finished, 6 epochs" in linreg("inspect").out


def test_list_names_every_component_with_its_params(linreg):
    out = linreg("list").out
    for line in ("optimizer adamw: Adam with decoupled weight decay.", "    hidden      list of whole number > 0"):
        assert line in out
    assert {component["kind"] for component in json.loads(linreg("list", "--json").out)} == {
        "source", "transform", "target_transform", "model", "loss", "optimizer", "scheduler",
    }  # fmt: skip
    assert linreg("list", "modle").err == "error: list modle: unknown kind; did you mean 'model'?\n"


def test_schema_is_json(linreg):
    assert json.loads(linreg("schema").out)["title"] == "linreg experiment"


def test_a_bad_spec_leaves_no_trace(linreg):
    for override, code in (("optimizer.lr=-1", 2), ("optimizer.nesterov=true", 2), ("data.source.n_samples=1", 3)):
        answer = linreg("train", write_spec(), override)
        assert (answer.code, answer.out) == (code, "")
        assert answer.err.startswith("error: ")
    assert [path.name for path in Path().iterdir()] == ["small.yaml"]


@pytest.mark.parametrize("value", ["abc", "1_000", "0x10"])
def test_text_for_a_number_is_refused(linreg, trained, value):
    answer = linreg("predict", trained, "--inputs", value)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err == f"error: --inputs {value}: {value!r} is not a number; write for instance 0.2, -0.34 or 1e-3\n"


@pytest.mark.parametrize("place", ["--runs", "--checkpoints"])
def test_a_file_in_the_way_is_a_storage_error_and_leaves_nothing(linreg, place):
    Path("taken").write_text("x")
    answer = linreg("train", write_spec(), place, "taken", "-q")
    assert (answer.code, answer.out) == (5, "")
    assert re.match(r"error: taken(/small_001)?: (File exists|Not a directory); ", answer.err)
    assert not list(Path().glob("*/small_001"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "No such command 'trian'"),
        (["train"], "Missing argument 'SPEC'"),
        (["train", "x.yaml", "--quite"], "No such option: --quite"),
        (["predict"], "--inputs: missing; write for instance --inputs 0.2 0.34"),
        (["predict", "--inputs", "1"], "checkpoints/latest: no checkpoint yet; train first, or name one"),
        (["resume", "x.pth"], "x.pth: no such checkpoint; linreg runs lists the existing ones"),
        (["runs", "rm", "x"], "runs/x: no such run; linreg runs lists the existing ones"),
        (["runs", "rm", "../x"], "runs/../x: no such run; linreg runs lists the existing ones"),
    ],
)
def test_wrong_usage_is_one_line(linreg, arguments, message):
    answer = linreg(*arguments)
    assert answer.out == ""
    assert answer.err.startswith(f"error: {message}")
    assert answer.err.count("\n") == 1
    assert answer.code == (4 if "checkpoint" in message else 2)


def test_debug_shows_the_traceback(linreg):
    assert "Traceback" not in linreg("train", "x.yaml").err
    assert "Traceback" in linreg("train", "x.yaml", "--debug").err


@pytest.mark.parametrize("command", COMMANDS)
def test_help_ends_with_an_example_to_paste(linreg, command):
    answer = linreg(*command.split(), "-h")
    assert answer.code == 0
    assert answer.out.splitlines()[-1].startswith("  Example: linreg ")


def test_help_lists_the_exit_codes_and_every_command(linreg):
    out = linreg("--help").out
    assert linreg().out == out
    for code in ("0 ok", "2 usage or spec", "6 diverged", "7 --expect not", "143 SIGTERM"):
        assert code in " ".join(out.split())
    assert [line.split()[0] for line in out.split("Commands:\n")[1].split("\n\n")[0].splitlines()] == [
        command for command in COMMANDS if " " not in command
    ]


def test_the_options_of_every_command_are_as_they_were(linreg):
    """A snapshot, so that an option is not lost or renamed by accident."""
    common = {"--debug", "--help"}
    places = {"--runs", "--checkpoints"}
    training = common | places | {"--device", "--name", "--json", "--quiet", "--expect", "--plugin"}
    expected = {
        "train": training | {"--resume", "--epochs", "--processes"},
        "resume": training | {"--epochs", "--other-data", "--processes"},
        "sweep": (training - {"--device", "--expect"})
        | {"--trials", "--seeds", "--folds", "--resume", "--epochs", "--processes"},
        "cv": (training - {"--device", "--expect"})
        | {"--folds", "--leave-one-out", "--resume", "--repeats", "--output", "--epochs", "--processes"},
        "completion": common,
        "predict": common
        | {
            "--inputs",
            "--input",
            "--output",
            "--keep",
            "--on-gap",
            "--interval",
            "--device",
            "--checkpoints",
            "--json",
            "--quiet",
            "--plugin",
        },
        "evaluate": common
        | places
        | {"--part", "--data", "--diagnostics", "--plot", "--tensorboard", "--importance", "--metric"}
        | {"--device", "--json", "--expect", "--plugin"},
        "export": common | {"--to", "--output", "--checkpoints", "--json", "--quiet", "--plugin"},
        "report": common | places | {"--output", "--no-rows", "--plugin"},
        "init": common | {"--target", "--name", "--delimiter", "--missing-value"},
        "check": common | {"--device", "--name", "--json", "--quiet", "--plugin"},
        "inspect": common | {"--level", "--robust", "--checkpoints", "--json", "--plugin"},
        "list": common | {"--json", "--plugin"},
        "schema": common | {"--plugin"},
        "runs": common | places | {"--json"},
        "runs rm": common | places,
        "runs compare": common | places | {"--json"},
        "cache": common | {"--json"},
        "cache clear": common | {"--json"},
    }
    found = {
        command: set(re.findall(r"^  (?:-\w, )?(--[a-z-]+)", linreg(*command.split(), "-h").out, re.MULTILINE))
        for command in COMMANDS
    }
    assert found == expected


def test_version_and_module_entry():
    assert process("--version").stdout == "linreg 0.1.0\n"


def test_closed_streams_and_pipes_do_no_harm():
    path = write_spec()
    linreg = f"{sys.executable} -m linreg"
    assert process(shell=f"{linreg} train {path} 2>&-").stdout == "checkpoints/small_001/last.pth\n"
    assert process(shell=f"{linreg} train {path} >&-").returncode == 0
    found = process(shell=f"bash -o pipefail -c '{linreg} list | head -1'")
    assert (found.returncode, found.stdout, found.stderr) == (0, "source linear: Points around a line: y = bias + weight * x + noise * standard normal, x uniform in [0, 1).\n", "")  # fmt: skip
    found = process(shell=f"bash -o pipefail -c '{linreg} train {path} -q | true'")
    assert (found.returncode, found.stderr) == (0, "")
    assert "\x1b" not in process(shell=f"{linreg} train {path} epochs=3000 2>&1 >/dev/null").stdout


def test_a_second_signal_ends_the_process_at_once():
    """The first one only asks."""
    code = (
        "import os, signal\nfrom linreg.cli.signals import stop_on_signals\n"
        "with stop_on_signals() as flag:\n"
        "    assert not flag()\n    os.kill(os.getpid(), signal.SIGINT)\n    print(flag(), flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n    print('still there')\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (found.returncode, found.stdout, found.stderr) == (143, "True\n", "")


def on_terminal(*arguments, **environment):
    """Run a command on a terminal of its own and give all that it shows there."""
    parent, child = pty.openpty()
    env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120", **environment}
    command = [sys.executable, "-m", "linreg", *map(str, arguments)]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=child, env=env)
    os.close(child)
    shown = b""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if select.select([parent], [], [], 0.1)[0]:
            try:
                shown += os.read(parent, 65536)
            except OSError:  # nobody has the other end open any more
                break
        elif running.poll() is not None:
            break
    assert running.wait(timeout=10) == 0
    os.close(parent)
    return shown.decode()


def test_a_terminal_shows_a_bar_with_epochs_losses_speed_and_time_left():
    shown = on_terminal("train", write_spec(), "epochs=700")
    assert re.search(r"epoch \d+/700 .*loss [\d.e-]+  val_loss [\d.e-]+  \d+ steps/s  [\d.]+ s left", shown)
    assert "finished after 700 epochs" in shown.rstrip().splitlines()[-1]


@pytest.mark.parametrize("environment", [{"TERM": "dumb"}, {"CI": "true"}], ids=str)
def test_a_dumb_terminal_and_ci_see_plain_lines(environment):
    shown = on_terminal("train", write_spec(), "epochs=100", **environment)
    assert "\x1b" not in shown
    assert "finished after 100 epochs" in shown


def test_no_color_is_honoured():
    shown = on_terminal("train", write_spec(), "epochs=700", NO_COLOR="1")
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", shown)


def test_a_long_run_prints_a_line_every_few_seconds(linreg, monkeypatch):
    from linreg.cli import progress

    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    lines = linreg("train", write_spec()).err.splitlines()
    assert re.fullmatch(r"epoch 1/6  loss [\d.]+  val_loss [\d.]+  \d+ steps/s  [\d.]+ s left", lines[0])
    assert len(lines) == 11


def test_tables_align_numbers_to_the_right():
    rows = [{"name": "a", "value": 1.5}, {"name": "bcd", "value": None}]
    assert format_table(rows, ["name", "value"]) == "name  value\na       1.5\nbcd       -"


def test_a_table_that_is_too_wide_breaks_names_and_then_goes_on_below():
    columns = ["run", *(f"optimizer.a_param_{i}" for i in range(4)), "epochs done"]
    rows = [{column: f"{column[-1]}{row}" for column in columns} for row in range(2)]
    assert format_wide_table(rows, columns, None) == format_table(rows, columns)
    assert format_wide_table(rows, columns[:3], 80) == format_table(rows, columns[:3])
    assert format_wide_table(rows, columns, 72) == (
        "     optimizer.  optimizer.  optimizer.  optimizer.  epochs\n"
        "run  a_param_0   a_param_1   a_param_2   a_param_3   done\n"
        "n0   00          10          20          30          e0\n"
        "n1   01          11          21          31          e1"
    )
    assert format_wide_table(rows, columns, 40) == (
        "     optimizer.  optimizer.  optimizer.\n"
        "run  a_param_0   a_param_1   a_param_2\n"
        "n0   00          10          20\n"
        "n1   01          11          21\n"
        "\n"
        "run  optimizer.a_param_3  epochs done\n"
        "n0   30                   e0\n"
        "n1   31                   e1"
    )
    assert format_wide_table(rows, columns[:4], 32, together=columns[2:4]) == (
        "run  optimizer.a_param_0\n"
        "n0   00\n"
        "n1   01\n"
        "\n"
        "     optimizer.  optimizer.\n"
        "run  a_param_1   a_param_2\n"
        "n0   10          20\n"
        "n1   11          21"
    )


def test_the_shipped_example_works_from_the_card():
    assert process("train", ROOT / "configs" / "simple_linear_regression.yaml").returncode == 0
    assert process("resume", "checkpoints/simple_linear_regression_001/last.pth").returncode == 0
    assert len(process("predict", "--inputs", "0.2", "0.34").stdout.splitlines()) == 2


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_commands_and_options(shell):
    script = process("completion", shell)
    assert (script.returncode, script.stderr) == (0, "")
    assert "_LINREG_COMPLETE" in script.stdout

    def completed(words):
        own = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1), "_TYPER_COMPLETE_ARGS": words}
        own |= {"_LINREG_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
        return process(env={**os.environ, **own}).stdout

    assert "train" in completed("linreg tr")
    assert "predict" not in completed("linreg tr")
    assert "--epochs" in completed("linreg train --ep")


def test_a_shell_runs_the_script_of_bash(tmp_path):
    (tmp_path / "script").write_text(process("completion", "bash").stdout)
    (tmp_path / "linreg").write_text(f"#!/bin/sh\nexec {sys.executable} -m linreg\n")
    (tmp_path / "linreg").chmod(0o755)
    ask = "COMP_WORDS=(linreg tr) COMP_CWORD=1; _linreg_completion ./linreg; echo ${COMPREPLY[@]}"
    answer = process(shell=f"bash -c '. ./script; {ask}'", cwd=tmp_path)
    assert answer.stdout == "train\n", answer.stderr


def test_the_environment_names_folders_and_device(linreg, monkeypatch):
    monkeypatch.setenv("LINREG_RUNS", "a/runs")
    monkeypatch.setenv("LINREG_CHECKPOINTS", "a/checkpoints")
    monkeypatch.setenv("LINREG_DEVICE", "cpu")
    assert linreg("train", write_spec()).out == "a/checkpoints/small_001/last.pth\n"
    assert "small_001" in linreg("runs").out
    assert "removed small_001" in linreg("runs", "rm", "small_001").err
    monkeypatch.setenv("LINREG_DEVICE", "cuda:99")
    assert "no cuda:99 on this machine" in linreg("train", "small.yaml").err
    assert linreg("train", "small.yaml", "--device", "cpu").code == 0


def test_a_table_of_wide_characters_is_aligned_and_broken_by_their_width():
    rows = [{"run": "長さ", "data.長い長い名前": 1.5}, {"run": "ab", "data.長い長い名前": 2.5}]
    table = format_wide_table(rows, ["run", "data.長い長い名前"], None)
    assert len({cell_len(line) for line in table.splitlines()}) == 1
    narrow = format_wide_table(rows, ["run", "data.長い長い名前"], 20)
    assert max(map(cell_len, narrow.splitlines())) <= 20
    assert len(narrow.splitlines()) == 4  # two lines of names
