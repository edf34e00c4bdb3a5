"""A starter spec describes its table, loads, trains, and quotes names that YAML would read differently."""

import csv
import gzip
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from linreg.data.tables import profile
from linreg.data.tables.formats import canonical_name
from linreg.experiment.starter import _scalar
from linreg.spec.document import read_yaml
from linreg.spec.schema import load_spec


def write_table(columns, path="t.csv", delimiter=","):
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


@pytest.fixture
def source_of(linreg):
    """Run `linreg init`, check its spec with `linreg check`, and return data.source without defaults."""

    def run(*arguments):
        answer = linreg("init", *arguments)
        assert answer.code == 0
        Path("s.yaml").write_text(answer.out, encoding="utf-8")
        assert linreg("check", "s.yaml", "-q").code == 0
        return read_yaml(answer.out, "s.yaml").value["data"]["source"]

    return run


X = [0.5 * i for i in range(40)]
Y = [1 + 3 * x + 0.1 * (i % 7) for i, x in enumerate(X)]


def test_the_source_of_a_clean_table_has_only_required_params(source_of):
    found = source_of(write_table({"x": X, "y": Y}), "--target", "y")
    assert found == {"name": "csv", "path": "t.csv", "target": "y"}


def test_the_spec_trains_well_unchanged(linreg):
    x = np.random.RandomState(0).rand(300, 2) * 6
    kinds = ["one", "two", "three"]
    y = np.sin(x[:, 0]) + x[:, 1] + np.arange(300) % 3
    write_table({"a": x[:, 0], "b": x[:, 1], "k": [kinds[i % 3] for i in range(300)], "y": y})
    Path("s.yaml").write_text(linreg("init", "t.csv", "--target", "y").out)
    assert linreg("train", "s.yaml", "-q").code == 0
    assert linreg("evaluate", "--expect", "r2>0.98").code == 0


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_detected(source_of, delimiter):
    table = {"x": X, "k": ["a,b;c", "d"] * 20, "y": Y}
    found = source_of(write_table(table, delimiter=delimiter), "--target", "y")
    assert found.get("delimiter", ",") == delimiter
    assert found["categorical"] == ["k"]


def test_the_delimiter_of_a_tsv_file_is_a_tab(source_of):
    write_table({"x": X, "y": Y}, "t.tsv", "\t")
    Path("t.tsv.gz").write_bytes(gzip.compress(Path("t.tsv").read_bytes()))
    assert source_of("t.tsv", "--target", "y")["delimiter"] == "\t"
    assert source_of("t.tsv.gz", "--target", "y")["delimiter"] == "\t"


def test_a_delimiter_that_is_given_is_taken(source_of):
    Path("t.csv").write_text("a;b;k,y\n" + "".join(f"{i % 2};b;c,{i + 1}\n" for i in range(20)))
    assert "delimiter" not in source_of("t.csv", "--target", "y", "--delimiter", ",")


def test_a_decimal_comma_is_detected(source_of):
    table = {"x": [f"{x:.2f}".replace(".", ",") for x in X], "y": [f"{y:.1f}".replace(".", ",") for y in Y]}
    found = source_of(write_table(table, delimiter=";"), "--target", "y")
    assert (found["delimiter"], found["decimal"]) == (";", ",")
    assert "decimal" not in source_of(write_table({"x": X, "y": Y}, delimiter=";"), "--target", "y")


def test_latin_1_is_detected(source_of):
    Path("t.csv").write_bytes("größe;y\n1;2\n2;3\n4;4\n".encode("latin-1"))
    assert source_of("t.csv", "--target", "y")["encoding"] == "latin-1"


@pytest.mark.parametrize("marker", ["?", "NA", "N/A", "nan", "NaN", "null", "-", " ?", "  "])
def test_a_marker_among_numbers_is_a_gap(source_of, marker):
    found = source_of(write_table({"x": [marker, *X[1:]], "k": ["a", "b"] * 20, "y": Y}), "--target", "y")
    assert (found["missing_values"], found["missing"]) == ([marker], "median")


