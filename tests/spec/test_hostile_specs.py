"""Specs, names, tables and run folders made to do harm: refused where they stand, soon, in little memory, or harmless."""

import json
import os
import pickle
import re
import struct
import time
import tracemalloc
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from linreg.data.tables.formats import csv
from linreg.errors import DataError, SpecError, UsageError
from linreg.runs import folders
from linreg.spec.document import MAX_VALUES, MOST_PROBLEMS, read_yaml, write_yaml
from linreg.spec.schema import check_spec, load_spec, spec_from_dict
from linreg.system.memory import usable_bytes
from tests.conftest import ROOT, run_with_peak, small_spec, times, write_spec

SECONDS, BYTES = 1.0, 100 * 2**20  # of the processor: 0.3 s on an idle machine, twice that beside other work
PLACED = re.compile(r"x\.yaml:[0-9]+:[0-9]+: .+")
UNPLACED = re.compile(r"x\.yaml: and (maybe more|[0-9]+ more)")  # after the last reported one


def refusal(text, overrides=()):
    """Check a spec within SECONDS and BYTES, and return its problems."""
    problems = ()
    begin = time.process_time()
    try:
        check_spec(read_yaml(text, "x.yaml"), overrides)
    except SpecError as error:
        problems = error.problems
    assert time.process_time() - begin < SECONDS
    tracemalloc.start()
    try:
        check_spec(read_yaml(text, "x.yaml"), overrides)
    except SpecError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < BYTES
    assert sum(map(len, problems)) < 50_000
    return problems


# A grammar: a valid spec, in which values, keys, lines or characters are replaced by hostile ones.

EVERYTHING = yaml.safe_load((ROOT / "configs" / "everything.yaml").read_text())
VALID = [
    {}, {"model": {"name": "mlp", "hidden": [8, 4], "dropout": 0.5}}, {"model": {"name": "polynomial", "degree": 3}},
    {"optimizer": {"name": "adam", "lr": 1}}, {"scheduler": {"name": "step", "step_size": 3}}, {"loss": {"name": "huber"}},
    {"early_stopping": {"patience": 3}}, {"checkpoint": {"every": 5, "keep": 2}}, {"clip_grad_norm": 1.0},
    {"data": {"source": {"name": "csv", "path": ["a.csv", "b.csv"], "target": "y"}, "batch_size": "full"}}, EVERYTHING,
]  # fmt: skip
HUGE = [
    "9" * 5000,
    "0x" + "f" * 5000,
    "0o" + "7" * 5000,
    "1e9999",
    "-1e9999",
    "9" * 90,
    "0x" + "f" * 90,
    ".inf",
    ".nan",
]
VALUES = [
    *HUGE, "1000000000000", "[1000000000, 1000000000]", "[70000, 70000]", f"[{'1,' * 3000}]", f"[{'a,' * 3000}]",
    "[" * 30 + "]" * 30, "{a: " * 15 + "1" + "}" * 15, "'" + "a" * 50_000 + "'", '"' + "\\x41" * 5000 + '"', '"\\ud800"',
    '"\\U00110000"', '"\\e[31m\\nerror: forged"', "../../etc", "/etc/passwd", "con", "١٢", "gооd", "*a", "&a [*a, *a]", "&a {<<: *a}",
    "!!python/object/apply:os.system ['true']", "!<x> 1", "!%zz 1", "|\n  " + "a\n  " * 500, "? [1]", "@a", "`", "%a", "'", '"', "{", "[",
    "null", "true", "no", "~", "''", "{}", "[]", "{name: mlp}", "{name: [1]}", "cuda:" + "9" * 5000,
]  # fmt: skip
LINES = [
    "<<: {a: 1}", "<<: *a", "a: &a 1", "name: again", "---", "...", "%YAML 9.9", "%YAML 1." + "9" * 5000, "%TAG ! x:", "\tname: a",
    "? {a: 1}", "? " + "k" * 20_000 + "\n: 1", "k" * 2000 + ": 1", "\n".join(f"k{n}: 1" for n in range(2000)), "a: 1\n" * 2000,
    "- &a 1\n" * 500, "'\\e[31m': 1", '"\\e[31m\\r\\n": 1', '"\\ud800": 1', "name", "a:" * 500, "[" * 5000, "{a: " * 5000,
]  # fmt: skip
CHARACTERS = [
    "\0",
    "\x1b",
    "\x85",
    "\u2028",
    "\ufeff",
    "\ud800",
    "\uffff",
    "\t",
    "\r",
    ":",
    "-",
    "#",
    "*",
    "&",
    "!",
    "|",
    "é",
]


