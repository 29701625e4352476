"""What is drawn by priority and named by ids: what a replay buffer and an index have in common.

It knows ids, priorities and the generator; it does not know what the ids stand for.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prioritized_replay import forking
from prioritized_replay.checkpoint.checkpointed import Checkpointed
from prioritized_replay.checkpoint.loading import Reader
from prioritized_replay.checkpoint.manifest import Contents, Piece
from prioritized_replay.checkpoint.ownership import Ownership
from prioritized_replay.checkpoint.saving import Saver
from prioritized_replay.fields import arguments
from prioritized_replay.note import Note
from prioritized_replay.sampling import SPECIFICATIONS, Proportional, Specification
from prioritized_replay.sampling.sampler import Sampler
from prioritized_replay.sampling.statistics import LastBatch, quantiles
from prioritized_replay.sampling.uniforms import Moment, Seed, UniformStream

__all__ = ["Census", "Sampled", "Totals", "census", "no_room", "totals"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


class Census(NamedTuple):
    """All S things that can be drawn, the oldest first, as they were at one moment."""

    ids: Ints
    """int64[S]"""
    priorities: Floats
    """float64[S]"""
    probabilities: Floats
    """float64[S], the chance of each in one draw."""
    drawn: Flags
    """bool[S], whether it has been in a batch since it came."""
    last_batch: int
    """How many things the latest batch held, 0 without one."""
    rewards: NDArray[Any] | None
    """Of every row that is kept, array[rows, ...], the oldest first; None where there are none."""


class Totals(NamedTuple):
    """What has to be known of a memory in order to draw from several as from one. O(1)."""

    size: int
    """How many things can be drawn."""
    drawable: int
    """How many of them have a positive probability."""
    mass: float
    """The sum of their masses priority**alpha; of a distribution without masses, ``size``."""
    least_probability: float
    """The least positive probability, where the weights refer to it; else 0."""


class Sampled:
    """A ring of N things with ids, priorities and one way to draw them.

    Parameters
    ----------
    capacity : int
        Number of things N kept, >= 1.
    sampler : Uniform, Proportional, RankBased or another specification, optional
        ``Proportional()`` if None.
    seed : int, SeedSequence, Generator or None
        Of the generator.

    Raises
    ------
    ValueError
        If an argument is outside its range.
    """

    _thing = "thing"
    """What an id stands for, in messages."""
    _accept_errors: Callable[[Any, int], Floats] = staticmethod(arguments.errors)
    """Turns errors of B things into float64[B], or into a row of them for each."""

    def __init__(self, capacity: int, sampler: Specification | None, seed: Seed) -> None:
        # Never held while foreign code may run.
        self._lock: threading.Lock | forking.Refusal = threading.Lock()
        self._capacity = arguments.integer("capacity", capacity)
        specification = Proportional() if sampler is None else sampler
        if isinstance(specification, type) or not isinstance(specification, Specification):
            got = arguments.shown(specification)
            names = ", ".join(kind.__name__ for kind in SPECIFICATIONS)
            raise ValueError(f"sampler must be one of {names}, got {got}")
        self._specification = specification
        self._note = Note()
        self._uniforms = UniformStream(seed, note=self._note)
        self._last = LastBatch()
        self._ownership = Ownership()
        self._saver = Saver(self._ownership)
        self._loaded_extra: dict[str, bytes] = {}
        self._forks = 0  # how often the process was forked

    def _make_sampler(self, most_per_call: int = 1, *, gaps: bool = False) -> None:
        """Make what draws; so many things, at most, enter in one compiled call.

        Where there are gaps, not each of the N can be drawn.
        """
        try:
            self._sampler = Sampler(
                self._specification, self._capacity, self._note, most_per_call, gaps=gaps
            )
        except MemoryError as error:
            raise no_room(self._capacity, error) from None

    @property
    def capacity(self) -> int:
        """How many fit, N."""
        return self._capacity

    @property
    def sampler(self) -> Specification:
        """The specification in force, with the present alpha."""
        return self._sampler.specification

    @property
    def alpha(self) -> float:
        """How much prioritization; may be set at any time.

        O(N) for proportional sampling, whose masses are recomputed, O(1) for rank-based.

        Examples
        --------
        >>> import prioritized_replay as per
        >>> index = per.PrioritizedIndex(10, per.Proportional(alpha=1.0, eps=0.0))
        >>> ids = index.append(td_errors=[1.0, 2.0])
        >>> index.alpha = 0.0  # priorities are kept, and count no more
        >>> index.get(ids).probabilities, index.priorities(ids)
        (array([0.5, 0.5]), array([1., 2.]))
        """
        return self._sampler.alpha

    @alpha.setter
    def alpha(self, alpha: float) -> None:
        alpha = arguments.number("alpha", alpha)
        with self._lock: self._set_alpha(alpha)  # fmt: skip

    def _set_alpha(self, alpha: float) -> None:
        self._note.settle()
        self._sampler.set_alpha(alpha, self._largest_waiting())

    def _largest_waiting(self) -> float:
        """Return the largest priority with which something will enter that is not drawable yet."""
        return 0.0

    @property
    def extra(self) -> dict[str, bytes]:
        """The named bytes in the checkpoint that this was loaded from; {} without.

        Examples
        --------
        >>> import prioritized_replay as per
        >>> per.PrioritizedIndex(10).extra  # what `load` found, not what `save` was given
        {}
        """
        return self._loaded_extra

    @property
    def ids_issued(self) -> int:
        """How many ids have been given, so the next one.

        The live ids are the last ``len`` of them; in a buffer of sequences, whose ids are those of
        steps, the last ``stats()["steps"]``.

        Examples
        --------
        >>> import prioritized_replay as per
        >>> index = per.PrioritizedIndex(3)
        >>> ids = index.append(5)
        >>> list(range(index.ids_issued - len(index), index.ids_issued))  # all that can be drawn
        [2, 3, 4]
        """
        return self._sampler.issued

    def __len__(self) -> int:
        """Return how many can be drawn."""
        return self._sampler.size

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} of {self._capacity}, {self.sampler})"

    def update_priorities(self, ids: Any, td_errors: Any) -> int:
        """Set priorities from new TD errors.

        Parameters
        ----------
        ids : int64[B]
            Ids of a batch. Those overwritten since are skipped; of duplicates the last wins.
        td_errors : float[B] or float[B, 1]
            Signed errors, as arrays or tensors of any floating dtype and device. Absolute
            value, eps and alpha are applied inside. Of sequences also float[B, T], an error of each
            step: those of real steps after the burn-in make one of the sequence, see
            ``priority_mix`` of :class:`Sequence`. The others may be anything.

        Returns
        -------
        int
            How many of the B were applied: those that are still there.

        Raises
        ------
        ValueError
            If an error that counts is not finite, the lengths differ, an id was never issued, or no
            sequence begins there. Nothing changes then.

        Notes
        -----
        O(B log N), and O(B T) for errors of steps.

        Examples
        --------
        >>> import prioritized_replay as per
        >>> index = per.PrioritizedIndex(3)
        >>> ids = index.append(4)
        >>> index.update_priorities(ids, [1.0, -2.0, 3.0, 0.0])  # the first item is gone
        3
        >>> index.priorities(ids[1:])
        array([2.01, 3.01, 0.01])
        """
        wanted = arguments.ids(ids)
        errors = self._accept_errors(td_errors, wanted.size)
        with self._lock: return self._update(wanted, errors)  # fmt: skip

    def _update(self, wanted: Ints, errors: Floats) -> int:
        if self._note.work is not None:
            self._note.settle()
        return self._sampler.update(wanted, errors)

    def priorities(self, ids: ArrayLike) -> Floats:
        """Return priorities: abs(td_error) + eps if proportional, abs(td_error) if rank-based.

        Parameters
        ----------
        ids : int64[B]
            Ids that are still there.

        Returns
        -------
        float64[B]
            All 1 for uniform sampling.

        Raises
        ------
        KeyError
            Naming the first id that is gone, or was never issued.

        Examples
        --------
        >>> import prioritized_replay as per
        >>> index = per.PrioritizedIndex(3, per.RankBased())
        >>> ids = index.append(td_errors=[0.5, -2.0])
        >>> index.priorities(ids)
        array([0.5, 2. ])
        """
        wanted = arguments.ids(ids)
        with self._lock: return self._priorities_of(wanted)  # fmt: skip

    def _priorities_of(self, wanted: Ints) -> Floats:
        self._note.settle()
        self._require_live(wanted)
        return self._sampler.priorities(wanted % self._capacity)

    def highest(self, k: int) -> Ints:
        """Return the ids of the highest priorities.

        Parameters
        ----------
        k : int
            How many, >= 0; all, where there are fewer.

        Returns
        -------
        int64[min(k, S)]
            Of the S that can be drawn, those with the highest priorities: the highest first, and
            of equal ones the newest first. So for uniform sampling they are the newest.

        Raises
        ------
        ValueError
            If k is no integer >= 0.

        Notes
        -----
        O(N + k log k). It reads only: nothing counts as drawn.

        Examples
        --------
        >>> import prioritized_replay as per
        >>> index = per.PrioritizedIndex(100)
        >>> ids = index.append(td_errors=[0.5, -8.0, 0.5, 2.0])
        >>> index.highest(3)
        array([1, 3, 2])
        """
        k = arguments.integer("k", k, 0)
        with self._lock: return self._highest(k)  # fmt: skip

    def _highest(self, k: int) -> Ints:
        self._note.settle()
        slots = self._sampler.live_slots()
        k = min(k, slots.size)
        if not k:
            return np.zeros(0, np.int64)
        priorities = self._sampler.priorities(slots)
        least = np.partition(priorities, slots.size - k)[slots.size - k]
        above = np.flatnonzero(priorities > least)
        equal = np.flatnonzero(priorities == least)[above.size - k :]  # the newest of these
        places = np.concatenate([above, equal])
        order = np.lexsort((-places, -priorities[places]))
        return self._sampler.ids_of(slots[places[order]])

    def clear(self) -> None:
        """Remove everything; open windows too. Ids continue where they were. O(N).

        Examples
        --------
        >>> import prioritized_replay as per
        >>> index = per.PrioritizedIndex(4)
        >>> ids = index.append(3)
        >>> index.clear()
        >>> len(index), index.append(1)  # an old id never names a new item
        (0, array([3]))
        """
        with self._lock: self._clear()  # fmt: skip

    def _clear(self) -> None:
        self._note.settle()
        outer = self._note.begin(self._clear_all)
        self._clear_all()
        self._note.end(outer)

    def _clear_all(self) -> None:
        self._sampler.clear()
        self._last.clear()

    def _were_drawn(self, slots: Ints) -> Flags:
        """Return which of these live slots have been drawn since they were filled, bool[B]."""
        raise NotImplementedError

    def _rewards(self) -> NDArray[Any] | None:
        """Return the rewards of all rows, the oldest first, if there are any."""
        return None

    def _statistics(self, **more: float) -> dict[str, float]:
        """Return the numbers of `stats`. The caller holds the lock."""
        self._note.settle()
        sampler = self._sampler
        slots = sampler.live_slots()
        return {
            "size": sampler.size,
            "ids_issued": sampler.issued,
            **more,
            **quantiles(sampler.priorities(slots)),
            "largest_priority": sampler.entry_priority(),
            "stale_updates": sampler.stale,
            **self._last.statistics(),
            "never_drawn": 1.0 - float(np.mean(self._were_drawn(slots))) if slots.size else 0.0,
        }

    def _census(self) -> Census:
        self._note.settle()
        slots = self._sampler.live_slots()
        return Census(
            self._sampler.ids_of(slots), self._sampler.priorities(slots),
            self._sampler.probabilities(slots), self._were_drawn(slots), self._last.ids.size,
            self._rewards(),
        )  # fmt: skip

    def _totals(self) -> Totals:
        self._note.settle()
        return Totals(*self._sampler.totals())

    def _undo_draw(self, moment: Moment, draws: int) -> None:
        """Give back the uniforms of a draw, unless its batch has become the last one."""
        if self._last.draws == draws:
            self._uniforms.go_back(moment)

    def _parts(self) -> list[Checkpointed]:
        """Return what a checkpoint holds, in the order in which it is restored.

        The caller holds the lock.
        """
        return [self._uniforms, self._sampler, self._last]

    def _contents_of(self, description: dict[str, Any]) -> Contents:
        """Return what belongs to a checkpoint of this. The caller holds the lock."""
        pieces: list[Piece] = []
        state: dict[str, Any] = {}
        for part in self._parts():
            pieces += part.pieces()
            state |= part.state()
        return Contents(description, state, pieces)

    def _restore(self, reader: Reader) -> None:
        """Restore from a checkpoint; this must be new."""
        for part in self._parts():
            part.restore(reader)

    def _latest_ids(self, count: int) -> Ints:
        """Return the ids given last, int64[count]."""
        issued = self._sampler.issued
        return np.arange(issued - count, issued)

    def _require_live(self, ids: Ints) -> None:
        issued = self._sampler.issued
        first = issued - self._sampler.rows
        gone = (ids < first) | (ids >= issued)
        if gone.any():
            wrong = ids[gone][0]
            live = f"from {first} to {issued - 1}" if first < issued else "and there are none"
            why = "was never issued" if wrong >= issued or wrong < 0 else "is gone"
            raise KeyError(f"ids must be of live {self._thing}s, {live}, got {wrong}, which {why}")

    def _before_fork(self) -> None:
        self._forks += 1

    def _after_fork(self) -> None:
        """Continue in the child process with random numbers of its own."""
        with contextlib.suppress(Exception):  # the next call will say so
            self._note.settle()  # later it might go back to the parent's numbers
        self._uniforms.diverge(self._forks)
        # Folders stay with the parent, and another thread of its may have been saving.
        self._ownership = Ownership()
        self._saver = Saver(self._ownership)

    def __reduce_ex__(self, protocol: Any) -> Any:
        name = type(self).__name__
        raise TypeError(f"a {name} cannot be copied or pickled: use save and {name}.load instead")


def census(memory: Sampled) -> Census:
    """Return what there is to know of everything that can be drawn, as of one moment.

    It reads only: nothing counts as drawn. O(N log N).
    """
    with memory._lock: return memory._census()  # fmt: skip


def totals(memory: Sampled) -> Totals:
    """Return the totals of what can be drawn, as of one moment. O(1) for most distributions.

    Examples
    --------
    >>> import prioritized_replay as per
    >>> index = per.PrioritizedIndex(4, per.Proportional(alpha=1.0, eps=0.0))
    >>> ids = index.append(td_errors=[3.0, 0.0, 1.0])
    >>> totals(index)
    Totals(size=3, drawable=2, mass=4.0, least_probability=0.0)
    """
    with memory._lock: return memory._totals()  # fmt: skip


def no_room(capacity: int, error: MemoryError) -> MemoryError:
    """Return the error for so many things that do not fit into memory."""
    return MemoryError(f"capacity must fit into memory, got {capacity}: {error}")
