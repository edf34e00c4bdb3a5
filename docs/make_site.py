"""Write build/site from the pages of the repository, without a network: `make site`.

The pages are written for readers of the repository. MkDocs reads copies of them, in which links lead to pages of the
site, and lists and tables are in the Markdown that it knows. A linked file that is not a page becomes one.
"""

import os
import re
import shutil
from pathlib import Path

from mkdocs.commands.build import build
from mkdocs.config import load_config

ROOT = Path(__file__).parent.parent
CONFIG = ROOT / "docs" / "site" / "mkdocs.yml"
PAGES = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")]
PAGES += sorted((ROOT / "docs").glob("*.md"))
COPIED = [
    path
    for pattern in ("*.png", "*.ipynb", "site/*.css", "site/*.js")
    for path in sorted((ROOT / "docs").glob(pattern))
]

FENCE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[([^\]]*)\]\(([^)\s#:]+)(#[^)\s]*)?\)")
LANGUAGES = {".py": "python", ".yaml": "yaml"}


def place(path: Path) -> str:
    """Return where a file of the repository is in the site's sources, as a path relative to them."""
    if path == ROOT / "README.md":
        return "index.md"
    if path in PAGES or path in COPIED:
        return path.name.lower() if path.parent == ROOT else path.name
    return f"files/{path.relative_to(ROOT).as_posix()}.md"


def for_the_site(text: str, path: Path) -> tuple[str, list[Path]]:
    """Return the text of a page in the Markdown of MkDocs, and the files that it links."""
    linked = []

    def link(match: re.Match[str]) -> str:
        words, address, anchor = match.groups()
        target = (path.parent / address).resolve()
        if not target.is_file():
            return match[0]  # MkDocs reports it
        linked.append(target)
        if words == address and target in PAGES:  # the title says more than the name of a file
            words = target.read_text().partition("\n")[0].removeprefix("# ")
        return f"[{words}]({os.path.relpath(place(target), Path(place(path)).parent)}{anchor or ''})"

    parts = FENCE.split(text)
    for i in range(0, len(parts), 2):  # between the fences
        part = LINK.sub(link, parts[i])
        part = re.sub(r"^  - ", "    - ", part, flags=re.MULTILINE)  # a list in a list
        part = re.sub(r"`[^`\n]*`", lambda code: code[0].replace(r"\|", "|"), part)  # code in a cell of a table
        parts[i] = part
    return "".join(parts), linked


def write_pages(folder: Path) -> None:
    """Write the sources of the site: every page, every picture, and a page for each other file that a page links."""
    for path in COPIED:
        shutil.copy(path, folder / place(path))
    others = set()
    for path in PAGES:
        text, linked = for_the_site(path.read_text(), path)
        (folder / place(path)).write_text(text)
        others |= {file for file in linked if file not in PAGES and file not in COPIED}
    for path in others:
        file = folder / place(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        name, language = path.relative_to(ROOT).as_posix(), LANGUAGES.get(path.suffix, "text")
        file.write_text(f"# {name}\n\n```{language}\n{path.read_text()}```\n")


def build_site(folder: Path) -> Path:
    """Build the site in FOLDER/site, and return that folder. MkDocs aborts after any warning, as of a broken link."""
    pages, site = folder / "pages", folder / "site"
    shutil.rmtree(pages, ignore_errors=True)
    pages.mkdir(parents=True)
    write_pages(pages)
    build(load_config(str(CONFIG), docs_dir=str(pages), site_dir=str(site), strict=True))
    return site


if __name__ == "__main__":
    print(build_site(ROOT / "build") / "index.html")
