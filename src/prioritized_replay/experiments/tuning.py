"""The step size of each arm: the best of several, on seeds that are not reported.

Knows scores; knows nothing of what is learnt.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence


def best_step_size(
    score: Callable[[float, int, float], float], step_sizes: Sequence[float], seeds: Sequence[int]
) -> float:
    """Return the step size of the least median score, the smallest of equally good ones.

    The largest is tried first. No seed is tried any more of a step size that more than half of the
    seeds have shown to be worse than the best one so far.

    Parameters
    ----------
    score : callable
        From a step size, a seed and a limit to a number, the smaller the better; infinity is worst.
        Where the number is above the limit, any other that is will do.
    step_sizes : sequence of float
        At least one.
    seeds : sequence of int
        An odd number of them.

    Examples
    --------
    >>> far = lambda step_size, seed, limit: abs(step_size - 0.4) + seed
    >>> best_step_size(far, (0.1, 0.5, 0.9), range(3))
    0.5
    """
    sizes = sorted(step_sizes, reverse=True)
    best, least = sizes[0], math.inf
    for size in sizes:
        scores: list[float] = []
        for seed in seeds:
            scores.append(score(size, seed, least))
            if sum(number > least for number in scores) > len(seeds) // 2:
                break
        else:
            best, least = size, statistics.median(scores)
    return best
