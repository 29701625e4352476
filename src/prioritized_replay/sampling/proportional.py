"""The proportional distribution: a sum tree over priority**alpha."""

from __future__ import annotations

import math

import numpy as np

from prioritized_replay.batches import _batch_kernels as batch_kernels
from prioritized_replay.sampling import _draw_kernels as draw_kernels
from prioritized_replay.sampling import _tree_kernels as tree_kernels
from prioritized_replay.sampling.distribution import HUGE, INT64, TINY, BatchCall, Floats, Ints
from prioritized_replay.sampling.sum_tree import MinTree, SumTree


class ProportionalDistribution:
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
        mass = draw_kernels.mass_of(priority, self.alpha)
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

    def sample(self, uniforms: Floats, first: int, stratified: bool, frame: BatchCall) -> None:
        """Draw and fill a batch. O(B log N)."""
        batch_kernels.sample_masses(*self._masses.arrays, uniforms, first, stratified, *frame)

    def update(
        self, ids: Ints, td_errors: Floats, eps: float, first_id: int, next_id: int
    ) -> tuple[int, float]:
        """Set masses from errors. O(B log N)."""
        scratch = np.empty(2 * ids.size, INT64)
        live, growth, largest = tree_kernels.update_masses(
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
