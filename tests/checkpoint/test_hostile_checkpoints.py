"""Hostile checkpoints: loading any file runs, imports and writes nothing, reads no other file, and takes few resources."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from linreg import checkpoint
from linreg.checkpoint import archive, files
from linreg.components.models import MODELS
from linreg.errors import CheckpointError, DivergedError
from linreg.experiment.evaluating import evaluate
from linreg.experiment.predicting import predict
from linreg.experiment.resuming import resume
from linreg.experiment.session import train
from linreg.experiment.state import copy_of
from linreg.spec.schema import spec_from_dict
from tests.conftest import ROOT, differences, run_with_peak, small_spec
from tests.faults import hostile
from tests.faults.damage import make_others, records_of, refusal, rewritten

MLP = {"name": "mlp", "hidden": [5]}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return the bytes of a good checkpoint."""
    folder, here = tmp_path_factory.mktemp("whole"), Path.cwd()
    os.chdir(folder)
    path = train(spec_from_dict(small_spec(model=MLP, optimizer={"name": "adam", "lr": 0.01}), "test")).checkpoint
    os.chdir(here)
    return (folder / path).read_bytes()


@pytest.fixture
def path(whole):
    Path("good.pth").write_bytes(whole)
    return Path("good.pth")


def refused(content, reason):
    """Check that a file of this content is refused for this reason and nothing ran; return True."""
    Path("x.pth").write_bytes(content)
    message = refusal(Path("x.pth"))
    assert isinstance(message, str), "it was loaded"
    assert reason in message, message
    assert not Path("attacked").exists()
    return True


def changed(path, change, *, whole=True):
    """Save a checkpoint with other content and, unless whole=False, the right checksums."""
    content = torch.load(path, weights_only=True)
    change(content)
    if whole:
        content["checksums"] = files.checksums(content)
    torch.save(content, "x.pth")
    return Path("x.pth")


# -- pickles that call --------------------------------------------------------------------------------------------------


def test_pickles_that_call_something_are_refused_and_call_nothing(whole):
    payloads = list(hostile.payloads())
    assert len(payloads) > 500
    for name, payload in payloads:
        Path("x.pth").write_bytes(hostile.poisoned(whole, payload))
        message = refusal(Path("x.pth"))
        assert isinstance(message, str), name
        assert "holds more than plain values and tensors" in message, (name, message)
    assert sorted(path.name for path in Path.cwd().iterdir()) == ["x.pth"]


def test_the_generated_attacks_work(whole):
    """A negative control: Python's own unpickler runs one of them."""
    calls = dict(hostile.payloads())
    Path("x.pkl").write_bytes(b"\x80\2" + calls["reduce of os.system as value"] + b".")
    subprocess.run([sys.executable, "-c", "import pickle; pickle.load(open('x.pkl', 'rb'))"], check=True, timeout=30)
    assert Path("attacked").exists()


def test_a_rewritten_good_checkpoint_loads(whole, path):
    path.write_bytes(rewritten(records_of(whole)))
    assert isinstance(refusal(path), checkpoint.Checkpoint)
    for payload in (b"N", hostile.PLACES["deep"](b"N")):
        path.write_bytes(hostile.poisoned(whole, payload, key="nothing"))
        assert "'nothing' is unknown" in refusal(path)  # plain payloads reach the last check


AUDITED = """
import sys
from pathlib import Path
from tests.faults.damage import refusal
from linreg import checkpoint

assert not isinstance(refusal(Path("good.pth")), str)
assert isinstance(refusal(Path("bad.pth")), str)
events, watching = [], False

def hook(event, arguments):
    if watching and event not in ("object.__getattr__", "builtins.id", "sys._getframe"):
        events.append((event, *map(str, arguments[:2])))

sys.addaudithook(hook)
for path in sorted(Path("files").iterdir()):
    watching = True
    refusal(path)
    watching = False
    met = [event for event in events if event[:2] != ("open", str(path))]
    assert not met, (path, met)
    assert len(events) <= 2, events  # Python's open, and os.open in it
    events.clear()
print(len(list(Path("files").iterdir())))
"""


def test_loading_imports_executes_and_writes_nothing_and_reads_no_other_file(whole, path):
    Path("files").mkdir()
    for number, (_, payload) in enumerate(hostile.payloads()):
        Path("files", f"{number}.pth").write_bytes(hostile.poisoned(whole, payload))
    Path("files/good.pth").write_bytes(whole)
    Path("files/cut.pth").write_bytes(whole[:-100])
    shutil.copy("files/0.pth", "bad.pth")
    names = {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}"}
    run = subprocess.run(
        [sys.executable, "-c", AUDITED], capture_output=True, text=True, env={**os.environ, **names}, timeout=120
    )
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) > 500


# -- published holes, a test for each class of them -------------------------------------------------------------------


