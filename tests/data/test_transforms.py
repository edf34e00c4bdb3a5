"""Columns derived by transforms, and transforms of the target, against NumPy, SciPy and dates of the standard library."""

import json
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.interpolate import CubicSpline

from linreg.components.transforms import TARGET_TRANSFORMS, TRANSFORMS
from tests.conftest import same, write_spec

N = 200
RANDOM = np.random.default_rng(5)
AREA = np.exp(RANDOM.normal(4, 0.5, N))
ROOMS = RANDOM.integers(1, 7, N).astype(float)
AGE = RANDOM.uniform(0, 90, N)
CITY = RANDOM.choice(["Bonn", "Oslo", "Rome"], N)
DAYS = RANDOM.integers(15_000, 21_000, N) + RANDOM.choice([0.0, 0.25, 0.75], N)
SOLD = [(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=float(day))).strftime("%Y-%m-%dT%H:%M") for day in DAYS]
PRICE = np.exp(2 + 0.8 * np.log(AREA) + 0.1 * ROOMS + 0.01 * AGE + 0.1 * RANDOM.normal(size=N))
SOURCE = {"name": "csv", "path": "t.csv", "target": "price"}
TRAIN, VAL = slice(0, 150), slice(150, N)


@pytest.fixture(autouse=True)
def table(own_folder):
    rows = zip(AREA, ROOMS, AGE, CITY, SOLD, PRICE, strict=True)
    lines = [",".join(str(cell) for cell in row) for row in rows]
    Path("t.csv").write_text("\n".join(["area,rooms,age,city,sold,price", *lines]) + "\n")


def spec_with(transforms=(), features=("area", "rooms"), solver="exact", **changes):
    source = {**SOURCE, "features": list(features)}
    source |= {key: name for key, name in (("categorical", "city"), ("dates", "sold")) if name in features}
    return write_spec(data__source=source, data__split={"train_ratio": 0.75, "by": "order"}, solver=solver,
                      data__transforms=list(transforms), **changes)  # fmt: skip


def fitted(linreg, transforms, features=("area", "rooms"), **changes):
    """Solve a spec; return the names of its coefficients, and its validation loss."""
    answer = linreg("train", spec_with(transforms, features, **changes), "--json")
    assert answer.code == 0, answer.err
    result = json.loads(answer.out)
    return [row["name"] for row in result["fit"]["coefficients"]], result


def by_hand(columns, y=PRICE):
    """Solve the least-squares problem of columns and an intercept by NumPy; return the predictions of all rows."""
    design = np.column_stack([np.ones(N), *columns])
    scale = np.abs(design).max(axis=0)
    scale[scale == 0] = 1
    coefficients = np.linalg.lstsq(design[TRAIN] / scale, y[TRAIN], rcond=1e-13)[0]
    return design / scale @ coefficients


def mse(yhat, rows=VAL):
    return pytest.approx(((PRICE[rows] - yhat[rows]) ** 2).mean(), rel=1e-8)


def one_hot(values):
    return [values == value for value in np.unique(values)]


def natural(x, knots):
    """The cardinal natural cubic splines of knots, by SciPy, extended linearly."""
    curve = CubicSpline(knots, np.eye(len(knots)), bc_type="natural")
    inside = np.clip(x, knots[0], knots[-1])
    return (curve(inside) + curve(inside, 1) * (x - inside)[:, None]).T


QUARTERS = np.quantile(AGE[TRAIN], [0.25, 0.5, 0.75])
KNOTS = np.quantile(AGE[TRAIN], np.linspace(0, 1, 5))
DATES = [datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=float(day)) for day in DAYS]
MONTH = np.array([date.month for date in DATES])

