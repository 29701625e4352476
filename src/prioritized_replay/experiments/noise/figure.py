"""The figure of the chain with noise, drawn from what its runs amount to."""

from collections.abc import Sequence
from typing import BinaryIO

from matplotlib.figure import Figure

from prioritized_replay.experiments.noise.results import NoiseMeasure
from prioritized_replay.experiments.noise.task import SOLVED
from prioritized_replay.experiments.style import COLOURS, tidy

_LEAN = COLOURS["oracle"]  # what leans less on the errors
_BOTH = {"uniform": (COLOURS["uniform"], "-"), SOLVED: ("0.6", ":")}
_PANELS = {
    "Proportional": {
        "proportional": (COLOURS["proportional"], "-"),
        "proportional-unweighted": (COLOURS["proportional"], "--"),
        "proportional-floor": (_LEAN, "-"),
        "proportional-unweighted-floor": (_LEAN, "--"),
        "proportional-corrected": ("#8a5fb0", "-"),
        "lap": (COLOURS["greedy"], "-"),
    },
    "Rank-based": {
        "rank": (COLOURS["rank"], "-"),
        "rank-unweighted": (COLOURS["rank"], "--"),
        "rank-mix": ("#e0973d", "-"),
        "rank-unweighted-mix": ("#e0973d", "--"),
    },
}


def draw_noise(found: Sequence[NoiseMeasure], file: BinaryIO) -> None:
    """Draw the error of the values against the noise: medians and their 95 % intervals.

    Parameters
    ----------
    found : sequence of NoiseMeasure
    file : binary file
        Open for writing; it becomes a PNG.
    """
    figure = Figure(figsize=(10.0, 5.0), dpi=150, layout="constrained")
    grid = figure.subplots(1, 2, sharex=True, sharey=True)
    value = {(m.sigma, m.arm, m.measure): m.value for m in found}
    for axes, (title, lines) in zip(grid, _PANELS.items(), strict=True):
        for arm, (colour, dashes) in (_BOTH | lines).items():
            sigmas = sorted({m.sigma for m in found if m.arm == arm})
            if not sigmas:
                continue
            low, middle, high = (
                [value[s, arm, name] for s in sigmas] for name in ("low", "error", "high")
            )
            axes.fill_between(sigmas, low, high, color=colour, alpha=0.12, lw=0)
            axes.plot(sigmas, middle, dashes, marker="o", color=colour, lw=1.6, ms=3, label=arm)
        axes.set(xlabel="standard deviation of the noise")
        axes.set_title(title, loc="left")
        tidy(axes)
        axes.legend(frameon=False, fontsize=8)
    grid[0].set_ylabel("error of the values")
    figure.savefig(file, format="png")
