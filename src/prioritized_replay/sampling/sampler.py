"""The sampling state of one buffer: which ids there are, and how slots are drawn from them.

It never sees a transition. It joins one distribution with what is the same for all: the ids of the
ring, the priority with which new rows enter, draw modes, and importance weights. It may be that
only some rows of the ring can be drawn, the first steps of sequences: others say which.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prioritized_replay.checkpoint import manifest
from prioritized_replay.checkpoint.loading import Reader
from prioritized_replay.checkpoint.manifest import Piece
from prioritized_replay.note import Note
from prioritized_replay.sampling import _draw_kernels as draw_kernels
from prioritized_replay.sampling import _ring_kernels as ring
from prioritized_replay.sampling._ring_kernels import ISSUED, TOLD
from prioritized_replay.sampling.choices import DrawMode, MaxPriority, Weights
from prioritized_replay.sampling.distribution import HUGE, INT64, TINY, Distribution, Fused
from prioritized_replay.sampling.live import Live, RingSlots, SomeSlots
from prioritized_replay.sampling.mixture import Mixture
from prioritized_replay.sampling.specifications import Specification
from prioritized_replay.sampling.uniform import UniformDistribution, UniformOverSome
from prioritized_replay.sampling.uniforms import UniformStream

__all__ = ["Sampler"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FLOAT32_MAX = float(np.finfo(np.float32).max)
LEAST_ROOM = 4096  # rows that may wait until the distribution receives them
MOST_IDS = 2**62  # that a checkpoint may have given out: those to come are int64 too


class Sampler:
    """The ids, priorities and draws of one ring of N slots.

    A new row gets its id at once, in the same compiled call that writes it. Its priority waits in
    :attr:`entering`. The distribution receives all rows that wait at once, before it is next
    needed.

    Parameters
    ----------
    specification : Specification
        How to sample: :class:`Uniform`, :class:`Proportional`, :class:`RankBased` or another.
    capacity : int
        Number of slots N.
    note : Note
        Where to note what an interrupted call leaves to do.
    most_per_call : int
        How many rows may enter in one compiled call, at most.
    gaps : bool
        Whether only those rows can be drawn that somebody lets in.

    Raises
    ------
    ValueError
        If the specification does not go with that.

    Attributes
    ----------
    counters : int64[8]
        All that is counted, see :mod:`._ring_kernels`.
    entering : float64[...]
        The priorities of rows that wait.
    log : float64[2, ...]
        Where there are gaps, the changes of priorities that the distribution has not received; see
        :func:`._live_kernels.log_priority`.
    distribution : Distribution
        What draws.
    some : SomeSlots or None
        Where there are gaps, which slots can be drawn.
    """

    def __init__(
        self,
        specification: Specification,
        capacity: int,
        note: Note,
        most_per_call: int = 1,
        *,
        gaps: bool = False,
    ) -> None:
        self._capacity = capacity
        self._specification = specification
        self._note = note
        option = partial(getattr, specification)
        draw: DrawMode = option("draw", "stratified")
        max_priority: MaxPriority = option("max_priority", "ever")
        self.stratified = draw == "stratified"
        """Whether the i-th of B draws is from the i-th of B equal parts of the distribution."""
        self._distinct = draw == "without_replacement"
        self._weights: Weights = option("weights", "batch")
        self.eps = float(option("eps", 0.0))
        """What a priority is above the absolute error."""
        self.min_priority = float(option("min_priority", 0.0))
        """The least priority that an error gives."""
        self.current = max_priority == "current"
        """Whether new rows enter at the largest priority of a live row, not at the largest ever."""
        self.counters: Ints = np.zeros(ring.COUNTERS, np.int64)
        self._numbers: Floats = self.counters.view(np.float64)
        room = max(LEAST_ROOM, 1 << (most_per_call - 1).bit_length())
        self.entering: Floats = np.zeros(room)
        self.distribution: Distribution = specification.distribution(capacity, self.counters, note)
        self.log: Floats = np.zeros((2, 0))
        self.some: SomeSlots | None = None
        self._ring = RingSlots(capacity, self.counters)
        self._live: Live = self._ring
        if gaps:
            self._leave_gaps(capacity)
        if self.min_priority > self.most:
            raise ValueError(
                f"min_priority must be <= {self.most:.3g} where alpha is {self.alpha}, got "
                f"{self.min_priority:.6g}"
            )
        self._fused = self.distribution if isinstance(self.distribution, Fused) else None
        self._mixture = Mixture(
            self.distribution, self._live, float(option("uniform_mix", 0.0)),
            float(option("recent_mix", 0.0)), int(option("recent", 1000)),
        )  # fmt: skip
        # One call less where nothing is mixed in.
        self._drawable = (self.distribution if self._mixture.plain else self._mixture).drawable
        self.direct = not self._distinct and self._mixture.plain
        """Whether a batch is drawn from the distribution alone, with replacement."""

    def _leave_gaps(self, capacity: int) -> None:
        """Let only those rows be drawn that somebody lets in."""
        self.some = self._live = SomeSlots(capacity, self.counters)
        if isinstance(self.distribution, UniformDistribution):
            self.distribution = UniformOverSome(capacity, self.counters, self.some)
        if not getattr(self.distribution, "gaps", False):
            raise ValueError(
                "sampler must have a distribution with gaps where there are sequences, got "
                f"{self._specification}"
            )
        self.log = np.zeros((2, LEAST_ROOM))

    @property
    def specification(self) -> Specification:
        """The specification in force, with the present alpha."""
        specification: Any = self._specification
        alpha = getattr(specification, "alpha", None)
        if alpha is None or alpha == self.distribution.alpha:
            return self._specification
        changed: Specification = replace(specification, alpha=self.distribution.alpha)
        return changed

    @property
    def issued(self) -> int:
        """Number of ids given so far: the next row's id."""
        return self.counters.item(ISSUED)  # in half the time of an index and int()

    @property
    def told(self) -> int:
        """Rows with smaller ids are known to the distribution; the others wait."""
        return int(self.counters[ring.TOLD])

    @property
    def size(self) -> int:
        """Number of rows that can be drawn."""
        return self._live.size

    @property
    def rows(self) -> int:
        """Number of live rows."""
        return self._ring.size

    @property
    def stale(self) -> int:
        """How many updates came too late: their rows were overwritten."""
        return int(self.counters[ring.STALE])

    @property
    def largest_ever(self) -> float:
        """The largest priority since the buffer was empty, 0 in an empty one."""
        return float(self._numbers[ring.LARGEST])

    @property
    def alpha(self) -> float:
        """The exponent in force; :meth:`set_alpha` changes it."""
        return self.distribution.alpha

    def set_alpha(self, alpha: float, waiting: float = 0.0) -> None:
        """Change alpha, at any time. O(N) for proportional, else O(1).

        Parameters
        ----------
        alpha : float
            >= 0.
        waiting : float
            The largest priority with which a row that is not here yet will enter.

        Raises
        ------
        ValueError
            If alpha is out of range, or a priority, here or to come, too large for it.
        """
        self.tell()
        largest = waiting if self.current else max(waiting, self.largest_ever)
        largest = max(largest, self.min_priority)  # which any error may give next
        slots, before = self.live_slots(), self.alpha
        outer = self._note.begin(lambda: self.distribution.set_alpha(before, slots, largest))
        try:
            self.distribution.set_alpha(alpha, slots, largest)
        except ValueError:
            self._note.end(outer)  # nothing has changed
            raise
        self._note.end(outer)

    @property
    def most(self) -> float:
        """The largest priority that a row may have."""
        return self.distribution.most

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.distribution.nbytes + (0 if self.some is None else self.some.nbytes)

    def ids_of(self, slots: Ints) -> Ints:
        """Return the ids of live rows, int64[B]."""
        newest = self.issued - 1
        return newest - (newest - slots) % self._capacity

    def live_slots(self) -> Ints:
        """Return the slots that can be drawn, oldest first, int64[size]."""
        return self._live.all()

    def priorities_of(self, td_errors: Floats, name: str = "td_errors") -> Floats:
        """Return the priorities that these errors mean, float64[B].

        Raises
        ------
        ValueError
            If an error is not finite, or its priority too large for the distribution.
        """
        priorities = np.empty(td_errors.size)
        most = self.distribution.most
        place = ring.priorities_of_errors(td_errors, self.eps, self.min_priority, most, priorities)
        if place >= 0:
            raise self._refused(name, td_errors, place)
        if not self.distribution.uses_priorities:
            priorities[:] = 1.0
        return priorities

    def priority_of(self, td_error: float) -> float:
        """Return the priority that one error means; see :meth:`priorities_of`."""
        priority = abs(td_error) + self.eps
        if not priority <= self.distribution.most:
            raise self._refused("td_error", np.array([td_error]), 0)
        return max(priority, self.min_priority) if self.distribution.uses_priorities else 1.0

    def entry_priority(self) -> float:
        """Return the priority that a new row gets: the largest so far.

        In an empty buffer that is 1, or the least priority that there may be.
        """
        if self.size == 0 and (self.current or not self.largest_ever):
            return max(1.0, self.min_priority) if self.distribution.uses_priorities else 1.0
        if not self.current:
            return self.largest_ever
        self.tell()
        return self.distribution.largest_priority()

    def priorities_in_turn(self, given: Floats, calls: Ints) -> Floats:
        """Return the priorities with which rows enter that several calls make in turn.

        Parameters
        ----------
        given : float64[B]
            The priority of each row of its own, NaN for none.
        calls : int64[B]
            Which call makes each row, in their order.

        Returns
        -------
        float64[B]
            Of a call that makes more than N rows, only the last N count; the others have NaN.
        """
        own = np.flatnonzero(~np.isnan(given))
        if not own.size:  # all get the same: none of them raises the maximum
            return np.full(given.size, self.entry_priority())
        priorities = np.full(given.size, np.nan)
        live = self.priorities(self.live_slots()) if self.current else np.zeros(0)
        entry, largest = self.entry_priority(), self.largest_ever
        start, empty = 0, self.size == 0
        while start <= own[-1]:
            stop = int(np.searchsorted(calls, calls[start], side="right"))
            highest = -1.0 if empty else entry
            for k in range(max(start, stop - self._capacity), stop):
                without = highest if highest >= 0.0 else entry
                priorities[k] = without if np.isnan(given[k]) else given[k]
                highest = max(highest, float(priorities[k]))
            largest = max(largest, highest)
            start, empty = stop, False
            entry = largest
            if self.current:
                entry = float(np.append(live, priorities[:stop])[-self._capacity :].max())
        priorities[start:] = entry
        return priorities

    def tell(self) -> None:
        """Hand the rows that wait to the distribution. O(B log N).

        After an interruption, rows still wait or are handed over twice; both are harmless.
        """
        counters = self.counters
        if self.some is not None:
            self._tell_changes()
            return
        if counters.item(ISSUED) == counters.item(TOLD):
            return
        if self._fused is not None:
            self._fused.tell(counters, self.entering)
            return
        issued = self.issued
        ids = np.arange(max(int(counters[ring.TOLD]), issued - self._capacity), issued)
        self.distribution.set(ids % self._capacity, self.entering[ids % self.entering.size])
        counters[ring.TOLD] = issued

    def _tell_changes(self) -> None:
        """Hand over the changes of a ring of which only some rows can be drawn."""
        counters = self.counters
        count = counters.item(ring.LOGGED)
        if count:
            slots, priorities = self.log[:, :count]
            self.distribution.set(slots.astype(INT64), priorities.copy())
            counters[ring.LOGGED] = 0
        counters[ring.TOLD] = counters[ring.ISSUED]  # none of them waits in `entering`

    def make_room(self, count: int) -> None:
        """Make room in :attr:`log` for so many further changes."""
        if self.counters.item(ring.LOGGED) + count <= self.log.shape[1]:
            return
        self._tell_changes()
        if count > self.log.shape[1]:
            self.log = np.zeros((2, 1 << (count - 1).bit_length()))

    def append(self, priorities: Floats) -> None:
        """Give the next ids to rows with these priorities; of more than N the last stay.

        Parameters
        ----------
        priorities : float64[B]
            From :meth:`priorities_of`, :meth:`entry_priority` or :meth:`priorities_in_turn`.

        Notes
        -----
        O(B log N). A call that is interrupted is to be made again if no id was given: what it has
        done is done again then.
        """
        self.tell()
        count = priorities.size
        if not count:
            return
        kept = min(count, self._capacity)
        end = self.issued + count
        priorities = priorities[count - kept :]
        self.distribution.set(np.arange(end - kept, end) % self._capacity, priorities)
        counters = self.counters.copy()
        counters[ring.ISSUED] = counters[ring.TOLD] = end
        counters.view(np.float64)[ring.LARGEST] = max(self.largest_ever, float(priorities.max()))
        self.counters[:] = counters

    def issue_at(self, first: int, count: int) -> None:
        """Give the next ids to rows that cannot be drawn, if the next is still ``first``."""
        if self.issued == first:
            self.counters[ISSUED] = first + count

    def append_at(self, first: int, priorities: Floats) -> None:
        """Do what :meth:`append` does, if the next id is still `first`: it may be called again."""
        if self.issued == first:
            self.append(priorities)

    def priorities(self, slots: Ints) -> Floats:
        """Return the priorities of live slots, float64[B]; 1 for uniform ones."""
        self.tell()
        return self.distribution.priorities(slots)

    def probabilities(self, slots: Ints) -> Floats:
        """Return the single-draw probability P of live slots, float64[B]."""
        self.tell()
        if slots.size == 0:  # of an empty buffer, too, which has no distribution
            return np.zeros(0)
        return self._mixture.probabilities(slots)

    def prepare(self) -> int:
        """Make ready to draw: return how many slots have a positive probability.

        Raises
        ------
        ValueError
            If none has.
        """
        self.tell()
        drawable = self._drawable()
        if not drawable:
            raise ValueError(
                "no row can be drawn while all priorities are zero: "
                "eps or uniform_mix must be > 0, got 0"
            )
        return drawable

    def draw(self, batch_size: int, uniforms: UniformStream, probabilities: Floats) -> Ints:
        """Draw a batch.

        Parameters
        ----------
        batch_size : int
            B >= 1.
        uniforms : UniformStream
            Where the randomness comes from.
        probabilities : float64[B]
            To be written: the single-draw probability P(i), whatever the draw mode.

        Returns
        -------
        int64[B]
            Slots.

        Raises
        ------
        ValueError
            If nothing is drawable, or fewer rows than a draw without replacement needs.
        """
        drawable = self.prepare()
        slots = np.empty(batch_size, INT64)
        if not self._distinct:
            self._mixture.draw(uniforms(batch_size), self.stratified, slots, probabilities)
        elif batch_size <= drawable:
            self._draw_without_replacement(uniforms, slots, probabilities)
        else:
            raise ValueError(
                "batch_size must be <= the number of rows of positive probability when "
                f"drawing without replacement ({drawable}), got {batch_size}"
            )
        return slots

    def update(self, ids: Ints, td_errors: Floats) -> int:
        """Give rows the priorities of their errors; of duplicates the last counts. O(B log N).

        Parameters
        ----------
        ids : int64[B]
        td_errors : float64[B]

        Returns
        -------
        int
            How many rows are still there; the others are counted as stale.

        Raises
        ------
        ValueError
            If an id was never issued, an error is not finite, or its priority too large for the
            distribution; nothing changes then.
        """
        self.tell()
        if self._fused is not None:
            live = self._fused.update(self.counters, ids, td_errors, self.eps, self.min_priority)
        else:
            live = self._update(ids, td_errors)
        if live < 0:
            place = (-1 - live) % ids.size
            if not 0 <= ids[place] < self.issued:
                raise ValueError(f"ids must be >= 0 and < {self.issued}, got {ids[place]}")
            raise self._refused("td_errors", td_errors, place, f" for id {ids[place]}")
        return live

    def _update(self, ids: Ints, td_errors: Floats) -> int:
        """Update a distribution that can do no more than set priorities."""
        slots, priorities = np.empty(ids.size, INT64), np.empty(ids.size)
        live: int = ring.checked_update(
            self.counters, ids, td_errors, self.eps, self.min_priority, self.most, self._capacity,
            slots, priorities,
        )  # fmt: skip
        if live < 0:
            return live
        # Of equal slots the last counts, as if the others had not come: reversed, it is the first.
        last = live - 1 - np.unique(slots[:live][::-1], return_index=True)[1]
        slots, priorities = slots[last], priorities[last]
        counters = self.counters.copy()
        counters[ring.STALE] += ids.size - live
        largest = float(priorities.max(initial=self.largest_ever))
        counters.view(np.float64)[ring.LARGEST] = largest

        def apply() -> None:
            if live:
                self.distribution.set(slots, priorities.copy())
            self.counters[:] = counters

        outer = self._note.begin(apply)
        apply()
        self._note.end(outer)
        return live

    def totals(self) -> tuple[int, int, float, float]:
        """Return size, number of positive probabilities, sum of masses, least probability."""
        self.tell()
        if not self.size:
            return 0, 0, 0.0, 0.0
        drawable = self._drawable()
        mass = float(getattr(self.distribution, "total_mass", self.size))
        least = 0.0
        if drawable and self._weights == "buffer":
            least = self._mixture.least_probability()
        return self.size, drawable, mass, least

    def weight_bounds(self) -> tuple[float, float]:
        """Return what importance weights (P(i) / least)**-beta refer to, and their upper bound.

        w_i = (N P(i))**-beta (paper, section 3.4), divided as ``specification.weights`` says.
        Written with the least probability, the largest weight is exactly 1. A least probability
        of 0 stands for that of the batch.
        """
        if self._weights == "batch":
            return 0.0, 1.0  # 1 also for a row that was named although it can not be drawn
        if self._weights == "raw":
            return 1.0 / max(self.size, 1), FLOAT32_MAX
        self.tell()
        if not self.size or not self._mixture.drawable():
            return 1.0, 1.0  # there is nothing to draw, and no row's weight to refer to
        return self._mixture.least_probability(), 1.0

    def clear(self) -> None:
        """Forget every row; the next one still gets the next id. It may be called again."""
        counters = self.counters.copy()
        counters[ring.FIRST] = counters[ring.TOLD] = counters[ring.ISSUED]
        counters[ring.LARGEST] = 0
        counters[ring.LOGGED] = 0
        counters[ring.SEEN] = counters[ISSUED]
        self.counters[:] = counters
        self.distribution.clear()
        if self.some is not None:
            self.some.restore(np.zeros(self._capacity, np.uint8))

    def pieces(self) -> list[Piece]:
        """Return the pieces of a checkpoint that hold the priorities of live rows, oldest first.

        What follows from these, such as trees and order, is not in it.
        """
        self.tell()
        pieces: list[Piece] = []
        if self.some is not None:
            present = self.some.present
            pieces.append(Piece("present", None, partial(np.packbits, present, bitorder="little")))
        if self.distribution.uses_priorities:
            pieces += [
                Piece(name, None, partial(self._priorities_between, first, stop))
                for name, first, stop in self._blocks(self.size)
            ]
        return pieces

    def state(self) -> dict[str, Any]:
        """Return the rest of what belongs to a checkpoint, in plain values."""
        return {
            "ids_issued": self.issued,
            "size": self.rows,
            "stale_updates": self.stale,
            "largest_priority": self.largest_ever,
        }

    def restore(self, reader: Reader) -> None:
        """Restore the state from a checkpoint; this sampler must be new."""
        issued = reader.integer("ids_issued", 0, MOST_IDS)
        size = reader.integer("size", 0, min(issued, self._capacity))
        stale = reader.integer("stale_updates", 0, MOST_IDS)
        largest = reader.number("largest_priority", 0.0, HUGE)
        self.counters[ring.ISSUED] = self.counters[ring.TOLD] = issued
        self.counters[ring.FIRST] = issued - size
        self.counters[ring.STALE] = stale
        self._numbers[ring.LARGEST] = largest
        if self.some is not None:
            self.counters[ring.SEEN] = issued
            size = self._restore_present(reader, size)
        if size and not self.distribution.uses_priorities:
            self.distribution.set(self.live_slots(), np.ones(size))
            return
        for name, first, stop in self._blocks(size):
            priorities = reader.array(name, np.float64, (stop - first,))
            if not (priorities.min() >= 0.0 and priorities.max() <= min(largest, self.most)):
                raise reader.error(f"must have {name} in [0, {largest}]")
            self.distribution.set(self._slots_between(first, stop), priorities)

    def _restore_present(self, reader: Reader, rows: int) -> int:
        """Restore which of so many live rows can be drawn; return how many."""
        assert self.some is not None
        bits = reader.array("present", np.uint8, (-(-self._capacity // 8),))
        present = np.unpackbits(bits, count=self._capacity, bitorder="little")
        live = np.zeros(self._capacity, np.uint8)
        live[np.arange(self.issued - rows, self.issued) % self._capacity] = 1
        if (present > live).any():
            raise reader.error("must not have present rows that are not live")
        self.some.restore(present)
        return self.some.size

    def _blocks(self, size: int) -> Iterator[tuple[str, int, int]]:
        """Return names of blocks of live rows, oldest first, and where these begin and end."""
        each = manifest.PIECE // 8
        for number, first in enumerate(range(0, size, each)):
            yield f"priorities-{number:06d}", first, min(first + each, size)

    def _slots_between(self, first: int, stop: int) -> Ints:
        return self._live.at(np.arange(first, stop))

    def _priorities_between(self, first: int, stop: int) -> Floats:
        return self.distribution.priorities(self._slots_between(first, stop))

    def _refused(self, name: str, td_errors: Floats, place: int, whose: str = "") -> ValueError:
        """Return the error that blames one TD error."""
        error = td_errors[place]
        if not np.isfinite(abs(error) + self.eps):
            return ValueError(f"{name} must be finite, got {error}{whose} at position {place}")
        return ValueError(
            f"{name} must give priorities <= {self.most:.3g} where alpha is {self.alpha}, "
            f"got priority {abs(error) + self.eps:.6g}{whose} at position {place}"
        )

    def _draw_without_replacement(
        self, uniforms: UniformStream, slots: Ints, probabilities: Floats
    ) -> None:
        """Draw one row after the other, none twice.

        Independent draws without their repetitions have exactly this distribution. If the rows
        already drawn hold nearly all the mass, that would take long. The remaining rows are then
        ordered by exponential clocks: the first one to ring has the same distribution (Efraimidis
        and Spirakis 2006).
        """
        batch_size = slots.size
        table = np.empty(1 << (2 * batch_size).bit_length(), np.int64)
        drawn = attempts = 0
        while attempts <= 8 * batch_size:
            missing = batch_size - drawn
            self._mixture.draw(uniforms(missing), False, slots[drawn:], probabilities[drawn:])
            drawn = draw_kernels.keep_first(slots, probabilities, table)
            if drawn == batch_size:
                return
            attempts += missing
        rest = np.setdiff1d(self.live_slots(), slots[:drawn], assume_unique=True)
        rates = self._mixture.rates(rest)
        rest, rates = rest[rates > 0.0], rates[rates > 0.0]
        clocks = np.log(np.maximum(-np.log1p(-uniforms(rest.size)), TINY)) - np.log(rates)
        slots[drawn:] = rest[np.argsort(clocks, kind="stable")[: batch_size - drawn]]
        probabilities[:] = self.probabilities(slots)
