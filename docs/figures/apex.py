"""Draw which process of Ape-X sends what to which. Run from the root of the repository::

python docs/figures/apex.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

INK, PLAYS, LEARNS, KEEPS, STORE = "#22333b", "#ffd166", "#7fb2d9", "#d5ead8", "#eef3f7"


def box(ax: plt.Axes, x: float, y: float, wide: float, high: float, colour: str, text: str) -> None:
    ax.add_patch(
        FancyBboxPatch(
            (x, y),
            wide,
            high,
            boxstyle="round,pad=0,rounding_size=0.12",
            facecolor=colour,
            edgecolor=INK,
            lw=1.0,
        )
    )
    ax.text(x + wide / 2, y + high / 2, text, ha="center", va="center", fontsize=9.5, color=INK)


def arrow(
    ax: plt.Axes, start: tuple[float, float], end: tuple[float, float], bend: float = 0.0
) -> None:
    ax.add_patch(
        FancyArrowPatch(
            start,
            end,
            arrowstyle="-|>",
            mutation_scale=11,
            color=INK,
            lw=1.0,
            connectionstyle=f"arc3,rad={bend}",
            shrinkA=1,
            shrinkB=1,
        )
    )


def label(ax: plt.Axes, x: float, y: float, text: str, side: str = "center") -> None:
    ax.text(x, y, text, ha=side, va="center", fontsize=9, color=INK, style="italic")


def draw() -> plt.Figure:
    fig, ax = plt.subplots(figsize=(11.5, 4.6))
    for number, name in enumerate(("actor 0", "actor 1", "actor N - 1")):
        y = 3.9 - 1.55 * number
        box(ax, 0, y, 2.5, 1.0, PLAYS, f"{name}\nenvironments, network")
        for shard in range(2):
            arrow(ax, (2.5, y + 0.5), (6.2, 3.75 - 2.1 * shard))
    label(ax, 1.25, 2.12, "...")
    for shard, name in enumerate(("shard 0", "shard K - 1")):
        box(ax, 6.2, 3.2 - 2.1 * shard, 2.1, 1.0, KEEPS, f"{name}\nrows, priorities")
        y = 3.7 - 2.1 * shard
        arrow(ax, (8.3, y + 0.15), (10.8, 2.95 if shard == 0 else 2.6))
        arrow(ax, (10.8, 2.75 if shard == 0 else 2.4), (8.3, y - 0.2))
    box(ax, 10.8, 2.1, 2.9, 1.1, LEARNS, "learner: this command\nupdates, evaluations")
    box(ax, 4.2, -0.6, 4.0, 0.7, STORE, "parameters, in Ray's object store")
    arrow(ax, (12.2, 2.1), (8.2, -0.25), -0.25)
    arrow(ax, (4.2, -0.25), (1.25, 0.8), -0.25)
    label(ax, 2.75, 4.72, "n-step rows with their first priorities", "left")
    label(ax, 9.9, 3.85, "batches, drawn ahead")
    label(ax, 9.2, 1.0, "priorities, in blocks", "left")
    arrow(ax, (12.2, 3.2), (2.5, 4.9), 0.22)
    label(ax, 8.4, 5.75, "work of 100 steps; reports come back")
    ax.set_xlim(-0.1, 13.8)
    ax.set_ylim(-0.7, 6.0)
    ax.axis("off")
    return fig


if __name__ == "__main__":
    mpl.use("agg")
    mpl.rcParams.update({"svg.hashsalt": "apex", "font.family": "DejaVu Sans"})
    path = Path(__file__).with_suffix(".svg")
    draw().savefig(path, bbox_inches="tight", pad_inches=0.05, metadata={"Date": None})
    print(f"wrote {path}")
