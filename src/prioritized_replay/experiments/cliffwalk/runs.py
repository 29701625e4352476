"""The outcome of one run of the Blind Cliffwalk, and the median of several."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class CliffwalkRun:
    """One run, a row of ``cliffwalk.csv``.

    Attributes
    ----------
    n, transitions : int
        Number of states, and of transitions in the memory.
    features, arm, seed
        See :class:`~prioritized_replay.experiments.cliffwalk.command.CliffwalkConfig`.
    updates : int or None
        Updates until the values were learnt; None, an empty cell, if 100 for each transition were
        not enough.
    """

    n: int
    transitions: int
    features: str
    arm: str
    seed: int
    updates: int | None


def median_updates(runs: Sequence[CliffwalkRun]) -> float:
    """Return the median number of updates; a run that did not learn counts as infinity."""
    return statistics.median(math.inf if run.updates is None else run.updates for run in runs)
