"""An exported model predicts what `predict` does, without linreg, and refuses what it refuses."""

import csv
import errno
import json
import math
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from linreg.data.tables import cells
from linreg.experiment.export import c, checking, exporting, onnx_graph, sql
from linreg.experiment.export.describing import describe
from linreg.experiment.export.evaluating import value_of
from linreg.experiment.export.exporting import export
from linreg.experiment.export.expressions import variable
from linreg.experiment.export.functions import erf, log1p
from linreg.experiment.export.rows import Rows, draw_rows
from linreg.experiment.loaded import LoadedModel
from tests.conftest import small_spec, write_spec
from tests.experiment import json_reader

HOSTILE = [
    'a"b', "it's", "x'); DROP TABLE input; --", "*/ int /*", "back\\slash", "??/", "??(", "é漢", "t", "v0_0", "s0", "linreg/0",
    "%s", "{0}", "a,b", "line\nbreak", "tab\there", "SELECT", "y_predicted", "\x7f", "#define",
]  # fmt: skip
ACTIVATIONS = ["relu", "tanh", "sigmoid", "gelu", "silu", "elu", "leaky_relu"]
N_ROWS = 60


def require(to):
    """Skip a test of a format that this machine cannot run."""
    if to == "c" and shutil.which("cc") is None:
        pytest.skip("no C compiler (cc)")


def write_table(numbers, categories, *, dates=(), gaps=False, path="t.parquet", seed=0):
    """Write a table with positive numbers, categories from lists, dates, and a target y > 0 and z."""
    random = np.random.default_rng(seed)
    columns = {name: list(random.uniform(0.5, 3, N_ROWS)) for name in numbers}
    columns |= {name: list(np.floor(random.uniform(-60_000, 50_000, N_ROWS) * 24) / 24) for name in dates}
    columns |= {name: [own[i % len(own)] for i in random.permutation(N_ROWS)] for name, own in categories.items()}
    if gaps:
        for name in columns:
            for row in random.choice(N_ROWS, 6, replace=False):
                columns[name][row] = None
    for name in dates:
        columns[name] = pa.array([None if d is None else int(d * 86_400_000_000) for d in columns[name]], pa.timestamp("us"))  # fmt: skip
    columns |= {"y": random.uniform(1, 5, N_ROWS), "z": random.uniform(1, 5, N_ROWS)}
    pq.write_table(pa.table(columns), path)


def trained(linreg, **changes):
    """Train a spec on the table, and return its checkpoint."""
    fixed = {"epochs": 1, "optimizer__lr": 1e-6, "baseline": False, "data__split": {"train_ratio": 1.0}}
    Path("export.yaml").write_text(json.dumps(small_spec(**fixed | changes)))  # JSON is YAML
    answer = linreg("train", "export.yaml", "--quiet")
    assert answer.code == 0, answer.err
    return answer.out.strip()


def source(**params):
    return {"name": "parquet", "path": "t.parquet", **params}


