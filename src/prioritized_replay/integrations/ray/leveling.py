"""How rows spread over shards so that each has about as many. It knows counts only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["spread"]

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


def spread(written: Ints, present: Flags, rows: int, slack: int) -> Ints:
    """Return how many of the next rows each of K shards gets.

    They go to the shard with the fewest if that leaves it at most ``slack`` rows above the others:
    one call is cheaper than several. If not, they level the shards as far as they can.

    Parameters
    ----------
    written : int64[K]
        Rows that each has been given before.
    present : bool[K]
        Which can be asked, some at least.
    rows : int
        How many rows come now.
    slack : int
        By how many rows they may differ, >= 0.

    Examples
    --------
    >>> everyone = np.array([True, True, True])
    >>> spread(np.array([4, 0, 2]), everyone, 6, slack=0)
    array([0, 4, 2])
    >>> spread(np.array([4, 0, 2]), everyone, 6, slack=4)
    array([0, 6, 0])
    >>> spread(np.array([4, 0, 2]), np.array([True, False, True]), 4, slack=0)
    array([1, 0, 3])
    """
    counts = np.where(present, written, np.iinfo(np.int64).max // 2)
    order = np.argsort(counts, kind="stable")[: int(present.sum())]
    given = np.zeros_like(written)
    if counts[order[0]] + rows <= counts[order[-1]] + slack:
        given[order[0]] = rows
        return given
    heights = counts[order]
    # Fill the lowest up to the height of the next one, as long as there are rows.
    for number in range(1, order.size + 1):
        room = int((heights[number - 1] * number) - heights[:number].sum())
        enough = number == order.size or rows <= int(
            heights[number] * number - heights[:number].sum()
        )
        if enough:
            each, more = divmod(rows - room, number)
            level = heights[number - 1] + each
            given[order[:number]] = level - heights[:number]
            given[order[:more]] += 1
            break
    return given
