"""Samplers: which slots to draw, with what probability and weight; they never see a transition.

:class:`Uniform`, :class:`Proportional` and :class:`RankBased` are frozen specifications.
:class:`Sampler` is the state that a buffer builds from one of them.
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
from prioritized_replay.fields import arguments
from prioritized_replay.sampling import _draw_kernels as draw_kernels
from prioritized_replay.sampling.distribution import HUGE, TINY, BatchCall, Distribution
from prioritized_replay.sampling.proportional import ProportionalDistribution
from prioritized_replay.sampling.rank_based import RankBasedDistribution
from prioritized_replay.sampling.specifications import Proportional, Specification, Uniform, Weights
from prioritized_replay.sampling.uniform import UniformDistribution
from prioritized_replay.sampling.uniforms import UniformStream

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
FLOAT32_MAX = float(np.finfo(np.float32).max)
INT64 = np.dtype(np.int64)


class Sampler:
    """The sampling state of one buffer: priorities, the law over slots, the maximum.

    Slots become live in ring order (:meth:`append`). New rows are only counted, or their priorities
    kept; the law is told of all of them at once before it is next needed.

    Parameters
    ----------
    specification : Uniform, Proportional or RankBased
        What to do.
    capacity : int
        Number of slots N.
    """

    def __init__(self, specification: Specification, capacity: int, most_per_call: int = 1) -> None:
        self._capacity = capacity
        self._specification = specification
        self._stratified = specification.draw == "stratified"
        self._distinct = specification.draw == "without_replacement"
        self._mix = 0.0
        self._weights: Weights = "batch"
        self.eps = 0.0
        """What a priority is above the absolute error."""
        self._ever = True
        if isinstance(specification, Uniform):
            self._distribution: Distribution = UniformDistribution(capacity)
        else:
            self._mix = specification.uniform_mix
            self._weights = specification.weights
            self._ever = specification.max_priority == "ever"
            if isinstance(specification, Proportional):
                self.eps = float(specification.eps)
                self._distribution = ProportionalDistribution(
                    capacity,
                    float(specification.alpha),
                    track_least=self._weights == "buffer",
                    track_largest=not self._ever,
                )
            else:
                self._distribution = RankBasedDistribution(capacity, float(specification.alpha))
        self.plain = not self._distinct and self._mix == 0.0
        """Whether a batch is drawn by the law alone, with replacement."""
        self.counters = np.zeros(8, np.int64)
        self._numbers = self.counters.view(np.float64)
        self.entering = np.zeros(max(4096, 1 << (most_per_call - 1).bit_length()))

    @property
    def size(self) -> int:
        return min(int(self.counters[0] - self.counters[1]), self._capacity)

    @property
    def issued(self) -> int:
        return int(self.counters[0])

    @property
    def _next(self) -> int:
        return int(self.counters[0]) % self._capacity

    @property
    def _pending(self) -> int:
        return int(self.counters[0] - self.counters[2])

    @property
    def _largest_ever(self) -> float:
        return float(self._numbers[4])

    @_largest_ever.setter
    def _largest_ever(self, v: float) -> None:
        self._numbers[4] = v

    def tell(self) -> None:
        self._tell_pending()

    def make_room(self, count: int) -> None:
        if self._pending + count > self.entering.size:
            self._tell_pending()

    @property
    def specification(self) -> Specification:
        """The specification in force, with the present alpha."""
        return self._specification

    @property
    def alpha(self) -> float:
        """The exponent in force; :meth:`set_alpha` changes it."""
        return self._distribution.alpha

    def set_alpha(self, alpha: float, waiting: float = 0.0) -> None:
        """Change alpha, at any time. O(N) for proportional, else O(1).

        Parameters
        ----------
        alpha : float
            >= 0.
        waiting : float
            The largest priority with which a row that is not here yet will be appended.

        Raises
        ------
        ValueError
            If alpha is out of range, or a priority, here or to come, too large for it.
        """
        alpha = arguments.number("alpha", alpha)
        self._tell_pending()
        to_come = max(waiting, self._largest_ever) if self._ever else waiting
        self._distribution.set_alpha(alpha, self.live_slots(), to_come)
        if not isinstance(self._specification, Uniform):
            self._specification = replace(self._specification, alpha=alpha)

    @property
    def most(self) -> float:
        """The largest priority that a row may have."""
        return self._distribution.most

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self._distribution.nbytes

    def live_slots(self) -> Ints:
        """Return the live slots, oldest first, int64[size]."""
        return (np.arange(self.size) + (self._next - self.size)) % self._capacity

    def priorities_of(self, td_errors: Floats, name: str = "td_errors") -> Floats:
        """Return the priorities that these errors mean.

        Raises
        ------
        ValueError
            If an error is not finite, or its priority too large for the law.
        """
        priorities = np.abs(td_errors) + self.eps
        if not np.isfinite(priorities).all():
            raise not_finite(name, td_errors, int(np.argmin(np.isfinite(priorities))))
        self._distribution.require(priorities, name)
        return priorities

    def priority_of(self, td_error: float) -> float:
        """Return the priority that one error means; see :meth:`priorities_of`."""
        priority = abs(td_error) + self.eps
        if not priority <= self._distribution.most:
            self.priorities_of(np.array([td_error]), "td_error")  # which says what is wrong
        return priority

    def entry_priority(self) -> float:
        """Return the priority that a new row gets: the largest so far, 1 in an empty buffer."""
        if self.size == 0:
            return 1.0
        if self._ever:
            return self._largest_ever
        self._tell_pending()
        return self._distribution.largest_priority()

    def append(self, count: int, priorities: Floats | None = None) -> None:
        """Make the next ``count`` slots of the ring live, replacing what was there.

        Parameters
        ----------
        count : int
            How many, >= 1.
        priorities : float64[count], optional
            Their priorities; without them all enter at :meth:`entry_priority`.
        """
        if priorities is None:
            priorities = np.full(count, self.entry_priority())
        self._tell_pending()
        kept = min(count, self._capacity)
        end = self.issued + count
        slots = np.arange(end - kept, end) % self._capacity
        if isinstance(self._distribution, UniformDistribution):
            self._distribution.fill(int(slots[0]), kept, 1.0)
            largest = 1.0
        else:
            largest = self._distribution.set(slots, priorities[count - kept :].copy(), "td_errors")
        self._largest_ever = max(self._largest_ever, largest)
        self.counters[2] = self.counters[0] = end

    def set(self, slots: Ints, priorities: Floats) -> None:
        """Give live slots new priorities, of duplicates the last. O(B log N).

        Parameters
        ----------
        slots : int64[B]
        priorities : float64[B]
            Finite, >= ``eps``.

        Raises
        ------
        ValueError
            If a priority is too large for the law; nothing changes then.
        """
        if slots.size == 0:
            return
        if self._pending:
            self._tell_pending()
        largest = self._distribution.set(slots, priorities, "td_errors")
        if largest > self._largest_ever:
            self._largest_ever = largest

    def priorities(self, slots: Ints) -> Floats:
        """Return the priorities of live slots, float64[B]; 1 for uniform ones."""
        self._tell_pending()
        return self._distribution.priorities(slots)

    def probabilities(self, slots: Ints) -> Floats:
        """Return the single-draw law P of live slots, float64[B]."""
        self._tell_pending()
        if slots.size == 0:  # of an empty buffer, too, which has no law
            return np.zeros(0)
        return self._mixed(self._distribution.probabilities(slots))

    def draw(self, batch_size: int, uniforms: UniformStream, probabilities: Floats) -> Ints:
        """Draw a batch.

        Parameters
        ----------
        batch_size : int
            B >= 1.
        uniforms : UniformStream
            Where the randomness comes from.
        probabilities : float64[B]
            To be written: the single-draw law P(i), whatever the draw mode.

        Returns
        -------
        int64[B]
            Slots.

        Raises
        ------
        ValueError
            If nothing is drawable, or fewer rows than a draw without replacement needs.
        """
        if self._pending:
            self._tell_pending()
        drawable = self.size if self._mix else self._distribution.drawable()
        if not drawable:
            raise self._nothing_to_draw()
        slots = np.empty(batch_size, INT64)
        if not self._distinct:
            self._find(uniforms(batch_size), self._stratified, slots, probabilities)
        elif batch_size <= drawable:
            self._draw_without_replacement(uniforms, slots, probabilities)
        else:
            raise ValueError(
                "batch_size must be <= the number of rows of positive probability when "
                f"drawing without replacement ({drawable}), got {batch_size}"
            )
        return slots

    def sample(self, count: int, uniforms: UniformStream, frame: BatchCall) -> None:
        """Draw ``count`` rows and fill the batch of a frame; only where :attr:`plain`.

        The same as :meth:`draw` and :meth:`Blocks.complete`, in one compiled call.
        """
        if self._pending:
            self._tell_pending()
        if not self._distribution.drawable():
            raise self._nothing_to_draw()
        self._distribution.sample(*uniforms.take(count), self._stratified, frame)

    def update(self, ids: Ints, td_errors: Floats, first_id: int, next_id: int) -> int:
        """Give rows the priorities of their errors; of duplicates the last counts. O(B log N).

        Parameters
        ----------
        ids : int64[B]
        td_errors : float64[B]
        first_id, next_id : int
            The oldest id that is there, and the one that the next row will have.

        Returns
        -------
        int
            How many are still there.

        Raises
        ------
        ValueError
            If an id was never issued, an error is not finite, or its priority too large for the
            law; nothing changes then.
        """
        if self._pending:
            self._tell_pending()
        live, largest = self._distribution.update(ids, td_errors, self.eps, first_id, next_id)
        if live < 0:
            place = -1 - live
            if not 0 <= ids[place] < next_id:
                raise ValueError(f"ids must be >= 0 and < {next_id}, got {ids[place]}")
            raise not_finite("td_errors", td_errors, place)
        if largest > self._largest_ever:
            if largest == np.inf:
                self._distribution.require(
                    np.abs(td_errors[ids >= first_id]) + self.eps, "td_errors"
                )
                raise AssertionError(f"a priority within {self._distribution.most} was refused")
            self._largest_ever = largest
        return live

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
        self._tell_pending()
        if not self.size or (self._mix == 0.0 and not self._distribution.drawable()):
            return 1.0, 1.0  # there is nothing to draw, and no row's weight to refer to
        return self._least_probability(), 1.0

    def clear(self) -> None:
        """Forget every slot; the next row still takes the next slot of the ring."""
        self.counters[4] = 0
        self.counters[1] = self.counters[2] = self.counters[0]
        self._distribution.clear()

    def pieces(self) -> list[Piece]:
        """Return the priorities of live rows, oldest first, as pieces of a checkpoint.

        Trees and order are not in it: they follow from these.
        """
        self._tell_pending()
        if isinstance(self._distribution, UniformDistribution):
            return []
        return [
            Piece(name, None, partial(self._priorities_between, first, stop))
            for name, first, stop in self._blocks()
        ]

    def state(self) -> dict[str, Any]:
        """Return the rest of what belongs to a checkpoint, in plain values."""
        return {"size": self.size, "largest_priority": float(self._largest_ever)}

    def restore(self, reader: Reader, issued: int) -> None:
        """Become what a checkpoint says; this has to be new.

        Parameters
        ----------
        reader : Reader
            The checkpoint.
        issued : int
            How many rows were appended in all.
        """
        size = reader.integer("size", 0, min(issued, self._capacity))
        self.counters[0] = self.counters[2] = issued
        self.counters[1] = issued - size
        self._largest_ever = reader.number("largest_priority", 0.0, HUGE)
        if isinstance(self._distribution, UniformDistribution):
            if self.size:
                self._distribution.fill((self._next - self.size) % self._capacity, self.size, 1.0)
            return
        for name, first, stop in self._blocks():
            priorities = reader.array(name, np.float64, (stop - first,))
            if not (priorities.min() >= 0.0 and priorities.max() <= self._largest_ever):
                raise reader.error(f"must have {name} in [0, {self._largest_ever}]")
            self._distribution.set(self._slots_between(first, stop), priorities, name)

    def _blocks(self) -> Iterator[tuple[str, int, int]]:
        """Return names of blocks of live rows, oldest first, and where these begin and end."""
        each = manifest.PIECE // 8
        for number, first in enumerate(range(0, self.size, each)):
            yield f"priorities-{number:06d}", first, min(first + each, self.size)

    def _slots_between(self, first: int, stop: int) -> Ints:
        return (np.arange(first, stop) + (self._next - self.size)) % self._capacity

    def _priorities_between(self, first: int, stop: int) -> Floats:
        return self._distribution.priorities(self._slots_between(first, stop))

    def _nothing_to_draw(self) -> ValueError:
        return ValueError(
            "no row can be drawn while all priorities are zero: "
            "eps or uniform_mix must be > 0, got 0"
        )

    def _tell_pending(self) -> None:
        if not self._pending:
            return
        ids = np.arange(max(int(self.counters[2]), self.issued - self._capacity), self.issued)
        slots = ids % self._capacity
        if isinstance(self._distribution, UniformDistribution):
            self._distribution.fill(int(slots[0]), slots.size, 1.0)
        else:
            self._distribution.set(slots, self.entering[ids % self.entering.size], "td_error")
        self.counters[2] = self.counters[0]

    def _find(self, uniforms: Floats, stratified: bool, slots: Ints, probabilities: Floats) -> None:
        """Draw by the law in force, which may have a uniform share beside its own."""
        if self._mix == 0.0:
            self._distribution.draw(uniforms, stratified, slots, probabilities)
            return
        points = uniforms
        if stratified:
            points = np.empty(uniforms.size)
            draw_kernels.stratify(uniforms, points)
        share = 1.0 - self._mix if self._distribution.drawable() else 0.0
        by_law = points < share
        if by_law.any():
            found = np.empty(np.count_nonzero(by_law), np.int64)
            chances = np.empty(found.size)
            self._distribution.draw(points[by_law] / share, False, found, chances)
            slots[by_law] = found
        places = (points[~by_law] - share) / (1.0 - share) * self.size
        places = np.minimum(places.astype(np.int64), self.size - 1)
        slots[~by_law] = (places + (self._next - self.size)) % self._capacity
        probabilities[:] = self._mixed(self._distribution.probabilities(slots))

    def _mixed(self, probabilities: Floats) -> Floats:
        if self._mix == 0.0:
            return probabilities
        mix = self._mix if self._distribution.drawable() else 1.0
        return (1.0 - mix) * probabilities + mix / max(self.size, 1)

    def _least_probability(self) -> float:
        if self._mix == 0.0:
            return self._distribution.least_probability()
        drawable = self._distribution.drawable()
        least = self._distribution.least_probability() if drawable == self.size else 0.0
        return float(self._mixed(np.array([least]))[0])

    def _draw_without_replacement(
        self, uniforms: UniformStream, slots: Ints, probabilities: Floats
    ) -> None:
        """Draw one row after the other, none twice.

        Independent draws of which repetitions are thrown away have exactly that law. Where the
        rows already drawn hold nearly all the mass that would take long; the remaining ones are
        then ordered by exponential clocks, of which the first to ring has the same law
        (Efraimidis and Spirakis 2006).
        """
        batch_size = slots.size
        table = np.empty(1 << (2 * batch_size).bit_length(), np.int64)
        drawn = attempts = 0
        while attempts <= 8 * batch_size:
            missing = batch_size - drawn
            self._find(uniforms(missing), False, slots[drawn:], probabilities[drawn:])
            drawn = draw_kernels.keep_first(slots, probabilities, table)
            if drawn == batch_size:
                return
            attempts += missing
        rest = np.setdiff1d(self.live_slots(), slots[:drawn], assume_unique=True)
        # Masses, where nothing is mixed in: they have not underflowed as P may have.
        rates = self._distribution.masses(rest) if self._mix == 0.0 else self.probabilities(rest)
        rest, rates = rest[rates > 0.0], rates[rates > 0.0]
        clocks = np.log(np.maximum(-np.log1p(-uniforms(rest.size)), TINY)) - np.log(rates)
        slots[drawn:] = rest[np.argsort(clocks, kind="stable")[: batch_size - drawn]]
        probabilities[:] = self.probabilities(slots)


def not_finite(name: str, td_errors: Floats, place: int) -> ValueError:
    """Return the error that blames one TD error."""
    return ValueError(f"{name} must be finite, got {td_errors[place]} at position {place}")
