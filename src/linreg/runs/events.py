"""Event files of TensorBoard, written without a thread: events wait in memory until `flush` writes them at once.

It replaces TensorBoard's own writer, which passes each event to a thread and computes its checksums in Python.
"""

import itertools
import os
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google_crc32c
from tensorboard.compat.proto.event_pb2 import Event, TaggedRunMetadata
from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import SummaryWriter

_numbers: Iterator[int] = itertools.count()  # one for each file of this process


class EventFile:
    """An event file, with the methods of torch's `FileWriter`."""

    def __init__(self, folder: Path) -> None:
        """Make the folder and the file, which has only its version. Raises OSError."""
        folder.mkdir(parents=True, exist_ok=True)
        now = time.time()
        name = f"events.out.tfevents.{int(now):010d}.{socket.gethostname()}.{os.getpid()}.{next(_numbers)}"
        self.folder = folder
        self.file = (folder / name).open("wb")
        self.waiting: list[bytes] = []
        self.add_event(Event(file_version="brain.Event:2"))
        try:
            self.flush()
        except OSError:
            self.file.close()
            raise

    def get_logdir(self) -> str:
        """Return the folder."""
        return str(self.folder)

    def add_event(self, event: Any, step: int | None = None, walltime: float | None = None) -> None:
        """Add an event. walltime: by default its own, or now."""
        event.wall_time = walltime or event.wall_time or time.time()
        if step is not None:
            event.step = int(step)
        self.waiting.append(_record(event.SerializeToString()))

    def add_scalar(self, tag: str, value: float, step: int, walltime: float) -> None:
        """Add a scalar."""
        summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
        self.waiting.append(_record(Event(summary=summary, step=step, wall_time=walltime).SerializeToString()))

    def add_summary(self, summary: Any, global_step: int | None = None, walltime: float | None = None) -> None:
        """Add a summary."""
        self.add_event(Event(summary=summary), global_step, walltime)

    def add_graph(self, graph_profile: Any, walltime: float | None = None) -> None:
        """Add a graph, and what was recorded of its run."""
        graph, steps = graph_profile
        self.add_event(Event(graph_def=graph.SerializeToString()), None, walltime)
        metadata = TaggedRunMetadata(tag="step1", run_metadata=steps.SerializeToString())
        self.add_event(Event(tagged_run_metadata=metadata), None, walltime)

    def flush(self) -> None:
        """Write the events that wait. Raises OSError."""
        if self.waiting:
            self.file.write(b"".join(self.waiting))
            self.waiting.clear()
            self.file.flush()

    def close(self) -> None:
        """Write the events that wait, and close the file."""
        try:
            self.flush()
        finally:
            self.file.close()


class Board(SummaryWriter):
    """torch's writer, for texts, graphs, histograms and figures, with an `EventFile`."""

    file_writer: EventFile | None  # type: ignore[assignment]  # torch says None
    all_writers: dict[str, EventFile] | None  # type: ignore[assignment]  # likewise

    def _get_file_writer(self) -> EventFile:
        if self.file_writer is None:
            self.file_writer = EventFile(Path(self.log_dir))
            self.all_writers = {self.file_writer.get_logdir(): self.file_writer}
        return self.file_writer


def _record(data: bytes) -> bytes:
    """Frame data as a record of TensorFlow's TFRecord format: length, its checksum, data, its checksum."""
    length = struct.pack("<Q", len(data))
    return b"".join((length, _masked_checksum(length), data, _masked_checksum(data)))


def _masked_checksum(data: bytes) -> bytes:
    checksum = google_crc32c.value(data)
    return struct.pack("<I", ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF)