def test_cve_2025_32434_the_legacy_formats_are_refused(path):
    """torch before 2.6 ran code from files of its older formats (a tar, a bare pickle) even with weights_only=True."""
    content = torch.load(path, weights_only=True)
    torch.save(content, "x.pth", _use_new_zipfile_serialization=False)
    assert refused(Path("x.pth").read_bytes(), "not a file of torch.save")
    others = make_others(Path("others"))
    assert refused(others["tar"].read_bytes(), "not a file of torch.save")
    assert refused(others["script"].read_bytes(), "unexpected or duplicate record 'constants.pkl'")


@pytest.mark.parametrize("opcode", [b"s", b"u"])
def test_cve_2026_24747_items_are_set_only_in_dictionaries(whole, opcode):
    """torch before 2.10 set items of any value on the stack, such as a tensor, and so wrote into memory."""
    items = hostile._plain(0) + hostile._plain(1.0)
    payload = hostile.tensor() + (items + opcode if opcode == b"s" else b"(" + items + opcode)
    assert refused(hostile.poisoned(whole, payload), "two tensors share")  # all storages of the file are in use
    records = records_of(whole)
    unused = f"data/{len([name for name in records if name.startswith('data/')])}"
    payload = payload.replace(hostile._plain("0"), hostile._plain(unused.removeprefix("data/")))
    more = {**records_of(hostile.poisoned(whole, payload)), unused: bytes(4)}
    assert refused(rewritten(more), "items for a value that is not a dictionary")


@pytest.mark.parametrize("numel", [0, 2, 5, 2**20, 2**40, 2**62, 2**63])
def test_cve_2026_24747_a_storage_has_the_size_of_its_record(whole, numel):
    """torch before 2.10 also trusted the number of elements that a pickle claims for a storage."""
    records = records_of(whole)
    unused = str(len([name for name in records if name.startswith("data/")]))
    payload = hostile.tensor(
        hostile.storage(key=hostile._plain(unused), numel=hostile._plain(numel)), size=hostile._plain((numel,))
    )
    more = {**records_of(hostile.poisoned(whole, payload)), f"data/{unused}": bytes(4)}
    assert refused(rewritten(more), "a storage of another size than its record")


@pytest.mark.parametrize(
    "parts",
    [
        {"stride": (0,)}, {"stride": (2,)}, {"stride": ()}, {"size": (2,)}, {"size": (10**5, 10**5), "stride": (0, 0)}, {"size": (-1,)},
        {"size": ()}, {"size": (1, 1), "stride": (5, 1)}, {"size": (True,)}, {"size": (1,) * 9, "stride": (1,) * 9}, {"offset": 1}, {"offset": False},
        {"hooks": None}, {"hooks": {}}, {"requires_grad": True}, {"requires_grad": None}, {"size": [1]},
    ],
    ids=str,
)  # fmt: skip
def test_a_tensor_must_cover_its_storage(whole, parts):
    records = records_of(whole)
    unused = str(len([name for name in records if name.startswith("data/")]))
    pushed = {part: hostile._plain(value) for part, value in parts.items()}
    payload = hostile.tensor(hostile.storage(key=hostile._plain(unused)), **pushed)
    more = {**records_of(hostile.poisoned(whole, payload)), f"data/{unused}": bytes(4)}
    assert refused(rewritten(more), "holds more than plain values and tensors (a")  # before torch builds it


def test_items_are_appended_only_to_lists(whole):
    for payload in (b"}Na", b"}(NNe", b")Na", hostile._plain("x") + b"Na"):
        assert refused(hostile.poisoned(whole, payload), "items for a value that is not a list")


@pytest.mark.parametrize("key", ["_instantiator", "_target_", "class_path", "__class__", "init_args"])
@pytest.mark.parametrize("part", [(), ("model",), ("optimizer",), ("data", "source")])
def test_cve_2026_58659_no_name_in_a_checkpoint_is_imported(path, key, part):
    """Lightning up to 2.6.5 imported the module that `_instantiator` names, in a file that weights_only=True had passed."""
    Path("evil.py").write_text("open('attacked', 'w')")

    def change(content):
        place = content["spec"]
        for step in part:
            place = place[step]
        place[key] = "evil.run"

    bad = changed(path, change)
    for use in (lambda: predict(bad, [[0.1]]), lambda: resume(bad), lambda: evaluate(bad)):
        with pytest.raises(CheckpointError, match=f"{key}: unknown"):
            use()
    assert "evil" not in sys.modules
    assert not Path("attacked").exists()


@pytest.mark.parametrize("kind", ["model", "loss", "optimizer"])
def test_an_unregistered_component_is_refused(path, kind):
    bad = changed(path, lambda content: content["spec"][kind].update(name="os.system"))
    for use in (lambda: predict(bad, [[0.1]]), lambda: resume(bad)):
        with pytest.raises(CheckpointError, match=f"{kind}.name: unknown {kind} 'os.system'"):
            use()


def test_torch_before_2_10_is_refused(path, monkeypatch):
    monkeypatch.setattr(torch, "__version__", "2.9.1+cu128")
    assert refusal(path) == "good.pth: torch 2.9.1+cu128 cannot open checkpoints safely; install torch 2.10 or later"


