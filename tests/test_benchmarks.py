"""The benchmarks say what was measured, and what was not."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

import benchmarks.__main__
from benchmarks import choosing, exchange, gpu, page, peers, processes, saving, steps, sweeps
from benchmarks.rows import ROOT, Row, compare, figures, in_turn, quantity, reason, table, time_process, timed, verdict
from linreg.experiment.building import build
from linreg.experiment.network import count_parameters
from linreg.spec.schema import load_spec


@pytest.mark.parametrize(
    ("better", "ours", "theirs", "target", "ratio", "said"),
    [
        ("lower", 1.0, 4.0, 0.25, 0.25, "met"),
        ("lower", 1.0, 2.0, 0.25, 0.5, "missed"),
        ("higher", 1.0, 8.0, 8.0, 8.0, "met"),
        ("higher", 4.0, 8.0, 8.0, 2.0, "missed"),
        ("higher", 4.0, 8.0, None, 2.0, ""),
        ("lower", 1.0, None, 0.25, None, "not measured"),
        ("higher", None, 1.0, None, None, "not measured"),
    ],
)
def test_a_ratio_is_held_against_its_target(better, ours, theirs, target, ratio, said):
    row = compare("a", "b", ours, theirs, target=target, better=better)
    assert (row.ratio, verdict(row)) == (ratio, said)


@pytest.mark.parametrize(
    ("value", "unit", "written"),
    [
        (12.345, "s", "12.3 s"),
        (0.9996, "s", "1000 ms"),
        (0.0123, "s", "12.3 ms"),
        (4.5678e-5, "s", "45.7 µs"),
        (1.2e-6, "s", "1.20 µs"),
        (2e-10, "s", "0.200 ns"),
        (1234.5, "MiB", "1230 MiB"),
        (0.0, "MiB", "0.0 MiB"),
        (None, "s", ""),
    ],
)
def test_a_measurement_is_written_to_three_digits(value, unit, written):
    assert quantity(value, unit) == written


def test_the_table_has_a_line_per_row_and_marks_missing_measurements():
    rows = [
        compare("help", "import torch", 0.2, 1.0, target=0.25),
        compare("epoch", "skorch", None, 2e-4, target=1.0, better="higher", note="not installed: no skorch"),
    ]
    lines = table({"start": rows[:1], "steps": rows[1:]}).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert [[cell.strip() for cell in line.strip("|").split("|")] for line in (lines[0], *lines[2:])] == [
        ["part", "linreg", "against", "ratio", "target", "", "linreg's", "the other's", "note"],
        ["start", "help", "import torch", "0.200", "≤ 0.25", "met", "200 ms", "1.00 s", ""],
        ["steps", "epoch", "skorch", "", "≥ 1x", "not measured", "", "200 µs", "not installed: no skorch"],
    ]


def test_measurements_are_taken_in_turn_and_the_median_counts():
    calls = []

    def measurement(name, values):
        values = iter(values)

        def call():
            calls.append(name)
            return next(values)

        return call

    medians = in_turn({"a": measurement("a", [9.0, 1.0, 5.0, 2.0]), "b": measurement("b", [0.0, 7.0, 8.0, 6.0])}, 3)
    assert medians == {"a": 2.0, "b": 7.0}
    assert calls == ["a", "b"] * 4


def test_a_function_that_is_timed_is_called():
    calls = []
    assert timed(lambda: calls.append(1))() >= 0
    assert calls == [1]


def test_a_process_that_ends_otherwise_than_it_should_is_not_timed():
    assert time_process(["sh", "-c", "exit 2"], code=2) > 0
    with pytest.raises(RuntimeError, match=r"sh -c echo no >&2; exit 3: exit code 3, not 0\nno"):
        time_process(["sh", "-c", "echo no >&2; exit 3"])


def test_a_program_gives_the_figures_that_it_prints(tmp_path):
    program = "import os, sys, benchmarks; print(sys.argv[1], os.environ['A'], len(os.listdir()))"
    assert figures(program, "1.5", cwd=tmp_path, env={"A": "2"}) == [1.5, 2.0, 0.0]
    with pytest.raises(RuntimeError, match="ValueError: no"):
        figures("raise ValueError('no')")


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="a peak begins anew on Linux alone")
def test_the_peak_of_memory_rises_with_allocations_and_can_be_reset():
    rises = figures("""if True:
        from benchmarks.rows import forget_peak, peak_memory
        for size in (100, 50):
            forget_peak()
            before = peak_memory()
            b"1" * (size * 2**20)
            print((peak_memory() - before) / 2**20)
    """)
    assert rises == pytest.approx([100, 50], abs=2)


@pytest.mark.parametrize(
    ("complaints", "said"),
    [
        ("Traceback:\nModuleNotFoundError: No module named 'skorch'\n", "not installed: No module named 'skorch'"),
        ("Traceback:\n  ...\nValueError: no: such\n", "failed: ValueError: no: such"),
        ("", "failed: no word"),
    ],
)
def test_a_missing_or_broken_tool_is_reported(complaints, said):
    assert reason(complaints) == said


def test_a_tool_that_cannot_be_timed_leaves_the_rows_of_the_others():
    times = {workload: dict.fromkeys(peers.PEERS, 4e-4) for workload in peers.WORKLOADS}
    times["mlp_10x32"] |= {peers.AUTO: 1e-4, peers.SKORCH: "not installed: no skorch"}
    rows = [row for row in steps.compare_steps(times) if row.name.startswith("MLP")]
    by_reference = {row.reference: row for row in rows if row.name.endswith("engine: auto")}
    assert by_reference[peers.TEXTBOOK] == Row(
        "MLP 10-32-1, batch 32, Adam; engine: auto", 4.0, 2.0, "higher", peers.TEXTBOOK, 1e-4, 4e-4
    )
    assert by_reference[peers.SKORCH].note == "not installed: no skorch"
    assert verdict(by_reference[peers.SKORCH]) == "not measured"
    drawn = steps.microseconds(steps.compare_steps(times))
    assert drawn[peers.SKORCH] == {"short_1x16": 400.0, "linear_1x16": 400.0, "linear_10x32": 400.0}
    assert drawn[peers.AUTO]["mlp_10x32"] == 100.0


def test_every_tool_is_compared_with_the_workloads_that_it_takes_and_no_others():
    compared = {(tool, workload) for workload, *tools, _ in steps.cases() for tool in tools}
    assert compared == {(name, workload) for name, peer in peers.PEERS.items() for workload in peer.workloads}


def test_a_failing_part_keeps_the_results_of_the_others(monkeypatch, capsys, tmp_path):
    def measure(runs):
        if tmp_path.joinpath("benchmarks.json").exists():
            raise RuntimeError("sh: exit code 3\nValueError: no rows")
        return [compare("help", "import torch", 0.5, 1.0)]

    monkeypatch.setattr(benchmarks.__main__, "import_module", lambda name: SimpleNamespace(measure=measure))
    benchmarks.__main__.main(["--only", "start", "tables", "--out", str(tmp_path)])
    rows = json.loads(tmp_path.joinpath("benchmarks.json").read_text())["rows"]
    assert [(row["part"], row["ratio"], row["note"]) for row in rows] == [
        ("start", 0.5, ""),
        ("tables", None, "failed: ValueError: no rows"),
    ]
    printed = capsys.readouterr()
    assert "not measured" in printed.out.splitlines()[-1]
    assert "Traceback" in printed.err


def test_the_page_keeps_handwritten_text():
    by_hand = f"# Title\n\n{page.BEGIN}old\n{page.END}\n## Why\n"
    assert page.with_measured(by_hand, "new\n") == f"# Title\n\n{page.BEGIN}new\n{page.END}\n## Why\n"
    with pytest.raises(ValueError, match="the page has no"):
        page.with_measured("# Title\n", "new\n")


def test_the_page_in_docs_can_be_written_again(pytestconfig):
    text = (pytestconfig.rootpath / "docs" / "performance.md").read_text()
    assert page.with_measured(text, "new\n").count("new\n") == 1


def test_a_linear_model_of_a_workload_has_something_to_learn():
    workload = peers.WORKLOADS["linear_10x32"]
    x, y = peers.make_data(workload)
    assert (x.shape, y.shape) == ((6400, 10), (6400, 1))
    assert x.dtype == y.dtype == "float32"


def test_the_measurement_for_a_gpu_runs_on_the_cpu_where_nothing_is_captured(monkeypatch):
    monkeypatch.setattr(gpu, "WARM_UP", 0)
    monkeypatch.setattr(gpu, "RUNS", 1)
    monkeypatch.setattr(gpu, "CASES", dict(list(gpu.CASES.items())[:2]))
    assert gpu.differing("cpu") == []
    rows = gpu.measure("cpu")
    assert [row.reference for row in rows] == ["one by one", "textbook"] * 2
    assert all(row.ratio > 0 for row in rows)


def test_the_script_for_a_gpu_notices_other_bits(monkeypatch):
    monkeypatch.setattr(gpu, "CASES", dict(list(gpu.CASES.items())[:1]))
    monkeypatch.setattr(gpu.linreg, "resume", lambda path, overrides: None)
    assert gpu.differing("cpu") == list(gpu.CASES)


def test_the_cost_of_saving_is_measured_between_epochs(monkeypatch):
    monkeypatch.setattr(saving, "WARM_UP", 0)
    (row,) = saving.measure(6, n_samples=100)
    assert row.ratio > 0


def test_a_tool_runs_workloads_until_it_fails_with_a_reason(tmp_path):
    with steps.open_peer(peers.AUTO, tmp_path) as peer:
        assert steps.ask(peer, "linear_1x16") > 0
        assert steps.ask(peer, "linear_10x32") > 0
        with pytest.raises(steps.PeerError, match="failed: KeyError: 'nonsense'"):
            steps.ask(peer, "nonsense")


def test_stacks_are_measured_against_single_runs():
    row = sweeps._epoch("stack", sweeps.MLP, 3, 100, "one order", 10.0, 1)
    assert row.ratio == pytest.approx(row.seconds / row.reference_seconds)
    assert row.seconds > 0


def test_penalties_are_measured_against_one_solution_and_scikit_learn(tmp_path):
    rows = choosing._penalties(tmp_path, 1, 200)
    assert [row.reference for row in rows[::2]] == ["one exact solution", "scikit-learn RidgeCV(cv=5)"]
    assert all(row.seconds > 0 and row.reference_seconds > 0 for row in rows)


@pytest.mark.parametrize(
    ("solver", "memory", "model"),
    [
        ("solver: exact", "mapped", "{name: linear}"),
        (processes.GRADIENT.replace("EPOCHS", "1"), "resident", "{name: mlp, hidden: [4]}"),
    ],
)
def test_the_specs_for_processes_are_valid(tmp_path, monkeypatch, solver, memory, model):
    monkeypatch.chdir(tmp_path)
    processes._write(tmp_path, 50, SOLVER=solver, MEMORY=memory, MODEL=model)
    assert load_spec("spec.yaml").data.shards == 2
    (tmp_path / "sweep.yaml").write_text(processes.SWEEP)
    assert load_spec("sweep.yaml").epochs == 100


def test_the_page_has_the_best_numbers_of_processes_by_the_model_of_cost():
    text, found = (ROOT / "docs/processes.md").read_text(), []
    units = {"ms": 1e-3, "s": 1.0, "GB/s": 1e9}
    for line in re.findall(r"^\| [\d.]+ m?s \|.*$", text, re.MULTILINE):
        step, n_parameters, rate, best, ratio = (cell.strip() for cell in line.strip("|").split("|"))
        seconds, bytes_a_second = (float(n) * units[unit] for n, unit in (step.split(), rate.split()))
        n_bytes = 4 * int(n_parameters.replace(",", ""))

        def whole(n, seconds=seconds, n_bytes=n_bytes, rate=bytes_a_second):
            return seconds / n + exchange.seconds_of_exchange(n_bytes, n, 50e-6, rate, n_shards=n)

        fastest = min(range(1, 1001), key=whole)
        found.append((abs(int(best) / fastest - 1) < 0.15, f"{seconds / whole(int(best)):.0f}x" == ratio))
    assert found == [(True, True)] * 4


@pytest.mark.parametrize("run", exchange.RUNS)
def test_the_runs_for_the_model_of_cost_are_valid(run):
    Path("spec.yaml").write_text(exchange.spec_of(run))
    experiment = build(load_spec("spec.yaml"))
    assert count_parameters(experiment.network) == run.n_parameters
    assert len(experiment.loaders.train) * run.batch_size == run.n_rows


def test_an_exchange_between_processes_is_measured():
    small, large = exchange.measured_exchanges(2)
    assert 0 < small < large