CASES = {
    "log": ([{"name": "log", "columns": "area"}], ["log(area)", "rooms"], [np.log(AREA), ROOMS]),
    "two logs": (
        [{"name": "log", "columns": ["area", "rooms"]}], ["log(area)", "log(rooms)"], [np.log(AREA), np.log(ROOMS)],
    ),
    "log kept": (
        [{"name": "log", "columns": "area", "keep": True}], ["area", "log(area)", "rooms"],
        [AREA, np.log(AREA), ROOMS],
    ),
    "log1p": ([{"name": "log1p", "columns": "rooms"}], ["area", "log1p(rooms)"], [AREA, np.log1p(ROOMS)]),
    "sqrt": ([{"name": "sqrt", "columns": "area"}], ["sqrt(area)", "rooms"], [np.sqrt(AREA), ROOMS]),
    "power": ([{"name": "power", "columns": "area", "exponent": 2}], ["area", "area^2", "rooms"],
              [AREA, AREA**2, ROOMS]),
    "inverse": ([{"name": "power", "columns": "area", "exponent": -0.5, "keep": False}], ["area^-0.5", "rooms"],
                [AREA**-0.5, ROOMS]),
    "interaction": (
        [{"name": "interaction", "columns": ["area", "rooms"]}], ["area", "rooms", "area:rooms"],
        [AREA, ROOMS, AREA * ROOMS],
    ),
    "interaction of a derived column": (
        [{"name": "log", "columns": "area"}, {"name": "interaction", "columns": ["log(area)", "rooms"]}],
        ["log(area)", "rooms", "log(area):rooms"], [np.log(AREA), ROOMS, np.log(AREA) * ROOMS],
    ),
    "three factors": (
        [{"name": "interaction", "columns": ["area", "rooms", "area"]}], ["area", "rooms", "area:rooms:area"],
        [AREA, ROOMS, AREA**2 * ROOMS],
    ),
    "clip": ([{"name": "clip", "columns": "area", "minimum": 40, "maximum": 60}], ["clip(area)", "rooms"],
             [np.clip(AREA, 40, 60), ROOMS]),
    "clip below": ([{"name": "clip", "columns": "area", "minimum": 40}], ["clip(area)", "rooms"],
                   [np.maximum(AREA, 40), ROOMS]),
    "clip at quantiles": (
        [{"name": "clip", "columns": "area", "quantiles": [0.1, 0.8]}], ["clip(area)", "rooms"],
        [np.clip(AREA, *np.quantile(AREA[TRAIN], [0.1, 0.8])), ROOMS],
    ),
}  # fmt: skip


@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("memory", ["resident", "mapped"])
@pytest.mark.parametrize("transforms, names, columns", CASES.values(), ids=list(CASES))
def test_a_transform_is_what_numpy_computes(linreg, transforms, names, columns, memory, standardize):
    found, result = fitted(linreg, transforms, data__memory=memory, data__standardize=standardize)
    assert found == ["intercept", *[f"z({name})" if False else name for name in names]]
    assert result["val_loss"] == mse(by_hand(columns))


def test_bins_are_one_column_each(linreg):
    names, result = fitted(linreg, [{"name": "bins", "columns": "age", "edges": [18, 65]}], ("age", "area"))
    assert names == ["intercept", "age<18", "18<=age<65", "age>=65", "area"]
    assert result["val_loss"] == mse(by_hand([*one_hot(np.digitize(AGE, [18, 65])), AREA]))
    assert result["fit"]["left_out"] == ["age<18"]
    estimate = {row["name"]: row["estimate"] for row in result["fit"]["coefficients"]}
    assert estimate["age<18"] == 0  # the others are relative to it


def test_bins_at_quantiles_of_the_training_part(linreg):
    names, result = fitted(linreg, [{"name": "bins", "columns": "age", "n_bins": 4}], ("age",))
    assert len(names) == 5
    assert result["val_loss"] == mse(by_hand(one_hot(np.searchsorted(QUARTERS, AGE, side="right"))))


def test_a_column_with_few_values_has_fewer_bins():
    bins = TRANSFORMS.build(TRANSFORMS.check({"name": "bins", "columns": "x", "n_bins": 10}))
    x = torch.tensor([[1.0]] * 90 + [[2.0]] * 10, dtype=torch.float64)
    learnt = bins.learn(x)
    assert bins.names("x", **learnt) == ["x<1.1", "x>=1.1"]
    assert (bins.apply(x, **learnt).mean(dim=0) == torch.tensor([0.9, 0.1], dtype=torch.float64)).all()
    learnt = bins.learn(x[:90])
    assert bins.names("x", **learnt) == ["x (one bin)"] and (bins.apply(x, **learnt) == 1).all()


@pytest.mark.parametrize("knots", [5, [10.0, 30.0, 60.0]])
def test_a_spline_spans_the_natural_cubic_splines_of_scipy(linreg, knots):
    names, result = fitted(linreg, [{"name": "spline", "columns": "age", "knots": knots}], ("age",))
    places = KNOTS if knots == 5 else np.array(knots)
    assert names == ["intercept", *[f"spline{i + 1}(age)" for i in range(len(places) - 1)]]
    assert result["val_loss"] == mse(by_hand(natural(AGE, places)[1:]))


