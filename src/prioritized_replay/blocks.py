"""Blocks of memory that hold one batch each: where its columns lie, and how they are filled.

It knows rows by their slots and is told their probabilities; it does not know how they were drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from prioritized_replay import _kernels as kernels
from prioritized_replay.batch import Batch
from prioritized_replay.casting import Field
from prioritized_replay.storage import CACHE_LINE, WORD, Storage, Words

__all__ = ["COMPUTED", "Blocks"]

Array = NDArray[Any]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

COMPUTED = {
    "weights": Field((), "float32"),
    "probabilities": Field((), "float64"),
    "ids": Field((), "int64"),
}
"""Columns of a batch that are not stored in rows."""
KEPT_LAYOUTS = 16
UINT64 = np.dtype(np.uint64)


class Layout(NamedTuple):
    """Where the columns of a batch of B rows lie in their block."""

    size: int
    """Words of the block."""
    record: np.dtype[Any]
    """The whole block as one record, of which each column is a field."""
    copies: Ints
    """The plan of :func:`_kernels.gather_rows`."""
    computed: Ints
    """The words where the columns of COMPUTED begin."""


class Blocks:
    """Makes the columns of batches of rows of one storage.

    All columns of a batch lie in one block of memory of their own, each at the start of a cache
    line of it: that takes one allocation, and a compiled loop needs to be told of one array.

    Parameters
    ----------
    storage : Storage
        Where the rows are.
    capacity : int
        Number of slots N.
    """

    def __init__(self, storage: Storage, capacity: int) -> None:
        self._storage = storage
        self._capacity = capacity
        self._further = [name for name in storage.fields if name not in Batch.__annotations__]
        self._usual_of = itemgetter(*Batch.__annotations__)
        self._layouts: dict[int, Layout] = {}

    def new(self, count: int) -> tuple[Words, Batch]:
        """Return a block for B rows and the batch that lies in it, all unwritten.

        Every column is contiguous.
        """
        layout = self._layouts.get(count) or self._layout(count)
        block = np.empty(layout.size, UINT64)
        record = np.ndarray((), layout.record, block)
        batch = Batch.of(self._usual_of(record))
        for name in self._further:
            setattr(batch, name, record[name])
        return block, batch

    def complete(
        self,
        block: Words,
        slots: Ints,
        newest: int,
        beta: float,
        bounds: tuple[float, float],
        sums: Floats,
        *,
        drawn: bool,
    ) -> None:
        """Fill all columns but the probabilities, which are there already.

        Parameters
        ----------
        block : uint64[...]
            From :meth:`new`.
        slots : int64[B]
            Of the rows of the batch.
        newest : int
            The latest id given: ids and slots follow from it.
        beta : float
            Exponent of the weights.
        bounds : tuple of two floats
            From :meth:`Sampler.weight_bounds`.
        sums : float64[4]
            Written: the sum of the weights, that of their squares, the least and the largest.
        drawn : bool
            Whether to remember that these rows have been drawn.

        Notes
        -----
        O(B).
        """
        storage = self._storage
        layout = self._layouts.get(slots.size) or self._layout(slots.size)
        least, largest = bounds
        kernels.complete_batch(
            storage.words, slots, layout.copies, storage.row_size // WORD,
            storage.drawn_offset if drawn else -1,
            newest, self._capacity, layout.computed, least, beta, largest, sums, block,
        )  # fmt: skip

    def _layout(self, count: int) -> Layout:
        """Make the layout of a batch of so many rows, and keep it."""
        storage = self._storage
        fields: Mapping[str, Field] = storage.fields | COMPUTED
        places = []
        size = 0
        for field in fields.values():
            places.append(size)
            size += -(-field.nbytes * count // CACHE_LINE) * CACHE_LINE
        copies = []
        for place, (name, field) in zip(places, storage.fields.items(), strict=False):
            offset = storage.offsets[name]
            unit = next(w for w in (8, 4, 1) if offset % w == 0 and field.nbytes % w == 0)
            parts = (unit, field.nbytes, storage.row_size, offset, place)
            copies.append([unit, *(part // unit for part in parts[1:])])
        record = np.dtype(
            {
                "names": list(fields),
                "formats": [(field.dtype, (count, *field.shape)) for field in fields.values()],
                "offsets": places,
                "itemsize": size,
            }
        )
        computed = np.array(places[len(copies) :], np.int64) // WORD
        if len(self._layouts) >= KEPT_LAYOUTS:
            self._layouts.clear()
        layout = Layout(size // WORD, record, np.array(copies, np.int64), computed)
        self._layouts[count] = layout
        return layout
