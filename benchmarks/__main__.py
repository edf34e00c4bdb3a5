"""Runs the benchmarks: a table of ratios to stdout, benchmarks.json and a picture to a folder; progress to stderr."""

import argparse
import json
import os
import platform
import subprocess
import sys
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks import picture
from benchmarks.page import measured, with_measured
from benchmarks.peers import PEERS
from benchmarks.rows import ROOT, Row, compare, reason, table
from benchmarks.steps import microseconds

# modules, each with measure(runs)
PARTS = (
    "start",
    "whole",
    "steps",
    "combinations",
    "sweeps",
    "choosing",
    "processes",
    "closed_form",
    "tables",
    "mapped",
)
PAGE = ROOT / "docs" / "performance.md"


def cpu_model() -> str:
    """Name the processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def commit() -> str:
    """Name the commit that is measured, with a + where files differ from it; empty without git."""

    def git(*arguments: str) -> str:
        ended = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        return ended.stdout.strip()

    try:
        return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain") else "")
    except FileNotFoundError:
        return ""


def versions() -> dict[str, str]:
    """Return the versions of linreg and of each installed package that is measured."""
    found = {"python": platform.python_version()}
    for name in ["linreg", "numpy", *dict.fromkeys(name for peer in PEERS.values() for name in peer.packages)]:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """Describe the machine, without its name."""
    import torch

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "memory": f"{memory / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }


def read(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="NAME", help=", ".join(PARTS))
    parser.add_argument("--runs", type=int, default=5, help="measurements of each, of which the median counts")
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks"), help="the folder for JSON and picture")
    parser.add_argument("--page", action="store_true", help="write docs/performance.md and its picture too")
    arguments = parser.parse_args(argv)
    if arguments.page and len(arguments.only) < len(PARTS):
        parser.error("--page needs all parts, so leave out --only")
    return arguments


def rows_of(part: str, runs: int) -> list[Row]:
    """Measure a part. Where it breaks a row says why: what others measure in many minutes is not lost with it."""
    print(f"{part} ...", file=sys.stderr)
    try:
        found: list[Row] = import_module(f"benchmarks.{part}").measure(runs)
    except Exception:
        complaints = traceback.format_exc()
        print(complaints, file=sys.stderr)
        return [compare("", "", None, None, note=reason(complaints))]
    return found


def main(argv: Sequence[str]) -> None:
    """Measure, write, print. The JSON is written after each part."""
    arguments = read(argv)
    head: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "command": f"python -m benchmarks {' '.join(argv)}".strip(),
        "runs": arguments.runs,
        "machine": machine(),
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    parts: dict[str, list[Row]] = {}
    for part in (name for name in PARTS if name in arguments.only):
        parts[part] = rows_of(part, arguments.runs)
        found = {**head, "rows": [{"part": name, **asdict(row)} for name, rows in parts.items() for row in rows]}
        (arguments.out / "benchmarks.json").write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n")

    steps = microseconds(parts.get("steps", []))
    pictures = [arguments.out / "benchmarks.png", *([PAGE.with_suffix(".png")] if arguments.page else [])]
    for path in pictures if steps else ():
        picture.draw(steps, path)
    if arguments.page:
        text = measured(parts, steps, head["machine"], arguments.runs)
        PAGE.write_text(with_measured(PAGE.read_text(), text))
    print(table(parts), end="")


if __name__ == "__main__":
    main(sys.argv[1:])