# -- the zip ------------------------------------------------------------------------------------------------------------


def zipped(records, change=lambda info: None, compression=zipfile.ZIP_STORED, comment=b""):
    with zipfile.ZipFile("zipped", "w", compression) as made:
        for name, record in records:
            info = zipfile.ZipInfo(name)
            info.compress_type = compression
            change(info)
            made.writestr(info, record)
        made.comment = comment
    return Path("zipped").read_bytes()


def patched(content, what, by, last=True):
    """Replace bytes of the same length once."""
    at = content.rfind(what) if last else content.find(what)
    assert at >= 0
    return content[:at] + by + content[at + len(what) :]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_other_zips_of_the_same_records_are_refused(whole):
    records = [(f"archive/{name}", record) for name, record in records_of(whole).items()]
    for content in (
        zipped(records),
        zipped(records, compression=zipfile.ZIP_DEFLATED),
        zipped(records, compression=zipfile.ZIP_LZMA),
        zipped(records, comment=b"comment"),
        zipped([*records, records[0]]),
        zipped([("../../evil", b""), *records]),
        zipped([("/etc/evil", b""), *records]),
        whole + b"\0",
        b"\0" + whole,
        b"PK\3\4" + whole,
        whole + whole,
        whole[:-22] + b"PK\5\6" + bytes(18),
        whole[:-2] + b"\5\0hello",
        patched(whole, b"PK\6\7", b"PK\6\6"),
        patched(whole, b"PK\6\6", b"XX\6\6"),
        patched(whole, b"PK\1\2", b"PK\1\3"),
    ):
        Path("x.pth").write_bytes(content)
        assert isinstance(refusal(Path("x.pth")), str)


@pytest.mark.parametrize(
    ("offset", "value"),
    [(6, b"\x09"), (6, b"\x00"), (8, b"\x08"), (14, b"\1\2\3\4"), (18, b"\xff\xff\xff\xff"), (22, b"\1\0\0\0"), (26, b"\x7f"), (28, b"\x11"), (30, b"b")],
)  # fmt: skip
def test_a_local_header_that_differs_from_the_table_of_contents_is_refused(whole, offset, value):
    for name in ("data.pkl", "data/3", "version"):
        with zipfile.ZipFile("good.zip" if Path("good.zip").write_bytes(whole) else "") as archive_:
            at = archive_.getinfo(f"archive/{name}").header_offset + offset
        assert refused(whole[:at] + value + whole[at + len(value) :], "use another checkpoint of the run")


@pytest.mark.parametrize("offset", range(4, 46))
def test_a_field_of_the_table_of_contents_that_torch_never_writes_is_refused(whole, offset):
    """For a record marked as a folder, torch 2.13 reads nothing and returns uninitialised memory: wrong values without
    an error, or another program's secrets."""
    at = whole.rfind(b"PK\1\2") + offset
    for value in (0, 1, 0x10, 0x7F, 0xFF):
        if whole[at] != value:
            Path("x.pth").write_bytes(whole[:at] + bytes([value]) + whole[at + 1 :])
            assert isinstance(refusal(Path("x.pth")), str), value


def test_a_tensor_that_torch_reads_wrongly_is_detected(path, monkeypatch):
    torch_load = torch.load

    def load_wrongly(*arguments, **options):
        content = torch_load(*arguments, **options)
        content["model_state_dict"]["0.bias"] = torch.zeros(5)
        return content

    monkeypatch.setattr(torch, "load", load_wrongly)
    assert refusal(path) == ("good.pth: damaged: wrong checksum of a tensor; use another checkpoint of the run")


def test_a_compressed_or_encrypted_record_is_reported(whole):
    at = whole.rfind(b"PK\1\2")
    for offset in (8, 10):  # the flags, the method
        assert refused(
            whole[: at + offset] + b"\x09" + whole[at + offset + 1 :], "compressed, encrypted or stored otherwise"
        )


def test_two_records_of_one_name_are_refused(whole):
    twice = whole.replace(b"archive/data/1FB", b"archive/data/0FB").replace(
        b"archive/data/1PK\1", b"archive/data/0PK\1"
    )
    assert refused(twice, "unexpected or duplicate record 'data/0'")


def test_bytes_between_the_records_and_the_table_of_contents_are_refused(whole):
    fields = list(archive._END.unpack(whole[-archive._END.size :]))
    start, junk = fields[9], b"hidden"
    fields[9] = fields[20] = start + len(junk)
    fields[12] += len(junk)
    moved = whole[:start] + junk + whole[start : -archive._END.size] + archive._END.pack(*fields)
    assert refused(moved, "table of contents and records differ")


