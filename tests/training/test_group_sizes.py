"""Groups of processes: the results of one process, to the last bit, for all that reads, divides and trains."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
from pyarrow import csv, parquet

from linreg.spec.schema import spec_from_dict
from tests.conftest import small_spec, times
from tests.faults.groups import start_fresh, start_group
from tests.training.sharded_runs import outcome_of

RUNS = ["tests.training.sharded_runs", "specs.json", "results.json"]
OPTIMIZERS = [
    {"name": "sgd", "lr": 0.05, "momentum": 0.9, "nesterov": True},
    {"name": "adam", "lr": 0.01},
    {"name": "adamw", "lr": 0.01, "weight_decay": 0.1},
    {"name": "rmsprop", "lr": 0.01},
    {"name": "adagrad", "lr": 0.05},
]
MODELS = [
    {"name": "linear"},
    {"name": "mlp", "hidden": [7]},
    {"name": "mlp", "hidden": [8, 5], "activation": "gelu"},
    {"name": "mlp", "hidden": [6], "dropout": 0.3},
    {"name": "polynomial", "degree": 2},
]


def random_spec(draw, size):
    """A spec with shards for `size` processes, from a seeded generator."""
    points = {"name": "friedman1", "n_samples": draw.choice([41, 60, 97]), "n_features": 5}
    table = {"name": "csv", "path": "table.csv", "target": "y", "missing": "mean"}
    table |= {"exclude": ["kind", "plant", "day"], "sample_weight": "weight"}
    changes = {
        "data__source": draw.choice([points, table]),
        "data__batch_size": draw.choice([7, 16, "full"]),
        "data__shuffle": draw.random() < 0.8,
        "data__shards": draw.choice([size, size + 1, 7]),
        "model": draw.choice(MODELS),
        "optimizer": draw.choice(OPTIMIZERS),
        "loss": {"name": draw.choice(["mse", "mae", "huber"])},
        "dtype": draw.choice(["float32", "float64"]),
        "epochs": draw.choice([1, 3]),
        "seed": draw.randrange(1000),
        "baseline": False,
    }
    if draw.random() < 0.4:
        changes["clip_grad_norm"] = 0.5
    if draw.random() < 0.4:
        changes["data__standardize"] = True
    if draw.random() < 0.4:
        changes["scheduler"] = draw.choice([{"name": "step", "step_size": 1}, {"name": "one_cycle", "max_lr": 0.02}])
    return small_spec(**changes)


def exact_specs():
    """Specs of exact solutions, with all that divides the rows."""
    table = {"name": "friedman1", "n_samples": 203, "n_features": 6}
    plain = {"solver": "exact", "data__shards": 5, "data__source": table}
    for changes in (
        {},
        {"data__standardize": True, "ridge": 2.0},
        {"penalty": {"name": "lasso"}, "data__split": {"train_ratio": 0.7, "test_ratio": 0.1}},
        {"data__split": {"folds": 4, "fold": 2}, "model": {"name": "polynomial", "degree": 2}},
        {"data__split": {"by": "order"}, "model": {"name": "linear", "bias": False}, "dtype": "float32"},
    ):
        yield small_spec(**plain, **changes)


def write_tables():
    """A table of numbers, categories, gaps, weights, groups and times, in three formats."""
    draw = np.random.default_rng(5)
    lines = ["a,b,kind,weight,plant,day,y"]
    for i in range(211):
        a = "" if draw.random() < 0.1 else f"{draw.normal() + 3:.4f}"
        kind = ["one", '"two, quoted"', '"three\nlines"', "rare"][min(draw.integers(80) // 20, 3) if i > 9 else 0]
        day = f"2024-{draw.integers(1, 13):02}-{draw.integers(1, 29):02}"
        b, plant = draw.random(), draw.integers(12)
        lines.append(f"{a},{b:.5f},{kind},{draw.integers(1, 5)},{plant},{day},{b + draw.normal():.5f}")
    Path("table.csv").write_text("\n".join(lines) + "\n")
    Path("later.csv").write_text("\n".join([lines[0], *lines[30:53]]) + "\n")
    table = csv.read_csv("table.csv", parse_options=csv.ParseOptions(newlines_in_values=True))
    parquet.write_table(table, "table.parquet", row_group_size=17)


def table_specs():
    """Specs of tables, with all that is learnt from rows, all that divides them, and what calibrates. The first two
    have the same result."""
    table = {"name": "csv", "path": "table.csv", "target": "y", "categorical": "kind", "unseen": "zeros"}
    table |= {"exclude": ["plant", "day"], "sample_weight": "weight", "missing": "median"}
    parquet_table = {**table, "name": "parquet", "path": "table.parquet"}
    without = {**table, "exclude": ["plant", "day", "kind"], "categorical": [], "sample_weight": None}
    without["exclude"] = [*without["exclude"], "weight"]
    adam = {"optimizer": {"name": "adam", "lr": 0.01}, "epochs": 2, "data__shards": 4}
    exact = {"solver": "exact", "data__shards": 4}
    log = {"name": "spline", "columns": "b"}
    split = {"intervals": {"method": "split"}}
    shares = {"train_ratio": 0.5, "calibration_ratio": 0.2, "test_ratio": 0.1}
    for changes in (
        {**adam, "data__source": table, "data__standardize": True},
        {**adam, "data__source": parquet_table, "data__standardize": True, "data__memory": "mapped"},
        {**adam, "data__source": {**table, "missing": "drop"}, "data__split": {"by": {"group": "plant"}}},
        {**adam, "data__source": {**table, "missing": "mean"}, "data__split": {"by": {"time": "day"}}},
        {**adam, "data__source": parquet_table, "data__split": {"by": {"stratify": "kind"}, "test_ratio": 0.2}},
        {**adam, "data__source": table, "data__split": {"val": "later.csv"}, "data__shuffle": False},
        {**adam, "data__source": table, "data__memory": "mapped", "data__split": {"val": "later.csv"}},
        {**adam, "data__source": without, "data__transforms": [log], "data__standardize": True},
        {**exact, "data__source": table, "data__standardize": True},
        {**exact, "data__source": {**parquet_table, "missing": "drop"}, "data__memory": "mapped"},
        {**exact, "data__source": without, "data__transforms": [log], "data__split": {"folds": 3, "fold": 1}},
        {**exact, "data__source": table, "penalty": {"name": "lasso"}, "data__split": {"by": {"group": "plant"}}},
        {**exact, "data__source": table, "data__split": {"by": {"time": "day"}, "folds": 3, "fold": 0}},
        {**adam, **split, "data__source": parquet_table, "data__split": shares},
        {**adam, **split, "data__source": table, "data__split": {**shares, "by": {"group": "plant"}}},
        {**exact, **split, "data__source": table, "data__split": {**shares, "by": {"time": "day"}}},
        {**exact, **split, "data__source": parquet_table, "data__split": {**shares, "folds": 3, "fold": 1}},
        {**exact, "intervals": {"method": "jackknife_plus"}, "data__source": table, "data__memory": "mapped"},
    ):
        yield small_spec(**changes)


SIZES = [2, 3, 4]


def specs_of(size):
    draw = random.Random(size)
    return [*table_specs(), *exact_specs(), *(random_spec(draw, size) for _ in range(times(4, 40)))]


def run_group(start, size, specs, folder):
    """Train specs by a group in a folder, and return the results. All processes end as Python does: a thread of gloo
    that runs then aborts the process."""
    (folder / "specs.json").write_text(json.dumps(specs))
    processes = start_group(start, RUNS, size, cwd=folder)
    answers = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0] * size, answers
    assert all("threads: " in errors for _, errors in answers), answers
    assert not any("gloo" in errors for _, errors in answers), answers
    return json.loads((folder / "results.json").read_text())


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """The outcomes of all specs in this process, by their text."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("one"))
        write_tables()
        specs = {json.dumps(spec): spec for size in SIZES for spec in specs_of(size)}
        return {text: outcome_of(spec_from_dict(spec, "test")) for text, spec in specs.items()}


@pytest.mark.parametrize("size", SIZES)
def test_any_number_of_processes_has_the_bits_of_one(tmp_path, forks, outcomes, size):
    write_tables()
    specs = specs_of(size)
    found = run_group(forks.start, size, specs, tmp_path)
    assert found == [outcomes[json.dumps(spec)] for spec in specs]
    assert found[0] == found[1]  # neither the format nor the memory matters
    assert len({one["states"] for one in found[1:]}) == len(found) - 1


def test_processes_that_share_no_import_have_the_bits_of_one(tmp_path, outcomes):
    """Fresh processes have seeds of hashes and threads of their own, from their start to their end."""
    write_tables()
    specs = specs_of(2)[-3:]
    assert run_group(start_fresh, 2, specs, tmp_path) == [outcomes[json.dumps(spec)] for spec in specs]
