"""Rows by shard: each process reads its own, and all learn the same from them."""

import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from linreg.data import division
from linreg.data.resident import ResidentRows
from linreg.data.rows import StreamedRows
from linreg.data.shards import Cut, Shards
from linreg.data.sources import DATASETS, Samples
from linreg.data.split import divide
from linreg.data.tables.formats import csv, files
from linreg.data.tables.formats import parquet as parquet_format
from linreg.errors import DataError
from linreg.registry import ComponentSpec
from linreg.training.shards.exchange import shards_of

N_SHARDS = 5


def in_group(size, work, n_shards=N_SHARDS):
    """Call a function with the shards of each process of a group, in threads; return the results by rank."""
    barrier, values, results, errors = threading.Barrier(size, timeout=60), [None] * size, [None] * size, []

    def run(rank):
        def share(value):
            values[rank] = value
            barrier.wait()
            shared = list(values)
            barrier.wait()
            return shared

        try:
            results[rank] = work(Shards(n_shards, shards_of(n_shards, rank, size), share))
        except Exception as error:
            errors.append(error)
            barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for error in errors:
        if not isinstance(error, threading.BrokenBarrierError):
            raise error
    return results


def source(**params):
    return DATASETS.build(ComponentSpec(params.pop("name"), params), where="data.source")


def table_text(draw, *, newline, ends, gaps=False, quotes=True):
    """Lines of CSV with quoted newlines and delimiters in a category, and a repeated header."""
    lines, names = ["a,kind,y"], ["one", '"two\nlines"', '"with, comma"', '"a ""quote"""']
    for i in range(draw.integers(40, 120)):
        a = "" if gaps and draw.random() < 0.2 else f"{draw.normal():.5f}"
        lines.append(f"{a},{names[draw.integers(4 if quotes else 1)]},{i}")
    return newline.join(lines) + (newline if ends else "")


def rows_of(points, shards):
    """The rows of a process as lists, with names for categories, and their fingerprint."""
    rows = StreamedRows(points, where="data.source", shards=shards)
    found = []
    for block in rows.blocks():
        for x, y in zip(block.x.tolist(), block.y.tolist(), strict=True):
            names = [points.categories.get(name) for name in points.feature_names]
            found.append([*(v if known is None else known[int(v)] for v, known in zip(x, names, strict=True)), *y])
    return found, rows.fingerprint


@pytest.mark.parametrize("seed", range(12))
def test_each_process_has_the_rows_of_its_shards_whatever_the_lines(monkeypatch, seed):
    draw = np.random.default_rng(seed)
    monkeypatch.setattr(csv, "SPAN_BYTES", int(draw.integers(30, 400)))
    gaps = bool(draw.random() < 0.5)
    text = table_text(draw, newline=["\n", "\r\n"][seed % 2], ends=bool(draw.random() < 0.5), gaps=gaps)
    Path("table.csv").write_bytes(text.encode())
    params = {"name": "csv", "path": "table.csv", "target": "y", "categorical": "kind"}
    params["missing"] = ["drop", "mean"][seed % 2] if gaps else "error"
    whole, fingerprint = rows_of(source(**params), Shards(N_SHARDS, range(N_SHARDS), lambda value: [value]))
    assert len(whole) > 20
    for size in (2, 3, 5):
        found = in_group(size, lambda shards: rows_of(source(**params), shards))
        assert repr([row for rows, _ in found for row in rows]) == repr(whole)  # NaN is not equal to itself
        assert {one for _, one in found} == {fingerprint}
        for rank, (rows, _) in enumerate(found):
            own = shards_of(N_SHARDS, rank, size)
            assert len(rows) == len(whole) * own.stop // N_SHARDS - len(whole) * own.start // N_SHARDS


def test_rows_that_repeat_the_header_are_in_no_shard(monkeypatch):
    monkeypatch.setattr(csv, "SPAN_BYTES", 50)
    lines = [f"{i}.5,{i}" if i % 9 else "x,y" for i in range(1, 80)]
    Path("table.csv").write_text("\n".join(["x,y", *lines]))
    expected = [[i + 0.5, i] for i in range(1, 80) if i % 9]
    found = in_group(3, lambda shards: rows_of(source(name="csv", path="table.csv", target="y"), shards)[0])
    assert [row for rows in found for row in rows] == expected