@st.composite
def cases(draw):
    """A table, as arguments of `write_table`, and the spec of a model for it, as arguments of `trained`."""
    names = draw(st.lists(st.sampled_from(HOSTILE), min_size=4, max_size=5, unique_by=str.lower))
    n_numbers = draw(st.integers(1, 2))
    numbers, texts = names[:n_numbers], names[n_numbers:3]
    model = draw(
        st.sampled_from([{"name": "linear"}, {"name": "linear", "bias": False}, {"name": "polynomial", "degree": 3}])
        | st.sampled_from(ACTIVATIONS).map(lambda name: {"name": "mlp", "hidden": [5, 4], "activation": name, "dropout": 0.1})
    )  # fmt: skip
    dates = names[3:4] if draw(st.booleans()) and "bias" not in model else []  # without bias nothing is centred
    values = st.one_of(
        st.just(["true", "false"]), st.just(["1", "0"]), st.lists(st.sampled_from(HOSTILE), min_size=2, max_size=4, unique=True)
    )  # fmt: skip
    categories = {name: draw(values) for name in texts}
    missing = draw(st.sampled_from(["error", "mean", "median"]))
    standardize = draw(st.booleans())
    first, name = numbers[0], texts[0]
    pool = [
        {"name": "log", "columns": first}, {"name": "log1p", "columns": first}, {"name": "sqrt", "columns": first},
        {"name": "power", "columns": first, "exponent": 2.0}, {"name": "power", "columns": first, "exponent": -1.5},
        {"name": "power", "columns": first, "exponent": 0.5, "keep": False}, {"name": "bins", "columns": first},
        {"name": "bins", "columns": first, "edges": [1.0, 2.0], "keep": True}, {"name": "spline", "columns": first},
        {"name": "clip", "columns": first, "quantiles": [0.1, 0.9]}, {"name": "clip", "columns": first, "minimum": 2.0},
        {"name": "interaction", "columns": [first, name]},
    ]  # fmt: skip
    transforms = [draw(st.sampled_from(pool))] if draw(st.booleans()) else []
    if dates:
        parts = ["year", "quarter", "month", "day", "weekday", "day_of_year", "hour"]
        transforms += [{"name": "date_parts", "columns": dates, "parts": parts, "cyclic": draw(st.booleans())}]
    target = draw(st.sampled_from([None, {"name": "log"}, {"name": "log1p"}, {"name": "sqrt"}, {"name": "box_cox"}]))
    table = {"numbers": numbers, "categories": categories, "dates": dates, "gaps": missing != "error"}
    spec = {
        "data__source": source(target=draw(st.sampled_from(["y", ["y", "z"]])), features=[*numbers, *texts, *dates],
                               categorical=texts, missing=missing, unseen=draw(st.sampled_from(["error", "zeros"])),
                               **({"dates": dates} if dates else {})),
        "data__standardize": standardize or bool(dates), "data__transforms": transforms, "model": model,
        "dtype": draw(st.sampled_from(["float32", "float64"])),
        **({"data__target_transform": target} if target else {}),
    }  # fmt: skip
    return table, spec


def assert_close(checked, dtype):
    tolerance = 1e-10 if dtype == "float64" else 1e-4
    assert (checked.problem, checked.n_contrary) == ("", 0)
    assert checked.n_rows >= 200
    assert checked.absolute <= tolerance * (1 + checked.spread), checked


def read_json(path, rows):
    """Predict with the reader that was written from the documentation."""
    model = json.loads(Path(path).read_text())
    names = [entry["name"] for entry in model["inputs"]]
    found = []
    for row in range(rows.n_rows):
        values = (rows.values[name][row] for name in names)
        values = [None if isinstance(value, float) and math.isnan(value) else value for value in values]
        found.append(json_reader.predict(model, dict(zip(names, values, strict=True))))
    return np.array([[math.nan] * len(model["outputs"]) if y is None else y for y in found])


