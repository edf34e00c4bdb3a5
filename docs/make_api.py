"""Write docs/api.md from the code: `make docs`."""

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import linreg
from linreg.errors import LinregError
from linreg.registry import Registry

sys.path.insert(0, str(Path(__file__).parent))
from make_spec import table

ROOT = Path(__file__).parent.parent

HEAD = """\
# Python reference

```python
import linreg

print(linreg.__version__ > "0")
print(linreg.MODELS.names)
```

```text
True
['linear', 'mlp', 'polynomial']
```

`make docs` generates this page from the code, and a test compares the two. It has every name of `linreg.__all__`.
[python.md](python.md) and [tutorial.md](tutorial.md) show how to use them.
"""

GROUPS = {  # beside registries and errors; a name that is in none of them is an error
    "Train and use models": """load_spec check train resume train_or_resume predict predict_table evaluate Result
        Prediction Evaluation ExperimentSpec""",
    "The loop in your hands": "build Experiment fit EpochLosses make_loaders split open_writer",
    "The textbook's functions": "make_train_step_fn make_val_step_fn mini_batch CustomDataset plot_losses",
    "Checkpoints": "load save Checkpoint",
    "Components": """Registry ComponentSpec Samples Derived OfTarget Schedule per_epoch per_step on_loss""",
}


def tree(module: ModuleType) -> ast.Module:
    """Return the syntax tree of a module's source."""
    return ast.parse(inspect.getsource(module))


def only_documented(node: ast.FunctionDef) -> ast.FunctionDef:
    """Return a function without its body, but with its docstring."""
    doc = ast.get_docstring(node)
    ellipsis = ast.Expr(ast.Constant(...))
    node.body = [ast.Expr(ast.Constant(doc))] if doc else [ellipsis]
    return node


def outline(value: Any) -> str:
    """Return the head of a function, or a class with its fields and public methods."""
    (node,) = ast.parse(inspect.getsource(value)).body
    if isinstance(node, ast.FunctionDef):
        node.body = [ast.Expr(ast.Constant(...))]
    else:
        assert isinstance(node, ast.ClassDef)
        is_spec = value is linreg.ExperimentSpec  # its fields are the keys of spec.md
        fields = [] if is_spec else [part for part in node.body if isinstance(part, ast.AnnAssign)]
        methods = [
            only_documented(part)
            for part in node.body
            if isinstance(part, ast.FunctionDef) and (not part.name.startswith("_") or part.name == "__iter__")
        ]
        node.body = [*fields, *methods] or [ast.Expr(ast.Constant(...))]
    return ast.unparse(ast.fix_missing_locations(node))


def formatted(outlines: dict[str, str]) -> dict[str, str]:
    """Return the outlines as ruff formats them, each below a comment with its name."""
    ruff = [sys.executable, "-m", "ruff", "format", "--line-length", "88", "-"]
    code = "\n\n\n".join(f"# linreg.{name}\n{text}" for name, text in outlines.items())
    done = subprocess.run(ruff, input=code, capture_output=True, text=True, check=True).stdout
    return dict(
        zip(
            outlines, (part.strip() for part in re.split(r"^(?=# linreg\.)", done, flags=re.MULTILINE)[1:]), strict=True
        )
    )


def described(value: Any) -> str:
    """Return a docstring as Markdown: signs that mean something there are escaped, except in code."""
    doc = inspect.getdoc(value) or ""
    escaped = [part if i % 2 else re.sub(r"([*<])", r"\\\1", part) for i, part in enumerate(doc.split("`"))]
    return "`".join(escaped)


def home(name: str, module: ModuleType) -> ModuleType:
    """Return the module of linreg that a module imports a name from, or the module itself."""
    for node in tree(module).body:
        if isinstance(node, ast.ImportFrom) and name in [alias.name for alias in node.names]:
            return import_module(str(node.module)) if str(node.module).startswith("linreg.") else module
    return module


def aliases(value: Any) -> Iterator[tuple[str, str]]:
    """Yield the name and the source of each type alias of linreg in the outline of a value."""
    module = inspect.getmodule(value)
    assert module is not None
    for name in re.findall(r"\b[A-Z]\w+\b", outline(value)):
        definition = home(name, module)
        for node in tree(definition).body:
            if isinstance(node, ast.Assign) and name in [getattr(target, "id", "") for target in node.targets]:
                lines = inspect.getsource(definition).splitlines()[node.lineno - 1 : node.end_lineno]
                yield name, "\n".join(lines)


def page() -> str:
    """Return the text of docs/api.md. Raises ValueError for a public name without a group."""
    values = {name: getattr(linreg, name) for name in linreg.__all__}
    registries = {name: value for name, value in values.items() if isinstance(value, Registry)}
    errors = {n: value for n, value in values.items() if isinstance(value, type) and issubclass(value, LinregError)}
    grouped = [name for names in GROUPS.values() for name in names.split()]
    if missing := set(values) - set(registries) - set(errors) - set(grouped):
        raise ValueError(f"public names without a group: {sorted(missing)}; add them to GROUPS")

    outlines = formatted({name: outline(values[name]) for name in grouped})
    parts, types = [HEAD], {}
    for title, names in GROUPS.items():
        parts.append(f"## {title}")
        for name in names.split():
            value = values[name]
            parts.append(f"### {name}\n\n{described(value)}\n\n```pyi\n{outlines[name]}\n```")
            types |= dict(aliases(value))
    parts.append("## Registries\n\nEach is a `Registry`. [plugins.md](plugins.md) shows how to add a component.")
    rows = [[f"`{name}`", f"[{each.kind}](spec.md#{each.kind})"] for name, each in registries.items()]
    parts.append(table(["name", "components"], rows))
    parts.append("## Errors\n\nEach is a subclass of `LinregError`, whose exit code is that of the command.")
    rows = [[f"`{name}`", str(each.exit_code), described(each).partition("\n")[0]] for name, each in errors.items()]
    parts.append(table(["error", "exit code", "meaning"], rows))
    parts.append("## Types in the signatures\n\n```pyi\n" + "\n".join(types.values()) + "\n```")
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    (ROOT / "docs" / "api.md").write_text(page())
