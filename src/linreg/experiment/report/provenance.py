"""The parts of a model's report that say where it comes from: data, spec, environment and commands."""

import json
import shlex
from collections.abc import Iterator
from typing import Any

from linreg.errors import shorten
from linreg.experiment.report.page import Block, Cell, Code, Table, number
from linreg.experiment.report.subject import Subject
from linreg.experiment.state import saved_spec
from linreg.spec.defaults import changed_keys
from linreg.spec.document import flatten

MOST_FEATURES = 60
MOST_INPUTS = 8  # on a command line


def data_blocks(subject: Subject) -> Iterator[Block]:
    """Yield the source, the parts and the features."""
    model, saved, measured = subject.model, subject.model.saved, subject.measured
    source = model.spec.data.source
    facts: list[list[Cell]] = [["source", source.name]]
    changed = changed_keys(model.spec)
    facts += [[key, _written(value)] for key, value in source.params.items() if f"data.source.{key}" in changed]
    if measured is not None:
        facts += [[f"{name} part", f"{part.n_points:,} points"] for name, part in measured.parts.items()]
        facts += [[name, f"{n_points:,} points"] for name, n_points in measured.others.items()]
    facts.append(["fingerprint", _fingerprint(saved.data_fingerprint)])
    yield Table(["", ""], facts)
    rows: list[list[Cell]] = []
    for feature in model.features[:MOST_FEATURES]:
        if feature.categories is not None:
            listed = ", ".join(feature.categories[:8]) + (", …" if len(feature.categories) > 8 else "")
            rows.append([feature.name, f"{len(feature.categories)} categories", shorten(listed)])
        else:
            assert feature.minimum is not None and feature.maximum is not None
            rows.append([feature.name, "number", f"{number(feature.minimum)} to {number(feature.maximum)}"])
    if rows:
        yield Table(["feature", "kind", "in the training part"], rows)
    if len(model.features) > MOST_FEATURES:
        yield f"{len(model.features) - MOST_FEATURES} more features are not listed."


def _fingerprint(text: str) -> str:
    """Shorten the digests of a fingerprint, which are long and for machines."""
    parts = (part.partition("=") for part in text.split())
    return " ".join(f"{name}={value[:8]}" if len(value) > 16 else f"{name}={value}" for name, _, value in parts)


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def spec_blocks(subject: Subject) -> Iterator[Block]:
    """Yield all settings; those that are not the defaults are marked."""
    spec = saved_spec(subject.model.saved)  # without the device of this report
    changed, flat = changed_keys(spec), flatten(spec.to_dict())
    marked = frozenset(position for position, key in enumerate(flat) if key in changed)
    yield "Settings that are not the defaults are marked."
    rows: list[list[Cell]] = [
        [key, _written(value), "set" if i in marked else ""] for i, (key, value) in enumerate(flat.items())
    ]
    yield Table(["key", "value", ""], rows, marked=marked)


def environment_blocks(subject: Subject) -> Iterator[Block]:
    """Yield versions and machine, and the sessions of the run."""
    yield Table(["", ""], [[name, _written(value)] for name, value in subject.model.saved.environment.items()])
    sessions = [one for one in subject.info.get("sessions", []) if isinstance(one, dict)]
    if sessions:
        names = ("started", "ended", "outcome", "from_epoch", "engine", "device", "git_commit")
        rows: list[list[Cell]] = [
            [shorten(_written(one.get(name) if one.get(name) is not None else "–")) for name in names]
            for one in sessions
        ]
        yield Table(["started", "ended", "outcome", "from epoch", "engine", "device", "commit"], rows)


def commands_blocks(subject: Subject) -> Iterator[Block]:
    """Yield commands that repeat the run and use the model."""
    saved = subject.model.saved
    sessions = [one for one in subject.info.get("sessions", []) if isinstance(one, dict)]
    words = sessions[0].get("command") if sessions else None
    if isinstance(words, list) and all(isinstance(word, str) for word in words):
        yield "The run was started with:"
        yield Code([shlex.join(words)])
    checkpoint = shlex.quote(str(saved.path))
    lines = [f"linreg inspect {checkpoint}", f"linreg evaluate {checkpoint}"]
    features = subject.model.features
    has_texts = bool(subject.model.dates) or any(feature.categories is not None for feature in features)
    if has_texts or not 0 < len(features) <= MOST_INPUTS:
        lines.append(f"linreg predict {checkpoint} --input new.csv --output predictions.csv")
    else:
        middle = ",".join(_middle(feature.minimum, feature.maximum) for feature in features)
        lines.append(f"linreg predict {checkpoint} --inputs {middle}")
    yield "To repeat and to use it:"
    spec = subject.folder / "spec.yaml"
    yield Code([*([f"linreg train {shlex.quote(str(spec))}"] if spec.is_file() else []), *lines])


def _middle(minimum: float | None, maximum: float | None) -> str:
    """Return a value inside the range of a feature."""
    assert minimum is not None and maximum is not None
    return f"{(minimum + maximum) / 2:.3g}"