def paths(value, path=()):
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from paths(item, (*path, key))


@st.composite
def hostile_specs(draw):
    """Draw the bytes of a spec, valid but for up to three changes."""
    value = json.loads(json.dumps(small_spec() | draw(st.sampled_from(VALID))))
    marks = {}
    for number in range(draw(st.integers(0, 3))):
        *parents, last = draw(st.sampled_from(list(paths(value))))
        target = value
        for key in parents:
            target = target[key]
        if isinstance(target, list) or draw(st.booleans()):
            target[last] = f"MARK{number}"
            marks[f"MARK{number}"] = draw(st.sampled_from(VALUES) | st.text(max_size=20).map(repr))
        else:
            key = draw(
                st.sampled_from(["", "naem", "k" * 1000, "\x1b[31m", "a.b", "<<", "1", "no"]) | st.text(max_size=9)
            )
            target[key] = target.pop(last)
    text = write_yaml(value)
    for mark, hostile in marks.items():
        text = text.replace(mark, hostile)
    if draw(st.integers(0, 3)) == 3:
        lines = text.split("\n")
        lines.insert(draw(st.integers(0, len(lines))), draw(st.sampled_from(LINES)))
        text = "\n".join(lines)
    if draw(st.integers(0, 3)) == 3:
        place = draw(st.integers(0, len(text)))
        text = text[:place] + draw(st.sampled_from(CHARACTERS)) + text[place:]
    encoding = draw(st.sampled_from(["utf-8"] * 9 + ["utf-16", "utf-8-sig", "utf-7"]))
    return text.encode(encoding, "surrogatepass" if encoding != "utf-7" else "replace")


def test_hostile_specs_are_valid_or_refused_with_their_place_soon_and_in_little_memory():
    seen = Counter()

    @settings(max_examples=times(100, 300), derandomize=True, deadline=None, database=None)
    @given(hostile_specs())
    def attack(text):
        problems = refusal(text)
        seen["refused" if problems else "valid"] += 1
        for number, problem in enumerate(problems):
            if number != MOST_PROBLEMS or not UNPLACED.fullmatch(problem):
                assert PLACED.fullmatch(problem), problem
                assert re.search(r"; |must|missing", problem), problem

    attack()
    assert sum(seen.values()) >= times(100, 300)
    assert min(seen["refused"] / 5, seen["valid"]) > times(5, 15), seen


ALIASES = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 30))


