"""Proportional sampling: P(i) in proportion to priority_i**alpha, by a sum tree."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np

from prioritized_replay.fields import arguments
from prioritized_replay.note import Note
from prioritized_replay.sampling import _ring_kernels as ring
from prioritized_replay.sampling import _tree_kernels as tree_kernels
from prioritized_replay.sampling.choices import DrawMode, MaxPriority, Weights, require_common
from prioritized_replay.sampling.distribution import HUGE, INT64, TINY, Floats, Ints
from prioritized_replay.sampling.sum_tree import MinTree, SumTree

__all__ = ["Proportional", "ProportionalDistribution"]


@dataclass(frozen=True)
class Proportional:
    """P(i) in proportion to priority_i**alpha.

    A priority is abs(td_error) + eps, or ``min_priority`` where that is larger. Schaul et al. 2015,
    section 3.3, first variant. With ``alpha=0.4, eps=0.0, min_priority=1.0``, a Huber loss and no
    weights, this is LAP (Fujimoto et al. 2020), as TD7 uses it.

    Parameters
    ----------
    alpha : float
        How much prioritization: 0 is uniform. Paper: 0.6.
    eps : float
        Added to every abs(td_error), so that a row without error can still be drawn, >= 0.
    draw : {"stratified", "independent", "without_replacement"}
        ``"stratified"``: one draw from each of B equal parts of the distribution, as in the paper's
        appendix B.2.1. ``"independent"``: B draws from the whole of it. ``"without_replacement"``:
        B distinct rows, drawn one after the other from those that are left.
    uniform_mix : float
        Share of draws that are uniform over all rows, in [0, 1].
    recent_mix : float
        Share of draws that are uniform over the newest rows; uniform_mix + recent_mix <= 1. P is
        that of the mixture: (1 - uniform_mix - recent_mix) P_prioritized + uniform_mix / size,
        and + recent_mix / recent for the newest rows.
    recent : int
        How many rows are the newest, >= 1; all rows, while there are fewer.
    weights : {"batch", "buffer", "raw"}
        What importance weights are divided by: the largest of the batch, the largest weight
        that any row of the buffer could have, or nothing.
    max_priority : {"ever", "current"}
        What a new row enters with: the largest priority seen since the buffer was empty, or
        the largest that a row has now.
    min_priority : float
        The least priority that an error may give, >= 0. The first row enters with 1, or with this
        where it is more.

    Raises
    ------
    ValueError
        If a number is outside its range or a choice is none of those listed.

    Examples
    --------
    >>> Proportional(alpha=0.5)
    Proportional(alpha=0.5, eps=0.01, draw='stratified', uniform_mix=0.0, recent_mix=0.0, \
recent=1000, weights='batch', max_priority='ever', min_priority=0.0)
    """

    alpha: float = 0.6
    eps: float = 0.01
    draw: DrawMode = "stratified"
    uniform_mix: float = 0.0
    recent_mix: float = 0.0
    recent: int = 1000
    weights: Weights = "batch"
    max_priority: MaxPriority = "ever"
    min_priority: float = 0.0

    def __post_init__(self) -> None:
        arguments.number("alpha", self.alpha)
        arguments.number("eps", self.eps)
        arguments.number("min_priority", self.min_priority)
        require_common(self)

    def distribution(self, capacity: int, counters: Ints, note: Note) -> ProportionalDistribution:
        """Return the state of a buffer that samples so."""
        return ProportionalDistribution(
            capacity,
            float(self.alpha),
            note,
            track_least=self.weights == "buffer",
            track_largest=self.max_priority == "current",
        )


class ProportionalDistribution:
    """P(i) in proportion to priority_i**alpha, by a sum tree (paper, sections 3.3 and B.2.1).

    Parameters
    ----------
    capacity : int
        Number of slots N.
    alpha : float
        Exponent, >= 0.
    note : Note
        Where to note what an interrupted call leaves to do.
    track_least, track_largest : bool
        Whether :meth:`least_probability` or :meth:`largest_priority` will be asked for: each
        costs a tree of its own.

    Notes
    -----
    The priorities are what is true; masses, their sums and the trees of extremes follow from them.
    """

    uses_priorities = True
    gaps = True

    def __init__(
        self,
        capacity: int,
        alpha: float,
        note: Note,
        *,
        track_least: bool,
        track_largest: bool,
    ) -> None:
        self.alpha = alpha
        self._capacity = capacity
        self._note = note
        self._limit = HUGE / 2 / capacity  # no sum of N masses can overflow
        self.most = self._largest_for(alpha)
        self._priorities = np.zeros(capacity)
        self._masses = SumTree(capacity)
        self.arrays = self._masses.arrays
        """What kernels take as `tree` and `starts`."""
        self._least = MinTree(capacity) if track_least else None  # of positive masses
        self._largest = MinTree(capacity) if track_largest else None  # of negated priorities
        self._tracking = track_least or track_largest

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        trees = (self._masses, self._least, self._largest)
        return self._priorities.nbytes + sum(tree.nbytes for tree in trees if tree is not None)

    def set_alpha(self, alpha: float, slots: Ints, largest: float) -> None:
        """Recompute every mass. O(N)."""
        most = self._largest_for(alpha)
        priorities = np.append(self._priorities[slots], largest)
        if not priorities.max() <= most:
            raise ValueError(
                f"alpha must give priorities whose power alpha is <= {self._limit:.3g}, "
                f"got priority {priorities.max():.6g} with alpha {alpha}"
            )
        recompute = partial(self._recompute, slots)
        outer = self._note.begin(recompute)
        self.alpha = alpha
        recompute()
        self._note.end(outer)

    def set(self, slots: Ints, priorities: Floats) -> None:
        """Set masses and recompute what they are part of. O(B log N)."""
        tree_kernels.set_priorities(
            *self.arrays, self._priorities, slots, priorities.copy(), self.alpha, np.inf
        )
        self._track(slots)

    def tell(self, counters: Ints, entering: Floats) -> None:
        """Set the masses of new rows. O(rows + log N)."""
        if not self._tracking:
            tree_kernels.tell_masses(*self.arrays, self._priorities, counters, entering, self.alpha)
            return
        issued = int(counters[ring.ISSUED])
        ids = np.arange(max(int(counters[ring.TOLD]), issued - self._capacity), issued)
        self.set(ids % self._capacity, entering[ids % entering.size])
        counters[ring.TOLD] = issued

    def update(
        self, counters: Ints, ids: Ints, td_errors: Floats, eps: float, min_priority: float
    ) -> int:
        """Set masses from errors. O(B log N)."""
        scratch = np.empty(2 * ids.size, INT64)
        tracked = partial(self._track, ids % self._capacity) if self._tracking else None
        outer = None if tracked is None else self._note.begin(tracked)
        live: int = tree_kernels.update_masses(
            *self.arrays, self._priorities, counters, self.alpha, self.most,
            ids, td_errors, eps, min_priority, scratch,
        )  # fmt: skip
        if self._tracking:
            if live > 0:
                self._track(scratch[:live])
            self._note.end(outer)
        return live

    def draw(self, uniforms: Floats, stratified: bool, slots: Ints, probabilities: Floats) -> None:
        """Write the slots whose shares of the sum hold these points of [0, 1). O(B log N)."""
        self._masses.draw(uniforms, stratified, slots, probabilities)

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

    @property
    def total_mass(self) -> float:
        """The sum of the masses. O(1)."""
        return self._masses.total

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

    def _recompute(self, slots: Ints) -> None:
        """Compute all that follows from the priorities of live slots and alpha anew. O(N)."""
        self.most = self._largest_for(self.alpha)
        self.set(slots, self._priorities[slots])

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
