"""Rank-based sampling: P(i) in proportion to rank_i**-alpha, with exact ranks."""

from __future__ import annotations

from dataclasses import dataclass

from prioritized_replay.fields import arguments
from prioritized_replay.note import Note
from prioritized_replay.sampling import _rank_kernels as rank_kernels
from prioritized_replay.sampling import _ring_kernels as ring
from prioritized_replay.sampling.choices import DrawMode, MaxPriority, Weights, require_common
from prioritized_replay.sampling.distribution import HUGE, Floats, Ints
from prioritized_replay.sampling.power_law import PowerLaw
from prioritized_replay.sampling.rank_order import RankOrder, scratch_for

__all__ = ["RankBased", "RankBasedDistribution"]


@dataclass(frozen=True)
class RankBased:
    """P(i) in proportion to rank(i)**-alpha, rank 1 being the largest abs(td_error).

    Schaul et al. 2015, section 3.3, second variant, with exact ranks. Rows of equal priority
    have equal probability: they share the mass of the ranks they hold together.

    Parameters
    ----------
    alpha : float
        How much prioritization: 0 is uniform. Paper: 0.7.
    draw, uniform_mix, recent_mix, recent, weights, max_priority
        As in :class:`Proportional`.

    Raises
    ------
    ValueError
        If a number is outside its range or a choice is none of those listed.

    Examples
    --------
    >>> import prioritized_replay as per
    >>> fields = {"obs": per.Field(), "action": per.Field((), "int64"), "reward": per.Field()}
    >>> replay = per.ReplayBuffer(10, fields, sampler=RankBased(alpha=1.0))
    >>> ids = [int(replay.add(k, 0, 1.0, k + 1, False)[0]) for k in range(3)]
    >>> for largest in 2.0, 1e6:  # only the order counts, not how far apart the errors are
    ...     _ = replay.update_priorities(ids, [largest, 0.0, 1.0])
    ...     print(replay.get(ids).probabilities.round(2))
    [0.55 0.18 0.27]
    [0.55 0.18 0.27]
    """

    alpha: float = 0.7
    draw: DrawMode = "stratified"
    uniform_mix: float = 0.0
    recent_mix: float = 0.0
    recent: int = 1000
    weights: Weights = "batch"
    max_priority: MaxPriority = "ever"

    def __post_init__(self) -> None:
        arguments.number("alpha", self.alpha)
        require_common(self)

    def distribution(self, capacity: int, counters: Ints, note: Note) -> RankBasedDistribution:
        """Return the state of a buffer that samples so."""
        return RankBasedDistribution(capacity, float(self.alpha))


class RankBasedDistribution:
    """P(i) in proportion to rank(i)**-alpha with exact ranks; equal priorities share theirs.

    Paper, sections 3.3 and B.2.1, where ranks are approximate. The order is what is true: each of
    its changes is one compiled call.
    """

    most = HUGE
    uses_priorities = True
    gaps = True

    def __init__(self, capacity: int, alpha: float) -> None:
        self.order = RankOrder(capacity)
        self.law = PowerLaw(alpha)

    @property
    def alpha(self) -> float:
        """The exponent of the power law over ranks."""
        return self.law.alpha

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.order.nbytes

    def set_alpha(self, alpha: float, slots: Ints, largest: float) -> None:
        """Change the exponent. O(1)."""
        self.law = PowerLaw(alpha)

    def set(self, slots: Ints, priorities: Floats) -> None:
        """Move or insert slots. O(B log N)."""
        self.order.set(slots, priorities)

    def tell(self, counters: Ints, entering: Floats) -> None:
        """Insert new rows, where the rows of their slots were moved out. O(rows log N)."""
        waiting = int(counters[ring.ISSUED] - counters[ring.TOLD])
        count = min(waiting, self.order.capacity)
        scratch = scratch_for(max(count, 0), 2)
        if not rank_kernels.tell_rows(*self.order.arrays, counters, entering, scratch):
            raise self.order.damage()

    def update(
        self, counters: Ints, ids: Ints, td_errors: Floats, eps: float, min_priority: float
    ) -> int:
        """Move rows. O(B log N)."""
        live: int = rank_kernels.update_rows(
            *self.order.arrays,
            counters,
            ids,
            td_errors,
            eps,
            min_priority,
            scratch_for(ids.size, 2),
        )
        if live == rank_kernels.HURT:
            raise self.order.damage()
        return live

    def draw(self, uniforms: Floats, stratified: bool, slots: Ints, probabilities: Floats) -> None:
        """Write the slots at these points of the distribution over ranks. O(B log N)."""
        self.order.draw_into(uniforms, self.law, stratified, slots, probabilities)

    def probabilities(self, slots: Ints) -> Floats:
        """Return P of live slots. O(B log N)."""
        return self.order.probabilities(slots, self.law)

    def masses(self, slots: Ints) -> Floats:
        """Return P, which is in proportion to itself. O(B log N)."""
        return self.probabilities(slots)

    def priorities(self, slots: Ints) -> Floats:
        """Return the priorities as given. O(B)."""
        return self.order.priorities(slots)

    def drawable(self) -> int:
        """Return the number of live slots: every rank has a positive probability."""
        return len(self.order)

    def least_probability(self) -> float:
        """Return that of the last rank. O(log N)."""
        return self.order.smallest_probability(self.law)

    def largest_priority(self) -> float:
        """Return the priority of rank 1. O(log N)."""
        return self.order.highest()

    def clear(self) -> None:
        """Forget all slots."""
        self.order.clear()