PROPERTIES = settings(
    max_examples=15, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.mark.parametrize("to", ["json", "sql", "c", "onnx"])
@PROPERTIES
@given(case=cases())
def test_every_format_predicts_what_predict_does(linreg, to, case):
    require(to)
    table, spec = case
    write_table(**table)
    checkpoint = trained(linreg, **spec)
    path = Path(f"model.{to}")
    assert_close(export(checkpoint, to, path).check, spec["dtype"])
    if to == "json":
        model = LoadedModel(checkpoint, device="cpu")
        rows = draw_rows(describe(model)["inputs"], seed=1)
        assert_close(checking.check(model, rows, lambda rows: read_json(path, rows)), spec["dtype"])
    if to == "c":
        compile_strictly(path)


@pytest.mark.parametrize("to", ["json", "sql", "c", "onnx"])
def test_names_and_categories_are_text_and_no_code(linreg, to):
    require(to)
    write_table(HOSTILE[:-1], {HOSTILE[-1]: HOSTILE}, gaps=True)
    table = source(target="y", features=HOSTILE, categorical=HOSTILE[-1], missing="mean", unseen="zeros")
    path = Path(f"model.{to}")
    assert_close(export(trained(linreg, data__source=table), to, path).check, "float32")
    if to == "c":
        compile_strictly(path)


def compile_strictly(path):
    command = ["cc", "-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-c", "-o", "model.o", path]
    subprocess.run(command, check=True, timeout=60)


EVERY_TRANSFORM = [
    {"name": "log", "columns": "a", "keep": True}, {"name": "log1p", "columns": "a", "keep": True},
    {"name": "sqrt", "columns": "a", "keep": True}, {"name": "power", "columns": "a", "exponent": -1.5},
    {"name": "spline", "columns": "a", "keep": False}, {"name": "clip", "columns": "b", "quantiles": [0.1, 0.9], "keep": True},
    {"name": "interaction", "columns": ["b", "c"]}, {"name": "bins", "columns": "b"},
    {"name": "date_parts", "columns": "d", "parts": ["year", "quarter", "day", "weekday", "day_of_year"], "keep": True},
    {"name": "date_parts", "columns": "d", "parts": ["month", "hour"], "cyclic": True},
]  # fmt: skip
TARGET_TRANSFORMS = ["log", "log1p", "sqrt", "box_cox"]


@pytest.mark.parametrize("to", ["json", "sql", "c", "onnx"])
def test_every_component_is_in_every_format(linreg, to):
    require(to)
    write_table(["a", "b"], {"c": ["true", "false"]}, dates=["d"], gaps=True)
    table = source(target=["y", "z"], features=["a", "b", "c", "d"], categorical="c", dates="d", missing="median")
    for i, name in enumerate(ACTIVATIONS):
        model = {"name": "mlp", "hidden": [5, 4], "activation": name}
        target = {"name": TARGET_TRANSFORMS[i % 4]}
        checkpoint = trained(
            linreg, data__source=table, data__transforms=EVERY_TRANSFORM if i == 0 else [], data__standardize=True,
            data__target_transform=target, model=model, dtype="float64",
        )  # fmt: skip
        checked = export(checkpoint, to, Path(f"model.{to}")).check
        assert_close(checked, "float64")
        if to == "json":
            model = LoadedModel(checkpoint, device="cpu")
            rows = draw_rows(describe(model)["inputs"], seed=1)
            assert_close(checking.check(model, rows, lambda rows: read_json("model.json", rows)), "float64")


CARS = {
    "data__source": source(target="y", features=["a", "b", "c"], categorical="c", missing="mean", unseen="zeros"),
    "data__standardize": True,
}


@pytest.fixture
def cars(linreg):
    """A checkpoint of a linear model of two numbers and a category."""
    write_table(["a", "b"], {"c": ["usa", "it's", "1"]}, gaps=True)
    return trained(linreg, **CARS)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"name": "mlp", "hidden": [4], "activation": "gelu", "dropout": 0.2}, "data__target_transform": {"name": "log"}},
        {"model": {"name": "polynomial", "degree": 2}, "data__target_transform": {"name": "box_cox"}},
        {"data__transforms": [
            {"name": "bins", "columns": "a"}, {"name": "spline", "columns": "b", "keep": True},
            {"name": "interaction", "columns": ["b", "c"]}, {"name": "date_parts", "columns": "d", "cyclic": True},
        ]},
    ],
    ids=["mlp", "polynomial", "transforms"],
)  # fmt: skip
def test_pt2_has_the_bits_of_predict(linreg, dtype, changes):
    write_table(["a", "b"], {"c": ["usa", "it's"]}, dates=["d"], gaps=True)
    table = {**CARS["data__source"], "features": ["a", "b", "c", "d"], "dates": "d"}
    checkpoint = trained(linreg, **CARS | {"data__source": table, "dtype": dtype} | changes)
    checked = export(checkpoint, "pt2", Path("model.pt2")).check
    assert (checked.problem, checked.n_contrary, checked.absolute) == ("", 0, 0.0)
    program = torch.export.load("model.pt2").module()
    assert program(torch.zeros(1, 4, dtype=torch.float64)).shape == (1, 1)
    assert program(torch.full((5, 4), math.nan, dtype=torch.float64)).isfinite().all()


