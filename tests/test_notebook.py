"""docs/tutorial.ipynb runs in a kernel of Jupyter, and prints what docs/tutorial.md shows."""

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import nbformat

from tests.conftest import ROOT
from tests.test_documentation import blocks

CHECKED = "\nassert _exit_code == 0"  # of the last command; Jupyter goes on after one that fails


def test_the_notebook_runs_and_prints_what_the_page_shows(tmp_path, monkeypatch):
    bin_of_this_python = Path(sys.executable).parent
    monkeypatch.setenv("PATH", f"{bin_of_this_python}:/usr/bin:/bin")
    notebook = nbformat.read(ROOT / "docs" / "tutorial.ipynb", 4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.source = "\n".join(
                line + CHECKED if line.startswith("!") else line for line in cell.source.split("\n")
            )
    nbformat.write(notebook, tmp_path / "checked.ipynb")
    command = [bin_of_this_python / "jupyter-execute", "--timeout=120", "--output=run", "checked.ipynb"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr

    made = nbformat.read(tmp_path / "run.ipynb", 4)
    printed = {
        cell.source: "".join(output.get("text", "") for output in cell.outputs)
        for cell in made.cells
        if cell.cell_type == "code"
    }
    shown = list(blocks(ROOT / "docs" / "tutorial.md"))
    outputs = [(before, text) for (_, before), (language, text) in pairwise(shown) if language == "text"]
    assert len(outputs) >= 9
    for source, text in outputs:
        assert printed[source.rstrip()] == text, source
    lines = [line for language, text in shown if language == "sh" for line in text.splitlines()]
    assert [f"!{line}" for line in lines if line.startswith("linreg ")] == [
        line.removesuffix(CHECKED.strip()) for source in printed for line in source.split("\n") if line.startswith("!")
    ]
    assert (tmp_path / "losses.png").exists()
