"""Global ids: which shard and which row an id names. It knows numbers only.

A buffer numbers its rows from 0. A shard that was restarted begins with another buffer, empty or
from a checkpoint, that would give numbers again that were given before. So each *generation* of a
shard numbers what it adds from a place of its own: a *local* id is ``generation * 2**40`` plus a
count, and the global id is ``local * shards + shard``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

__all__ = ["GENERATION", "Numbering", "shards_of"]

Ints = NDArray[np.int64]

GENERATION = 1 << 40
"""Ids that one generation of a shard may give."""


def shards_of(ids: Ints, shards: int) -> Ints:
    """Return the shard that each global id names, int64[B]."""
    return ids % shards


class Numbering:
    """From the numbers that one shard's buffer gives to global ids, and back.

    Parameters
    ----------
    shard, shards : int
        Which one of how many.
    segments : sequence of (int, int)
        ``(number, local)``: from this number of the buffer on, local ids count from this one. The
        numbers rise, and so do the local ids.

    Examples
    --------
    >>> numbering = Numbering(1, 4)
    >>> numbering.global_ids(np.array([0, 1, 2]))
    array([1, 5, 9])
    >>> numbering.begin(2, generation=1)  # restored with two rows: number 2 has been given before
    >>> numbering.global_ids(np.array([0, 1, 2])) - np.array([0, 0, 4 * GENERATION])
    array([1, 5, 1])
    >>> numbering.numbers(np.array([5, 9, 4 * GENERATION + 1]))  # 9 was lost
    array([ 1, -1,  2])
    """

    def __init__(
        self, shard: int, shards: int, segments: Sequence[tuple[int, int]] = ((0, 0),)
    ) -> None:
        self._shard, self._shards = shard, shards
        self._set(segments)

    def _set(self, segments: Sequence[tuple[int, int]]) -> None:
        table = np.array(segments, np.int64).reshape(-1, 2)
        self._starts, self._locals = table[:, 0].copy(), table[:, 1].copy()

    @property
    def segments(self) -> list[tuple[int, int]]:
        """What makes the same numbering again."""
        return [(int(a), int(b)) for a, b in zip(self._starts, self._locals, strict=True)]

    @property
    def plain(self) -> bool:
        """Whether there is a single segment."""
        return self._starts.size == 1

    @property
    def generation(self) -> int:
        """The one that gives the ids of further rows."""
        return int(self._locals[-1]) // GENERATION

    def begin(self, number: int, generation: int) -> None:
        """Let numbers from this one on be of another generation."""
        kept = [pair for pair in self.segments if pair[0] < number]
        self._set([*kept, (number, generation * GENERATION)])

    def global_ids(self, numbers: Ints) -> Ints:
        """Return the global ids of rows of the buffer, int64[B]."""
        if self.plain:
            local = numbers + (self._locals[0] - self._starts[0])
        else:
            segment = np.searchsorted(self._starts, numbers, side="right") - 1
            local = numbers - self._starts[segment] + self._locals[segment]
        result: Ints = local * self._shards + self._shard
        return result

    def global_id(self, number: int) -> int:
        """Return the global id of the row with this number, one of the last segment."""
        local = number - int(self._starts[-1]) + int(self._locals[-1])
        return local * self._shards + self._shard

    def local_ranges(self, first: int, stop: int) -> list[tuple[int, int]]:
        """Return the local ids of rows with numbers from first to stop, as ranges.

        Examples
        --------
        >>> Numbering(0, 1, [(0, 0), (60, 1000)]).local_ranges(50, 70)
        [(50, 60), (1000, 1010)]
        """
        ranges = []
        ends = [*self._starts[1:].tolist(), stop]
        for (start, local), end in zip(self.segments, ends, strict=True):
            low, high = max(first, start), min(stop, end)
            if low < high:
                ranges.append((low - start + local, high - start + local))
        return ranges

    def numbers(self, ids: Ints) -> Ints:
        """Return the numbers of rows of the buffer, int64[B]; -1 for those it never had.

        The ids are of this shard. A number may be one that was not given yet.
        """
        local = ids // self._shards
        segment = np.searchsorted(self._locals, local, side="right") - 1
        known = segment >= 0
        numbers = local - self._locals[segment] + self._starts[segment]
        ends = np.append(self._starts[1:], np.iinfo(np.int64).max)
        return np.where(known & (numbers < ends[segment]), numbers, -1)

    @classmethod
    def of(cls, shard: int, shards: int, segments: Sequence[Sequence[int]]) -> Self:
        """Return the numbering that a checkpoint describes."""
        return cls(shard, shards, [(int(a), int(b)) for a, b in segments])
