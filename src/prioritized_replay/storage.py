"""Rows of transitions: fields, slots, bytes. It never sees a priority.

A row holds all fields of one transition side by side, so that drawing it touches the fewest
cache lines; a batch is copied into contiguous columns by one compiled loop.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prioritized_replay import _kernels as kernels
from prioritized_replay.casting import Field

__all__ = ["Storage"]

Array = NDArray[Any]
Ints = NDArray[np.int64]

WORD = 8
CACHE_LINE = 64
KEPT_LAYOUTS = 16


class Storage:
    """N rows of named fields.

    Parameters
    ----------
    capacity : int
        Number of rows N.
    fields : mapping of str to Field
        Columns of a row.
    """

    def __init__(self, capacity: int, fields: Mapping[str, Field]) -> None:
        self.fields = dict(fields)
        # Widest items first: every column is then aligned without gaps between them.
        order = sorted(self.fields, key=lambda name: -np.dtype(self.fields[name].dtype).itemsize)
        offsets = {}
        size = 0
        for name in order:
            offsets[name] = size
            size += self.fields[name].nbytes
        self._drawn_offset = size  # one byte: has the row been drawn since it was written?
        self._row_size = -(-(size + 1) // WORD) * WORD
        dtype = np.dtype(
            {
                "names": order,
                "formats": [(f.dtype, f.shape) for f in (self.fields[name] for name in order)],
                "offsets": [offsets[name] for name in order],
                "itemsize": self._row_size,
            }
        )
        self._words = np.zeros(capacity * self._row_size // WORD, np.uint64)
        self._halves = self._words.view(np.uint32)
        self._bytes = self._words.view(np.uint8)
        self._rows = self._words.view(dtype)
        self._drawn = self._bytes[self._drawn_offset :: self._row_size]
        self.columns: dict[str, Array] = {name: self._rows[name] for name in self.fields}
        """Views of the columns: column ``name`` has shape (N, ``*shape``)."""
        self._offsets = offsets
        self._layouts: dict[int, tuple[NDArray[np.int64], int, list[tuple[str, int]]]] = {}

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self._words.nbytes

    def write(self, slot: int, values: Mapping[str, Array]) -> None:
        """Write one row of values already of their field's shape and dtype."""
        for name, value in values.items():
            self.columns[name][slot] = value
        self._drawn[slot] = 0

    def write_many(self, first: int, count: int, values: Mapping[str, Array]) -> None:
        """Write ``count`` <= N rows from slot ``first`` on, modulo N, of columns cast already."""
        to_end = min(count, len(self._rows) - first)
        for name, column in self.columns.items():
            column[first : first + to_end] = values[name][:to_end]
            column[: count - to_end] = values[name][to_end:]
        self._drawn[first : first + to_end] = 0
        self._drawn[: count - to_end] = 0

    def copy(self, slot: int, other: Storage, other_slot: int) -> None:
        """Copy a row of another storage of the same fields."""
        self._rows[slot] = other._rows[other_slot]
        self._drawn[slot] = 0

    def read(self, slots: Ints, *, drawn: bool = False) -> dict[str, Array]:
        """Copy rows into fresh contiguous columns.

        Parameters
        ----------
        slots : int64[B]
            Rows to read.
        drawn : bool
            Whether to remember that these rows have been drawn.

        Returns
        -------
        dict of str to array
            Column ``name`` has shape (B, ``*shape``). All lie in one block of memory of their
            own, each at the start of a cache line.
        """
        count = slots.size
        if count not in self._layouts:
            if len(self._layouts) >= KEPT_LAYOUTS:
                self._layouts.clear()
            self._layouts[count] = self._layout(count)
        layout, size, places = self._layouts[count]
        words = np.empty(size // WORD, np.uint64)
        kernels.gather_rows(
            self._words, self._halves, self._bytes, slots,
            layout, self._row_size // WORD, self._drawn_offset if drawn else -1,
            words, words.view(np.uint32), words.view(np.uint8),
        )  # fmt: skip
        columns = {}
        for name, place in places:
            field = self.fields[name]
            columns[name] = np.ndarray((count, *field.shape), field.dtype, words, place)
        return columns

    def drawn(self, slots: Ints) -> NDArray[np.bool_]:
        """Return which of these rows have been drawn since they were written, bool[B]."""
        return np.not_equal(self._drawn[slots], 0)

    def _layout(self, count: int) -> tuple[NDArray[np.int64], int, list[tuple[str, int]]]:
        """Return the copy plan of a batch: see :func:`_kernels.gather_rows`."""
        lines = []
        places = []
        size = 0
        for name, field in self.fields.items():
            offset = self._offsets[name]
            width = next(w for w in (8, 4, 1) if offset % w == 0 and field.nbytes % w == 0)
            lines.append(
                (width, field.nbytes // width, self._row_size // width, offset // width,
                 size // width)
            )  # fmt: skip
            places.append((name, size))
            size += -(-field.nbytes * count // CACHE_LINE) * CACHE_LINE
        return np.array(lines, np.int64), size, places
