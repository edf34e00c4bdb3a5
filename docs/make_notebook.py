"""Write docs/tutorial.ipynb from docs/tutorial.md: `make docs`."""

import re
from pathlib import Path

import nbformat
from nbformat import v4

ROOT = Path(__file__).parent.parent

FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INTRODUCTION = "[tutorial.ipynb](tutorial.ipynb) is this page as a notebook; start it in an empty folder."
QUIET = "%env TERM=dumb\n# a terminal that moves no progress bar"
IN_THE_NOTEBOOK = "Start this notebook in an empty folder. [tutorial.md](tutorial.md) is the same as a page."


def code_of(language: str, text: str) -> str | None:
    """Return the cell for a block of the page, or None for one that is shown as it is."""
    if language == "python":
        return text
    if language == "sh" and text.startswith("linreg "):
        return "".join(f"!{line}\n" for line in text.splitlines())
    if language == "yaml" and (name := re.match(r"# (\S+\.yaml)\n", text)):
        return f"%%writefile {name[1]}\n{text}"
    return None


def notebook() -> nbformat.NotebookNode:
    """Return the page as a notebook without outputs: blocks become cells, and the shown output is left out."""
    page = (ROOT / "docs" / "tutorial.md").read_text()
    assert INTRODUCTION in page
    cells, words = [], ""

    def close() -> None:
        nonlocal words
        if words.strip():
            cells.append(v4.new_markdown_cell(words.strip()))
        words = ""

    parts = FENCE.split(page.replace(INTRODUCTION, IN_THE_NOTEBOOK))
    for before, language, text in zip(parts[::3], parts[1::3], parts[2::3], strict=False):
        words += before
        if language == "text":
            continue
        if (code := code_of(language, text)) is None:
            words += f"```{language}\n{text}```"
        else:
            close()
            cells.append(v4.new_code_cell(code.rstrip()))
    words += parts[-1]
    close()
    cells.insert(1, v4.new_code_cell(QUIET))
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return v4.new_notebook(cells=cells, metadata={"kernelspec": kernel, "language_info": {"name": "python"}})


def text() -> str:
    """Return the text of docs/tutorial.ipynb."""
    made = notebook()
    nbformat.validate(made)
    return nbformat.writes(made) + "\n"


if __name__ == "__main__":
    (ROOT / "docs" / "tutorial.ipynb").write_text(text())
