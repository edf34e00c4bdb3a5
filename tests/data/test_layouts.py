"""Tables as people write them: notations of numbers, layouts of files, and formats give the points of a plain table."""

import bz2
import gzip
import json
import lzma
import sqlite3
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import csv, feather, parquet

from linreg.data.sources import DATASETS
from linreg.errors import DataError
from linreg.spec.document import read_yaml

N = 24
RANDOM = np.random.default_rng(3)
A = RANDOM.integers(1_000, 90_000, N) + 0.5
B = RANDOM.integers(-50, 50, N).astype(float)
B[0] = -7.0
K = [["usa", "japan", "europe"][i % 3] for i in range(N)]
Y = np.round(RANDOM.normal(10, 3, N), 2)


def points(name, **params):
    """Read a source: x with the names of categories, and y."""
    source = DATASETS.build(DATASETS.check({"name": name, **params}), where="source")
    blocks = list(source.blocks())
    x, y = (np.concatenate([getattr(block, part) for block in blocks]) for part in "xy")
    columns = []
    for position, feature in enumerate(source.feature_names):
        known = source.categories.get(feature)
        columns.append([known[int(code)] for code in x[:, position]] if known else x[:, position].tolist())
    return dict(zip(source.feature_names, columns, strict=True)), y[:, 0].tolist()


def initialised(linreg, path, target="y"):
    """Read a table with the source of `linreg init`; return also its notes."""
    answer = linreg("init", path, "--target", target)
    assert answer.code == 0, answer.err
    source = read_yaml(answer.out, "s.yaml").value["data"]["source"]
    return *points(**source), answer.err, source


def table(a=lambda v: f"{v}", b=lambda v: f"{v}", k=str, y=lambda v: f"{v}", sep=",", header="a,b,k,y"):
    rows = [sep.join([a(u), b(v), k(w), y(z)]) for u, v, w, z in zip(A, B, K, Y, strict=True)]
    return [header.replace(",", sep), *rows]


def lines(rows, path="t.csv", end="\n", encoding="utf-8"):
    Path(path).write_bytes((end.join(rows) + end).encode(encoding))
    return path


def grouped(sign, decimal):
    return lambda v: f"{v:,.1f}".translate(str.maketrans({",": sign, ".": decimal}))


NOTATIONS = {
    "thousands in quotes": table(a=lambda v: f'"{v:,.1f}"'),
    "currency": table(a=lambda v: f'"${v:,.1f}"'),
    "percent": table(b=lambda v: f"{v}%"),
    "unit": table(a=lambda v: f"{v} kg"),
    "decimal comma in quotes": table(a=lambda v: f'"{v}"'.replace(".", ","), b=lambda v: f"{v:.0f}", y=lambda v: f'"{v:.2f}"'.replace(".", ",")),
    "points and commas": table(a=grouped(".", ","), b=lambda v: f"{v:.0f}", y=lambda v: f"{v:.2f}".replace(".", ","), sep=";"),
    "thin spaces": table(a=grouped("\u202f", ".")),
    "apostrophes": table(a=grouped("'", ".")),
    "accounting": table(b=lambda v: f"({-v})" if v < 0 else f"{v}"),
    "unicode minus": table(b=lambda v: f"{v}".replace("-", "\u2212")),
    "fortran": table(a=lambda v: f"{v:.8e}".replace("e", "D")),
    "excel error": [*table(), "#DIV/0!,1,usa,2"],
}  # fmt: skip


@pytest.mark.parametrize("name", NOTATIONS)
def test_init_recognises_how_numbers_are_written(linreg, name):
    x, y, _, source = initialised(linreg, lines(NOTATIONS[name]))
    assert x["a"][:N] == A.tolist()
    assert x["b"][:N] == B.tolist()
    assert y[:N] == Y.tolist()
    if name == "excel error":
        assert source["missing_values"] == ["#DIV/0!"]


@pytest.mark.parametrize(
    ("numbers", "cell"),
    [({"thousands": ","}, "1,23"), ({"strip": ["$"]}, "€5"), ({}, "1,137"), ({}, "$5"), ({}, "(5)"), ({"decimal": ","}, "1.5")],
)  # fmt: skip
def test_a_cell_that_contradicts_the_declared_notation_is_an_error_with_its_row(numbers, cell):
    lines(["a,y", "1,2", f'"{cell}",3', "2,4"])
    with pytest.raises(DataError, match=r"t.csv: row 2, column 'a': .* is not a number; "):
        points("csv", path="t.csv", target="y", numbers=numbers)


