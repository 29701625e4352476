"""``per inspect``: reads a checkpoint or a run, says what is in it, and writes the page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from numpy.typing import NDArray
from rich.console import Console

from prioritized_replay.inspection.findings import Finding, findings
from prioritized_replay.inspection.page import Rows, page_of
from prioritized_replay.inspection.portrait import (
    HIGHEST,
    Memory,
    Portrait,
    columns_of,
    load_memory,
    portrait_of,
)
from prioritized_replay.inspection.record import (
    CHECKPOINT,
    checkpoint_in,
    is_run,
    read_record,
    shards_in,
)
from prioritized_replay.inspection.summary import NO_CHECKPOINT, say_summary
from prioritized_replay.runs.console import say
from prioritized_replay.runs.files import replace_text

Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class InspectOptions:
    """What is looked at, and where the page goes."""

    path: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="PATH")]
    """Folder of a checkpoint, by ReplayBuffer.save or PrioritizedIndex.save, or of a run."""

    html: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Write a page too: one file that needs no other, with charts and the 20 highest rows."""


def inspect(options: InspectOptions, console: Console) -> list[Finding]:
    """Print the summary and write the page. Returns what is wrong.

    Raises
    ------
    FileNotFoundError
        There is nothing at the path, or no folder for the page.
    ValueError
        What is there is neither a checkpoint nor a run, or is damaged.
    MemoryError, OSError
        There is no room for the memory, or the page cannot be written.
    """
    path, html = options.path, options.html
    if html is not None and html.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"html must name a file that ends in .html, got {html}")
    if html is not None and not html.parent.is_dir():
        raise FileNotFoundError(f"{html} cannot be written: there is no folder {html.parent}")
    if html is not None and html.is_dir():
        raise ValueError(f"{html} cannot be written: it is a folder")
    if not path.is_dir():
        raise FileNotFoundError(f"{path} is not a run or a checkpoint: there is no such folder")
    record = read_record(path) if is_run(path) else None
    folder = checkpoint_in(path) if record is not None else path
    shards, absent = shards_in(path if record is None else path / CHECKPOINT), NO_CHECKPOINT
    if len(shards) == 1:
        folder = shards[0]
    elif shards and record is None:
        raise ValueError(
            f"{path} is the checkpoint of a replay in {len(shards)} shards: inspect one of them, "
            f"such as {shards[0]}"
        )
    elif shards:
        absent = (
            f"The replay is in {len(shards)} shards, and each can be inspected: per inspect "
            f"{shards[0]}"
        )
    with console.status("reading"):
        memory = None if folder is None else load_memory(folder)
        portrait = None if memory is None else portrait_of(memory)
        found = findings(portrait, record)
        highest = np.zeros(0, np.int64)
        if memory is not None and portrait is not None:
            highest = np.searchsorted(portrait.census.ids, memory.highest(HIGHEST))
    say_summary(console, path, portrait, record, found, highest.tolist(), absent)
    if html is not None:
        tables = []
        if memory is not None and portrait is not None:
            tables = _tables(memory, portrait, highest)
        text = page_of(path, portrait, record, found, tables, absent)
        replace_text(html, text)
        say(console, f"\n{html}: the page, {len(text) / 1024:,.0f} KiB")
    return found


def _tables(memory: Memory, portrait: Portrait, highest: Ints) -> list[Rows]:
    """Return the highest rows, and where these are new ones, the highest that were drawn."""
    chosen = {f"The {highest.size} highest priorities": highest}
    if not portrait.census.drawn[highest].all():
        drawn = portrait.highest_drawn(HIGHEST)
        chosen[f"The {drawn.size} highest of those that were drawn"] = drawn
    return [
        Rows(title, places.tolist(), columns_of(memory, portrait.census.ids[places]))
        for title, places in chosen.items()
        if places.size
    ]
