"""Draws experiments at random for the kills: `draw_spec` for those of runs, `draw_sweep` for those of sweeps."""

import random
from pathlib import Path
from typing import Any

LR = "optimizer.lr"
MOST_MODELS = 24  # of a sweep


def draw_spec(chance: random.Random, folder: Path) -> dict[str, Any]:
    """Draw an experiment; a table that it may be about is written into the folder."""
    source = _draw_source(chance, folder)
    lean = {
        "model": chance.choice([
            {"name": "linear"},
            {"name": "mlp", "hidden": [8, 4], "dropout": 0.25},
            {"name": "mlp", "hidden": [6], "activation": "tanh"},
            {"name": "polynomial", "degree": 3},
            {"name": "drawing"},
        ]),
        "optimizer": chance.choice([
            {"name": "sgd", "lr": 0.05},
            {"name": "sgd", "lr": 0.02, "momentum": 0.9, "nesterov": True},
            {"name": "adam", "lr": 0.01, "amsgrad": True},
            {"name": "adamw", "lr": 0.01},
            {"name": "rmsprop", "lr": 0.01, "momentum": 0.5, "centered": True},
            {"name": "adagrad", "lr": 0.1, "lr_decay": 0.01},
        ]),
        "engine": chance.choice(["auto", "auto", "textbook"]),
        "clip_grad_norm": chance.choice([None, None, 0.5]),
    }  # fmt: skip
    compiled = {"model": {"name": "linear"}, "optimizer": {"name": "adam", "lr": 0.01}, "engine": "compiled"}
    spec = {
        "name": "small",
        "seed": chance.randrange(1000),
        "epochs": chance.randint(15, 60),
        "data": {
            "source": source,
            "batch_size": chance.choice([7, 8, 16, "full"]),
            "split": {"train_ratio": chance.choice([0.8, 0.8, 1.0])},
            "standardize": chance.choice([False, True]),
            "memory": chance.choice(["resident", "mapped"]) if source["name"] == "csv" else "resident",
        },
        **(compiled if chance.random() < 1 / 6 else lean),
        "scheduler": chance.choice([
            None,
            {"name": "step", "step_size": 7, "gamma": 0.7},
            {"name": "exponential", "gamma": 0.98},
            {"name": "cosine", "t_max": 20},
            {"name": "plateau", "patience": 1, "factor": 0.5},
            {"name": "one_cycle", "max_lr": 0.05},
        ]),
        "early_stopping": chance.choice([None, None, {"patience": 6, "min_delta": 1e-4}]),
        "checkpoint": chance.choice([
            {"every": 1, "keep": 2},
            {"every": 3, "keep": 1, "every_seconds": 0.01},
            {"every": 4, "best": False},
            {"every": 2},
            {"every_seconds": 0.01},
            {"every_seconds": 0.01, "best": False},
            {"every_seconds": 0.03},
        ]),
        "writer": {
            "graph": chance.random() < 0.2,
            "hparams": chance.random() < 0.5,
            "plots": chance.random() < 0.2,
            "histograms": chance.choice([0, 2, 5]),
        },
    }  # fmt: skip
    return {key: value for key, value in spec.items() if value is not None}


def _draw_source(chance: random.Random, folder: Path) -> dict[str, Any]:
    """Draw a source of points. Its table, if it has one, is written into the folder."""
    columns = [(chance.random(), chance.random(), chance.choice("abc"), chance.random()) for _ in range(53)]
    rows = [f"{x},{z},{kind},{weight},{2 * x - z + chance.gauss(0, 0.1)}" for x, z, kind, weight in columns]
    (folder / "table.csv").write_text("\n".join(["x,z,kind,weight,y", *rows]) + "\n")
    table = {"name": "csv", "path": "table.csv", "target": "y"}
    return chance.choice([
        {"name": "linear", "n_samples": 50},
        {"name": "linear", "n_samples": 47, "weight": [1.0, -2.0]},
        {"name": "sine", "n_samples": 60},
        {**table, "categorical": "kind", "exclude": "weight"},
        {**table, "exclude": "kind", "sample_weight": "weight"},
    ])  # fmt: skip


