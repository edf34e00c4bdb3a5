"""The structure that the folder promises: imports point down, the public names are true."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import linreg
from tests.conftest import ROOT

SOURCE = ROOT / "src" / "linreg"

# The rooms of src/linreg, from the ground up: each imports from those before it, and from itself.
LAYERS = [
    "errors", "system", "registry", "plugins", "components", "data", "spec", "training", "exact", "checkpoint", "runs",
    "experiment", "cli", "__main__",
]  # fmt: skip


def imports():
    """Each import of linreg's own names: the file, the module, and the name if it is one of the module's."""
    for path in SOURCE.rglob("*.py"):
        if path == SOURCE / "__init__.py":
            continue  # its imports are lazy, and checked against __all__ below
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "linreg":
                for alias in node.names:
                    yield path.relative_to(SOURCE), node.module, alias.name
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name.startswith("linreg."):
                        yield path.relative_to(SOURCE), alias.name, ""


def room(path):
    return path.parts[0].removesuffix(".py")


def room_of_import(module, name):
    return [*module.split("."), name][1]  # `from linreg import x` names the room x


def test_imports_point_down():
    found = list(imports())
    assert len(found) > 200
    wrong = [
        f"{path} imports {module}"
        for path, module, name in found
        if LAYERS.index(room_of_import(module, name)) > LAYERS.index(room(path))
    ]
    assert wrong == []


def test_no_private_name_of_another_package_is_imported():
    wrong = [
        f"{path} imports {module}.{name}"
        for path, module, name in imports()
        if room_of_import(module, name) != room(path) and re.search(r"(^|\.)_(?!_)", f"{module}.{name}")
    ]
    assert wrong == []


def test_every_room_is_a_layer():
    rooms = {room(path.relative_to(SOURCE)) for path in SOURCE.iterdir()} - {"__pycache__", "py.typed", "__init__"}
    assert rooms == set(LAYERS)
    packages = [path for path in SOURCE.iterdir() if path.is_dir() and path.name != "__pycache__"]
    assert len(packages) <= 10


def test_no_file_and_no_function_is_long():
    long = []
    for path in SOURCE.rglob("*.py"):
        text = path.read_text()
        long += [f"{path}: {n} lines"] if (n := len(text.splitlines())) > 350 else []
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and (n := node.end_lineno - node.lineno + 1) > 60:
                long.append(f"{path}:{node.lineno}: {node.name}: {n} lines")
    assert long == []


def test_matplotlib_is_imported_in_plots_alone_and_click_nowhere():
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                assert name.split(".")[0] != "click"
                assert name.split(".")[0] != "matplotlib" or path.name in ("plots.py", "residual_plots.py")


def test_the_public_names_are_there_and_those_for_type_checkers_are_the_same():
    for name in linreg.__all__:
        assert getattr(linreg, name) is not None
    tree = ast.parse(Path(linreg.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    typed = {alias.name for node in block.body for alias in node.names}
    assert typed == set(linreg._HOME_OF) == set(linreg.__all__)
    assert set(linreg.__all__) <= set(dir(linreg))


def test_importing_linreg_does_not_import_torch():
    code = "import sys, linreg; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
