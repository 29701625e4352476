"""The rank-based distribution: exact ranks and a power law over them."""

from __future__ import annotations

import numpy as np

from prioritized_replay.batches import _batch_kernels as batch_kernels
from prioritized_replay.sampling import _draw_kernels as draw_kernels
from prioritized_replay.sampling.distribution import HUGE, INT64, BatchCall, Floats, Ints
from prioritized_replay.sampling.power_law import PowerLaw
from prioritized_replay.sampling.rank_order import RankOrder


class RankBasedDistribution:
    """P(i) in proportion to rank(i)**-alpha with exact ranks; equal priorities share theirs.

    Paper, sections 3.3 and B.2.1, where ranks are approximate.
    """

    def __init__(self, capacity: int, alpha: float) -> None:
        self._order = RankOrder(capacity)
        self._distribution = PowerLaw(alpha)
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
        self._distribution = PowerLaw(alpha)
        self.alpha = alpha

    def set(self, slots: Ints, priorities: Floats, name: str) -> float:
        """Move or insert slots. O(B log N)."""
        return self._order.set(slots, priorities)

    def fill(self, first: int, count: int, priority: float) -> None:
        """Move or insert contiguous slots at one priority. O(count log N)."""
        self._order.insert_run(first, count, priority)

    def draw(self, uniforms: Floats, stratified: bool, slots: Ints, probabilities: Floats) -> None:
        """Write the slots at these points of the law over ranks. O(B log N)."""
        self._order.draw_into(uniforms, self._distribution, stratified, slots, probabilities)

    def sample(self, uniforms: Floats, first: int, stratified: bool, frame: BatchCall) -> None:
        """Draw and fill a batch. O(B log N)."""
        law = self._distribution
        batch_kernels.sample_rows(
            *self._order.arrays, law.alpha, law.constant, law.table,
            uniforms, first, stratified, *frame,
        )  # fmt: skip

    def update(
        self, ids: Ints, td_errors: Floats, eps: float, first_id: int, next_id: int
    ) -> tuple[int, float]:
        """Move rows. O(B log N)."""
        slots = np.empty(ids.size, INT64)
        priorities = np.empty(ids.size)
        live = draw_kernels.priorities_of(
            ids, td_errors, eps, first_id, next_id, self._order.capacity, slots, priorities
        )
        if live <= 0:
            return live, 0.0
        return live, self._order.set(slots[:live], priorities[:live])

    def probabilities(self, slots: Ints) -> Floats:
        """Return P of live slots. O(B log N)."""
        return self._order.probabilities(slots, self._distribution)

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
        return self._order.smallest_probability(self._distribution)

    def largest_priority(self) -> float:
        """Return the priority of rank 1. O(log N)."""
        return self._order.highest()

    def clear(self) -> None:
        """Forget all slots."""
        self._order.clear()
