"""A run of `solver: exact`: solves a spec, and writes its folder and checkpoint."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from linreg.checkpoint import Checkpoint, save
from linreg.experiment.group import open_exchange
from linreg.experiment.intervals.calibrating import calibrate_solved
from linreg.experiment.path_files import write_path
from linreg.experiment.result import Result, make_result
from linreg.experiment.solving import ENGINE, Solved, note_unused, solve_exactly
from linreg.runs.folders import Run, create
from linreg.runs.sessions import new_session
from linreg.runs.writer import EpochRecord, open_writer
from linreg.spec.schema import ExperimentSpec
from linreg.system import generators


def solve(spec: ExperimentSpec, *, runs: Path, checkpoints: Path, winner_of: Mapping[str, Any] | None = None) -> Result:
    """Solve a spec, in a new run. winner_of: as in `create`. Raises the errors of `train`, and SpecError for a model
    without a closed form."""
    begin, exchange = time.monotonic(), open_exchange(spec)
    note_unused(spec)
    solved = solve_exactly(spec, exchange=exchange)
    with exchange.closing():
        exact, intervals = solved.exact, calibrate_solved(spec, solved)
    record = EpochRecord(0, exact.loss, exact.val_loss, 0.0)
    with create(spec.name, runs, checkpoints, winner_of) as run:
        session = new_session(solved.device, ENGINE, 0, None)
        run.start_session(session, data_fingerprint=solved.rows.fingerprint, spec=spec.to_yaml())
        with open_writer(run.folder) as writer:
            writer.write_spec(spec.to_yaml())
            writer.write(record, solved.network)
        if exact.path is not None:
            write_path(run.folder, exact.path, exact.fit, list(solved.rows.target_names), plot=spec.writer.plots)
        save(run.last, _checkpoint(spec, solved, record, run, intervals))
        run.publish()
        session |= {"ended": session["started"], "epochs": 1, "outcome": "finished"}
        run.write_info(outcome="finished")
        return make_result(
            run,
            "finished",
            [record],
            device=solved.device,
            engine=ENGINE,
            seconds=time.monotonic() - begin,
            exact=exact,
            model=solved.model,
            target_names=solved.rows.target_names,
        )


def _checkpoint(
    spec: ExperimentSpec, solved: Solved, record: EpochRecord, run: Run, intervals: dict[str, Any] | None
) -> Checkpoint:
    names, targets = list(solved.rows.feature_names), list(solved.rows.target_names)
    return Checkpoint(
        epoch=1,
        model_state_dict=dict(solved.model.state_dict()),
        optimizer_state_dict={},
        scheduler_state_dict=None,
        loss=[record.loss],
        val_loss=[record.val_loss],
        lr=[0.0],
        spec=spec.to_dict(),
        planned_epochs=1,
        preprocessing=solved.described,
        n_features=len(names),
        n_targets=len(targets),
        feature_names=names,
        target_names=targets,
        position=[],
        loader_state=torch.Generator().get_state(),
        **generators.states(torch.device("cpu")),
        best=None,
        fit=solved.exact.fit,
        intervals=intervals,
        resumed_at=[],
        outcome="finished",
        run={"name": run.name, "id": run.info["id"]},
        data_fingerprint=solved.rows.fingerprint,
        environment=run.session["environment"],
    )
