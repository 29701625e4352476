"""A large observation of transitions, kept as frames that rows share.

It knows which two columns of a row stand for it, and when to look for a stack in the data; how
frames are kept is the business of :mod:`.frames`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prioritized_replay.checkpoint.loading import Reader
from prioritized_replay.checkpoint.manifest import Piece
from prioritized_replay.fields.field import Field
from prioritized_replay.storage.frame_stacks import possible_axes, shifted_axis
from prioritized_replay.storage.frames import Frames
from prioritized_replay.storage.memory import Memory, Words
from prioritized_replay.storage.rows import Rows

__all__ = ["SharedObservation"]

Array = NDArray[Any]
Ints = NDArray[np.int64]

SMALLEST = 1024  # bytes: below, sharing would cost more than it saves
MOST_CHUNKS = 1 << 20
LOOKS = 3  # one step that does not follow from the one before should not decide
STEPS_TO_LOOK = 1000  # after so many rows the layout stays as it is


class FrameMemory:
    """Memory for the frames of one observation, in arrays whose names are never used twice.

    It is an object of its own, so that those who hold each other are not held in a circle: files
    and memory of a buffer that nobody uses any more are given back at once.

    Parameters
    ----------
    title : str
        What names begin with.
    memory : Memory
        Where the arrays lie.
    """

    def __init__(self, title: str, memory: Memory) -> None:
        self._title = title
        self._memory = memory
        self._named = 0
        self._arrays: dict[str, Words] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(words.nbytes for words in self._arrays.values())

    def words(self, count: int, beside: int) -> Words:
        """Return another array; see :meth:`Memory.words`."""
        name = f"{self._title}-{self._named:05d}"
        self._named += 1  # first: a name is never used twice, whatever happens to the words
        words = self._memory.words(name, count, beside)
        self._arrays[name] = words
        return words

    def keep(self, arrays: Sequence[Words]) -> None:
        """Give back all arrays but these."""
        used = set(map(id, arrays))
        for name in self._memory.names:
            if name.startswith(f"{self._title}-") and id(self._arrays.get(name)) not in used:
                self._memory.release(name)
                self._arrays.pop(name, None)


class SharedObservation:
    """One leaf of ``obs`` and its twin of ``next_obs``, as numbers of frames in a row.

    Parameters
    ----------
    number : int
        Of this one among all of a buffer: its frames are called by it.
    names : tuple of two str
        The leaf of ``obs`` and that of ``next_obs``.
    field : Field
        What they hold.
    capacity : int
        Number of transitions N.
    streams : int
        Number of streams E.
    memory : Memory
        Where the frames lie.
    """

    def __init__(
        self,
        number: int,
        names: tuple[str, str],
        field: Field,
        capacity: int,
        streams: int,
        memory: Memory,
    ) -> None:
        self.names = names
        # What a change of layout began with: see `look_for_stack`.
        self._before: tuple[Frames, list[tuple[Array, Array]]] | None = None
        self._title = f"frames-{number}"
        self._capacity = capacity
        self._streams = streams
        self._memory = FrameMemory(self._title, memory)
        self._frames = Frames(field, capacity, streams, self._memory.words)
        axes = possible_axes(field) if field.stack_axis is None else []
        self._looks = LOOKS if axes else 0  # steps that may still show no stack
        self._rows_to_look = min(STEPS_TO_LOOK, capacity)
        # Room for the longest stack that may be found: rows then keep their layout.
        width = max([self._frames.stack, *(field.shape[axis] for axis in axes)])
        self.references = Field((width,), "uint32")
        """What a row has in the place of each of the two."""

    @property
    def looking(self) -> bool:
        """Whether it is not known yet how the observation is stacked."""
        return self._looks > 0

    @staticmethod
    def worthwhile(field: Field) -> bool:
        """Return whether a leaf is large enough to be shared."""
        return field.nbytes >= SMALLEST

    def make_room(self, streams: Ints | None, columns: Mapping[str, Array]) -> None:
        """Make sure that :meth:`encode` of the same cannot fail; it raises what that would."""
        self._frames.make_room(streams, *(columns[name] for name in self.names))

    def encode(self, streams: Ints | None, columns: Mapping[str, Array]) -> dict[str, Array]:
        """Keep the observations of K steps and return the columns that stand for them.

        Parameters
        ----------
        streams : int64[K] or None
            Whose steps they are; None for rows unrelated to any stream. For one stream alone there
            may be many steps, in their order.
        columns : mapping
            Leaves of the steps.

        Returns
        -------
        dict of str to uint32[K, ...]
            They are held for the caller, who passes them on to rows or to :meth:`drop`.

        Raises
        ------
        MemoryError, OSError
            If there is no room for new frames; nothing has changed then.
        """
        observations = (columns[name] for name in self.names)
        if streams is None:
            pair = self._frames.encode_unrelated(*observations)
        else:
            pair = self._frames.encode(streams, *observations)
        return {name: self._widened(refs) for name, refs in zip(self.names, pair, strict=True)}

    def encode_one(self, stream: Ints, obs: Array, next_obs: Array) -> tuple[Array, Array]:
        """Keep the observations of one step of one stream, int64[1]; see :meth:`encode`.

        Returns
        -------
        uint32[...]
            What a row has in the place of the observation,
        uint32[...]
            and of the next one.
        """
        references = self._frames.encode_one(stream, obs, next_obs)
        stack = self._frames.stack
        if stack != self.references.shape[0]:
            wide = self._widened(references.reshape(2, stack))
            return wide[0], wide[1]
        return references[:stack], references[stack:]

    def is_last(self, stream: int, observation: Array) -> bool:
        """Return whether an observation is the last next one of its stream, bit for bit."""
        return self._frames.is_last(stream, observation)

    def last_references(self) -> Array:
        """Return a copy of what refers to the last next observations of all streams."""
        return self._frames.last.copy()

    def set_last_references(self, references: Array) -> None:
        """Put back what :meth:`last_references` returned; :meth:`recount` has to follow."""
        self._frames.last[:] = references

    def hold(self, storage: Rows, slots: Any) -> None:
        """Count rows just copied as holders of their frames."""
        for name in self.names:
            self._frames.hold(self._narrowed(storage.columns[name][slots]))

    def hold_columns(self, columns: Mapping[str, Array]) -> None:
        """Count rows to come, of columns that :meth:`encode` returned, as holders of frames."""
        for name in self.names:
            self._frames.hold(self._narrowed(columns[name]))

    def release(self, storage: Rows, slots: Any) -> None:
        """Let go of the frames of rows about to be overwritten; unwritten rows hold none."""
        for name in self.names:
            self._frames.release(self._narrowed(storage.columns[name][slots]))

    def release_one(self, storage: Rows, slot: int) -> None:
        """Let go of the frames of one row; see :meth:`release`."""
        stack = self._frames.stack
        for name in self.names:
            self._frames.release(storage.columns[name][slot, :stack])

    def drop(self, columns: Mapping[str, Array]) -> None:
        """Let go of what :meth:`encode` returned."""
        for name in self.names:
            self._frames.release(self._narrowed(columns[name]))

    def decode(self, obs: Array, next_obs: Array, shift: int) -> tuple[Array, Array]:
        """Return observations from what rows have in their place, see :meth:`Frames.decode`."""
        return self._frames.decode(self._narrowed(obs), self._narrowed(next_obs), shift)

    def clear(self, storages: Sequence[Rows], streams: Ints) -> None:
        """Forget all frames of these rows, and the last ones of all but these streams."""
        for storage in storages:
            for name in self.names:
                storage.columns[name][:] = 0
        self._frames.clear(streams)

    def look_for_stack(
        self, columns: Mapping[str, Array], storages: Sequence[tuple[Rows, int]]
    ) -> None:
        """Look at the first of K steps; if it shows a stack, keep frames from now on.

        Parameters
        ----------
        columns : mapping
            Leaves of the steps.
        storages : sequence of (Rows, int)
            Storages with rows that have frames, and how many rows from the first on.
        """
        if sum(rows for _, rows in storages[:1]) >= self._rows_to_look:
            self._looks = 0
            return
        axis = shifted_axis(*(columns[name][0] for name in self.names))
        if isinstance(axis, str):
            return
        if axis is None:
            self._looks -= 1
            return
        places = [storage.columns[name][:rows] for storage, rows in storages for name in self.names]
        before = [self._narrowed(place) for place in places]
        try:
            frames, after = self._frames.restacked(axis, before)
        except (MemoryError, OSError):  # no room for both: it stays as it is
            self._looks = 0
            self._memory.keep(self._frames.memory)
            return
        self._before = self._frames, list(zip(places, map(self._widened, before), strict=True))
        self._frames = frames
        for place, references in zip(places, after, strict=True):
            place[:] = self._widened(references)
        self._looks = 0
        self._before = None
        self._memory.keep(self._frames.memory)

    def pieces(self) -> list[Piece]:
        """Return the frames, as pieces of a checkpoint."""
        return self._frames.pieces(self._title)

    def state(self) -> dict[str, Any]:
        """Return the rest of what belongs to a checkpoint, in plain values."""
        return {
            f"{self._title}.chunks": self._frames.state(),
            f"{self._title}.stack_axis": self._frames.field.stack_axis,
            f"{self._title}.looks": self._looks,
        }

    def restore(self, reader: Reader, rows: int) -> None:
        """Restore what cannot be computed from the rows; see :meth:`adopt`.

        Parameters
        ----------
        reader : Reader
            The checkpoint.
        rows : int
            How many rows may refer to frames.
        """
        looks = reader.integer(f"{self._title}.looks", 0, self._looks)
        field = self._frames.field
        axis = reader.plain(f"{self._title}.stack_axis")
        if axis != field.stack_axis:
            if field.stack_axis is not None or looks or axis not in possible_axes(field):
                raise reader.error(f"must not have {self._title} stacked along {axis!r}")
            field = replace(field, stack_axis=axis)
            self._frames = Frames(field, self._capacity, self._streams, self._memory.words)
            self._memory.keep(self._frames.memory)
        self._looks = looks
        chunks = reader.integers(f"{self._title}.chunks", MOST_CHUNKS)
        self._frames.restore(self._title, reader, chunks, rows)

    def adopt(self, storage: Rows, slots: slice, reader: Reader) -> None:
        """Count rows from a checkpoint as holders of their frames."""
        for name in self.names:
            references = self._narrowed(storage.columns[name][slots])
            self._frames.adopt(references, reader, self._title)

    def adopted(self) -> None:
        """List the frames that no row holds as free, once all rows have been counted."""
        self._frames.list_free()

    def recount(self, storages: Sequence[Rows]) -> None:
        """Make counts and lists of frames agree with the rows, after an interrupted call.

        A change of layout that was not completed is taken back.
        """
        if self._before is not None:
            frames, rows = self._before
            for place, references in rows:
                place[:] = references
            self._frames = frames
            self._before = None
        stack = self._frames.stack
        columns = [rows.columns[name] for rows in storages for name in self.names]
        self._frames.recount(column[:, :stack] for column in columns)
        self._memory.keep(self._frames.memory)

    def bytes_to_come(self, stack: int) -> int:
        """Return about how many more bytes of frames N transitions need.

        Parameters
        ----------
        stack : int
            Images of one observation, of which each step brings a new one, where that has not been
            found out yet.
        """
        frames = self._frames
        each = frames.field.nbytes // max(stack, frames.stack)
        return max(0, self._capacity * each - self._memory.nbytes)

    def _narrowed(self, references: Array) -> Array:
        """Return the part of rows' references that is in use, fit for a kernel."""
        return np.ascontiguousarray(references[..., : self._frames.stack])

    def _widened(self, references: Array) -> Array:
        width = self.references.shape[0]
        if references.shape[-1] == width:
            return references
        wide = np.zeros((len(references), width), np.uint32)
        wide[:, : references.shape[-1]] = references
        return wide
