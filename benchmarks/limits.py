"""What the machine allows, measured in the same turns: copies, random reads, one memory access.

Knows bytes and addresses; knows nothing of replay. No memory that copies its rows can be faster
than a copy of the same bytes, and a search through a tree waits for memory at every level.
"""

# numba infers the types of what it compiles, and its decorators are untyped:
# mypy: disallow-untyped-defs=False, disallow-untyped-calls=False
# mypy: disallow-untyped-decorators=False
from __future__ import annotations

import numpy as np
from numba import njit

from benchmarks.timing import Entry
from prioritized_replay.conformance.workload import ROW

COPY, ROWS, CHASE = "limit: copy", "limit: random rows", "limit: one access"
MEANING = {
    COPY: "a copy of as many bytes as the batch has, from one place",
    ROWS: "the batch's rows from random places, with numpy.take",
    CHASE: "one read that has to wait for the one before it, in the same amount of memory",
}
STEPS = 2000


@njit
def chase(following, start, steps):
    """Follow a chain of rows: each read says where the next one is."""
    row = start
    for _ in range(steps):
        row = following[row]
    return row


class Yardstick:
    """A table of N rows as large as the contenders' data, and the least that can be done with it.

    Parameters
    ----------
    size : int
        N >= 1.
    seed : int
        Of the order in which rows are read.
    """

    def __init__(self, size: int, seed: int = 0) -> None:
        self._size = size
        self._table = np.zeros(size, np.dtype(ROW.descr, align=True))
        self._following = self._table["action"]
        rows = np.random.default_rng(seed).permutation(size)
        self._following[rows] = np.roll(rows, -1)  # one cycle through every row
        self._row = int(chase(self._following, 0, 1))  # compiled before timing
        self._seed = seed

    @property
    def nbytes(self) -> int:
        """Bytes of the table."""
        return self._table.nbytes

    def entries(self, batch: int) -> dict[str, Entry]:
        """Return the copy and the random reads of B rows, to be timed among the contenders.

        Parameters
        ----------
        batch : int
            B.
        """
        out = np.empty(batch, self._table.dtype)
        place = out.view(np.uint8)
        source = self._table.view(np.uint8)
        width = batch * self._table.dtype.itemsize
        rng = np.random.default_rng(self._seed)

        def starts(given: np.ndarray) -> list[int]:
            rows = rng.integers(max(1, self._size - batch), size=len(given))
            return [int(row) * self._table.dtype.itemsize for row in rows]

        def draws(given: np.ndarray) -> list[np.ndarray]:
            return list(rng.integers(self._size, size=(len(given), batch)))

        def copy(start: int) -> None:
            np.copyto(place, source[start : start + width])

        def take(rows: np.ndarray) -> None:
            self._table.take(rows, out=out, mode="clip")  # any other mode copies twice

        entries = {ROWS: Entry(draws, take)}
        if batch <= self._size:
            entries[COPY] = Entry(starts, copy)
        return entries

    def access(self) -> Entry:
        """Return the chain of reads; 2,000 of them are one call."""

        def read(_: object) -> None:
            self._row = int(chase(self._following, self._row, STEPS))

        return Entry(list, read)
