"""The figure of a comparison: one evaluation curve for each sampler."""

import math
from collections.abc import Sequence
from typing import BinaryIO

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from prioritized_replay.experiments.compare.results import Point
from prioritized_replay.experiments.style import COLOURS, tidy
from prioritized_replay.training.statistics import bootstrap


def draw_comparison(points: Sequence[Point], threshold: float, file: BinaryIO) -> None:
    """Draw the evaluation curve of each arm: IQM over seeds with its 95 % bootstrap interval.

    Parameters
    ----------
    points : sequence of Point
        The evaluations of all runs.
    threshold : float
        The return from which the environment counts as solved; NaN if there is none.
    file : binary file
        Open for writing; it becomes a PNG.
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
    tidy(axes)
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(file, format="png")
