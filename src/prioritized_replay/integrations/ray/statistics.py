"""Numbers of several shards made those of one replay. It knows numbers only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prioritized_replay.batch import Batch

__all__ = ["LastDraw", "merged"]

SUMS = ("size", "ids_issued", "stale_updates")


class LastDraw:
    """The ids and weights of the batch that a handle drew last.

    Examples
    --------
    >>> last = LastDraw()
    >>> last.note(Batch({"ids": np.array([3, 3, 5]), "weights": np.array([1.0, 1.0, 0.5])}))
    >>> last.statistics()["duplicates"], last.statistics()["weight_min"]
    (1, 0.5)
    """

    def __init__(self) -> None:
        self._batch: Batch[Any] | None = None

    def note(self, batch: Batch[NDArray[Any]]) -> None:
        """Take a batch for the last one."""
        self._batch = Batch({"ids": batch.ids.copy(), "weights": batch.weights})

    def statistics(self) -> dict[str, float]:
        """Return effective sample size, the range of weights and the number of duplicates."""
        if self._batch is None:
            names = ("effective_sample_size", "weight_min", "weight_max", "duplicates")
            return dict.fromkeys(names, 0)
        weights = self._batch.weights.astype(np.float64)
        squares = float((weights**2).sum())
        ids = self._batch.ids
        return {
            "effective_sample_size": float(weights.sum()) ** 2 / squares if squares else 0.0,
            "weight_min": float(weights.min(initial=np.inf)),
            "weight_max": float(weights.max(initial=0.0)),
            "duplicates": ids.size - np.unique(ids).size,
        }


def merged(
    of_shards: Sequence[tuple[dict[str, float], NDArray[Any]]], last: LastDraw
) -> dict[str, float]:
    """Return the statistics of all shards together.

    Parameters
    ----------
    of_shards : sequence of (dict, float64[Q])
        What :meth:`.ReplayBuffer.stats` says of each, and evenly spaced quantiles of its
        priorities, the least and the largest among them; none where it is empty.
    last : LastDraw
        Of the handle that asks.

    Examples
    --------
    >>> one = {"size": 1, "ids_issued": 4, "stale_updates": 0, "largest_priority": 2.0,
    ...        "never_drawn": 1.0, "priority_p50": 2.0}
    >>> other = one | {"size": 3, "largest_priority": 1.0, "never_drawn": 0.0}
    >>> result = merged([(one, np.array([2.0])), (other, np.array([1.0, 1.0, 1.0]))], LastDraw())
    >>> result["size"], result["largest_priority"], result["never_drawn"], result["priority_p50"]
    (4, 2.0, 0.25, 1.0)
    """
    result: dict[str, float] = {}
    sizes = np.array([stats["size"] for stats, _ in of_shards], np.float64)
    total = float(sizes.sum())
    for name in of_shards[0][0]:
        values = [stats[name] for stats, _ in of_shards]
        if name in SUMS:
            result[name] = sum(values)
        elif name == "largest_priority":
            result[name] = max(values)
        elif name == "never_drawn":
            result[name] = float(np.dot(values, sizes) / total) if total else 0.0
        elif name.startswith("priority_p"):
            result[name] = _quantile(of_shards, float(name.removeprefix("priority_p")) / 100.0)
    return result | last.statistics()


def _quantile(of_shards: Sequence[tuple[dict[str, float], NDArray[Any]]], share: float) -> float:
    """Return the value below which such a share of all priorities lies."""
    values = np.concatenate([sketch for _, sketch in of_shards])
    if not values.size:
        return 0.0
    weights = np.concatenate(
        [np.full(sketch.size, stats["size"] / max(sketch.size, 1)) for stats, sketch in of_shards]
    )
    order = np.argsort(values, kind="stable")
    values, weights = values[order], weights[order]
    middle = np.cumsum(weights) - weights / 2.0
    return float(np.interp(share * weights.sum(), middle, values))