def test_a_line_is_the_same_by_hand_in_every_text_format(linreg):
    """y = 3 + 2 (a - 5) / 4 + 7 for a category."""
    description = {
        "format": "linreg export", "version": 1, "linreg": "0", "name": "line", "precision": "float64",
        "inputs": [
            {"name": "a", "kind": "number", "gap": 9.0, "minimum": 0.0, "maximum": 9.0},
            {"name": "c", "kind": "category", "gap": None, "categories": ["yes", "no"], "also": {"1": "yes"}, "unseen": "error"},
        ],
        "steps": [
            {"step": "encode", "columns": ["a", "c=yes", "c=no"]},
            {"step": "standardize", "mean": [5.0, 0.0, 1.0], "scale": [4.0, 1.0, 0.0]},
            {"step": "linear", "weights": [[2.0, 7.0, 100.0]], "bias": [3.0]},
        ],
        "outputs": ["y"],
    }  # fmt: skip
    rows = [(5.0, "yes"), (7.0, "no"), (None, "1"), (5.0, None), (5.0, "maybe")]
    expected = [10.0, 4.0, 12.0, None, None]
    assert [json_reader.predict(description, {"a": a, "c": text}) for a, text in rows] == [
        y if y is None else [y] for y in expected
    ]
    database = sqlite3.connect(":memory:")
    database.execute("CREATE TABLE input (a REAL, c TEXT)")
    database.executemany("INSERT INTO input VALUES (?, ?)", rows)
    assert [row[-1] for row in database.execute(sql.write(description))] == expected
    database.close()
    require("c")
    values = {"a": [math.nan if a is None else a for a, _ in rows], "c": [text for _, text in rows]}
    answers = c.run(c.write(description).encode(), description, exporting.Rows(len(rows), values))
    assert [None if math.isnan(y) else y for y in answers[:, 0]] == expected


def test_sql_predicts_a_table_as_predict_does(linreg, cars):
    """End to end: through the texts and gaps of a table."""
    random = np.random.default_rng(3)
    table = [(i, *random.uniform(0, 9, 2), ["it's", "usa", "1", "Mars"][i % 4]) for i in range(40)]
    table += [(40, None, 2.5, "usa"), (41, 1.5, 2.5, None)]
    with Path("new.csv").open("w") as file:
        csv.writer(file).writerows([("row", "a", "b", "c"), *table])
    predicted = linreg("predict", cars, "--input", "new.csv").out.splitlines()[1:]
    assert linreg("export", cars, "--to", "sql").code == 0
    database = sqlite3.connect(":memory:")
    database.execute('CREATE TABLE input ("row" INTEGER, a REAL, b REAL, c TEXT)')
    database.executemany("INSERT INTO input VALUES (?, ?, ?, ?)", table)
    found = sorted(database.execute(Path("small.sql").read_text()))
    database.close()
    assert [row[:4] for row in found] == table
    assert [row[4] for row in found] == pytest.approx([float(y) for y in predicted], rel=1e-6)


QUOTED = ["q", '"q"', "z"] * 20


@pytest.mark.parametrize("unseen", ["error", "zeros"])
@pytest.mark.parametrize("suffix", ["csv", "jsonl", "sqlite"])
@pytest.mark.parametrize("to", ["sql", "onnx"])
def test_a_category_in_quotes_is_another_one_in_every_command(linreg, to, suffix, unseen):
    x = [i / 10 for i in range(60)]
    y = [value + {"q": 0, '"q"': 10, "z": 3}[text] for value, text in zip(x, QUOTED, strict=True)]
    write_rows(path := f"t.{suffix}", {"c": QUOTED, "x": x, "y": y})
    table = {"name": suffix, "path": path, "target": "y", "categorical": "c", "unseen": unseen}
    checkpoint = trained(linreg, data__source=table, solver="exact")
    wanted = pytest.approx(y, abs=1e-4)
    assert [float(line) for line in linreg("predict", checkpoint, "--input", path).out.split()[1:]] == wanted
    assert float(linreg("predict", checkpoint, "--inputs", 'c="q"', "x=0").out) == pytest.approx(10, abs=1e-4)
    exported = export(checkpoint, to, Path(f"model.{to}"))
    assert_close(exported.check, "float32")
    model = LoadedModel(checkpoint, device="cpu")
    rows = Rows(60, {"c": QUOTED, "x": x})
    module = {"sql": sql, "onnx": onnx_graph}[to]
    assert module.run(exported.path.read_bytes(), describe(model), rows)[:, 0] == wanted