def test_a_marker_among_names_is_a_name_unless_it_is_a_gap_elsewhere(linreg, source_of):
    found = source_of(write_table({"x": X, "k": ["NA", "de"] * 20, "y": Y}), "--target", "y")
    assert "missing_values" not in found
    assert found["categorical"] == ["k"]
    table = {"x": ["NA", *X[1:]], "k": ["NA", "de", "fr", "fr"] * 10, "y": Y}
    assert "category, 2 distinct, 10 gaps" in linreg("init", write_table(table), "--target", "y").out


def test_a_gap_marker_that_is_given_is_taken_and_written(source_of):
    table = {"x": ["-999", "none", *X[2:]], "y": Y}
    found = source_of(write_table(table), "--target", "y", "--missing-value", "-999", "--missing-value", "none")
    assert (found["missing_values"], found["missing"]) == (["-999", "none"], "median")


def test_gaps_in_a_target_drop_rows_and_leave_out_features_that_would_drop_most(linreg, source_of):
    table = {"x": X, "few": ["", *X[1:]], "most": [*[""] * 30, *X[:10]], "y": [*Y[:-2], "", ""]}
    found = source_of(write_table(table), "--target", "y")
    assert (found["missing"], found["exclude"]) == ("drop", ["most"])
    out = linreg("init", "t.csv", "--target", "y").out
    assert "# Starter spec for t.csv: 40 rows, 37 of them usable; 4 columns.\n" in out
    assert "- most    # 75% gaps, and rows with a gap are dropped\n" in out


def test_useless_columns_are_excluded_with_the_reason(linreg, source_of):
    table = {
        "id": range(40),
        "x": X,
        "same": X,
        "leak": Y,
        "const": [7] * 40,
        "empty": [""] * 40,
        "words": [f"word {i}" for i in range(40)],
        "some": [f"word {i // 2}" for i in range(40)],
        "mixed": ["oops", *X[1:]],
        "y": Y,
    }
    found = source_of(write_table(table), "--target", "y")
    assert found["exclude"] == ["id", "same", "leak", "const", "empty", "words", "some", "mixed"]
    for line in (
        "- id    # identifier: it numbers the rows\n",
        "- same    # equal to x\n",
        "- leak    # equal to target y\n",
        "- const    # constant\n",
        "- empty    # only gaps\n",
        "- words    # identifier, 40 distinct values\n",
        "- some    # text, 20 distinct values\n",
        "- mixed    # numbers except 1 cell, such as oops; ",
    ):
        assert line in linreg("init", "t.csv", "--target", "y").out


def test_consecutive_numbers_are_excluded_only_if_the_column_is_called_an_identifier(source_of):
    assert "exclude" not in source_of(write_table({"x": range(40), "y": Y}), "--target", "y")


def test_few_distinct_whole_numbers_stay_numeric_with_a_hint(linreg, source_of):
    found = source_of(write_table({"origin": [1, 2, 3, 2] * 10, "y": Y}), "--target", "y")
    assert "categorical" not in found
    expected = (
        "#   origin  whole number, 1 to 3, 3 distinct, no gaps; if the numbers are codes, put it in categorical\n"
    )
    assert expected in linreg("init", "t.csv", "--target", "y").out


def test_rare_names_are_allowed_to_be_unseen(source_of):
    assert "unseen" not in source_of(write_table({"k": ["a", "b"] * 20, "y": Y}), "--target", "y")
    assert source_of(write_table({"k": ["c", "c", *["a", "b"] * 19], "y": Y}), "--target", "y")["unseen"] == "zeros"


