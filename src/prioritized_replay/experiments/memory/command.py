"""``per reproduce memory``: refreshed priorities and ways to evict; tables, CSV files and figure.

The tasks themselves are in :mod:`~prioritized_replay.experiments.memory.task`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from rich.console import Console
from rich.table import Table

from prioritized_replay.experiments.choices import require_numbers, require_seeds, require_some_of
from prioritized_replay.experiments.memory.results import (
    EVICTION,
    STALENESS,
    SUMMARY,
    EvictionRun,
    MemoryMeasure,
    StalenessRun,
    measures,
)
from prioritized_replay.experiments.memory.task import (
    Law,
    Refresh,
    Rule,
    learn_with_eviction,
    learn_with_refresh,
)
from prioritized_replay.experiments.progress import progress_bar
from prioritized_replay.experiments.tables import write_rows
from prioritized_replay.runs.console import say
from prioritized_replay.runs.files import replace_file

FIGURE = "memory.png"

# How long runs take, in those that refresh nothing. For the progress bar only.
_WORK = {"all": 5.0}


@dataclass(frozen=True, kw_only=True)
class MemoryConfig:
    """Which ways to keep priorities young, which ways to evict, how often, and the results."""

    laws: tuple[Law, ...] = get_args(Law)
    """How rows are drawn where old priorities are refreshed."""

    refresh: tuple[Refresh, ...] = get_args(Refresh)
    """Ways to keep priorities young. After each update none is refreshed, the 32 or 256 oldest are,
    or, where draws are proportional, all; 64 rows are drawn, not 32; by rank, rows that wait gain a
    bonus for each epoch."""

    capacities: tuple[int, ...] = (256, 1_024)
    """Rows that the small memories hold. A random walk finds a reward in about 1,056 steps."""

    rules: tuple[Rule, ...] = get_args(Rule)
    """Which row gives way to a new one: the oldest, any, the one of the lowest priority, or one
    drawn in proportion to 1 / priority."""

    seeds: int = 20
    """How many seeds, counted from 0: other walks, other first values."""

    output: Path = Path("runs/memory")
    """Folder for the results; earlier ones are replaced."""

    def __post_init__(self) -> None:
        require_some_of("laws", self.laws, get_args(Law))
        require_some_of("refresh", self.refresh, get_args(Refresh))
        require_numbers("capacities", self.capacities, 32, 65_536)
        require_some_of("rules", self.rules, get_args(Rule))
        require_seeds(self.seeds)


def reproduce(config: MemoryConfig) -> None:
    """Make all runs, print their medians, write three CSV files and a figure.

    Nothing is written before the end.

    Parameters
    ----------
    config : MemoryConfig
        What to run.
    """
    from prioritized_replay.experiments.memory.figure import draw_memory

    console = Console()
    config.output.mkdir(parents=True, exist_ok=True)
    staleness, eviction = [], []
    ways = [(law, way) for law in config.laws for way in config.refresh if _possible(law, way)]
    sizes = [(rule, capacity) for capacity in config.capacities for rule in config.rules]
    each = sum(_WORK.get(refresh, 1.0) for _, refresh in ways) + len(sizes)
    with progress_bar(console) as progress:
        task = progress.add_task("", total=config.seeds * each)
        for law, refresh in ways:
            progress.update(task, description=f"{law}, refreshed: {refresh}")
            for seed in range(config.seeds):
                kept = learn_with_refresh(law, refresh, seed)
                staleness.append(StalenessRun(law, refresh, seed, kept.updates, kept.elsewhere))
                progress.advance(task, _WORK.get(refresh, 1.0))
        _said(console, "staleness")
        for rule, capacity in sizes:
            progress.update(task, description=f"{capacity:,} rows, {rule}")
            for seed in range(config.seeds):
                updates = learn_with_eviction(rule, capacity, seed)
                eviction.append(EvictionRun(rule, capacity, seed, updates))
                progress.advance(task)
        _said(console, "eviction")
    found = measures(staleness, eviction)
    write_rows(config.output / STALENESS, StalenessRun, staleness)
    write_rows(config.output / EVICTION, EvictionRun, eviction)
    write_rows(config.output / SUMMARY, MemoryMeasure, found)
    replace_file(config.output / FIGURE, lambda file: draw_memory(found, file))
    for part, title in (("staleness", "refreshed"), ("eviction", "given up")):
        console.print(_table(title, [m for m in found if m.part == part], config.seeds))
    say(console, f"In {config.output}: {STALENESS}, {EVICTION}, {SUMMARY}, {FIGURE}")


def _possible(law: Law, refresh: Refresh) -> bool:
    """Return whether a law has this way; to refresh all rows damages a rank order of many ties."""
    return refresh != "all" if law == "rank" else not refresh.startswith("bonus")


def _said(console: Console, part: str) -> None:
    if not console.is_terminal:
        say(console, f"{part}: done")


def _table(title: str, found: Sequence[MemoryMeasure], seeds: int) -> Table:
    table = Table(
        title=f"updates until right: median of {seeds} seeds, 95 % interval", title_justify="left"
    )
    cases = list(dict.fromkeys(measure.case for measure in found))
    table.add_column(title, no_wrap=True)
    for case in cases:
        table.add_column(case, justify="right")
    value = {(m.case, m.way, m.measure): m.value for m in found}
    for way in dict.fromkeys(measure.way for measure in found):
        cells = [
            "{:,.0f} ({:,.0f} to {:,.0f})".format(
                *(value[case, way, name] for name in ("updates", "low", "high"))
            )
            if (case, way, "updates") in value
            else ""
            for case in cases
        ]
        table.add_row(way, *cells)
    return table
