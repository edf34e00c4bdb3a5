"""Epochs in one compiled call: the order of the rows is torch's, and the bits are those of the epochs one by one."""

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from numba import njit

from linreg.checkpoint import load
from linreg.data.split import draw_seed, permutation
from linreg.experiment.building import build
from linreg.runs.writer import _histograms
from linreg.spec.schema import spec_from_dict
from linreg.training import loops
from linreg.training.engines.compiled import order
from tests.conftest import same, small_spec, write_spec


@njit
def permuted(n, seed):
    rows = np.empty(n, np.int64)
    order.permute(rows, seed, np.full(order.N_WORDS, 7, np.uint32))
    return rows


@njit
def drawn(state, n):
    """Draw n seeds, and return the last one; the state changes."""
    words, seed = np.empty(order.N_WORDS, np.uint32), 0
    place = order.load_words(state, words)
    for _ in range(n):
        seed, place = order.draw_seed(words, place)
    order.store_words(state, words, place)
    return seed


SIZES = [1, 2, 3, 17, 227, 228, 229, 396, 397, 398, 623, 624, 625, 626, 1247, 1248, 1249, 1873, 100_000]


@pytest.mark.parametrize("seed", [0, 1, 13, 2**31 - 1, 2**32 - 1])
def test_a_permutation_is_torchs(seed):
    for n in SIZES:
        assert permuted(n, seed).tolist() == permutation(n, seed).tolist()


@pytest.mark.parametrize("n_before", [0, 1, 2, 311, 312, 313, 624])
@pytest.mark.parametrize("n", [1, 2, 311, 312, 313, 1000])
def test_seeds_and_the_state_after_them_are_those_of_the_loaders(n, n_before):
    generator = torch.Generator().manual_seed(5)
    for _ in range(n_before):
        draw_seed(generator)
    state = generator.get_state().numpy().view(np.uint64).copy()
    seed = drawn(state, n)
    expected = [draw_seed(generator) for _ in range(n)][-1]
    assert seed == expected % 2**32  # the half that a generator uses
    assert same(torch.from_numpy(state.view(np.uint8)), generator.get_state())


def test_a_state_after_another_draw_is_understood():
    generator = torch.Generator().manual_seed(5)
    torch.rand(3, generator=generator)  # an odd number of words
    state = generator.get_state().numpy().view(np.uint64).copy()
    assert drawn(state, 1) == draw_seed(generator) % 2**32
    assert same(torch.from_numpy(state.view(np.uint8)), generator.get_state())


VARIANTS = {
    "plain": {},
    "in order": {"data__shuffle": False},
    "no validation": {"data__split": {"train_ratio": 1.0}},
    "full batch": {"data__batch_size": "full"},
    "one row a batch": {"data__batch_size": 1},
    "standardize": {"data__standardize": True},
    "momentum": {"optimizer": {"name": "sgd", "lr": 0.01, "momentum": 0.9}},
    "adam": {"optimizer": {"name": "adam", "lr": 0.01}},
    "rmsprop": {"optimizer": {"name": "rmsprop", "lr": 0.01, "momentum": 0.5}},
    "best in the middle": {"optimizer": {"name": "adam", "lr": 0.8}},
    "mlp": {"model": {"name": "mlp", "hidden": [4, 3]}, "optimizer": {"name": "adam", "lr": 0.01}},
    "float64": {"model": {"name": "mlp", "hidden": [4]}, "dtype": "float64"},
    "clip": {"clip_grad_norm": 0.05, "optimizer": {"name": "adagrad", "lr": 0.1}},
    "many rows": {"data__source": {"name": "linear", "n_samples": 900}},
}


def experiment_of(variant, **changes):
    spec = small_spec(**{"engine": "compiled", "epochs": 1000, **VARIANTS[variant], **changes})
    return build(spec_from_dict(spec, "test"))


def state_of(experiment):
    generator = experiment.loaders.generator.get_state()
    return {**experiment.network.state_dict(), "optimizer": experiment.optimizer.state_dict(), "generator": generator}


