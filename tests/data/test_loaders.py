"""The loaders draw what DataLoader draws, from a generator of their own."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Subset, TensorDataset, random_split

from linreg.data.dataset import CustomDataset
from linreg.data.loaders import make_loaders, make_tensor_loaders
from linreg.data.sources import DATASETS, Samples
from linreg.data.split import split
from linreg.errors import DataError
from linreg.experiment.data import prepare
from linreg.spec.schema import spec_from_dict
from tests.conftest import fingerprint, small_spec


def points(n):
    x = torch.arange(n, dtype=torch.float32).reshape(n, 1)
    return CustomDataset(x, 2 * x)


def batches(loader):
    return [batch[0].flatten().tolist() for batch in loader]


@pytest.mark.parametrize(("n", "batch_size", "shuffle"), [(10, 3, True), (10, 3, False), (7, 7, True), (5, 1, True)])
def test_batches_are_those_of_a_plain_dataloader(n, batch_size, shuffle):
    data, val = points(n), points(4)
    torch.manual_seed(5)
    own = make_loaders(data, val, batch_size=batch_size, shuffle=shuffle)
    mine = [(batches(own.train), batches(own.val)) for _ in range(4)]
    torch.manual_seed(5)
    train = DataLoader(TensorDataset(data.x, data.y), batch_size=batch_size, shuffle=shuffle)
    theirs = [(batches(train), batches(DataLoader(val, batch_size=batch_size))) for _ in range(4)]
    assert mine == theirs


def test_nothing_else_that_is_drawn_moves_the_batches():
    torch.manual_seed(5)
    own = make_loaders(points(10), None, batch_size=3, shuffle=True)
    first = [batches(own.train) for _ in range(3)]
    torch.manual_seed(5)
    own = make_loaders(points(10), None, batch_size=3, shuffle=True)
    second = []
    for _ in range(3):
        torch.rand(100)
        second.append(batches(own.train))
    assert first == second


@pytest.mark.parametrize(("width", "batch_size", "at_once"), [(1, 16, 2**14), (5000, 16, 96), (5000, 200, 200)])
def test_rows_are_gathered_many_at_once_but_no_more_values_than_fit_the_caches(monkeypatch, width, batch_size, at_once):
    gathered, rows = [], CustomDataset.rows
    monkeypatch.setattr(CustomDataset, "rows", lambda self, some: gathered.append(len(some)) or rows(self, some))
    n = at_once + 10
    dataset = CustomDataset(torch.zeros(1, width).expand(n, width), torch.zeros(n, 1))
    own = make_loaders(Subset(dataset, range(n)), None, batch_size=batch_size, shuffle=False)
    loader, _ = make_tensor_loaders(own, torch.device("cpu"))
    assert sum(len(x) for x, _ in loader.batches()) == n
    assert gathered == [at_once, 10]


def test_full_batches_hold_each_part_whole():
    own = make_loaders(points(10), points(4), batch_size=None, shuffle=False)
    assert [len(batch) for batch in batches(own.train)] == [10]
    assert [len(batch) for batch in batches(own.val)] == [4]


@pytest.mark.parametrize(("n", "ratio", "seed"), [(100, 0.8, 13), (11, 0.5, 0), (100, 0.29, 7)])
def test_split_is_random_split_after_seeding(n, ratio, seed):
    data = points(n)
    train_data, val_data = split(data, train_ratio=ratio, seed=seed)
    torch.manual_seed(seed)
    theirs = random_split(data, [int(n * ratio), n - int(n * ratio)])
    assert (train_data.indices.tolist(), val_data.indices.tolist()) == (theirs[0].indices, theirs[1].indices)


def test_a_ratio_of_one_leaves_no_validation_part():
    train_data, val_data = split(points(10), train_ratio=1.0, seed=13)
    assert len(train_data) == 10
    assert val_data is None


@pytest.mark.parametrize(("n", "ratio"), [(1, 0.8), (3, 0.1)])
def test_too_few_points_for_the_ratio_are_an_error(n, ratio):
    with pytest.raises(DataError, match=rf"data.split: {n} points in the ratio {ratio} leave"):
        split(points(n), train_ratio=ratio, seed=13)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (Samples(np.zeros(3), np.zeros((3, 1))), r"x is float64 \(3,\); it must be an array of numbers"),
        (Samples(np.array([["a"]]), np.zeros((1, 1))), "x is <U1"),
        (Samples(np.zeros((0, 1)), np.zeros((0, 1))), "x is empty"),
        (Samples(np.array([[1.0], [np.nan]]), np.zeros((2, 1))), "row 2, column 'x': nan is not finite; fix it"),
        (Samples(np.zeros((3, 1)), np.zeros((2, 1))), "3 rows of x but 2 of y"),
    ],
)
def test_unusable_values_are_reported(samples, message):
    DATASETS.register("given")(lambda: samples)
    with pytest.raises(DataError, match=message):
        prepare(spec_from_dict(small_spec(data__source={"name": "given"}), "test"))


def test_names_of_columns_follow_their_number():
    assert Samples(np.zeros((2, 1)), np.zeros((2, 1))).feature_names == ("x",)
    assert Samples(np.zeros((2, 3)), np.zeros((2, 2))).feature_names == ("x1", "x2", "x3")
    assert Samples(np.zeros((2, 3)), np.zeros((2, 2))).target_names == ("y1", "y2")


def test_the_fingerprint_tells_data_apart():
    a, b = (Samples(dataset.x.numpy(), dataset.y.numpy()) for dataset in (points(10), points(10)))
    more = points(11)
    assert fingerprint(a) == fingerprint(b)
    b.y[3] += 1e-6 + b.y[3] * 1e-6
    assert fingerprint(a) != fingerprint(b)
    assert fingerprint(a) != fingerprint(Samples(more.x.numpy(), more.y.numpy()))
    assert fingerprint(a) != fingerprint(replace(a, feature_names=["a"]))
    assert fingerprint(a) != fingerprint(replace(a, weight=np.ones(10)))