def write_parquet(path, n_rows, size):
    x = np.arange(n_rows, dtype=float)
    parquet.write_table(pa.table({"x": x, "y": 2 * x}), path, row_group_size=size)


def test_a_process_opens_only_row_groups_with_rows_of_its_shards(monkeypatch):
    write_parquet("table.parquet", 1000, 100)
    opened, read = {}, parquet_format.read

    def recorded(file, format, columns, *place):
        opened.setdefault(threading.get_ident(), []).append((place[0].start, place[0].stop))
        return read(file, format, columns, *place)

    monkeypatch.setattr(parquet_format, "read", recorded)

    def work(shards):
        rows = ResidentRows(
            source(name="parquet", path="table.parquet", target="y"),
            dtype="float64",
            gaps=False,
            where="d",
            shards=shards,
        )
        return opened[threading.get_ident()], rows.x[:, 0].tolist()

    first, second = in_group(2, work)
    assert first == ([(0, 4)], list(np.arange(400.0)))
    assert second == ([(4, 10)], list(np.arange(400.0, 1000.0)))


def test_reading_parquet_keeps_no_row_groups_in_memory():
    write_parquet("table.parquet", 400_000, 20_000)
    before, most = pa.total_allocated_bytes(), 0
    for _ in source(name="parquet", path="table.parquet", target="y").blocks():
        most = max(most, pa.total_allocated_bytes() - before)
    assert most < 2e6  # of 6.4 MB


def test_a_process_keeps_no_bytes_of_a_csv_file_beyond_its_shards(monkeypatch):
    Path("table.csv").write_text("x,y\n" + "".join(f"{i},{i}\n" for i in range(1000, 3000)))
    monkeypatch.setattr(csv, "SPAN_BYTES", 1000)
    opened, open_span = {}, files.open_span

    def recorded(file, span):
        opened.setdefault(threading.get_ident(), []).append((span.start, span.stop))
        return open_span(file, span)

    monkeypatch.setattr(csv, "open_span", recorded)

    def work(shards):
        rows = ResidentRows(
            source(name="csv", path="table.csv", target="y"), dtype="float64", gaps=False, where="d", shards=shards
        )
        return opened[threading.get_ident()], rows.x[:, 0].tolist()

    (first, own), (second, others) = in_group(2, work, n_shards=2)
    assert own == list(np.arange(1000.0, 2000.0))
    assert others == list(np.arange(2000.0, 3000.0))
    middle = 4 + 10 * 1000  # bytes of the header and of the first shard
    assert max(stop for _, stop in first) <= middle + 1000  # counted, then read
    assert min(start for start, _ in second) >= middle - 1000


def test_a_bad_cell_has_the_row_of_the_file_in_each_process(monkeypatch):
    monkeypatch.setattr(csv, "SPAN_BYTES", 64)
    Path("table.csv").write_text("x,y\n" + "".join(f"{'oops' if i == 77 else i},{i}\n" for i in range(100)))
    with pytest.raises(DataError, match=r"table\.csv: row 78, column 'x'"):
        in_group(2, lambda shards: rows_of(source(name="csv", path="table.csv", target="y"), shards))


def test_a_row_that_is_not_finite_has_the_row_of_the_file(monkeypatch):
    x = np.arange(100.0)
    x[77] = np.inf
    parquet.write_table(pa.table({"x": x, "y": np.ones(100)}), "table.parquet", row_group_size=10)
    with pytest.raises(DataError, match=r"row 78, column 'x'"):
        in_group(2, lambda shards: rows_of(source(name="parquet", path="table.parquet", target="y"), shards))


def test_fewer_rows_than_shards_are_refused():
    samples = Samples(np.ones((4, 1)), np.ones((4, 1)))
    with pytest.raises(DataError, match=r"d: 4 rows for data\.shards: 5; use fewer shards"):
        StreamedRows(samples, where="d", shards=Shards(5, range(5), lambda value: [value]))


