"""The figures of the benchmark, drawn from its results.

Knows matplotlib and rows of numbers; measures nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks import limits, measures
from benchmarks.results import Footprint, Results, Timing

SPEED, SCALING, MEMORY = "speed.png", "scaling.png", "memory.png"

# Colours that differ for every kind of colour vision, and a marker each as well.
_STYLES = {
    "ours, proportional": ("#0072b2", "o"),
    "ours, rank-based": ("#d55e00", "s"),
    "ours, uniform": ("#2b2b2b", "D"),
    "cpprb": ("#009e73", "^"),
    "cpprb, uniform": ("#009e73", "^"),
    "tianshou": ("#cc79a7", "v"),
    "tianshou, uniform": ("#cc79a7", "v"),
    "stable-baselines3, uniform": ("#e69f00", "P"),
    "torchrl": ("#56b4e9", "X"),
    limits.ROWS: ("0.45", "."),
    limits.COPY: ("0.7", "."),
}


def draw(results: Results, folder: Path) -> None:
    """Draw every figure for which there are results, and remove earlier ones of other results.

    Parameters
    ----------
    results : Results
        What was measured.
    folder : pathlib.Path
        Where the PNGs go.
    """
    for name in (SPEED, SCALING, MEMORY):
        (folder / name).unlink(missing_ok=True)
    cycles = [row for row in results.timings if row.measure == measures.CYCLE]
    if cycles:
        _draw_speed(cycles, folder / SPEED)
        _draw_scaling(cycles, folder / SCALING)
    footprints = [row for row in results.footprints if row.contender in _STYLES and row.resident]
    if footprints:
        _draw_memory(footprints, folder / MEMORY)


def _draw_speed(rows: list[Timing], path: Path) -> None:
    """Draw the time of a cycle against the batch, one panel per size."""
    sizes = sorted({row.size for row in rows})
    figure = Figure(figsize=(1.2 + 3.4 * len(sizes), 4.4), dpi=150, layout="constrained")
    grid = figure.subplots(1, len(sizes), sharey=True, squeeze=False)
    for axes, size in zip(grid[0], sizes, strict=True):
        of_size = [row for row in rows if row.size == size]
        _draw_lines(axes, of_size, lambda row: row.batch)
        batches = sorted({row.batch for row in of_size})
        axes.set_xticks(batches, [str(batch) for batch in batches])
        axes.minorticks_off()
        axes.set_xlabel("batch")
        axes.set_title(f"{size:,} rows", loc="left")
    grid[0, 0].set_ylabel("sample + update, microseconds")
    _legend(figure, grid[0, 0])
    figure.savefig(path)


def _draw_scaling(rows: list[Timing], path: Path) -> None:
    """Draw the time of a cycle against the rows in memory, one panel per batch."""
    batches = sorted({row.batch for row in rows})
    figure = Figure(figsize=(1.2 + 3.4 * len(batches), 4.4), dpi=150, layout="constrained")
    grid = figure.subplots(1, len(batches), squeeze=False)
    for axes, batch in zip(grid[0], batches, strict=True):
        _draw_lines(axes, [row for row in rows if row.batch == batch], lambda row: row.size)
        axes.set_xlabel("rows in memory")
        axes.set_title(f"batch {batch}", loc="left")
    grid[0, 0].set_ylabel("sample + update, microseconds")
    _legend(figure, grid[0, 0])
    figure.savefig(path)


def _draw_lines(axes: Axes, rows: list[Timing], across: Callable[[Timing], int]) -> None:
    for name, (colour, marker) in _STYLES.items():
        mine = sorted((row for row in rows if row.contender == name), key=across)
        if not mine:
            continue
        places = [across(row) for row in mine]
        low, high = ([1e6 * getattr(row, end) for row in mine] for end in ("low", "high"))
        axes.fill_between(places, low, high, color=colour, alpha=0.2, lw=0)
        is_limit = name.startswith("limit")
        axes.plot(
            places, [1e6 * row.seconds for row in mine], marker=marker, color=colour, label=name,
            lw=1.0 if is_limit else 1.8, ms=5, ls=":" if is_limit else "-",
        )  # fmt: skip
    axes.set(xscale="log", yscale="log")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)


def _draw_memory(rows: list[Footprint], path: Path) -> None:
    figure = Figure(figsize=(7.2, 1.2 + 0.4 * len(rows)), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    names = [row.contender for row in rows]
    colours = [_STYLES[name][0] for name in names]
    bars = axes.barh(names, [row.resident or 0.0 for row in rows], color=colours)
    axes.bar_label(bars, fmt="{:,.0f}", padding=3)
    axes.axvline(measures.DATA_BYTES, color="0.3", ls="--", lw=1.2)
    axes.set_xlabel(f"bytes per transition; dashed: the {measures.DATA_BYTES} bytes of its data")
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)