def test_a_spline_of_few_values_is_refused(linreg):
    Path("t.csv").write_text("x,price\n" + "1,2\n2,3\n" * 20)
    source = {**SOURCE, "features": "x"}
    answer = linreg("train", write_spec(data__source=source, data__transforms=[{"name": "spline", "columns": "x"}]))
    assert answer.code == 2
    assert "data.transforms.0: spline: column 'x' has too few different values for a spline; use" in answer.err


PARTS = {
    "year": [date.year for date in DATES],
    "quarter": [(date.month + 2) // 3 for date in DATES],
    "month": MONTH,
    "day": [date.day for date in DATES],
    "weekday": [date.isoweekday() for date in DATES],
    "day_of_year": [date.timetuple().tm_yday for date in DATES],
    "hour": [date.hour for date in DATES],
}


def test_parts_of_dates_are_those_of_the_standard_library(linreg):
    transform = {"name": "date_parts", "columns": "sold", "parts": list(PARTS)}
    names, result = fitted(linreg, [transform], ("sold", "area"))
    assert names == ["intercept", *[f"{part}(sold)" for part in PARTS], "area"]
    assert result["val_loss"] == mse(by_hand([*map(np.array, PARTS.values()), AREA]))


def test_every_day_of_four_centuries_has_its_parts():
    parts = TRANSFORMS.build(TRANSFORMS.check({"name": "date_parts", "columns": "x", "parts": list(PARTS)}))
    start = datetime(1800, 1, 1, tzinfo=UTC)
    dates = [start + timedelta(days=number, hours=number % 24) for number in range(146_100)]
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    days = torch.tensor([(date - epoch) / timedelta(days=1) for date in dates], dtype=torch.float64)
    found = parts.apply(days[:, None]).numpy()
    wanted = [
        [d.year, (d.month + 2) // 3, d.month, d.day, d.isoweekday(), d.timetuple().tm_yday, d.hour] for d in dates
    ]
    assert (found == np.array(wanted)).all()


def test_cyclic_parts_are_angles(linreg):
    transform = {"name": "date_parts", "columns": "sold", "parts": ["year", "month"], "cyclic": True}
    names, result = fitted(linreg, [transform], ("sold",))
    assert names == ["intercept", "year(sold)", "sin(month(sold))", "cos(month(sold))"]
    angle = 2 * np.pi * (MONTH - 1) / 12
    assert result["val_loss"] == mse(by_hand([np.array(PARTS["year"]), np.sin(angle), np.cos(angle)]))


def test_an_interaction_with_a_category_has_a_column_for_each(linreg):
    names, result = fitted(linreg, [{"name": "interaction", "columns": ["area", "city"]}], ("area", "city"))
    cities = ["Bonn", "Oslo", "Rome"]
    assert names == ["intercept", "area", *[f"city={c}" for c in cities], *[f"area:city={c}" for c in cities]]
    is_city = one_hot(CITY)
    assert result["val_loss"] == mse(by_hand([AREA, *is_city, *[AREA * one for one in is_city]]))
    assert result["fit"]["left_out"] == ["city=Bonn", "area:city=Bonn"]


TARGETS = {
    "log": (np.log, np.exp),
    "log1p": (np.log1p, np.expm1),
    "sqrt": (np.sqrt, lambda z: np.maximum(z, 0) ** 2),
}


@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("memory", ["resident", "mapped"])
@pytest.mark.parametrize("name", TARGETS)
def test_a_transformed_target_is_predicted_in_its_own_units(linreg, name, memory, standardize):
    apply, invert = TARGETS[name]
    yhat = invert(by_hand([AREA, ROOMS], apply(PRICE)))
    _, result = fitted(linreg, [], data__target_transform={"name": name}, data__memory=memory,
                       data__standardize=standardize)  # fmt: skip
    assert result["val_loss"] == mse(yhat)
    assert result["loss"] == mse(yhat, TRAIN)
    assert result["fit"]["equation"].startswith(f"{name}(price) = ")
    measured = json.loads(linreg("evaluate", "--json").out)["metrics"]["price"]
    assert measured["mse"] == mse(yhat)
    assert measured["mae"] == pytest.approx(np.abs(PRICE - yhat)[VAL].mean(), rel=1e-8)
    total = ((PRICE[VAL] - PRICE[VAL].mean()) ** 2).mean()
    assert measured["r2"] == pytest.approx(1 - ((PRICE - yhat)[VAL] ** 2).mean() / total, rel=1e-8)
    answer = linreg("predict", "--inputs", f"{AREA[0]},{ROOMS[0]}")
    assert float(answer.out) == pytest.approx(yhat[0], rel=1e-9)


def test_box_cox_learns_the_lambda_of_scipy(linreg):
    _, lmbda = stats.boxcox(PRICE[TRAIN])
    yhat = by_hand([AREA, ROOMS], stats.boxcox(PRICE, lmbda))
    _, result = fitted(linreg, [], data__target_transform={"name": "box_cox"})
    assert result["val_loss"] == pytest.approx(((PRICE - (lmbda * yhat + 1) ** (1 / lmbda))[VAL] ** 2).mean(), rel=1e-6)


@pytest.mark.parametrize("lmbda", [-1.0, 0.0, 0.5, 2.0])
def test_box_cox_inverts_itself(lmbda):
    box_cox = TARGET_TRANSFORMS.build(TARGET_TRANSFORMS.check({"name": "box_cox", "lmbda": lmbda}))
    y = torch.tensor([[1e-3], [0.5], [1.0], [20.0]], dtype=torch.float64)
    learnt = box_cox.learn(y)
    z = box_cox.apply(y, **learnt)
    assert np.allclose(z.numpy()[:, 0], stats.boxcox(y.numpy()[:, 0], lmbda), rtol=1e-12)
    assert np.allclose(box_cox.invert(z, **learnt), y, rtol=1e-9)
    beyond = box_cox.invert(torch.full((1, 1), -1e3, dtype=torch.float64), **learnt)
    assert (beyond == 0).all() or lmbda < 0  # the smallest value that the transform has


def test_the_interval_of_a_transformed_target_holds_its_transformed_bounds(linreg):
    spec = spec_with([{"name": "log", "columns": "area"}], data__target_transform={"name": "log"})
    assert linreg("train", spec).code == 0
    point = "80,3"
    transformed = [float(v) for v in linreg("predict", "--inputs", point, "--interval", "0.9").out.split(",")]
    Path("t.csv").write_text("\n".join(
        ["area,rooms,price", *[f"{np.log(a)},{r},{np.log(p)}" for a, r, p in zip(AREA, ROOMS, PRICE, strict=True)]]
    ))  # fmt: skip
    assert linreg("train", spec_with()).code == 0
    plain = linreg("predict", "--inputs", f"{np.log(80)},3", "--interval", "0.9").out.split(",")
    assert transformed == pytest.approx(np.exp([float(value) for value in plain]), rel=1e-9)


@pytest.mark.parametrize("standardize", [False, True, "features"])
def test_training_on_derived_columns_is_training_on_a_table_that_has_them(linreg, standardize):
    options = {"epochs": 3, "data__standardize": standardize, "optimizer__lr": 1e-3, "dtype": "float64"}
    transforms = [{"name": "log", "columns": "area"}, {"name": "interaction", "columns": ["log(area)", "rooms"]}]
    spec = spec_with(transforms, solver="gradient", **options)
    assert linreg("train", spec, "--name", "derived").code == 0
    assert linreg("train", spec, "--name", "mapped", "data.memory=mapped").code == 0
    log = torch.log(torch.from_numpy(AREA)).numpy()
    rows = zip(log, ROOMS, log * ROOMS, PRICE, strict=True)
    Path("u.csv").write_text("\n".join(["a,b,c,price", *(",".join(map(str, row)) for row in rows)]) + "\n")
    spec = write_spec(data__source={**SOURCE, "path": "u.csv"}, data__split={"train_ratio": 0.75, "by": "order"},
                      **options)  # fmt: skip
    assert linreg("train", spec, "--name", "written").code == 0
    derived, mapped, written = (
        torch.load(f"checkpoints/{name}_001/last.pth", weights_only=True) for name in ("derived", "mapped", "written")
    )
    assert same(derived["model_state_dict"], mapped["model_state_dict"]) and derived["loss"] == mapped["loss"]
    assert derived["loss"] == pytest.approx(written["loss"], rel=1e-12)
    assert derived["val_loss"] == pytest.approx(written["val_loss"], rel=1e-12)


@pytest.mark.parametrize("engine", ["auto", "textbook"])
def test_losses_of_a_transformed_target_are_in_its_units(linreg, engine):
    spec = spec_with(solver="gradient", data__target_transform={"name": "log"}, data__standardize=True, epochs=4,
                     optimizer__lr=0.05, engine=engine, data__batch_size="full")  # fmt: skip
    assert linreg("train", spec).code == 0
    saved = torch.load("checkpoints/small_001/last.pth", weights_only=True)
    measured = json.loads(linreg("evaluate", "--json").out)["metrics"]["price"]
    assert saved["val_loss"][-1] == pytest.approx(measured["mse"], rel=1e-5)
    assert saved["fit"] is None


def test_a_run_with_transforms_resumes_exactly(linreg):
    transforms = [{"name": "spline", "columns": "age"}, {"name": "bins", "columns": "area"}]
    spec = spec_with(transforms, ("age", "area", "city", "sold"), solver="gradient", epochs=4, data__standardize=True,
                     data__target_transform={"name": "box_cox"})  # fmt: skip
    assert linreg("train", spec, "--name", "whole").code == 0
    assert linreg("train", spec, "--name", "parts", "epochs=2").code == 0
    assert linreg("resume", "checkpoints/parts_001/last.pth", "epochs=4").code == 0
    whole, parts = (torch.load(f"checkpoints/{n}_001/last.pth", weights_only=True) for n in ("whole", "parts"))
    assert same(whole["model_state_dict"], parts["model_state_dict"]) and whole["loss"] == parts["loss"]


def test_a_table_and_single_rows_have_the_same_predictions(linreg):
    transforms = [{"name": "log", "columns": "area"}, {"name": "date_parts", "columns": "sold"},
                  {"name": "spline", "columns": "age"}]  # fmt: skip
    spec = spec_with(transforms, ("area", "age", "city", "sold"), data__target_transform={"name": "sqrt"})
    assert linreg("train", spec).code == 0
    lines = linreg("predict", "--input", "t.csv").out.split()[1:]
    rows = [f"{AREA[i]},{AGE[i]},{CITY[i]},{SOLD[i]}" for i in range(20)]
    assert linreg("predict", "--inputs", *rows).out.split() == lines[:20]


def test_gaps_are_filled_before_the_transforms(linreg):
    lines = Path("t.csv").read_text().splitlines()
    lines[5] = "," + lines[5].partition(",")[2]
    Path("t.csv").write_text("\n".join(lines))
    source = {**SOURCE, "features": ["area"], "missing": "median"}
    spec = write_spec(data__source=source, data__transforms=[{"name": "log", "columns": "area"}], solver="exact",
                      data__split={"train_ratio": 0.75, "by": "order"})  # fmt: skip
    assert linreg("train", spec).code == 0
    area = AREA.copy()
    area[4] = np.median(np.delete(AREA[TRAIN], 4))
    measured = json.loads(linreg("evaluate", "--json", "--part", "train").out)["metrics"]["price"]
    assert measured["mse"] == mse(by_hand([np.log(area)]), TRAIN)


def test_predictions_of_rows_with_a_gap_stay_empty(linreg):
    assert linreg("train", spec_with([{"name": "log", "columns": "area"}])).code == 0
    Path("p.csv").write_text("area,rooms\n50,2\n,3\n80,\n60,4\n")
    answer = linreg("predict", "--input", "p.csv", "--on-gap", "empty")
    filled = linreg("predict", "--inputs", "50,2", "60,4").out.split()
    assert answer.out.splitlines() == ["price_predicted", filled[0], "", "", filled[1]]


@pytest.mark.parametrize("memory", ["resident", "mapped"])
@pytest.mark.parametrize("solver", ["gradient", "exact"])
@pytest.mark.parametrize("row", [7, 170])
def test_a_value_that_a_transform_does_not_take_is_reported_by_its_row(linreg, memory, solver, row):
    lines = Path("t.csv").read_text().splitlines()
    lines[row] = "-3," + lines[row].partition(",")[2]
    Path("t.csv").write_text("\n".join(lines))
    answer = linreg("train", spec_with([{"name": "log", "columns": "area"}], solver=solver, data__memory=memory))
    assert answer.code == 3
    assert f"t.csv: row {row}, column 'area': log(area) needs numbers > 0, got -3; fix it" in answer.err
    assert not Path("runs").exists()


def test_a_target_that_its_transform_does_not_take_is_reported_by_its_row(linreg):
    lines = Path("t.csv").read_text().splitlines()
    lines[9] = lines[9].rpartition(",")[0] + ",0"
    Path("t.csv").write_text("\n".join(lines))
    for solver in ("gradient", "exact"):
        answer = linreg("train", spec_with(solver=solver, data__target_transform={"name": "log"}))
        assert answer.code == 3
        assert "t.csv: row 9, column 'price': log(price) needs numbers > 0, got 0; fix it, or use" in answer.err


def test_predictions_refuse_what_a_transform_does_not_take(linreg):
    assert linreg("train", spec_with([{"name": "log", "columns": "area"}])).code == 0
    answer = linreg("predict", "--inputs", "5,2", "0,1")
    assert answer.code == 2 and "--inputs: row 2, column 'area': log(area) needs numbers > 0, got 0" in answer.err
    Path("p.csv").write_text("area,rooms,price\n5,2,1\n5,2,1\n0,1,1\n")
    for answer in (linreg("predict", "--input", "p.csv"), linreg("evaluate", "--data", "p.csv")):
        assert answer.code == 3 and "p.csv: row 3, column 'area': log(area) needs numbers > 0, got 0" in answer.err


BAD = {
    "unknown": ([{"name": "lgo", "columns": "area"}], "data.transforms.0.name: unknown transform 'lgo'; did you mean"),
    "unknown column": ([{"name": "log", "columns": "aera"}], "log: no column 'aera'; did you mean 'area'?"),
    "replaced column": (
        [{"name": "log", "columns": "area"}, {"name": "sqrt", "columns": "area"}],
        "data.transforms.1: sqrt: no column 'area'; did you mean 'log(area)'?",
    ),
    "no columns": ([{"name": "log"}], "data.transforms.0.columns: missing; transform log needs it"),
    "a text": ([{"name": "log", "columns": "city"}], "log: column 'city' is a category, and the transform takes numbers"),
    "not a date": ([{"name": "date_parts", "columns": "area"}], "column 'area' is not a date; add it to dates"),
    "target": ([{"name": "log", "columns": "price"}], "log: 'price' is a target; set data.target_transform"),
    "twice": ([{"name": "log", "columns": ["area", "area"]}], "log: duplicate column 'area'; remove one"),
    "same name": (
        [{"name": "log", "columns": "area", "keep": True}, {"name": "log", "columns": "area", "keep": True}], "log: makes a second column 'log(area)'; remove one",
    ),
    "one factor": ([{"name": "interaction", "columns": ["area"]}], "must have at least 2 items, got ['area']"),
    "no list": ({"name": "log", "columns": "area"}, "data.transforms: must be a list, got a mapping"),
    "bins twice": (
        [{"name": "bins", "columns": "area", "n_bins": 3, "edges": [1.0]}], "edges has the intervals already; remove one",
    ),
    "edges": ([{"name": "bins", "columns": "area", "edges": [2.0, 1.0]}], "edges: must be ascending, got [2.0, 1.0]"),
    "knots": ([{"name": "spline", "columns": "area", "knots": [2, 1, 3]}], "knots: must be ascending, got"),
    "part": ([{"name": "date_parts", "columns": "sold", "parts": ["yaer"]}], "transforms.0.parts.0: must be 'year', "),
    "clip": ([{"name": "clip", "columns": "area"}], "set either quantiles, or minimum and maximum"),
    "empty clip": ([{"name": "clip", "columns": "area", "minimum": 2, "maximum": 1}], "the range 2 to 1 is empty"),
}  # fmt: skip


@pytest.mark.parametrize("transforms, message", BAD.values(), ids=list(BAD))
def test_a_wrong_transform_is_a_spec_error(linreg, transforms, message):
    spec = write_spec(data__source={**SOURCE, "categorical": "city", "dates": "sold"}, data__transforms=transforms)
    answer = linreg("train", spec)
    assert answer.code == 2 and message in answer.err and "small.yaml:" in answer.err
    assert not Path("runs").exists()


def test_every_problem_of_several_transforms_is_listed(linreg):
    transforms = [{"name": "lgo"}, {"name": "log", "colums": "area"}, {"name": "bins", "columns": "area", "n_bins": 1}]
    answer = linreg("train", write_spec(data__source=SOURCE, data__transforms=transforms,
                                        data__target_transform={"name": "logg"}))  # fmt: skip
    assert answer.code == 2
    for message in (
        "data.transforms.0.name: unknown transform 'lgo'",
        "data.transforms.1.colums: unknown param of transform log; did you mean 'columns'?",
        "data.transforms.2.n_bins: must be >= 2, got 1",
        "data.target_transform.name: unknown target_transform 'logg'; did you mean 'log'?",
    ):
        assert message in answer.err


def test_the_compiled_engine_refuses_a_transform_of_the_target(linreg):
    answer = linreg("train", spec_with(solver="gradient", data__target_transform={"name": "log"}, engine="compiled"))
    assert answer.code == 2 and "does not support target_transform; use engine: auto" in answer.err


def test_a_plugin_adds_a_transform(linreg):
    Path("own.py").write_text('''
from linreg import TRANSFORMS, Derived


@TRANSFORMS.register("cube_root")
def cube_root(*, columns: str | list[str]):
    """The cube root."""
    return Derived(lambda name: [f"cbrt({name})"], lambda x: x.sign() * x.abs() ** (1 / 3))
''')
    spec = spec_with([{"name": "cube_root", "columns": "area"}])
    assert linreg("list", "transform", "--plugin", "own.py").out.count("transform cube_root: The cube root.") == 1
    answer = linreg("train", spec, "--plugin", "own.py", "--json")
    result = json.loads(answer.out)
    assert [row["name"] for row in result["fit"]["coefficients"]] == ["intercept", "cbrt(area)", "rooms"]
    assert result["val_loss"] == mse(by_hand([np.cbrt(AREA), ROOMS]))
    assert linreg("evaluate", "--plugin", "own.py").code == 0


OWN = {
    "no columns": (
        "def f(*, x: str):\n    return Derived(lambda name: [name], lambda x: x)",
        "needs the param 'columns'",
    ),
    "other shape": (
        "def f(*, columns: str):\n    return Derived(lambda name: ['a', 'b'], lambda x: x)",
        "f: returns (2, 1) of torch.float64 for 2 names, not (2, 2) of torch.float64; fix the transform",
    ),
    "failure": (
        "def f(*, columns: str):\n    return Derived(lambda name: [name], lambda x: x / {})",
        "f: fails: TypeError: unsupported operand",
    ),
    "float32": (
        "def f(*, columns: str):\n    return Derived(lambda name: [name], lambda x: x.float())",
        "f: returns (2, 1) of torch.float32",
    ),
}


@pytest.mark.parametrize("body, message", OWN.values(), ids=list(OWN))
def test_a_wrong_transform_of_a_plugin_is_refused(linreg, body, message):
    Path("own.py").write_text(f"from linreg import TRANSFORMS, Derived\n\n@TRANSFORMS.register('f')\n{body}\n")
    answer = linreg("train", spec_with([{"name": "f", "columns": "area"}]), "--plugin", "own.py")
    assert answer.code == 2 and message in answer.err
    assert not Path("runs").exists()


def test_a_checkpoint_whose_learnt_values_are_damaged_is_refused(linreg):
    assert linreg("train", spec_with([{"name": "spline", "columns": "age"}], ("age",))).code == 0
    from linreg.checkpoint import load, save

    checkpoint = load("checkpoints/small_001/last.pth")
    name = "preprocessing.transforms.0.0.knots"
    for value in (torch.zeros(5, 2), torch.zeros(0), torch.zeros(4, dtype=torch.float64), None):
        state = {**checkpoint.model_state_dict}
        if value is None:
            del state[name]
        else:
            state[name] = value
        checkpoint.model_state_dict, old = state, checkpoint.model_state_dict
        save(Path("damaged.pth"), checkpoint)
        checkpoint.model_state_dict = old
        answer = linreg("predict", "damaged.pth", "--inputs", "5")
        assert answer.code == 4 and "damaged.pth: " in answer.err


def test_no_warning_of_a_library_reaches_the_user(linreg):
    transforms = [{"name": "bins", "columns": "age"}, {"name": "spline", "columns": "area"}]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (
            linreg(
                "train", spec_with(transforms, ("age", "area"), solver="gradient", epochs=1, data__standardize=True)
            ).code
            == 0
        )


def test_a_date_outside_the_range_is_reported_as_a_date(linreg):
    assert linreg("train", spec_with([], ("sold", "area"))).code == 0
    low, high = min(SOLD[:150]), max(SOLD[:150])
    answer = linreg("predict", "--inputs", "2031-05-06,50", "2031-05-07T06:30,50")
    assert f"outside the range of the training part, {low[:10]}" in answer.err
    assert f" to {high[:10]}" in answer.err and "the first is row 1 (2031-05-06)" in answer.err
    answer = linreg("predict", "--inputs", "2031-05-07T06:30,50")
    assert "the first is row 1 (2031-05-07T06:30)" in answer.err


def test_bins_of_two_columns_are_two_groups_and_stay_indicators(linreg):
    transforms = [{"name": "bins", "columns": ["age", "area"], "n_bins": 2}]
    names, result = fitted(linreg, transforms, ("age", "area"), data__standardize=True)
    halves = [np.median(column[TRAIN]) for column in (AGE, AREA)]
    first, second = f"age<{halves[0]:.6g}", f"area<{halves[1]:.6g}"
    assert result["fit"]["left_out"] == [first, second]
    assert result["val_loss"] == mse(by_hand([halves[0] <= AGE, halves[1] <= AREA]))
    estimate = {row["name"]: row["estimate"] for row in result["fit"]["coefficients"]}
    assert estimate[first] == estimate[second] == 0 and "z(" not in "".join(names)
    state = torch.load("checkpoints/small_001/last.pth", weights_only=True)["model_state_dict"]
    assert (state["preprocessing.scale"] == 1).all() and (state["preprocessing.mean"] == 0).all()


def test_the_coefficients_of_trained_bins_are_relative_to_the_first(linreg):
    transforms = [{"name": "bins", "columns": ["age", "area"], "n_bins": 2}]
    spec = spec_with(transforms, ("age", "area"), solver="gradient", epochs=30, data__standardize=True, dtype="float64")
    result = json.loads(linreg("train", spec, "--json").out)
    estimate = {row["name"]: row["estimate"] for row in result["fit"]["coefficients"]}
    predicted = {}
    for age, area in ((1, 20), (80, 20), (1, 150)):
        predicted[age, area] = float(linreg("predict", "--inputs", f"{age},{area}").out)
    assert estimate["intercept"] == pytest.approx(predicted[1, 20], rel=1e-9)
    low, high = [value for name, value in estimate.items() if name.startswith("age")]
    assert low == 0 and high == pytest.approx(predicted[80, 20] - predicted[1, 20], rel=1e-9)
    low, high = [value for name, value in estimate.items() if name.startswith("area")]
    assert low == 0 and high == pytest.approx(predicted[1, 150] - predicted[1, 20], rel=1e-9)


def test_a_number_transform_refuses_bins(linreg):
    transforms = [{"name": "bins", "columns": "age", "edges": [50]}, {"name": "log1p", "columns": "age<50"}]
    answer = linreg("train", spec_with(transforms, ("age", "area")))
    assert answer.code == 2 and "log1p: column 'age<50' is a category, and the transform takes numbers" in answer.err


def test_an_edge_belongs_to_the_interval_above_it():
    bins = TRANSFORMS.build(TRANSFORMS.check({"name": "bins", "columns": "x", "edges": [18.0, 65.0]}))
    x = torch.tensor([[17.9], [18.0], [65.0]], dtype=torch.float64)
    assert (bins.apply(x, **bins.learn(x)) == torch.eye(3, dtype=torch.float64)).all()


def test_a_square_root_below_zero_is_the_target_zero():
    sqrt = TARGET_TRANSFORMS.build(TARGET_TRANSFORMS.check({"name": "sqrt"}))
    assert sqrt.invert(torch.tensor([[-2.0], [3.0]])).tolist() == [[0.0], [9.0]]


@pytest.mark.parametrize("memory", ["resident", "mapped"])
def test_a_derived_value_that_does_not_fit_float32_is_reported_by_its_row(linreg, memory):
    row = int(np.argmax(AREA)) + 1
    exponent = float(np.ceil(np.log(3.5e38) / np.log(AREA.max())))
    assert np.partition(AREA, -2)[-2] ** exponent < 3.4e38
    spec = spec_with([{"name": "power", "columns": "area", "exponent": exponent}], solver="gradient", epochs=1,
                     data__memory=memory)  # fmt: skip
    answer = linreg("train", spec)
    assert answer.code == 3 and f"t.csv: row {row}, column 'area^{exponent:g}': " in answer.err
    assert "does not fit float32" in answer.err


def test_a_row_with_a_gap_leaves_no_relation(linreg):
    rows = zip(AREA, 2 * np.log(AREA), PRICE, strict=True)
    Path("t.csv").write_text("\n".join(["area,twice,price", *(",".join(map(str, row)) for row in rows)]))
    assert linreg("train", spec_with([{"name": "log", "columns": "area"}], ("area", "twice"))).code == 0
    Path("p.csv").write_text(f"area,twice\n50,{2 * np.log(50)}\n,3\n40,\n60,1\n")
    answer = linreg("predict", "--input", "p.csv", "--on-gap", "empty")
    assert answer.code == 0 and len(answer.out.split()) == 3
    assert "it is a linear combination of 'log(area)', but not in 1 of 4 rows, the first is row 4" in answer.err
