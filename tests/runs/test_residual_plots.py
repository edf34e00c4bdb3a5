"""The picture of residuals in all its shapes, in files and in TensorBoard."""

import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from linreg.experiment.diagnosing import diagnose, picture
from linreg.experiment.loaded import LoadedModel
from linreg.experiment.selection import select
from linreg.runs.lock import lock
from tests.conftest import write_spec
from tests.exact.test_exact import COLUMNS, N, exact_spec, write_table

LEVERAGE = ["Residuals against fitted", "Normal Q-Q", "Scale-location", "Residuals against leverage"]
ACTUAL = [*LEVERAGE[:3], "Actual against fitted (no leverage here)"]


def train(linreg, *arguments):
    answer = linreg("train", *arguments, "-q")
    assert answer.code == 0, answer.err


def drawn(part="train"):
    model = LoadedModel("checkpoints/small_001/last.pth", device="cpu")
    figure = picture(diagnose(model, select(model, part=part)))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return figure, canvas


@pytest.mark.parametrize("targets", [["y"], ["y", "z"]])
def test_every_label_is_inside_the_picture_and_each_target_has_four_panels(linreg, targets):
    y = COLUMNS["y"].copy()
    y[7] += 60
    write_table(y=y, z=1e9 * COLUMNS["z"])
    train(linreg, exact_spec(source={"target": targets}))
    figure, canvas = drawn()
    assert [axes.get_title() for axes in figure.axes] == LEVERAGE * len(targets)
    for axes in figure.axes:
        box = axes.get_tightbbox(canvas.get_renderer())
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= figure.bbox.x1
        assert box.y1 <= figure.bbox.y1
    assert figure.axes[0].get_xlabel() == "fitted y"
    assert figure.axes[0].get_ylabel() == "residual of y"
    for axes in figure.axes[:4]:
        assert "8" in [text.get_text() for text in axes.texts]  # the outlier, by its row
        assert len(axes.texts) == 3
    points = figure.axes[0].collections[0].get_offsets()
    assert len(points) == N
    residuals = [offset[1] for offset in points]
    assert max(residuals) > 50


def test_lines_of_cooks_distance_are_where_it_is_half_and_one(linreg):
    a, y = COLUMNS["a"].copy(), COLUMNS["y"].copy()
    a[7], y[7] = 300, 0
    write_table(a=a, y=y)
    train(linreg, exact_spec())
    panel = drawn()[0].axes[3]
    assert panel.get_xlabel() == "leverage; Cook's distance 0.5 dotted, 1 dash-dot"
    lines = {line.get_linestyle(): line.get_xydata() for line in panel.lines if line.get_linestyle() in (":", "-.")}
    for style, distance in ((":", 0.5), ("-.", 1.0)):
        h, standardized = lines[style].T
        np.testing.assert_allclose(standardized**2 * h / (1 - h) / 3, distance, rtol=1e-12)


def test_without_leverage_actual_values_are_against_fitted_ones(linreg):
    write_spec(model={"name": "mlp", "hidden": [4]})
    train(linreg, "small.yaml")
    assert [axes.get_title() for axes in drawn()[0].axes] == ACTUAL
    train(linreg, write_spec(name="line"))
    assert linreg("evaluate", "--plot", "val.png").code == 0


def test_the_picture_is_a_file_or_in_a_folder(linreg):
    train(linreg, write_spec())
    Path("pictures").mkdir()
    assert linreg("evaluate", "--plot", "pictures").code == 0
    assert Path("pictures/diagnostics.png").read_bytes().startswith(b"\x89PNG")
    assert linreg("evaluate", "--plot", "one.png").code == 0
    assert Path("one.png").exists()
    answer = linreg("evaluate", "--plot", "one.pdf")
    problem = "neither a file that ends with .png nor a folder; write for instance diagnostics.png"
    assert (answer.code, answer.err.splitlines()[-1]) == (2, f"error: --plot one.pdf: {problem}")
    assert "diagnostics" not in json.loads(linreg("evaluate", "--json").out)


def test_tensorboard_has_the_picture_of_the_run_of_the_checkpoint(linreg):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(linreg, write_spec())
    assert linreg("evaluate", "--tensorboard", "--part", "train").code == 0
    events = EventAccumulator("runs/small_001").Reload()
    (image,) = events.Images("diagnostics/training")
    assert image.step == 6
    assert image.encoded_image_string.startswith(b"\x89PNG")
    with lock(Path("runs/small_001")):
        answer = linreg("evaluate", "--tensorboard")
    assert (answer.code, "in use by another process" in answer.err) == (5, True)
    info = json.loads(Path("runs/small_001/run.json").read_text())
    Path("runs/small_001/run.json").write_text(json.dumps({**info, "id": "0" * 32}))
    answer = linreg("evaluate", "--tensorboard")
    problem = "runs/small_001 is another run than that of checkpoints/small_001/last.pth; give its --runs"
    assert (answer.code, answer.err.splitlines()[-1]) == (2, f"error: --tensorboard: {problem}")


def test_the_text_fits_into_80_columns_and_names_file_and_rows(linreg):
    for file, rows in (("t/a.csv", slice(0, 50)), ("t/b.csv", slice(50, N))):
        Path("t").mkdir(exist_ok=True)
        write_table(
            file, **{name: 1e5 * values[rows] if name == "y" else values[rows] for name, values in COLUMNS.items()}
        )
    train(linreg, exact_spec(source={"path": "t"}))
    out = linreg("evaluate", "--diagnostics").out
    assert max(map(len, out.splitlines())) < 80
    (found,) = json.loads(linreg("evaluate", "--diagnostics", "--json").out)["diagnostics"]
    first = found["influential"][0]
    assert {row["file"] for row in found["influential"]} == {"t/a.csv", "t/b.csv"}
    line = out.splitlines()[out.splitlines().index("rows with the largest Cook's distance") + 2]
    assert line.split()[:3] == [f"{first['file']}:", str(first["row"]), f"{float(format(first['y'], '.4g')):.6g}"]
    write_table()
    train(linreg, exact_spec(name="one"))
    assert "rows of t.csv with the largest Cook's distance\nrow" in linreg("evaluate", "--diagnostics").out
