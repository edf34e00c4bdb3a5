"""The subject of the report of one model: its checkpoint, what was measured on its data, and the record of its run."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from linreg.checkpoint import summary
from linreg.errors import DataError, shorten
from linreg.experiment.loaded import LoadedModel
from linreg.experiment.report.measured import Measured, measure_parts
from linreg.experiment.report.page import MOST_CHARACTERS
from linreg.experiment.report.residuals import Judged, judge
from linreg.runs.records import read_info


@dataclass(frozen=True)
class Subject:
    """What the sections of a report are made from. content: the summary of the checkpoint; measured: None if the data
    is not there, with the problem; judged: empty then; folder: of its run, which may not be
    there; info: its run.json, empty without it."""

    model: LoadedModel
    content: Mapping[str, Any]
    measured: Measured | None
    judged: Judged
    problem: str
    folder: Path
    info: Mapping[str, Any]

    @property
    def outcome(self) -> str:
        """The outcome of the run; best.pth was saved before its end."""
        return str(self.info.get("outcome", self.model.saved.outcome))


def open_subject(path: Path, runs: Path) -> Subject:
    """Load a checkpoint, and measure it on its data if that is there. Raises CheckpointError."""
    model = LoadedModel(path, device="cpu")
    measured, judged, problem = None, Judged([], None, []), ""
    try:
        measured = measure_parts(model)
        judged = judge(model, measured.key)
    except DataError as error:
        problem = shorten(str(error), MOST_CHARACTERS)
    folder = runs / model.saved.run["name"]
    info = read_info(folder)
    own = info if info.get("id") == model.saved.run["id"] else {}
    return Subject(model, summary(model.saved), measured, judged, problem, folder, own)
