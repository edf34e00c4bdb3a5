"""Event files are those of TensorBoard, and a reader sees what is at most a second old."""

import json
import time
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from torch import nn

import linreg as package
from linreg.errors import StorageError
from linreg.runs import events, writer
from linreg.runs.events import EventFile
from linreg.runs.writer import EpochRecord, open_writer
from linreg.spec.schema import load_spec
from tests.conftest import series, write_spec


def content(folder):
    (file,) = Path(folder).glob("events.out.tfevents.*")
    data = file.read_bytes()
    return data[16 + int.from_bytes(data[:8], "little") :]  # below the version, which names its writer


def test_a_file_has_the_bytes_of_tensorboards_own_writer(monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1.5)
    theirs, ours = EventFileWriter("theirs"), EventFile(Path("ours"))
    for step, value in enumerate([0.25, 1e-30, -3.0]):
        summary = Summary(value=[Summary.Value(tag="loss", simple_value=value)])
        theirs.add_event(Event(wall_time=7.0 + step, step=step, summary=summary))
        ours.add_scalar("loss", value, step, 7.0 + step)
    theirs.close()
    ours.close()
    assert content("ours") == content("theirs") != b""
    assert [event.step for event in LegacyEventFileLoader(str(next(Path("ours").iterdir()))).Load()] == [0, 0, 1, 2]


def test_checksums_are_those_that_tensorboard_computes():
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    for data in (b"", b"a", bytes(range(256)) * 3):
        assert events._masked_checksum(data) == masked_crc32c(data).to_bytes(4, "little")


def records(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_records_wait_for_half_a_second_and_are_written_at_once(tmp_path, monkeypatch):
    now = 100.0
    monkeypatch.setattr(writer.time, "monotonic", lambda: now)
    model = nn.Linear(1, 1)
    with open_writer(tmp_path) as board:
        board.write(EpochRecord(0, 1.0, 2.0, 0.1), model)
        now += 0.4
        board.write(EpochRecord(1, 0.5, 1.5, 0.1), model)
        board.flush_if_due()
        assert records(tmp_path) == []
        now += 0.2
        board.flush_if_due()
        assert [record["loss"] for record in records(tmp_path)] == [1.0, 0.5]
        (scalars,) = (tmp_path / "loss_training").iterdir()
        assert len(list(LegacyEventFileLoader(str(scalars)).Load())) == 3  # the version, and two epochs
        board.write(EpochRecord(2, 0.25, 1.0, 0.1), model)
    assert len(records(tmp_path)) == 3
    assert len(list(LegacyEventFileLoader(str(scalars)).Load())) == 4


def test_what_a_reader_sees_while_a_run_trains_is_at_most_a_second_old(monkeypatch):
    now, seen, ages = 0.0, [], []
    monkeypatch.setattr(time, "monotonic", lambda: now)

    def look(record, experiment):
        nonlocal now
        lines = Path("runs/small_001/metrics.jsonl").read_text().splitlines()
        seen.append((now, record.epoch))
        last = json.loads(lines[-1])["epoch"] if lines else -1
        unseen = [at for at, epoch in seen if epoch > last]
        ages.append(now - unseen[0] if unseen else 0.0)
        now += 0.02  # an epoch

    package.train(load_spec(write_spec(epochs=200)), report=look)
    assert 0.4 < max(ages) < 0.6


def test_all_epochs_are_in_all_files_at_the_end(linreg):
    assert linreg("train", write_spec(epochs=30)).code == 0
    found = series("runs/small_001")
    saved = torch.load("checkpoints/small_001/last.pth", weights_only=True)
    (key,) = [key for key in found if "training" in "".join(key)]
    assert [value for _, value in found[key]] == pytest.approx(saved["loss"])
    assert [record["loss"] for record in records(Path("runs/small_001"))] == saved["loss"]
    scalars = EventAccumulator("runs/small_001/loss_validation").Reload().Scalars("loss")
    assert [event.step for event in scalars] == list(range(30))


def test_an_event_file_that_cannot_be_written_is_a_storage_error(tmp_path, monkeypatch):
    def fail(self):
        raise OSError(28, "No space left on device")

    with pytest.raises(StorageError, match="No space left on device"), open_writer(tmp_path) as board:
        monkeypatch.setattr(EventFile, "flush", fail)
        board.write(EpochRecord(0, 1.0, 2.0, 0.1), nn.Linear(1, 1))
