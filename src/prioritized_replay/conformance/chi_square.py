"""How surprising counts are, if these were the probabilities. Knows nothing of memories."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

FALSE_ALARM = 1e-5
"""How often a scenario that draws at random may fail a memory that is right, at most."""

_LEAST = 8.0  # draws expected of a cell: the tail of the statistic is that of chi-square then


def surprise(counts: ArrayLike, masses: ArrayLike) -> float:
    """Return the chance that chi-square is this large or larger, if draws follow the masses.

    Parameters
    ----------
    counts : int[N]
        How often each row was drawn, independently or stratified: then it is lower still.
    masses : float[N]
        What they are drawn in proportion to. A count where the mass is 0 is impossible.

    Returns
    -------
    float
        In [0, 1]. Rows of which few draws are expected are counted together.

    Examples
    --------
    >>> round(surprise([40, 60], [1.0, 1.0]), 4)  # two standard deviations
    0.0455
    >>> surprise([50, 50, 1], [1.0, 1.0, 0.0])
    0.0
    """
    observed, expected = np.asarray(counts, float), np.asarray(masses, float)
    expected = expected * (observed.sum() / expected.sum())
    if np.any(observed[expected == 0]):
        return 0.0
    cells: list[tuple[float, float]] = []
    rare = (0.0, 0.0)
    for k in np.argsort(expected).tolist():
        rare = (rare[0] + float(observed[k]), rare[1] + float(expected[k]))
        if rare[1] >= _LEAST and expected[k] < _LEAST:
            cells.append(rare)
            rare = (0.0, 0.0)
        elif expected[k] >= _LEAST:
            rare = (rare[0] - float(observed[k]), rare[1] - float(expected[k]))
            cells.append((float(observed[k]), float(expected[k])))
    chance = 1.0
    if len(cells) > 1:
        scale = sum(seen for seen, _ in cells) / sum(due for _, due in cells)
        statistic = sum((seen - due * scale) ** 2 / (due * scale) for seen, due in cells)
        chance = _tail(statistic, len(cells) - 1)
    if rare[1] > 0.0 and cells:  # so few draws are expected of the rest that they can be counted
        chance = min(1.0, 2.0 * min(chance, _at_least(round(rare[0]), rare[1])))
    return chance


def _at_least(count: int, mean: float) -> float:
    """Return the chance of so many rare events or more: Poisson's, which exceeds the exact one."""
    terms = [
        math.exp(k * math.log(mean) - mean - math.lgamma(k + 1))
        for k in range(count, count + 60 + 4 * round(mean))
    ]
    return min(1.0, sum(terms)) if count else 1.0


def _tail(statistic: float, freedom: int) -> float:
    """Return the upper tail of chi-square: the regularised incomplete gamma function Q(k/2, x/2).

    Its series below the mean, its continued fraction (by Lentz) above, as in any book on it.
    """
    a, x = freedom / 2.0, statistic / 2.0
    if x <= 0.0:
        return 1.0
    scale = math.exp(min(a * math.log(x) - x - math.lgamma(a), 700.0))
    if x < a + 1.0:
        term = total = 1.0 / a
        while term > total * 1e-15:
            a += 1.0
            term *= x / a
            total += term
        return 1.0 - scale * total
    b = x + 1.0 - a
    c, d = 1e300, 1.0 / b
    fraction, k = d, 0
    while True:
        k += 1
        factor = -k * (k - a)
        b += 2.0
        d = 1.0 / (factor * d + b)
        c = b + factor / c
        fraction *= c * d
        if abs(c * d - 1.0) < 1e-14:
            return scale * fraction