def write_rows(path, columns):
    """Write columns as CSV, JSON lines or a database."""
    rows = list(zip(*columns.values(), strict=True))
    match Path(path).suffix:
        case ".csv":
            with open(path, "w", newline="") as stream:
                csv.writer(stream).writerows([columns, *rows])
        case ".jsonl":
            Path(path).write_text("".join(json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in rows))
        case ".sqlite":
            with sqlite3.connect(path) as database:
                database.execute(f"CREATE TABLE t ({', '.join(columns)})")
                database.executemany("INSERT INTO t VALUES (?, ?, ?)", rows)
            database.close()


def test_the_check_has_categories_in_quotes_and_in_the_other_case(cars):
    rows = draw_rows(describe(LoadedModel(cars, device="cpu"))["inputs"])
    altered = ['"usa"', '"it\'s"', '"1"', "USA", "IT'S"]
    assert {rows.codes[i, 2] for i, text in enumerate(rows.values["c"]) if text in altered} == {-1.0}
    assert set(altered) < set(rows.values["c"])


def test_the_check_reads_texts_as_predict_does(cars, monkeypatch):
    read = cells.canonical
    monkeypatch.setattr(cells, "canonical", lambda text: read(text.strip('"')))
    assert export(cars, "json", Path("model.json")).check.absolute > 0.1


@pytest.mark.parametrize("to", ["sql", "onnx"])
def test_a_prediction_with_the_name_of_an_input_gets_another(linreg, to):
    require(to)
    write_table(["y_predicted"], {})
    checkpoint = trained(linreg, data__source=source(target="y", features=["y_predicted"]))
    assert_close(export(checkpoint, to, Path(f"model.{to}")).check, "float32")
    assert b"y_predicted_" in Path(f"model.{to}").read_bytes()


def test_the_sql_of_a_linear_model_needs_no_function(linreg, cars):
    export(cars, "sql", Path("model.sql"))
    text = re.sub(r"'[^']*'|\"[^\"]*\"", "", Path("model.sql").read_text())
    assert set(re.findall(r"(\w+)\(", text)) <= {"CAST", "COALESCE"}
    assert "WITH" not in text


def test_the_numbers_of_a_json_export_are_those_of_the_checkpoint(linreg, cars):
    export(cars, "json", Path("model.json"))
    found = json.loads(Path("model.json").read_text())
    model = LoadedModel(cars, device="cpu")
    linear = next(step for step in found["steps"] if step["step"] == "linear")
    assert linear["weights"] == model.model.network[0].weight.double().tolist()
    assert found["inputs"][0]["gap"] == float(model.preprocessing.fill[0])
    assert found["inputs"][2]["categories"] == ["1", "it's", "usa"]
    assert found["outputs"] == ["y"]


def test_the_numbers_of_a_c_export_keep_their_bits():
    values = [0.1, -1 / 3, 5e-324, 1.7976931348623157e308, -0.0, 1e6, 123456.0, np.float32(0.1).item()]
    for value in values:
        text = c.number_literal(value)
        found = float.fromhex(text) if "x" in text else float(text)
        assert (found, math.copysign(1, found)) == (value, math.copysign(1, value))
    assert c.number_literal(np.float32(0.1).item()) == "0x1.99999ap-4"