@pytest.mark.parametrize(
    ("text", "first", "number"),
    [
        (ALIASES, "1:5: the anchor &a0 is not allowed; write the value out", MOST_PROBLEMS + 1),
        (MERGES, "1:5: the anchor &a0 is not allowed; write the value out", MOST_PROBLEMS + 1),
        ("a: 1\n" * 19_000, "2:1: duplicate key 'a', first at 1:1; remove one", MOST_PROBLEMS + 1),
        ("[" + "*a," * 30_000 + "]", "1:2: the alias *a is not allowed; write the value out", MOST_PROBLEMS + 1),
        ("[" + "! 1," * 24_000 + "]", "1:2: the tag ! is not allowed; write plain values", MOST_PROBLEMS + 1),
        (f"a: &{'b' * 90_000} 1", f"1:4: the anchor &{'b' * 60}… is not allowed; write the value out", 1),
        (f"a: !{'b' * 90_000} 1", f"1:4: the tag !{'b' * 59}… is not allowed; write plain values", 1),
        ("a: !x%0Aforged 1", "1:4: the tag '!x\\nforged' is not allowed; write plain values", 1),
        ("optimizer: |\n  a\n  forged\n", "1:1: name: missing", 5),
        (f"a: !{'b' * 90_000}!c 1", "1:4: not YAML: while parsing a node, found undefined tag handle '!bbb", 1),
        (f"? {'k' * 40_000}\n: 1\n? {'k' * 40_000}\n: 1\n", f"3:3: duplicate key '{'k' * 59}…, first at 1:3; remove one", 1),
        ("[" * 99_000, "1:22: not YAML: nested deeper than 20 levels; a spec is never so deep", 1),
        ("{a: " * 24_000, "1:85: not YAML: nested deeper than 20 levels; a spec is never so deep", 1),
        ("- " * 49_000, "1:43: not YAML: nested deeper than 20 levels; a spec is never so deep", 1),
        ("[" + "1," * 49_000 + "]", "1:20000: not YAML: more than 10,000 values; a spec is a page of text", 1),
        ("".join(f"{n:x}:\n" for n in range(17_000)), "10000:6: not YAML: more than 10,000 values; a spec is a page of text", 1),
        ("a: 0x" + "f" * 90_000, "1:4: a number of 90002 digits; write at most 100", 1),
        ("a: 0o" + "7" * 90_000, "1:4: a number of 90002 digits; write at most 100", 1),
        ("a: 1" + "0" * 90_000, "1:4: a number of 90001 digits; write at most 100", 1),
        ("%YAML 1." + "9" * 5000 + "\n---\na: 1\n", "1:9: not YAML: Exceeds the limit", 1),
        ('a: 1\nb: "x\\U00110000"\n', "2:8: not YAML: chr() arg not in range(0x110000); fix it here", 1),
        ('a: "\\ud800"\n', "1:4: '\\ud800' has half of a character; write \\U and its 8 digits", 1),
        ('"\\udcff": 1\n', "1:1: '\\udcff' has half of a character; write \\U and its 8 digits", 1),
        (b"\xef\xbb\xbfa: 1\nb: \xc0\xaf\n", "2:4: byte 0xc0 is not UTF-8; save the file as UTF-8", 1),
        ("é" * 10 + "\n" + "#" * 100_000, "2:99980: larger than 100,000 bytes; a spec is a page of text", 1),
    ],
    ids=range(25),
)  # fmt: skip
def test_a_bomb_is_refused_where_it_begins(text, first, number):
    problems = refusal(text.encode() if isinstance(text, str) else text)
    assert problems[0].startswith(f"x.yaml:{first}")
    assert len(problems) == number
    assert all(problem.isprintable() for problem in problems)


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        (".".join(["a"] * 2000) + "=1", ": deeper than 20 levels; a spec is never so deep"),
        (".".join(["a"] * 21) + "=1", ": deeper than 20 levels; a spec is never so deep"),
        ("a" * 50_000 + "=1", f": {'a' * 60}…: unknown key; known: name, seed"),
        ("name=" + "a" * 50_000, "the first a letter or digit, got 'aaa"),
        ("\udcff=1", ": not KEY=VALUE; write for instance optimizer.lr=0.05"),
        ("epochs=0x" + "f" * 5000, ": a number of 5002 digits; write at most 100"),
        ("model={name: mlp, hidden: [1000000000, 1000000000]}", "model.hidden.1: must be <= 1000000, got 1000000000"),
        ("model={name: polynomial, degree: 1000000000}", "model.degree: must be <= 1000, got 1000000000"),
        ("data.source.n_samples=1000000000000", "data.source.n_samples: must be <= 1000000000, got 1000000000000"),
        ("device=cuda:" + "9" * 5000, "device: must be auto, cpu, cuda, cuda:1 or mps, got 'cuda:999"),
    ],
    ids=range(10),
)  # fmt: skip
def test_a_hostile_override_is_refused_in_a_few_words(override, problem):
    problems = refusal(write_yaml(small_spec()), [override])
    assert problems
    assert all(each.startswith("override '") and len(each) < 700 for each in problems)
    assert problem in problems[-1]


def test_thousands_of_overrides_are_soon_refused():
    assert len(refusal(write_yaml(small_spec()), [f"k{n}" for n in range(5000)])) == MOST_PROBLEMS
    long = "data.source.weight=[" + "1," * 5000 + "]"
    assert len(refusal(write_yaml(small_spec()), [long, *["data.source.weight=x"] * 500])) == 1


def test_an_override_of_a_whole_part_forgets_the_places_inside():
    document = read_yaml("a: {b: {c: 1, d: [1, 2]}, e: 2}\n", "x.yaml")
    document.override("a.b={c: 3}")
    override = "override 'a.b={c: 3}'"
    assert [document.where(path) for path in (("a", "b", "c"), ("a", "b", "d", 1), ("a", "e"))] == [
        override, override, "x.yaml:1:30",
    ]  # fmt: skip


