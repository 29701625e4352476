"""The median of one number per seed, and its 95 % interval.

Knows arrays of numbers; knows nothing of what they mean.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from prioritized_replay.training.statistics import Estimate, Floats, bootstrap


def median_of(values: Iterable[float]) -> Estimate:
    """Return the median of some values, with its 95 % bootstrap interval.

    Examples
    --------
    >>> median_of([3.0, 1.0, 1.0, 1.0, 1.0])
    Estimate(value=1.0, low=1.0, high=3.0)
    """
    return bootstrap(np.array(list(values), np.float64), _median)


def _median(values: Floats) -> Floats:
    return np.asarray(np.median(values, axis=-1))