@pytest.mark.parametrize(("name", "function"), [("erf", math.erf), ("log1p", math.log1p)])
def test_replaced_functions_are_those_of_the_standard_library(name, function):
    x = np.concatenate(
        [np.linspace(-0.999, 7, 3001), np.geomspace(1e-300, 1, 101), [0.0, 0.84375, 1.25, 1 / 0.35, 6.0, 9.0]]
    )
    x = np.concatenate([x, -x[:3001:10]]) if name == "erf" else x
    with np.errstate(all="ignore"):
        found = value_of({"erf": erf, "log1p": log1p}[name](variable("x")), {"x": x})
    assert found == pytest.approx([function(value) for value in x], rel=1e-15, abs=1e-16)


def test_a_new_file_is_made_and_none_replaced_without_output(linreg, cars):
    answer = linreg("export", cars, "--to", "json")
    assert (answer.code, answer.out) == (0, "small.json\n")
    assert re.fullmatch(r"211 rows: differs from predict by at most [\d.e-]+ \(relative [\d.e-]+\)\n", answer.err)
    Path("small.json").write_text("mine")
    answer = linreg("export", cars, "--to", "json")
    assert answer.code == 2
    assert answer.err == "error: small.json: exists; remove it, or write --output small.json to replace it\n"
    assert Path("small.json").read_text() == "mine"
    assert linreg("export", cars, "--to", "json", "--output", "small.json").code == 0
    assert json.loads(Path("small.json").read_text())["format"] == "linreg export"


def test_the_checkpoint_itself_is_not_replaced(linreg, cars):
    content = Path(cars).read_bytes()
    answer = linreg("export", cars, "--to", "c", "--output", cars)
    assert (answer.code, answer.err) == (2, f"error: --output {cars}: is also the checkpoint; name another file\n")
    assert Path(cars).read_bytes() == content


def test_a_full_disk_leaves_the_old_file(linreg, cars, monkeypatch):
    Path("model.json").write_text("mine")
    before = sorted(Path().iterdir())

    def fail(*places):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    answer = linreg("export", cars, "--to", "json", "--output", "model.json")
    assert answer.code == 5
    assert "error: model.json: No space left on device" in answer.err
    assert (Path("model.json").read_text(), sorted(Path().iterdir())) == ("mine", before)


def test_the_result_of_the_check_is_in_json(linreg, cars):
    found = json.loads(linreg("export", cars, "--to", "json", "--json", "--quiet").out)
    assert (found["checkpoint"], found["output"]) == (cars, "small.json")
    assert (found["check"]["rows"], found["check"]["contrary"]) == (211, 0)
    assert found["check"]["absolute"] < 1e-5


def test_an_export_that_differs_is_reported(linreg, cars, monkeypatch):
    monkeypatch.setattr(exporting.json_text, "evaluate", lambda description, rows: np.ones((rows.n_rows, 1)))
    answer = linreg("export", cars, "--to", "json", "--quiet")
    assert answer.err == "warning: differs more than rounding explains; standardize columns, or use dtype: float64\n"
    monkeypatch.setattr(exporting.json_text, "evaluate", lambda description, rows: np.full((rows.n_rows, 1), math.nan))
    answer = linreg("export", cars, "--to", "json", "--output", "x.json", "--quiet")
    assert answer.err == "warning: takes or refuses 211 rows other than predict does; do not use it\n"