def test_a_spec_of_as_many_values_as_may_be_is_checked():
    text = write_yaml(small_spec(data__source={"name": "linear", "weight": [1.0] * (MAX_VALUES - 50)}))
    assert refusal(text) == ()


def test_layers_that_no_memory_holds_are_refused_before_they_are_made():
    width = int((usable_bytes() / 8) ** 0.5) + 100
    spec = small_spec(model={"name": "mlp", "hidden": [width, width]})
    with pytest.raises(
        SpecError, match=r"model.hidden: needs [0-9.,]+ GB of memory, this machine has [0-9.,]+ GB; use"
    ):
        spec_from_dict(spec, "x")


def test_points_that_no_memory_holds_are_refused_before_they_are_drawn(linreg):
    n_features = usable_bytes() // (8 * 2 * 10**6) + 1000
    source = f"data.source={{name: friedman1, n_samples: 1000000, n_features: {n_features}}}"
    answer = linreg("check", write_spec(), source)
    assert answer.code == 2
    assert re.search(r"data.source: friedman1: needs [0-9.,]+ GB of memory, this machine has", answer.err)


def test_a_builder_without_enough_memory_reports_the_bytes(linreg):
    Path("p.py").write_text(
        "import torch\nfrom torch import nn\nfrom linreg import MODELS\n"
        "@MODELS.register('mine')\ndef mine(n_features, n_targets):\n    return nn.Linear(2**30, 2**30)\n"
    )
    answer = linreg("check", write_spec(), "model={name: mine}", "--plugin", "p.py")
    assert answer.code == 2
    assert re.search(r"model: mine: not enough memory: .*4611686018427387904 bytes.*; use less$", answer.err)


def test_memory_that_runs_out_is_not_reported_as_a_bug(linreg, monkeypatch):
    def check(spec):
        np.empty(2**57)

    monkeypatch.setattr("linreg.experiment.checking.check", check)
    answer = linreg("check", write_spec())
    assert answer.code == 3
    assert answer.err.startswith("error: not enough memory: Unable to allocate 1.00 EiB")


ATTACK = """
import time, sys
begin = time.process_time()
from linreg.cli.main import main
code = main(sys.argv[1:])
print(code, time.process_time() - begin, peak())
"""


@pytest.mark.parametrize("name", ["aliases", "numbers", "memory", "pipe", "zero", "sparse"])
def test_the_command_line_refuses_a_hostile_spec_soon_and_in_little_memory(name, capfd):
    spec = small_spec(model={"name": "mlp", "hidden": [10**9, 10**9]})
    texts = {"aliases": ALIASES, "numbers": f"epochs: 0x{'f' * 90_000}\n", "memory": write_yaml(spec)}
    path = Path("/dev/zero" if name == "zero" else "x.yaml")
    if name in texts:
        path.write_text(texts[name])
    elif name == "pipe":
        os.mkfifo(path)
    elif name == "sparse":
        with path.open("wb") as file:
            file.truncate(10**11)
    code, seconds, peak = run_with_peak(ATTACK, "check", str(path)).split()
    assert (int(code), float(seconds) < 2 * SECONDS, int(peak) < BYTES) == (2, True, True)


# Names


@pytest.mark.parametrize(
    "name",
    ["..", ".", ".a", "-a", "/etc", "a/b", "../a", "a/../../b", "a\\b", "a\n", "a\0b", "a\x1b[31m", "a" * 65, "é", "а", "a b", "C:a", "~", "١", ""],
)  # fmt: skip
def test_no_name_leads_out_of_the_folders(linreg, name):
    write_spec("good.yaml")
    for arguments in ([write_spec("bad.yaml", name=name)], ["good.yaml", f"--name={name}"]):
        answer = linreg("train", *arguments)
        assert answer.code == 2
        assert answer.err.count("\n") == 1
        assert "name: must be at most 64 letters" in answer.err
        assert answer.err.rstrip("\n").isprintable()
    assert sorted(path.name for path in Path().iterdir()) == ["bad.yaml", "good.yaml"]


