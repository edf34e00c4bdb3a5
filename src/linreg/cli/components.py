"""`linreg list` and `linreg schema`: the components, and the spec that names them."""

from typing import Annotated

from linreg.cli import options as o
from linreg.cli.loading import load_plugins
from linreg.cli.text import format_table, print_json, print_stdout
from linreg.errors import UsageError, suggest


def list_components(
    kind: Annotated[str | None, o.argument("KIND", "A kind of component, such as model or transform.")] = None,
    json: o.Json = False,
    plugin: o.Plugin = None,
) -> None:
    """List the components, with their params, types and defaults."""
    load_plugins(plugin)
    from linreg.spec.schema import REGISTRIES

    if kind is not None and kind not in REGISTRIES:
        raise UsageError(f"list {kind}: unknown kind; {suggest(kind, REGISTRIES)}")
    registries = [registry for name, registry in REGISTRIES.items() if kind in (None, name)]
    components = [component for registry in registries for component in registry]
    if json:
        print_json([component.to_dict() for component in components])
        return
    lines = []
    for component in components:
        lines.append(f"{component.kind} {component.name}: {component.summary}")
        params = [{"param": f"    {param}", **facts} for param, facts in component.described().items()]
        lines += format_table(params, ["param", "type", "default"]).splitlines()[1:] if params else []
    print_stdout("\n".join(lines))


def schema(plugin: o.Plugin = None) -> None:
    """Print the JSON Schema of a spec, for editors."""
    load_plugins(plugin)
    from linreg.spec.schema import json_schema

    print_json(json_schema())
