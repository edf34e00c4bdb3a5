"""Specs: what is read, and every mistake with its place, what was met and what would do."""

import math
import random

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from linreg.errors import SpecError
from linreg.spec.document import read_yaml, resolve, write_yaml
from linreg.spec.schema import ExperimentSpec, check_spec, json_schema, load_spec, spec_from_dict
from linreg.spec.sweep_block import SweepSpec
from tests.conftest import ROOT, small_spec, write_spec

GOOD = """\
name: good
epochs: 5
data:
  source: {name: linear}
model: {name: linear}
optimizer: {name: sgd, lr: 0.1}
"""


def problems(text, *overrides):
    with open("x.yaml", "wb") as file:
        file.write(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SpecError) as caught:
        load_spec("x.yaml", overrides)
    return list(caught.value.problems)


def test_defaults_are_filled_in():
    with open("x.yaml", "w") as file:
        file.write(GOOD)
    spec = load_spec("x.yaml")
    assert (spec.seed, spec.device, spec.data.batch_size, spec.data.split.train_ratio) == (42, "auto", 16, 0.8)
    assert spec.data.source.params == {"n_samples": 100, "weight": 2.0, "bias": 1.0, "noise": 0.1, "seed": 42}
    assert spec.loss.name == "mse"
    assert spec.scheduler is None


def test_every_problem_is_reported_with_its_position():
    text = """\
name: bad name!
epochs: 0
epoch: 3
data:
  source: {name: linaer}
  split: {train_ratio: 1.5}
  batchsize: 8
model: {name: mlp, hidden: [8, 0], activaton: relu}
optimizer: {name: sgd, lr: -0.1}
"""
    assert problems(text) == [
        "x.yaml:1:7: name: must be at most 64 letters, digits, `.`, `_` and `-`, the first a letter or digit, got 'bad name!'",
        "x.yaml:2:9: epochs: must be > 0, got 0",
        "x.yaml:3:1: epoch: unknown key; did you mean 'epochs'?",
        "x.yaml:5:18: data.source.name: unknown source 'linaer'; did you mean 'linear'?",
        "x.yaml:6:24: data.split.train_ratio: must be <= 1, got 1.5",
        "x.yaml:7:3: data.batchsize: unknown key; did you mean 'batch_size'?",
        "x.yaml:8:32: model.hidden.1: must be > 0, got 0",
        "x.yaml:8:36: model.activaton: unknown param of model mlp; did you mean 'activation'?",
        "x.yaml:9:28: optimizer.lr: must be > 0, got -0.1",
    ]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("epochs: 5", "epochs: 5.5", "2:9: epochs: must be a whole number, got 5.5"),
        ("epochs: 5", "epochs: '5'", "2:9: epochs: must be a whole number, got '5'; remove the quotes"),
        ("epochs: 5", "epochs: 1_000", "2:9: epochs: must be a whole number, got '1_000'; remove the underscores"),
        ("epochs: 5", "epochs: true", "2:9: epochs: must be a whole number, got true"),
        ("epochs: 5", "epochs:", "2:8: epochs: must be a whole number, got nothing"),
        ("lr: 0.1", "lr: .nan", "6:28: optimizer.lr: must be a finite number, got nan"),
        ("lr: 0.1", "lr: .inf", "6:28: optimizer.lr: must be a finite number, got inf"),
        ("lr: 0.1", "lr: 1e999", "6:28: optimizer.lr: must be a finite number, got inf"),
        ("name: good", "name: 12", "1:7: name: must be text, got 12; put it in quotes"),
        (", lr: 0.1", "", "6:12: optimizer.lr: missing; optimizer sgd needs it: number > 0"),
        ("name: sgd, ", "", "6:12: optimizer.name: missing; add it: one of sgd, adam, adamw, rmsprop, adagrad"),
        ("{name: sgd, lr: 0.1}", "sgd", "6:12: optimizer: must be a mapping such as {name: sgd}, got 'sgd'; write {name: sgd}"),
        ("name: linear}\nmodel", "name: linear, weight: [1, a]}\nmodel", "4:38: data.source.weight.1: must be a number, got 'a'"),
        ("name: linear}\nmodel", "name: linear, weight: b}\nmodel", "4:34: data.source.weight: must be a number or a list, got 'b'"),
        ("epochs: 5", "epochs: 5\nseed: -1", "3:7: seed: must be >= 0, got -1"),
        ("epochs: 5", "epochs: 5\ndevice: gpu", "3:9: device: must be auto, cpu, cuda, cuda:1 or mps, got 'gpu'; did you mean 'cpu'?"),
        ("epochs: 5", "epochs: 5\ndtype: flot32", "3:8: dtype: must be 'float32' or 'float64', got 'flot32'; did you mean 'float32'?"),
        ("source:", "batch_size: all\n  source:", "4:15: data.batch_size: must be a whole number or 'full', got 'all'"),
        ("source:", "shuffle: yes\n  source:", "4:12: data.shuffle: must be true or false, got 'yes'; write true"),
        ("epochs: 5", "epochs: 5\ncheckpoint: {keep: 3}", "3:13: checkpoint: keep needs every; add for instance every: 50"),
        ("epochs: 5", "epochs: 5\nscheduler: {name: stp}", "3:19: scheduler.name: unknown scheduler 'stp'; did you mean 'step'?"),
        ("epochs: 5", "epochs: 5\nscheduler: {name: zzz}", "3:19: scheduler.name: unknown scheduler 'zzz'; known: step, exponential, cosine, plateau, one_cycle; your own needs --plugin FILE.py"),
    ],
)  # fmt: skip
def test_a_mistake_is_explained(old, new, problem):
    assert problems(GOOD.replace(old, new)) == [f"x.yaml:{problem}"]


