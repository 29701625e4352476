"""Makes batches: lays their columns out in one block of memory each, and fills them.

It receives slots and their probabilities; it does not know how they were drawn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from prioritized_replay.batch import USUAL, Batch
from prioritized_replay.batches import _batch_kernels as batch_kernels
from prioritized_replay.fields.field import Field
from prioritized_replay.fields.nested import Structure
from prioritized_replay.storage.memory import CACHE_LINE, WORD, Words
from prioritized_replay.storage.rows import Rows
from prioritized_replay.storage.shared_observation import SharedObservation

__all__ = ["COMPUTED", "BatchBuilder", "no_such_slot"]

Array = NDArray[Any]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

COMPUTED = {
    "weights": Field((), "float32"),
    "probabilities": Field((), "float64"),
    "ids": Field((), "int64"),
}
"""Schema of a batch that are not stored in rows, in the order of :mod:`_kernels`."""
KEPT_LAYOUTS = 16
LARGEST_RECORD = 2**31 - 1  # bytes, for NumPy
UINT64 = np.dtype(np.uint64)


class Layout(NamedTuple):
    """Where the columns of a batch of B rows lie in their block."""

    size: int
    """Words of the block."""
    dtype: np.dtype[Any]
    """The whole block as one record, of which each column is a field."""
    plan: Ints
    """The same for kernels, see `layout` in :mod:`_kernels`."""


BatchCall = tuple[bool, Words, Ints, int, float, float, float, Ints, Words]
"""The arguments of :func:`_kernels.complete_batch`, which fills the batch of a block."""


class BatchBuilder:
    """Makes batches of rows of one storage.

    All columns of a batch lie in one block of memory, each at the start of a cache line. So there
    is one allocation, and a compiled loop takes one array.

    Parameters
    ----------
    storage : Rows
        Where the rows are.
    capacity : int
        Number of slots N.
    structures : mapping of str to Structure
        Of the columns of a batch; the storage has their leaves.
    shared : sequence of SharedObservation
        The leaves for which the storage has numbers of frames.
    n_step : int
        By how many frames ``next_obs`` is usually ahead of ``obs``.
    """

    def __init__(
        self,
        storage: Rows,
        capacity: int,
        structures: Mapping[str, Structure],
        shared: Sequence[SharedObservation],
        n_step: int,
    ) -> None:
        self._storage = storage
        self._capacity = capacity
        self._structures = dict(structures)
        self._shared = tuple(shared)
        self._n_step = n_step
        self.plain = not shared and all(structure.plain for structure in structures.values())
        """Whether a batch is what the kernels leave, without :meth:`finished`."""
        self._further = [name for name in storage.fields if name not in USUAL]
        self._usual_of = itemgetter(*USUAL)
        self._layouts: dict[int, Layout] = {}
        self._axes: tuple[int, ...] = ()  # of a value in a batch, before those of its field

    def new(
        self,
        count: int,
        newest: int,
        beta: float,
        bounds: tuple[float, float],
        record: Ints,
        drawn: bool,
    ) -> tuple[Batch[Array], BatchCall]:
        """Make room for a batch of B rows.

        Parameters
        ----------
        count : int
            B.
        newest : int
            The latest id given: ids and slots follow from each other by it.
        beta : float
            Exponent of the weights.
        bounds : tuple of two floats
            From :meth:`Sampler.weight_bounds`.
        record : int64[...]
            To be written with what is remembered of the batch, see :class:`.LastBatch`.
        drawn : bool
            Whether to remember that the rows of this batch have been drawn.

        Returns
        -------
        batch : Batch
            Its columns are contiguous and unwritten.
        call : BatchCall
            For a kernel that draws rows and fills the batch, or for :meth:`complete`.
        """
        size, dtype, plan = self._layouts.get(count) or self._layout(count)
        block = np.empty(size, UINT64)
        columns = np.ndarray((), dtype, block)
        if self.plain:
            batch = Batch.of_usual(self._usual_of(columns))
            for name in self._further:
                setattr(batch, name, columns[name])
        else:
            names = (*self._storage.fields, *COMPUTED)
            batch = Batch({name: columns[name] for name in names})
        least, largest = bounds
        rows = self._storage.words
        return batch, (drawn, rows, plan, newest, least, beta, largest, record, block)

    def complete(self, call: BatchCall, slots: Ints) -> None:
        """Fill a batch that has its probabilities.

        Parameters
        ----------
        call : BatchCall
            From :meth:`new`.
        slots : int64[B]
            Of its rows.

        Notes
        -----
        O(B).
        """
        plan, block = call[2], call[-1]
        first = plan[0, batch_kernels.SLOTS]
        block[first : first + slots.size] = slots.view(UINT64)
        strange = batch_kernels.complete_batch(*call)
        if strange:
            raise self.refused(strange, call)

    def refused(self, strange: int, call: BatchCall) -> RuntimeError:
        """Return the error for a batch that a kernel has refused: a slot that no row has."""
        plan, block = call[2], call[-1]
        slot = block.view(np.int64)[plan[0, batch_kernels.SLOTS] + strange - 1]
        return no_such_slot(slot, strange - 1, self._capacity)

    def finished(self, batch: Batch[Array]) -> Batch[Array]:
        """Return a batch that is complete, with frames and nested columns in their places.

        Parameters
        ----------
        batch : Batch
            From :meth:`new`, filled.
        """
        leaves = {name: batch[name] for name in batch}
        for shared in self._shared:
            obs, next_obs = shared.names
            leaves[obs], leaves[next_obs] = shared.decode(
                leaves[obs], leaves[next_obs], self._n_step
            )
        columns = {
            name: structure.put_together(map(leaves.__getitem__, structure.leaves))
            for name, structure in self._structures.items()
        }
        for name in COMPUTED:
            columns[name] = leaves[name]
        return Batch(columns)

    def _layout(self, count: int) -> Layout:
        """Make the layout of a batch of so many rows, and keep it."""
        storage = self._storage
        fields: Mapping[str, Field] = storage.fields | COMPUTED
        leads = {name: (count, *(() if name in COMPUTED else self._axes)) for name in fields}
        places = {}
        size = 0
        for name, field in fields.items():
            places[name] = size
            size += -(-field.nbytes * math.prod(leads[name]) // CACHE_LINE) * CACHE_LINE
        words = size // WORD + 3 * count  # slots, and as much as a draw by rank needs besides
        if words * WORD > LARGEST_RECORD:
            raise ValueError(
                f"a batch must take at most {LARGEST_RECORD} bytes, got {words * WORD} for {count} "
                "rows"
            )
        plan = np.zeros((1 + len(storage.fields), 8), np.int64)
        plan[0] = (
            count, storage.row_size // WORD, storage.mark_offset, self._capacity,
            *(places[name] // WORD for name in COMPUTED), size // WORD,
        )  # fmt: skip
        for line, (name, field) in zip(plan[1:], storage.fields.items(), strict=True):
            offset = storage.offsets[name]
            unit = next(w for w in (8, 4, 1) if offset % w == 0 and field.nbytes % w == 0)
            parts = (field.nbytes, storage.row_size, offset, places[name])
            line[:5] = (unit, *(part // unit for part in parts))
        dtype = np.dtype(
            {
                "names": list(fields),
                "formats": [(f.dtype, (*leads[name], *f.shape)) for name, f in fields.items()],
                "offsets": list(places.values()),
                "itemsize": words * WORD,
            }
        )
        if len(self._layouts) >= KEPT_LAYOUTS:
            self._layouts.clear()
        layout = Layout(words, dtype, plan)
        self._layouts[count] = layout
        return layout


def no_such_slot(slot: int, position: int, capacity: int) -> RuntimeError:
    """Return the error for a draw that gave a slot which no row has."""
    return RuntimeError(
        f"a draw must give slots >= 0 and < {capacity}, got {slot} at position {position}: the "
        "memory of the sampler was overwritten; call clear, or load a checkpoint into a new one"
    )
