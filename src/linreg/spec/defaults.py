"""The settings of a spec that are not the defaults. A report marks them."""

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from linreg.registry import ComponentSpec
from linreg.spec.schema import REGISTRIES, ExperimentSpec


def changed_keys(spec: ExperimentSpec) -> frozenset[str]:
    """Return the dotted keys whose values are not the defaults, also those that have none."""
    return frozenset(_changed(spec, ""))


def _changed(part: BaseModel, prefix: str) -> Iterator[str]:
    for name, field in type(part).model_fields.items():
        value, default = getattr(part, name), field.get_default(call_default_factory=True)
        key = f"{prefix}{name}"
        if isinstance(value, BaseModel):
            yield from _changed(value, f"{key}.")
        elif isinstance(value, ComponentSpec):
            yield from _changed_params(value, default, name, key)
        elif field.is_required() or value != default:
            yield key


def _changed_params(value: ComponentSpec, default: Any, kind: str, key: str) -> Iterator[str]:
    """Yield the keys of a component that are not the defaults: its name, and params that differ from its signature."""
    if not isinstance(default, ComponentSpec) or default.name != value.name:
        yield f"{key}.name"
    params = next(one.params for one in REGISTRIES[kind] if one.name == value.name)
    for name, own in value.params.items():
        of_signature = params[name][1] if name in params else ...
        if of_signature is ... or own != of_signature:
            yield f"{key}.{name}"
