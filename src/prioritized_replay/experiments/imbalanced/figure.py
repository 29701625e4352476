"""The figure of the imbalanced digits: test error while the networks learn."""

from collections.abc import Sequence
from typing import BinaryIO

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from prioritized_replay.experiments.imbalanced.results import mean_of
from prioritized_replay.experiments.imbalanced.task import Point
from prioritized_replay.experiments.style import COLOURS, tidy

# The arms that other experiments have keep their colours.
_COLOURS = {
    "uniform": COLOURS["uniform"],
    "proportional": COLOURS["proportional"],
    "corrected": COLOURS["oracle"],
    "weighted": COLOURS["greedy"],
}
_LABELS = {
    "uniform": "uniform",
    "proportional": "proportional",
    "corrected": "proportional, corrected by weights",
    "weighted": "weighted by class",
}


def draw_imbalanced(points: Sequence[Point], file: BinaryIO) -> None:
    """Draw test error against steps: means over seeds and their 95 % intervals.

    Parameters
    ----------
    points : sequence of Point
        Of finished runs; one panel for each share.
    file : binary file
        Open for writing; it becomes a PNG.
    """
    shares = sorted({point.rare_share for point in points})
    figure = Figure(figsize=(1.0 + 4.2 * len(shares), 4.4), dpi=150, layout="constrained")
    grid = figure.subplots(1, len(shares), sharex=True, sharey=True, squeeze=False)
    for axes, share in zip(grid[0], shares, strict=True):
        for arm, colour in _COLOURS.items():
            errors: dict[int, list[float]] = {}
            for point in points:
                if (point.rare_share, point.arm) == (share, arm):
                    errors.setdefault(point.step, []).append(point.error)
            if not errors:
                continue
            steps = sorted(errors)
            means = [mean_of(np.array(errors[step])) for step in steps]
            axes.fill_between(
                steps, [m.low for m in means], [m.high for m in means],
                color=colour, alpha=0.18, lw=0,
            )  # fmt: skip
            axes.plot(steps, [m.value for m in means], color=colour, lw=1.6, label=_LABELS[arm])
        axes.set(xlabel="minibatches", ylim=(0.0, None))
        axes.set_title(f"{share:.0%} of the images of classes 0 to 4", loc="left")
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        tidy(axes)
    grid[0, 0].set_ylabel("error on balanced test images")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(file, format="png")
