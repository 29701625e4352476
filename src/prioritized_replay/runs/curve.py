"""The learning curve of a run, drawn from its metrics."""

from collections.abc import Mapping
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

_LEGEND = ("training", "their", "evaluation", "best", "solved")
_BLUE, _ORANGE, _GREY = "#2a6fbb", "#d9622b", "#6b6b6b"


def draw_learning_curve(
    metrics: Mapping[str, npt.NDArray[np.float64]],
    file: BinaryIO,
    *,
    title: str,
    threshold: float | None = None,
) -> None:
    """Draw training returns and evaluations over environment steps, as a PNG.

    Parameters
    ----------
    metrics : mapping of str to float64[reports]
        As ``RunFolder.metrics`` returns them.
    file : binary file
        Open for writing.
    title : str
    threshold : float, optional
        The return from which the environment counts as solved.
    """
    figure = Figure(figsize=(8, 4.5), dpi=150, layout="constrained")  # no pyplot: no global state
    axes = figure.add_subplot()
    step = metrics["step"]
    ended = ~np.isnan(metrics["last_return"])
    returns = metrics["last_return"][ended]
    axes.plot(step[ended], returns, ".", color=_BLUE, alpha=0.25, ms=4, label="training episodes")
    axes.plot(step[ended], _smooth(returns), color=_BLUE, lw=1.8, label="their moving mean")
    known = ~np.isnan(metrics["evaluation_mean"])
    if known.any():
        mean = metrics["evaluation_mean"][known]
        below = mean - metrics["evaluation_low"][known]
        above = metrics["evaluation_high"][known] - mean
        spread = np.clip([below, above], 0.0, None)
        axes.errorbar(
            *(step[known], mean, spread),
            fmt="o",
            color=_ORANGE,
            markersize=4,
            elinewidth=1,
            capsize=2,
            label="evaluation, 95 % interval",
        )
    best = np.flatnonzero(metrics["is_best"] == 1.0)
    if best.size:
        x, y = step[best[-1]], metrics["evaluation_mean"][best[-1]]
        axes.plot(x, y, "o", ms=10, mfc="none", mec=_ORANGE, mew=1.8, label="best model")
    if threshold is not None:
        axes.axhline(threshold, color=_GREY, ls="--", lw=1, label=f"solved at {threshold:g}")
    axes.margins(x=0.02, y=0.06)
    axes.set_title(title, loc="left")
    axes.set_xlabel("environment steps")
    axes.set_ylabel("return of an episode")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    entries = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    # In the order of the page, and beside the data: a curve may end in any corner.
    named = [label for start in _LEGEND for label in entries if label.startswith(start)]
    figure.legend(
        [entries[label] for label in named],
        named,
        loc="outside lower center",
        ncols=5,
        frameon=False,
        fontsize=8.5,
        handletextpad=0.5,
        columnspacing=1.5,
    )
    figure.savefig(file, format="png")


def _smooth(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the mean of each value's neighbourhood: a tenth of the run, 5 values at least."""
    window = np.ones(min(values.size, max(5, values.size // 10)))
    if not window.size:
        return values
    counts = np.convolve(np.ones(values.size), window, mode="same")  # fewer at both ends
    return np.convolve(values, window, mode="same") / counts
