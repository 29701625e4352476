"""The outcomes of runs with old priorities and small memories, and what they amount to.

Knows rows and intervals; knows nothing of learning.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from prioritized_replay.experiments.measures import median_of
from prioritized_replay.experiments.memory.task import PATIENCE
from prioritized_replay.training.statistics import Estimate

STALENESS, EVICTION, SUMMARY = "staleness.csv", "eviction.csv", "memory-summary.csv"


@dataclass(frozen=True)
class StalenessRun:
    """One run with one way to keep priorities young, a row of ``staleness.csv``.

    Attributes
    ----------
    law, refresh, seed
        See :func:`~prioritized_replay.experiments.memory.task.learn_with_refresh`.
    updates : int or None
        Until the values were right; None, an empty cell, if 10,000 were not enough.
    elsewhere : float
        Share of the draws that would have gone to other rows with fresh priorities.
    """

    law: str
    refresh: str
    seed: int
    updates: int | None
    elsewhere: float


@dataclass(frozen=True)
class EvictionRun:
    """One run with a small memory, a row of ``eviction.csv``.

    Attributes
    ----------
    rule, capacity, seed
        See :func:`~prioritized_replay.experiments.memory.task.learn_with_eviction`.
    updates : int or None
        Until the values were right; None, an empty cell, if 10,000 were not enough.
    """

    rule: str
    capacity: int
    seed: int
    updates: int | None


@dataclass(frozen=True)
class MemoryMeasure:
    """One number about one way or rule: a row of ``memory-summary.csv``.

    Attributes
    ----------
    part : str
        ``staleness`` or ``eviction``.
    case : str
        The law, or the capacity.
    way : str
        ``refresh`` or ``rule`` of the runs.
    measure : str
        ``updates``: median over seeds, between ``low`` and ``high``, the ends of its 95 % interval;
        ``never``: runs whose values were not right in time, which count with all their updates;
        ``difference``: median of the updates minus those of ``none`` or ``oldest``, seed by seed,
        between ``least`` and ``most``; ``elsewhere``: mean over seeds, in percent.
    value : float
    """

    part: str
    case: str
    way: str
    measure: str
    value: float


Runs = Sequence[StalenessRun] | Sequence[EvictionRun]


def in_time(updates: int | None) -> int:
    """Return the updates that a run counts with."""
    return PATIENCE if updates is None else updates


def estimate(runs: Runs) -> Estimate:
    """Return the median of the updates, with its interval."""
    return median_of(in_time(run.updates) for run in runs)


def measures(
    staleness: Sequence[StalenessRun], eviction: Sequence[EvictionRun]
) -> list[MemoryMeasure]:
    """Return what runs amount to."""
    found = []
    for law, refresh in dict.fromkeys((run.law, run.refresh) for run in staleness):
        group = [run for run in staleness if (run.law, run.refresh) == (law, refresh)]
        plain = [run for run in staleness if (run.law, run.refresh) == (law, "none")]
        numbers = _numbers(group, plain)
        looked = [run.elsewhere for run in group if not math.isnan(run.elsewhere)]
        if looked:
            numbers["elsewhere"] = 100.0 * sum(looked) / len(looked)
        found += [
            MemoryMeasure("staleness", law, refresh, name, round(x, 2))
            for name, x in numbers.items()
        ]
    for capacity, rule in dict.fromkeys((run.capacity, run.rule) for run in eviction):
        group_ = [run for run in eviction if (run.capacity, run.rule) == (capacity, rule)]
        plain_ = [run for run in eviction if (run.capacity, run.rule) == (capacity, "oldest")]
        found += [
            MemoryMeasure("eviction", str(capacity), rule, name, round(x, 2))
            for name, x in _numbers(group_, plain_).items()
        ]
    return found


def _numbers(group: Runs, plain: Runs) -> dict[str, float]:
    middle = estimate(group)
    numbers = {"updates": middle.value, "low": middle.low, "high": middle.high}
    numbers["never"] = float(sum(run.updates is None for run in group))
    theirs = {run.seed: in_time(run.updates) for run in plain}
    pairs = [in_time(run.updates) - theirs[run.seed] for run in group if run.seed in theirs]
    if pairs and group[0] not in plain:
        more = median_of(pairs)
        numbers |= {"difference": more.value, "least": more.low, "most": more.high}
    return numbers
