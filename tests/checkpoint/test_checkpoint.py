"""Checkpoints: complete, self-contained, refused if damaged, and never executed."""

import copy
import dataclasses
import json
import os
import pickle
import random
import struct
import zipfile
from pathlib import Path

import pytest
import torch

from linreg import checkpoint
from linreg.checkpoint import archive
from linreg.errors import CheckpointError
from linreg.experiment.session import train
from linreg.spec.schema import spec_from_dict
from tests.conftest import differences, small_spec


@pytest.fixture
def path():
    return Path(train(spec_from_dict(small_spec(), "test")).checkpoint)


def test_a_checkpoint_has_the_textbooks_keys_and_opens_with_weights_only(path):
    content = torch.load(path, weights_only=True)
    assert content["epoch"] == 6
    assert len(content["loss"]) == len(content["val_loss"]) == 6
    assert list(content["model_state_dict"]) == ["0.weight", "0.bias"]
    assert content["optimizer_state_dict"]["param_groups"][0]["lr"] == 0.1
    assert (content["format"], content["version"]) == ("linreg", 4)


def test_a_loaded_checkpoint_equals_the_saved_one(path):
    saved = checkpoint.load(path)
    checkpoint.save(Path("again.pth"), saved)
    assert differences(saved, checkpoint.load("again.pth")) == []


def test_equal_content_gives_equal_bytes(path):
    saved = checkpoint.load(path)
    other = dataclasses.replace(copy.deepcopy(saved), spec=json.loads(json.dumps(saved.spec)))
    assert checkpoint.serialize(saved) == checkpoint.serialize(other) == path.read_bytes()


def test_a_checkpoint_too_large_for_zip_is_not_written(path, monkeypatch):
    saved, before = checkpoint.load(path), path.read_bytes()
    monkeypatch.setattr(archive, "MOST_BYTES", len(before) // 2)
    with pytest.raises(
        CheckpointError,
        match=r"^small_001: cannot write a checkpoint: at least [0-9]+ bytes, must be <= [0-9]+; train a smaller model$",
    ):
        checkpoint.save(path, saved)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "x.pth: empty; use a .pth file written by linreg train"),
        (b"nonsense", "x.pth: not a file of torch.save; use a .pth file written by linreg train"),
        (b"PK\x03\x04 and no more", "x.pth: damaged: no table of contents at its end; use another checkpoint of the run"),
        (pickle.dumps({"a": 1}), "x.pth: not a file of torch.save; use a .pth file written by linreg train"),
    ],
    ids=range(4),
)  # fmt: skip
def test_other_files_are_refused(content, message):
    Path("x.pth").write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load("x.pth")
    assert str(caught.value) == message


def test_a_missing_file_and_a_folder_are_refused():
    with pytest.raises(CheckpointError, match=r"^x.pth: no such checkpoint; linreg runs lists the existing ones$"):
        checkpoint.load("x.pth")
    Path("folder").mkdir()
    with pytest.raises(CheckpointError, match=r"^folder: a folder; use a checkpoint in it, such as folder/last.pth$"):
        checkpoint.load("folder")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.pop("format"), "a state without a spec, as in the textbook"),
        (lambda content: content.update(version=1), "version must be 4, got 1"),
        (lambda content: content.pop("spec"), "invalid checkpoint: spec is missing; use another"),
        (lambda content: content.update(more=1), "invalid checkpoint: 'more' is unknown; use another"),
        (lambda content: content.update(loss=3), "invalid checkpoint: loss is int; use another"),
    ],
    ids=range(5),
)
def test_a_checkpoint_with_missing_or_wrong_parts_is_refused(path, change, message):
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, "x.pth")
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load("x.pth")
    assert str(caught.value).startswith(f"x.pth: {message}")


class Attack:
    def __reduce__(self):
        return (os.mkdir, ("attacked",))


def test_opening_a_file_never_runs_code_from_it():
    torch.save({"format": "linreg", "spec": Attack()}, "x.pth")
    with pytest.raises(CheckpointError, match=r"^x.pth: holds more than plain values and tensors"):
        checkpoint.load("x.pth")
    assert not Path("attacked").exists()


def test_a_damaged_file_never_loads_with_other_values(path):
    whole, saved = path.read_bytes(), checkpoint.load(path)
    rng, silent = random.Random(0), []
    for trial in range(150):
        damaged = bytearray(whole)
        kind = trial % 3
        if kind == 0:
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del damaged[rng.randrange(len(damaged)) :]
        else:
            start = rng.randrange(len(damaged))
            damaged[start : start + 64] = bytes(min(64, len(damaged) - start))
        Path("x.pth").write_bytes(damaged)
        try:
            loaded = checkpoint.load("x.pth")
        except CheckpointError as error:
            assert "weights_only" not in str(error)
        else:
            silent += differences(saved, loaded)
    assert silent == []


def test_a_wrong_checksum_is_reported(path):
    with zipfile.ZipFile(path) as archive:
        info = next(info for info in archive.infolist() if info.filename.endswith("data/0"))
    content = bytearray(path.read_bytes())
    name_and_extra = sum(struct.unpack_from("<HH", content, info.header_offset + 26))
    content[info.header_offset + 30 + name_and_extra] ^= 1
    Path("x.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"^x.pth: damaged: wrong checksum of data/0; use another"):
        checkpoint.load("x.pth")
