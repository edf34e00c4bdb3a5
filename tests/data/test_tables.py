"""Every table format is read strictly, gives the same points, and reports each bad cell by file, row and column."""

import gzip
import io
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import csv, parquet

from linreg.data.sources import DATASETS
from linreg.data.tables import formats, slices
from linreg.data.tables.formats.typed import to_numpy
from linreg.data.tables.paths import first_file
from linreg.data.tables.slices import end_of_rows
from linreg.errors import DataError, SpecError
from tests.conftest import fingerprint, run_with_peak, write_spec

RANDOM = np.random.default_rng(0)
X = np.array([[1.0, 2.5], [3.0, -4.0], [5.0, 6e3], [7.0, 0.125]])
Y = np.array([[1.5], [2.5], [3.5], [4.5]])
CSV = "a,b,y\n" + "".join(f"{a},{b},{y}\n" for (a, b), (y,) in zip(X, Y, strict=True))


def source(name="csv", path="t.csv", **params):
    return DATASETS.build(DATASETS.check({"name": name, "path": path, "target": "y", **params}), where="source")


def read(*args, **params):
    points = source(*args, **params)
    blocks = list(points.blocks())
    weights = [block.weight for block in blocks if block.weight is not None]
    return (
        np.concatenate([block.x for block in blocks]),
        np.concatenate([block.y for block in blocks]),
        np.concatenate(weights) if weights else None,
        points,
    )


def written(text, path="t.csv", encoding="utf-8"):
    Path(path).write_bytes(text.encode(encoding))
    return path


def refusal(**params):
    with pytest.raises((DataError, SpecError)) as caught:
        read(**params)
    return str(caught.value)


@pytest.mark.parametrize("name", ["csv", "gz", "several", "folder", "parquet", "npz", "npy"])
def test_every_format_gives_the_same_points(name):
    params = {"name": "csv", "path": "t.csv"}
    columns = {"a": X[:, 0], "b": X[:, 1], "y": Y[:, 0]}
    if name == "csv":
        written(CSV)
    elif name == "gz":
        Path("t.csv.gz").write_bytes(gzip.compress(CSV.encode()))
        params["path"] = "t.csv.gz"
    elif name in ("several", "folder"):
        Path("d").mkdir()
        lines = CSV.splitlines(keepends=True)
        written("".join(lines[:3]), "d/1.csv")
        written(
            "y,b,a\n" + "".join(",".join(reversed(line.strip().split(","))) + "\n" for line in lines[3:]), "d/2.csv"
        )
        written("not a table", "d/readme.md")
        params["path"] = "d" if name == "folder" else ["d/1.csv", "d/2.csv"]
    elif name == "parquet":
        parquet.write_table(pa.table(columns), "t.parquet")
        params = {"name": "parquet", "path": "t.parquet"}
    elif name == "npz":
        np.savez("t.npz", **columns)
        params = {"name": "npz", "path": "t.npz"}
    else:
        table = np.zeros(4, dtype=[("a", "f8"), ("b", "f4"), ("y", "f8")])
        for key, values in columns.items():
            table[key] = values
        np.save("t.npy", table)
        params = {"name": "npy", "path": "t.npy"}
    component = DATASETS.check({**params, "target": "y"})
    blocks = list(DATASETS.build(component).blocks())
    assert np.array_equal(np.concatenate([block.x for block in blocks]), X)
    assert np.array_equal(np.concatenate([block.y for block in blocks]), Y)


@pytest.mark.parametrize(
    ("text", "encoding", "params"),
    [
        ("\ufeff" + CSV, "utf-8", {}),
        (CSV.replace("\n", "\r\n"), "utf-8", {}),
        ('"a","b","y"\n' + CSV.partition("\n")[2].replace("2.5,", '"2.5",'), "utf-8", {}),
        (CSV.replace(",", ";").replace(".", ","), "utf-8", {"delimiter": ";", "decimal": ","}),
        (CSV.replace(",", "\t"), "utf-8", {"delimiter": "\t"}),
        (CSV, "utf-16", {"encoding": "utf-16"}),
        (CSV.replace("3.0", " +3.00 "), "utf-8", {}),
        (CSV.replace("\n", "\n\n"), "utf-8", {}),
    ],
    ids=["bom", "crlf", "quotes", "semicolon", "tab", "utf-16", "spaces", "blank lines"],
)
def test_every_csv_dialect_gives_the_same_points(text, encoding, params):
    written(text, encoding=encoding)
    x, y, *_ = read(**params)
    assert np.array_equal(x, X)
    assert np.array_equal(y, Y)


