"""Damage: a checkpoint with changed bytes is refused with one line, or loads with the saved values."""

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


def test_500_mutations_are_refused_or_load_the_saved_values(samples):
    counts = damage.torture(NUMBER, 1, samples)
    assert sum(counts.values()) == NUMBER
    assert {way for way, _ in counts} == {way.__name__.removeprefix("_") for way in damage.WAYS}
    assert [way for way, what in counts if what == "WRONG"] == []
    assert sum(count for (_, what), count in counts.items() if what == "refused") > 0.8 * NUMBER


def test_the_check_detects_a_wrong_value(samples, monkeypatch):
    """A negative control: with a reader without checks, the torture reports wrong values."""
    monkeypatch.setattr(damage, "refusal", lambda path: checkpoint.load(next(iter(samples))))
    counts = damage.torture(30, 1, samples)
    assert any(what == "WRONG" for _, what in counts)


def test_files_of_other_kinds_are_refused():
    others = damage.make_others(Path("others"))
    expected = {
        "npz": "damaged: no table of contents at its end", "png": "not a file of torch.save", "zip": "damaged: no table of contents at its end",
        "docx": "damaged: no table of contents at its end", "gz": "not a file of torch.save", "tar": "not a file of torch.save",
        "legacy": "not a file of torch.save", "script": "unexpected or duplicate record 'constants.pkl'", "plain": "another kind of PyTorch file",
        "empty": "empty", "folder": "a folder; use a checkpoint in it", "fifo": "not a regular file", "device": "not a regular file",
        "loop": "cannot be read: Too many levels of symbolic links", "missing": "no such checkpoint", "x" * 300: "cannot be read: File name too long",
        "zero\0byte": "cannot be read: embedded null byte", "under a file": "cannot be read: Not a directory",
    }  # fmt: skip
    assert set(others) == set(expected)
    for name, path in others.items():
        message = damage.refusal(path)
        assert isinstance(message, str), name
        assert message.startswith(f"{path}: {expected[name]}"), message


def test_every_command_refuses_a_damaged_checkpoint_with_one_line(linreg, samples):
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
        assert answer.err.startswith("error: x.pth: damaged: wrong checksum of data/")
        assert answer.err.endswith("; use another checkpoint of the run\n")
        assert answer.err.count("\n") == 1
