"""Large observations as single frames, each stored once; it knows neither rows nor priorities.

What is shared is what was found byte-equal when it was added. A frame that is expected to be new
but is not, or the other way round, costs memory at most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prioritized_replay.checkpoint import manifest
from prioritized_replay.checkpoint.loading import Reader
from prioritized_replay.checkpoint.manifest import Piece
from prioritized_replay.fields.field import Field
from prioritized_replay.storage import _frame_kernels as frame_kernels

__all__ = ["Frames"]

Array = NDArray[Any]
Ints = NDArray[np.int64]
References = NDArray[np.uint32]
Words = NDArray[np.uint64]

WORD = 8
CHUNKS = 128  # that hold one frame for each transition, or up to twice as many
ROOM = 8  # a table that is full grows by an eighth
UINT32, UINT64 = np.dtype(np.uint32), np.dtype(np.uint64)
NO_STREAMS = np.empty(0, np.int64)


class Frames:
    """Frames of the observations of one field.

    An observation is a stack of S frames, kept as S references: numbers of frames. Whoever keeps
    references holds their frames, and has to release them. Frame 0 is all zero and is never
    counted, so zeroed references may be held and released without effect.

    Parameters
    ----------
    field : Field
        An observation. Along its ``stack_axis`` lie its frames; without one, it is one frame.
    capacity : int
        How many transitions there will be, N. Frames lie in chunks of about N / 128, which are
        neither moved nor given back.
    streams : int
        Number of streams E, whose observations follow each other.
    allocate : callable
        Returns that many 8-byte words as a C-contiguous uint64 array. The second argument is the
        number of bytes by which the tables beside them grow. If it raises, nothing has changed.

    Attributes
    ----------
    stack : int
        S, frames of an observation.
    references : Field
        What a row stores of an observation.
    frame_nbytes : int
        Bytes that a frame takes.
    """

    def __init__(
        self, field: Field, capacity: int, streams: int, allocate: Callable[[int, int], Words]
    ) -> None:
        axis = field.stack_axis
        self.field = field
        self.stack = 1 if axis is None else field.shape[axis]
        self.references = Field((self.stack,), "uint32")
        self._capacity = capacity
        self._allocate = allocate
        self._streams = streams
        self._axis = axis or 0
        self._plain_nbytes = field.nbytes // self.stack
        self._words = -(-self._plain_nbytes // WORD)
        self.frame_nbytes = self._words * WORD
        self._bits = max(capacity // CHUNKS, 1).bit_length() - 1
        self._dtype = np.dtype(field.dtype)
        # The strides of an observation whose frames lie one after the other.
        frame = [length for k, length in enumerate(field.shape) if axis is None or k != self._axis]
        steps = [self._dtype.itemsize * int(np.prod(frame[k + 1 :])) for k in range(len(frame))]
        if axis is not None:
            steps.insert(self._axis, self.frame_nbytes)
        self._strides = tuple(steps)

        # Frames are saved 2**group at a time, and only those groups that were written to.
        self._group = max(manifest.PIECE // self.frame_nbytes, 1).bit_length() - 1
        self._writes = np.zeros(1, np.int64)
        self._identity = object()
        self.memory: list[Words] = []
        """Pieces of memory, as ``allocate`` returned them; the table points into them."""
        self._chunks = 0
        self._table = np.zeros(ROOM, UINT64)
        self._ledger = np.zeros((2, 0), UINT32)
        self.last = np.zeros(streams * self.stack, UINT32)
        """uint32[E S]: references to the last next observation of each stream, which are held."""
        self._free = 0
        self._grow(1)

    @property
    def nbytes(self) -> int:
        """Bytes of memory held."""
        books = self._table.nbytes + self._ledger.nbytes + self.last.nbytes
        return books + (self._chunks << self._bits) * self.frame_nbytes

    @property
    def used(self) -> int:
        """Number of frames that somebody holds."""
        return max((self._chunks << self._bits) - 1 - self._free, 0)

    def encode(self, streams: Ints, obs: Array, next_obs: Array) -> tuple[References, References]:
        """Store one step of each of K different streams, or K steps of one stream in their order.

        Parameters
        ----------
        streams : int64[K] or int64[1]
            Numbers below E, none twice.
        obs, next_obs : array[K, ...]
            Of the field's shape and dtype. They are compared with the stream's last ``next_obs``,
            with each other and with the frame of zeros.

        Returns
        -------
        obs_references, next_references : uint32[K, S]
            Held once for the caller, each time they occur.

        Raises
        ------
        Exception
            What ``allocate`` raises; nothing has changed then.

        Notes
        -----
        O(bytes of the observations), where they are as expected; at worst S times as much.
        """
        references = self._encode(
            self.stack, streams, self._to_words(obs), self._to_words(next_obs)
        ).reshape(2, len(obs), self.stack)
        return references[0], references[1]

    def encode_one(self, stream: Ints, obs: Array, next_obs: Array) -> References:
        """Store one step of one stream, int64[1]; see :meth:`encode`.

        Returns
        -------
        uint32[2 S]
            Those of the observation, then those of the next one.
        """
        words, next_words = self._to_words(obs[np.newaxis]), self._to_words(next_obs[np.newaxis])
        return self._encode(self.stack, stream, words, next_words)

    def encode_unrelated(self, obs: Array, next_obs: Array) -> tuple[References, References]:
        """Store B steps of no stream, each compared with the step before it; see :meth:`encode`."""
        references = self._encode(
            self.stack, NO_STREAMS, self._to_words(obs), self._to_words(next_obs)
        ).reshape(2, len(obs), self.stack)
        return references[0], references[1]

    def make_room(self, streams: Ints | None, obs: Array, next_obs: Array) -> None:
        """Make sure that :meth:`encode` of these (None: :meth:`encode_unrelated`) cannot fail.

        Raises
        ------
        Exception
            What ``allocate`` raises; nothing has changed then.
        """
        most = 2 * len(obs) * self.stack
        if most <= self._free:
            return
        words, next_words = self._to_words(obs), self._to_words(next_obs)
        references = np.empty(most, UINT32)
        streams = NO_STREAMS if streams is None else streams
        # With fewer than none free it only says how many there would have to be.
        new = -1 - self._try(-1, self.stack, streams, words, next_words, references)
        if new > self._free:
            self._grow(-((self._free - new) >> self._bits))

    def _encode(self, stack: int, streams: Ints, obs: Words, next_obs: Words) -> References:
        references = np.empty(2 * obs.size // self._words, UINT32)
        while True:
            free = self._try(self._free, stack, streams, obs, next_obs, references)
            if free >= 0:
                self._free = free
                return references
            self._grow(-(free >> self._bits))

    def _try(
        self, free: int, stack: int, streams: Ints, obs: Words, next_obs: Words, out: References
    ) -> int:
        """Encode with so many free frames; return how many are left, < 0 if they did not do."""
        left: int = frame_kernels.encode(
            self._table, self._bits, self._words, self._ledger, free,
            stack, self.last, streams, obs, next_obs, out, self._writes, self._group,
        )  # fmt: skip
        return left

    def hold(self, references: References) -> None:
        """Count a holder more of each of these frames, for each time it occurs; uint32[...]."""
        frame_kernels.hold(self._ledger, _flat(references))

    def release(self, references: References) -> None:
        """Count a holder fewer of each of these frames; frames without a holder become free."""
        self._free = frame_kernels.release(self._ledger, self._free, _flat(references))

    def decode(
        self, obs_references: References, next_references: References, shift: int
    ) -> tuple[Array, Array]:
        """Return the observations and next observations of B rows.

        Parameters
        ----------
        obs_references, next_references : uint32[B, S]
            References that are held, in arrays fit for a kernel.
        shift : int
            By how many frames the next observation is expected to be shifted. Where it is in all
            rows, each of the S + shift frames is copied once.

        Returns
        -------
        obs, next_obs : array[B, ...]
            Read-only; they may share memory with each other, but with nothing else.
        """
        count, stack = len(obs_references), self.stack
        linked = count and 1 <= shift < stack
        if not (linked and frame_kernels.chained(obs_references, next_references, shift)):
            return self._decode_apart(obs_references, next_references)
        row = (stack + shift) * self.frame_nbytes
        block = np.empty(count * row // WORD, UINT64)
        frame_kernels.gather(
            self._table, self._bits, self._words, obs_references, next_references, stack - shift,
            block,
        )  # fmt: skip
        block.flags.writeable = False
        start = shift * self.frame_nbytes
        return self._view(count, block, 0, row), self._view(count, block, start, row)

    def _decode_apart(
        self, obs_references: References, next_references: References
    ) -> tuple[Array, Array]:
        """Return the observations and next observations of B rows, each with all its frames.

        They lie in one block. Where two of the same size are given back together, glibc returns
        them to the system, and every batch waits for new pages: that takes longer than the copy.
        """
        count, row = len(obs_references), self.stack * self.frame_nbytes
        half = count * row // WORD
        block = np.empty(2 * half, UINT64)
        for references, place in ((obs_references, block[:half]), (next_references, block[half:])):
            frame_kernels.gather(
                self._table, self._bits, self._words, references, references, self.stack, place
            )
        block.flags.writeable = False
        return self._view(count, block, 0, row), self._view(count, block, half * WORD, row)

    def decode_one(self, references: References) -> Array:
        """Return the observations of B rows, uint32[B, S], read-only."""
        row = self.stack * self.frame_nbytes
        block = np.empty(len(references) * row // WORD, UINT64)
        frame_kernels.gather(
            self._table, self._bits, self._words, references, references, self.stack, block
        )
        block.flags.writeable = False
        return self._view(len(references), block, 0, row)

    def is_last(self, stream: int, observation: Array) -> bool:
        """Return whether an observation is the last next one of a stream, bit for bit."""
        references = self.last[stream * self.stack : (stream + 1) * self.stack]
        last = self.decode_one(references[np.newaxis])
        here = self._to_words(observation[np.newaxis])
        return bool(np.array_equal(here, self._to_words(last)))

    def clear(self, kept: Ints | None = None) -> None:
        """Release what rows hold, and the last observations of streams; the memory stays.

        Parameters
        ----------
        kept : int64[...], optional
            The streams whose last observations are kept; by default none.

        Notes
        -----
        O(frames).
        """
        last = self.last.reshape(self._streams, self.stack)
        kept_last = np.zeros_like(last)
        if kept is not None:
            kept_last[kept] = last[kept]
        last[:] = kept_last
        self.recount(())

    def restacked(
        self, stack_axis: int | None, kept: Sequence[References]
    ) -> tuple[Frames, list[References]]:
        """Return the same observations as frames along another axis; this object stays as it is.

        Parameters
        ----------
        stack_axis : int or None
            Of the new field.
        kept : sequence of uint32[R, S]
            All references that are in use, besides those of the streams.

        Returns
        -------
        frames : Frames
            Every frame in it is stored once.
        references : list of uint32[R, S']
            In place of those given, held once each time they occur.

        Raises
        ------
        Exception
            What ``allocate`` raises.

        Notes
        -----
        All different observations are copied and sorted: meant for the first few rows.
        """
        frames = Frames(
            replace(self.field, stack_axis=stack_axis),
            self._capacity, self._streams, self._allocate,
        )  # fmt: skip
        parts = [*kept, self.last.reshape(self._streams, self.stack)]
        different, which = np.unique(np.concatenate(parts), axis=0, return_inverse=True)
        words = frames._to_words(self.decode_one(different))
        whole = words.view(np.dtype((np.void, frames.frame_nbytes)))
        _, first, place = np.unique(whole, return_index=True, return_inverse=True)
        words = words.reshape(-1, frames._words)[first].reshape(-1)
        stored = frames._encode(1, NO_STREAMS, words, words)
        numbers = stored[: len(first)][place].reshape(-1, frames.stack)[which.reshape(-1)]
        frames.hold(numbers)
        frames.release(stored)
        ends = np.cumsum([len(part) for part in parts])[:-1]
        *references, last = (np.ascontiguousarray(part) for part in np.split(numbers, ends))
        frames.last[:] = last.reshape(-1)
        return frames, references

    def pieces(self, name: str) -> list[Piece]:
        """Return what of this belongs to a checkpoint, besides :meth:`state`.

        Who holds which frame is not in it: that follows from the references which are kept.
        """
        pieces = [Piece(f"{name}-last", None, self.last.copy)]
        chunks = self._chunk_views()
        for group in np.flatnonzero(self._writes).tolist():
            first, stop = self._group_bounds(group)
            version = self._identity, stop, int(self._writes[group])
            pieces.append(
                Piece(f"{name}-{group:06d}", version, partial(self._joined, chunks, first, stop))
            )
        return pieces

    def state(self) -> list[int]:
        """Return how many chunks each piece of memory has."""
        return [memory.size // (self._words << self._bits) for memory in self.memory]

    def restore(self, name: str, reader: Reader, state: Sequence[int], rows: int) -> None:
        """Restore from a checkpoint; so far only the streams hold frames.

        Parameters
        ----------
        name : str
            As for :meth:`pieces`.
        reader : Reader
            The checkpoint.
        state : sequence of int
            From :meth:`state`.
        rows : int
            How many rows may refer to frames.
        """
        most = 4 * self.stack * (rows + self._streams) + (4 << self._bits)
        if state[:1] != [1] or not all(state) or (sum(state) - 1) << self._bits > most:
            raise reader.error(f"must give a number of chunks of {name} that rows can need")
        for chunks in state[1:]:
            self._grow(chunks)
        chunk_views = self._chunk_views()
        for group in range(self._writes.size):
            piece = f"{name}-{group:06d}"
            if piece in reader:
                first, stop = self._group_bounds(group)
                self._read(reader, piece, chunk_views, first, stop)
                self._writes[group] = 1
        if self.memory[0][: self._words].any():
            raise reader.error(f"must have {name} 0 zero")
        last = reader.array(f"{name}-last", UINT32, self.last.shape)
        self.adopt(last, reader, name)
        self.last[:] = last

    def adopt(self, references: References, reader: Reader, name: str) -> None:
        """Count references from a checkpoint as holders; :meth:`list_free` comes after the last."""
        if references.size and references.max() >= self._chunks << self._bits:
            raise reader.error(f"must go with references to {name} that are there")
        self.hold(references)

    def list_free(self) -> None:
        """List all frames without a holder as free; the lowest number is used first."""
        numbers = np.flatnonzero(self._ledger[0, 1 : self._chunks << self._bits] == 0) + 1
        self._free = numbers.size
        self._ledger[1, : self._free] = numbers[::-1]

    def recount(self, kept: Iterable[References]) -> None:
        """Count the holders of all frames anew, after a call that was interrupted.

        Three things are valid at every moment: the memory that was added, the references that rows
        keep, and the last references of the streams. The rest is computed from them: where chunks
        lie, how many holders each frame has, and which frames are free.

        Parameters
        ----------
        kept : iterable of uint32[...]
            All references that rows keep, of this object's frames only.

        Notes
        -----
        O(references + frames).
        """
        each = self._words << self._bits
        sizes = [memory.size // each for memory in self.memory]
        chunks = sum(sizes)
        table = np.zeros(max(chunks, self._table.size), UINT64)
        first = 0
        for memory, size in zip(self.memory, sizes, strict=True):
            addresses = memory.ctypes.data + np.arange(size, dtype=UINT64) * (each * WORD)
            table[first : first + size] = addresses
            first += size
        ledger = np.zeros((2, max(chunks << self._bits, self._ledger.shape[1])), UINT32)
        counts = np.zeros(chunks << self._bits, np.int64)
        for references in (self.last, *kept):
            counts += np.bincount(references.reshape(-1), minlength=counts.size)
        ledger[0, : counts.size] = np.minimum(counts, frame_kernels.STUCK)
        ledger[0, :1] = 0  # frame 0 is never counted
        self._table, self._ledger, self._chunks = table, ledger, chunks
        groups = -(-(chunks << self._bits) >> self._group)
        if groups > self._writes.size:
            missing = np.zeros(groups - self._writes.size, np.int64)
            self._writes = np.append(self._writes, missing)
        self.list_free()

    def _group_bounds(self, group: int) -> tuple[int, int]:
        """Return the first frame of a group and the one after its last."""
        first = group << self._group
        return first, min(first + (1 << self._group), self._chunks << self._bits)

    def _chunk_views(self) -> list[Words]:
        """Return the frames of each chunk, uint64[2**bits, words]."""
        shape = -1, 1 << self._bits, self._words
        each = self._words << self._bits
        return [
            chunk
            for memory in self.memory
            for chunk in memory[: memory.size // each * each].reshape(shape)
        ]

    def _spans(self, first: int, stop: int) -> list[tuple[int, slice]]:
        """Return the chunks that consecutive frames lie in, and which of the chunk's they are."""
        size = 1 << self._bits
        return [
            (chunk, slice(max(first - chunk * size, 0), min(stop - chunk * size, size)))
            for chunk in range(first >> self._bits, ((stop - 1) >> self._bits) + 1)
        ]

    def _joined(self, chunks: Sequence[Words], first: int, stop: int) -> Words:
        parts = [chunks[chunk][span] for chunk, span in self._spans(first, stop)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _read(
        self, reader: Reader, piece: str, chunks: Sequence[Words], first: int, stop: int
    ) -> None:
        spans = self._spans(first, stop)
        if len(spans) == 1:
            chunk, span = spans[0]
            reader.fill(piece, chunks[chunk][span])
            return
        frames = reader.array(piece, UINT64, (stop - first, self._words))
        for chunk, span in spans:
            count = span.stop - span.start
            chunks[chunk][span], frames = frames[:count], frames[count:]

    def _grow(self, chunks: int) -> None:
        """Add chunks, in one piece of memory; nothing has changed if there is none."""
        each = self._words << self._bits
        total = self._chunks + chunks
        if total << self._bits > frame_kernels.NEW:
            raise MemoryError(f"a buffer can have no more than {frame_kernels.NEW} frames")
        table, ledger = self._table, self._ledger
        if total > table.size:
            table = np.zeros(total + total // ROOM, UINT64)
            table[: self._chunks] = self._table[: self._chunks]
        if total << self._bits > ledger.shape[1]:
            ledger = np.zeros((2, total + total // ROOM << self._bits), UINT32)
            ledger[:, : self._ledger.shape[1]] = self._ledger
        grown = table.nbytes + ledger.nbytes - self._table.nbytes - self._ledger.nbytes
        memory = self._allocate(each * chunks, grown)
        assert memory.dtype == UINT64
        assert memory.flags.carray
        assert memory.size >= each * chunks
        first = memory.ctypes.data
        table[self._chunks : total] = first + np.arange(chunks, dtype=UINT64) * (each * WORD)
        if not self.memory:
            memory[: self._words] = 0  # frame 0
        self.memory.append(memory)
        self._table, self._ledger = table, ledger
        groups = -(-(total << self._bits) >> self._group)
        self._writes = np.append(self._writes, np.zeros(groups - self._writes.size, np.int64))
        self._add_free(self._chunks, total)
        self._chunks = total

    def _add_free(self, first: int, stop: int) -> None:
        """Say that all frames of these chunks are free; the lowest number is used first."""
        numbers = np.arange(max(first << self._bits, 1), stop << self._bits, dtype=UINT32)[::-1]
        self._ledger[1, self._free : self._free + numbers.size] = numbers
        self._free += numbers.size

    def _to_words(self, obs: Array) -> Words:
        """Return the frames of observations, array[K, ...], one after the other, as words."""
        if self._axis:
            obs = np.moveaxis(obs, 1 + self._axis, 1)
        flat = np.ascontiguousarray(obs).reshape(-1)
        if self._plain_nbytes != self.frame_nbytes:
            frames = np.zeros((len(obs) * self.stack, self.frame_nbytes), np.uint8)
            frames[:, : self._plain_nbytes] = flat.view(np.uint8).reshape(-1, self._plain_nbytes)
            flat = frames.reshape(-1)
        words: Words = flat.view(UINT64)
        return words if words.flags.carray else words.copy()

    def _view(self, count: int, block: Words, start: int, row: int) -> Array:
        """Return observations whose first frames begin every `row` bytes of a block."""
        shape = (count, *self.field.shape)
        if count == 0:
            return np.ndarray(shape, self._dtype, block)  # NumPy would find the strides too long
        return np.ndarray(shape, self._dtype, block, start, (row, *self._strides))


def _flat(references: References) -> References:
    """Return references as kernels take them."""
    flat = references.reshape(-1)
    return flat if flat.flags.carray else flat.copy()
