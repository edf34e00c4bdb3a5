"""Intervals have their level, are those of independent computations, and are refused where they would not hold."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from linreg import build, fit, load, load_spec, predict, train
from linreg.data import pipeline
from linreg.data.rows import StreamedRows
from linreg.data.sources import Samples
from linreg.data.split import Parts, divide
from linreg.errors import CheckpointError, DataError, DivergedError, SpecError, UsageError
from linreg.experiment.data import folds_of, inner_folds, open_parts, read_rows, recipe_of
from linreg.experiment.intervals import calibrating, limits
from linreg.experiment.intervals.calibrating import calibrate, calibrate_solved
from linreg.experiment.intervals.opening import open_intervals
from linreg.experiment.intervals.ranks import fewest, highest_level, rank
from linreg.experiment.loaded import LoadedModel
from linreg.experiment.resuming import resume
from linreg.experiment.solving import solve_exactly
from linreg.spec.schema import spec_from_dict
from tests.conftest import same, small_spec, write_spec
from tests.data.test_own_rows import in_group

N_SEEDS = 200
SPLIT = {"intervals": {"method": "split"}, "data__split": {"train_ratio": 0.5, "calibration_ratio": 0.38, "seed": 1}}
MLP = {"name": "mlp", "hidden": [4], "activation": "tanh"}


def spec_of(**changes):
    return spec_from_dict(small_spec(**changes), "small.yaml")


def exact(**changes):
    return {"solver": "exact", **changes}


@pytest.fixture
def table(own_folder):
    """60 rows of a line with noise, a weight, and a group for each five rows."""
    generator = np.random.default_rng(3)
    x, z = generator.normal(size=60), generator.normal(size=60)
    y = np.exp(1 + 0.3 * x - 0.2 * z + 0.1 * generator.standard_t(3, size=60))
    weight, group, day = generator.integers(1, 5, size=60), np.arange(60) // 5, generator.permutation(60)
    rows = np.column_stack([x, z, y, weight, group, day])
    lines = [",".join(map(repr, row)) for row in rows.tolist()]
    (own_folder / "t.csv").write_text("\n".join(["x,z,y,w,g,day", *lines]) + "\n")
    return rows


def csv(**params):
    return {"name": "csv", "path": "t.csv", "target": "y", "features": ["x", "z"], **params}


# The level


def band(probability):
    """The counts that a binomial of N_SEEDS draws is in with a probability of 99 %."""
    return stats.binom.ppf(0.005, N_SEEDS, probability), stats.binom.ppf(0.995, N_SEEDS, probability)


def covered(models, level):
    """Count the seeds whose new point is in the interval of its model."""
    count = 0
    for model, x, y in models:
        lower, upper = open_intervals(model, level).bounds(x, model(x))
        count += int((lower <= y).all() and (y <= upper).all())
    return count


def new_point(rows, parts):
    (number,) = parts.test
    block = next(rows.blocks())
    return block.x[[number]], block.y[[number]]


def solved_models(intervals, split):
    """A model solved exactly for each seed, with a new point."""
    template = load(train(spec_of(solver="exact", intervals=intervals, data__split=split)).checkpoint)
    for seed in range(N_SEEDS):
        source = {"name": "linear", "n_samples": 50, "noise": 0.5, "seed": seed}
        spec = spec_of(solver="exact", intervals=intervals, data__source=source, data__split=split)
        solved = solve_exactly(spec)
        kept = calibrate_solved(spec, solved)
        saved = replace(
            template, model_state_dict=dict(solved.model.state_dict()), fit=solved.exact.fit, intervals=kept
        )
        yield LoadedModel(saved, device="cpu"), *new_point(solved.rows, solved.parts)


def trained_models():
    """A network trained for a few epochs for each seed, with a new point."""
    settings = {"model": MLP, "intervals": {"method": "split"}, "epochs": 2}
    split = with_test({"train_ratio": 0.6, "calibration_ratio": 0.38})
    template = load(train(spec_of(data__split=split, **settings)).checkpoint)
    for seed in range(N_SEEDS):
        source = {"name": "sine", "n_samples": 50, "seed": seed}
        spec = spec_of(data__source=source, data__split=split, seed=seed, **settings)
        experiment = build(spec)
        list(fit(experiment.engine.train_epoch, None, range(2)))
        kept = calibrate(experiment, None, lambda: None).last
        saved = replace(template, model_state_dict=dict(experiment.model.state_dict()), intervals=kept)
        yield LoadedModel(saved, device="cpu"), *new_point(*open_parts(spec))


def with_test(split):
    """With one row of 50 for the test part, and 19 for calibration if there is such a part."""
    return {**split, "test_ratio": 1 - sum(split.values())}


@pytest.mark.parametrize(
    "models",
    [
        lambda: solved_models({"method": "split"}, with_test({"train_ratio": 0.6, "calibration_ratio": 0.38})),
        lambda: solved_models({"method": "jackknife_plus"}, with_test({"train_ratio": 0.98})),
        lambda: solved_models({"method": "cv_plus", "folds": 3}, with_test({"train_ratio": 0.98})),
        trained_models,
    ],
    ids=["split", "jackknife_plus", "cv_plus", "mlp"],
)
def test_the_intervals_of_200_models_have_their_level(models):
    found = list(models())
    low, high = band(0.9)
    assert low <= covered(found, 0.9) <= high
    assert covered(found, 0.75) < low  # three ranks of 19 below


def test_ranks_are_those_of_exact_fractions():
    assert [rank(n, 0.9) for n in (8, 9, 19, 99)] == [9, 9, 18, 90]
    assert rank(99, 0.55) == 55  # in floating point 100 * 0.55 is above 55
    assert [fewest(0.9), fewest(0.95), fewest(0.5)] == [9, 19, 1]
    assert all(rank(fewest(level), level) == fewest(level) for level in (0.5, 0.8, 0.9, 0.975, 0.99))
    assert highest_level(80) == 0.9876
    assert rank(80, highest_level(80)) == 80


# Split


def test_split_adds_the_error_of_the_rank_to_the_prediction(linreg, table):
    split = {"train_ratio": 0.5, "calibration_ratio": 0.3, "seed": 4}
    write_spec(data__source=csv(), data__standardize=True, data__split=split, intervals={"method": "split"}, model=MLP)
    assert linreg("train", "small.yaml", "-q").code == 0
    found = json.loads(linreg("predict", "--inputs", "0.3,0.1", "--interval", "0.8", "--json").out)
    own = divide(60, train_ratio=0.5, calibration_ratio=0.3, seed=4).calibration
    path = "checkpoints/small_001/last.pth"
    errors = np.sort(np.abs(table[own, 2] - predict(path, table[own, :2].tolist()).predictions[:, 0]))
    assert len(errors) == 18
    half = errors[15]  # rank 16 = ceil(19 * 0.8)
    assert found["interval"] == {"level": 0.8, "method": "split", "n_rows": 18}
    assert found["lower"][0][0] == pytest.approx(found["predictions"][0][0] - half, rel=1e-12)
    assert found["upper"][0][0] == pytest.approx(found["predictions"][0][0] + half, rel=1e-12)


def test_calibration_rows_do_not_change_the_model(linreg, table):
    settings = {"data__standardize": True, "data__split": SPLIT["data__split"], "intervals": SPLIT["intervals"]}
    before = load(train(spec_of(data__source=csv(), **settings)).checkpoint)
    own = divide(60, train_ratio=0.5, calibration_ratio=0.38, seed=1).calibration
    changed = table.copy()
    changed[own, :3] += 100
    lines = [",".join(map(repr, row)) for row in changed.tolist()]
    with open("t.csv", "w") as file:
        file.write("\n".join(["x,z,y,w,g,day", *lines]) + "\n")
    after = load(train(spec_of(data__source=csv(), **settings)).checkpoint)
    assert same(before.model_state_dict, after.model_state_dict)
    assert (before.loss, before.val_loss) == (after.loss, after.val_loss)
    assert not same(before.intervals, after.intervals)


def test_the_best_epoch_has_errors_of_its_own(table):
    early = {"early_stopping": {"patience": 2}, "optimizer": {"name": "sgd", "lr": 0.9}}
    result = train(spec_of(data__source=csv(), data__standardize=True, epochs=30, **early, **SPLIT))
    last, best = load(result.checkpoint), load(result.checkpoint.replace("last", "best"))
    assert best.epoch < last.epoch
    own = divide(60, train_ratio=0.5, calibration_ratio=0.38, seed=1).calibration
    for saved in (last, best):
        errors = np.abs(table[own, 2] - predict(saved.path, table[own, :2].tolist()).predictions[:, 0])
        np.testing.assert_allclose(saved.intervals["scores"][:, 0], np.sort(errors), rtol=1e-9)


def test_the_ends_for_a_transformed_target_are_transformed_back(linreg, table):
    transformed = {"data__source": csv(), "data__target_transform": {"name": "log"}, "solver": "exact", **SPLIT}
    saved = train(spec_of(**transformed)).checkpoint
    found = predict(saved, [[0.3, 0.1]], interval=0.9)
    own = divide(60, train_ratio=0.5, calibration_ratio=0.38, seed=1).calibration
    logs = np.log(predict(saved, table[own, :2].tolist()).predictions[:, 0])
    half = np.sort(np.abs(np.log(table[own, 2]) - logs))[20 - 1 + 1]  # rank 21 = ceil(23 * 0.9) of 22
    assert len(own) == 22
    yhat = found.predictions[0, 0]
    assert found.lower[0, 0] == pytest.approx(yhat * np.exp(-half), rel=1e-9)
    assert found.upper[0, 0] == pytest.approx(yhat * np.exp(half), rel=1e-9)


def test_weights_change_the_model_but_not_the_count_of_a_calibration_row(table):
    weighted = {"data__source": csv(sample_weight="w"), "solver": "exact", **SPLIT}
    saved = load(train(spec_of(**weighted)).checkpoint)
    parts = divide(60, train_ratio=0.5, calibration_ratio=0.38, seed=1)
    design, root = np.column_stack([np.ones(60), table[:, :2]]), np.sqrt(table[parts.train, 3])
    beta, *_ = np.linalg.lstsq(root[:, None] * design[parts.train], root * table[parts.train, 2], rcond=None)
    errors = np.sort(np.abs(table[:, 2] - design @ beta)[parts.calibration])
    np.testing.assert_allclose(saved.intervals["scores"][:, 0], errors, rtol=1e-9)


@pytest.mark.parametrize(("by", "column"), [({"group": "g"}, 4), ({"time": "day"}, 5)])
def test_groups_stay_whole_and_calibration_follows_training_in_time(linreg, table, by, column):
    split = {"train_ratio": 0.5, "calibration_ratio": 0.25, "by": by}
    spec = spec_of(data__source=csv(), data__split=split, intervals={"method": "split"})
    _, parts = open_parts(spec)
    values = {name: table[getattr(parts, name), column] for name in ("train", "val", "calibration")}
    assert len(values["calibration"]) == 15
    if column == 4:
        assert not set(values["calibration"]) & (set(values["train"]) | set(values["val"]))
    else:
        assert max(values["train"]) < min(values["val"]) < max(values["val"]) < min(values["calibration"])
    saved = train(spec).checkpoint
    warnings = linreg("predict", saved, "--inputs", "0,0", "--interval", "0.9").err
    assert ("only if the errors do not change with time" in warnings) == (column == 5)


def test_folds_leave_out_the_calibration_part(table):
    spec = spec_of(data__source=csv(), data__split={**SPLIT["data__split"], "folds": 4, "fold": 0}, **{
        "intervals": {"method": "split"}
    })  # fmt: skip
    rows, parts = open_parts(spec)
    kept = divide(60, train_ratio=0.5, calibration_ratio=0.38, seed=1).calibration
    assert sorted(parts.calibration) == sorted(kept)
    used = np.concatenate(folds_of(spec, rows).pieces)
    assert sorted([*used, *kept]) == list(range(60))


# Left-out rows of the training part


def brute_force(design, y, weight, new, folds):
    """The ends by models of numpy without each fold: lower and upper (n,), in the order of the folds."""
    lower, upper = [], []
    for fold in folds:
        others = np.setdiff1d(np.arange(len(y)), fold)
        root = np.sqrt(weight[others])
        beta, *_ = np.linalg.lstsq(root[:, None] * design[others], root * y[others], rcond=None)
        errors = np.abs(y[fold] - design[fold] @ beta)
        lower += (new @ beta - errors).tolist()
        upper += (new @ beta + errors).tolist()
    return np.sort(lower), np.sort(upper)


@pytest.mark.parametrize("weight", [None, "w"])
@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("method", ["jackknife_plus", "cv_plus"])
def test_left_out_rows_have_the_ends_of_models_solved_again(table, method, standardize, weight):
    intervals = {"method": method, **({"folds": 4} if method == "cv_plus" else {})}
    source = csv() if weight is None else csv(sample_weight=weight)
    spec = spec_of(
        data__source=source, data__split={"train_ratio": 0.8}, data__standardize=standardize,
        solver="exact", intervals=intervals,
    )  # fmt: skip
    saved = train(spec).checkpoint
    parts = divide(60, train_ratio=0.8, seed=13)
    own = table[parts.train]
    design = np.column_stack([np.ones(48), own[:, :2]])
    folds = np.arange(48)[:, None] if method == "jackknife_plus" else np.array_split(np.arange(48), 4)
    points = [[0.3, 0.1], [-2.0, 5.0]]
    found = predict(saved, points, interval=0.9)
    for number, point in enumerate(points):
        lower, upper = brute_force(
            design, own[:, 2], own[:, 3] if weight else np.ones(48), np.array([1, *point]), folds
        )
        assert found.interval == {"level": 0.9, "method": method, "n_rows": 48}
        assert found.upper[number, 0] == pytest.approx(upper[44], rel=1e-10)  # rank 45 = ceil(49 * 0.9)
        assert found.lower[number, 0] == pytest.approx(lower[3], rel=1e-10)  # the 4th


@pytest.mark.parametrize("method", ["jackknife_plus", "cv_plus"])
def test_a_table_in_pieces_has_the_intervals_of_single_rows(linreg, table, monkeypatch, method):
    monkeypatch.setattr("linreg.experiment.intervals.opening.CELLS", 200)  # four rows of 48 ends
    train(spec_of(data__source=csv(), solver="exact", intervals={"method": method}))
    out = linreg("predict", "--input", "t.csv", "--interval", "0.9").out.splitlines()
    assert out[0] == "y_predicted,y_lower,y_upper"
    whole = np.array([[float(value) for value in line.split(",")] for line in out[1:]])
    for row in (0, 5, 59):
        one = predict("checkpoints/small_001/last.pth", [table[row, :2].tolist()], interval=0.9)
        expected = [one.predictions[0, 0], one.lower[0, 0], one.upper[0, 0]]
        np.testing.assert_allclose(whole[row], expected, rtol=1e-12)


def test_jackknife_plus_of_a_transformed_target_is_transformed_back(table):
    settings = {"solver": "exact", "intervals": {"method": "jackknife_plus"}, "data__split": {"train_ratio": 1.0}}
    saved = train(spec_of(data__source=csv(), data__target_transform={"name": "log"}, **settings)).checkpoint
    found = predict(saved, [[0.3, 0.1]], interval=0.9)
    design = np.column_stack([np.ones(60), table[:, :2]])
    lower, upper = brute_force(
        design, np.log(table[:, 2]), np.ones(60), np.array([1, 0.3, 0.1]), np.arange(60)[:, None]
    )
    assert found.upper[0, 0] == pytest.approx(np.exp(upper[54]), rel=1e-9)  # rank 55 = ceil(61 * 0.9)
    assert found.lower[0, 0] == pytest.approx(np.exp(lower[5]), rel=1e-9)


@pytest.mark.parametrize("early_stopping", [None, {"patience": 2}])
def test_a_fold_of_cv_plus_is_an_ordinary_training_without_its_rows(table, early_stopping):
    settings = {"data__standardize": True, "model": MLP, "intervals": {"method": "cv_plus", "folds": 3}, "epochs": 12}
    stopping = {} if early_stopping is None else {"early_stopping": early_stopping}
    spec = spec_of(data__source=csv(), optimizer={"name": "sgd", "lr": 0.4}, **settings, **stopping)
    kept = load(train(spec).checkpoint).intervals["folds"]
    rows = read_rows(spec)
    _, parts = open_parts(spec, rows)
    folds = inner_folds(spec, rows, parts, folds=3, where="intervals")
    for number, fold in enumerate(kept):
        own = replace(parts, train=folds.parts(number).train, unused=folds.parts(number).val)
        data = pipeline.prepare(rows, own, recipe_of(spec), dtype=spec.dtype, where="data")
        experiment = build(spec, data=data)
        states = []
        for losses in fit(experiment.engine.train_epoch, experiment.engine.val_epoch, range(12)):
            state = {key: value.clone() for key, value in experiment.model.state_dict().items()}
            states.append((losses.val_loss, state))
        expected = states[-1][1] if early_stopping is None else first_stopped(states, 2)
        assert same(fold["model_state_dict"], expected)
        assert len(fold["scores"]) == 16


def first_stopped(states, patience):
    """The state of the best epoch until `patience` epochs are not better."""
    best = 0
    for epoch, (loss, _) in enumerate(states):
        if loss < states[best][0]:
            best = epoch
        elif epoch - best == patience:
            break
    return states[best][1]


def of_kinds(unseen):
    """A spec of 24 rows of four kinds. Folds of whole kinds lack one in their training part."""
    kinds = np.repeat(["a", "b", "c", "d"], 6)
    y = np.array([1.0, 4.0, 7.0, 3.0]).repeat(6) + np.tile([0.1, -0.2, 0.4, 0.0, 0.3, -0.5], 4)
    with open("k.csv", "w") as file:
        file.write("kind,y\n" + "".join(f"{kind},{value}\n" for kind, value in zip(kinds, y.tolist(), strict=True)))
    source = {"name": "csv", "path": "k.csv", "target": "y", "features": "kind", "categorical": "kind"}
    split = {"train_ratio": 0.75, "by": {"group": "kind"}}
    intervals = {"method": "cv_plus", "folds": 3}
    spec = spec_of(data__source={**source, "unseen": unseen}, data__split=split, intervals=intervals, solver="exact")
    return spec, kinds, y


def test_a_category_that_a_fold_lacks_is_unseen_by_its_model(own_folder):
    spec, kinds, y = of_kinds("zeros")
    known = trained(spec, kinds)
    found = predict(train(spec).checkpoint, [[kind] for kind in known], interval=0.8)
    for number, new in enumerate(known):
        ends = []
        for left_out in known:
            means = {kind: y[kinds == kind].mean() for kind in known if kind != left_out}
            reference = means[min(means)]  # the first category, whose columns are all 0
            errors = np.abs(y[kinds == left_out] - reference)
            ends += [(means.get(new, reference) - error, means.get(new, reference) + error) for error in errors]
        lower, upper = (np.sort(side) for side in zip(*ends, strict=True))
        assert found.upper[number, 0] == pytest.approx(upper[15], rel=1e-12)  # rank 16 = ceil(19 * 0.8)
        assert found.lower[number, 0] == pytest.approx(lower[2], rel=1e-12)


def trained(spec, kinds):
    """The three kinds of the training part."""
    _, parts = open_parts(spec)
    return sorted(set(kinds[parts.train]))


def test_a_category_that_a_fold_lacks_is_refused_unless_unseen_ones_are_zeros(own_folder):
    spec, _, _ = of_kinds("error")
    with pytest.raises(DataError, match="is not among the categories of the training part .* train with unseen: zeros"):
        train(spec)


# Runs


def test_calibration_leaves_the_states_of_the_training_alone(table):
    optimizer = {"name": "sgd", "lr": 0.9}  # the last epoch is not the best, whose states are kept apart
    settings = {
        "data__source": csv(), "data__standardize": True, "model": {**MLP, "dropout": 0.2}, "optimizer": optimizer,
    }  # fmt: skip
    plain = load(train(spec_of(**settings)).checkpoint)
    calibrated = load(train(spec_of(intervals={"method": "cv_plus", "folds": 3}, **settings)).checkpoint)
    assert plain.best_epoch < plain.epoch - 1
    different = {key for key in vars(plain) if not same(vars(plain)[key], vars(calibrated)[key])}
    assert different <= {"intervals", "spec", "run", "path", "environment", "best"}
    assert same(plain.best["states"], calibrated.best["states"])


def test_an_interrupted_calibration_is_repeated_by_resume(table):
    spec = spec_of(data__source=csv(), model=MLP, intervals={"method": "cv_plus", "folds": 3})
    whole = load(train(spec).checkpoint)
    asked = iter(range(10**6))
    records = []
    stopped = train(
        spec, report=lambda record, _: records.append(record), stop=lambda: len(records) == 6 and next(asked) > 1
    )
    assert (stopped.outcome, stopped.epochs) == ("interrupted", 6)
    assert load(stopped.checkpoint).intervals is None
    with pytest.raises(UsageError, match="was saved before its intervals were calibrated"):
        predict(stopped.checkpoint, [[0.0, 0.0]], interval=0.9)
    resumed = resume(stopped.run)
    assert (resumed.outcome, resumed.epochs) == ("finished", 6)
    assert same(load(resumed.checkpoint).intervals, whole.intervals)


def test_a_resumed_run_is_calibrated_anew(table):
    spec = spec_of(data__source=csv(), **SPLIT)
    first = train(spec)
    before = load(first.checkpoint).intervals
    assert resume(first.checkpoint).epochs == 12
    longer = load(train(spec_of(data__source=csv(), epochs=12, **SPLIT)).checkpoint).intervals
    assert same(load(first.checkpoint).intervals, longer)
    assert not same(before, longer)


def test_a_fold_that_diverges_is_named(table, monkeypatch):
    spec = spec_of(data__source=csv(), intervals={"method": "cv_plus", "folds": 3})

    def diverging(members, shared, **functions):
        members[1].end("diverged", "epoch 3: the loss is nan")
        functions["ended"](members[1])
        yield 1, set()

    monkeypatch.setattr("linreg.experiment.intervals.folds.train_members", diverging)
    with pytest.raises(DivergedError, match="intervals: without fold 1: epoch 3: the loss is nan"):
        train(spec)


def test_data_that_changes_during_training_does_not_calibrate(table, monkeypatch):
    experiment = build(spec_of(data__source=csv(), **SPLIT))
    with open("t.csv", "a") as file:
        file.write("1,2,3,1,1,1\n")
    with pytest.raises(DataError, match=r"data\.source: has changed during training"):
        calibrating.calibrate(experiment, None, lambda: None)


# Refusals


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"intervals": {"method": "split"}}, "intervals: split needs rows that are used for nothing else"),
        ({"data__split": {"calibration_ratio": 0.1}}, "calibration_ratio needs intervals: {method: split}"),
        ({"intervals": {"method": "jackknife_plus"}}, "jackknife_plus needs solver: exact; use cv_plus or split"),
        (
            {"intervals": {"method": "jackknife_plus"}, "solver": "exact", "penalty": {"name": "ridge"}},
            "jackknife_plus takes no penalty, which depends on each row",
        ),
        (
            {"intervals": {"method": "cv_plus"}, "data__split": {"train_ratio": 0.5, "by": "order"}},
            r"cv_plus would train on later rows than it measures \(by: order\); use split",
        ),
        (
            {"intervals": {"method": "jackknife_plus"}, "solver": "exact", "data__split": {"by": {"group": "g"}}},
            "jackknife_plus leaves out single rows, not groups",
        ),
        (
            {"intervals": {"method": "cv_plus"}, "data__split": {"folds": 3, "fold": 0}},
            "cv_plus leaves out rows of the training part itself; remove data.split.folds",
        ),
        ({"intervals": {"method": "cv_plus"}, "data__shards": 2}, "cv_plus trains its folds in one process"),
        ({"intervals": {"method": "split", "folds": 3}}, "folds is for cv_plus, not split; remove it"),
        (
            {"data__split": {"train_ratio": 0.8, "calibration_ratio": 0.3}, "intervals": {"method": "split"}},
            r"train_ratio \+ test_ratio \+ calibration_ratio must be <= 1, got 1.1",
        ),
    ],
)
def test_a_spec_whose_intervals_would_not_hold_is_refused(changes, problem):
    with pytest.raises(SpecError, match=problem):
        spec_of(**changes)


def test_too_few_rows_for_a_level_are_refused_with_the_number_that_is_enough(linreg, table):
    train(spec_of(data__source=csv(), **SPLIT))
    answer = linreg("predict", "--inputs", "0,0", "--interval", "0.96")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.endswith(
        "error: --interval 0.96: 22 calibration rows are enough for levels up to 0.9565; use a lower level, or train "
        "with 24 calibration rows or more\n"
    )
    assert linreg("predict", "--inputs", "0,0", "--interval", "0.9565").code == 0


def test_the_rows_that_a_checkpoint_keeps_are_counted_in_all_processes(monkeypatch):
    monkeypatch.setattr(limits, "MOST_VALUES", 19)
    spec, samples = spec_of(data__shards=2, **SPLIT), Samples(np.ones((40, 1)), np.ones((40, 1)))
    parts = Parts(np.arange(10), None, calibration=np.arange(10, 20))

    def refuse(shards):
        limits.refuse_large(spec, StreamedRows(samples, where="data.source", shards=shards), parts, 1)

    with pytest.raises(SpecError, match="20 calibration rows with 1 numbers each"):
        in_group(2, refuse, n_shards=2)


def test_a_row_that_determines_a_coefficient_alone_is_refused_by_jackknife_plus(table):
    split = {"train_ratio": 0.05}  # three rows, three coefficients
    spec = spec_of(data__source=csv(), solver="exact", intervals={"method": "jackknife_plus"}, data__split=split)
    with pytest.raises(DataError, match=r"remove it or a column, or use intervals: \{method: cv_plus\}"):
        train(spec)


def test_more_rows_than_a_checkpoint_keeps_are_refused_before_training(table, monkeypatch):
    monkeypatch.setattr(limits, "MOST_VALUES", 100)
    for intervals, split, hint in (
        ({"method": "cv_plus"}, {"train_ratio": 0.8}, None),
        ({"method": "jackknife_plus"}, {"train_ratio": 0.8}, "48 calibration rows with 4 numbers each.*use cv_plus"),
    ):
        spec = spec_of(data__source=csv(), solver="exact", intervals=intervals, data__split=split)
        if hint is None:
            train(spec)
        else:
            with pytest.raises(SpecError, match=hint):
                train(spec)


@pytest.mark.parametrize(
    ("changes", "override", "problem"),
    [
        (SPLIT, "data.split.seed=1,2", "data.split.seed divides the rows anew"),
        ({**SPLIT, "sweep": {"folds": 3, "repeats": 2}}, "optimizer.lr=0.1,0.2", "sweep.repeats divides the rows anew"),
        (
            {"intervals": {"method": "cv_plus"}, "sweep": {"folds": 3}}, "optimizer.lr=0.1,0.2",
            "sweep.folds measures on the training part",
        ),
    ],
)  # fmt: skip
def test_a_sweep_that_would_choose_on_calibration_rows_is_refused(linreg, changes, override, problem):
    answer = linreg("sweep", write_spec(**changes), override, "-q")
    assert answer.code == 2
    assert f"intervals: {problem}, so the sweep would choose on rows that calibrate" in answer.err


def test_the_winner_of_a_sweep_is_calibrated(linreg):
    spec = write_spec(**SPLIT)
    answer = linreg("sweep", spec, "optimizer.lr=0.1,0.2", "--folds", "3", "-q")
    assert load(answer.out.strip()).intervals["method"] == "split"


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda kept: kept | {"method": "other"}, "intervals has an unknown method"),
        (lambda kept: kept | {"more": 1}, "intervals of split has other parts"),
        (lambda kept: {"method": "split", "scores": kept["scores"].flip(0)}, "intervals does not match the model"),
        (lambda kept: {"method": "split", "scores": -kept["scores"]}, "intervals does not match the model"),
        (lambda kept: {"method": "split", "scores": kept["scores"].float()}, "intervals does not match the model"),
        (lambda kept: {"method": "split", "scores": torch.ones(3, 2).double()}, "intervals does not match the model"),
        (lambda kept: {"method": "cv_plus", "folds": [{"scores": kept["scores"]}]}, "does not match the model"),
        (
            lambda kept: {"method": "jackknife_plus", "shifts": kept["scores"], "errors": kept["scores"].clone()},
            "intervals does not match the model",
        ),
    ],
)
def test_a_checkpoint_with_wrong_intervals_is_refused(damage, problem):
    from linreg.checkpoint import save

    saved = load(train(spec_of(**SPLIT)).checkpoint)
    saved.intervals = damage(saved.intervals)
    save(saved.path, saved)
    with pytest.raises(CheckpointError, match=problem):
        load(saved.path)


def test_a_checkpoint_of_an_earlier_version_has_no_intervals(monkeypatch):
    from linreg.checkpoint import contents, save, serializing

    saved = load(train(load_spec(write_spec())).checkpoint)
    with monkeypatch.context() as patch:
        patch.setattr(serializing, "KEYS", contents.KEYS - {"intervals"})
        save(saved.path, saved)
    assert load(saved.path).intervals is None
