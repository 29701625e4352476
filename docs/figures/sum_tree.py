"""Draw the sum tree of the reference page: 24 rows, 8 to a node, and one search through it.

The sums and the row found are the library's own. Run from the root of the repository::

    python docs/figures/sum_tree.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.patches import Rectangle

from prioritized_replay.sampling.sum_tree import FANOUT, SumTree

MASSES = [3, 0, 2, 1, 0, 4, 1, 2, 0, 1, 5, 0, 2, 0, 1, 3, 2, 0, 0, 6, 1, 0, 0, 0]
TARGET = 20.0
FOUND, PLAIN, INK = "#ffd166", "#eef3f7", "#22333b"
MARGIN = 1.4  # between two nodes, in cells


def cell(ax: plt.Axes, x: float, y: float, text: str, below: str, found: bool) -> None:
    ax.add_patch(Rectangle((x, y), 1, 1, facecolor=FOUND if found else PLAIN, edgecolor=INK))
    ax.text(x + 0.5, y + 0.5, text, ha="center", va="center", fontsize=12, color=INK)
    ax.text(x + 0.5, y - 0.35, below, ha="center", va="center", fontsize=8, color=INK)


def draw() -> plt.Figure:
    masses = np.array(MASSES, np.float64)
    tree = SumTree(masses.size)
    tree.set(np.arange(masses.size), masses)
    slot = int(tree.find(np.array([TARGET]))[0][0])
    nodes = masses.reshape(-1, FANOUT)
    sums, node = tree.levels[1], slot // FANOUT

    width = len(nodes) * FANOUT + (len(nodes) - 1) * MARGIN
    fig, ax = plt.subplots(figsize=(12, 4.4))
    top, middle, bottom = 6.0, 3.2, 0.0
    left = (width - FANOUT) / 2
    cell(ax, width / 2 - 0.5, top, f"{tree.total:g}", "", found=True)
    ax.text(width / 2 + 0.8, top + 0.5, f"total; draw x = {TARGET:g}", va="center", color=INK)
    for k in range(FANOUT):
        text = f"{sums[k]:g}" if k < len(nodes) else "0"
        cell(ax, left + k, middle, text, "", found=k == node)
    ax.plot([width / 2, width / 2], [top, middle + 1], color=INK, lw=1)
    before = sums[:node].sum()
    ax.text(
        left + FANOUT + 0.4,
        middle + 0.5,
        f"{before:g} lie before: {TARGET:g} - {before:g} = {TARGET - before:g} remain",
        va="center",
        color=INK,
    )
    for n, row in enumerate(nodes):
        x = n * (FANOUT + MARGIN)
        for k, mass in enumerate(row):
            index = n * FANOUT + k
            cell(ax, x + k, bottom, f"{mass:g}", str(index), found=index == slot)
        ax.plot([left + n + 0.5, x + FANOUT / 2], [middle, bottom + 1], color=INK, lw=1)
    inside = masses[node * FANOUT : slot].sum()
    ax.text(
        node * (FANOUT + MARGIN) + FANOUT / 2,
        bottom - 1.0,
        f"{inside:g} lie before slot {slot}, {inside + masses[slot]:g} with it",
        ha="center",
        va="center",
        color=INK,
    )
    ax.set_xlim(-0.2, width + 0.2)
    ax.set_ylim(-1.4, top + 1.2)
    ax.set_aspect("equal")
    ax.axis("off")
    return fig


if __name__ == "__main__":
    mpl.use("agg")
    mpl.rcParams.update({"svg.hashsalt": "sum_tree", "font.family": "DejaVu Sans"})
    path = Path(__file__).with_suffix(".svg")
    draw().savefig(path, bbox_inches="tight", pad_inches=0.05, metadata={"Date": None})
    print(f"wrote {path}")