def test_records_that_overlap_are_refused(whole):
    """With two entries for one record, a small file would be read as a large one."""
    first = whole.find(b"PK\1\2")
    entries = re.findall(b"PK\1\2.{42}archive/[a-z0-9_./]+", whole[first:], re.DOTALL)
    end = whole[first + sum(map(len, entries)) :]
    content = whole[:first] + b"".join(entries) + entries[5]
    size, number = len(content) - first, len(entries) + 1
    fields = list(archive._END.unpack(end))
    fields[6] = fields[7] = fields[17] = fields[18] = number
    fields[8] = fields[19] = size
    fields[12] = len(content)
    assert refused(content + archive._END.pack(*fields), "table of contents and records differ")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"code/evil.py": b"x"}, "unexpected or duplicate record 'code/evil.py'"),
        ({"constants.pkl": b"\x80\2)."}, "unexpected or duplicate record 'constants.pkl'"),
        ({"data/01": b"x"}, "unexpected or duplicate record 'data/01'"),
        ({"data/../../evil": b"x"}, "unexpected or duplicate record 'data/../../evil'"),
        ({"data/\x1b[31m": b"x"}, r"unexpected or duplicate record 'data/\x1b[31m'"),
        ({"data/1000": b"x"}, "a record without a tensor"),
        ({"byteorder": b"middle"}, "unexpected content of record byteorder"),
        ({".storage_alignment": b"__import__"}, "unexpected content of record .storage_alignment"),
        ({"data.pkl": None}, "a zip file without data.pkl"),
        ({"data.pkl": b""}, "unexpected pickle protocol"),
        ({"data.pkl": b"\x80\2}"}, "truncated or invalid pickle"),
        ({"data.pkl": b"\x80\4}."}, "unexpected pickle protocol"),
        ({"data.pkl": b"}."}, "unexpected pickle protocol"),
        ({"data.pkl": b"\x80\2]."}, "pickle is not a single dictionary"),
        ({"data.pkl": b"\x80\2(X\4\0\0\0dictt."}, "pickle is not a single dictionary"),
        ({"data.pkl": b"\x80\2}.\x80\2}."}, "pickle is not a single dictionary"),
        ({"data.pkl": b"\x80\2}(."}, "pickle is not a single dictionary"),
        ({"data.pkl": b"\x80\2}h\7."}, "truncated or invalid pickle"),
        ({"data.pkl": b"\x80\2}q\7."}, "memo out of order"),
        ({"data.pkl": b"\x80\2}X\xff\xff\xff\x7fa."}, "truncated or invalid pickle"),
        ({"data.pkl": b"\x80\2}X\1\0\0\0\xff."}, "truncated or invalid pickle"),
        ({"data.pkl": b"\x80\2}\x8a\xff" + b"\x7f" * 255 + b"Ns."}, "an integer of more than 64 bits"),
        ({"data.pkl": b"\x80\2}" + b"(" * 3_000_000}, "values nested too deeply"),
        ({"data.pkl": b"\x80\2}" + b"]" * 3_000_000}, "more values than a checkpoint can have"),
    ],
    ids=range(24),
)  # fmt: skip
def test_unexpected_or_invalid_records_are_refused(whole, change, what):
    records = {name: record for name, record in {**records_of(whole), **change}.items() if record is not None}
    assert refused(rewritten(records), what)


# -- values and tensors -------------------------------------------------------------------------------------------------


def cyclic(kind):
    made = kind()
    made.append(made) if kind is list else made.update(a=made)
    return made


def laughing(depth):
    made = [1, 2, 3]
    for _ in range(depth):
        made = [made] * 10
    return made


class Tensor(torch.Tensor):
    pass


BASE = torch.arange(12.0)
with warnings.catch_warnings(action="ignore"):
    CSR, QUANTIZED = torch.eye(3).to_sparse_csr(), torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)
