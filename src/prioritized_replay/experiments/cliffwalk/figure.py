"""The figure of the Blind Cliffwalk, drawn from its runs; the paper's figure 1."""

import math
from collections.abc import Sequence
from typing import BinaryIO

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from prioritized_replay.experiments.cliffwalk.runs import CliffwalkRun, median_updates
from prioritized_replay.experiments.style import COLOURS, tidy

_PANELS = {"tabular": "Tabular", "linear": "Linear, with a shared constant feature"}


def draw_cliffwalk(runs: Sequence[CliffwalkRun], file: BinaryIO) -> None:
    """Draw updates against transitions in memory: medians, and faint from least to most.

    Parameters
    ----------
    runs : sequence of CliffwalkRun
        All runs; one panel for each kind of features.
    file : binary file
        Open for writing; it becomes a PNG.
    """
    panels = list(dict.fromkeys(run.features for run in runs))
    figure = Figure(figsize=(1.6 + 4.2 * len(panels), 4.6), dpi=150, layout="constrained")
    grid = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)
    for axes, features in zip(grid[0], panels, strict=True):
        ends = {}
        for arm, colour in COLOURS.items():
            groups: dict[int, list[CliffwalkRun]] = {}
            for run in runs:
                if (run.features, run.arm) == (features, arm):
                    groups.setdefault(run.transitions, []).append(run)
            sizes = sorted(size for size in groups if all(r.updates for r in groups[size]))
            if not sizes:
                continue
            updates = [[run.updates or 0 for run in groups[size]] for size in sizes]
            axes.fill_between(
                sizes, [min(u) for u in updates], [max(u) for u in updates],
                color=colour, alpha=0.18, lw=0,
            )  # fmt: skip
            medians = [median_updates(groups[size]) for size in sizes]
            axes.plot(sizes, medians, "o-", color=colour, lw=1.6, ms=3, label=arm)
            ends[arm] = sizes[-1], medians[-1]
        axes.set(xscale="log", yscale="log", xlabel="transitions in memory")
        axes.set_title(_PANELS[features], loc="left")
        tidy(axes)
        _mark_gain(axes, ends)
    sizes = sorted({run.transitions for run in runs})
    lowest = min((run.updates for run in runs if run.updates), default=1)
    for axes in grid[0]:
        axes.plot(sizes, sizes, ":", color="0.6", lw=1.2, zorder=0, label="one per transition")
        axes.set_ylim(bottom=0.7 * lowest)
    grid[0, 0].set_ylabel("updates until learnt")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6, frameon=False)
    figure.savefig(file, format="png")


def _mark_gain(axes: Axes, ends: dict[str, tuple[int, float]]) -> None:
    """Say how many times fewer updates proportional replay needs, beside the largest memory."""
    if "uniform" not in ends or "proportional" not in ends:
        return
    (size, high), (other, low) = ends["uniform"], ends["proportional"]
    if size != other:
        return
    beside = 1.5 * size
    axes.annotate(
        "", (beside, low), (beside, high), arrowprops={"arrowstyle": "<->", "color": "0.4"}
    )
    axes.annotate(
        f"{high / low:.1f}\N{MULTIPLICATION SIGN}", (beside, math.sqrt(high * low)),
        xytext=(4, 0), textcoords="offset points", va="center", color="0.25",
    )  # fmt: skip
    axes.set_xlim(right=6 * size)
