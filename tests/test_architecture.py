"""The structure that the folder promises: imports point down, the public names are true."""

import ast
import subprocess
import sys
from pathlib import Path

import linreg
from tests.conftest import ROOT

SOURCE = ROOT / "src" / "linreg"

# Each module may import those of lower layers, and those of its own that stand before it in `WITHIN`.
LAYERS = [
    {"errors", "version", "startup", "ahead", "generators", "memory"},
    {"documents", "storage", "registry"},
    {"problems", "plugins", "datasets", "models", "losses", "optimizers", "schedulers", "steps", "loops", "plots",
     "writer", "runs", "checkpoint", "cache", "least_squares", "equation"},
    {"tables", "loaders", "preprocessing"},
    {"engines", "mapped"},
    {"spec"},
    {"experiment", "starter"},
    {"cli", "__init__"},
    {"__main__"},
]  # fmt: skip
WITHIN = {
    ("checkpoint", "equation"),
    ("registry", "documents"),
    ("loops", "steps"),
    ("cli", "__init__"),
}


def imports():
    for path in SOURCE.rglob("*.py"):
        module = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        if module == "__init__":
            continue  # its imports are lazy, and checked against __all__ below
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "linreg":
                parts = node.module.split(".")
                names = [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
            elif isinstance(node, ast.Import):
                names = [alias.name.split(".")[1] for alias in node.names if alias.name.startswith("linreg.")]
            for name in names:
                yield module, name


def layer(module):
    return next(number for number, modules in enumerate(LAYERS) if module in modules)


def test_imports_point_down():
    found = set(imports())
    assert len(found) > 40
    wrong = [
        (importer, imported)
        for importer, imported in found
        if importer != imported and layer(imported) >= layer(importer) and (importer, imported) not in WITHIN
    ]
    assert wrong == []


def test_every_module_has_a_layer():
    modules = {
        path.stem if path.is_file() else path.name
        for path in SOURCE.iterdir()
        if path.name not in {"__pycache__", "py.typed"}
    }
    assert modules == set.union(*LAYERS)


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
                assert name.split(".")[0] != "matplotlib" or path.name == "plots.py"


def test_the_public_names_are_there_and_those_for_type_checkers_are_the_same():
    for name in linreg.__all__:
        assert getattr(linreg, name) is not None
    tree = ast.parse(Path(linreg.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    typed = {alias.name for node in block.body for alias in node.names}
    assert typed == set(linreg.__all__)
    assert set(linreg.__all__) <= set(dir(linreg))


def test_importing_linreg_does_not_import_torch():
    code = "import sys, linreg; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