def test_without_a_compiler_a_warning_says_that_nothing_was_compared(linreg, cars, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    answer = linreg("export", cars, "--to", "c")
    assert (answer.code, answer.out) == (0, "small.c\n")
    assert answer.err == "warning: not compared with predict: no C compiler (cc)\n"


def test_without_onnx_the_error_says_what_to_install(linreg, cars, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    answer = linreg("export", cars, "--to", "onnx")
    assert (answer.code, answer.err) == (2, "error: --to onnx: needs onnx; pip install 'linreg[onnx]'\n")
    assert not Path("small.onnx").exists()


PLUGIN = """
import torch
from linreg import MODELS, TRANSFORMS, Derived

@MODELS.register("own")
def own(n_features: int, n_targets: int):
    \"\"\"A model.\"\"\"
    return torch.nn.Sequential(torch.nn.Linear(n_features, n_targets))

@TRANSFORMS.register("cube")
def cube(*, columns: str):
    \"\"\"A cube.\"\"\"
    return Derived(lambda name: [f"{name}^3"], lambda x: x**3)
"""


@pytest.mark.parametrize("part", ["model", "transform"])
def test_a_component_of_a_plugin_is_refused_by_name_but_by_pt2(linreg, part):
    write_table(["a", "b"], {"c": ["usa", "it's"]})
    Path("own.py").write_text(PLUGIN)
    name = {"model": "own", "transform": "cube"}[part]
    changes = {
        "model": {"model": {"name": "own"}},
        "transform": {"data__transforms": [{"name": "cube", "columns": "a"}]},
    }
    write_spec(**CARS | changes[part], epochs=1)
    checkpoint = linreg("train", "small.yaml", "--quiet", "--plugin", "own.py").out.strip()
    answer = linreg("export", checkpoint, "--to", "sql", "--plugin", "own.py")
    problem = f"{checkpoint}: {part} {name!r} is of a plugin, and its formula is not known; use --to pt2"
    assert (answer.code, answer.err) == (2, f"error: {problem}\n")
    answer = linreg("export", checkpoint, "--to", "pt2", "--plugin", "own.py")
    assert (answer.code, answer.out) == (0, "small.pt2\n")
    assert "differs from predict by at most 0 (relative 0)" in answer.err


def test_a_layer_that_a_format_cannot_have_is_refused(linreg):
    write_table(["a"], {"c": ["x", "y"]})
    wide = {"name": "mlp", "hidden": [1601]}
    checkpoint = trained(linreg, data__source=source(target="y", features="a"), model=wide)
    answer = linreg("export", checkpoint, "--to", "sql")
    assert answer.err == (
        "error: --to sql: a layer has 1601 columns, and databases take up to 1600; use --to c or onnx\n"
    )
    checkpoint = trained(
        linreg, data__source=source(target="y", features="a"), model={"name": "mlp", "hidden": [50_001]}
    )
    answer = linreg("export", checkpoint, "--to", "c")
    assert answer.err == ("error: --to c: a layer has 50001 columns, and C takes up to 50000; use --to onnx or json\n")


def test_the_sql_of_a_deep_network_is_as_long_as_its_layers(linreg):
    write_table(["a", "b"], {"c": ["x", "y"]})
    model = {"name": "mlp", "hidden": [2] * 30, "activation": "tanh"}
    checkpoint = trained(linreg, data__source=source(target="y", features=["a", "b"]), model=model)
    assert_close(export(checkpoint, "sql", Path("deep.sql")).check, "float32")
    assert Path("deep.sql").stat().st_size < 30 * 2 * 2 * 100


def test_sqlite_does_not_multiply_the_layers(linreg):
    write_table(["a", "b"], {"c": ["x", "y"]})
    model = {"name": "mlp", "hidden": [6] * 4, "activation": "tanh"}
    checkpoint = trained(linreg, data__source=source(target="y", features=["a", "b"]), model=model)
    export(checkpoint, "sql", Path("deep.sql"))
    database = sqlite3.connect(":memory:")
    database.execute("CREATE TABLE input (a REAL, b REAL)")
    instructions = database.execute("EXPLAIN " + Path("deep.sql").read_text()).fetchall()
    database.close()
    assert len(instructions) < 6 * 6 * 4 * 10  # 6^4 * 2 products otherwise


@pytest.mark.parametrize("to", ["json", "sql", "c", "pt2"])
def test_a_model_without_features_is_its_intercept(linreg, to):
    require(to)
    write_table(["a"], {})
    checkpoint = trained(linreg, data__source=source(target="y", features=[]))
    checked = export(checkpoint, to, Path(f"model.{to}")).check
    assert (checked.problem, checked.n_contrary, checked.absolute) == ("", 0, 0.0)


def test_a_table_with_names_that_a_database_takes_for_one_is_not_compared(linreg):
    write_table(["a", "A"], {})
    checkpoint = trained(linreg, data__source=source(target="y", features=["a", "A"]))
    answer = linreg("export", checkpoint, "--to", "sql")
    assert answer.err == "warning: not compared with predict: SQLite: duplicate column name: A\n"