VALUES = {
    "set": {1}, "bytes": b"x", "bytearray": bytearray(3), "complex": 1j, "dtype": torch.float32, "size": torch.Size([1]),
    "device": torch.device("cpu"), "numpy": np.float64(1.0), "array": np.ones(3), "ordered": OrderedDict(a=1),
    "large": 2**64, "larger": 2**1000, "cycle": cyclic(list), "cycle of a dictionary": cyclic(dict), "laughs": laughing(5),
    "inf": float("inf"), "nan": float("nan"), "tuple key": {(1, 2): 3}, "none key": {None: 3}, "float key": {1.5: 3},
    "nested": laughing(0) and eval("[" * 40 + "]" * 40), "surrogate": "\ud800",
    "view": BASE[:3], "strided": BASE.view(3, 4).t(), "stride 0": torch.zeros(1).expand(10**5, 10**5), "offset": BASE[3:],
    "parameter": torch.nn.Parameter(torch.ones(3)), "grad": torch.ones(3, requires_grad=True), "sparse": torch.eye(3).to_sparse(),
    "csr": CSR, "meta": torch.empty(10**9, device="meta"), "not finite": torch.tensor([1.0, float("nan")]),
    "infinite": torch.tensor([float("-inf"), 1.0]), "complex tensor": torch.ones(2, dtype=torch.complex64),
    "quantized": QUANTIZED, "subclass": torch.ones(3).as_subclass(Tensor),
    "shared": [BASE, BASE.view(3, 4)], "twice": [torch.ones(3)] * 2, "uint32": torch.ones(3, dtype=torch.uint32),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("key", ["fit", "environment", "model_state_dict"])
def test_a_value_of_another_kind_is_refused(path, name, key):
    is_endless = name in ("cycle", "cycle of a dictionary", "laughs")
    has_no_checksum = name in ("stride 0", "sparse", "csr", "meta", "quantized", "strided")  # without a checksum
    bad = changed(
        path, lambda content: content.update({key: {"a": VALUES[name]}}), whole=not is_endless and not has_no_checksum
    )
    message = refusal(bad)
    assert isinstance(message, str)
    assert "damaged" not in message


def test_a_part_of_a_tensor_is_refused_as_a_value(whole):
    """torch.save writes a class, hooks and a storage only as parts of a tensor."""
    records = records_of(whole)
    unused = str(len([name for name in records if name.startswith("data/")]))
    storage = hostile.storage(key=hostile._plain(unused))
    for payload, kind in (
        (hostile._STORAGE, "StorageType"),
        (hostile._NO_HOOKS, "OrderedDict"),
        (storage, "TypedStorage"),
    ):
        more = records_of(hostile.poisoned(whole, payload)) | (
            {f"data/{unused}": bytes(4)} if payload is storage else {}
        )
        assert refused(rewritten(more), f"'fit' holds {kind}; use a checkpoint written by linreg train")


@pytest.mark.filterwarnings("ignore")
def test_a_value_of_another_kind_is_not_saved(path):
    saved = checkpoint.load(path)
    for name, value in VALUES.items():
        if name in ("cycle", "cycle of a dictionary", "stride 0"):
            continue  # no training state has them; stride 0 would take 40 GB
        saved.optimizer_state_dict = {"a": [value]}
        try:
            checkpoint.save(Path("x.pth"), saved)
        except (CheckpointError, DivergedError) as error:
            place = r"optimizer_state_dict\.a\.0"
            assert re.match(
                rf"small_001: cannot write a checkpoint: {place}.* must be a plain value or a dense tensor, got |{place} is no longer finite",
                str(error),
            )
            continue
        assert name in {"inf", "nan", "surrogate", "nested", "laughs"} or isinstance(value, torch.Tensor | list)


@pytest.mark.parametrize(
    "change",
    [
        {"run": {"name": "../../etc", "id": "x"}}, {"run": {"name": "a/b", "id": "x"}}, {"run": {"name": "", "id": "x"}},
        {"run": {"name": "x\x1b[31m", "id": "x"}}, {"outcome": "\x1b[31m"}, {"epoch": True}, {"epoch": -1},
        {"planned_epochs": 0}, {"resumed_at": [-1]}, {"resumed_at": ["x"]}, {"resumed_at": [7]}, {"n_targets": 0},
        {"loss": [1] * 6}, {"loss": [True] * 6}, {"val_loss": ["a"] * 6}, {"position": [None]}, {"target_names": [3]},
        {"rng_state": torch.ones(3)}, {"loader_state": torch.ones(2, 2, dtype=torch.uint8)}, {"best": []},
        {"preprocessing": {}}, {"preprocessing": {"features": [], "missing": "error", "unseen": "error"}}, {"checksums": []},
        {"format": "other"}, {"version": 4.0}, {"version": "\x1b[31m"}, {"\x1b[31m": 1}, {"fit": {}},
    ],
    ids=str,
)  # fmt: skip
def test_impossible_parts_are_refused(path, change):
    content = torch.load(path, weights_only=True)
    torch.save({**content, **change}, "x.pth")
    assert isinstance(refusal(Path("x.pth")), str)


@pytest.mark.parametrize("position", [-1, 625, 2**31, 2**62])
def test_a_position_outside_a_generators_numbers_is_refused(path, position):
    """NumPy accepts any position and reads memory there."""
    bad = changed(path, lambda content: content["numpy_rng_state"]["state"].update(pos=position))
    assert refusal(bad) == "x.pth: invalid checkpoint: invalid state of a generator; use another"


def test_the_parts_of_best_and_fit_are_checked(path):
    def drop(part, *keys):
        def change(content):
            place = content
            for key in (part, *keys[:-1]):
                place = place[key]
            del place[keys[-1]]

        return change

    linear = train(spec_from_dict(small_spec(), "test")).checkpoint
    fit = torch.load(linear, weights_only=True)["fit"]
    for key in set(fit) - {"r2_uncentred", "relations", "targets", "penalty", "log_weights"}:  # which older files lack
        assert f"fit.{key} is missing" in refusal(changed(linear, drop("fit", key)))
        if isinstance(fit[key], torch.Tensor):
            assert "fit does not match" in refusal(
                changed(linear, lambda c, k=key: c["fit"].update({k: torch.ones(7, 7)}))
            )
    wrong = {"layer": "a", "names": [1], "groups": [[99]], "r2": [1, 2], "r2_uncentred": [1], "relations": [[1.0]],
             "left_out": ["a"] * 9, "degrees_of_freedom": 0, "residual_variance": torch.tensor([-1.0], dtype=torch.float64)}  # fmt: skip
    for key, value in wrong.items():
        assert "fit does not match" in refusal(changed(linear, lambda c, k=key, w=value: c["fit"].update({k: w})))
    for penalty, problem in (({"name": "ridge"}, "fit.penalty.error is missing"), ([], "fit.penalty is list")):
        assert problem in refusal(changed(linear, lambda c, p=penalty: c["fit"].update(penalty=p)))
    for key in ("epoch", "states", "spec"):
        assert f"best.{key} is missing" in refusal(changed(path, drop("best", key)))
    assert "best.states.rng_state is missing" in refusal(changed(path, drop("best", "states", "rng_state")))
    assert "best has the state of another model" in refusal(
        changed(path, drop("best", "states", "model_state_dict", "0.bias"))
    )
    assert "best.epoch is 6" in refusal(changed(path, lambda content: content["best"].update(epoch=6)))


# -- states that do not match what the spec builds ------------------------------------------------------------------


def use_all(bad):
    for use in (lambda: predict(bad, [[0.1]]), lambda: resume(bad), lambda: evaluate(bad)):
        with pytest.raises(CheckpointError) as caught:
            use()
        assert str(caught.value).startswith("x.pth")
        assert not {"Traceback", "weights_only", "size mismatch"} & set(str(caught.value).split())
        yield str(caught.value)


@pytest.mark.parametrize(
    "hidden", [[10**5, 10**5], [10**9, 10**10], [10**14, 10**14], [2**63], [6], [5, 5], [1] * 10**5], ids=range(7)
)
def test_a_model_of_another_size_is_refused_before_it_takes_memory(path, hidden):
    bad = changed(path, lambda content: content["spec"]["model"].update(hidden=hidden))
    begin = time.process_time()
    assert len(list(use_all(bad))) == 3
    assert time.process_time() - begin < 3


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.pop("0.bias"),
        lambda model: model.update(more=torch.ones(3)),
        lambda model: model.update({"0.bias": torch.ones(1)}),
        lambda model: model.update({"0.bias": torch.ones(5, dtype=torch.float64)}),
        lambda model: model.update({"0.bias": torch.ones(5, dtype=torch.int64)}),
        lambda model: model.update({"0.bias\x1b[31m": model.pop("0.bias")}),
    ],
    ids=range(6),
)
def test_a_state_of_another_model_is_refused(path, change):
    def both(content):
        change(content["model_state_dict"])
        change(content["best"]["states"]["model_state_dict"])

    for text in use_all(changed(path, both)):
        assert "does not fit what its spec builds" in text
        assert text.isprintable()