@pytest.mark.parametrize("name", ["x\nerror: forged", "\x1b[31m", "\x9b31m", "\u202e"])
def test_no_path_moves_the_terminal_or_forges_a_line(linreg, name):
    Path(name).mkdir()
    source = json.dumps({"name": "csv", "path": f"{name}.csv", "target": "y"})
    for arguments in (["check", name], ["check", write_spec(), f"data.source={source}"], ["runs", "rm", name]):
        answer = linreg(*arguments)
        assert answer.code in (2, 3)
        assert answer.err.count("\n") == 1
        assert answer.err.rstrip("\n").isprintable()


def test_a_line_of_an_error_is_never_endless(linreg):
    answer = linreg("runs", "rm", "x" * 100_000)
    assert (answer.code, len(answer.err) < 3000) == (2, True)
    assert answer.err.endswith("x: no such run; linreg runs lists the existing ones\n")


# Run folders


@pytest.fixture
def outside(tmp_path_factory):
    folder = tmp_path_factory.mktemp("outside")
    (folder / "precious").write_text("precious")
    (folder / "run.json").write_text("{}")
    return folder


def made(name, **info):
    """Make a run, as one that was trained leaves it."""
    folder = Path("runs", name)
    folder.mkdir(parents=True)
    Path("checkpoints", name).mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"name": name, **info}))
    return folder


def test_a_run_that_is_a_link_is_neither_removed_nor_written_to(linreg, outside):
    Path("runs").mkdir()
    Path("runs/a_001").symlink_to(outside)
    answer = linreg("runs", "rm", "a_001")
    assert (answer.code, "a link, not a folder" in answer.err) == (2, True)
    with pytest.raises(UsageError, match="a link"), folders.hold("a_001", Path("runs"), Path("checkpoints")):
        pass
    assert {path.name for path in outside.iterdir()} == {"precious", "run.json"}


def test_targets_of_links_in_a_run_are_kept(linreg, outside):
    folder = made("a_001")
    (folder / "link").symlink_to(outside)
    Path("checkpoints/a_001").rmdir()
    Path("checkpoints/a_001").symlink_to(outside)
    with pytest.raises(UsageError, match="a link"), folders.hold("a_001", Path("runs"), Path("checkpoints")):
        pass
    assert linreg("runs", "rm", "a_001").code == 0
    assert {path.name for path in outside.iterdir()} == {"precious", "run.json"}
    assert [list(Path(place).iterdir()) for place in ("runs", "checkpoints")] == [[], []]


def test_a_lock_that_is_a_link_is_not_followed(linreg, outside):
    (made("a_001") / ".lock").symlink_to(outside / "new")
    assert linreg("runs", "rm", "a_001").code == 5
    assert not (outside / "new").exists()


def test_a_new_run_does_not_take_folders_that_were_put_in_its_way(outside):
    Path("runs").mkdir()
    Path("checkpoints").mkdir()
    Path("runs/a_001").symlink_to(outside)
    Path("checkpoints/a_002").symlink_to(outside / "nowhere")
    with folders.create("a", Path("runs"), Path("checkpoints")) as run:
        assert run.name == "a_003"
    assert {path.name for path in outside.iterdir()} == {"precious", "run.json"}


@pytest.mark.parametrize(
    "content",
    ["../../etc/passwd", "/etc/passwd", "..", "/", "\0", "a\0/last.pth", "\x1b[31m_001/last.pth", "a_001/../x.pth", "x" * 100_000, "a_001\n/last.pth"],
)  # fmt: skip
def test_latest_names_a_checkpoint_of_a_run_or_none(content):
    Path("checkpoints").mkdir()
    Path("checkpoints/latest").write_text(content)
    assert folders.latest_checkpoint(Path("checkpoints")) is None
    Path("checkpoints/latest").write_text("elsewhere/checkpoints/a_001/last.pth\n")
    assert folders.latest_checkpoint(Path("checkpoints")) == Path("checkpoints/a_001/last.pth")


