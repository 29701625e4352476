"""The sampler alone: an index draws ids by priority, and the caller keeps what they stand for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prioritized_replay import forking
from prioritized_replay.batches import _batch_kernels as kernels
from prioritized_replay.batches.builder import no_such_slot
from prioritized_replay.batches.drawing import DrawCall, FusedDraw, fused_draw_alone
from prioritized_replay.checkpoint.files import CheckpointError
from prioritized_replay.checkpoint.loading import NOT_DESCRIBED, Reader, read_checkpoint
from prioritized_replay.checkpoint.manifest import Contents, Piece
from prioritized_replay.fields import arguments
from prioritized_replay.sampled import Sampled
from prioritized_replay.sampling import SPECIFICATIONS, Specification
from prioritized_replay.sampling import _ring_kernels as ring
from prioritized_replay.sampling._draw_kernels import RECORD
from prioritized_replay.sampling.specifications import describe_sampler, described_sampler
from prioritized_replay.sampling.uniforms import Seed
from prioritized_replay.storage.memory import memory_limit

__all__ = ["Draw", "PrioritizedIndex"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

INT64, FLOAT32 = np.dtype(np.int64), np.dtype(np.float32)
NO_MARKS = np.zeros(0, np.uint8)
NO_COUNT = np.zeros(1)  # of uniforms: nobody looks at it


@dataclass(slots=True, eq=False)
class Draw:
    """What one call of :meth:`.PrioritizedIndex.sample` has drawn: B items.

    The arrays belong to the draw alone: no later call of the index changes them.

    Attributes
    ----------
    ids : int64[B]
        What :meth:`.PrioritizedIndex.update_priorities` takes.
    weights : float32[B]
        Importance-sampling weights w_i = (N P(i))**-beta, divided by the largest of the draw
        unless the sampler says otherwise (Schaul et al. 2015, section 3.4).
    probabilities : float64[B]
        P(i), the chance of the item in one draw.

    Examples
    --------
    >>> import prioritized_replay as per
    >>> index = per.PrioritizedIndex(10, seed=1)
    >>> ids = index.append(4)
    >>> draw = index.sample(3)
    >>> len(draw), draw.probabilities
    (3, array([0.25, 0.25, 0.25]))
    """

    ids: Ints
    weights: NDArray[np.float32]
    probabilities: Floats

    def __len__(self) -> int:
        """Return the number of items drawn, B."""
        return self.ids.size


class PrioritizedIndex(Sampled):
    """Prioritized sampling of things that the caller keeps: rows of a data set, prompts, levels.

    An item is a number that stands for one of them. Its id grows by one with every item for ever,
    so item ``id`` may lie at ``id % capacity`` in a list or an array of the caller's.

    Parameters
    ----------
    capacity : int
        Number of items N kept, >= 1. Beyond that, each new item takes the place of the oldest.
    sampler : Uniform, Proportional or RankBased, optional
        How to draw; ``Proportional()`` if None.
    seed : int, SeedSequence, Generator or None
        Of the index's own generator; nothing reads a global one.

    Raises
    ------
    ValueError
        If an argument is outside its range.

    See Also
    --------
    ReplayBuffer : The same, with the transitions kept.

    Notes
    -----
    About 18 bytes per item if proportional, 29 if rank-based, one bit if uniform.

    Examples
    --------
    A weighted epoch over a data set: rows of large loss come more often, and the weights correct
    for it.

    >>> import numpy as np
    >>> import prioritized_replay as per
    >>> rows = np.linspace(-1.0, 1.0, 1_000)
    >>> index = per.PrioritizedIndex(len(rows), seed=0)
    >>> ids = index.append(len(rows))
    >>> for step in range(100):
    ...     draw = index.sample(64, beta=0.4)
    ...     loss = rows[draw.ids] ** 2
    ...     applied = index.update_priorities(draw.ids, loss)
    >>> applied
    64
    """

    _thing = "item"

    def __init__(
        self, capacity: int, sampler: Specification | None = None, *, seed: Seed = None
    ) -> None:
        super().__init__(capacity, sampler, seed)
        self._make_sampler()
        # A bit for each slot: drawn since it was filled.
        self._marks = np.zeros(-(-self._capacity // 8), np.uint8)
        direct = self._sampler.direct
        self._fused = fused_draw_alone(self._sampler.distribution) if direct else None
        forking.watch(self)

    @property
    def nbytes(self) -> int:
        """Bytes of memory held for priorities and their structures."""
        return self._sampler.nbytes + self._marks.nbytes

    def append(self, count: int | None = None, td_errors: Any = None) -> Ints:
        """Give ids to new items.

        Parameters
        ----------
        count : int, optional
            How many, B >= 0; by default as many as there are errors, or one. They may be more than
            the capacity: the last N stay.
        td_errors : float[B], optional
            Their errors; without them all enter at the largest priority so far, 1 at first.

        Returns
        -------
        int64[B]
            Their ids, in a row.

        Raises
        ------
        ValueError
            If ``count`` is out of range, or an error is not finite or too large. Nothing changes
            then.

        Notes
        -----
        O(B), and O(log N) per item once they are next drawn from.

        Examples
        --------
        >>> import prioritized_replay as per
        >>> index = per.PrioritizedIndex(100)
        >>> index.append(3)
        array([0, 1, 2])
        >>> index.append(td_errors=[0.5, 4.0])
        array([3, 4])
        >>> index.priorities([2, 3, 4])
        array([1.  , 0.51, 4.01])
        """
        if count is not None:
            count = arguments.integer("count", count, 0)
        elif td_errors is None:
            count = 1
        else:
            td_errors = arguments.as_array("td_errors", td_errors)
            count = td_errors.shape[0] if td_errors.ndim else 1
        errors = None if td_errors is None else arguments.errors(td_errors, count)
        with self._lock: return self._append(count, errors)  # fmt: skip

    def _append(self, count: int, errors: Floats | None) -> Ints:
        self._note.settle()
        sampler = self._sampler
        if errors is None:
            priorities = np.full(count, sampler.entry_priority())
        else:
            priorities = sampler.priorities_of(errors)
        if count > min(sampler.entering.size, self._capacity):
            self._append_many(priorities)
            return self._latest_ids(count)
        if sampler.issued - sampler.told + count > sampler.entering.size:
            sampler.tell()
        ids = np.arange(sampler.issued, sampler.issued + count)
        ring.enter_items(
            sampler.counters, sampler.entering, self._marks, self._capacity, priorities
        )
        return ids

    def _append_many(self, priorities: Floats) -> None:
        """Append more items than may wait; a call that is interrupted is completed by the next."""
        sampler, end = self._sampler, self._sampler.issued + priorities.size

        def apply() -> None:
            if sampler.issued < end:
                kept = min(priorities.size, self._capacity)
                ring.forget_drawn(self._marks, end - kept, kept, self._capacity)
                sampler.append(priorities)

        outer = self._note.begin(apply)
        apply()
        self._note.end(outer)

    def sample(self, batch_size: int, beta: float = 1.0) -> Draw:
        """Draw items.

        Parameters
        ----------
        batch_size : int
            B >= 1.
        beta : float
            How far the weights undo the preference for large priorities, in [0, 1]: 0 not at all,
            1 fully.

        Returns
        -------
        Draw
            With ``ids``, ``weights`` and ``probabilities``.

        Raises
        ------
        ValueError
            If the index is empty, no item has a positive probability, a draw without replacement
            asks for more items than there are, or an argument is out of range.

        Notes
        -----
        O(B log N).

        Examples
        --------
        >>> import prioritized_replay as per
        >>> index = per.PrioritizedIndex(4, per.Proportional(alpha=1.0, eps=0.0), seed=0)
        >>> ids = index.append(td_errors=[3.0, 0.0, 0.0, 1.0])
        >>> draw = index.sample(4)  # one from each quarter of the probability
        >>> draw.ids, draw.probabilities
        (array([0, 0, 0, 3]), array([0.75, 0.75, 0.75, 0.25]))
        """
        batch_size = arguments.integer("batch_size", batch_size)
        beta = arguments.number("beta", beta, 1.0)
        with self._lock: return self._sample(batch_size, beta)  # fmt: skip

    def _sample(self, batch_size: int, beta: float) -> Draw:
        if self._note.work is not None:
            self._note.settle()
        if not self._sampler.size:
            raise ValueError("sample needs an index with at least one item, got an empty one")
        uniforms, fused = self._uniforms, self._fused
        numbers = uniforms.at_hand(batch_size)
        if fused is not None and numbers is not None:  # one compiled call changes everything
            return self._drawn(fused, batch_size, beta, numbers)
        # Uniforms are used up before the draw is complete.
        outer = self._note.begin(partial(self._undo_draw, uniforms.moment(), self._last.draws))
        try:
            if fused is not None:
                draw = self._drawn(fused, batch_size, beta, uniforms.block_for(batch_size))
            else:
                draw = self._drawn_apart(batch_size, beta)
        except ValueError:
            self._note.settle()  # nothing was drawn
            raise
        self._note.end(outer)
        return draw

    def _drawn(self, fused: FusedDraw, count: int, beta: float, numbers: Floats) -> Draw:
        """Return a draw of B items that takes its uniforms from a block of numbers."""
        sampler = self._sampler
        sampler.prepare()
        draw, call = self._new_draw(count, beta)
        strange = fused(sampler.distribution, numbers, sampler.stratified, call)
        if strange:
            raise self._refused(draw, strange)
        return draw

    def _drawn_apart(self, count: int, beta: float) -> Draw:
        """Return a draw of B items whose slots are drawn first."""
        draw, call = self._new_draw(count, beta)
        draw.ids[:] = self._sampler.draw(count, self._uniforms, draw.probabilities)
        strange = kernels.complete_draw(NO_COUNT, *call)
        if strange:
            raise self._refused(draw, strange)
        return draw

    def _refused(self, draw: Draw, strange: int) -> RuntimeError:
        """Return the error for a draw that a kernel has refused: a slot that no item has."""
        return no_such_slot(draw.ids[strange - 1], strange - 1, self._capacity)

    def _new_draw(self, count: int, beta: float) -> tuple[Draw, DrawCall]:
        """Return a draw of B items, unwritten, and the call that completes it."""
        draw = Draw(np.empty(count, INT64), np.empty(count, FLOAT32), np.empty(count))
        least, largest = self._sampler.weight_bounds()
        return draw, (
            self._marks, self._sampler.issued - 1, self._capacity, least, beta, largest,
            self._last.room_for(count), draw.probabilities, draw.ids, draw.weights,
        )  # fmt: skip

    def get(self, ids: ArrayLike, beta: float = 1.0) -> Draw:
        """Return the present probabilities and weights of items that are named.

        Parameters
        ----------
        ids : int64[B]
            Ids that are still there.
        beta : float
            As in :meth:`sample`.

        Returns
        -------
        Draw
            What :meth:`sample` returns when it draws these.

        Raises
        ------
        KeyError
            Naming the first id that is gone, or was never issued.

        Examples
        --------
        >>> import prioritized_replay as per
        >>> index = per.PrioritizedIndex(100, per.Proportional(alpha=1.0, eps=0.0))
        >>> ids = index.append(2, td_errors=[1.0, 3.0])
        >>> index.get([0, 1]).probabilities
        array([0.25, 0.75])
        """
        wanted = arguments.ids(ids)
        beta = arguments.number("beta", beta, 1.0)
        with self._lock: return self._get(wanted, beta)  # fmt: skip

    def _get(self, wanted: Ints, beta: float) -> Draw:
        self._note.settle()
        self._require_live(wanted)
        draw, call = self._new_draw(wanted.size, beta)
        draw.ids[:] = wanted % self._capacity
        draw.probabilities[:] = self._sampler.probabilities(draw.ids)
        marks, record = NO_MARKS, np.empty(RECORD, INT64)  # as it is no draw
        kernels.complete_draw(NO_COUNT, marks, *call[1:6], record, *call[7:])
        return draw

    def stats(self) -> dict[str, float]:
        """Return the state of the index in plain numbers. O(N log N).

        Returns
        -------
        dict
            As :meth:`.ReplayBuffer.stats`, without ``open_windows``.

        Examples
        --------
        >>> import prioritized_replay as per
        >>> index = per.PrioritizedIndex(100)
        >>> ids = index.append(5)
        >>> index.stats()["size"], index.stats()["never_drawn"]
        (5, 1.0)
        """
        with self._lock: return self._statistics()  # fmt: skip

    def _were_drawn(self, slots: Ints) -> Flags:
        drawn: Flags = (self._marks[slots >> 3] >> (slots & 7)) & 1 != 0
        return drawn

    def save(self, path: str | os.PathLike[str], extra: Mapping[str, bytes] | None = None) -> None:
        """Save everything to a folder, so that :meth:`load` continues where this index was.

        Parameters
        ----------
        path, extra
            As for :meth:`.ReplayBuffer.save`, with the same guarantees.

        Raises
        ------
        OSError
            If it cannot be written, as on a full disk. The checkpoint that was there still is.
        ValueError
            If the seed was a generator that is not one of NumPy's own, or ``extra`` has a name or
            a value that is not allowed.

        Examples
        --------
        >>> import tempfile
        >>> import prioritized_replay as per
        >>> index = per.PrioritizedIndex(100, seed=1)
        >>> ids = index.append(10)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     index.save(folder)
        ...     again = per.PrioritizedIndex.load(folder)
        >>> bool((again.sample(4).ids == index.sample(4).ids).all())
        True
        """
        self._saver.save(path, self._lock, self._contents, extra)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Return the index that was saved to a folder.

        The same calls have the same results from then on, bit for bit. No code is run from the
        files, and they are checked.

        Parameters
        ----------
        path : path
            The folder.

        Raises
        ------
        CheckpointError
            If there is no checkpoint, or it is damaged, of another version, or of a ReplayBuffer;
            a ValueError.
        MemoryError, OSError
            If there is no room for the index.

        Examples
        --------
        >>> import tempfile
        >>> import prioritized_replay as per
        >>> index = per.PrioritizedIndex(100)
        >>> ids = index.append(2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     index.save(folder)
        ...     again = per.PrioritizedIndex.load(folder)
        >>> again
        PrioritizedIndex(2 of 100, Proportional(alpha=0.6, eps=0.01, draw='stratified', ...))
        """
        return read_checkpoint(path, memory_limit(), cls._loaded)

    @classmethod
    def _loaded(cls, reader: Reader) -> Self:
        """Return the index of one checkpoint."""
        try:
            index = cls(**cls._described(reader))
            index._restore(reader)
            index._loaded_extra = reader.extra()
            reader.finish()
            index._saver.loaded(reader, index._contents().pieces)
            return index
        except (CheckpointError, OSError):
            raise
        except NOT_DESCRIBED as error:
            raise reader.not_described("an index", error) from error

    def _contents(self) -> Contents:
        """Return what belongs to a checkpoint. The caller holds the lock."""
        self._note.settle()
        contents = self._contents_of(
            {
                "kind": "PrioritizedIndex",
                "capacity": self._capacity,
                "sampler": describe_sampler(self._sampler.specification),
            }
        )
        marks = self._marks[: -(-min(self._sampler.issued, self._capacity) // 8)]
        drawn = Piece("drawn", None, marks.copy)
        return contents._replace(pieces=[drawn, *contents.pieces])

    @staticmethod
    def _described(reader: Reader) -> dict[str, Any]:
        """Return the arguments that a checkpoint describes."""
        options = dict(reader.description)
        if "fields" in options:
            raise reader.error("holds a ReplayBuffer, not an index: use ReplayBuffer.load")
        if tuple(options) != ("kind", "capacity", "sampler"):
            raise reader.error(f"must describe kind, capacity, sampler, got {', '.join(options)}")
        if options.pop("kind") != "PrioritizedIndex":
            raise reader.error("must be of kind PrioritizedIndex")
        capacity = options["capacity"]
        if type(capacity) is not int or not 1 <= capacity <= reader.most_bytes:
            raise reader.error(
                f"must have capacity an integer in [1, {reader.most_bytes}], got {capacity!r}"
            )
        options["sampler"] = described_sampler(options["sampler"], SPECIFICATIONS)
        return options

    def _restore(self, reader: Reader) -> None:
        super()._restore(reader)
        written = min(self._sampler.issued, self._capacity)
        size = -(-written // 8)
        self._marks[:size] = reader.array("drawn", np.uint8, (size,))