def test_small_blocks_give_the_same_points_and_fingerprint(monkeypatch):
    rows = "".join(f"{i},{'uvw'[i % 3]},{i / 7}\n" for i in range(500))
    written("a,k,y\n" + rows)
    whole, one = read(categorical="k"), fingerprint(source(categorical="k"))
    monkeypatch.setattr(formats.csv, "BLOCK_BYTES", 300)
    assert len(list(source(categorical="k").blocks())) > 5
    cut = read(categorical="k")
    assert np.array_equal(whole[0], cut[0])
    assert whole[3].categories == cut[3].categories == {"k": ["u", "v", "w"]}
    assert fingerprint(source(categorical="k")) == one


PLAIN = st.sampled_from(["1", "2.5", "", "é", " x"])
CELLS = PLAIN | st.sampled_from(['say "so"', "a\nb", "a\r\nb", "c,d", '"', '""'])
ROWS = st.lists(st.tuples(PLAIN, PLAIN), min_size=2) | st.lists(st.tuples(CELLS, CELLS), min_size=1)


@settings(max_examples=200, deadline=None)
@given(rows=ROWS, end=st.sampled_from(["\n", "\r\n", "\r"]), data=st.data())
def test_rows_are_cut_where_a_row_ends(rows, end, data):
    cells = [['"' + c.replace('"', '""') + '"' if set(c) & set('",\r\n') else c for c in row] for row in rows]
    lines = [(",".join(row) + end).encode() for row in cells]
    cut = data.draw(st.integers(0, sum(map(len, lines))))
    with mock.patch.object(slices, "PIECE", data.draw(st.integers(1, 9))):
        found = end_of_rows(np.frombuffer(b"".join(lines)[:cut], np.uint8), ",")
    ends = [0, *np.cumsum([len(line) for line in lines]).tolist()]
    last = max(place for place in ends if place <= cut)
    half = cut == last and end == "\r"  # it may go on with \n
    assert found == (ends[ends.index(last) - 1] if half and last else last)


@pytest.mark.parametrize("text", ['5" pipe,1\n', 'a"b"c,""\n', '"a"b"c,1\n'])
def test_a_quote_within_a_cell_does_not_open_a_quoted_text(text):
    assert end_of_rows(np.frombuffer((3 * text + text[:4]).encode(), np.uint8), ",") == 3 * len(text)


def test_an_unclosed_quote_is_an_error(monkeypatch):
    monkeypatch.setattr(slices, "MOST_ROW_BYTES", 1000)
    monkeypatch.setattr(formats.csv, "BLOCK_BYTES", 300)
    written("a,y\n" + "1,2\n" * 100 + '"' + "3,4\n" * 1000)
    assert "row 101: expected 2 columns, got 1; a quote begins on line 102 and has no end before line" in refusal()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "latin-1", "cp1252"])
@pytest.mark.parametrize("size", [64, 2**21])
def test_every_encoding_is_read_slice_by_slice(monkeypatch, encoding, size):
    monkeypatch.setattr(formats.csv, "BLOCK_BYTES", size)
    names = ["é" * (i % 5) + str(i) for i in range(200)]
    written("ä,y\n" + "".join(f"{name},{i}\n" for i, name in enumerate(names)), encoding=encoding)
    x, y, _, points = read(categorical="ä", encoding=encoding)
    assert points.categories == {"ä": names}
    assert y[:, 0].tolist() == x[:, 0].tolist() == list(range(200))


@pytest.mark.parametrize("header", ['"a ""1""","y\nz"\n', "\ufeffa b,y\n", "a b;y\n"])
def test_a_header_with_special_characters_names_its_columns(header):
    delimiter = ";" if ";" in header else ","
    written(header + f"1{delimiter}2\n3{delimiter}4\n")
    target = "y\nz" if '"' in header else "y"
    x, y, _, points = read(target=target, delimiter=delimiter)
    assert points.feature_names == ('a "1"' if '"' in header else "a b",)
    assert (x.tolist(), y.tolist()) == ([[1], [3]], [[2], [4]])