def test_a_missing_key_is_described():
    assert problems(GOOD.replace("epochs: 5\n", "")) == [
        "x.yaml:1:1: epochs: missing; add it: passes over the training part"
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "x.yaml:1:1: empty; a spec has at least name, epochs, data, model and optimizer"),
        ("- a\n", "x.yaml:1:1: spec: must be a mapping, got ['a']"),
        ("just text", "x.yaml:1:1: spec: must be a mapping, got 'just text'"),
        ("a: 1\na: 2\n", "x.yaml:2:1: duplicate key 'a', first at 1:1; remove one"),
        ("a: &x 1\n", "x.yaml:1:4: the anchor &x is not allowed; write the value out"),
        ("a: *x\n", "x.yaml:1:4: the alias *x is not allowed; write the value out"),
        ("a: {<<: {b: 1}}\n", "x.yaml:1:5: the merge key << is not allowed; write the keys out"),
        ("a: !!python/object:os.system 1\n", "x.yaml:1:4: the tag tag:yaml.org,2002:python/object:os.system is not allowed; write plain values"),
        ("a: 1\n---\nb: 2\n", "x.yaml:2:1: a second document; a spec is one document, remove the ---"),
        ("a: [1, 2\n", "x.yaml:1:4: not YAML: while parsing a flow sequence, expected ',' or ']', but got '<stream end>'; close the bracket"),
        ("a:\n\tb: 1\n", "x.yaml:2:1: not YAML: while scanning for the next token, found character '\\t' that cannot start any token; use spaces in place of tabs, or quote the text"),
        ("a: \x00\n", "x.yaml:1:4: the character '\\x00' is not allowed in YAML; remove it"),
        (b"a: 1\nb: \xff\n", "x.yaml:2:4: byte 0xff is not UTF-8; save the file as UTF-8"),
        ("[" * 30 + "]" * 30, "x.yaml:1:22: not YAML: nested deeper than 20 levels; a spec is never so deep"),
        ("a: " + "9" * 5000, "x.yaml:1:4: a number of 5000 digits; write at most 100"),
        ("? [a]\n: 1\n", "x.yaml:1:3: not YAML: a key must be plain text; write a name and a colon"),
        ("#" * 100_001, "x.yaml:1:100001: larger than 100,000 bytes; a spec is a page of text"),
    ],
    ids=range(17),
)  # fmt: skip
def test_a_file_that_is_not_a_spec_is_refused(text, problem):
    assert problems(text) == [problem]


