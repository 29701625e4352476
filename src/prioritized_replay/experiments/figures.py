"""The figures of the experiments, drawn from their results.

Knows matplotlib and rows of numbers; knows nothing of how they came about.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from prioritized_replay.experiments.cliffwalk.command import CliffwalkRun, median_updates
from prioritized_replay.experiments.compare.results import Point
from prioritized_replay.training.statistics import bootstrap

# The paper's colours: uniform black, oracle cyan, rank-based red, proportional blue.
COLOURS = {
    "uniform": "#2b2b2b",
    "oracle": "#1f9fae",
    "greedy": "#7d9a2f",
    "proportional": "#2a6fbb",
    "rank": "#c8372d",
}

_PANELS = {"tabular": "Tabular", "linear": "Linear, with a shared constant feature"}


def draw_cliffwalk(runs: Sequence[CliffwalkRun], path: Path) -> None:
    """Draw updates against transitions in memory: medians, and faint from least to most.

    Parameters
    ----------
    runs : sequence of CliffwalkRun
        All runs; one panel for each kind of features.
    path : pathlib.Path
        The PNG to write.
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
        _tidy(axes)
        _mark_gain(axes, ends)
    sizes = sorted({run.transitions for run in runs})
    lowest = min((run.updates for run in runs if run.updates), default=1)
    for axes in grid[0]:
        axes.plot(sizes, sizes, ":", color="0.6", lw=1.2, zorder=0, label="one per transition")
        axes.set_ylim(bottom=0.7 * lowest)
    grid[0, 0].set_ylabel("updates until learnt")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6, frameon=False)
    figure.savefig(path)


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


def draw_comparison(points: Sequence[Point], threshold: float, path: Path) -> None:
    """Draw the evaluation curve of each arm: IQM over seeds with its 95 % bootstrap interval.

    Parameters
    ----------
    points : sequence of Point
        The evaluations of all runs.
    threshold : float
        The return from which the environment counts as solved; NaN if there is none.
    path : pathlib.Path
        The PNG to write.
    """
    figure = Figure(figsize=(7.5, 4.4), dpi=150, layout="constrained")  # no pyplot, no globals
    axes = figure.add_subplot()
    for arm, colour in COLOURS.items():
        mine = [point for point in points if point.arm == arm]
        if not mine:
            continue
        steps = sorted({point.step for point in mine})
        bands = [
            bootstrap(np.array([point.evaluation_mean for point in mine if point.step == step]))
            for step in steps
        ]
        seeds = len({point.seed for point in mine})
        axes.fill_between(
            steps, [b.low for b in bands], [b.high for b in bands], color=colour, alpha=0.15, lw=0
        )
        label = f"{arm}, {seeds} seeds" if seeds > 1 else f"{arm}, 1 seed"
        axes.plot(steps, [b.value for b in bands], color=colour, lw=1.8, label=label)
    if not math.isnan(threshold):
        axes.axhline(threshold, color="0.45", ls="--", lw=1, label=f"solved: {threshold:g}")
    axes.set_title(points[0].env_id, loc="left")
    axes.set_xlabel("environment steps")
    axes.set_ylabel("evaluation return\nIQM over seeds, 95 % interval")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    _tidy(axes)
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(path)


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
