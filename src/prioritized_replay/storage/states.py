"""Columns that are kept once for a sequence, such as the state of a recurrent network.

It knows fields, places and bytes; compiled loops of :mod:`.streams` move the values from place to
place. It does not know when a sequence begins.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prioritized_replay.checkpoint import manifest
from prioritized_replay.checkpoint.loading import Reader
from prioritized_replay.checkpoint.manifest import Piece
from prioritized_replay.fields.field import Field
from prioritized_replay.storage.memory import Memory
from prioritized_replay.storage.rows import Rows

__all__ = ["States"]

Array = NDArray[Any]
Ints = NDArray[np.int64]
INT64 = np.dtype(np.int64)
FIRST_ROOM = 64  # sequences for which there is room at first


class States:
    """The values that sequences have once, for as many sequences as there are.

    Parameters
    ----------
    capacity : int
        Number of slots N.
    streams : int
        Number of streams E.
    length : int
        Steps T of a sequence.
    fields : mapping of str to Field
        The leaves.
    memory : Memory
        Where their bytes are counted; they lie in RAM.

    Raises
    ------
    OverLimit
        If the memory has no room for them.
    """

    def __init__(
        self,
        capacity: int,
        streams: int,
        length: int,
        fields: Mapping[str, Field],
        memory: Memory,
    ) -> None:
        self._memory = memory
        self._capacity = capacity
        self.fields = dict(fields)
        """Schema of the values."""
        self._of_call = Rows(streams, fields)
        self._waiting = Rows(streams * length, fields)
        self._holders = np.zeros(capacity, np.int32)
        self._start()

    def _start(self) -> None:
        size = min(FIRST_ROOM, self._capacity)
        pool, free = Rows(size, self.fields), _all_free(size)
        self._count_bytes(pool.nbytes + free.nbytes)
        self._kept = pool, free

    def _count_bytes(self, of_pool: int) -> None:
        held = self._of_call.nbytes + self._waiting.nbytes + self._holders.nbytes
        self._memory.reserve("states", held + of_pool)

    @property
    def arrays(self) -> tuple[Any, ...]:
        """What kernels take as `waiting`, `pool`, `holders` and `free`."""
        pool, free = self._kept
        return self._waiting.words, pool.words, self._holders, free

    def staged(self, values: Mapping[str, Any], count: int) -> Array:
        """Return the values of K steps as kernels take them, `given`."""
        for name, column in self._of_call.columns.items():
            column[:count] = values[name]
        return self._of_call.words

    def packed(self, values: Mapping[str, Array]) -> Array:
        """Return the values of any number of steps as kernels take them."""
        return Rows.packed(self._of_call, values, 0)

    def make_room(self, count: int) -> None:
        """Make room for so many further sequences, but not for more than there can be.

        Raises
        ------
        OverLimit, MemoryError
            If there is none; nothing has changed then.
        """
        pool, free = self._kept
        before = len(pool)
        if free[0] >= count or before == self._capacity:  # no two begin at the same slot
            return
        size = min(max(2 * before, before + count), self._capacity)
        larger, more = Rows(size, self.fields), _all_free(size)
        self._count_bytes(larger.nbytes + more.nbytes)
        larger.words[: pool.words.size] = pool.words
        added = size - before
        more[1 : 1 + added] = np.arange(size - 1, before - 1, -1)
        more[1 + added : 1 + added + free[0]] = free[1 : 1 + free[0]]
        more[0] = added + free[0]
        self._kept = larger, more

    def bytes_to_come(self, sequences: int) -> int:
        """Return how many more bytes are held once there are so many sequences."""
        pool, _ = self._kept
        size = len(pool)
        while size < min(sequences, self._capacity):  # as `make_room` does, step by step
            size = min(2 * size, self._capacity)
        return (size - len(pool)) * (pool.row_size + INT64.itemsize)

    def columns_of(self, slots: Ints) -> dict[str, Array]:
        """Return the values of the sequences that begin at these slots, array[B, ...]."""
        pool, _ = self._kept
        places = self._holders[slots] - 1
        return {name: column[places] for name, column in pool.columns.items()}

    def clear(self) -> None:
        """Forget all sequences. O(N)."""
        self._holders[:] = 0
        self._start()

    def pieces(self, slots: Ints) -> list[Piece]:
        """Return the pieces of a checkpoint; sequences begin at ``slots``, in this order."""
        pieces = [Piece("states_waiting", None, self._waiting.words.copy)]
        for name, first, stop in self._blocks(slots.size):
            pieces.append(Piece(name, None, partial(self._copied, slots[first:stop])))
        return pieces

    def restore(self, reader: Reader, slots: Ints) -> None:
        """Restore what :meth:`pieces` returned; these states must be new."""
        reader.fill("states_waiting", self._waiting.words)
        self.make_room(slots.size)
        pool, free = self._kept
        for name, first, stop in self._blocks(slots.size):
            size = pool.row_size // pool.words.itemsize
            reader.fill(name, pool.words[first * size : stop * size])
        for rows in (self._waiting, pool):
            for column in rows.columns.values():
                if column.dtype == np.bool_ and (column.view(np.uint8) > 1).any():
                    raise reader.error("must not have other truth values than 0 and 1 in states")
        self._holders[slots] = np.arange(1, slots.size + 1)
        unused = np.arange(len(pool) - 1, slots.size - 1, -1)
        free[0], free[1 : 1 + unused.size] = unused.size, unused

    def _blocks(self, count: int) -> Iterator[tuple[str, int, int]]:
        """Return names of blocks of sequences, and where these begin and end."""
        each = max(manifest.PIECE // self._of_call.row_size, 1)
        for number, first in enumerate(range(0, count, each)):
            yield f"states-{number:06d}", first, min(first + each, count)

    def _copied(self, slots: Ints) -> Array:
        pool, _ = self._kept
        rows: Array = pool.words.reshape(len(pool), -1)[self._holders[slots] - 1]
        return rows.reshape(-1)


def _all_free(count: int) -> Ints:
    """Return a stack on which all places lie, the first on top."""
    return np.concatenate([[count], np.arange(count - 1, -1, -1)])