@pytest.mark.parametrize("change", [lambda state: state.pop("bias"), lambda state: state.update(more=torch.ones(1))])
def test_a_plugins_model_refuses_the_state_of_another_model(change):
    """A model that cannot be built on the meta device is checked when its state is loaded."""

    @MODELS.register("weighed")
    def weighed(n_features: int, n_targets: int) -> torch.nn.Module:
        layer = torch.nn.Linear(n_features, n_targets)
        assert layer.weight.sum().item() < 100
        return layer

    def both(content):
        change(content["model_state_dict"])
        change(content["best"]["states"]["model_state_dict"])

    good = train(spec_from_dict(small_spec(model={"name": "weighed"}), "test")).checkpoint
    for text in use_all(changed(good, both)):
        assert text.startswith("x.pth: does not fit ")


def group(**changes):
    return lambda state: state["param_groups"][0].update(changes)


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state["state"][0].pop("exp_avg"),
        lambda state: state["state"][0].update(exp_avg=torch.ones(1)),
        lambda state: state["state"][0].update(exp_avg=torch.ones(5, 1, dtype=torch.int64)),
        lambda state: state["state"][0].update(more=torch.ones(3)),
        lambda state: state["state"][0].update(step=3),
        lambda state: state["state"][0].update(step=torch.ones(3)),
        lambda state: state["state"].update({9: {}}),
        lambda state: state["state"].update({"a": {}}),
        lambda state: state["state"].update({0: []}),
        lambda state: state.update(state=[]),
        lambda state: state.pop("state"),
        lambda state: state.update(more=1),
        lambda state: state.update(param_groups=[]),
        lambda state: state["param_groups"].append({}),
        group(lr="a"), group(lr=float("nan")), group(lr=torch.tensor(0.1)), group(betas=[0.9, 0.999]), group(betas=(0.9,)),
        group(amsgrad=True), group(fused=True), group(foreach=True), group(params=[0]), group(params=[3, 2, 1, 0]), group(more=1),
        group(eps=None), group(maximize=1),
    ],
    ids=range(27),
)  # fmt: skip
def test_a_mismatched_optimizer_state_is_refused(path, change):
    bad = changed(path, lambda content: change(content["optimizer_state_dict"]))
    with pytest.raises(CheckpointError, match=r"^x.pth: does not fit what its spec builds: the optimizer's "):
        resume(bad)
    assert len(predict(bad, [[0.1]]).predictions) == 1  # prediction does not need it


