"""Rows of transitions: fields, slots, bytes. It never sees a priority.

A row holds all fields of one transition side by side, so that drawing it touches the fewest
cache lines; a batch is copied into contiguous columns by one compiled loop.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from prioritized_replay import _kernels as kernels
from prioritized_replay.casting import Field

__all__ = ["Storage"]

Array = NDArray[Any]
Ints = NDArray[np.int64]
Words = NDArray[np.uint64]

WORD = 8
CACHE_LINE = 64
UINT64 = np.dtype(np.uint64)
KEPT_LAYOUTS = 16


class BatchLayout(NamedTuple):
    """Where the columns of a batch of B rows lie in one block of memory."""

    size: int
    """Words of the block."""
    dtype: np.dtype[Any]
    """The whole block as one record, of which each column is a field."""
    copies: Ints
    """The plan of :func:`_kernels.gather_rows`."""


class Storage:
    """N rows of named fields.

    Parameters
    ----------
    capacity : int
        Number of rows N.
    fields : mapping of str to Field
        Columns of a row.
    computed : mapping of str to Field
        Further columns of a batch, which are not stored: room is made for them.
    """

    def __init__(
        self,
        capacity: int,
        fields: Mapping[str, Field],
        computed: Mapping[str, Field] | None = None,
    ) -> None:
        self.fields = dict(fields)
        self._computed = dict(computed or {})
        self._names = (*self.fields, *self._computed)
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
        words = np.zeros((capacity * self._row_size + CACHE_LINE) // WORD, np.uint64)
        shift = (-words.ctypes.data % CACHE_LINE) // WORD  # the first row begins a cache line
        self._words = words[shift : shift + capacity * self._row_size // WORD]
        self._rows = self._words.view(dtype)
        self._drawn = self._words.view(np.uint8)[self._drawn_offset :: self._row_size]
        self.columns: dict[str, Array] = {name: self._rows[name] for name in self.fields}
        """Views of the columns: column ``name`` has shape (N, ``*shape``)."""
        self._columns = list(self.columns.values())
        self._offsets = offsets
        self._layouts: dict[int, BatchLayout] = {}

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self._words.nbytes

    def write(self, slot: int, values: Iterable[Any]) -> None:
        """Write one row: values that their fields accept, in the order of the fields."""
        for column, value in zip(self._columns, values, strict=True):
            column[slot] = value
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

    def new_batch(self, count: int) -> tuple[Words, dict[str, Array]]:
        """Return a block of memory for a batch of B rows and its columns, all unwritten.

        Column ``name`` has shape (B, ``*shape``), is contiguous and starts a cache line of the
        block. :meth:`gather` fills those of the fields, the computed ones are for the caller.
        """
        size, dtype, _ = self._layouts.get(count) or self._layout(count)
        block = np.empty(size, UINT64)
        record = np.ndarray((), dtype, block)
        return block, {name: record[name] for name in self._names}

    def gather(self, slots: Ints, block: Words, *, drawn: bool) -> None:
        """Copy the rows at ``slots``, int64[B], into the columns of a block for B rows.

        Where ``drawn``, it is remembered that these rows have been drawn. O(B).
        """
        kernels.gather_rows(
            self._words,
            slots,
            self._layouts[slots.size].copies,
            self._row_size // WORD,
            self._drawn_offset if drawn else -1,
            block,
        )

    def drawn(self, slots: Ints) -> NDArray[np.bool_]:
        """Return which of these rows have been drawn since they were written, bool[B]."""
        return np.not_equal(self._drawn[slots], 0)

    def _layout(self, count: int) -> BatchLayout:
        """Make the layout of a batch of so many rows, and keep it."""
        copies = []
        places = []
        size = 0
        fields = self.fields | self._computed
        for name, field in fields.items():
            if name in self.fields:
                offset = self._offsets[name]
                unit = next(w for w in (8, 4, 1) if offset % w == 0 and field.nbytes % w == 0)
                copies.append(
                    (unit, field.nbytes // unit, self._row_size // unit, offset // unit,
                     size // unit)
                )  # fmt: skip
            places.append(size)
            size += -(-field.nbytes * count // CACHE_LINE) * CACHE_LINE
        dtype = np.dtype(
            {
                "names": list(fields),
                "formats": [(field.dtype, (count, *field.shape)) for field in fields.values()],
                "offsets": places,
                "itemsize": size,
            }
        )
        if len(self._layouts) >= KEPT_LAYOUTS:
            self._layouts.clear()
        layout = BatchLayout(size // WORD, dtype, np.array(copies, np.int64))
        self._layouts[count] = layout
        return layout
