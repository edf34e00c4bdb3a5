"""Trains the specs of a JSON file, one after the other, as one process of a group; rank 0 writes the results. Each
process prints its threads when it ends.

python -m tests.training.sharded_runs SPECS.json RESULTS.json
"""

import atexit
import hashlib
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from linreg.checkpoint import load
from linreg.experiment.following import follow
from linreg.experiment.session import train
from linreg.spec.schema import spec_from_dict
from linreg.system.place import place


def outcome_of(spec):
    """Return the losses of every epoch, and a digest of all states of the last checkpoint."""
    if not place().is_first:
        return follow(spec)
    with TemporaryDirectory() as folder:
        result = train(spec, runs=Path(folder) / "runs", checkpoints=Path(folder) / "checkpoints")
        saved = load(result.checkpoint)
    digest = hashlib.sha256()
    states = [saved.model_state_dict, saved.optimizer_state_dict, saved.scheduler_state_dict, saved.loader_state]
    states += [saved.fit, saved.intervals, saved.preprocessing, saved.data_fingerprint]
    add(digest, states)
    return {"loss": saved.loss, "val_loss": saved.val_loss, "states": digest.hexdigest()}


def add(digest, value):
    """Add a state, all the way down."""
    if isinstance(value, dict | list | tuple):
        for item in value.items() if isinstance(value, dict) else value:
            add(digest, item)
    else:
        digest.update(repr(value.tolist() if hasattr(value, "tolist") else value).encode())


def print_threads():
    """Print the names of the threads of this process, on Linux."""
    names = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    print(f"threads: {', '.join(names)}", file=sys.stderr)


if __name__ == "__main__":
    atexit.register(print_threads)  # runs after all functions that are registered later
    specs, results = map(Path, sys.argv[1:])
    found = [outcome_of(spec_from_dict(plain, "test")) for plain in json.loads(specs.read_text())]
    if place().is_first:
        results.write_text(json.dumps(found))