@pytest.mark.parametrize("name", ["step", "exponential", "cosine", "plateau", "one_cycle"])
def test_a_mismatched_scheduler_state_is_refused(name):
    params = {
        "step": {"step_size": 2},
        "exponential": {"gamma": 0.9},
        "cosine": {"t_max": 9},
        "plateau": {},
        "one_cycle": {"max_lr": 0.1},
    }
    path = train(spec_from_dict(small_spec(scheduler={"name": name, **params[name]}), "test")).checkpoint
    changes = [
        lambda state: state.update(step=1), lambda state: state.update(optimizer=None), lambda state: state.pop("last_epoch"),
        lambda state: state.update(last_epoch="a"), lambda state: state.update(last_epoch=float("inf")),
    ]  # fmt: skip
    for change in changes:
        bad = changed(path, lambda content, change=change: change(content["scheduler_state_dict"]))
        with pytest.raises(CheckpointError, match=r"^x.pth: does not fit what its spec builds: the scheduler's "):
            resume(bad)
    with pytest.raises(CheckpointError, match="it has no state of a scheduler"):
        resume(changed(path, lambda content: content.update(scheduler_state_dict=None)))
    resume(path)


def test_predict_and_inspect_read_only_the_checkpoint(path, linreg):
    """Only resume and evaluate read the table of a spec."""

    def change(content):
        content["spec"]["data"]["source"] = {"name": "csv", "path": "/etc/passwd", "target": "y"}

    bad = changed(path, change)
    opened = []
    sys.addaudithook(lambda event, arguments: opened.append(arguments[0]) if event == "open" else None)
    for arguments in (["predict", bad, "--inputs", "0.1"], ["inspect", bad], ["inspect", bad, "--json"]):
        assert linreg(*arguments).code == 0
    assert "/etc/passwd" not in map(str, opened)
    assert "x.pth" in map(str, opened)


def test_control_characters_in_a_checkpoint_are_not_printed(path, linreg):
    evil = "\x1b[31mred\x07\x9b2J\u202e"

    def change(content):
        content["feature_names"] = [evil]
        content["preprocessing"]["features"][0]["name"] = evil
        content["target_names"] = [evil]
        content["environment"] = {evil: evil, "torch": evil}
        content["data_fingerprint"] = content["data_fingerprint"]
        content["run"]["id"] = evil

    bad = changed(path, change)
    for arguments in (
        ["predict", bad, "--inputs", "0.1"], ["predict", bad, "--inputs", "x=1"], ["predict", bad, "--inputs", "99"], ["evaluate", bad],
        ["inspect", bad], ["inspect", bad, "--json"], ["resume", bad, "epochs=7"], ["predict", bad, "--inputs", "1", "--json"],
    ):  # fmt: skip
        answer = linreg(*arguments)
        assert answer.code in (0, 2, 3)
        assert not set("\x1b\x07\x9b") & set(answer.out + answer.err), arguments
    assert json.loads(linreg("inspect", bad, "--json").out)["features"] == [evil]


# -- time and memory ----------------------------------------------------------------------------------------------------

MEASURED = """
import sys, time
from pathlib import Path
from linreg import checkpoint
from linreg.errors import CheckpointError

for path in sys.argv[1:]:
    before = peak()
    begin = time.process_time()
    try:
        checkpoint.load(path)
        what = "opened"
    except CheckpointError:
        what = "refused"
    print(what, time.process_time() - begin, peak() - before)
"""


def test_bombs_are_refused_at_once(whole, path):
    """Without the checks, these small files would fill the memory or take forever."""
    records = records_of(whole)
    bombs = {
        "deflated": zipped([(f"archive/{name}", record) for name, record in records.items()] + [("archive/data/99", bytes(2**28))], compression=zipfile.ZIP_DEFLATED),
        "bytearray": hostile.poisoned(whole, hostile.OPCODES["reduce"]("builtins", "bytearray", (2**30,))),
        "claimed": hostile.poisoned(whole, hostile.tensor(hostile.storage(numel=hostile._plain(2**40)))),
        "stride 0": changed(path, lambda content: content.update(fit={"a": torch.zeros(1).expand(10**5, 10**5)}), whole=False).read_bytes(),
        "laughs": changed(path, lambda content: content.update(fit={"a": laughing(30)}), whole=False).read_bytes(),
        "key": hostile.poisoned(whole, b"}" + b"N\x85" + b"2\x86" * 60 + b"Ns"),
        "lists": rewritten({**records, "data.pkl": b"\x80\2}" + b"]" * 2_000_000 + b"."}),
        "tuples": rewritten({**records, "data.pkl": b"\x80\2}" + b"N" + b"\x85" * 2_000_000 + b"."}),
        "hidden": changed(path, lambda content: content["spec"]["model"].update(hidden=[10**5, 10**5])).read_bytes(),
    }  # fmt: skip
    names = []
    for name, content in bombs.items():
        names.append(f"{name.replace(' ', '_')}.pth")
        Path(names[-1]).write_bytes(content)
    with Path("holes.pth").open("wb") as sparse:
        sparse.write(b"PK\3\4")
        sparse.truncate(2**31)
    with Path("huge.pth").open("wb") as sparse:
        sparse.write(b"PK\3\4")
        sparse.truncate(2**40)
    assert "1099511627776 bytes, must be <= 4294967295" in refusal(Path("huge.pth"))
    lines = run_with_peak(MEASURED, "good.pth", *names, "holes.pth", "huge.pth").splitlines()
    for name, line in zip(["good.pth", *names, "holes.pth", "huge.pth"], lines, strict=True):
        what, seconds, used = line.split()
        assert what == ("opened" if name in ("good.pth", "hidden.pth") else "refused"), name
        assert float(seconds) < 3, (name, seconds)  # of the processor: other load does not count
        assert int(used) < 200e6, (name, used)


