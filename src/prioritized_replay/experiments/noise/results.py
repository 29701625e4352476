"""The outcomes of runs with noise, and what they amount to.

Knows rows and intervals; knows nothing of learning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prioritized_replay.experiments.measures import median_of

RESULTS, SUMMARY = "noise.csv", "noise-summary.csv"
COLUMNS = ("error", "quiet_error", "wrong")


@dataclass(frozen=True)
class NoiseRun:
    """One run, a row of ``noise.csv``.

    Attributes
    ----------
    sigma : float
        Standard deviation of the noise.
    arm, seed
        See :class:`~prioritized_replay.experiments.noise.command.NoiseConfig`; the arm ``solved``
        is the memory itself, without learning.
    step_size : float
        The best of its arm with this noise, on other seeds; NaN, an empty cell, where nothing
        learns.
    error, quiet_error, wrong : float
        See :class:`~prioritized_replay.experiments.noise.task.Mistakes`.
    """

    sigma: float
    arm: str
    seed: int
    step_size: float
    error: float
    quiet_error: float
    wrong: float


@dataclass(frozen=True)
class NoiseMeasure:
    """One number about one arm: a row of ``noise-summary.csv``.

    Attributes
    ----------
    sigma, arm
        As in :class:`NoiseRun`.
    measure : str
        ``error``, the median over seeds, between ``low`` and ``high``, the ends of its 95 %
        interval; ``quiet``, the median error in states without noise; ``wrong``, the mean share of
        states with the wrong greedy action, in percent; ``difference``, the median of the error
        minus that of the uniform arm, seed by seed, between ``least`` and ``most``; ``step-size``.
    value : float
    """

    sigma: float
    arm: str
    measure: str
    value: float


def measures(runs: Sequence[NoiseRun]) -> list[NoiseMeasure]:
    """Return what runs amount to, noise by noise and arm by arm."""
    groups: dict[tuple[float, str], dict[int, NoiseRun]] = {}
    for run in runs:
        groups.setdefault((run.sigma, run.arm), {})[run.seed] = run
    found = []
    for (sigma, arm), group in groups.items():
        error = median_of(run.error for run in group.values())
        numbers = {
            "error": error.value,
            "low": error.low,
            "high": error.high,
            "quiet": median_of(run.quiet_error for run in group.values()).value,
            "wrong": 100.0 * sum(run.wrong for run in group.values()) / len(group),
        }
        theirs = groups.get((sigma, "uniform"), {})
        pairs = [run.error - theirs[s].error for s, run in group.items() if s in theirs]
        if arm != "uniform" and pairs:
            more = median_of(pairs)
            numbers |= {"difference": more.value, "least": more.low, "most": more.high}
        numbers["step-size"] = next(iter(group.values())).step_size
        found += [NoiseMeasure(sigma, arm, name, round(x, 4)) for name, x in numbers.items()]
    return found
