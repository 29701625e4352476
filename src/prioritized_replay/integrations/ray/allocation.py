"""The law by which several shards are drawn from as one: it knows numbers, no shard and no Ray.

Shard k is drawn from with chance q_k, from the totals that it last reported. It then draws by its
own exact law P_k of that moment. So P(i) = q_k P_k(i) is the law that was really used, however old
the totals were, and the weights that follow from it undo it exactly.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from prioritized_replay.sampled import Totals

__all__ = ["Chances", "allocate", "importance_weights", "shares"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

FLOAT32_MAX = float(np.finfo(np.float32).max)


def shares(totals: Sequence[Totals], mixed: float, present: Flags) -> Floats:
    """Return the chance of each of K shards in one draw.

    Parameters
    ----------
    totals : sequence of K Totals
        As last reported.
    mixed : float
        The share of draws that is uniform over rows, in [0, 1]: of it each shard gets according to
        its rows, of the rest according to its mass.
    present : bool[K]
        Which shards can be asked. The others have no chance.

    Returns
    -------
    float64[K]
        They sum to 1, or are all 0 if nothing can be drawn.

    Examples
    --------
    >>> totals = [Totals(2, 2, 6.0, 0.0), Totals(6, 6, 2.0, 0.0), Totals(0, 0, 0.0, 0.0)]
    >>> everyone = np.array([True, True, True])
    >>> shares(totals, 0.0, everyone), shares(totals, 1.0, everyone)
    (array([0.75, 0.25, 0.  ]), array([0.25, 0.75, 0.  ]))
    >>> shares(totals, 0.0, np.array([False, True, True]))
    array([0., 1., 0.])
    """
    can = present & np.array([one.drawable > 0 for one in totals])
    rows = np.where(can, [float(one.size) for one in totals], 0.0)
    largest = max((one.mass for one, drawn in zip(totals, can, strict=True) if drawn), default=0.0)
    # Divided first: a sum of masses near the largest number would be infinite.
    scale = largest if largest > 0.0 else 1.0
    masses = np.where(can, [one.mass / scale for one in totals], 0.0)
    result = np.zeros(len(totals))
    if not rows.sum():
        return result
    by_mass = 1.0 - mixed if masses.sum() else 0.0
    if by_mass:
        result += by_mass * masses / masses.sum()
    if mixed:
        result += (1.0 - by_mass) * rows / rows.sum()
    total = result.sum()
    return result / total if total else result


def allocate(
    chances: Floats,
    batch_size: int,
    generator: np.random.Generator,
    draw: str = "stratified",
    most: Ints | None = None,
) -> Ints:
    """Return how many of B draws go to each shard: B times its chance, on average.

    Parameters
    ----------
    chances : float64[K]
        From :func:`shares`; some are positive.
    batch_size : int
        B.
    generator : numpy.random.Generator
        Where the randomness comes from.
    draw : {"stratified", "independent", "without_replacement"}
        The draw mode. ``"independent"`` is multinomial. Otherwise the counts are B times the chance
        rounded up or down, by one number for all shards.
    most : int64[K], optional
        How many a shard can give at most; what it cannot give goes to the others.

    Examples
    --------
    >>> generator = np.random.default_rng(0)
    >>> allocate(np.array([0.5, 0.25, 0.25]), 8, generator)
    array([4, 2, 2])
    >>> allocate(np.array([0.5, 0.25, 0.25]), 8, generator, most=np.array([1, 9, 9]))
    array([1, 4, 3])
    """
    if draw == "independent":
        return generator.multinomial(batch_size, chances / chances.sum())
    counts = _systematic(chances, batch_size, generator)
    if most is None:
        return counts
    while (missing := batch_size - int(np.minimum(counts, most).sum())) > 0:
        counts = np.minimum(counts, most)
        rest = np.where(counts < most, chances, 0.0)
        if not rest.any():
            break
        counts += _systematic(rest / rest.sum(), missing, generator)
    return np.minimum(counts, most)


def _systematic(chances: Floats, count: int, generator: np.random.Generator) -> Ints:
    """Return how many of the points (i + u) / count lie in each shard's part of [0, 1)."""
    ends = np.cumsum(chances)
    ends[np.flatnonzero(chances)[-1] :] = 1.0  # rounding must not lose a point, nor make one
    before = np.ceil(ends * count - generator.random()).clip(0, count).astype(np.int64)
    before[ends == 1.0] = count
    return np.diff(before, prepend=0)


class Chances:
    """The chance of each shard over all rounds of a draw, given which shards answered.

    Where a shard has no rows any more, or does not answer, what it should have drawn is drawn anew
    from the others. Given which shards answered, a draw comes from shard k with the chance that
    the first round gives it, or with the chance of those that did not answer times what the next
    round gives it. That is what P is made of then.

    Parameters
    ----------
    shards : int
        How many, K.

    Examples
    --------
    >>> chances = Chances(3)
    >>> chances.round(np.array([0.5, 0.25, 0.25]), np.array([False, False, True]))  # 2: no answer
    >>> chances.round(np.array([0.5, 0.5, 0.0]), np.array([False, False, False]))
    >>> chances.of_shards
    array([0.625, 0.375, 0.   ])
    """

    def __init__(self, shards: int) -> None:
        self.of_shards: Floats = np.zeros(shards)
        self.rest = 1.0
        """The chance of those that have not answered."""

    def round(self, chances: Floats, failed: Flags) -> None:
        """Count a round that drew with these chances, float64[K], of whom some failed, bool[K]."""
        self.of_shards += self.rest * np.where(failed, 0.0, chances)
        self.rest *= float(chances[failed].sum())


def importance_weights(
    probabilities: Floats, beta: float, weights: str, rows: int, least: float
) -> NDArray[np.float32]:
    """Return importance-sampling weights (N P)**-beta.

    Parameters
    ----------
    probabilities : float64[B]
        P(i) over all shards, positive.
    beta : float
        In [0, 1].
    weights : {"batch", "buffer", "raw"}
        What they are divided by: the largest of the batch, the largest that any row of any shard
        could have, or nothing.
    rows : int
        N of all shards.
    least : float
        The least positive P over all shards, for ``"buffer"``.

    Examples
    --------
    >>> importance_weights(np.array([0.5, 0.25]), 1.0, "batch", 4, 0.0)
    array([0.5, 1. ], dtype=float32)
    >>> importance_weights(np.array([0.5, 0.25]), 1.0, "raw", 4, 0.0)
    array([0.5, 1. ], dtype=float32)
    >>> importance_weights(np.array([0.5, 0.25]), 1.0, "buffer", 4, 0.125)
    array([0.25, 0.5 ], dtype=float32)
    """
    if weights == "raw":
        reference, bound = 1.0 / max(rows, 1), FLOAT32_MAX
    else:
        reference = float(probabilities.min(initial=np.inf))
        if weights == "buffer" and least > 0.0:
            reference = min(reference, least)
        bound = 1.0
    result: Floats = np.minimum((probabilities / reference) ** -beta, bound)
    return result.astype(np.float32)