@pytest.mark.parametrize(
    ("n_rows", "model", "batch_size"), [(199, "linear", 32), (200, "mlp", 32), (5_000, "mlp", 256)]
)
def test_model_and_batch_size_depend_on_the_number_of_rows(linreg, n_rows, model, batch_size):
    x = np.random.RandomState(0).rand(n_rows)
    Path("s.yaml").write_text(linreg("init", write_table({"x": x, "y": 2 * x}), "--target", "y").out)
    spec = load_spec("s.yaml")
    steps = spec.epochs * -(-0.8 * n_rows // batch_size)
    assert (spec.model.name, spec.data.batch_size, spec.data.standardize) == (model, batch_size, True)
    assert spec.epochs >= 20
    assert steps <= 20_000


def test_the_commented_alternatives_train(linreg):
    Path("s.yaml").write_text(linreg("init", write_table({"x": X, "y": Y}), "--target", "y").out)
    text = Path("s.yaml").read_text()
    Path("exact.yaml").write_text(text.replace("# solver: exact", "solver: exact"))
    assert linreg("train", "exact.yaml", "-q", "--expect", "epochs==1").code == 0
    Path("other.yaml").write_text(
        text.replace("\nmodel:", "\n# model:").replace("\n# model: {name: mlp", "\nmodel: {name: mlp")
    )
    assert linreg("check", "other.yaml", "-q").code == 0


def test_only_the_first_rows_are_profiled_and_the_header_says_so(linreg, monkeypatch):
    monkeypatch.setattr(profile, "MOST_ROWS", 1_000)
    x = np.arange(9_000) % 1_000 / 8
    table = {"x": x, "k": ["a"] * 990 + ["b"] * 8_010, "y": 3 * x + 1}
    out = linreg("init", write_table(table), "--target", "y").out
    assert "# Starter spec for t.csv: about 9," in out
    assert "category, 2 distinct, no gaps; most frequent: a (990), b (10)\n" in out
    assert "unseen: zeros" in out
    parquet.write_table(pa.table(table), "t.parquet")
    assert "about 9,000 rows, described by the first 1,000;" in linreg("init", "t.parquet", "--target", "y").out


def test_parquet_numpy_and_folders_are_profiled_like_csv(source_of):
    table = {
        "x": [None, *X[1:]],
        "k": ["a", "b"] * 20,
        "on": [True, False] * 20,
        "when": pa.array([0] * 40, pa.date32()),
        "y": Y,
    }
    parquet.write_table(pa.table(table), "t.parquet")
    found = source_of("t.parquet", "--target", "y")
    assert found == {
        "name": "parquet",
        "path": "t.parquet",
        "target": "y",
        "exclude": ["when"],
        "categorical": ["k"],
        "missing": "median",
    }
    np.savez("t.npz", x=np.array([X, X[::-1]]).T, y=Y)
    assert source_of("t.npz", "--target", "y") == {"name": "npz", "path": "t.npz", "target": "y"}
    Path("parts").mkdir()
    for part in (0, 20):
        parquet.write_table(pa.table({"x": X[part : part + 20], "y": Y[part : part + 20]}), f"parts/{part}.parquet")
    assert source_of("parts", "--target", "y") == {"name": "parquet", "path": "parts", "target": "y"}


def test_the_name_comes_from_the_file_and_may_be_given(linreg):
    write_table({"x": X, "y": Y}, "__Größe 2, final (1).csv")
    assert "\nname: Gr_e_2_final_1\n" in linreg("init", "__Größe 2, final (1).csv", "--target", "y").out
    assert "\nname: mine\n" in linreg("init", "__Größe 2, final (1).csv", "--target", "y", "--name", "mine").out


ODD = [
    "",
    ":x",
    "y # z",
    "yes",
    "1",
    "1.0",
    "null",
    'ü, "q"',
    "it's",
    "- a",
    "{b",
    "[",
    "two\nlines",
    " pad ",
    "a: b",
    "\\",
    "é" * 150,
]


def test_odd_names_are_quoted_so_that_the_spec_trains(linreg, source_of):
    random = np.random.RandomState(1)
    kinds = ["a", "b"] * 20
    numbers = {name: random.rand(40) for name in ODD}
    texts = {f"{name}!": random.permutation(kinds) for name in ODD}
    words = {f"{name}?": [f"w{position}{i}" for i in range(40)] for position, name in enumerate(ODD)}
    write_table(numbers | texts | words)
    for target in ODD:
        found = source_of("t.csv", "--target", target)
        assert found["target"] == canonical_name(target)
        expected = ([canonical_name(name) for name in texts], [canonical_name(name) for name in words])
        assert (found["categorical"], found["exclude"]) == expected
    found = source_of("t.csv", *[f"--target={name}" for name in ODD[:9]])
    assert found["target"] == [canonical_name(name) for name in ODD[:9]]
    assert linreg("train", "s.yaml", "epochs=1", "-q").code == 0


@given(st.text(st.characters(exclude_categories=["Cs"])))
@example("a\x85b")
@settings(max_examples=300)
def test_any_text_is_read_back_as_it_was_written(text):
    written = f"a:\n  b: {_scalar(text)}\n  c:\n    - {_scalar(text)}    # d\n  e: [{_scalar(text)}, {_scalar(text)}]    # f\n"
    assert read_yaml(written, "s").value == {"a": {"b": text, "c": [text], "e": [text, text]}}


GOOD = "x,y\n1,2\n2,3\n3,5\n"


@pytest.mark.parametrize(
    ("table", "options", "code", "message"),
    [
        (GOOD, ["--target", "yy"], 2, "--target yy: t.csv has no column 'yy'; did you mean 'y'?"),
        (GOOD, ["--target", "y", "--target", "y"], 2, "--target y: duplicate column; remove one"),
        (GOOD, ["--target", "y", "--name", "a b"], 2, "--name 'a b': must be 1 to 64 letters, digits, '.', '_' and '-'; choose another"),
        (GOOD, ["--target", "y", "--delimiter", "::"], 2, "--delimiter '::': must be one character, such as ';'"),
        (GOOD, ["--target", "x", "--target", "y"], 3, "t.csv: no column is left as a feature; add one"),
        ("x,y\n1,2\n1,3\n", ["--target", "y"], 3, "t.csv: no column is left as a feature (x: constant); add one"),
        ("x,y\n1,a\n2,b\n", ["--target", "y"], 3, "t.csv: target y: is text, such as 'a'; name a column of numbers"),
        ("x,y\n1,4\n2,b\n3,4\n", ["--target", "y"], 3, "t.csv: target y: 1 cell not a number, such as 'b'; fix the table, or add --missing-value 'b' if it is a gap"),
        ("x,y\n1,\n2,\n", ["--target", "y"], 3, "t.csv: target y: has only gaps; name another column"),
        ("x,y\n,1\n,2\n1,\n2,\n3,5\n", ["--target", "y"], 3, "t.csv: no column is left as a feature (x: "),
        ("", ["--target", "y"], 3, "t.csv: empty; a table needs a header with column names"),
        ("x,y\n", ["--target", "y"], 3, "t.csv: no rows below the header; a table needs at least two, one for training and one for validation"),
        ("x,y\n1,2\n", ["--target", "y"], 3, "t.csv: one row; a table needs at least two, one for training and one for validation"),
        ("x,y\n1,2\n2\n", ["--target", "y"], 3, "t.csv: row 2: expected 2 columns, got 1; fix it, or set delimiter"),
    ],
)  # fmt: skip
def test_an_unusable_table_or_option_is_an_error_with_a_hint(linreg, table, options, code, message):
    Path("t.csv").write_text(table)
    answer = linreg("init", "t.csv", *options)
    assert (answer.code, answer.out) == (code, "")
    assert answer.err.startswith(f"error: {message}")


def test_missing_and_unknown_files_are_errors(linreg):
    write_table({"x": X, "y": Y})
    Path("t.jsonl").write_text('{"x": 1, "y": 2}\n')
    Path("t.xlsx").write_text("x")
    Path("none").mkdir()
    for path, message in (
        ("s.csv", "s.csv: no such file; did you mean 't.csv'?"),
        ("gone", "gone: no such file; "),
        ("none", "none: a folder without a file that ends with .csv or "),
        ("t.xlsx", "t.xlsx: "),
    ):
        answer = linreg("init", path, "--target", "y")
        assert (answer.code, answer.out) == (3, "")
        assert answer.err.startswith(f"error: {message}")


def test_a_spec_over_the_size_limit_is_an_error(linreg):
    names = io.StringIO()
    rows = ([1] * 3000, [2, 3, *[1] * 2998])
    csv.writer(names).writerows([[f"a column with a long name {i}" for i in range(3000)], *rows])
    Path("t.csv").write_text(names.getvalue())
    answer = linreg("init", "t.csv", "--target", "a column with a long name 0")
    assert answer.code == 3
    expected = (
        "error: t.csv: 3,000 columns make a spec of more than 100,000 bytes; remove columns that are not features"
    )
    assert answer.err.startswith(expected)


def suggested(linreg, columns, *targets):
    """Return the commented keys of data in a starter spec, after checking that each works in place of the default."""
    options = [part for target in targets or ("y",) for part in ("--target", target)]
    answer = linreg("init", write_table(columns), *options)
    assert answer.code == 0
    keys = [line.strip("# ").partition("    #")[0] for line in answer.out.splitlines() if line.startswith("  # ")]
    for key in keys:
        rest = [line for line in answer.out.splitlines() if not (key.startswith("split") and "  split:" in line)]
        place = next(i for i, line in enumerate(rest) if line.startswith("  batch_size"))
        Path("s.yaml").write_text("\n".join([*rest[:place], f"  {key}", *rest[place:]]))
        assert linreg("check", "s.yaml").code == 0
        assert f"consider {key}    # " in answer.err
    return keys


RANDOM = np.random.RandomState(1)
NORMAL = RANDOM.randn(120)
DAYS = [f"2024-{1 + i // 28:02}-{1 + i % 28:02}" for i in range(120)]


def test_a_skewed_target_asks_for_its_logarithm(linreg):
    assert suggested(linreg, {"x": NORMAL, "y": np.exp(NORMAL)}) == ["target_transform: {name: log}"]
    counts = np.floor(np.exp(NORMAL) * 3)
    assert counts.min() == 0
    assert suggested(linreg, {"x": NORMAL, "y": counts}) == ["target_transform: {name: log1p}"]
    assert suggested(linreg, {"x": NORMAL, "y": NORMAL + 9}) == []
    assert suggested(linreg, {"x": NORMAL, "y": -np.exp(NORMAL)}) == []
    assert suggested(linreg, {"x": NORMAL, "y": np.exp(NORMAL), "z": NORMAL + 9}, "y", "z") == []


def test_a_column_of_times_asks_for_a_split_by_time(linreg):
    by_time = ["split: {train_ratio: 0.8, by: {time: sold}}"]
    assert suggested(linreg, {"sold": DAYS, "x": NORMAL, "y": NORMAL + 9}) == by_time
    assert "the table is in the order of sold" in linreg("init", "t.csv", "--target", "y").err
    shuffled = list(RANDOM.permutation(DAYS))
    assert suggested(linreg, {"sold": shuffled, "x": NORMAL, "y": NORMAL + 9}) == by_time
    assert "sold is a date" in linreg("init", "t.csv", "--target", "y").err
    assert suggested(linreg, {"year": range(1900, 2020), "x": NORMAL, "y": NORMAL + 9}) == [
        "split: {train_ratio: 0.8, by: {time: year}}"
    ]
    assert suggested(linreg, {"year": RANDOM.permutation(120), "x": NORMAL, "y": NORMAL + 9}) == []


def test_a_column_that_names_groups_asks_for_a_split_by_group(linreg):
    number = RANDOM.randint(0, 40, size=120)
    for name, values in (("patient", number), ("customer_id", [f"c{n}" for n in number])):
        keys = suggested(linreg, {name: values, "x": NORMAL, "y": NORMAL + 9})
        assert keys == [f"split: {{train_ratio: 0.8, by: {{group: {name}}}}}"]
    assert suggested(linreg, {"patient": range(120), "x": NORMAL, "y": NORMAL + 9}) == []
    assert suggested(linreg, {"rooms": number, "x": NORMAL, "y": NORMAL + 9}) == []
