"""The description of a model as plain values: its inputs, and the steps from them to the targets.

It is the content of a JSON export, and what the other formats are written from. docs/export.md explains each step.
"""

from itertools import pairwise
from typing import Any

import torch
from torch import nn

from linreg.components.models import MODELS
from linreg.components.transforms import PERIODS, TARGET_TRANSFORMS, TRANSFORMS
from linreg.data.derived import Piece
from linreg.data.preprocessing import Preprocessing, columns_of
from linreg.data.transform import codes_of
from linreg.errors import UsageError
from linreg.experiment.loaded import LoadedModel
from linreg.registry import ComponentSpec, Registry
from linreg.system.version import __version__

FORMAT, VERSION = "linreg export", 1
TRUTH = ("true", "false", "1", "0")

Description = dict[str, Any]
Step = dict[str, Any]


def describe(model: LoadedModel) -> Description:
    """Describe a model. Raises UsageError for a part of it that comes from a plugin."""
    _refuse_plugins(model)
    steps = [*_steps_before(model), *_steps_of_network(model), *_steps_after(model)]
    return {
        "format": FORMAT,
        "version": VERSION,
        "linreg": __version__,
        "name": model.spec.name,
        "precision": model.spec.dtype,
        "inputs": inputs_of(model),
        "steps": steps,
        "outputs": list(model.saved.target_names),
    }


def inputs_of(model: LoadedModel) -> list[dict[str, Any]]:
    """Describe the inputs of a model: their kinds, ranges, categories, and the values that fill their gaps."""
    fill = model.preprocessing.fill.tolist() if model.fills_gaps and model.preprocessing is not None else None
    inputs: list[dict[str, Any]] = []
    for position, feature in enumerate(model.features):
        value = None if fill is None else fill[position]
        if feature.categories is None:
            kind = "date" if feature.name in model.dates else "number"
            range_ = {"minimum": feature.minimum, "maximum": feature.maximum}
            inputs.append({"name": feature.name, "kind": kind, "gap": value, **range_})
            continue
        code = codes_of(feature.categories)
        inputs.append(
            {
                "name": feature.name,
                "kind": "category",
                "gap": None if value is None else feature.categories[int(value)],
                "categories": list(feature.categories),
                "also": {
                    text: feature.categories[code(text)]
                    for text in TRUTH
                    if text not in feature.categories and code(text) >= 0
                },
                "unseen": model.saved.preprocessing["unseen"],
            }
        )
    return inputs


def output_names(description: Description) -> list[str]:
    """Return the names of the predictions: as in a table of predictions, with _ where an input has the name."""
    inputs = {entry["name"] for entry in description["inputs"]}
    names = []
    for target in description["outputs"]:
        name = f"{target}_predicted"
        while name in inputs:
            name += "_"
        names.append(name)
    return names


def _refuse_plugins(model: LoadedModel) -> None:
    """Raise a UsageError for a component whose formula is in a plugin."""
    parts: list[tuple[Registry, ComponentSpec | None]] = [(MODELS, model.spec.model)]
    parts += [(TRANSFORMS, transform) for transform in model.spec.data.transforms]
    parts += [(TARGET_TRANSFORMS, model.spec.data.target_transform)]
    for registry, component in parts:
        if component is not None and not registry.is_own(component.name):
            raise UsageError(
                f"{model.saved.path}: {registry.kind} {component.name!r} is of a plugin, and its formula is not known; "
                "use --to pt2"
            )


