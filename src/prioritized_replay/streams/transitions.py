"""Rows of transitions made from steps: windows, rows and shared frames put together.

It knows neither ids nor priorities: a transition is told where to go, and is named by its slot.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prioritized_replay.checkpoint import manifest
from prioritized_replay.checkpoint.loading import Reader
from prioritized_replay.checkpoint.manifest import Piece
from prioritized_replay.fields.field import LARGEST
from prioritized_replay.fields.nested import Structure
from prioritized_replay.storage.memory import WORD, Memory
from prioritized_replay.storage.rows import Rows
from prioritized_replay.storage.shared_observation import SharedObservation
from prioritized_replay.streams import _window_kernels as kernels
from prioritized_replay.streams.n_step import INTERRUPTED, TERMINATED, Closed, OpenWindows
from prioritized_replay.streams.streams import ONLY_STREAM, Steps

__all__ = ["Transitions"]

Array = NDArray[Any]
Ints = NDArray[np.int64]

OBS, REWARD, NEXT_OBS = 0, 2, 4  # their places among the columns where none is nested


class Transitions:
    """N slots for transitions of up to n steps, and the steps of the windows that are open.

    Parameters
    ----------
    capacity : int
        Number of slots N.
    structures : mapping of str to Structure
        Of every column of a transition, in the order in which they are kept.
    n_step : int
        Steps n of a whole window, >= 1.
    gamma : float
        Discount of one step.
    streams : int
        How many there are, E.
    memory : Memory
        Where rows and frames lie.

    Attributes
    ----------
    storage : Rows
        The rows; in the place of a large observation a row has the numbers of its frames.
    shared : list of SharedObservation
        The large observations.
    windows : OpenWindows
        Empty for n = 1.
    """

    def __init__(
        self,
        capacity: int,
        structures: Mapping[str, Structure],
        n_step: int,
        gamma: float,
        streams: int,
        memory: Memory,
    ) -> None:
        self._capacity = capacity
        self._n_step = n_step
        self._identity = object()
        self._rewritten = 0  # how often all rows have been changed
        self._gamma = gamma
        fields = {
            name: field for part in structures.values() for name, field in part.leaves.items()
        }
        pairs = zip(structures["obs"].leaves, structures["next_obs"].leaves, strict=True)
        self.shared = [
            SharedObservation(number, names, fields[names[0]], capacity, streams, memory)
            for number, names in enumerate(pairs)
            if SharedObservation.worthwhile(fields[names[0]])
        ]
        for shared in self.shared:
            fields |= dict.fromkeys(shared.names, shared.references)
        self.storage = Rows(capacity, fields, memory, "rows")
        limit = LARGEST.get(np.dtype(fields["reward"].dtype).itemsize, np.inf)
        self.windows = OpenWindows(n_step, gamma, streams, limit)
        self._reward_type = np.dtype(fields["reward"].dtype).type
        self._reward, self._mark = np.zeros(1), np.zeros(1, np.uint8)  # see `add_one`
        self._steps: Rows | None = None  # the latest n steps of each stream
        if n_step > 1:
            self._steps = Rows(streams * n_step, fields, memory, "steps")
            self._end = self._end_of_window(structures["next_obs"])

    def add(self, first: int, steps: Steps) -> Closed | None:
        """Keep steps, and the transitions that they complete in the slots from ``first`` on.

        Parameters
        ----------
        first : int
            A slot; those after it follow modulo N.
        steps : Steps

        Returns
        -------
        Closed or None
            The windows that closed; None for n = 1, where each step is a transition.

        Raises
        ------
        ValueError
            If a return is too large for its column; nothing has changed then,
        MemoryError, OSError
            or if there is no room for new frames.
        """
        closing = 0
        if self._steps is not None:
            rewards = steps.columns["reward"].astype(np.float64)
            closing = self.windows.closing(steps.streams, rewards, steps.marks)
        columns = self._encoded(steps.streams, steps.columns)
        terminated = (steps.marks & TERMINATED) != 0
        columns["terminated"] = terminated
        columns["discount"] = np.where(terminated, np.float32(0.0), np.float32(self._gamma))
        if self._steps is None:
            self._put(first, steps.streams.size, columns)
            return None
        closed = self.windows.step(steps.streams, rewards, steps.marks, closing)
        for shared in self.shared:
            shared.release(self._steps, closed.rows)
        self._steps.write_rows(closed.rows, columns)
        self._join(first, closed)
        return closed

    def add_one(self, first: int, values: list[Any], mark: int) -> Closed | None:
        """Keep one step of a single stream, where no column is nested; see :meth:`add`.

        Parameters
        ----------
        first : int
        values : list
            Of all columns, in their order, each fit for its field. It may be changed.
        mark : int
            See :meth:`OpenWindows.closing`.
        """
        closing = 0
        if self._steps is not None:
            # As the column will have it: a return is a sum of rewards that could have been stored.
            self._reward[0] = self._reward_type(values[REWARD])
            self._mark[0] = mark
            closing = self.windows.closing(ONLY_STREAM, self._reward, self._mark)
        for shared in self.shared:
            values[OBS], values[NEXT_OBS] = shared.encode_one(
                ONLY_STREAM, values[OBS], values[NEXT_OBS]
            )
        if self._steps is None:
            for shared in self.shared:
                shared.release_one(self.storage, first)
            self.storage.write(first, values)
            return None
        closed = self.windows.step(ONLY_STREAM, self._reward, self._mark, closing)
        row = int(closed.rows[0])
        for shared in self.shared:
            shared.release_one(self._steps, row)
        self._steps.write(row, values)
        if closing:
            self._join(first, closed)
        return closed

    def interrupt(self, first: int, streams: Ints) -> Closed | None:
        """Close the open windows of streams where they are; see :meth:`add`.

        Raises
        ------
        ValueError
            If a return is too large for its column; nothing changes then.
        """
        if self._steps is None:
            return None
        marks = np.full(streams.size, INTERRUPTED, np.uint8)
        rewards = np.zeros(streams.size)
        closing = self.windows.closing(streams, rewards, marks)
        closed = self.windows.step(streams, rewards, marks, closing)
        self._join(first, closed)
        return closed

    def extend(self, first: int, count: int, columns: Mapping[str, Array]) -> None:
        """Keep ``count`` <= N complete transitions in the slots from ``first`` on.

        Raises
        ------
        MemoryError, OSError
            If there is no room for new frames; nothing has changed then.
        """
        self._put(first, count, self._encoded(None, columns))

    def clear(self) -> None:
        """Forget all transitions and open windows."""
        self._rewritten += 1
        self.windows.clear()
        storages = [self.storage] if self._steps is None else [self.storage, self._steps]
        for shared in self.shared:
            shared.clear(storages)

    @property
    def looking(self) -> bool:
        """Whether it is not known yet of all observations how they are stacked."""
        return any(shared.looking for shared in self.shared)

    def look_for_stacks(self, columns: Mapping[str, Array], written: int) -> None:
        """Find out from steps how an observation is stacked, where that is not known yet.

        Parameters
        ----------
        columns : mapping
            Leaves of K >= 1 steps; the first is looked at.
        written : int
            How many rows have been written, beginning with slot 0.
        """
        storages = [(self.storage, written)]
        if self._steps is not None:
            storages.append((self._steps, len(self._steps)))
        for shared in self.shared:
            if shared.looking:
                shared.look_for_stack(columns, storages)
                self._rewritten += not shared.looking

    def pieces(self, issued: int) -> list[Piece]:
        """Return what of this belongs to a checkpoint, besides :meth:`state`.

        Parameters
        ----------
        issued : int
            How many rows were made in all.
        """
        written = min(issued, self._capacity)
        pieces = self.storage.pieces("rows", self._bounds(issued))
        pieces.append(Piece("drawn", None, partial(self.storage.marks, written)))
        if self._steps is not None:
            pieces += self._steps.pieces("steps", self._bounds_of_steps())
        for shared in self.shared:
            pieces += shared.pieces()
        return pieces + self.windows.pieces()

    def state(self) -> dict[str, Any]:
        """Return the rest of what belongs to a checkpoint, in plain values."""
        return {name: value for part in self.shared for name, value in part.state().items()}

    def restore(self, reader: Reader, issued: int) -> None:
        """Become what a checkpoint says; this has to be new.

        Raises
        ------
        CheckpointError
            If that is not possible; what has changed then is not defined.
        """
        written = min(issued, self._capacity)
        parts = [("rows", self.storage, self._bounds(issued))]
        if self._steps is not None:
            parts.append(("steps", self._steps, self._bounds_of_steps()))
        for shared in self.shared:
            shared.restore(reader, sum(len(storage) for _, storage, _ in parts))
        for name, storage, bounds in parts:
            storage.restore(name, reader, bounds)
            for first, stop, _ in bounds:
                for shared in self.shared:
                    shared.adopt(storage, slice(first, stop), reader)
        for shared in self.shared:
            shared.adopted()
        self.storage.set_marks(reader.array("drawn", np.uint8, (-(-written // 8),)), written)
        self.windows.restore(reader)

    def _bounds(self, issued: int) -> list[tuple[int, int, Hashable]]:
        """Return where pieces of rows begin and end, and what tells versions of them apart."""
        written = min(issued, self._capacity)
        each = max(manifest.PIECE // self.storage.row_size, 1)
        bounds: list[tuple[int, int, Hashable]] = []
        for first in range(0, written, each):
            stop = min(first + each, written)
            # Rows are written in the order of the ring: the latest number of any of these says all.
            back = ((issued - 1) % self._capacity - (stop - 1)) % self._capacity
            if (issued - 1) % self._capacity in range(first, stop):
                back = 0
            bounds.append((first, stop, (self._identity, self._rewritten, issued - 1 - back)))
        return bounds

    def bytes_to_come(self, stack: int) -> int:
        """Return about how many more bytes of frames there are when all slots are taken."""
        return sum(shared.bytes_to_come(stack) for shared in self.shared)

    def _bounds_of_steps(self) -> list[tuple[int, int, Hashable]]:
        assert self._steps is not None
        count = len(self._steps)
        each = max(manifest.PIECE // self._steps.row_size, 1)
        return [(first, min(first + each, count), None) for first in range(0, count, each)]

    def _encoded(self, streams: Ints | None, columns: Mapping[str, Array]) -> dict[str, Array]:
        """Return the columns of rows; all or nothing is encoded."""
        columns = dict(columns)
        if len(self.shared) > 1:
            for shared in self.shared:
                shared.make_room(streams, columns)
        for shared in self.shared:
            columns |= shared.encode(streams, columns)
        return columns

    def _put(self, first: int, count: int, columns: Mapping[str, Array]) -> None:
        """Write complete rows; of more than N the last stay."""
        kept = min(count, self._capacity)
        passing = count - kept
        if passing:
            for shared in self.shared:
                shared.drop({name: columns[name][:passing] for name in shared.names})
            columns = {name: column[passing:] for name, column in columns.items()}
        first = (first + passing) % self._capacity
        if self.shared:
            slots = self._slots(first, kept)
            for shared in self.shared:
                shared.release(self.storage, slots)
        self.storage.write_many(first, kept, columns)

    def _join(self, first: int, closed: Closed) -> None:
        """Make rows of windows that closed."""
        count = closed.returns.size
        if count == 0:
            return
        assert self._steps is not None
        kept = min(count, self._capacity)
        passing = count - kept
        places = closed.places if not passing else np.ascontiguousarray(closed.places[:, passing:])
        first = (first + passing) % self._capacity
        slots = self._slots(first, kept)
        for shared in self.shared:
            shared.release(self.storage, slots)
        kernels.join_rows(self.storage.words, first, self._steps.words, places, self._end)
        columns = self.storage.columns
        columns["reward"][slots] = closed.returns[passing:]
        columns["discount"][slots] = closed.discounts[passing:]
        columns["terminated"][slots] = places[kernels.IS_TERMINATED]
        for shared in self.shared:
            shared.hold(self.storage, slots)

    def _slots(self, first: int, count: int) -> Any:
        """Return an index of so many slots from one on, modulo N."""
        if first + count <= self._capacity:
            return slice(first, first + count)  # in a tenth of the time
        return (first + np.arange(count)) % self._capacity

    def _end_of_window(self, structure: Structure) -> Ints:
        """Return which parts of a row come from the last step of a window, see `join_rows`."""
        storage = self.storage
        lines = []
        for name in structure.leaves:
            offset, nbytes = storage.offsets[name], storage.fields[name].nbytes
            unit = next(w for w in (8, 4, 1) if offset % w == 0 and nbytes % w == 0)
            lines.append((unit, storage.row_size // unit, offset // unit, nbytes // unit))
        return np.array([(storage.row_size // WORD, 0, 0, 0), *lines], np.int64)