def test_crlf_and_a_byte_order_mark_are_read():
    with open("x.yaml", "wb") as file:
        file.write(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert load_spec("x.yaml").name == "good"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001), ("1E5", 1e5), (".5", 0.5), ("5.", 5.0), ("-0.5e+2", -50.0), ("010", 10), ("0o17", 15), ("0x1F", 31),
        ("1:30", "1:30"), ("yes", "yes"), ("no", "no"), ("on", "on"), ("true", True), ("FALSE", False), ("~", None),
        ("2024-01-02", "2024-01-02"), ("1_000", "1_000"), ("+.INF", math.inf), ("-.inf", -math.inf), ("0b1", "0b1"),
    ],
)  # fmt: skip
def test_scalars_are_those_of_yaml_1_2(text, value):
    assert resolve(text) == value
    assert type(resolve(text)) is type(value)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["a", "b", "c", "no", "1"]), inner),
    max_leaves=10,
)  # fmt: skip


@given(plain)
def test_written_yaml_is_read_back_unchanged(value):
    text = write_yaml({"value": value})
    assert read_yaml(text, "x").value == {"value": value}


@given(plain)
def test_other_yaml_readers_read_the_same_values(value):
    assert yaml.safe_load(write_yaml({"value": value})) == {"value": value}


def test_overrides_win_over_the_file():
    spec = load_spec(
        write_spec(), ["optimizer.lr=1e-2", "epochs=50", "data.source.weight=[1, 2]", "early_stopping.patience=3"]
    )
    assert spec.optimizer.params["lr"] == 0.01
    assert spec.epochs == 50
    assert spec.data.source.params["weight"] == [1, 2]
    assert spec.early_stopping.patience == 3


def test_an_override_can_take_a_whole_part_or_take_it_away():
    path = write_spec(scheduler={"name": "exponential", "gamma": 0.9})
    assert load_spec(path, ["scheduler=null"]).scheduler is None
    assert load_spec(path, ["optimizer={name: adam, lr: 0.01}"]).optimizer.name == "adam"


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("optimizer.lr=-1", "override 'optimizer.lr=-1': optimizer.lr: must be > 0, got -1"),
        ("optimizer.lrr=1", "override 'optimizer.lrr=1': optimizer.lrr: unknown param of optimizer sgd; did you mean 'lr'?"),
        ("epoch=3", "override 'epoch=3': epoch: unknown key; did you mean 'epochs'?"),
        ("lr=0.05", "override 'lr=0.05': lr: unknown key; did you mean 'optimizer.lr'?"),
        ("epochs", "override 'epochs': not KEY=VALUE; write for instance optimizer.lr=0.05"),
        ("=3", "override '=3': not KEY=VALUE; write for instance optimizer.lr=0.05"),
        ("a..b=3", "override 'a..b=3': not KEY=VALUE; write for instance optimizer.lr=0.05"),
        ("epochs.x=3", "override 'epochs.x=3': epochs is not a mapping; set it as a whole"),
        ("epochs=[1", "override 'epochs=[1': not YAML: while parsing a flow sequence, expected ',' or ']', but got '<stream end>'; close the bracket"),
        ("optimizer=adam", "override 'optimizer=adam': optimizer: must be a mapping such as {name: sgd}, got 'adam'; write {name: adam}"),
    ],
)  # fmt: skip
def test_a_wrong_override_is_reported(override, problem):
    with pytest.raises(SpecError) as caught:
        load_spec(write_spec(), [override])
    assert list(caught.value.problems) == [problem]


