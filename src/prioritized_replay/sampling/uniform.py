"""The uniform distribution: every live slot alike."""

from __future__ import annotations

import numpy as np

from prioritized_replay.batches import _batch_kernels as batch_kernels
from prioritized_replay.sampling import _draw_kernels as draw_kernels
from prioritized_replay.sampling.distribution import HUGE, BatchCall, Floats, Ints


class UniformDistribution:
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
        draw_kernels.draw_ring(
            uniforms, stratified, self._end, self._size, self._capacity, slots, probabilities
        )

    def sample(self, uniforms: Floats, first: int, stratified: bool, frame: BatchCall) -> None:
        """Draw and fill a batch. O(B)."""
        batch_kernels.sample_ring(self._end, self._size, uniforms, first, stratified, *frame)

    def update(
        self, ids: Ints, td_errors: Floats, eps: float, first_id: int, next_id: int
    ) -> tuple[int, float]:
        """Only look at what comes: uniform rows have no priorities of their own. O(B)."""
        live = draw_kernels.priorities_of(
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