@pytest.mark.parametrize("seed", range(6))
def test_a_random_division_is_the_same_for_any_number_of_processes(seed):
    draw = np.random.default_rng(seed)
    n_rows, n_shards = int(draw.integers(60, 400)), int(draw.integers(1, 9))
    ratios = {"train_ratio": 0.7, "test_ratio": [0.0, 0.1, 0.3][seed % 3]}
    ratios["calibration_ratio"] = [0.2, 0.0, 0.0, 0.3, 0.1, 0.0][seed]
    rule = {"ratios": ratios, "seed": seed, "where": "d"}

    def parts(shards):
        cut = Cut(shards, (n_rows,))
        found = division.divide_at_random(cut, **rule)
        folds = division.fold_at_random(cut, folds=3, **rule)
        inner = division.fold_part_at_random(cut, found.train, folds=3, seed=seed, where="d")
        rows = [found.train, found.val, found.calibration, found.test, *folds.pieces, *inner.pieces]
        rows += [folds.calibration, folds.test]
        return [None if one is None else cut.all_rows(one) for one in rows]

    whole = in_group(1, parts, n_shards)[0]
    expected = divide(n_rows, **ratios, seed=seed)
    parts_of_all = [expected.train, expected.val, expected.calibration, expected.test]
    assert [rows is None for rows in whole[:4]] == [rows is None for rows in parts_of_all]
    assert sorted(np.concatenate([rows for rows in whole[:4] if rows is not None]).tolist()) == list(range(n_rows))
    for rows, of_all in zip(whole[:4], parts_of_all, strict=True):
        assert rows is None or abs(len(rows) - len(of_all)) <= n_shards
    assert len(whole[0]) == int(n_rows * 0.7)
    assert sorted(np.concatenate(whole[7:10]).tolist()) == whole[0].tolist()
    assert max(map(len, whole[4:7])) - min(map(len, whole[4:7])) <= n_shards
    assert [str(rows) for rows in whole[10:]] == [str(rows) for rows in whole[2:4]]  # as without folds
    for size in {2, n_shards} - {1}:
        if size <= n_shards:
            found = in_group(size, parts, n_shards)
            for place, expected in enumerate(whole):
                joined = [one[place] for one in found]
                assert (expected is None) == (joined[0] is None)
                assert expected is None or np.concatenate(joined).tolist() == expected.tolist()


def test_seeds_of_shards_differ_by_seed_shard_and_use():
    seeds = {division.seed_of(seed, shard, use) for seed in range(20) for shard in range(20) for use in (0, 1)}
    assert len(seeds) == 800


def test_rows_of_a_cut_have_numbers_among_all_rows_and_back():
    cut = Cut(Shards(4, range(1, 3), lambda value: [value]), (10, 7, 0))
    assert cut.own == [range(2, 7), range(1, 5), range(0)]
    assert cut.all_rows(range(cut.n_own)).tolist() == [2, 3, 4, 5, 6, 11, 12, 13, 14]
    assert cut.own_rows(np.array([14, 2, 0, 11, 16])).tolist() == [8, 0, 5]
    assert cut.numbers.tolist() == [1, 1, 1, 2, 2, 1, 1, 2, 2]


@pytest.mark.parametrize("change", ["value", "order", "signs", "category"])
def test_the_fingerprint_of_rows_with_shards_notices_changes(change):
    x, y, names = np.arange(20.0).reshape(10, 2), np.ones((10, 1)), ["a", "b"]
    categories = {"x2": names}
    x[:, 1] = np.arange(10) % 2

    def fingerprint(x, categories):
        shards = Shards(2, range(2), lambda value: [value])
        return StreamedRows(Samples(x, y, categories=categories), where="d", shards=shards).fingerprint

    other = x.copy()
    if change == "value":
        other[3, 0] = np.nextafter(other[3, 0], 9)
    elif change == "order":
        other[[2, 4]] = other[[4, 2]]
    elif change == "signs":
        x, other, categories = np.c_[x, x + 1], np.c_[x, x + 1], {}
        other[5] *= -1
    else:
        other[:, 1] = 1 - other[:, 1]
    assert fingerprint(x, categories) != fingerprint(other, categories)
    if change == "category":  # other codes of the same names
        assert fingerprint(x, categories) == fingerprint(other, {"x2": ["b", "a"]})
