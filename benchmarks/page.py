"""Writes the results of `make bench` between two marks of docs/performance.md; the rest is handwritten."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.peers import WORKLOADS
from benchmarks.rows import Row, markdown, quantity, table

FOLD, UNFOLD = ["<details>", "<summary>All rows</summary>", ""], "\n</details>\n"
BEGIN, END = "<!-- measured: begin -->\n", "<!-- measured: end -->\n"


def step_table(steps: Mapping[str, Mapping[str, float]]) -> str:
    """Write the microseconds a step as a table: a line a tool, a column a workload."""
    lines = [[tool, *(quantity(times.get(workload), "µs") for workload in WORKLOADS)] for tool, times in steps.items()]
    return markdown(["", *(workload.title for workload in WORKLOADS.values())], lines)


def _of_steps(steps: Mapping[str, Mapping[str, float]]) -> list[str]:
    picture = "![Microseconds a training step, by tool](performance.png)"
    return ["### Microseconds a step", "", picture, "", step_table(steps)]


def machine_line(machine: Mapping[str, Any]) -> str:
    """Write what the numbers were measured on."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    cores = f"{machine['cores']} cores" if machine["cores"] != 1 else "1 core"
    threads = f"{machine['threads']} torch threads; a step on one thread"
    return f"{machine['cpu']}, {cores}, {machine['memory']}, {machine['system']}; {threads}. {versions}."


def measured(
    parts: Mapping[str, Sequence[Row]],
    steps: Mapping[str, Mapping[str, float]],
    machine: Mapping[str, Any],
    runs: int,
) -> str:
    """Write the measured part of the page."""
    return "\n".join([
        f"Medians of {runs} runs taken in turn, by `make bench`. {machine_line(machine)}",
        "",
        *(_of_steps(steps) if steps else ()),
        "### Ratios",
        "",
        "A ratio without x is linreg's to the other's: lower is better. With x it is how many times as fast linreg is.",
        "",
        *FOLD,
        table(parts) + UNFOLD,
    ])  # fmt: skip


def with_measured(page: str, found: str) -> str:
    """Replace the text between the marks of a page."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no {BEGIN.strip()} and {END.strip()} in this order")
    return f"{before}{BEGIN}{found}{END}{after}"
