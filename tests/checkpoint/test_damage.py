"""Damage: whatever happens to a checkpoint's bytes, it is refused in a line, or opens to what was saved."""

import os
from pathlib import Path

import pytest

from linreg import checkpoint
from tests.faults import damage

NUMBER = 500


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    here = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("samples"))
    made = {Path(path).resolve(): content for path, content in damage.make_samples().items()}
    os.chdir(here)
    return made


def test_500_mutations_are_refused_or_open_to_what_was_saved(samples):
    counts = damage.torture(NUMBER, 1, samples)
    assert sum(counts.values()) == NUMBER
    assert {way for way, _ in counts} == {way.__name__.removeprefix("_") for way in damage.WAYS}
    assert [way for way, what in counts if what == "WRONG"] == []
    assert sum(count for (_, what), count in counts.items() if what == "refused") > 0.8 * NUMBER


def test_a_wrong_value_would_be_found(samples, monkeypatch):
    """The torture itself is tried: with a reader that believes what it reads, it tells of wrong values."""
    monkeypatch.setattr(damage, "refusal", lambda path: checkpoint.load(next(iter(samples))))
    counts = damage.torture(30, 1, samples)
    assert any(what == "WRONG" for _, what in counts)


def test_files_of_other_kinds_are_refused():
    others = damage.make_others(Path("others"))
    expected = {
        "npz": "damaged: its table of contents is not at its end", "png": "not a checkpoint", "zip": "damaged: its table of contents is not",
        "docx": "damaged: its table of contents is not at its end", "gz": "not a checkpoint", "tar": "not a checkpoint",
        "legacy": "not a checkpoint", "script": "holds 'constants.pkl', which no checkpoint has", "plain": "a PyTorch file of another kind",
        "empty": "empty", "folder": "a folder; name a checkpoint in it", "fifo": "not a regular file", "device": "not a regular file",
        "loop": "cannot be read: Too many levels of symbolic links", "missing": "no such checkpoint", "x" * 300: "cannot be read: File name too long",
        "zero\0byte": "cannot be read: embedded null byte", "under a file": "cannot be read: Not a directory",
    }  # fmt: skip
    assert set(others) == set(expected)
    for name, path in others.items():
        found = damage.refusal(path)
        assert isinstance(found, str), name
        assert found.startswith(f"{path}: {expected[name]}"), found


def test_every_command_refuses_a_damaged_checkpoint_in_a_line(linreg, samples):
    content = bytearray(next(iter(samples.values())))
    content[len(content) // 2] ^= 1
    Path("x.pth").write_bytes(content)
    for arguments in (
        ["predict", "x.pth", "--inputs", "1"],
        ["evaluate", "x.pth"],
        ["resume", "x.pth"],
        ["inspect", "x.pth"],
    ):
        answer = linreg(*arguments)
        assert (answer.code, answer.out) == (4, "")
        assert answer.err.startswith("error: x.pth: damaged: the checksum of data/")
        assert answer.err.endswith(" is wrong; use another checkpoint of the run\n")
        assert answer.err.count("\n") == 1
