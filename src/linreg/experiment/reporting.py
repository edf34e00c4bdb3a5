"""Writes the output of a session for people: spec, graph, hyperparameters, final metrics, plot of the losses."""

from pathlib import Path
from typing import Any

from linreg.experiment.building import Experiment
from linreg.experiment.state import Progress
from linreg.runs import plots
from linreg.runs.writer import RunWriter
from linreg.spec.document import flatten
from linreg.spec.schema import ExperimentSpec
from linreg.system.files import replace_file


def write_start(writer: RunWriter, experiment: Experiment) -> None:
    """Write the spec, the graph of the model and the hyperparameters, as the spec asks for."""
    spec = experiment.spec
    writer.write_spec(spec.to_yaml())
    if spec.writer.graph:
        writer.write_graph(experiment.network, experiment.x_sample)
    if spec.writer.hparams:
        writer.write_hparams(_hyperparameters(spec), [f"summary/{name}" for name in _losses_of(experiment)])
    writer.flush()


def write_end(writer: RunWriter, experiment: Experiment, progress: Progress) -> None:
    """Write the final metrics and the plot of the losses to TensorBoard, as the spec asks for."""
    last = progress.records[-1]
    if experiment.spec.writer.hparams:
        writer.write_summary({f"summary/{name}": getattr(last, name) for name in _losses_of(experiment)}, last.epoch)
    if experiment.spec.writer.figures:
        writer.write_figure("summary/losses", _figure(progress), last.epoch)


def write_plot(path: Path, progress: Progress) -> None:
    """Write the plot of the losses as a PNG file."""
    replace_file(path, plots.to_png(_figure(progress)))


def _hyperparameters(spec: ExperimentSpec) -> dict[str, Any]:
    """Return the keys of a spec that decide the outcome, not those about output."""
    rest = {"name", "device", "checkpoint", "writer", "data.memory", "data.memory_limit"}
    rest |= {"engine"} if spec.engine != "compiled" else set()
    return {key: value for key, value in flatten(spec.to_dict()).items() if not {key, key.partition(".")[0]} & rest}


def _losses_of(experiment: Experiment) -> list[str]:
    return ["loss", "val_loss"] if experiment.loaders.val else ["loss"]


def _figure(progress: Progress) -> Any:
    records = progress.records
    return plots.plot_losses(
        [record.loss for record in records],
        [record.val_loss for record in records],
        resumed_at=progress.resumed_at,
    )
