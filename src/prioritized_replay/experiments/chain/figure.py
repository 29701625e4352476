"""The figure of the chain, drawn from its runs."""

from collections.abc import Sequence
from typing import BinaryIO

from matplotlib.figure import Figure

from prioritized_replay.experiments.chain.results import ChainRun, estimate
from prioritized_replay.experiments.style import COLOURS, tidy

# A colour for the law; dashed where no weights undo the bias of the draw.
LINES = {
    "uniform": (COLOURS["uniform"], "-"),
    "proportional": (COLOURS["proportional"], "-"),
    "proportional-unweighted": (COLOURS["proportional"], "--"),
    "rank": (COLOURS["rank"], "-"),
    "rank-unweighted": (COLOURS["rank"], "--"),
    "lap": (COLOURS["greedy"], ":"),
    "lap-scaled": (COLOURS["greedy"], "-"),
}
_PANELS = {"values": "Values right", "policy": "Greedy policy right"}


def draw_chain(runs: Sequence[ChainRun], file: BinaryIO) -> None:
    """Draw updates against the length of the chain: medians and their 95 % intervals.

    Parameters
    ----------
    runs : sequence of ChainRun
        All runs. One that was not right in time counts with the updates it had.
    file : binary file
        Open for writing; it becomes a PNG.
    """
    figure = Figure(figsize=(10.0, 4.6), dpi=150, layout="constrained")
    grid = figure.subplots(1, 2, sharex=True, sharey=True)
    lengths = sorted({run.n for run in runs})
    for axes, (of, title) in zip(grid, _PANELS.items(), strict=True):
        for arm, (colour, dashes) in LINES.items():
            groups = [[run for run in runs if (run.n, run.arm) == (n, arm)] for n in lengths]
            if not any(groups):
                continue
            found = [estimate(group, of) for group in groups]
            axes.fill_between(
                lengths, [e.low for e in found], [e.high for e in found],
                color=colour, alpha=0.12, lw=0,
            )  # fmt: skip
            axes.plot(
                lengths, [e.value for e in found], dashes, marker="o",
                color=colour, lw=1.6, ms=3, label=arm,
            )  # fmt: skip
        axes.set(xscale="log", yscale="log", xlabel="states in the chain")
        axes.set_xticks(lengths, [str(n) for n in lengths])
        axes.minorticks_off()
        axes.set_title(title, loc="left")
        tidy(axes)
    grid[0].set_ylabel("updates of 32 rows")
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(file, format="png")