def one_by_one(experiment, n_epochs):
    engine, losses, states = experiment.engine, [], []
    for _ in range(n_epochs):
        losses.append((engine.train_epoch(), engine.val_epoch() if engine.val_epoch else None))
        states.append(deepcopy(state_of(experiment)))
    return losses, states


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_group_has_the_bits_of_its_epochs_one_by_one(variant):
    losses, states = one_by_one(experiment_of(variant), 7)
    monitored = [loss if val_loss is None else val_loss for loss, val_loss in losses]
    experiment = experiment_of(variant)
    start, lowest, found = 0, float("inf"), []
    for n_epochs in (1, 4, 2):
        group = experiment.engine.group(start, n_epochs, lowest)
        best = min(range(start, start + n_epochs), key=monitored.__getitem__)
        if monitored[best] < lowest:
            lowest = monitored[best]
            assert group.best == best
            with group.at_best():
                assert same(state_of(experiment), states[best])
        else:
            assert group.best is None
        found += [(epoch.loss, epoch.val_loss) for epoch in group.epochs]
        start += n_epochs
        assert [epoch.epoch for epoch in group.epochs] == list(range(start - n_epochs, start))
    assert found == losses
    assert same(state_of(experiment), states[-1])


def test_the_last_state_is_back_after_an_error_at_the_best():
    experiment = experiment_of("best in the middle")
    group = experiment.engine.group(0, 7, float("inf"))
    last = deepcopy(state_of(experiment))
    with pytest.raises(ZeroDivisionError), group.at_best():
        assert not same(state_of(experiment), last)
        raise ZeroDivisionError
    assert same(state_of(experiment), last)


def test_a_group_ends_with_the_first_epoch_that_is_not_finite():
    losses, _ = one_by_one(experiment_of("plain", optimizer__lr=3.0), 60)
    n_finite = next(number for number, pair in enumerate(losses) if not np.isfinite(pair).all())
    group = experiment_of("plain", optimizer__lr=3.0).engine.group(0, 60, float("inf"))
    assert 3 < n_finite == len(group.epochs) - 1
    assert not np.isfinite(group.mini_batch_losses).all()
    assert group.best < n_finite


def test_a_group_ends_with_parameters_that_are_not_finite():
    changes = {"data__batch_size": "full", "data__split": {"train_ratio": 1.0}, "optimizer__lr": 1e200}
    group = experiment_of("plain", **changes).engine.group(0, 5, float("inf"))
    assert len(group.epochs) == 1
    assert np.isfinite(group.epochs[0].loss)
    assert group.best is None


WHOLE = {
    "best": {},
    "early stopping": {"early_stopping": {"patience": 3, "min_delta": 1e-3}},
    "numbered checkpoints": {"checkpoint": {"every": 7, "keep": 3}},
    "histograms": {"writer__histograms": 6},
    "step schedule": {"scheduler": {"name": "one_cycle", "max_lr": 0.1}},
    "epoch schedule": {"scheduler": {"name": "plateau", "patience": 2}},
}


@pytest.mark.parametrize("variant", WHOLE)
def test_a_run_in_groups_is_the_run_epoch_by_epoch(linreg, monkeypatch, variant):
    path = write_spec(**{"engine": "compiled", "epochs": 40, "optimizer__lr": 0.02, **WHOLE[variant]})
    calls = []
    for name, chunk in (("steps", 0.0), ("groups", 10.0)):
        monkeypatch.setattr(loops, "SECONDS_A_CHUNK", chunk)
        answer = linreg("train", path, "--name", name, "writer.plots=false")
        assert answer.code == 0, answer.err
        calls.append(Path(f"runs/{name}_001/metrics.jsonl").read_text())
    assert calls[0] == calls[1]
    assert (len(calls[0].splitlines()) < 40) == (variant == "early stopping")
    steps, groups = (_histograms(sorted(Path(f"runs/{name}_001").rglob("events*")), 40) for name in ("steps", "groups"))
    assert [event.step for event in steps] == [event.step for event in groups]
    assert [event.summary for event in steps] == [event.summary for event in groups]
    assert bool(steps) == (variant == "histograms")
    files = sorted(path.name for path in Path("checkpoints/steps_001").iterdir())
    assert files == sorted(path.name for path in Path("checkpoints/groups_001").iterdir())
    for name in files:
        steps, groups = (vars(load(f"checkpoints/{run}_001/{name}")) for run in ("steps", "groups"))
        for key in set(steps) - {"path", "run", "spec", "size"}:
            if key == "best":
                steps[key].pop("spec"), groups[key].pop("spec")
            assert same(steps[key], groups[key]), key