def draw_sweep(chance: random.Random, folder: Path) -> dict[str, Any]:
    """Draw a sweep of at most MOST_MODELS models, or more with the method tpe."""
    kind, early = (
        chance.choice(["stack", "stack", "stack", "alone", "compiled", "exact"]),
        {"patience": 3, "min_delta": 1e-4},
    )
    has_folds, seeds = chance.random() < 1 / 4, chance.choice([1, 1, 2, 3])
    parameters, trials = _draw_parameters(kind, chance, MOST_MODELS // (seeds * (3 if has_folds else 1)))
    source, grows = _draw_source(chance, folder), trials.get("method") == "tpe"  # from the results of 10 trials on
    is_halved = chance.random() < 1 / 3 and kind != "exact" and not grows
    halving = {"factor": chance.choice([2, 3]), "min_epochs": chance.randint(1, 4)}
    spec = {
        "name": "small",
        "seed": chance.randrange(1000),
        "epochs": chance.randint(8, 60),
        "data": {
            "source": source,
            "batch_size": chance.choice([7, 8, 16, "full"]),
            "split": chance.choice([{"train_ratio": 0.8}, {"train_ratio": 0.6, "test_ratio": 0.2}]),
            "standardize": chance.choice([False, True]),
            "memory": chance.choice(["resident", "mapped"]) if source["name"] == "csv" else "resident",
        },
        "model": chance.choice([{"name": "linear"}, {"name": "mlp", "hidden": [4, 3]}]),
        "optimizer": {"name": chance.choice(["sgd", "adam"]), "lr": 0.02},
        "engine": "compiled" if kind == "compiled" else "auto",
        "scheduler": chance.choice([None, None, {"name": "step", "step_size": 7}, {"name": "plateau", "patience": 1}]),
        "early_stopping": chance.choice([None, None, early]),
        "checkpoint": chance.choice([{"every": 3}, {"every": 1, "keep": 2}, {"every_seconds": 0.01}]),
        "writer": {
            "graph": False,
            "hparams": chance.random() < 0.5,
            "plots": chance.random() < 0.2,
            "histograms": chance.choice([0, 5]),
        },
        "sweep": {
            "parameters": parameters,
            **trials,
            "seeds": seeds,
            "folds": 3 if has_folds else None,
            "halving": halving if is_halved else None,
            "metric": "val_loss" if is_halved else chance.choice(["val_loss", "val_loss", "rmse", "r2"]),
            "keep": chance.choice([1, 1, 2]),
            "select": "one_se" if seeds > 1 and chance.random() < 1 / 3 else "best",
        },
    }
    if kind == "exact":
        spec |= {"solver": "exact", "model": {"name": "linear"}}
        for key in ("epochs", "optimizer", "scheduler", "early_stopping", "checkpoint"):
            del spec[key]
    if kind == "alone":
        spec |= chance.choice([
            {"model": {"name": "mlp", "hidden": [4], "dropout": 0.25}},
            {"model": {"name": "mlp", "hidden": [6], "dropout": 0.1}},
            {"engine": "textbook"},
            {"clip_grad_norm": 0.5},
        ])  # fmt: skip
    spec["sweep"] = {key: value for key, value in spec["sweep"].items() if value is not None}
    return {key: value for key, value in spec.items() if value is not None}


def _draw_parameters(kind: str, chance: random.Random, most: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Draw the parameters of a sweep, and the keys that say how trials are drawn from them; at most n trials."""
    most = max(2, min(most, 8))
    if kind == "exact":
        ridge, chosen = [0.0, 0.1, 0.5, 2.0, 7.0, 20.0], {"strength": "auto", "folds": 3}
        penalties = [{"name": "ridge", **chosen}, {"name": "lasso", **chosen}, {"name": "lasso", "strength": 0.1}]
        return {"penalty": penalties[:most]} if chance.random() < 1 / 3 else {"ridge": ridge[:most]}, {}
    hopeless = chance.random()  # rates diverge
    if chance.random() < 1 / 3:
        highest = 1e14 if hopeless < 1 / 4 else 0.2
        method = chance.choice(["random", "sobol", "tpe"] if most == 8 else ["random", "sobol"])
        drawn = {"method": method, "trials": 22 if method == "tpe" else most, "seed": chance.randrange(100)}
        return {LR: {"min": 1e-3, "max": highest, "log": True}}, drawn
    if hopeless < 1 / 16:
        return {LR: [1e14, 1e15]}, {}
    rates = [0.003, 0.01, 0.03, 0.1, 1e14 if hopeless < 1 / 3 else 0.2, 0.05, 0.07, 0.006]
    models = [{"name": "linear"}, {"name": "mlp", "hidden": [4]}, {"name": "mlp", "hidden": [4], "dropout": 0.3}]
    optimizers = [
        {"name": "sgd", "lr": 0.05, "momentum": 0.9}, {"name": "adamw", "lr": 0.01},
        {"name": "rmsprop", "lr": 0.01}, {"name": "adagrad", "lr": 0.1},
    ]  # fmt: skip
    return chance.choice([
        {LR: rates[:most]},
        {LR: rates[-most // 2 :], "seed": [1, 2]},
        {LR: rates[3 : 3 + max(1, most // 3)], "model": models[: 2 if kind == "compiled" else 3]},
        {"optimizer": optimizers[: max(2, most // 2)], "model": models[:2]},
    ]), {}  # fmt: skip