def test_a_decimal_comma_without_declaration_is_explained():
    lines(["a,y", '1,"2,5"', '2,"3,5"'])
    with pytest.raises(DataError, match="decimal: ','"):
        points("csv", path="t.csv", target="y")


PLAIN = table()
LAYOUTS = {
    "comments": [*PLAIN[:1], "# a note, with commas", *PLAIN[1:9], "# 1,2,usa,3", *PLAIN[9:]],
    "comments above": ["# made by hand", "# 2024", *PLAIN],
    "titles": ["Sales of 2024", "", *PLAIN],
    "sep line": ["sep=;", *table(sep=";")],
    "white space": table(sep="   "),
    "tabs and spaces": table(sep=" \t "),
    "trailing delimiter": [PLAIN[0], *[f"{row}," for row in PLAIN[1:]]],
    "trailing delimiters": [f"{row}," for row in PLAIN],
    "row names": [PLAIN[0], *[f"car {i},{row}" for i, row in enumerate(PLAIN[1:])]],
    "blanks": table(sep=", "),
    "blanks and quotes": table(sep=", ", k=lambda v: f'"{v}"'),
    "blank lines": [*PLAIN[:5], "", "   ", *PLAIN[5:], ""],
    "end of file": [*PLAIN, "\x1a"],
    "repeated header": [*PLAIN[:10], PLAIN[0], *PLAIN[10:]],
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_init_finds_the_layout_of_a_file(linreg, name):
    x, y, _, source = initialised(linreg, lines(LAYOUTS[name]))
    assert (x["a"], x["b"], x["k"], y) == (A.tolist(), B.tolist(), K, Y.tolist())
    assert set(source.get("exclude", [])) <= {"row_name"}


def test_a_file_without_a_header_has_numbered_columns_and_a_target_by_number(linreg):
    x, y, notes, source = initialised(linreg, lines(PLAIN[1:]), target="4")
    assert (x["c1"], x["c3"], y) == (A.tolist(), K, Y.tolist())
    assert (source["header"], source["target"]) == (False, "c4")
    assert "there is no header: the columns are c1, c2, c3, ..." in notes


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1", "cp1252", "utf-8-sig"])
def test_init_finds_the_encoding(linreg, encoding):
    sign = "€" if encoding != "latin-1" else "é"
    rows = table(k=lambda v: f"{v}{sign}")
    x, y, *_ = initialised(linreg, lines(rows, encoding=encoding))
    assert (x["k"], x["a"], y) == ([f"{k}{sign}" for k in K], A.tolist(), Y.tolist())


def test_an_empty_line_of_a_single_column_stays_a_gap_when_cells_are_read_as_text():
    lines(["y", "1", "", " 3 ", "TRUE"])
    source = DATASETS.build(DATASETS.check({"name": "csv", "path": "t.csv", "target": "y", "features": [], "missing": "drop"}), where="s")  # fmt: skip
    block = next(source.blocks())
    assert block.y[:, 0].tolist() == [1.0, 3.0, 1.0]
    assert [block.where(row) for row in range(3)] == ["t.csv: row 1", "t.csv: row 3", "t.csv: row 4"]


def test_ragged_rows_are_counted_below_the_lines_that_are_skipped():
    lines(["sep=;", "a;y", "1;2", "3", "4;5"])
    with pytest.raises(DataError, match="t.csv: row 2: expected 2 columns, got 1"):
        points("csv", path="t.csv", target="y", delimiter=";")
    lines(["title", "a,y", "1,2", "3"])
    with pytest.raises(DataError, match="t.csv: row 2: expected 2 columns, got 1"):
        points("csv", path="t.csv", target="y", skip_lines=1)


def write_all_formats():
    columns = pa.table({"a": A, "b": B, "k": K, "y": Y})
    csv.write_csv(columns, "t.csv")
    parquet.write_table(columns, "t.parquet")
    feather.write_feather(columns, "t.feather")
    Path("t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in columns.to_pylist()))
    with sqlite3.connect("t.db") as database:
        database.execute("CREATE TABLE cars (a REAL, b REAL, k TEXT, y REAL)")
        database.executemany(
            "INSERT INTO cars VALUES (?, ?, ?, ?)", zip(A.tolist(), B.tolist(), K, Y.tolist(), strict=True)
        )
    database.close()
    write_workbook("t.xlsx", [list(columns.column_names), *map(list, zip(A, B, K, Y, strict=True))])


def write_workbook(path, rows):
    """Write the smallest workbook with one sheet."""

    def cell(value):
        if value is None:
            return "<c/>"
        return f'<c t="inlineStr"><is><t>{value}</t></is></c>' if isinstance(value, str) else f"<c><v>{value!r}</v></c>"

    space = "http://schemas.openxmlformats.org"
    cells = "".join(
        f"<row>{''.join(cell(v if isinstance(v, str | None) else float(v)) for v in row)}</row>" for row in rows
    )
    parts = {
        "[Content_Types].xml": f'<Types xmlns="{space}/package/2006/content-types"><Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Default Extension="xml" ContentType="application/xml"/></Types>',
        "_rels/.rels": f'<Relationships xmlns="{space}/package/2006/relationships"><Relationship Id="r1" Type="{space}/officeDocument/2006/relationships/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{space}/spreadsheetml/2006/main" xmlns:r="{space}/officeDocument/2006/relationships"><sheets><sheet name="cars" sheetId="1" r:id="r1"/></sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{space}/package/2006/relationships"><Relationship Id="r1" Type="{space}/officeDocument/2006/relationships/worksheet" Target="worksheets/sheet1.xml"/></Relationships>',
        "xl/worksheets/sheet1.xml": f'<worksheet xmlns="{space}/spreadsheetml/2006/main"><sheetData>{cells}</sheetData></worksheet>',
    }  # fmt: skip
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in parts.items():
            archive.writestr(name, text)


@pytest.mark.parametrize("path", ["t.csv", "t.parquet", "t.feather", "t.jsonl", "t.db", "t.xlsx"])
def test_a_table_is_the_same_in_every_format(linreg, path):
    write_all_formats()
    x, y, *_ = initialised(linreg, path)
    assert (x["a"], x["b"], x["k"], y) == (A.tolist(), B.tolist(), K, Y.tolist())


def test_a_workbook_keeps_the_place_of_a_column_without_name():
    write_workbook("t.xlsx", [["a", None, "y"], [1, 2, 3], [4, 5, 6]])
    assert points("excel", path="t.xlsx", target="y", features="a") == ({"a": [1.0, 4.0]}, [3.0, 6.0])


def test_a_database_is_read_by_table_or_query_and_never_written():
    write_all_formats()
    params = {"path": "t.db", "target": "y", "features": "a"}
    assert points("sqlite", query="SELECT a, y FROM cars WHERE a > 50000", **params)[0]["a"] == A[A > 50000].tolist()
    with pytest.raises(DataError, match="not authorized"):
        points("sqlite", query="DROP TABLE cars", **params)
    with pytest.raises(DataError, match="has no table 'car'; did you mean 'cars'"):
        points("sqlite", table="car", **params)
    assert points("sqlite", table="cars", **params)[0]["a"] == A.tolist()


@pytest.mark.parametrize("suffix", ["gz", "bz2", "xz", "zst", "zip"])
def test_a_compressed_table_is_read(linreg, suffix):
    content = Path(lines(PLAIN)).read_bytes()
    path = Path(f"t.csv.{suffix}")
    if suffix == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("t.csv", content)
    else:
        packed = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": pa.Codec("zstd").compress}
        path.write_bytes(bytes(packed[suffix](content)))
    x, y, *_ = initialised(linreg, path)
    assert (x["a"], x["k"], y) == (A.tolist(), K, Y.tolist())


def test_the_content_decides_what_a_file_is(linreg):
    write_all_formats()
    Path("t.parquet").rename("lie.csv")
    x, _, notes, source = initialised(linreg, "lie.csv")
    assert (x["a"], source["name"]) == (A.tolist(), "parquet")
    assert "lie.csv: is Parquet, whatever its name says; it is read as such" in notes
    with pytest.raises(DataError, match="lie.csv: is Parquet, not CSV; set name: parquet"):
        points("csv", path="lie.csv", target="y")


def test_dates_are_days_in_every_format():
    days = [19844.0, 19844.5, 19845.0]
    lines(["when,y", "2024-05-01,1", "2024-05-01 12:00,2", "2024-05-02T00:00:00Z,3"])
    assert points("csv", path="t.csv", target="y", dates="when") == ({"when": days}, [1.0, 2.0, 3.0])
    lines(["when,y", "01.05.2024,1", "02.05.2024,2"])
    found = points("csv", path="t.csv", target="y", dates="when", date_format="%d.%m.%Y")
    assert found[0]["when"] == [19844.0, 19845.0]
    times = pa.array([int(day * 86_400_000_000) for day in days], pa.timestamp("us"))
    parquet.write_table(pa.table({"when": times, "y": [1.0, 2.0, 3.0]}), "t.parquet")
    assert points("parquet", path="t.parquet", target="y", dates="when")[0]["when"] == days
    lines(["when,y", "2024-02-30,1", "2024-05-01,2"])
    with pytest.raises(DataError, match="t.csv: row 1, column 'when': '2024-02-30' is not a date as 2024-05-31"):
        points("csv", path="t.csv", target="y", dates="when")


@pytest.mark.parametrize(
    "cells", [["1", "1.0", " 1 ", "1.00"], ["true", "True", "TRUE"], ["é", "e\u0301"], ["usa", " usa ", '"usa"']]
)
def test_a_category_is_the_same_in_all_its_forms(cells):
    lines(["k,y", *[f"{cell},1" for cell in cells]])
    x, _ = points("csv", path="t.csv", target="y", categorical="k")
    assert len(set(x["k"])) == 1


def test_init_says_what_it_leaves_out_and_what_dates_are(linreg):
    rows = ["id,when,k,y", *[f"{i + 1},2024-01-{i % 28 + 1:02},a,{y}" for i, y in enumerate(Y)]]
    _, _, notes, source = initialised(linreg, lines(rows))
    assert "left out: id: identifier: it numbers the rows\n" in notes
    assert "left out: k: constant\n" in notes
    assert "when: a date, read as days since 1970\n" in notes
    assert source["dates"] == ["when"]


def with_open_quote(*rows, column):
    """Rows of numbers, texts and targets, with the texts in some column; a quote opens in the given rows."""
    lines_of = ["x,y,k" if column == "last" else "k,x,y" if column == "first" else "x,k,y"]
    for i in range(1, 41):
        text = f'"{"ab"[i % 2]}' if i in rows else "ab"[i % 2]
        cells = {"last": [i, i * 2.5, text], "first": [text, i, i * 2.5], "middle": [i, text, i * 2.5]}[column]
        lines_of.append(",".join(map(str, cells)))
    return lines_of


@pytest.mark.parametrize("block_bytes", [200, 2**21])
@pytest.mark.parametrize("column", ["first", "middle", "last"])
@pytest.mark.parametrize("rows", [[10], [10, 30], [39], [40]])
def test_a_quote_without_an_end_is_an_error_that_names_its_line(monkeypatch, rows, column, block_bytes):
    monkeypatch.setattr("linreg.data.tables.formats.csv.BLOCK_BYTES", block_bytes)
    lines(with_open_quote(*rows, column=column))
    with pytest.raises(DataError) as error:
        points("csv", path="t.csv", target="y", categorical="k")
    assert f"t.csv: row {rows[0]}: " in str(error.value)
    if rows[0] < 39 or column == "last":
        assert f"a quote begins on line {rows[0] + 1} and has no end" in str(error.value)


def test_a_cell_of_several_lines_is_a_cell():
    note = 'first line\nsecond, with a comma\nthird: 5" pipe\nlast'
    quoted = note.replace('"', '""')
    lines(["x,k,y", f'1,"{quoted}",2', '2,"a\n\nb",3', '3,5" pipe,4', *[f"{i},b,1" for i in range(20)]])
    x, y = points("csv", path="t.csv", target="y", categorical="k")
    assert (x["k"][:3], len(y)) == ([note, "a\n\nb", '5" pipe'], 23)


def test_rows_are_counted_as_in_the_file_also_below_a_repeated_header():
    rows = [*table()[:10], table()[0], *table()[10:20], table()[0], *table()[20:]]
    source = {"path": lines(rows), "target": "y", "categorical": "k"}
    blocks = list(DATASETS.build(DATASETS.check({"name": "csv", **source}), where="source").blocks())
    places = [block.where(row) for block in blocks for row in range(len(block.x))]
    assert places == [f"t.csv: row {row}" for row in range(1, N + 3) if row not in (10, 21)]


@pytest.mark.parametrize(
    "form, format", [("%d/%m/%y", "%d/%m/%y"), ("%y-%m-%d", "%y-%m-%d"), ("%Y/%m/%d", "%Y/%m/%d"), ("%d-%b-%y",) * 2]
)
def test_a_year_has_two_or_four_digits(linreg, form, format):
    days = np.datetime64("2024-01-20") + np.arange(N)
    rows = [f"{day.item().strftime(form)},{y}" for day, y in zip(days, Y, strict=True)]
    x, _, notes, source = initialised(linreg, lines(["when,y", *rows]))
    assert source["date_format"] == format and "when: a date" in notes
    assert x["when"] == days.astype(float).tolist()


def test_a_year_of_two_digits_contradicts_a_format_with_four():
    lines(["when,y", "2024/05/31,1", "01/02/24,2"])
    with pytest.raises(DataError, match="t.csv: row 2, column 'when': '01/02/24' is not a date as %Y/%m/%d"):
        points("csv", path="t.csv", target="y", dates="when", date_format="%Y/%m/%d")


@pytest.mark.parametrize(
    "cells, reason",
    [
        (["$1", "€2"], "text"),
        (["12%", "5"], "text"),
        (["3cm", "4m"], "identifier"),
        ([*["1", "2", "3"], "<5"], "18 numbers and 6 other cells, such as <5"),
    ],
)
def test_numbers_in_several_units_are_not_numbers(linreg, cells, reason):
    written = [cells[i % len(cells)].replace("1", str(i + 10)) for i in range(N)]
    rows = [f"{cell},{b},{y}" for cell, b, y in zip(written, B, Y, strict=True)]
    _, _, notes, source = initialised(linreg, lines(["x,b,y", *rows]))
    assert source.get("exclude", source.get("categorical")) == ["x"]
    assert "left out: x" not in notes or f"left out: x: {reason}" in notes


def test_whole_numbers_that_may_be_dates_are_pointed_out(linreg):
    days = np.datetime64("2024-01-20") + np.arange(N)
    rows = [f"{str(day).replace('-', '')},{y}" for day, y in zip(days, Y, strict=True)]
    _, _, notes, _ = initialised(linreg, lines(["when,y", *rows]))
    assert 'when: whole numbers that may be dates; consider dates: when and date_format: "%Y%m%d"' in notes
    x, _ = points("csv", path="t.csv", target="y", dates="when", date_format="%Y%m%d")
    assert x["when"] == days.astype(float).tolist()


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_is_recognised_also_without_its_mark(linreg, encoding):
    x, y, _, source = initialised(linreg, lines(table(), encoding=encoding))
    assert (x["a"], x["k"], y, source["encoding"]) == (A.tolist(), K, Y.tolist(), encoding)


QUOTED = ["q", '"q"', '""', '"', "z", 'say "so"']


def write_quoted(path):
    """Write a table whose categories have quotes of their own, in the format of the path's suffix."""
    k, y = [text for text in QUOTED for _ in range(2)], [float(i) for i in range(2 * len(QUOTED))]
    match Path(path).suffix:
        case ".csv":
            lines(["k,y", *['"{}",{}'.format(a.replace('"', '""'), b) for a, b in zip(k, y, strict=True)]], path)
        case ".jsonl":
            lines([json.dumps({"k": a, "y": b}) for a, b in zip(k, y, strict=True)], path)
        case ".sqlite":
            with sqlite3.connect(path) as database:
                database.execute("CREATE TABLE t (k TEXT, y REAL)")
                database.executemany("INSERT INTO t VALUES (?, ?)", zip(k, y, strict=True))
            database.close()
        case ".xlsx":
            write_workbook(path, [["k", "y"], *zip(k, y, strict=True)])
        case ".npy":
            np.save(path, np.array(list(zip(k, y, strict=True)), dtype=[("k", "U9"), ("y", "f8")]))
        case suffix:
            write = parquet.write_table if suffix == ".parquet" else feather.write_feather
            write(pa.table({"k": k, "y": y}), path)


@pytest.mark.parametrize("path", ["t.csv", "t.jsonl", "t.sqlite", "t.parquet", "t.feather", "t.npy", "t.xlsx"])
def test_quotes_that_a_value_has_are_a_part_of_the_category(path):
    write_quoted(path)
    name = {"xlsx": "excel"}.get(path[2:], path[2:])
    x, _ = points(name, path=path, target="y", categorical="k")
    assert x["k"] == [text for text in QUOTED for _ in range(2)]


@pytest.mark.parametrize(
    ("cell", "category"), [(' "q"', "q"), ('\t"q" ', "q"), (' """q"""', '"q"'), (' "a" b "c"', '"a" b "c"')]
)  # fmt: skip
def test_only_quotes_around_a_whole_cell_after_a_blank_are_none_of_its_text(cell, category):
    lines(["k,y", f"{cell},1", "z,2"])
    assert points("csv", path="t.csv", target="y", categorical="k")[0]["k"] == [category, "z"]


def test_quotes_after_a_blank_are_none_for_init_and_a_split_by_groups(linreg):
    lines(["a,k,y", *[f'{i % 7}, "{i % 3}.5",{i}' for i in range(N)], *[f"{i % 7},{i % 3}.5,{i}" for i in range(N)]])
    assert isinstance(initialised(linreg, "t.csv")[0]["k"][0], float)
    component = DATASETS.check({"name": "csv", "path": "t.csv", "target": "y", "features": "a"})
    groups = DATASETS.build(component, where="source").column("k").values
    assert len(set(groups)) == 3
