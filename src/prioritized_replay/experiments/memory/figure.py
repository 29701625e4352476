"""The figure of old priorities and small memories, drawn from what their runs amount to."""

from collections.abc import Sequence
from typing import BinaryIO

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from prioritized_replay.experiments.memory.results import MemoryMeasure
from prioritized_replay.experiments.style import COLOURS, tidy

_RULES = {
    "oldest": COLOURS["uniform"],
    "random": COLOURS["greedy"],
    "lowest": COLOURS["rank"],
    "inverse": COLOURS["proportional"],
}
_Values = dict[tuple[str, str, str, str], float]


def draw_memory(found: Sequence[MemoryMeasure], file: BinaryIO) -> None:
    """Draw updates for every way to keep priorities young, and for every rule and capacity.

    Parameters
    ----------
    found : sequence of MemoryMeasure
        Medians and their 95 % intervals.
    file : binary file
        Open for writing; it becomes a PNG.
    """
    figure = Figure(figsize=(10.0, 4.4), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2)
    value = {(m.part, m.case, m.way, m.measure): m.value for m in found}
    _draw_staleness(left, value)
    _draw_eviction(right, value)
    figure.savefig(file, format="png")


def _draw_staleness(axes: Axes, value: _Values) -> None:
    ways = list(dict.fromkeys(way for part, _, way, _ in value if part == "staleness"))
    laws = list(dict.fromkeys(case for part, case, _, _ in value if part == "staleness"))
    for shift, law in enumerate(laws):
        shown = [way for way in ways if ("staleness", law, way, "updates") in value]
        low, middle, high = (
            [value["staleness", law, way, name] for way in shown]
            for name in ("low", "updates", "high")
        )
        places = [ways.index(way) + 0.2 * shift - 0.1 for way in shown]
        axes.vlines(places, low, high, color=COLOURS[law], lw=1.6)
        axes.plot(places, middle, "o", color=COLOURS[law], ms=5, label=law)
    axes.set_xticks(range(len(ways)), ways, rotation=30, ha="right")
    axes.set(ylim=(0, None), ylabel="updates until the values are right", xlabel="refreshed")
    axes.set_title("Younger priorities", loc="left")
    axes.legend(frameon=False)
    tidy(axes)


def _draw_eviction(axes: Axes, value: _Values) -> None:
    axes.set(xscale="log", xlabel="rows in memory")
    axes.minorticks_off()
    for rule, colour in _RULES.items():
        sizes = sorted(
            int(case) for part, case, way, m in value
            if (part, way, m) == ("eviction", rule, "updates")
        )  # fmt: skip
        if not sizes:
            continue
        low, middle, high = (
            [value["eviction", str(size), rule, name] for size in sizes]
            for name in ("low", "updates", "high")
        )
        axes.fill_between(sizes, low, high, color=colour, alpha=0.12, lw=0)
        axes.plot(sizes, middle, "o-", color=colour, lw=1.6, ms=4, label=rule)
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.set_ylim(bottom=0)
    axes.set_title("Which row gives way", loc="left")
    axes.legend(frameon=False)
    tidy(axes)
