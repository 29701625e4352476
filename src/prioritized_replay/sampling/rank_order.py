"""Slots in exact order of priority, and draws by rank. It knows no transitions and no ids."""

from __future__ import annotations

import numpy as np

from prioritized_replay.sampling import _power_law_kernels as power_law_kernels
from prioritized_replay.sampling import _rank_kernels as rank_kernels
from prioritized_replay.sampling._rank_kernels import (
    BLOCK,
    FRESH,
    INNER_WIDTH,
    LEAF_WIDTH,
    LEVEL,
    PARENT,
    PLACE,
    ROOT,
    ROW,
    ROWS,
    SIZE,
    WIDTH,
    Floats,
    Longs,
)
from prioritized_replay.sampling.distribution import INT64
from prioritized_replay.sampling.power_law import PowerLaw
from prioritized_replay.sampling.rank_check import check_tree


def most_nodes(capacity: int) -> int:
    """Return the largest number of nodes that an order can ever need.

    Two neighbours under one parent hold at least 61 pairs together if they are leaves, and 16
    children if they are inner nodes. So n rows have at most 2 n / 61 leaves and one more per lowest
    parent, and a level of n nodes has at most n / 8 parents and one more per node above those.
    Summed over the levels, of which there are fewer than 12, that is less than n / 22 and a few.
    """
    return 1 if capacity <= LEAF_WIDTH else capacity // 22 + 64


def scratch_for(count: int, columns: int = 0) -> Longs:
    """Return what kernels want besides for an update of B rows, with room for further columns."""
    return np.empty((6 + columns) * count + BLOCK + 1, INT64)


