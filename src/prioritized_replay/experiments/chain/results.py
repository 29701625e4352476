"""The outcomes of runs of the chain, and what they amount to.

Knows rows and intervals; knows nothing of learning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prioritized_replay.experiments.chain.task import PATIENCE
from prioritized_replay.experiments.measures import median_of
from prioritized_replay.training.statistics import Estimate

RESULTS, SUMMARY = "chain.csv", "chain-summary.csv"


@dataclass(frozen=True)
class ChainRun:
    """One run, a row of ``chain.csv``.

    Attributes
    ----------
    n, transitions : int
        Number of states, and of rows in the memory.
    arm, seed
        See :class:`~prioritized_replay.experiments.chain.command.ChainConfig`.
    step_size : float
        The best of its arm at this n, on other seeds.
    values, policy : int or None
        Updates until the mean squared error of the values was below 1e-3, and until the greedy
        action was right in all states; None, an empty cell, if that did not come in time.
    """

    n: int
    transitions: int
    arm: str
    seed: int
    step_size: float
    values: int | None
    policy: int | None


@dataclass(frozen=True)
class ChainMeasure:
    """One number about one arm: a row of ``chain-summary.csv``.

    Attributes
    ----------
    n, arm
        As in :class:`ChainRun`.
    measure : str
        ``values``: median over seeds, between ``values-low`` and ``values-high``, the ends of its
        95 % interval; the same for ``policy``; ``never``: runs whose values were not right in time.
        Such a run counts with all the updates it had. ``step-size``.
    value : float
    """

    n: int
    arm: str
    measure: str
    value: float


def estimate(runs: Sequence[ChainRun], of: str) -> Estimate:
    """Return the median of ``values`` or ``policy``."""
    return median_of(_in_time(run, getattr(run, of)) for run in runs)


def _in_time(run: ChainRun, updates: int | None) -> int:
    return PATIENCE * run.n if updates is None else updates


def measures(runs: Sequence[ChainRun]) -> list[ChainMeasure]:
    """Return what runs amount to, length by length and arm by arm."""
    groups: dict[tuple[int, str], list[ChainRun]] = {}
    for run in runs:
        groups.setdefault((run.n, run.arm), []).append(run)
    found = []
    for (n, arm), group in groups.items():
        numbers: dict[str, float] = {}
        for of in ("values", "policy"):
            middle = estimate(group, of)
            numbers |= {of: middle.value, f"{of}-low": middle.low, f"{of}-high": middle.high}
        numbers["never"] = sum(run.values is None for run in group)
        numbers["step-size"] = group[0].step_size
        found += [ChainMeasure(n, arm, name, float(value)) for name, value in numbers.items()]
    return found
