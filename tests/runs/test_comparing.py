"""Comparisons of runs and cross-validations, whose paired differences are those of scipy's t test."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from tests.conftest import write_spec


def compared(linreg, *names):
    answer = linreg("runs", "compare", *names, "--json")
    assert answer.code == 0, answer.err
    return json.loads(answer.out)


def cross_validate(linreg, *overrides, **changes):
    """Cross-validate a spec; return the name of the folder and the results of the folds."""
    answer = linreg("cv", write_spec(**changes), *overrides, "--json", "-q")
    assert answer.code == 0, answer.err
    result = json.loads(answer.out)
    return result["run"], result["folds"]


@pytest.fixture
def three(linreg):
    """Three runs; the second is the best, and the third the worst."""
    for lr in ("0.1", "0.2", "0.01"):
        linreg("train", write_spec(), "-q", f"optimizer.lr={lr}", f"seed={'1' if lr == '0.2' else '42'}")
    return ["small_001", "small_002", "small_003"]


def test_many_runs_have_a_row_each_the_best_first_with_the_settings_that_differ(linreg, three):
    answer = linreg("runs", "compare", *three)
    head, *rows = [line.split() for line in answer.out.splitlines()]
    assert head == ["run", "seed", "optimizer.lr", "epochs", "done", "loss", "val_loss"]
    assert [row[:4] for row in rows] == [
        ["small_002", "1", "0.2", "6"], ["small_001", "42", "0.1", "6"], ["small_003", "42", "0.01", "6"],
    ]  # fmt: skip
    listed = {run["run"]: run["val_loss"] for run in json.loads(linreg("runs", "--json").out)}
    assert [float(row[-1]) for row in rows] == pytest.approx([listed[row[0]] for row in rows], rel=1e-5)
    assert answer.err == ""


def test_two_runs_stand_beside_each_other_the_best_first(linreg, three):
    lines = [line.split() for line in linreg("runs", "compare", *three[:2]).out.splitlines()]
    assert [line[0] for line in lines] == ["run", "epochs", "loss", "val_loss", "seed", "optimizer.lr"]
    assert lines[0] == ["run", "small_002", "small_001"]
    assert lines[-1] == ["optimizer.lr", "0.2", "0.1"]


def test_json_has_the_same_shape_for_two_runs_and_for_many(linreg, three):
    of_two, of_three = compared(linreg, *three[:2]), compared(linreg, *three)
    assert of_two.keys() == of_three.keys()
    assert of_two["runs"] == of_three["runs"][:2]
    assert of_three["settings"] == ["seed", "optimizer.lr"]
    assert of_three["runs"][0]["settings"] == {"seed": 1, "optimizer.lr": 0.2}
    assert of_three["runs"][0]["checkpoint"] == "checkpoints/small_002/last.pth"


def test_runs_without_validation_are_sorted_by_loss_and_those_without_a_result_are_last(linreg, three):
    linreg("train", "small.yaml", "-q", "data.split.train_ratio=1.0")
    Path("runs/small_002/metrics.jsonl").write_text('{"loss": NaN, "val_loss": 1' + "0" * 400 + "}\n")
    found = compared(linreg, *three, "small_004")
    keys = [run["loss"] if run["val_loss"] is None else run["val_loss"] for run in found["runs"]]
    assert keys[:3] == sorted(keys[:3])
    assert keys[3] is None
    assert found["runs"][3]["run"] == "small_002"
    assert found["notes"] == [
        "the validation parts differ (data.split.train_ratio), so the losses are of different rows"
    ]


def test_with_early_stopping_the_losses_are_those_of_the_best_epoch(linreg):
    path = write_spec(early_stopping={"patience": 3}, epochs=60, model={"name": "mlp", "hidden": [4]})
    for lr in (0.3, 0.5):
        result = json.loads(linreg("train", path, "-q", "--json", f"optimizer.lr={lr}").out)
        assert result["best_loss"] != result["loss"]
    row = next(run for run in compared(linreg, "small_001", "small_002")["runs"] if run["run"] == "small_002")
    assert (row["loss"], row["val_loss"]) == (result["best_loss"], result["best_val_loss"])
    assert row["epochs"] == result["epochs"]


def test_defaults_of_other_components_are_left_out_and_other_params_are_not(linreg):
    linreg("train", write_spec(), "-q")
    linreg("train", write_spec(), "-q", "optimizer={name: adam, lr: 0.1, eps: 0.001}", "model={name: mlp, hidden: [4]}")
    found = compared(linreg, "small_001", "small_002")
    assert set(found["settings"]) == {"model.name", "model.hidden", "optimizer.name", "optimizer.eps"}
    values = {run["run"]: run["settings"]["model.hidden"] for run in found["runs"]}
    assert values == {"small_001": None, "small_002": [4]}
    linreg("train", write_spec(), "-q", "optimizer.momentum=0.5")
    assert compared(linreg, "small_001", "small_003")["settings"] == ["optimizer.momentum"]


def test_values_that_differ_at_the_end_of_a_long_text_differ(linreg):
    folder = "a_long_name_of_a_folder_for_tables/" * 2
    Path(folder).mkdir(parents=True)
    for name in ("a.csv", "b.csv"):
        Path(folder, name).write_text("x,y\n" + "".join(f"{i},{2 * i}\n" for i in range(20)))
        linreg("train", write_spec(data__source={"name": "csv", "path": folder + name, "target": "y"}), "-q")
    assert compared(linreg, "small_001", "small_002")["settings"] == ["data.source.path"]
    line = linreg("runs", "compare", "small_001", "small_002").out.splitlines()[-1]
    assert len(line) <= 80
    assert "a.csv" in line
    assert "b.csv" in line


def test_one_run_is_not_compared(linreg, three):
    answer = linreg("runs", "compare", "small_001", "small_001")
    assert answer.code == 2
    assert answer.err == "error: runs compare: got one run, small_001; name two or more, linreg runs lists them\n"


def test_the_error_for_a_sweep_lists_the_runs_of_its_winners(linreg):
    linreg("sweep", write_spec(), "optimizer.lr=0.1,0.2,0.3", "sweep.keep=2", "-q")
    answer = linreg("runs", "compare", "small_sweep_001", "small_001")
    assert answer.code == 2
    assert answer.err == (
        "error: runs/small_sweep_001: a sweep, not a run; name the runs of its winners: small_001, small_002\n"
    )
    assert linreg("runs", "compare", "small_001", "small_002").code == 0


def test_cross_validations_are_compared_fold_by_fold(linreg):
    results = dict(cross_validate(linreg, f"optimizer.lr={lr}", "--folds", "4") for lr in (0.01, 0.1, 0.05))
    found = compared(linreg, *results)
    losses = {name: np.array([fold["val_loss"] for fold in folds]) for name, folds in results.items()}
    first, *others = found["runs"]
    assert [run["run"] for run in found["runs"]] == sorted(losses, key=lambda name: losses[name].mean())
    assert (first["difference"], first["interval"]) == (None, None)
    for run in found["runs"]:
        assert run["val_loss"] == pytest.approx(losses[run["run"]].mean())
        assert run["sd"] == pytest.approx(losses[run["run"]].std(ddof=1))
        assert (run["n_folds"], run["epochs"]) == (4, 6)
    for run in others:
        expected = stats.ttest_rel(losses[run["run"]], losses[first["run"]]).confidence_interval(0.95)
        assert run["interval"] == pytest.approx(list(expected))
        assert run["difference"] == pytest.approx((losses[run["run"]] - losses[first["run"]]).mean())
    assert found["notes"] == []
    lines = linreg("runs", "compare", *results).out.splitlines()
    assert lines[0].split("  ")[0] == "run"
    assert lines[0].split()[1:] == ["optimizer.lr", "val_loss", "sd", "difference", "95", "%", "interval"]
    assert all(len(line) <= 80 for line in lines)


def test_other_folds_have_no_paired_differences(linreg):
    names = [cross_validate(linreg, *changes)[0] for changes in ([], ["data.split.seed=1"], ["optimizer.lr=0.2"])]
    found = compared(linreg, *names[:2])
    assert [run["difference"] for run in found["runs"]] == [None, None]
    assert all(run["sd"] > 0 for run in found["runs"])
    assert found["notes"] == ["the folds differ (data.split.seed), so no paired differences are shown"]
    answer = linreg("runs", "compare", *names[:2])
    assert answer.err == f"{found['notes'][0]}\n"
    assert "difference" not in answer.out
    assert compared(linreg, names[0], names[2])["runs"][1]["difference"] > 0
    three_folds, _ = cross_validate(linreg, "--folds", "3", "--repeats", "2")
    notes = compared(linreg, names[0], three_folds)["notes"]
    assert notes == ["the folds differ (sweep.folds, sweep.repeats), so no paired differences are shown"]


def test_folds_are_the_same_if_a_default_is_written_or_the_seed_of_the_training_is_another(linreg):
    first, _ = cross_validate(linreg)
    second, _ = cross_validate(linreg, "data.split.seed=13", "seed=7", "epochs=7")
    found = compared(linreg, first, second)
    assert found["settings"] == ["seed", "epochs"]
    assert found["runs"][1]["difference"] > 0


def test_other_features_have_the_same_folds_and_other_targets_have_not(linreg):
    generator = np.random.default_rng(5)
    rows = generator.normal(size=(30, 4))
    Path("t.csv").write_text("a,b,y,z\n" + "".join(",".join(map(repr, row)) + "\n" for row in rows.tolist()))
    source = {"name": "csv", "path": "t.csv", "target": "y", "exclude": "z"}
    names = [
        cross_validate(linreg, data__source={**source, **change})[0]
        for change in ({}, {"exclude": ["z", "b"]}, {"target": "z", "exclude": "y"})
    ]
    assert compared(linreg, *names[:2])["runs"][1]["interval"] is not None
    found = compared(linreg, *names)
    assert found["runs"][1]["interval"] is None
    assert found["notes"] == ["the folds differ (rows or targets of the data), so no paired differences are shown"]


def test_a_cross_validation_with_a_missing_fold_is_last_and_has_no_mean(linreg):
    names = [cross_validate(linreg, f"optimizer.lr={lr}")[0] for lr in (0.2, 0.1, 0.05)]
    path = Path("runs", names[0], "results.jsonl")
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    found = compared(linreg, *names)
    assert [run["run"] for run in found["runs"]] == [names[1], names[2], names[0]]
    assert found["runs"][2]["n_folds"] == 4
    assert [found["runs"][2][key] for key in ("val_loss", "sd", "difference")] == [None, None, None]
    assert found["runs"][1]["difference"] is not None


def test_other_loss_functions_are_compared_by_rmse(linreg):
    names = [cross_validate(linreg, f"loss={{name: {loss}}}")[0] for loss in ("mse", "mae")]
    found = compared(linreg, *names)
    assert found["metric"] == "rmse"
    assert found["notes"] == ["the loss functions differ (loss.name), so rmse is compared"]
    first, second = found["runs"]
    assert first["rmse"] < second["rmse"]
    assert second["difference"] == pytest.approx(second["rmse"] - first["rmse"])
    lines = linreg("runs", "compare", *names).out.splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        "run", "val_loss", "rmse", "sd", "difference", "95 % interval", "loss.name",
    ]  # fmt: skip
    linreg("train", "small.yaml", "-q")
    linreg("train", "small.yaml", "-q", "loss={name: mae}")
    notes = compared(linreg, "small_001", "small_002")["notes"]
    assert notes == ["the loss functions differ (loss.name); linreg evaluate measures rmse, mae and r2"]


def test_seeds_of_a_cross_validation_are_averaged_before_folds_are_paired(linreg):
    (first, folds), (second, others) = (cross_validate(linreg, sweep={"seeds": seeds}) for seeds in (1, 2))
    assert len(others) == 10
    found = {run["run"]: run for run in compared(linreg, first, second)["runs"]}
    means = [np.mean([line["val_loss"] for line in others if line["fold"] == fold]) for fold in range(5)]
    assert found[second]["val_loss"] == pytest.approx(np.mean(means))
    differences = np.array(means) - [line["val_loss"] for line in folds]
    difference = found[second]["difference"] or -found[first]["difference"]
    assert difference == pytest.approx(differences.mean())


def test_a_cross_validation_beside_a_run_has_the_means_of_its_folds(linreg):
    name, folds = cross_validate(linreg)
    linreg("train", "small.yaml", "-q")
    found = compared(linreg, name, "small_001")
    row = next(run for run in found["runs"] if run["run"] == name)
    assert row["val_loss"] == pytest.approx(np.mean([fold["val_loss"] for fold in folds]))
    assert row["loss"] == pytest.approx(np.mean([fold["loss"] for fold in folds]))
    assert found["notes"] == [f"cross-validations, with means over their folds: {name}"]


def test_with_early_stopping_the_losses_of_folds_are_those_of_their_best_epochs(linreg):
    changes = {"early_stopping": {"patience": 3}, "epochs": 60, "model": {"name": "mlp", "hidden": [4]}}
    results = dict(cross_validate(linreg, f"optimizer.lr={lr}", **changes) for lr in (0.3, 0.5))
    for row in compared(linreg, *results)["runs"]:
        folds = results[row["run"]]
        assert any(fold["best_loss"] != fold["loss"] for fold in folds)
        assert row["loss"] == pytest.approx(np.mean([fold["best_loss"] for fold in folds]))
        assert row["val_loss"] == pytest.approx(np.mean([fold["best_val_loss"] for fold in folds]))


def test_a_cross_validation_without_results_is_reported(linreg):
    names = [cross_validate(linreg)[0] for _ in range(2)]
    Path("runs", names[1], "results.jsonl").unlink()
    found = compared(linreg, *names)
    assert [run["run"] for run in found["runs"]] == names
    assert found["notes"][0] == f"no results of folds: {names[1]}"
