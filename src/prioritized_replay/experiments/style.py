"""What the figures of all experiments share: a colour for each way of replay, and clean axes."""

from matplotlib.axes import Axes

# The paper's colours: uniform black, oracle cyan, rank-based red, proportional blue.
COLOURS = {
    "uniform": "#2b2b2b",
    "oracle": "#1f9fae",
    "greedy": "#7d9a2f",
    "proportional": "#2a6fbb",
    "rank": "#c8372d",
    "lap": "#8a5bb0",
    "alpha-0": "#9a9a9a",
}


def tidy(axes: Axes) -> None:
    """Leave out the upper and the right border, and add a faint grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