def test_loading_takes_at_most_twice_the_file_and_200_mb(path):
    saved = checkpoint.load(path)
    saved.model_state_dict = {"0.weight": torch.zeros(5000, 5000)}
    saved.optimizer_state_dict, saved.best = {}, None
    checkpoint.save(Path("large.pth"), saved)
    del saved
    size = Path("large.pth").stat().st_size
    content = bytearray(Path("large.pth").read_bytes())
    content[size // 2] ^= 1
    Path("damaged.pth").write_bytes(content)
    good, *others = run_with_peak(MEASURED, "good.pth", "damaged.pth", "large.pth").splitlines()
    assert good.split()[0] == "opened"
    assert [line.split()[0] for line in others] == ["refused", "opened"]
    assert sum(int(line.split()[2]) for line in others) < 2 * size + 200e6


# -- good checkpoints --------------------------------------------------------------------------------------------


def test_shared_and_strided_tensors_are_saved_separately(path):
    saved, base = checkpoint.load(path), torch.arange(12.0)
    saved.optimizer_state_dict = {
        "whole": base, "reshaped": base.view(3, 4), "view": base[:3], "again": base[:3], "transposed": base.view(3, 4).t(), "wide": torch.zeros(1).expand(5),
        "parameter": torch.nn.Parameter(torch.ones(2)), "empty": torch.zeros(0), "none": torch.zeros(0, 4), "one": torch.tensor(1.5),
        "half": torch.ones(2, dtype=torch.bfloat16), "flags": torch.tensor([True, False]), "large": 2**63, "small": -(2**63), "tuple": (0.5, None, True),
    }  # fmt: skip
    checkpoint.save(Path("x.pth"), saved)
    loaded = checkpoint.load("x.pth")
    states, saved.optimizer_state_dict = saved.optimizer_state_dict, loaded.optimizer_state_dict
    assert differences(saved, loaded) == []
    assert list(loaded.optimizer_state_dict) == list(states)
    for key, value in states.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(loaded.optimizer_state_dict[key], value)
            assert loaded.optimizer_state_dict[key].is_contiguous()
        else:
            assert loaded.optimizer_state_dict[key] == value
    assert torch.equal(base, torch.arange(12.0))


@pytest.mark.parametrize("value", [np.float64(0.5), torch.ones(2), b"a", {1, 2}, OrderedDict(a=1)])
def test_a_history_with_a_value_of_another_kind_is_not_saved(path, value):
    """Such as a NumPy loss from a custom loop, which resume would refuse."""
    saved, before = checkpoint.load(path), path.read_bytes()
    saved.loss[3] = value
    with pytest.raises(
        CheckpointError,
        match=r"^small_001: cannot write a checkpoint: (a value|loss.3) must be a plain value or a dense tensor, got ",
    ):
        checkpoint.save(path, saved)
    assert path.read_bytes() == before


@pytest.mark.parametrize("n", [5, 2**16])
def test_saving_a_non_finite_state_is_refused(path, n):
    saved, before = checkpoint.load(path), path.read_bytes()
    saved.optimizer_state_dict["state"][0]["exp_avg_sq"] = torch.full((n, 1), float("inf"))
    with pytest.raises(DivergedError, match="optimizer_state_dict.state.0.exp_avg_sq is no longer finite"):
        checkpoint.save(path, saved)
    assert path.read_bytes() == before


def test_a_copy_written_by_torch_loads(path):
    torch.save(torch.load(path, weights_only=True), "my model (copy).pth")
    assert differences(checkpoint.load(path), checkpoint.load("my model (copy).pth")) == []


def test_best_is_written_once_if_it_is_the_current_state(path):
    saved = checkpoint.load(path)
    saved = type(saved)(**{**vars(saved), **saved.best["states"]})
    checkpoint.save(Path("best.pth"), saved)
    apart = {**saved.best, "states": copy_of(saved.best["states"])}
    checkpoint.save(Path("twice.pth"), type(saved)(**{**vars(saved), "best": apart}))
    assert Path("best.pth").stat().st_size < 0.7 * Path("twice.pth").stat().st_size
    assert differences(saved, checkpoint.load("best.pth")) == []