def _steps_before(model: LoadedModel) -> list[Step]:
    """Describe the steps before the network."""
    infos = columns_of(model.features)
    steps: list[Step] = [{"step": "encode", "columns": [info.name for info in infos]}]
    preprocessing = model.preprocessing
    if preprocessing is None:
        return steps
    if preprocessing.transforms is not None:
        for transform, step in zip(model.spec.data.transforms, preprocessing.transforms.steps, strict=True):
            columns: list[Step] = []
            for part in step.segments:
                if isinstance(part, slice):
                    columns += [{"function": "copy", "of": [i]} for i in range(len(infos))[part]]
                else:
                    columns += _derived(transform, step.pieces[part])
            infos = step.after(infos)
            named = [{"name": info.name, **column} for info, column in zip(infos, columns, strict=True)]
            steps.append({"step": "derive", "columns": named})
    if preprocessing.mean.any() or bool((preprocessing.scale != 1).any()):
        steps.append({"step": "standardize", **_lists(mean=preprocessing.mean, scale=preprocessing.scale)})
    return steps


def _derived(transform: ComponentSpec, piece: Piece) -> list[Step]:
    """Describe the columns that a transform derives from some columns."""
    params, of = transform.params, list(piece.sources)
    learnt = {name: getattr(piece, name).tolist() for name in piece.learnt}
    match transform.name:
        case "power":
            return [{"function": "power", "of": of, "exponent": params["exponent"]}]
        case "clip":
            low, high = (
                (params["minimum"], params["maximum"]) if params["quantiles"] is None else _ends(learnt["range"])
            )
            return [{"function": "clip", "of": of, "minimum": low, "maximum": high}]
        case "bins":
            ends = pairwise([None, *learnt["edges"], None])
            return [{"function": "interval", "of": of, "from": low, "below": high} for low, high in ends]
        case "spline":
            others = range(2, len(learnt["knots"]))
            splines = [{"function": "spline", "of": of, "knots": learnt["knots"], "number": n} for n in others]
            return [{"function": "copy", "of": of}, *splines]
        case "interaction":
            return [{"function": "product", "of": of}]
        case "date_parts":
            return [column for part in params["parts"] for column in _parts(part, of, cyclic=params["cyclic"])]
    return [{"function": transform.name, "of": of}]


def _ends(values: list[float]) -> tuple[float, float]:
    return values[0], values[-1]


def _parts(part: str, of: list[int], *, cyclic: bool) -> list[Step]:
    if not cyclic or part == "year":
        return [{"function": "date_part", "of": of, "part": part}]
    angle = {"part": part, "first": int(part != "hour"), "period": PERIODS[part]}
    return [{"function": wave, "of": of, **angle} for wave in ("sin", "cos")]


def _steps_of_network(model: LoadedModel) -> list[Step]:
    """Describe the steps of the network. Dropout is off, so it is none of them."""
    network = model.model if model.preprocessing is None else model.model.network
    assert isinstance(network, nn.Sequential)  # as every model of linreg
    params, steps = model.spec.model.params, list[Step]()
    for module in network:
        if isinstance(module, nn.Linear):
            bias = torch.zeros(module.out_features) if module.bias is None else module.bias
            steps.append({"step": "linear", **_lists(weights=module.weight, bias=bias)})
        elif model.spec.model.name == "polynomial":
            steps.append({"step": "powers", "degree": params["degree"]})
        elif not isinstance(module, nn.Dropout):
            steps.append({"step": "activation", "function": params["activation"]})
    return steps


def _steps_after(model: LoadedModel) -> list[Step]:
    """Describe the steps from the outputs of the network to the targets."""
    preprocessing = model.preprocessing
    if preprocessing is None:
        return []
    steps: list[Step] = []
    if preprocessing.y_mean.any() or bool((preprocessing.y_scale != 1).any()):
        steps.append({"step": "restore", **_lists(mean=preprocessing.y_mean, scale=preprocessing.y_scale)})
    return steps + _inverse(model, preprocessing)


def _inverse(model: LoadedModel, preprocessing: Preprocessing) -> list[Step]:
    transform = model.spec.data.target_transform
    if preprocessing.target is None or transform is None:
        return []
    return [{"step": "invert", "function": transform.name, **_lists(**preprocessing.target.values())}]


def _lists(**values: torch.Tensor) -> dict[str, Any]:
    """Return tensors as lists of floats with the same values."""
    return {name: value.double().tolist() for name, value in values.items()}
