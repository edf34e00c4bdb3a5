"""`linreg report`: one file that says what is true, takes hostile names as text, and needs nothing else."""

import contextlib
import json
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from linreg.data.sources import linear
from linreg.experiment.report.charts import MOST_POINTS, coordinate, thinned
from linreg.experiment.report.measured import MOST_DOTS
from linreg.experiment.report.page import number
from linreg.spec.defaults import changed_keys
from linreg.spec.schema import spec_from_dict
from tests.conftest import small_spec, write_spec
from tests.runs.browser import CHROMIUM, open_page

HOSTILE = "<img src=x onerror=alert(1)>"
MOST_BYTES = 300_000


class Reader(HTMLParser):
    """The tags of a page, its texts, and the rows of its tables."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.texts, self.rows, self.attributes, self.codes = [], [], [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data):
        self.texts.append(data)
        if self.tags[-1:] == ["code"] and data.strip():
            self.codes.append(data)
        if self.rows and (self.tags[-1] in ("td", "th") or self.tags[-2:] == ["th", "span"]):
            self.rows[-1][-1] += data.strip()


def read(path="report.html"):
    return Reader(Path(path).read_text(encoding="utf-8"))


def row_of(page, *first):
    """The only table row that begins with these cells."""
    (row,) = [row for row in page.rows if row[: len(first)] == list(first)]
    return row


def value(text):
    return float(text.replace(",", ""))


def table_with_hostile_names():
    draw = np.random.default_rng(3)
    lines = [f'"{HOSTILE}",kind,"</script><b>y"']
    for _ in range(60):
        x, kind = draw.normal(), draw.choice(["<i>a</i>", "b&amp;", "'c\""])
        quoted = kind.replace('"', '""')
        lines.append(f'{x:.5f},"{quoted}",{2 * x + draw.normal():.5f}')
    Path("table.csv").write_text("\n".join(lines) + "\n")
    return {"name": "csv", "path": "table.csv", "target": "</script><b>y", "categorical": ["kind"]}


def test_numbers_are_those_of_evaluate(linreg):
    linreg("train", write_spec(data__split={"train_ratio": 0.6, "test_ratio": 0.2}), "-q")
    assert linreg("report").out == "report.html\n"
    page = read()
    for part, name in (("train", "training"), ("val", "validation"), ("test", "test")):
        expected = json.loads(linreg("evaluate", "--part", part, "--json").out)["metrics"]["y"]
        row = row_of(page, "y", name)
        found = dict(zip(("RMSE", "MAE", "R²"), map(value, row[3:6]), strict=True))
        assert found == pytest.approx(
            {"RMSE": expected["rmse"], "MAE": expected["mae"], "R²": expected["r2"]}, rel=5e-4
        )
    verdict = next(text for text in page.texts if text.startswith("On 10 test points"))
    assert f"are off by {expected['rmse']:.3g}" in verdict


@pytest.mark.parametrize(
    ("model", "expected"), [("model={name: linear}", 9 + 1), ("model={name: mlp, hidden: [16]}", 10 * 16 + 17)]
)
@pytest.mark.parametrize("standardize", [True, False])
def test_parameters_are_those_of_the_network_everywhere(linreg, model, expected, standardize):
    source = {"name": "friedman1", "n_samples": 50, "n_features": 9}
    spec = write_spec(data__source=source, data__standardize=standardize, optimizer__lr=0.001)
    assert json.loads(linreg("check", spec, model, "--json").out)["n_parameters"] == expected
    linreg("train", spec, model, "-q")
    assert json.loads(linreg("inspect", "--json").out)["n_parameters"] == expected
    linreg("report")
    page = read()
    assert page.texts[page.texts.index("Parameters") + 1] == str(expected)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        (
            [1, 0, 2, 0, 0, 5],
            "On 6 validation points, weighted by w (3 of them with a weight above 0), the predictions",
        ),
        ([1, 3, 2, 1, 1, 5], "On 6 validation points, weighted by w, the predictions"),
        (None, "On 6 validation points the predictions"),
    ],
)
def test_the_verdict_says_by_what_the_error_is_weighted(linreg, weights, said):
    y = [3.0, -1.0, 4.0, 1.0, -5.0, 9.0]
    lines = [f"{x},{2 * x},1" for x in range(20)] + [
        f"{x},{v},{w}" for x, (v, w) in enumerate(zip(y, weights or [1] * 6, strict=True))
    ]
    Path("table.csv").write_text("\n".join(["x,y,w", *lines]) + "\n")
    source = {"name": "csv", "path": "table.csv", "target": "y", "features": ["x"]}
    source |= {} if weights is None else {"sample_weight": "w"}
    split = {"by": "order", "train_ratio": 20 / 26}
    linreg("train", write_spec(data__source=source, data__split=split, solver="exact"), "-q")
    linreg("report")
    page = read()
    (verdict,) = [text for text in page.texts if text.startswith("On 6 ")]
    rmse = np.sqrt(np.average((np.array(y) - 2 * np.arange(6)) ** 2, weights=weights))
    assert verdict.startswith(f"{said} of y are off by {number(float(rmse), 3)} (")
    notes = [text for text in page.texts if text.startswith("All of these are weighted by w")]
    positive = "; with a weight above 0: 20 of 20 training, 3 of 6 validation points" if "above" in said else ""
    assert notes == ([] if weights is None else [f"All of these are weighted by w{positive}."])


def test_optimum_and_mean_are_those_of_least_squares_and_of_the_training_part(linreg):
    linreg("train", write_spec(epochs=2, data__split={"by": "order", "train_ratio": 0.8}), "-q")
    linreg("train", write_spec(solver="exact", name="exact", data__split={"by": "order", "train_ratio": 0.8}), "-q")
    optimum = json.loads(linreg("evaluate", "exact_001", "--json").out)["metrics"]["y"]["rmse"]
    linreg("report", "small_001")
    row = row_of(read(), "y", "validation")
    assert value(row[6]) == pytest.approx(optimum, rel=5e-4)
    y = linear(n_samples=50).y[:, 0]
    assert value(row[7]) == pytest.approx(np.sqrt(np.mean((y[40:] - y[:40].mean()) ** 2)), rel=5e-4)


def test_names_of_a_table_are_text_whatever_they_are(linreg):
    linreg("train", write_spec(data__source=table_with_hostile_names(), solver="exact"), "-q")
    assert linreg("report").code == 0
    page = read()
    allowed = {
        "html", "head", "meta", "title", "style", "body", "main", "header", "h1", "h2", "p", "dl", "div", "dt", "dd",
        "section", "table", "thead", "tbody", "tr", "th", "td", "svg", "path", "text", "figure", "figcaption", "span",
        "pre", "code", "script",
    }  # fmt: skip
    assert set(page.tags) <= allowed
    assert page.tags.count("script") == 1
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    shown = " ".join(page.texts)
    assert HOSTILE in shown
    assert "<i>a</i>" in shown
    assert "</script><b>y" in shown


def test_a_report_needs_no_other_file(linreg):
    linreg("train", write_spec(), "-q")
    linreg("report")
    page = read()
    assert not {"link", "img", "iframe", "object", "embed", "base", "a"} & set(page.tags)
    assert not {"src", "href", "srcset", "style"} & {name for name, _ in page.attributes}
    assert not re.search(r"url\(|@import", Path("report.html").read_text())
    (policy,) = [text for name, text in page.attributes if name == "content" and "default-src" in text]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")


def test_the_same_inputs_make_the_same_bytes(linreg):
    linreg("train", write_spec(), "-q")
    linreg("report", "-o", "one.html")
    linreg("report", "-o", "two.html")
    assert Path("one.html").read_bytes() == Path("two.html").read_bytes()


def test_a_report_is_small_whatever_the_number_of_rows_and_columns(linreg):
    source = {"name": "friedman1", "n_samples": 20_000, "n_features": 80}
    linreg("train", write_spec(data__source=source, data__batch_size=4000, epochs=3, data__standardize=True), "-q")
    linreg("report")
    assert Path("report.html").stat().st_size < MOST_BYTES
    shown = " ".join(read().texts)
    assert f"{MOST_DOTS:,} of 4,000 validation points" in shown


def test_a_report_of_many_trials_is_small(linreg):
    drawn = ["optimizer.lr={min: 0.0001, max: 1.0e+9, log: true}", "optimizer.momentum={min: 0, max: 0.9}"]
    linreg("sweep", write_spec(epochs=2), *drawn, "--trials", "600", "-q")
    linreg("report", "small_sweep_001")
    assert Path("report.html").stat().st_size < MOST_BYTES / 3
    page = read()
    assert [text for text in page.texts if text.startswith("A line is a trial, the best 200 of ")]
    assert len([row for row in page.rows if row[-1] in ("finished", "diverged")]) == 100
    assert len([row for row in page.rows if len(row) > 1 and row[1] == "diverged"]) == 50


def test_a_long_history_keeps_its_ends_and_its_peaks():
    losses = np.random.default_rng(0).random(50_000)
    losses[31_234] = 9.0
    chosen = thinned(losses)
    assert len(chosen) <= MOST_POINTS + 2
    assert {0, 31_234, 49_999, int(losses.argmin())} <= set(chosen.tolist())
    assert (np.diff(chosen) > 0).all()


def test_missing_data_leaves_out_what_needs_it(linreg):
    linreg("train", write_spec(data__source=table_with_hostile_names()), "-q")
    Path("table.csv").unlink()
    assert linreg("report").code == 0
    page = read()
    assert any(text.startswith("The data was not measured") and "table.csv" in text for text in page.texts)
    assert "Metrics" not in page.texts
    assert {"Coefficients", "Losses", "Spec", "Commands"} <= set(page.texts)


def test_diagnostics_and_importance_are_those_of_evaluate(linreg):
    source = {"name": "friedman1", "n_samples": 200, "n_features": 5}
    linreg("train", write_spec(data__source=source, solver="exact"), "-q")
    expected = json.loads(linreg("evaluate", "--part", "train", "--diagnostics", "--json").out)["diagnostics"][0]
    importance = json.loads(linreg("evaluate", "--importance", "5", "--json").out)["importance"]
    linreg("report")
    page = read()
    assert value(row_of(page, "Breusch-Pagan")[1]) == pytest.approx(expected["breusch_pagan"]["value"], rel=5e-4)
    assert value(row_of(page, "Jarque-Bera")[1]) == pytest.approx(expected["jarque_bera"]["value"], rel=5e-4)
    first = expected["influential"][0]
    row = row_of(page, f"row {first['row']}", number(first["y"]))
    assert value(row[-1]) == pytest.approx(first["cooks_distance"], rel=5e-4)
    for column in importance["columns"]:
        row = row_of(page, column["name"], number(column["mean"]))
        assert value(row[2]) == pytest.approx(column["std"], rel=5e-4)


def test_changed_data_is_not_measured(linreg):
    linreg("train", write_spec(data__source=table_with_hostile_names()), "-q")
    lines = Path("table.csv").read_text().splitlines()
    Path("table.csv").write_text("\n".join(lines[:-1]) + "\n")
    assert linreg("report").code == 0
    page = read()
    assert any("data.source has changed since training" in text for text in page.texts)
    assert not {"Metrics", "Diagnostics", "Importance"} & set(page.texts)


def test_a_run_with_shards_has_a_report(linreg):
    linreg("train", write_spec(data__shards=3), "-q")
    expected = json.loads(linreg("evaluate", "--json").out)["metrics"]["y"]["rmse"]
    linreg("report")
    assert value(row_of(read(), "y", "validation")[3]) == pytest.approx(expected, rel=5e-4)


def test_rows_can_be_left_out(linreg):
    linreg("train", write_spec(data__source=table_with_hostile_names()), "-q")
    linreg("report")
    page = read()
    assert "Rows with the largest errors" in page.texts
    assert re.search(r"table\.csv: row \d+", " ".join(page.texts))
    linreg("report", "--no-rows")
    page = read()
    assert not {"Rows with the largest errors", "most influential rows"} & set(page.texts)
    assert "Diagnostics" in page.texts
    assert not re.search(r"table\.csv: row \d+", " ".join(page.texts))


def test_worst_rows_are_the_largest_errors_with_their_place(linreg):
    Path("table.csv").write_text("x,y\n" + "".join(f"{x},{2 * x + (50 if x == 17 else 0)}\n" for x in range(40)))
    source = {"name": "csv", "path": "table.csv", "target": "y"}
    linreg("train", write_spec(data__source=source, data__split={"train_ratio": 1.0}, solver="exact"), "-q")
    linreg("report")
    rows = [row for row in read().rows if row[0].startswith("table.csv: row ") and len(row) == 5]
    assert rows[0][0] == "table.csv: row 18"
    assert value(rows[0][1]) == 84
    sizes = [abs(value(row[3])) for row in rows]
    assert len(sizes) == 10
    assert sizes == sorted(sizes, reverse=True)


def test_the_best_epoch_of_a_run_says_how_the_run_ended(linreg):
    linreg("train", write_spec(epochs=300, early_stopping={"patience": 3}, optimizer__lr=1.0), "-q")
    linreg("report", "small_001")
    page = read()
    assert "early stopped, the best epoch" in page.texts
    assert not any("The run is" in text for text in page.texts)


@pytest.mark.parametrize(
    "source",
    [
        {"name": "linear", "n_samples": 50},
        {"name": "friedman1", "n_samples": 50, "n_features": 5},
        {"name": "csv", "path": "cars.csv", "target": "y", "categorical": ["kind"]},
    ],
    ids=lambda source: source["name"],
)
def test_commands_of_a_report_run(linreg, source):
    Path("cars.csv").write_text("x,kind,y\n" + "".join(f"{i},{'ab'[i % 2]},{2 * i}\n" for i in range(40)))
    Path("new.csv").write_text("x,kind\n1,a\n")
    linreg("train", write_spec(data__source=source, data__standardize=True), "--runs", "my runs", "-q")
    linreg("report", "--runs", "my runs")
    commands = read().codes[-1].splitlines()  # the first one is that of this process
    assert [command.split()[1] for command in commands] == ["train", "inspect", "evaluate", "predict"]
    for command in commands:
        assert linreg(*shlex.split(command)[1:]).code == 0, command


def test_settings_that_are_not_the_defaults_are_marked():
    plain = small_spec(data__split={"test_ratio": 0.1}, optimizer={"name": "adam", "lr": 0.5, "betas": [0.9, 0.999]})
    changed = changed_keys(spec_from_dict(plain, "test"))
    assert {"optimizer.name", "optimizer.lr", "data.split.test_ratio", "data.source.n_samples", "epochs"} <= changed
    assert not {"optimizer.betas", "data.split.train_ratio", "loss.name", "seed", "data.batch_size"} & changed


def test_a_sweep_shows_ranking_failures_and_spread(linreg):
    sweep = linreg("sweep", write_spec(epochs=40), "optimizer.lr=0.1,0.01,1e30", "--seeds", "3", "--json")
    best = json.loads(sweep.out)["ranking"][0]
    assert linreg("report", "small_sweep_001").code == 0
    page = read()
    row = row_of(page, "1")
    assert row[1:3] == [str(best["trial"]), str(best["parameters"]["optimizer.lr"])]
    assert value(row[3]) == pytest.approx(best["mean"], rel=5e-4)
    assert {"Failures", "Spread over folds and seeds", "Parameters and results"} <= set(page.texts)
    assert row_of(page, "2", "diverged")[2].startswith("epoch")
    assert any("so it is optimistic" in text for text in page.texts)


def test_a_cross_validation_shows_each_fold(linreg):
    answer = json.loads(linreg("cv", write_spec(), "--folds", "4", "--json").out)
    linreg("report", "small_cv_001")
    page = read()
    for fold in answer["folds"]:
        assert value(row_of(page, str(fold["fold"]))[4]) == pytest.approx(fold["rmse"], rel=5e-4)
    assert value(row_of(page, "mean")[4]) == pytest.approx(answer["mean"]["rmse"], rel=5e-4)


def test_several_runs_show_only_what_differs(linreg):
    for lr in ("0.1", "0.2", "0.3", "0.4"):
        linreg("train", write_spec(), f"optimizer.lr={lr}", "-q")
    linreg("report", *(f"small_00{i}" for i in range(1, 5)), "-o", "four.html")
    header = read("four.html").rows[0]
    assert header[-1] == "optimizer.lr"
    assert not [name for name in header if name.startswith("data.")]
    linreg("report", "small_001", "checkpoints/small_003/last.pth", "-o", "two.html")
    assert row_of(read("two.html"), "optimizer.lr")[1:] in (["0.1", "0.3"], ["0.3", "0.1"])


def lines_of_axes(page):
    """The number of lines in a chart of parallel axes: the best one, and the others."""
    pairs = zip(page.attributes, page.attributes[1:], strict=False)
    paths = [(name, path) for (key, name), (other, path) in pairs if (key, other) == ("class", "d")]
    return tuple(sum(path.count("M") for name, path in paths if name == style) for style in ("first", "second thin"))


def test_a_run_without_a_setting_or_a_result_is_drawn_as_such(linreg):
    linreg("train", write_spec(), "-q")
    linreg("train", write_spec(), "model={name: mlp, hidden: [2]}", "-q")
    linreg("train", write_spec(), "clip_grad_norm=10", "-q")
    linreg("train", write_spec(), "optimizer.lr=1e30", "-q")
    linreg("report", *(f"small_00{i}" for i in range(1, 5)), "-o", "four.html")
    page = read("four.html")
    assert lines_of_axes(page) == (1, 3)
    assert page.texts.count("not set") == 2  # model.hidden, clip_grad_norm
    caption = "A line is a run; the best is blue. “not set”: the spec of a run leaves out that setting."
    assert f"{caption} “–”: a run without a result." in page.texts
    assert not [path for key, path in page.attributes if key == "d" and "nan" in path]


@pytest.mark.parametrize(
    ("values", "places", "labels"),
    [
        ([1, None, 3], [0, 1, 0.85], ["1", "3", "not set"]),
        ([2, None, 2], [0, 1, 0], ["2", "not set"]),
        (["a", None, "b"], [0, 1, 0.5], ["a", "b", "not set"]),
        ([None, "a"], [1, 0], ["a", "not set"]),
        ([None, float("nan"), float("inf"), 1.0], [1, 1, 1, 0], ["1", "not set"]),
        ([1, 3], [0, 1], ["1", "3"]),
    ],
)
def test_a_missing_value_has_a_place_of_its_own(values, places, labels):
    axis = coordinate("key", values)
    assert axis.places.tolist() == pytest.approx(places)
    assert [label for _, label in axis.labels] == labels


def test_errors_name_the_place_and_write_nothing(linreg):
    linreg("train", write_spec(), "-q")
    answer = linreg("report", "-o", "report.pdf")
    assert (answer.code, answer.err) == (
        2,
        "using checkpoints/small_001/last.pth\nerror: --output report.pdf: must end with .html\n",
    )
    assert linreg("report", "small_001", "small_009").code == 2
    linreg("sweep", write_spec(), "optimizer.lr=0.1,0.2", "-q")
    results = Path("runs/small_sweep_001/results.jsonl")
    results.write_text('{"trial": 0}\n')
    assert "results.jsonl: damaged" in linreg("report", "small_sweep_001").err
    assert not list(Path().glob("*.html"))


@pytest.mark.parametrize(
    "command",
    [
        ("report", "-o", "reports/new/x.html"),
        ("evaluate", "--plot", "reports/new/x.png"),
        ("export", "--to", "json", "--output", "reports/new/x.json"),
        ("predict", "--input", "table.csv", "--output", "reports/new/x.csv"),
    ],
    ids=lambda command: command[0],
)
def test_a_missing_folder_of_an_output_is_named(linreg, command):
    Path("table.csv").write_text("x\n1\n")
    linreg("train", write_spec(), "-q")
    answer = linreg(*command)
    message = f"error: {command[-1]}: the folder reports/new is missing; create it"
    assert (answer.code, answer.err.splitlines()[-1]) == (5, message)


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_shows_the_report_without_an_error(linreg, tmp_path, width):
    linreg("train", write_spec(data__source=table_with_hostile_names()), "-q")
    linreg("report")
    with open_report(tmp_path, width) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate("document.images.length") == 0
        assert (
            page.evaluate("getComputedStyle(document.querySelector('.tiles')).display") == "grid"
        )  # the style is allowed
        button = "document.querySelector('table.sortable th:nth-child(4) button')"
        page.evaluate(f"{button}.click()")  # the script is allowed
        cells = (
            "[...document.querySelectorAll('table.sortable tbody tr')].map(row => Number(row.cells[3].dataset.value))"
        )
        errors = page.evaluate(cells)
        assert len(errors) == 10
        assert errors == sorted(errors)


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_headers_of_tables_have_at_most_two_lines_on_a_phone(linreg, tmp_path):
    names = ["median income of a household", "age", "number of rooms", "kind of the house"]
    draw = np.random.default_rng(3).normal(size=(60, 4)).round(3).astype(str)
    draw[:, 3] = ["a", "b"] * 30
    Path("table.csv").write_text(
        "\n".join(",".join(line) for line in [[*names, "y"], *([*row, row[0]] for row in draw)])
    )
    source = {"name": "csv", "path": "table.csv", "target": "y", "categorical": names[3:]}
    linreg("train", write_spec(data__source=source, data__standardize=True), "-q")
    linreg("report")
    with open_report(tmp_path, 390) as page:
        heights = page.evaluate("[...document.querySelectorAll('thead tr')].map(row => row.offsetHeight)")
        assert len(heights) > 4
        assert max(heights) < 60
        assert page.evaluate("document.documentElement.scrollWidth") <= 390


@contextlib.contextmanager
def open_report(tmp_path, width):
    """Open report.html in a browser of this width."""
    with open_page(tmp_path / "profile") as page:
        page.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 500
        )
        page.call("Page.enable")
        page.call("Page.navigate", url=Path("report.html").resolve().as_uri())
        page.wait_for("document.readyState === 'complete' && document.querySelectorAll('svg').length > 3", "the report")
        yield page
