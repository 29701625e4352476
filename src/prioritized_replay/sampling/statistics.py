"""What is remembered of the last batch drawn, and the numbers of a buffer that follow from it.

It knows ids and weights; it does not know how a batch was drawn.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from prioritized_replay.checkpoint.loading import Reader
from prioritized_replay.checkpoint.manifest import Piece
from prioritized_replay.sampling import _draw_kernels as kernels

__all__ = ["LastBatch"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

QUANTILES = {
    "priority_p05": 0.05,
    "priority_p25": 0.25,
    "priority_p50": 0.5,
    "priority_p75": 0.75,
    "priority_p95": 0.95,
}


class LastBatch:
    """The ids and weights of the batch that was drawn last.

    They lie in one array, which the kernel that draws a batch writes as well: so they are always of
    the batch that was drawn.

    Examples
    --------
    >>> last = LastBatch()
    >>> last.statistics()["duplicates"]
    0
    """

    def __init__(self) -> None:
        self._record: Ints = np.zeros(kernels.RECORD, np.int64)

    @property
    def ids(self) -> Ints:
        """The ids, int64[B]."""
        count = int(self._record[kernels.COUNT])
        return self._record[kernels.RECORD : kernels.RECORD + count]

    @property
    def draws(self) -> int:
        """How many batches have been drawn since the buffer was made or loaded."""
        return int(self._record[kernels.DRAWS])

    def room_for(self, count: int) -> Ints:
        """Return the array for a kernel, with room for a batch of ``count`` rows."""
        record = self._record
        if record.size < kernels.RECORD + count:
            record = np.zeros(kernels.RECORD + count, np.int64)
            record[: self._record.size] = self._record
            self._record = record
        return record

    def clear(self) -> None:
        """Forget the batch."""
        draws = self.draws
        record: Ints = np.zeros(kernels.RECORD, np.int64)
        record[kernels.DRAWS] = draws
        self._record = record

    def statistics(self) -> dict[str, float]:
        """Return the effective sample size, the range of weights and the number of duplicates."""
        total, squares, lowest, highest = self._sums().tolist()
        ids = self.ids
        return {
            "effective_sample_size": total * total / squares if squares > 0.0 else 0.0,
            "weight_min": lowest,
            "weight_max": highest,
            "duplicates": ids.size - np.unique(ids).size,
        }

    def pieces(self) -> list[Piece]:
        """Return the pieces of a checkpoint that hold the last batch."""
        return [
            Piece("last_ids", None, self.ids.copy),
            Piece("weights", None, self._sums().copy),
        ]

    def state(self) -> dict[str, Any]:
        """Return the rest of what belongs to a checkpoint, in plain values."""
        return {"last_batch": self.ids.size}

    def restore(self, reader: Reader) -> None:
        """Restore the state from a checkpoint."""
        count = reader.integer("last_batch", 0, reader.most_bytes)
        ids = reader.array("last_ids", np.int64, (count,))
        record = self.room_for(count)
        record[kernels.RECORD :][:count] = ids
        record[kernels.COUNT] = count
        reader.fill("weights", self._sums())

    def _sums(self) -> Floats:
        """Return the sum of the weights, that of their squares, the least and the largest."""
        return self._record[: kernels.COUNT].view(np.float64)


def quantiles(priorities: Floats) -> dict[str, float]:
    """Return quantiles of priorities, float64[size], by name; 0 where there are none."""
    if not priorities.size:
        return dict.fromkeys(QUANTILES, 0.0)
    values = np.quantile(priorities, list(QUANTILES.values()))
    return {name: float(value) for name, value in zip(QUANTILES, values, strict=True)}