PEAK = """
from linreg import load_spec
from linreg.experiment.data import prepare
from linreg.data.tables import formats

formats.csv.BLOCK_BYTES = 2**18

prepare(load_spec("small.yaml"))
before = peak()
prepare(load_spec("big.yaml"))
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell a process's peak")
def test_a_table_is_read_in_the_memory_of_its_matrix():
    n_rows = 1_000_000
    rows = RANDOM.random((n_rows, 11)).astype(np.float32)
    for name, part in (("small", rows[:100]), ("big", rows)):
        columns = {f"x{i}": part[:, i] for i in range(10)} | {"y": part[:, 10]}
        csv.write_csv(pa.table(columns), f"{name}.csv")
        write_spec(f"{name}.yaml", data__source={"name": "csv", "path": f"{name}.csv", "target": "y"})
    n_slices = min(pa.cpu_count(), 8) + 2
    each = 4 * 2**18  # as text, as a copy of it, as columns and as rows, which are about as large
    allocator = 2**24  # for what it keeps
    assert int(run_with_peak(PEAK)) < 17 / 16 * rows.nbytes + 8 * n_rows + n_slices * each + allocator


def test_columns_are_chosen_by_name_and_the_weight_is_no_feature():
    written("id,w,y,a,b\n7,2,1,3,4\n8,0.5,2,5,6\n")
    x, y, weight, points = read(exclude="id", sample_weight="w")
    assert points.feature_names == ("a", "b")
    assert (x.tolist(), y.tolist(), weight.tolist()) == ([[3, 4], [5, 6]], [[1], [2]], [2, 0.5])
    assert read(features=["b", "id"])[0].tolist() == [[4, 7], [6, 8]]
    assert source(target=["y", "a"], features="b").target_names == ("y", "a")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"target": "yy"}, "target: t.csv has no column 'yy'; did you mean 'y'?"),
        ({"exclude": "c"}, "exclude: t.csv has no column 'c'; known: a, b, y"),
        ({"features": ["a", "y"]}, "features: 'y' is also a target; remove it from one"),
        (
            {"features": "a", "categorical": "b"},
            "categorical: 'b' is not a feature; remove it, or add it to features",
        ),
        ({"features": ["a", "a"]}, "features: duplicate column 'a'; remove one"),
        (
            {"exclude": ["a", "b"]},
            "t.csv: no column is left as a feature; the columns are a, b, y; or set features: []",
        ),
    ],
)
def test_invalid_column_names_are_errors(params, message):
    written(CSV)
    assert refusal(**params) == f"source: csv: {message}"


def test_the_error_suggests_another_delimiter():
    written(CSV.replace(",", ";"))
    assert refusal().endswith("the header is one column, 'a;b;y'; set delimiter: ';'")


@pytest.mark.parametrize("cell", ["abc", "1_000", "0x10", "nan", "inf", "1e999", "--1", "1 2", "12,5", "2020-01-01"])
def test_a_bad_cell_is_reported_with_its_row_and_column(cell):
    written(f'a,y\n1,2\n"{cell}",3\n4,5\n')
    what = "is not finite" if cell in ("nan", "inf", "1e999") else "is not a number"
    assert refusal().startswith(f"t.csv: row 2, column 'a': {cell!r} {what}; ")


def test_at_most_ten_bad_cells_are_reported_with_their_rows_in_the_file(monkeypatch):
    monkeypatch.setattr(formats.csv, "BLOCK_BYTES", 200)
    written("a,y\n" + "".join(f"{'x' if 300 < i < 320 else i},{i}\n" for i in range(400)))
    lines = refusal().splitlines()
    assert len(lines) == 11
    assert lines[0].startswith("t.csv: row 302, column 'a': 'x' is not a number")
    assert lines[10] == "and more cells like these"


def test_a_column_of_text_is_reported_once():
    written("a,name,y\n1,ada,2\n2,bob,3\n")
    assert refusal() == "t.csv: column 'name' is text, such as 'ada'; put a feature in categorical or exclude"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "t.csv: empty; a table needs a header with column names"),
        ("a,y\n", "t.csv: no rows below the header; a table needs at least one usable row"),
        ("a,a,y\n1,2,3\n", "t.csv: duplicate column 'a'; rename one"),
        ("a,y\n1,2\n1\n3,4,5\n", "t.csv: row 2: expected 2 columns, got 1; fix it, or set delimiter\n"
                                 "t.csv: row 3: expected 2 columns, got 3; fix it, or set delimiter"),
    ],
)  # fmt: skip
def test_an_invalid_table_is_an_error(text, message):
    written(text)
    assert refusal() == message


def test_absent_and_unreadable_files_are_errors():
    written(CSV)
    assert refusal(path="tt.csv") == "tt.csv: no such file; did you mean 't.csv'?"
    Path("d").mkdir()
    assert refusal(path="d").startswith("d: a folder without a file that ends with .csv")
    written("a,y\n1,2\n", "u.csv")
    assert "u.csv: lacks 'b', a column of t.csv;" in refusal(path=["t.csv", "u.csv"])
    assert "not a regular file" in refusal(path="/dev/null")
    for name in ("t.parquet", "t.npz", "t.npy", "t.csv.gz"):
        Path(name).write_bytes(b"PAR1 or so, but not really")
        assert f"{name}: " in refusal(name=name.partition(".")[2].replace("csv.gz", "csv"), path=name)


def test_hidden_files_do_not_decide_the_format_of_a_folder():
    Path("d").mkdir()
    written("a,y\n1,2\n", "d/.hidden.csv")
    parquet.write_table(pa.table({"a": [1.0], "y": [2.0]}), "d/t.parquet")
    assert first_file(Path("d")) == Path("d/t.parquet")


def test_a_pickle_is_never_opened():
    np.save("t.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert "t.npy: " in refusal(name="npy", path="t.npy")


GAPS = "a,k,y\n1,u,1\n,v,2\n3,,3\n8,u,4\n"


@pytest.mark.parametrize(
    ("missing", "x", "y"),
    [
        ("drop", [[1, 0], [8, 0]], [1, 4]),
        ("mean", [[1, 0], [np.nan, 1], [3, np.nan], [8, 0]], [1, 2, 3, 4]),
    ],
)
def test_gaps_are_dropped_or_kept_for_the_model_to_fill(missing, x, y):
    written(GAPS)
    found = read(categorical="k", missing=missing)
    assert np.array_equal(found[0], np.array(x, float), equal_nan=True)
    assert found[1][:, 0].tolist() == y


def test_gaps_are_errors_by_default_and_always_in_a_target():
    written(GAPS)
    assert refusal(categorical="k") == (
        "t.csv: row 2, column 'a': missing; add the value, or set missing: drop, mean or median\n"
        "t.csv: row 3, column 'k': missing; add the value, or set missing: drop, mean or median"
    )
    written("a,y\n1,\n2,3\n")
    assert refusal(missing="mean") == (
        "t.csv: row 1, column 'y': missing, and a target is not filled in; add the value, or set missing: drop"
    )
    written("a,y\n1,\n,3\n")
    assert refusal(missing="drop").startswith("t.csv: all of its 2 rows have a gap")


@pytest.mark.parametrize("gap", ["?", " ? ", "NA", " "])
def test_missing_values_are_gaps_with_or_without_blanks_around_them(gap):
    written(f"a,y\n1,2\n{gap},3\n")
    x, *_ = read(missing="mean", missing_values=["?", "NA"])
    assert np.array_equal(x, [[1], [np.nan]], equal_nan=True)


def test_types_of_parquet_become_numbers_and_categories():
    table = pa.table(
        {
            "flag": [True, False, None], "whole": pa.array([1, 2, 3], pa.int8()), "text": ["1.5", " 2 ", "3"],
            "k": pa.array(["u", None, "v"]).dictionary_encode(), "n": [1.0, 2.0, 1.0], "y": [1, 2, 3],
        }
    )  # fmt: skip
    parquet.write_table(table, "t.parquet")
    x, _, _, points = read(name="parquet", path="t.parquet", categorical=["k", "n"], missing="mean")
    assert np.array_equal(x, [[1, 1, 1.5, 0, 0], [0, 2, 2, np.nan, 1], [np.nan, 3, 3, 1, 0]], equal_nan=True)
    assert points.categories == {"k": ["u", "v"], "n": ["1", "2"]}
    parquet.write_table(table.append_column("day", pa.array([1, 2, 3], pa.date32())), "t.parquet")
    assert "column 'day' has type date32[day], not numbers; put it in dates" in refusal(
        name="parquet", path="t.parquet", categorical="k", missing="mean"
    )


def test_a_negative_weight_is_an_error():
    written("w,a,y\n1,1,1\n-2,2,2\n")
    assert refusal(sample_weight="w") == "t.csv: row 2, column 'w': must be >= 0, got -2; use 0"


def test_standard_input_is_read_in_batches_of_whole_rows(monkeypatch):
    monkeypatch.setattr(formats.csv, "BLOCK_BYTES", 64)
    rows = "".join(f'{i},"say ""{i}""\nagain"\n' for i in range(200))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(("a,k\n" + rows).encode())))
    file, columns = formats.standard_input(), formats.Columns(["a"], ["k"], [])
    found = list(formats.batches(file, formats.Format("csv"), columns))
    assert len(found) > 20
    assert np.concatenate([batch.numbers["a"] for batch in found]).tolist() == list(range(200))
    assert [text for batch in found for text in batch.texts["k"].to_pylist()][7] == 'say "7"\nagain'


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1.5, None, 3.0, None, 5.0] * 5, pa.float64()),
        pa.array([1.5, None, 3.0, None, 5.0] * 5, pa.float64()).slice(3, 14),
        pa.array([1.5, 2.0, 3.0], pa.float64()).slice(1),
        pa.nulls(9, pa.float64()),
        pa.array([], pa.float64()),
        pa.array([None, 2], pa.int64()).cast(pa.float64()),
    ],
    ids=lambda column: f"{len(column)}-{column.null_count}",
)
def test_to_numpy_equals_arrows_own(column):
    expected = column.to_numpy(zero_copy_only=False)
    np.testing.assert_array_equal(to_numpy(column), expected)
