"""The interquartile mean, and intervals by the bootstrap, for results of few seeds or episodes.

Knows arrays of numbers; knows nothing of where they come from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

RESAMPLES = 10_000
_AT_ONCE = 1 << 21  # numbers in the resamples that are held at a time


@dataclass(frozen=True)
class Estimate:
    """A statistic of some values, with the ends of its 95 % interval."""

    value: float
    low: float
    high: float


def mean(values: Floats) -> Floats:
    """Return the mean over the last axis."""
    return np.asarray(values.mean(axis=-1))


def interquartile_mean(values: Floats) -> Floats:
    """Return the mean over the last axis without the lowest and the highest quarter.

    A quarter of n values is rounded down, so with fewer than four it is the plain mean.

    Examples
    --------
    >>> float(interquartile_mean(np.array([500.0, 1.0, 2.0, 3.0])))
    2.5
    """
    count = values.shape[-1]
    cut = count // 4
    return np.asarray(np.sort(values, axis=-1)[..., cut : count - cut].mean(axis=-1))


def bootstrap(
    values: Floats, statistic: Callable[[Floats], Floats] = interquartile_mean
) -> Estimate:
    """Estimate a statistic and its 95 % interval from some values.

    The interval holds the middle of the statistic over 10,000 resamples of the values (the
    percentile bootstrap). The resamples are always the same ones. For the difference of two arms,
    give the differences seed by seed.

    Parameters
    ----------
    values : float64[n]
        One number per seed, or per episode.
    statistic : callable
        From float64[..., n] to float64[...].

    Raises
    ------
    ValueError
        There are no values.

    Notes
    -----
    O(10,000 n) time; the memory is that of a few million numbers, whatever n is.

    Examples
    --------
    >>> bootstrap(np.array([1.0, 2.0, 3.0, 4.0]), mean)
    Estimate(value=2.5, low=1.5, high=3.5)
    """
    if values.size == 0:
        raise ValueError("values must not be empty")
    generator = np.random.default_rng(0)
    rows = max(1, _AT_ONCE // values.size)
    found = []
    for first in range(0, RESAMPLES, rows):
        count = min(rows, RESAMPLES - first)
        found.append(statistic(values[generator.integers(values.size, size=(count, values.size))]))
    low, high = np.quantile(np.concatenate(found), (0.025, 0.975))
    return Estimate(float(statistic(values)), float(low), float(high))


def probability_of_improvement(first: Floats, second: Floats) -> Estimate:
    """Estimate how likely a run of one arm is better than one of another, with its interval.

    All pairs of runs count, ties half (Agarwal et al. 2021, section 4.3). The interval holds the
    middle of 10,000 resamples, in which each arm is resampled by itself.

    Parameters
    ----------
    first, second : float64[n], float64[m]
        One number per seed, the higher the better.

    Raises
    ------
    ValueError
        An arm has no values.

    Examples
    --------
    >>> probability_of_improvement(np.array([3.0, 4.0]), np.array([1.0, 3.0])).value
    0.875
    """
    if first.size == 0 or second.size == 0:
        raise ValueError("both arms must have values")
    wins = (first[:, None] > second) + 0.5 * (first[:, None] == second)
    generator = np.random.default_rng(0)
    found = np.empty(RESAMPLES)
    for k in range(RESAMPLES):
        # How often each run is in the resample, instead of the resample.
        ours = generator.multinomial(first.size, np.full(first.size, 1 / first.size))
        theirs = generator.multinomial(second.size, np.full(second.size, 1 / second.size))
        found[k] = ours @ wins @ theirs
    found /= first.size * second.size
    low, high = np.quantile(found, (0.025, 0.975))
    return Estimate(float(wins.mean()), float(low), float(high))