@pytest.mark.parametrize("file", ["run.json", "metrics.jsonl", ".lock", "spec.yaml", "latest"])
@pytest.mark.parametrize("kind", ["pipe", "zero", "loop", "folder"])
def test_nothing_waits_for_a_pipe_or_a_device_in_place_of_a_file(linreg, file, kind):
    made("a_001", outcome="running")
    made("a_002")
    path = Path("checkpoints/latest") if file == "latest" else Path("runs/a_001", file)
    path.unlink(missing_ok=True)
    {
        "pipe": lambda: os.mkfifo(path),
        "zero": lambda: path.symlink_to("/dev/zero"),
        "loop": lambda: path.symlink_to(path.name),
        "folder": path.mkdir,
    }[kind]()
    answer = linreg("runs", "--json")
    assert (answer.code, json.loads(answer.out)[-1]["run"]) == (0, "a_002")
    assert linreg("runs", "compare", "a_001", "a_002").code == (2 if file == "run.json" else 0)
    assert linreg("inspect").code == 4


DEEP = "[" * 100_000


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("run.json", DEEP), ("run.json", '{"outcome": "\\u001b[31m\\nforged", "sessions": [{"started": 3}]}'), ("run.json", '{"outcome": NaN}'),
        ("run.json", '{"outcome": 1e999, "sessions": [{"started": ["x"]}]}'), ("run.json", '{"outcome": {"a": "' + "x" * 10**6 + '"}}'),
        ("run.json", '{"outcome": "\\ud800"}'), ("metrics.jsonl", DEEP), ("metrics.jsonl", '{"loss": NaN, "val_loss": 1e999}\n'),
        ("metrics.jsonl", '{"loss": "\\u001b[31m", "val_loss": {"a": 1}}\n'), ("spec.yaml", "a: .nan\nb: [.inf, 1]\n"), ("spec.yaml", '"\\e[31m": "\\e[32m"\n'),
        ("metrics.jsonl", '{"loss": 1' + "0" * 400 + "}\n"), ("results.jsonl", '{"fold": 0, "val_loss": 1e999, "loss": [1]}\n{"fold": [0]}\n'),
    ],
    ids=range(13),
)  # fmt: skip
def test_strange_values_in_the_files_of_a_run_are_shown_safely(linreg, file, content):
    folder = made("a_001", outcome="finished", sessions=[{"engine": "cv"}])
    made("a_002", outcome="finished")
    (folder / file).write_text(content)
    for arguments in (["runs"], ["runs", "compare", "a_001", "a_002"]):
        answer = linreg(*arguments)
        assert answer.code == 0, answer.err
        assert all(line.isprintable() and len(line) < 300 for line in answer.out.splitlines())
        assert "\nforged" not in answer.out
        json.loads(linreg(*arguments, "--json").out, parse_constant=pytest.fail)


# Tables


class Evil:
    def __reduce__(self):
        return (os.mkdir, ("executed",))


def npy(descr, shape, data=b""):
    header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + data


