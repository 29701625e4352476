"""Which rows of one shard are lost. It knows local ids, as ranges from first to stop, only.

A row is lost when it was in a shard that died, and neither the next generation has restored it nor
its sender has sent it to another shard, as it had no answer. A later generation may still bring it
back, from a checkpoint that was not complete when the one before began.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from prioritized_replay.integrations.ray.ledger import Left

__all__ = ["Begun", "Losses", "Range", "count"]

Range = tuple[int, int]
"""Local ids, see :mod:`.numbering`, from the first one to before the second."""


class Begun(NamedTuple):
    """What a generation of a shard begins with."""

    issued: int
    """Rows that its buffer had been given."""
    rows: list[Range]
    """Those that are there, oldest first."""
    next_id: int
    """The local id of the next row."""

    def rows_at(self, issued: int, size: int) -> list[Range]:
        """Return which rows are there when the buffer was given so many, and so many are there.

        Examples
        --------
        >>> Begun(30, [(20, 30)], 1000).rows_at(34, 6)
        [(28, 30), (1000, 1004)]
        """
        found: list[Range] = []
        added = self.next_id, self.next_id + issued - self.issued
        for first, stop in (added, *reversed(self.rows)):
            oldest = max(first, stop - size)
            size -= stop - oldest
            found.insert(0, (oldest, stop))
        return [(first, stop) for first, stop in found if first < stop]


class Losses:
    """What the generations of one shard have lost.

    Parameters
    ----------
    lost : sequence of Range
        Before the first of them.

    Examples
    --------
    >>> losses = Losses()
    >>> losses.begin(0, Begun(0, [], 0), None)
    >>> losses.tell(0, 100, 100)
    >>> losses.begin(1, Begun(60, [(0, 60)], 1000), None)
    >>> losses.lost(())
    [(60, 100)]
    """

    def __init__(self, lost: Iterable[Sequence[int]] = ()) -> None:
        self._before: list[Range] = [(first, stop) for first, stop in lost]
        self._begun: dict[int, Begun] = {}
        self._left: dict[int, Left] = {}
        self._told: dict[int, tuple[int, int]] = {}

    def begin(self, generation: int, begun: Begun, left: Left | None) -> None:
        """Note with what a generation begins, and what it has found of one before."""
        self._begun[generation] = begun
        if left is not None:
            self._left[left.generation] = left

    def tell(self, generation: int, issued: int, size: int) -> None:
        """Note what somebody last knew of a generation; who knew the latest state knows the most.

        It matters where the generation has left nothing that was found.
        """
        self._told[generation] = max(self._told.get(generation, (0, 0)), (issued, size))

    def lost(self, elsewhere: Collection[int]) -> list[Range]:
        """Return the rows that are lost; blocks with these tickets were sent elsewhere."""
        lost, generations = self._before, sorted(self._begun)
        for k, generation in enumerate(generations):
            begun = self._begun[generation]
            lost = _without(lost, begun.rows)
            if k + 1 < len(generations):  # it has died
                there = begun.rows_at(*self._at_the_end(generation))
                lost = [*_without(lost, there), *there]
        for generation, left in self._left.items():
            sent = left.blocks[np.isin(left.blocks[:, 0], list(elsewhere)), 1:]
            begun = self._begun[generation]
            blocks = sent + (begun.next_id - begun.issued)
            lost = _without(lost, [(first, stop) for first, stop in blocks.tolist()])
        return lost

    def _at_the_end(self, generation: int) -> tuple[int, int]:
        """Return how many rows a buffer that is gone was given, and how many were there."""
        if generation in self._left:
            return self._left[generation].issued, self._left[generation].size
        begun = self._begun[generation]
        return max(self._told.get(generation, (0, 0)), (begun.issued, count(begun.rows)))


def count(ranges: Iterable[Range]) -> int:
    """Return how many rows there are in ranges.

    Examples
    --------
    >>> count([(2, 5), (7, 8)])
    4
    """
    return sum(stop - first for first, stop in ranges)


def _without(ranges: list[Range], others: Iterable[Range]) -> list[Range]:
    """Return what is in ranges and in none of the others."""
    for first, stop in others:
        if first < stop:
            parts = [part for a, b in ranges for part in ((a, min(b, first)), (max(a, stop), b))]
            ranges = [(a, b) for a, b in parts if a < b]
    return ranges
