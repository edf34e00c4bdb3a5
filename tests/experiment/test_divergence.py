"""The first number that is not finite ends a run: it is told where, what would do, and the best is kept."""

import json
import math
import re
from pathlib import Path

import pytest
import torch

from linreg.checkpoint import load
from linreg.data.sources import DATASETS, Samples
from linreg.errors import DivergedError, StorageError
from linreg.experiment import divergence, saving
from linreg.experiment.building import build
from linreg.experiment.session import train
from linreg.spec.schema import spec_from_dict
from linreg.training import loops
from tests.conftest import small_spec, write_spec


def first_infinite(spec):
    """Run the textbook's loop until a loss is not finite; give the epoch and the step in it."""
    experiment = build(spec_from_dict({**spec, "engine": "textbook"}, "test"))
    losses = []
    while not losses or math.isfinite(losses[-1]):
        for batch in experiment.loaders.train:
            losses.append(experiment.train_step_fn(*batch))
            if not math.isfinite(losses[-1]):
                break
        else:
            list(experiment.loaders.val)  # its pass draws, too
    return divmod(len(losses) - 1, len(experiment.loaders.train))


@pytest.mark.parametrize("engine", ["auto", "textbook", "compiled"])
@pytest.mark.parametrize("chunk", [0.0, 10.0], ids=["each step looked at", "many at once"])
def test_the_epoch_and_step_are_those_of_the_textbooks_first_infinite_loss(monkeypatch, engine, chunk):
    monkeypatch.setattr(loops, "SECONDS_A_CHUNK", chunk)
    spec = small_spec(epochs=500, optimizer__lr=3.0, engine=engine, baseline=False, data__batch_size=3)
    epoch, step = first_infinite(spec)
    assert epoch > 0 < step
    with pytest.raises(DivergedError, match=rf"^epoch {epoch}, step {step}: loss is inf; lower optimizer.lr"):
        train(spec_from_dict(spec, "test"))


def test_divergence_is_reported_with_a_remedy_and_keeps_the_best(linreg):
    Path("t.csv").write_text("a,b,y\n" + "".join(f"{i},{-1000 * i},{i}\n" for i in range(40)))
    source = {"name": "csv", "path": "t.csv", "target": "y"}
    answer = linreg("train", write_spec(epochs=500, data__source=source, optimizer__lr=1e-6, baseline=False))
    assert (answer.code, answer.out) == (6, "")
    assert re.fullmatch(
        r"error: epoch \d+, step \d+: loss is inf; lower optimizer.lr \(it is 1e-06\), set clip_grad_norm, or bring the "
        r"inputs to a common scale \(data.standardize: true; b, from -38000 to 0, has the largest\); "
        r"checkpoints/small_001/best.pth has the best epoch\n",
        answer.err,
    )
    assert json.loads(linreg("runs", "--json").out)[0]["outcome"] == "diverged"
    best = load("checkpoints/small_001/best.pth")
    lowest = min(range(best.epoch), key=best.val_loss.__getitem__)
    records = [json.loads(line) for line in Path("runs/small_001/metrics.jsonl").read_text().splitlines()]
    assert best.epoch == lowest + 1
    assert min(record["val_loss"] for record in records) == best.val_loss[-1]


def test_no_checkpoint_of_a_diverged_run_has_non_finite_values():
    spec = small_spec(epochs=500, optimizer__lr=2.0, baseline=False, checkpoint={"every": 1, "keep": 3})
    with pytest.raises(DivergedError, match=r"last.pth has the last good state$"):
        train(spec_from_dict(spec, "test"))
    paths = sorted(path.name for path in Path("checkpoints/small_001").iterdir())
    assert paths[0] == "best.pth"
    assert len(paths) == 5
    for path in Path("checkpoints/small_001").iterdir():
        saved = load(path)
        assert all(map(math.isfinite, [*saved.loss, *saved.val_loss]))
        assert all(tensor.isfinite().all() for tensor in saved.model_state_dict.values())


def test_a_parameter_that_the_last_step_made_infinite_is_found():
    DATASETS.register("steep")(lambda: Samples(torch.full((4, 1), 1e19).numpy(), torch.zeros(4, 1).numpy()))
    spec = small_spec(
        data={"source": {"name": "steep"}, "batch_size": "full", "split": {"train_ratio": 1.0}},
        optimizer__lr=1e3,
        baseline=False,
    )
    with pytest.raises(DivergedError, match=r"^epoch 0, step 0: 0\.weight is no longer finite"):
        train(spec_from_dict(spec, "test"))
    assert not list(Path("checkpoints").rglob("*.pth"))


def test_inputs_on_one_scale_are_not_blamed():
    experiment = build(spec_from_dict(small_spec(data__standardize=True), "test"))
    assert divergence.remedy(experiment).endswith("or bring the inputs to a common scale")


def test_divergence_is_reported_even_if_the_best_cannot_be_written(monkeypatch):
    def full(*arguments):
        raise StorageError("full")

    monkeypatch.setattr(saving, "save", full)
    spec = small_spec(epochs=500, optimizer__lr=2.0, baseline=False, checkpoint={"every": 1000})
    with pytest.raises(DivergedError, match=r"^epoch \d+: val_loss is inf"):
        train(spec_from_dict(spec, "test"))
    assert json.loads(Path("runs/small_001/run.json").read_text())["outcome"] == "diverged"
