"""Write docs/spec.md and configs/linreg.schema.json from the code: `make docs`."""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from linreg.registry import describe, write
from linreg.spec.schema import REGISTRIES, ExperimentSpec, json_schema
from linreg.spec.sweep_block import SweepSpec

ROOT = Path(__file__).parent.parent

HEAD = """\
# The experiment spec

`make docs` generates this page from the code, and a test compares the two. `linreg list` prints the components,
`linreg schema` the JSON Schema, and `linreg check SPEC` the spec with every default.

A component is `{name: ..., its params beside it}`. Numbers and booleans follow YAML 1.2: `1e-3` is a number, `no` is
text. `nan`, `inf` and unknown keys are errors. A spec has at most 100,000 bytes, 10,000 values and 20 levels. It has no
tags, anchors, aliases or merge keys.

## Keys
"""

SWEEP = """\
## Sweep

A `sweep` block describes the trials of `linreg sweep` (see [choosing.md](choosing.md)). Other commands refuse it.
"""


def table(header: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def parts_of(model: type[BaseModel], prefix: str = "") -> list[list[str]]:
    """Return a table row for every key of a part of the spec, followed by the keys inside it."""
    schema = model.model_json_schema()
    rows = []
    for name, field in model.model_fields.items():
        options = [field.annotation, *getattr(field.annotation, "__args__", ())]
        inner = next((part for part in options if isinstance(part, type) and issubclass(part, BaseModel)), None)
        optional = type(None) in options
        kind = (
            "mapping"
            if inner and field.default in (PydanticUndefined, None)
            else key_type(name, schema["properties"][name])
        )
        if field.is_required():
            default = "required"
        elif field.default is PydanticUndefined:
            default = (
                "`[]`"
                if field.default_factory is list
                else "`{}`"
                if field.default_factory is dict
                else "none"
                if optional
                else "see below"
                if inner
                else "{name: mse}"
            )
        else:
            default = "none" if field.default is None else f"`{write(field.default)}`"
        rows.append([f"`{prefix}{name}`", kind, default, field.description or ""])
        if inner:
            rows += parts_of(inner, f"{prefix}{name}.")
    return rows


def key_type(name: str, schema: dict[str, Any]) -> str:
    """Return the type of a key: a link to its components, or the type in its JSON Schema."""
    if name in REGISTRIES:
        return f"[{name}](#{name})"
    if name == "transforms":
        return "list of [transform](#transform)"
    return describe(schema).replace(" or null", "").replace("anything", "mapping").replace("object", "mapping")


def components_of(kind: str) -> str:
    """Return the sections of all components of a kind."""
    sections = [f"## {kind}"]
    for component in REGISTRIES[kind]:
        sections.append(f"### {kind} `{component.name}`\n\n{component.doc}")
        if component.params:
            rows = [[f"`{name}`", said["type"], f"`{said['default']}`"] for name, said in component.described().items()]
            sections.append(table(["param", "takes", "default"], rows))
    return "\n\n".join(sections)


def page() -> str:
    """Return the text of docs/spec.md."""
    keys = table(["key", "takes", "default", ""], parts_of(ExperimentSpec))
    of_sweeps = table(["key", "takes", "default", ""], parts_of(SweepSpec, "sweep."))
    return "\n".join(
        [HEAD, keys, "", SWEEP, of_sweeps, "", "\n\n".join(components_of(kind) for kind in REGISTRIES), ""]
    )


def schema() -> str:
    """Return the text of configs/linreg.schema.json, which the shipped configs refer to."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    (ROOT / "docs" / "spec.md").write_text(page())
    (ROOT / "configs" / "linreg.schema.json").write_text(schema())