def npz(**arrays):
    with zipfile.ZipFile("x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in arrays.items():
            archive.writestr(f"{name}.npy", content)
    return Path("x.npz").read_bytes()


THREE = npy("<f8", (3,), struct.pack("<3d", 1, 2, 3))


@pytest.mark.parametrize(
    ("kind", "content", "told"),
    [
        ("npy", lambda: npy("<f8", (10**12, 2)), "mmap length is greater than file size"),
        ("npy", lambda: npy("<f8", (0, 10**9)), "array 'x' has 1,000,000,000 columns; at most 100,000 are read"),
        ("npy", lambda: npy("<f8", (2**40, 2**40)), "too big"),
        ("npy", lambda: npy("|O", (2, 2), pickle.dumps(Evil())), "Python objects in dtype; fix it, or name another file"),
        ("npy", lambda: npy("<f8", "(True, 2)", b"\0" * 16), "an integer is required; fix it"),
        ("npy", lambda: npy("<f8", "-" * 9000 + "1", b"\0" * 16), "; fix it, or name another file"),
        ("npy", lambda: npy("<f8", "(2L, (", b"\0" * 16), "; fix it, or name another file"),
        ("npy", lambda: pickle.dumps(Evil()), "; fix it, or name another file"),
        ("npz", lambda: npz(x=THREE, y=npy("|O", (3,), pickle.dumps(Evil()))), "; fix it, or name another file"),
        ("npz", lambda: npz(x=THREE, y=pickle.dumps(Evil())), "the magic string is not correct"),
        ("npz", lambda: npz(x=npy("<f8", (10**12,)), y=THREE), "array 'x.npy' has fewer than the 8,000,000,000,000 bytes of its header"),
        ("npz", lambda: npz(x=npy("<f8", (10**7,), b"\0" * 8 * 10**7), y=THREE), "the arrays differ in length: x has 10000000, y has 3"),
        ("npz", lambda: npz(x=THREE, y=THREE).replace(b"PK\1\2\x14\3\x14", b"PK\1\2\x14\3\xff"), "zip file version"),
        ("npz", lambda: npz(x=THREE, y=THREE)[:-30], "; fix it, or name another file"),
        ("parquet", lambda: b"PAR1" * 3, "; fix it, or name another file"),
        ("parquet", lambda: b"PAR1" + b"\0" * 100 + b"\x64\0\0\0PAR1", "; name another file"),
        ("csv", lambda: b"y," * 10**6 + b"y\n1", "1,000,001 columns; at most 100,000 are read"),
        ("csv", lambda: b"a" * 10**7 + b",y\n1,2\n", "the header cannot be read: more than 4,194,304 characters"),
        ("csv", lambda: b'"x,y\n' + b"1,2\n" * 10**6, "the header cannot be read: field larger than field limit"),
        ("csv", lambda: b'x,y\n1,2\n"' + b"1,2\n" * 5 * 10**6, "; fix the table"),
        ("csv", lambda: b"x\0,y\n\0,1\n", "t.csv: a NUL byte in the header; save the table as text"),
        ("csv", lambda: b'"\x1b[31m\nerror: forged",yy\n1,2\n', "has no column 'y'; did you mean 'yy'?"),
        ("csv", lambda: b"\x1b[31m,\x07\n1,2\n", "known: '\\x1b[31m', '\\x07'"),
        ("csv", lambda: b",".join(b"c%d" % n for n in range(9000)) + b"\n", "c29, and 8970 more"),
        ("csv", lambda: b'x,y\n"a\nerror: forged",2\n1,2\n', "row 1, column 'x': 'a\\nerror: forged' is not a number"),
        ("csv", lambda: "x,y\n1,2\n".encode("utf-16"), "not text in utf-8; set encoding"),
    ],
    ids=range(26),
)  # fmt: skip
def test_a_hostile_table_is_refused_in_a_line(linreg, kind, content, told):
    target = {"npy": "x1"}.get(kind, "y")
    Path(f"t.{kind}").write_bytes(content())
    begin = time.process_time()
    answer = linreg("check", write_spec(), f"data.source={{name: {kind}, path: t.{kind}, target: {target}}}")
    assert time.process_time() - begin < 10
    assert answer.code in (2, 3)
    assert told in answer.err
    assert answer.err.count("\n") == 1
    assert answer.err.rstrip("\n").isprintable()
    assert "bug" not in answer.err
    assert "its builder failed" not in answer.err
    assert not Path("executed").exists()


def test_a_compressed_header_without_an_end_is_not_read_to_it():
    reads = []

    class Endless:
        def readline(self, most):
            reads.append(most)
            return "a" * most

    with pytest.raises(csv.python_csv.Error, match="more than 4,194,304 characters"):
        list(csv._header_lines(Endless()))
    assert reads == [csv.MOST_HEADER + 1]


def test_rows_beyond_all_memory_are_refused_before_they_fill_it(linreg, monkeypatch):
    Path("t.csv").write_text("x,y\n" + "1,2\n" * 200_000)
    monkeypatch.setattr("linreg.data.resident.usable_bytes", lambda: 2**20)
    answer = linreg("check", write_spec(), "data.source={name: csv, path: t.csv, target: y}")
    assert answer.code == 3
    assert "the rows take more than the 0.00105 GB of memory; set data.memory: mapped" in answer.err
    assert answer.err.count("\n") == 1


def test_a_table_that_is_a_pipe_or_a_device_is_not_waited_for():
    os.mkfifo("t.csv")
    for path in ("t.csv", "/dev/zero"):
        with pytest.raises(DataError, match="not a regular file"):
            formats_of_one(path)


def formats_of_one(path):
    from linreg.data.tables.formats import Format
    from linreg.data.tables.paths import files_of

    return files_of(path, Format("csv"))


def test_a_spec_through_a_pipe_is_read():
    reading, writing = os.pipe()
    os.write(writing, write_yaml(small_spec()).encode())
    os.close(writing)
    assert load_spec(f"/dev/fd/{reading}").name == "small"
    os.close(reading)
