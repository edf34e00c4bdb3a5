"""What TensorBoard shows, read from its files and seen on its page."""

import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from linreg.checkpoint import load
from linreg.runs.writer import open_writer
from tests.conftest import write_spec
from tests.runs.browser import CHROMIUM, TEXT, open_page

ALL = {"graph": True, "hparams": True, "histograms": 2, "figures": True, "plots": False}


@pytest.fixture
def run(linreg):
    assert linreg("train", write_spec(epochs=8, writer=ALL), "-q").code == 0
    return Path("runs/small_001")


def test_both_losses_are_in_one_chart_with_every_digit_that_float32_has(run):
    saved = load("checkpoints/small_001/last.pth")
    for part, losses in (("training", saved.loss), ("validation", saved.val_loss)):
        events = EventAccumulator(str(run / f"loss_{part}")).Reload().Scalars("loss")
        assert [event.step for event in events] == list(range(8))
        assert [event.value for event in events] == pytest.approx(losses, rel=1e-6)


def test_the_graph_the_spec_the_learning_rate_the_histograms_and_the_figure_are_there(run):
    events = EventAccumulator(str(run), size_guidance={"histograms": 0}).Reload()
    tags = events.Tags()
    assert tags["graph"] is True
    assert set(tags["scalars"]) == {"learning_rate", "summary/loss", "summary/val_loss"}
    assert set(tags["histograms"]) == {"parameters/0.weight", "parameters/0.bias"}
    assert [event.step for event in events.Histograms("parameters/0.bias")] == [1, 3, 5, 7]
    assert tags["images"] == ["summary/losses"]
    assert b"name: small" in events.Tensors("spec/text_summary")[0].tensor_proto.string_val[0]


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:DeprecationWarning")  # add_graph's own
def test_the_graph_is_the_one_that_add_graph_makes(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Dropout(0.5), nn.Linear(4, 1))
    x = torch.randn(5, 3)
    with open_writer(tmp_path / "ours") as writer:
        writer.write_graph(model, x)
    assert model.training
    with SummaryWriter(tmp_path / "torch's") as board:
        board.add_graph(model.eval(), x)
    graphs = [EventAccumulator(str(tmp_path / name)).Reload().Graph() for name in ("ours", "torch's")]
    assert graphs[0] == graphs[1]
    assert len(graphs[0].node) > 10


def test_hyperparameters_make_no_run_of_their_own(run):
    folders = sorted(path.name for path in run.iterdir() if path.is_dir())
    assert folders == ["loss_exact", "loss_training", "loss_validation"]
    events = EventAccumulator(str(run), size_guidance={"histograms": 0}).Reload()
    content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    hparams = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams
    assert hparams["optimizer.lr"].number_value == 0.1
    assert not any(key.startswith(("writer", "checkpoint", "name")) for key in hparams)


def test_a_model_that_cannot_be_traced_is_trained_with_a_warning(linreg):
    Path("p.py").write_text(
        "from linreg import MODELS\n\n@MODELS.register('odd')\ndef odd(n_features, n_targets):\n    from torch import nn\n\n"
        "    class Odd(nn.Linear):\n        def forward(self, x):\n            if len(x) > 2:\n"
        "                import torch\n                if torch.jit.is_tracing():\n                    raise RuntimeError('no tracing')\n"
        "            return super().forward(x)\n    return Odd(n_features, n_targets)\n"
    )
    answer = linreg("train", write_spec(), "model={name: odd}", "writer.graph=true", "--plugin", "p.py", "-q")
    assert answer.code == 0
    assert answer.err == "warning: cannot write the model's graph: no tracing; set writer.graph=false to skip it\n"


def wait_for_curves(page, path):
    """Wait until both runs' colours are drawn to the right of the tables' own dots: those are the curves."""
    for _ in range(40):
        page.screenshot(path)
        pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)[:, 400:750]
        colours = {name: np.array(colour) for name, colour in (("teal", (18, 181, 203)), ("pink", (229, 37, 146)))}
        drawn = {name: int((abs(pixels - colour).max(axis=2) < 30).sum()) for name, colour in colours.items()}
        if min(drawn.values()) > 100:
            return
        time.sleep(0.2)
    raise AssertionError(f"the chart has no two curves: {drawn}")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: TensorBoard's page was not looked at")
def test_the_page_shows_both_curves_the_graph_and_the_hyperparameters(run, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", "runs", "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen([*command, "--load_fast=false"], stderr=subprocess.PIPE, text=True)
    try:
        assert any(f"http://127.0.0.1:{port}" in line for line in server.stderr)
        with open_page(tmp_path / "profile") as page:

            def show(tab):
                page.call("Page.navigate", url="about:blank")
                page.wait_for("location.href === 'about:blank'", "an empty page")
                page.call("Page.navigate", url=f"http://127.0.0.1:{port}/#{tab}")

            def wait_for_text(*texts):
                for text in texts:
                    page.wait_for(f"{TEXT}.includes({text!r})", text)

            show("timeseries")
            wait_for_text("Smoothed Value Step Relative small_001/loss_exact")
            chart = page.evaluate(TEXT).partition("Relative small_001/loss_exact")[2].partition("Single Range")[0]
            assert "small_001/loss_validation" in chart.partition(" summary ")[0]
            assert "small_001/loss_training" in chart.partition(" summary ")[0]
            wait_for_curves(page, tmp_path / "curves.png")

            show("graphs")
            wait_for_text("Main Graph", "Sequential", "output", "input")
            show("hparams")
            wait_for_text("optimizer.lr", "summary/val_loss", "small_001")
    finally:
        server.kill()
        server.communicate()
