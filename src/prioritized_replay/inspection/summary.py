"""The summary in a terminal: findings, numbers, the shape of the priorities, the highest rows."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from prioritized_replay.inspection import numbers
from prioritized_replay.inspection.charts import histogram, number
from prioritized_replay.inspection.findings import NAMES, Finding
from prioritized_replay.inspection.portrait import Portrait
from prioritized_replay.inspection.record import Record
from prioritized_replay.runs.console import say

_BLOCKS = "▁▂▃▄▅▆▇█"
_ROWS = 5  # of the highest: the page has more
NO_CHECKPOINT = (
    "The run has no checkpoint, so its priorities are gone: --keep-checkpoint keeps them."
)
HOW_OFTEN = (
    "A row has one bit, drawn or not, and not a count: how often each was drawn is not recorded."
)
HEALTHY = "Nothing wrong was found."


def say_summary(
    console: Console,
    path: Path,
    portrait: Portrait | None,
    record: Record | None,
    found: Sequence[Finding],
    highest: Sequence[int],
    absent: str = NO_CHECKPOINT,
) -> None:
    """Print everything.

    Parameters
    ----------
    console : rich.console.Console
    path : pathlib.Path
    portrait, record
        What there is of both.
    found : sequence of Finding
    highest : sequence of int
        Places in the census of the highest priorities, the highest first.
    absent : str
        Why there is no portrait, if there is none.
    """
    what = f"a run of {record.env_id}" if record else "a checkpoint"
    say(console, f"{path}: {what}")
    if portrait is not None:
        say(console, f"{portrait.kind}, {portrait.summary}")
        say(console, f"{portrait.sampler}")
    say(console, "")
    for finding in found:
        console.print(Text(f"! {NAMES[finding.name]}", style="bold red"))
        say(console, textwrap.indent(textwrap.fill(finding.text, 96), "  "))
    if not found:
        console.print(Text(HEALTHY, style="green"))
    say(console, "")
    rows = numbers.of_run(record) if record else []
    rows += numbers.of_memory(portrait)[1:] if portrait else []
    for name, value, remark in rows:
        say(console, f"  {name:<18}{value:>12}   {remark}")
    if portrait is None:
        say(console, f"\n{absent}")
        return
    if portrait.size:
        say(console, "")
        _say_shape(console, portrait)
        console.print(_table("highest priorities", portrait, highest[:_ROWS]))
        drawn = portrait.highest_drawn(_ROWS).tolist()
        if drawn and not portrait.census.drawn[list(highest[:_ROWS])].all():
            console.print(_table("highest of those that were drawn", portrait, drawn))
        say(console, HOW_OFTEN)


def _say_shape(console: Console, portrait: Portrait) -> None:
    """Print the distribution of priorities, and of draws over ages, a block for each part."""
    found = histogram(portrait.census.priorities)
    if found is not None:
        low, high = number(float(found.edges[0])), number(float(found.edges[-1]))
        say(console, f"  priorities   {low} {_blocks(found.counts)} {high}")
    draws, never = numbers.by_age(portrait)
    say(console, f"  draws        new {_blocks(draws)} old")
    say(console, f"  never drawn  new {_blocks(never)} old")


def _blocks(heights: np.ndarray) -> str:
    top = float(heights.max())
    if top <= 0.0:
        return _BLOCKS[0] * heights.size
    places = np.ceil(heights / top * (len(_BLOCKS) - 1)).astype(int)
    return "".join(_BLOCKS[place] for place in places)


def _table(title: str, portrait: Portrait, places: Sequence[int]) -> Table:
    census = portrait.census
    table = Table(title=title, title_justify="left")
    for heading in ("id", "age", "priority", "probability", "drawn"):
        table.add_column(heading, justify="right")
    for place in places:
        table.add_row(
            str(census.ids[place]),
            f"{portrait.ages[place]:,}",
            number(float(census.priorities[place])),
            number(float(census.probabilities[place])),
            "yes" if census.drawn[place] else "no",
        )
    return table
