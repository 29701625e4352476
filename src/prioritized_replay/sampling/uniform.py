"""Uniform sampling: every live slot alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prioritized_replay.note import Note
from prioritized_replay.sampling import _draw_kernels as draw_kernels
from prioritized_replay.sampling import _live_kernels as live_kernels
from prioritized_replay.sampling import _ring_kernels as ring
from prioritized_replay.sampling.choices import DrawMode, require_choice
from prioritized_replay.sampling.distribution import HUGE, INT64, Floats, Ints
from prioritized_replay.sampling.live import SomeSlots

__all__ = ["Uniform", "UniformDistribution", "UniformOverSome"]


@dataclass(frozen=True)
class Uniform:
    """Every transition alike: the baseline of every comparison.

    Parameters
    ----------
    draw : {"stratified", "independent", "without_replacement"}
        How a batch is drawn; see :class:`Proportional`.

    Raises
    ------
    ValueError
        If ``draw`` is none of the three.

    Examples
    --------
    >>> Uniform()
    Uniform(draw='stratified')
    """

    draw: DrawMode = "stratified"

    def __post_init__(self) -> None:
        require_choice("draw", self.draw, DrawMode)

    def distribution(self, capacity: int, counters: Ints, note: Note) -> UniformDistribution:
        """Return the state of a buffer that samples so."""
        return UniformDistribution(capacity, counters)


class UniformDistribution:
    """Every live slot alike; priorities are accepted and ignored, each counts as 1.

    Parameters
    ----------
    capacity : int
        Number of slots N.
    counters : int64[8]
        Of the ring: which slots are live follows from them.
    """

    alpha = 0.0
    most = HUGE
    nbytes = 0
    uses_priorities = False

    def __init__(self, capacity: int, counters: Ints) -> None:
        self.capacity = capacity
        self.counters = counters

    def set_alpha(self, alpha: float, slots: Ints, largest: float) -> None:
        """Refuse any exponent but 0."""
        if alpha != 0.0:
            raise ValueError(f"alpha must be 0 for Uniform, got {alpha}")

    def set(self, slots: Ints, priorities: Floats) -> None:
        """Do nothing: the rows have no priorities of their own."""

    def tell(self, counters: Ints, entering: Floats) -> None:
        """Count new rows as received. O(1)."""
        counters[ring.TOLD] = counters[ring.ISSUED]

    def update(
        self, counters: Ints, ids: Ints, td_errors: Floats, eps: float, min_priority: float
    ) -> int:
        """Check ids and errors, and count ids of overwritten rows. O(B)."""
        scratch = np.empty(2 * ids.size, INT64)
        live: int = draw_kernels.check_update(counters, ids, td_errors, self.capacity, scratch)
        return live

    def draw(self, uniforms: Floats, stratified: bool, slots: Ints, probabilities: Floats) -> None:
        """Write equally likely live slots. O(B)."""
        draw_kernels.draw_ring(
            self.counters, self.capacity, uniforms, stratified, slots, probabilities
        )

    def probabilities(self, slots: Ints) -> Floats:
        """Return 1 / size for each slot."""
        return np.full(slots.size, 1.0 / max(self.drawable(), 1))

    def masses(self, slots: Ints) -> Floats:
        """Return 1 for each slot."""
        return np.ones(slots.size)

    def priorities(self, slots: Ints) -> Floats:
        """Return 1 for each slot."""
        return np.ones(slots.size)

    def drawable(self) -> int:
        """Return the number of live slots."""
        live = self.counters.item(ring.ISSUED) - self.counters.item(ring.FIRST)
        return live if live < self.capacity else self.capacity

    def least_probability(self) -> float:
        """Return 1 / size."""
        return 1.0 / self.drawable()

    def largest_priority(self) -> float:
        """Return 1, the priority of every row of a uniform buffer."""
        return 1.0

    def clear(self) -> None:
        """Do nothing: which slots are live follows from the counters."""


class UniformOverSome(UniformDistribution):
    """Every slot alike of those that can be drawn, where not all of a ring can.

    Parameters
    ----------
    capacity, counters
        As for :class:`UniformDistribution`.
    live : SomeSlots
        Which slots those are. It is kept up to date by others, and counted there.
    """

    gaps = True

    def __init__(self, capacity: int, counters: Ints, live: SomeSlots) -> None:
        super().__init__(capacity, counters)
        self._live = live

    def draw(self, uniforms: Floats, stratified: bool, slots: Ints, probabilities: Floats) -> None:
        """Write equally likely slots. O(B log N)."""
        live_kernels.draw_some(
            *self._live.arrays, self.counters, uniforms, stratified, slots, probabilities
        )

    def drawable(self) -> int:
        """Return the number of slots that can be drawn."""
        return self._live.size
