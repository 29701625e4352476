"""Sampling laws: which slot stands at a point of [0, 1), and with what probability P.

A law knows the priorities it was given. It knows nothing of draw modes, of what priority a
new row gets, or of transitions: :mod:`prioritized_replay.samplers` composes one law with those.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from prioritized_replay import _kernels as kernels
from prioritized_replay import _rank_kernels as kernels_of_ranks
from prioritized_replay.rank_law import RankLaw
from prioritized_replay.rank_order import RankOrder
from prioritized_replay.sum_tree import MinTree, SumTree

__all__ = ["Law", "ProportionalLaw", "RankBasedLaw", "UniformLaw"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

INT64 = np.dtype(np.int64)
Frame = tuple[Any, ...]
"""What a kernel needs to fill a batch, see :class:`Blocks`: a law hands it on unseen."""
TINY = float(np.finfo(np.float64).tiny)
HUGE = float(np.finfo(np.float64).max)


class Law(Protocol):
    """What a sampler asks of a law: slots int64[B], priorities and probabilities float64[B]."""

    alpha: float
    most: float
    """The largest priority that the law takes."""

    @property
    def nbytes(self) -> int:
        """Bytes held."""

    def require(self, priorities: Floats, name: str) -> None:
        """Raise ValueError, blaming the argument ``name``, at a priority that is too large."""

    def set_alpha(self, alpha: float, slots: Ints, largest: float) -> None:
        """Change alpha, given all live slots and the largest priority that may yet come."""

    def set(self, slots: Ints, priorities: Floats, name: str) -> float:
        """Give slots their priorities, of duplicates the last; return the largest of these.

        The array of priorities is used up. Raise ValueError, blaming the argument ``name``, at one
        that is too large.
        """

    def fill(self, first: int, count: int, priority: float) -> None:
        """Give ``count`` slots from ``first`` on, modulo N, one priority."""

    def draw(self, uniforms: Floats, stratified: bool, slots: Ints, probabilities: Floats) -> None:
        """Write a slot for each uniform of [0, 1), and its probability; see :func:`_kernels.point`.

        Some slot must be drawable.
        """

    def sample(self, uniforms: Floats, first: int, stratified: bool, frame: Frame) -> None:
        """Draw the same way with the uniforms from ``first`` on, and fill the batch of a frame."""

    def update(
        self, ids: Ints, td_errors: Floats, eps: float, first_id: int, next_id: int
    ) -> tuple[int, float]:
        """Give rows the priorities abs(td_error) + eps, see :func:`_kernels.priorities_of`.

        Returns how many are still there, or less than 0 where an id or error is refused, and the
        largest priority. Nothing has changed if that is infinite: one was too large.
        """

    def probabilities(self, slots: Ints) -> Floats:
        """Return P of live slots."""

    def masses(self, slots: Ints) -> Floats:
        """Return numbers in proportion to P of live slots."""

    def priorities(self, slots: Ints) -> Floats:
        """Return the priorities of live slots."""

    def drawable(self) -> int:
        """Return how many slots have a positive probability."""

    def least_probability(self) -> float:
        """Return the least positive probability."""

    def largest_priority(self) -> float:
        """Return the largest priority of a live slot."""

    def clear(self) -> None:
        """Forget all slots."""


class UniformLaw:
    """Every live slot alike; priorities are accepted and ignored, each counts as 1.

    Slots are filled in ring order: the live ones are the last ``size`` before ``end``.
    """

    def __init__(self, capacity: int) -> None:
        self.alpha = 0.0
        self.most = HUGE
        self._capacity = capacity
        self._size = 0
        self._end = 0

    @property
    def nbytes(self) -> int:
        """Bytes held: none to speak of."""
        return 0

    def require(self, priorities: Floats, name: str) -> None:
        """Accept every priority."""

    def set_alpha(self, alpha: float, slots: Ints, largest: float) -> None:
        """Refuse any exponent but 0."""
        if alpha != 0.0:
            raise ValueError(f"alpha must be 0 for Uniform, got {alpha}")

    def set(self, slots: Ints, priorities: Floats, name: str) -> float:
        """Do nothing: uniform rows have no priorities of their own."""
        return 1.0

    def fill(self, first: int, count: int, priority: float) -> None:
        """Count the new slots. O(1)."""
        self._size = min(self._size + count, self._capacity)
        self._end = (first + count) % self._capacity

    def draw(self, uniforms: Floats, stratified: bool, slots: Ints, probabilities: Floats) -> None:
        """Write equally likely live slots. O(B)."""
        kernels.draw_ring(
            uniforms, stratified, self._end, self._size, self._capacity, slots, probabilities
        )

    def sample(self, uniforms: Floats, first: int, stratified: bool, frame: Frame) -> None:
        """Draw and fill a batch. O(B)."""
        kernels.sample_ring(self._end, self._size, uniforms, first, stratified, *frame)

    def update(
        self, ids: Ints, td_errors: Floats, eps: float, first_id: int, next_id: int
    ) -> tuple[int, float]:
        """Only look at what comes: uniform rows have no priorities of their own. O(B)."""
        live = kernels.priorities_of(
            ids, td_errors, eps, first_id, next_id, self._capacity,
            np.empty(ids.size, np.int64), np.empty(ids.size),
        )  # fmt: skip
        return live, 1.0

    def probabilities(self, slots: Ints) -> Floats:
        """Return 1 / size for each slot."""
        return np.full(slots.size, 1.0 / max(self._size, 1))

    def masses(self, slots: Ints) -> Floats:
        """Return 1 for each slot."""
        return np.ones(slots.size)

    def priorities(self, slots: Ints) -> Floats:
        """Return 1 for each slot."""
        return np.ones(slots.size)

    def drawable(self) -> int:
        """Return the number of live slots."""
        return self._size

    def least_probability(self) -> float:
        """Return 1 / size."""
        return 1.0 / self._size

    def largest_priority(self) -> float:
        """Return 1, the priority of every row of a uniform buffer."""
        return 1.0

    def clear(self) -> None:
        """Forget all slots."""
        self._size = 0


class ProportionalLaw:
    """P(i) in proportion to priority_i**alpha, by a sum tree (paper, sections 3.3 and B.2.1).

    Parameters
    ----------
    capacity : int
        Number of slots N.
    alpha : float
        Exponent, >= 0.
    track_least, track_largest : bool
        Whether :meth:`least_probability` or :meth:`largest_priority` will be asked for: each
        costs a tree of its own.
    """

    def __init__(
        self, capacity: int, alpha: float, *, track_least: bool, track_largest: bool
    ) -> None:
        self.alpha = alpha
        self._capacity = capacity
        self._limit = HUGE / 2 / capacity  # no sum of N masses can overflow
        self.most = self._largest_for(alpha)
        self._priorities = np.zeros(capacity)
        self._masses = SumTree(capacity)
        self._least = MinTree(capacity) if track_least else None  # of positive masses
        self._largest = MinTree(capacity) if track_largest else None  # of negated priorities
        self._tracking = track_least or track_largest

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        trees = (self._masses, self._least, self._largest)
        return self._priorities.nbytes + sum(tree.nbytes for tree in trees if tree is not None)

    def require(self, priorities: Floats, name: str) -> None:
        """Raise ValueError if a mass is so large that a sum of N of them may overflow."""
        if priorities.size and not priorities.max() <= self.most:
            raise self._too_large(priorities, self.alpha, name)

    def set_alpha(self, alpha: float, slots: Ints, largest: float) -> None:
        """Recompute every mass. O(N)."""
        priorities = np.append(self._priorities[slots], largest)
        most = self._largest_for(alpha)
        if not priorities.max() <= most:
            raise self._too_large(priorities, alpha, "alpha")
        self.alpha, self.most = alpha, most
        self.set(slots, priorities[:-1], "alpha")

    def set(self, slots: Ints, priorities: Floats, name: str) -> float:
        """Set masses and recompute what they are part of. O(B log N)."""
        largest = self._masses.set_priorities(
            self._priorities, slots, priorities, self.alpha, self.most
        )
        if largest == np.inf:
            raise self._too_large(priorities, self.alpha, name)
        self._track(slots)
        return largest

    def fill(self, first: int, count: int, priority: float) -> None:
        """Set ``count`` contiguous masses. O(count + log N)."""
        mass = kernels.mass_of(priority, self.alpha)
        to_end = min(count, self._capacity - first)
        for start, stop in ((first, first + to_end), (0, count - to_end)):
            if stop > start:
                self._masses.fill(start, stop, mass)
                self._priorities[start:stop] = priority
                if self._least is not None:
                    self._least.fill(start, stop, mass if mass > 0.0 else np.inf)
                if self._largest is not None:
                    self._largest.fill(start, stop, -priority)

    def draw(self, uniforms: Floats, stratified: bool, slots: Ints, probabilities: Floats) -> None:
        """Write the slots whose shares of the sum hold these points of [0, 1). O(B log N)."""
        self._masses.draw(uniforms, stratified, slots, probabilities)

    def sample(self, uniforms: Floats, first: int, stratified: bool, frame: Frame) -> None:
        """Draw and fill a batch. O(B log N)."""
        kernels.sample_masses(*self._masses.arrays, uniforms, first, stratified, *frame)

    def update(
        self, ids: Ints, td_errors: Floats, eps: float, first_id: int, next_id: int
    ) -> tuple[int, float]:
        """Set masses from errors. O(B log N)."""
        scratch = np.empty(2 * ids.size, INT64)
        live, growth, largest = kernels.update_masses(
            *self._masses.arrays, self._priorities, self.alpha, self.most,
            ids, td_errors, eps, first_id, next_id, scratch,
        )  # fmt: skip
        self._masses.positive += growth
        if self._tracking and live > 0 and largest < np.inf:
            self._track(scratch[:live])
        return live, largest

    def probabilities(self, slots: Ints) -> Floats:
        """Return mass / sum. O(B)."""
        masses = self._masses.masses(slots)
        if self._masses.total == 0.0:
            return np.zeros(masses.size)
        probabilities = masses / self._masses.total
        # A mass that is positive keeps a positive probability when the division underflows.
        return np.maximum(probabilities, TINY, out=probabilities, where=masses > 0.0)

    def masses(self, slots: Ints) -> Floats:
        """Return priority**alpha. O(B)."""
        return self._masses.masses(slots)

    def priorities(self, slots: Ints) -> Floats:
        """Return the priorities as given. O(B)."""
        return self._priorities[slots]

    def drawable(self) -> int:
        """Return the number of positive masses. O(1)."""
        return self._masses.positive

    def least_probability(self) -> float:
        """Return that of the smallest positive mass. O(1)."""
        assert self._least is not None
        return max(self._least.least / self._masses.total, TINY)

    def largest_priority(self) -> float:
        """Return the largest live priority. O(1)."""
        assert self._largest is not None
        return -self._largest.least

    def clear(self) -> None:
        """Forget all masses. O(N)."""
        for tree in (self._masses, self._least, self._largest):
            if tree is not None:
                tree.clear()

    def _largest_for(self, alpha: float) -> float:
        """Return the largest priority whose power alpha is within the limit."""
        if alpha == 0.0:
            return HUGE
        return math.exp(min(math.log(self._limit) / alpha, math.log(HUGE)))

    def _track(self, slots: Ints) -> None:
        """Tell the trees of extremes that these masses and priorities are new."""
        if self._least is not None:
            masses = self._masses.masses(slots)
            self._least.set(slots, np.where(masses > 0.0, masses, np.inf))
        if self._largest is not None:
            self._largest.set(slots, -self._priorities[slots])

    def _too_large(self, priorities: Floats, alpha: float, name: str) -> ValueError:
        return ValueError(
            f"{name} must give priorities whose power alpha is <= {self._limit:.3g}, "
            f"got priority {priorities.max():.6g} with alpha {alpha}"
        )


class RankBasedLaw:
    """P(i) in proportion to rank(i)**-alpha with exact ranks; equal priorities share theirs.

    Paper, sections 3.3 and B.2.1, where ranks are approximate.
    """

    def __init__(self, capacity: int, alpha: float) -> None:
        self._order = RankOrder(capacity)
        self._law = RankLaw(alpha)
        self.alpha = alpha
        self.most = HUGE

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self._order.nbytes

    def require(self, priorities: Floats, name: str) -> None:
        """Accept every finite priority: only the order counts."""

    def set_alpha(self, alpha: float, slots: Ints, largest: float) -> None:
        """Change the exponent. O(1)."""
        self._law = RankLaw(alpha)
        self.alpha = alpha

    def set(self, slots: Ints, priorities: Floats, name: str) -> float:
        """Move or insert slots. O(B log N)."""
        return self._order.set(slots, priorities)

    def fill(self, first: int, count: int, priority: float) -> None:
        """Move or insert contiguous slots at one priority. O(count log N)."""
        self._order.insert_run(first, count, priority)

    def draw(self, uniforms: Floats, stratified: bool, slots: Ints, probabilities: Floats) -> None:
        """Write the slots at these points of the law over ranks. O(B log N)."""
        self._order.draw_into(uniforms, self._law, stratified, slots, probabilities)

    def sample(self, uniforms: Floats, first: int, stratified: bool, frame: Frame) -> None:
        """Draw and fill a batch. O(B log N)."""
        law = self._law
        kernels_of_ranks.sample_rows(
            *self._order.arrays, law.alpha, law.constant, law.table,
            uniforms, first, stratified, *frame,
        )  # fmt: skip

    def update(
        self, ids: Ints, td_errors: Floats, eps: float, first_id: int, next_id: int
    ) -> tuple[int, float]:
        """Move rows. O(B log N)."""
        slots = np.empty(ids.size, INT64)
        priorities = np.empty(ids.size)
        live = kernels.priorities_of(
            ids, td_errors, eps, first_id, next_id, self._order.capacity, slots, priorities
        )
        if live <= 0:
            return live, 0.0
        return live, self._order.set(slots[:live], priorities[:live])

    def probabilities(self, slots: Ints) -> Floats:
        """Return P of live slots. O(B log N)."""
        return self._order.probabilities(slots, self._law)

    def masses(self, slots: Ints) -> Floats:
        """Return P, which is in proportion to itself. O(B log N)."""
        return self.probabilities(slots)

    def priorities(self, slots: Ints) -> Floats:
        """Return the priorities as given. O(B)."""
        return self._order.priorities(slots)

    def drawable(self) -> int:
        """Return the number of live slots: every rank has a positive probability."""
        return len(self._order)

    def least_probability(self) -> float:
        """Return that of the last rank. O(log N)."""
        return self._order.smallest_probability(self._law)

    def largest_priority(self) -> float:
        """Return the priority of rank 1. O(log N)."""
        return self._order.highest()

    def clear(self) -> None:
        """Forget all slots."""
        self._order.clear()
