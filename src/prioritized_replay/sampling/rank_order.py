"""Slots in exact order of priority, and draws by rank. It knows no transitions and no ids."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from prioritized_replay.sampling import _power_law_kernels as power_law_kernels
from prioritized_replay.sampling import _rank_kernels as rank_kernels
from prioritized_replay.sampling._rank_kernels import (
    BEFORE,
    BLOCK,
    BOUND_SLOTS,
    FREE,
    FRESH,
    INNER_WIDTH,
    ITEMS,
    LEAF_WIDTH,
    LEVEL,
    MERGE_INNER,
    MERGE_LEAVES,
    PARENT,
    PLACE,
    ROOT,
    ROW,
    ROWS,
    SIZE,
    WIDTH,
    Floats,
    Ints,
    Longs,
)
from prioritized_replay.sampling.power_law import PowerLaw

Flags = npt.NDArray[np.bool_]


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
    return np.empty((6 + columns) * count + BLOCK + 1, np.int64)


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

    __slots__ = ("_tree", "capacity")

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        # Every cell but leaf_of is written before it is read: no page is touched too early.
        bytes_ = np.empty((most_nodes(capacity) + 1) * ROW * 8 + 64, np.uint8)
        bytes_ = bytes_[-bytes_.ctypes.data % 64 :][: len(bytes_) - 64]  # whole cache lines
        keys = bytes_.view(np.float64).reshape(-1, ROW)
        self._tree = rank_kernels.Tree(keys, keys.view(np.int32), np.zeros(capacity, np.int32))
        self._start()

    def __len__(self) -> int:
        return int(self._tree.cells[0, ROWS])

    @property
    def arrays(self) -> rank_kernels.Tree:
        """What kernels take as `keys`, `cells` and `leaf_of`."""
        return self._tree

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays, whether the system has given their pages memory yet or not."""
        return self._tree.keys.nbytes + self._tree.leaf_of.nbytes

    def clear(self) -> None:
        """Forget all rows."""
        self._tree.leaf_of[:] = 0
        self._start()

    def _start(self) -> None:
        """Make the tree of no rows."""
        keys, cells, _ = self._tree
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
            float64[B].

        Returns
        -------
        float
            The largest of these priorities.

        Raises
        ------
        RuntimeError
            If the memory of the order was damaged.
        """
        scratch = scratch_for(slots.size)
        largest = float(rank_kernels.place_rows(*self._tree, slots, priorities, scratch))
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
            *self._tree,
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
        if rank_kernels.row_ranges(*self._tree, slots, starts, stops):
            raise self.damage()
        return starts, stops

    def priorities(self, slots: Longs) -> Floats:
        """Priorities of these slots (int64[B], all present): float64[B]."""
        priorities = np.empty(len(slots))
        if rank_kernels.row_priorities(*self._tree, slots, priorities):
            raise self.damage()
        return priorities

    def highest(self) -> float:
        """Return the largest priority."""
        return float(self.priorities(np.array([self._slot_at(len(self) - 1)]))[0])

    def _slot_at(self, position: int) -> int:
        if len(self) == 0:
            raise ValueError("an empty order has no highest and no lowest priority")
        slot = int(rank_kernels.slot_at(*self._tree, position))
        if slot < 0:
            raise self.damage()
        return slot

    def damage(self) -> RuntimeError:
        """Return the error that says what is wrong, for a caller whose kernel found damage. O(N)."""
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
        """Raise AssertionError, with the numbers, where the tree breaks one of its rules."""
        tree = self._tree
        level = _Level(tree, tree.cells[0, ROOT : ROOT + 1])
        live = 1
        while level.number > 0:
            children = _Level(
                tree, tree.cells[level.nodes, ITEMS : ITEMS + level.width][level.used]
            )
            level.check_children(tree, children)
            level = children
            live += len(level.nodes)
        level.check_rows(tree)
        freed = 0
        node = int(tree.cells[0, FREE])
        while node != 0:
            freed += 1
            node = int(tree.cells[node, PARENT])
        taken = int(tree.cells[0, FRESH]) - 1
        assert live + freed == taken, f"{taken} nodes taken, {live} live and {freed} free"
        assert taken <= most_nodes(self.capacity), f"{taken} nodes in {self.capacity} slots"


class _Level:
    """All nodes of one level from left to right, with what `RankOrder.check` compares."""

    def __init__(self, tree: rank_kernels.Tree, nodes: Ints) -> None:
        self.nodes = nodes
        self.number = int(tree.cells[nodes[0], LEVEL])
        self.width = INNER_WIDTH if self.number else LEAF_WIDTH
        self.slots_column = BOUND_SLOTS if self.number else ITEMS
        self.sizes = tree.cells[nodes, SIZE]
        self.used = np.arange(self.width) < self.sizes[:, None]
        keys = tree.keys[nodes, : self.width]
        self.keys = keys[self.used]
        self.slots = self.column(tree, self.slots_column)
        self.require(tree.cells[nodes, LEVEL] == self.number, "a wrong level")
        self.require(self.sizes <= self.width, "more entries than it is wide")
        self.require((np.isposinf(keys) | self.used).all(axis=1), "an unused key that is not +inf")
        order = np.ones(len(self.keys), bool)
        order[1:] = above(self.keys[1:], self.slots[1:], self.keys[:-1], self.slots[:-1])
        self.require_entries(order, "entries out of order")

    def column(self, tree: rank_kernels.Tree, start: int) -> Ints:
        """Return the used cells of all nodes from column `start` on."""
        cells: Ints = tree.cells[self.nodes, start : start + self.width][self.used]
        return cells

    def require(self, fine: Flags, broken: str) -> None:
        """Name the first node that is not fine."""
        bad = np.flatnonzero(~fine)
        if bad.size:
            node, size = self.nodes[bad[0]], self.sizes[bad[0]]
            raise AssertionError(f"node {node} (level {self.number}, size {size}) has {broken}")

    def require_entries(self, fine: Flags, broken: str) -> None:
        """Name the first node of which some used entry is not fine."""
        table = np.ones_like(self.used)
        table[self.used] = fine
        self.require(table.all(axis=1), broken)

    def check_children(self, tree: rank_kernels.Tree, children: _Level) -> None:
        """Compare an inner level with the level below it."""
        self.require(self.sizes >= 1, "no child")
        parents = np.repeat(self.nodes, self.sizes)
        places = np.broadcast_to(np.arange(self.width), self.used.shape)[self.used]
        links = tree.cells[children.nodes]
        same = (links[:, PARENT] == parents) & (links[:, PLACE] == places)
        self.require_entries(same, "a child that denies it")
        rows = np.zeros(self.used.shape, np.int64)
        rows[self.used] = [rank_kernels.rows_under(tree, node) for node in children.nodes]
        counts = np.where(self.used, rows.cumsum(axis=1) - rows, rank_kernels.MOST)
        stored = tree.cells[self.nodes, BEFORE : BEFORE + self.width]
        self.require((stored == counts).all(axis=1), "a wrong count")
        least = 1 + (MERGE_INNER if children.number else MERGE_LEAVES)
        alone = parents[1:] != parents[:-1]
        enough = children.sizes[1:] + children.sizes[:-1] >= least
        children.require(np.append(True, alone | enough), "too little, with its left neighbour")
        # Every entry of a child lies between the child's own bound and the next one.
        keys = tree.keys[children.nodes]
        first = links[:, children.slots_column]
        top = np.arange(len(links)), np.maximum(children.sizes - 1, 0)
        last = links[:, children.slots_column :][top]
        empty = children.sizes == 0
        low = above(self.keys, self.slots, keys[:, 0], first)
        children.require(empty | ~low, "an entry below its bound")
        high = above(self.keys[1:], self.slots[1:], keys[top][:-1], last[:-1])
        children.require(empty | np.append(high, True), "an entry above the next bound")
        if children.number:
            equal = (keys[:, 0] == self.keys) & (first == self.slots)
            children.require(equal, "a first bound that is not its own")

    def check_rows(self, tree: rank_kernels.Tree) -> None:
        """Compare the leaves with the rows."""
        owners = np.repeat(self.nodes, self.sizes)
        self.require_entries(tree.leaf_of[self.slots] == owners, "a slot said to be elsewhere")
        rows, found = tree.cells[0, ROWS], len(self.slots)
        known = np.count_nonzero(tree.leaf_of)
        assert rows == found == known, f"{rows} rows, {found} in leaves, {known} known"


def above(keys: Floats, slots: Ints, other_keys: Floats, other_slots: Ints) -> Flags:
    """Whether pairs are above others."""
    higher: Flags = keys > other_keys
    higher |= (keys == other_keys) & (slots > other_slots)
    return higher
