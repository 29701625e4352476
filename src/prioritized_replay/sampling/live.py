"""Which slots can be drawn, in the order of their age. It knows no priorities."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from prioritized_replay.sampling import _live_kernels as live_kernels
from prioritized_replay.sampling import _ring_kernels as ring

__all__ = ["Live", "RingSlots", "SomeSlots"]

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


class Live(Protocol):
    """The slots that can be drawn: all of a ring, or some of it."""

    @property
    def size(self) -> int:
        """How many there are."""

    def all(self) -> Ints:
        """Return them, the oldest first."""

    def at(self, places: Ints) -> Ints:
        """Return those at these places in that order, int64[B]."""

    def among_newest(self, slots: Ints, count: int) -> Flags:
        """Return which of these, that can be drawn, are among the ``count`` newest, bool[B]."""


class RingSlots:
    """All rows of a ring: which slots they have follows from its counters.

    Parameters
    ----------
    capacity : int
        Number of slots N.
    counters : int64[8]
        Of the ring; they are only read.
    """

    def __init__(self, capacity: int, counters: Ints) -> None:
        self._capacity = capacity
        self._counters = counters

    @property
    def size(self) -> int:
        """How many rows are live. O(1)."""
        counters = self._counters
        live = counters.item(ring.ISSUED) - counters.item(ring.FIRST)
        return live if live < self._capacity else self._capacity

    def all(self) -> Ints:
        """Return the slots of all rows, the oldest first. O(N)."""
        return self.at(np.arange(self.size))

    def at(self, places: Ints) -> Ints:
        """Return the slots of these rows, counted from the oldest. O(B)."""
        oldest = self._counters.item(ring.ISSUED) - self.size
        return (places + oldest) % self._capacity

    def among_newest(self, slots: Ints, count: int) -> Flags:
        """Return which rows are among the newest. O(B)."""
        age = (self._counters.item(ring.ISSUED) - 1 - slots) % self._capacity
        newest: Flags = age < count
        return newest


class SomeSlots:
    """Some rows of a ring, which are let in and taken out one by one.

    Parameters
    ----------
    capacity : int
        Number of slots N.
    counters : int64[8]
        Of the ring; how many there are is counted there.

    Attributes
    ----------
    arrays : tuple of uint8[N], int64[...], int64[...]
        What kernels take as `present`, `counts` and `starts`.
    """

    def __init__(self, capacity: int, counters: Ints) -> None:
        self._counters = counters
        widths = [-(-capacity // live_kernels.BLOCK)]
        while widths[-1] > 1:
            widths.append(-(-widths[-1] // live_kernels.FANOUT))
        starts = np.concatenate([[0], np.cumsum(widths)])
        present = np.zeros(capacity, np.uint8)
        self.arrays: tuple[Any, ...] = present, np.zeros(starts[-1], np.int64), starts

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(array.nbytes for array in self.arrays)

    @property
    def present(self) -> NDArray[np.uint8]:
        """Of every slot 1 if it can be drawn, else 0."""
        present: NDArray[np.uint8] = self.arrays[0]
        return present

    @property
    def size(self) -> int:
        """How many can be drawn. O(1)."""
        return self._counters.item(ring.DRAWABLE)

    def all(self) -> Ints:
        """Return the slots that can be drawn, the oldest row first. O(N)."""
        slots = np.flatnonzero(self.present)
        end = self._counters.item(ring.ISSUED) % self.present.size
        return np.roll(slots, -np.searchsorted(slots, end))

    def at(self, places: Ints) -> Ints:
        """Return those at these places in that order. O(B log N)."""
        slots = np.empty(places.size, np.int64)
        live_kernels.slots_at(*self.arrays, self._counters, places, slots)
        return slots

    def among_newest(self, slots: Ints, count: int) -> Flags:
        """Return which of these are among the newest. O(B + log N)."""
        if not count:
            return np.zeros(slots.size, np.bool_)
        newest, capacity = self._counters.item(ring.ISSUED) - 1, self.present.size
        oldest = self.at(np.array([self.size - count]))
        among: Flags = (newest - slots) % capacity <= (newest - oldest) % capacity
        return among

    def restore(self, present: NDArray[np.uint8]) -> None:
        """Let in the slots where ``present``, uint8[N], is 1, and no others. O(N)."""
        self.present[:] = present
        live_kernels.count_all(*self.arrays, self._counters)
