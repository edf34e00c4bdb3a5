"""The picture of the steps: a bar of microseconds for each tool, on a log scale, ours in colour."""

from collections.abc import Mapping
from pathlib import Path

from benchmarks.peers import WORKLOADS
from benchmarks.rows import quantity

OURS, OTHERS, TEXT = "#1f6f8b", "#b9bec4", "#333333"
BAR, PANEL = 0.25, 0.62  # inches: a bar; a panel's title and the gap below it


def draw(steps: Mapping[str, Mapping[str, float]], path: Path) -> None:
    """Draw the steps, microseconds by tool and workload, to a PNG: a panel a workload, the fastest tool on top."""
    from matplotlib.figure import Figure

    panels = {
        workload: sorted((value, tool) for tool, times in steps.items() if (value := times.get(workload)))
        for workload in WORKLOADS
    }
    panels = {workload: bars for workload, bars in panels.items() if bars}
    sizes = [len(bars) for bars in panels.values()]
    height = sum(sizes) * BAR + len(panels) * PANEL + 0.4
    figure = Figure(figsize=(8.5, height), layout="constrained")
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=sizes)[:, 0]
    shortest, longest = min(bars[0][0] for bars in panels.values()), max(bars[-1][0] for bars in panels.values())
    for axis, (workload, bars) in zip(axes, panels.items(), strict=True):
        values, tools = zip(*bars, strict=True)
        ours = [tool.startswith("linreg") for tool in tools]
        axis.barh(range(len(bars)), values, height=0.72, color=[OURS if mine else OTHERS for mine in ours])
        for place, (value, mine) in enumerate(zip(values, ours, strict=True)):
            axis.annotate(
                quantity(value, "µs"),
                (value, place),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
                color=TEXT,
                weight="bold" if mine else "normal",
            )
        axis.set_yticks(range(len(bars)), tools, fontsize=8.5, color=TEXT)
        for label, mine in zip(axis.get_yticklabels(), ours, strict=True):
            label.set(weight="bold" if mine else "normal", color=OURS if mine else TEXT)
        axis.set_ylim(len(bars) - 0.4, -0.6)
        axis.set_xscale("log")
        axis.set_xlim(shortest / 3, longest * 4)  # a bar for the shortest, room for the number beside the longest
        axis.set_title(WORKLOADS[workload].title, loc="left", fontsize=10, color=TEXT)
        axis.tick_params(axis="y", length=0)
        axis.tick_params(axis="x", labelsize=8, colors=TEXT, labelbottom=True)
        axis.tick_params(axis="x", which="minor", length=0)
        axis.xaxis.set_major_formatter("{x:g}")
        axis.grid(axis="x", color="#e6e8ea", linewidth=0.7)
        axis.set_axisbelow(True)
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.spines["bottom"].set_color("#cccccc")
    axes[-1].set_xlabel("microseconds a training step (log scale, shorter is faster)", fontsize=9, color=TEXT)
    figure.savefig(path, dpi=150)
