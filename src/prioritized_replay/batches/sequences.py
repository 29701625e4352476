"""Makes batches of sequences: [B, T, ...] for every column, padded where an episode was shorter.

It receives the slots where sequences begin; it does not know how they were drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prioritized_replay.batch import Batch
from prioritized_replay.batches import _batch_kernels as batch_kernels
from prioritized_replay.batches import _sequence_kernels as kernels
from prioritized_replay.batches.builder import COMPUTED, BatchBuilder, BatchCall
from prioritized_replay.fields.nested import Structure
from prioritized_replay.storage.rows import Rows
from prioritized_replay.storage.shared_observation import SharedObservation

__all__ = ["SequenceBuilder", "mixed_errors"]

Array = NDArray[Any]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Once = Callable[[Ints], dict[str, Array]]
UINT64 = np.dtype(np.uint64)


class SequenceBuilder(BatchBuilder):
    """Makes batches of sequences of the rows of one storage.

    Parameters
    ----------
    storage, capacity, structures, shared
        As for :class:`.BatchBuilder`.
    length : int
        Steps T of a sequence.
    stop : bool
        Whether a sequence stops where an episode does.
    ahead : uint32[N] or uint32[0]
        How many ids later the stream of a row goes on, see :mod:`.streams`.
    states : mapping of str to Structure
        Of the columns that are kept once for a sequence.
    once : callable
        Returns their leaves, array[B, ...], of the sequences that begin at some slots.
    """

    def __init__(
        self,
        storage: Rows,
        capacity: int,
        structures: Mapping[str, Structure],
        shared: Sequence[SharedObservation],
        length: int,
        stop: bool,
        ahead: NDArray[np.uint32],
        states: Mapping[str, Structure],
        once: Once,
    ) -> None:
        super().__init__(storage, capacity, structures, shared, 1)
        self._axes = (length,)
        self._length, self._stop, self._ahead = length, stop, ahead
        self._states, self._once = dict(states), once
        self._nested = bool(states) or not all(s.plain for s in structures.values())
        self.plain = False  # there are columns besides those of rows

    def complete(self, call: BatchCall, slots: Ints) -> None:
        """Fill a batch that has its probabilities, all but what :meth:`finished` adds."""
        drawn, rows, plan, newest, least, beta, largest, record, block = call
        first = plan[0, batch_kernels.SLOTS]
        block[first : first + slots.size] = slots.view(UINT64)
        steps = np.empty((slots.size, self._length), np.int64)
        flags = np.empty((2, slots.size, self._length), np.bool_)
        strange = kernels.complete_sequences(
            drawn, rows, plan, self._ahead, newest, self._stop, least, beta, largest, record, block,
            steps, flags,
        )  # fmt: skip
        if strange:
            raise self.refused(strange, call)
        self._flags = flags

    def finished(self, batch: Batch[Array]) -> Batch[Array]:
        """Return the batch that was completed last, with all of its columns."""
        real, first = self._flags
        shape = real.shape
        leaves: dict[str, Any] = dict(batch.items())
        padded = bool(self._shared) and not real.all()
        for shared in self._shared:
            obs, next_obs = (
                leaves[name].reshape(real.size, *leaves[name].shape[2:]) for name in shared.names
            )
            both = shared.decode(obs, next_obs, 1)
            for name, decoded in zip(shared.names, both, strict=True):
                decoded = decoded.reshape(*shape, *decoded.shape[1:])
                if padded:  # a copy, as frames of both may be the same memory
                    decoded = np.array(decoded)
                    decoded[~real] = 0
                leaves[name] = decoded
        columns = leaves
        if self._nested:
            leaves |= self._once(batch.ids % self._capacity) if self._states else {}
            columns = {
                name: structure.put_together(map(leaves.__getitem__, structure.leaves))
                for name, structure in (self._structures | self._states).items()
            }
        columns["mask"], columns["is_first"] = real, first
        for name in COMPUTED:  # they come last
            columns[name] = leaves.pop(name)
        return Batch(columns)

    def steps_of(self, starts: Ints, newest: int) -> Ints:
        """Return the slots of the steps of sequences, int64[B, T]; -1 for padding.

        Parameters
        ----------
        starts : int64[B]
            The slots where they begin; -1 for one that is not there, which has no steps.
        newest : int
            The latest id given.
        """
        slots = np.empty((starts.size, self._length), np.int64)
        _, _, plan = self._layouts.get(1) or self._layout(1)
        kernels.walk(
            self._storage.words, plan, self._ahead, newest % self._capacity, self._stop, starts,
            slots,
        )  # fmt: skip
        return slots


def mixed_errors(slots: Ints, td_errors: Floats, burn_in: int, mix: float) -> Floats:
    """Return one error for each sequence, float64[B].

    Parameters
    ----------
    slots : int64[B, T]
        From :meth:`SequenceBuilder.steps_of`.
    td_errors : float64[B, T]
        Of each step.
    burn_in : int
        How many first steps do not count.
    mix : float
        Share of the largest absolute error; the rest is that of the mean (Kapturowski et al. 2019,
        section 2.3).
    """
    errors = np.empty(len(slots))
    kernels.mix_errors(slots, td_errors, burn_in, mix, errors)
    return errors
