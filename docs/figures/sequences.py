"""Draw what a sequence is: two episodes, the sequences among their steps, burn-in and padding.

The sequences are those that the library lets be drawn. Run from the root of the repository::

    python docs/figures/sequences.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.patches import Patch, Rectangle

import prioritized_replay as per

EPISODES = 11, 4
LENGTH, BURN_IN, OVERLAP = 6, 2, 3
STEP, TRAINED, WARMED, PADDING, INK = "#eef3f7", "#7fb2d9", "#ffd166", "#ffffff", "#22333b"
GAP = 3.2  # between two episodes, in steps


def cell(
    ax: plt.Axes, x: float, y: float, colour: str, text: str = "", dashed: bool = False
) -> None:
    style = (0, (2, 2)) if dashed else "solid"
    ax.add_patch(Rectangle((x, y), 1, 0.8, facecolor=colour, edgecolor=INK, lw=0.8, ls=style))
    ax.text(x + 0.5, y + 0.38, text, ha="center", va="center", fontsize=10, color=INK)


def draw() -> plt.Figure:
    fields = {"obs": per.Field(), "action": per.Field((), "int64"), "reward": per.Field()}
    sequence = per.Sequence(LENGTH, burn_in=BURN_IN, overlap=OVERLAP)
    replay = per.ReplayBuffer(sum(EPISODES), fields, sequence=sequence)
    fig, ax = plt.subplots(figsize=(12, 3.6))
    left = 0.0
    for number, steps in enumerate(EPISODES):
        ids = replay.add_episode(range(steps + 1), [0] * steps, [0.0] * steps, terminated=True)
        for step in range(steps):
            cell(ax, left + step, 0.0, STEP, str(step))
        ax.text(left, 1.05, f"an episode of {steps} steps", color=INK)
        batch = replay.get(ids)
        for row, (begins, real) in enumerate(zip(batch.obs[:, 0], batch.mask, strict=True)):
            for k in range(LENGTH):
                colour = WARMED if k < BURN_IN else TRAINED
                text = f"{batch.obs[row, k]:g}" if real[k] else "0"
                place = left + begins + k
                cell(ax, place, -1.2 - row, colour if real[k] else PADDING, text, not real[k])
            ends = number == 0 and row == len(ids) - 1
            if ends:
                ax.text(left - 0.2, -0.85 - row, "one more, where\nthe episode ends", va="center",
                        ha="right", fontsize=9, color=INK)  # fmt: skip
        left += max(steps, LENGTH) + GAP
    ax.legend(
        handles=[
            Patch(facecolor=WARMED, edgecolor=INK, label="burn-in"),
            Patch(facecolor=TRAINED, edgecolor=INK, label="trained"),
            Patch(facecolor=PADDING, edgecolor=INK, ls="--", label="padding (mask is False)"),
        ],
        loc="lower right",
        frameon=False,
    )
    ax.set_title(
        f"length {LENGTH}, burn-in {BURN_IN}, overlap {OVERLAP}: a sequence begins every "
        f"{LENGTH - OVERLAP} steps",
        color=INK,
        loc="left",
    )
    ax.set(xlim=(-3.4, left - GAP + 0.4), ylim=(-4.6, 1.9), aspect="equal")
    ax.axis("off")
    return fig


if __name__ == "__main__":
    mpl.use("agg")
    mpl.rcParams.update({"svg.hashsalt": "sequences", "font.family": "DejaVu Sans"})
    path = Path(__file__).with_suffix(".svg")
    draw().savefig(path, bbox_inches="tight", pad_inches=0.05, metadata={"Date": None})
    print(f"wrote {path}")