def test_problems_of_the_file_and_of_overrides_come_together():
    found = problems(GOOD.replace("epochs: 5", "epochs: 0"), "seed=-1", "nonsense")
    assert [line.split(": ")[0] for line in found] == ["override 'nonsense'", "x.yaml:2:9", "override 'seed=-1'"]


def test_a_missing_file_suggests_a_near_one():
    write_spec("experiment.yaml")
    with pytest.raises(SpecError, match=r"^experimnet.yaml: no such file; did you mean 'experiment.yaml'\?$"):
        load_spec("experimnet.yaml")
    with pytest.raises(SpecError, match=r"^\.: a folder; name a YAML spec in it$"):
        load_spec(".")


def test_the_resolved_spec_is_a_spec_of_its_own():
    spec = spec_from_dict(small_spec(scheduler={"name": "one_cycle", "max_lr": 1e-5}, clip_grad_norm=1), "test")
    with open("again.yaml", "w") as file:
        file.write(spec.to_yaml())
    assert load_spec("again.yaml") == spec


def test_a_spec_is_frozen():
    spec = spec_from_dict(small_spec(), "test")
    with pytest.raises(ValueError, match="frozen"):
        spec.epochs = 3
    with pytest.raises(TypeError):
        spec.model.params["bias"] = False


def test_the_schema_names_every_key_and_component():
    schema = json_schema()
    assert set(schema["properties"]) == {*ExperimentSpec.model_fields, "sweep"}
    assert set(schema["properties"]["sweep"]["properties"]) == set(SweepSpec.model_fields)
    assert schema["additionalProperties"] is False
    names = [variant["properties"]["name"]["const"] for variant in schema["$defs"]["model"]["oneOf"]]
    assert names == ["linear", "mlp", "polynomial"]
    mlp = schema["$defs"]["model"]["oneOf"][1]
    assert mlp["required"] == ["name", "hidden"]
    assert mlp["properties"]["activation"]["default"] == "relu"
    assert mlp["additionalProperties"] is False


NONSENSE = [None, True, 0, -1, 1.5, float("inf"), "x", "", "\n", [], [1], [[1]], {}, {"a": 1}, {"name": "mlp"}, {"name": 3}, {"": 1}, 10**30, "1e3"]  # fmt: skip


def parts(value, path=()):
    """Every path in a nested value but the empty one."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from parts(item, (*path, key))


@pytest.mark.parametrize("seed", range(10))
def test_nonsense_anywhere_is_a_spec_error_with_its_place(seed):
    rng, text = random.Random(seed), (ROOT / "configs" / "everything.yaml").read_text()
    refused = 0
    for _ in range(40):
        value = yaml.safe_load(text)
        *parents, last = rng.choice(list(parts(value)))
        target = value
        for key in parents:
            target = target[key]
        target[last] = rng.choice(NONSENSE)
        try:
            check_spec(read_yaml(write_yaml(value), "x.yaml"))
        except SpecError as error:
            refused += 1
            assert all(problem.startswith("x.yaml:") for problem in error.problems)
    assert refused > 20


@pytest.mark.parametrize("seed", range(10))
def test_a_damaged_file_is_a_spec_error_or_a_spec(seed):
    rng, text = random.Random(seed), (ROOT / "configs" / "everything.yaml").read_bytes()
    refused = 0
    for _ in range(40):
        damaged = bytearray(text)
        for _ in range(rng.randint(1, 4)):
            damaged[rng.randrange(len(damaged))] = rng.choice(b"\x00\t\n :{}[]&*!|>'\"%@`-?,#\xff\xc3a1")
        try:
            check_spec(read_yaml(bytes(damaged), "x.yaml"))
        except SpecError as error:
            refused += 1
            assert all(problem.startswith("x.yaml:") for problem in error.problems)
    assert refused > 20
