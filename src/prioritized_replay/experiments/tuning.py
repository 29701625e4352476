"""The step size of each arm: the best of several, on seeds that are not reported.

Knows scores; knows nothing of what is learnt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np


def best_step_size(
    score: Callable[[float, int], float], step_sizes: Sequence[float], seeds: Sequence[int]
) -> float:
    """Return the step size of the least median score, the smallest of equally good ones.

    Parameters
    ----------
    score : callable
        From a step size and a seed to a number, the smaller the better; infinity is worst.
    step_sizes : sequence of float
    seeds : sequence of int

    Examples
    --------
    >>> best_step_size(lambda step_size, seed: abs(step_size - 0.4) + seed, (0.1, 0.5), range(3))
    0.5
    """
    medians = {size: float(np.median([score(size, s) for s in seeds])) for size in step_sizes}
    return min(medians, key=lambda size: medians[size])