class RankOrder:
    """Slots 0..capacity-1 in exact order of (priority, slot), ranks and draws in O(log N).

    Rank 1 is the highest priority. Rows of equal priority form a tie group: each has the mean
    probability of the ranks that the group covers.

    A counted B+-tree of 64 entries per node, see `_rank_kernels`. Callers have validated all
    arguments: slots are int64 in range, priorities finite float64 >= 0.
    The order depends on the pairs (slot, priority) only, never on the history.

    Parameters
    ----------
    capacity
        Number of slots, below 2**31.

    Examples
    --------
    >>> order = RankOrder(4)
    >>> order.set(np.array([0, 1, 2]), np.array([0.5, 2.0, 1.0]))  # the largest of these
    2.0
    >>> order.probabilities(np.array([0, 1, 2]), PowerLaw(1.0)).round(3)  # (1/3, 1, 1/2) / H(3)
    array([0.182, 0.545, 0.273])
    """

    __slots__ = ("arrays", "capacity")

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        # Every cell but leaf_of is written before it is read: no page is touched too early.
        bytes_ = np.empty((most_nodes(capacity) + 1) * ROW * 8 + 64, np.uint8)
        bytes_ = bytes_[-bytes_.ctypes.data % 64 :][: len(bytes_) - 64]  # whole cache lines
        keys = bytes_.view(np.float64).reshape(-1, ROW)
        self.arrays = rank_kernels.Tree(keys, keys.view(np.int32), np.zeros(capacity, np.int32))
        """What kernels take as `keys`, `cells` and `leaf_of`."""
        self._start()

    def __len__(self) -> int:
        return self.arrays.cells.item(0, ROWS)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays, whether the system has given their pages memory yet or not."""
        return self.arrays.keys.nbytes + self.arrays.leaf_of.nbytes

    def clear(self) -> None:
        """Forget all rows."""
        self.arrays.leaf_of[:] = 0
        self._start()

    def _start(self) -> None:
        """Make the tree of no rows."""
        keys, cells, _ = self.arrays
        cells[0] = 0  # `may_be_small` looks at it as the parent of a root
        cells[0, [ROOT, FRESH, WIDTH]] = 1, 2, INNER_WIDTH
        cells[1, [SIZE, PARENT, PLACE, LEVEL]] = 0
        keys[1, :LEAF_WIDTH] = np.inf

    def set(self, slots: Longs, priorities: Floats) -> float:
        """Give rows these priorities, wherever they were; rows not present enter. O(B log N).

        Parameters
        ----------
        slots
            int64[B]. Of duplicates the last counts.
        priorities
            float64[B]; below 0 for a slot that is to be taken out.

        Returns
        -------
        float
            The largest of these priorities, or 0.

        Raises
        ------
        RuntimeError
            If the memory of the order was damaged.
        """
        scratch = scratch_for(slots.size)
        largest = float(rank_kernels.place_rows(*self.arrays, slots, priorities, scratch))
        if largest < 0.0:
            raise self.damage()
        return largest

    def draw_into(
        self, uniforms: Floats, law: PowerLaw, stratified: bool, slots: Longs, probabilities: Floats
    ) -> None:
        """Draw one row for each uniform number, O(B log N).

        One number decides both the rank and, linearly, the member of its tie group: members of a
        group own equal consecutive parts of the group's interval. So a stratified set of numbers
        stays stratified among ties, where a second, independent number would undo it.

        Parameters
        ----------
        uniforms
            float64[B] in [0, 1).
        law
            Power law over the ranks.
        stratified
            Whether uniform i stands for the point (i + u) / B.
        slots
            int64[B], to be written.
        probabilities
            float64[B], to be written: the chance of each row in one draw, > 0.

        Raises
        ------
        RuntimeError
            If the memory of the order was damaged.
        """
        scratch = np.empty(3 * len(uniforms), np.int32)
        damaged = rank_kernels.draw_rows(
            *self.arrays,
            uniforms,
            stratified,
            law.alpha,
            law.constant,
            law.table,
            scratch,
            slots,
            probabilities,
        )
        if damaged:
            raise self.damage()

    def probabilities(self, slots: Longs, law: PowerLaw) -> Floats:
        """Chance of each of these slots (int64[B], all present) in one draw: float64[B]."""
        starts, stops = self._ranges(slots)
        probabilities = np.empty(len(slots))
        power_law_kernels.spread(
            starts, stops, len(self), law.alpha, law.constant, law.table, probabilities
        )
        return probabilities

    def smallest_probability(self, law: PowerLaw) -> float:
        """Chance of a row of the lowest priority, which no other row falls below."""
        lowest = np.array([self._slot_at(0)])
        return float(self.probabilities(lowest, law)[0])

    def _ranges(self, slots: Longs) -> tuple[Longs, Longs]:
        starts = np.empty(len(slots), np.int64)
        stops = np.empty(len(slots), np.int64)
        if rank_kernels.row_ranges(*self.arrays, slots, starts, stops):
            raise self.damage()
        return starts, stops

    def priorities(self, slots: Longs) -> Floats:
        """Priorities of these slots (int64[B], all present): float64[B]."""
        priorities = np.empty(len(slots))
        if rank_kernels.row_priorities(*self.arrays, slots, priorities):
            raise self.damage()
        return priorities

    def highest(self) -> float:
        """Return the largest priority."""
        return float(self.priorities(np.array([self._slot_at(len(self) - 1)]))[0])

    def _slot_at(self, position: int) -> int:
        if len(self) == 0:
            raise ValueError("an empty order has no highest and no lowest priority")
        slot = int(rank_kernels.slot_at(*self.arrays, position))
        if slot < 0:
            raise self.damage()
        return slot

    def damage(self) -> RuntimeError:
        """Return the error that says what is wrong, where a kernel has found damage. O(N)."""
        found = "a kernel met a number that cannot be"
        try:
            self.check()
        except AssertionError as error:
            found = str(error)
        return RuntimeError(
            f"the memory of the rank order was overwritten ({found}): "
            "call clear, or make a new buffer and load a checkpoint"
        )

    def check(self) -> None:
        """Raise AssertionError, with the numbers, where the tree breaks one of its rules. O(N)."""
        check_tree(self.arrays, most_nodes(self.capacity))
