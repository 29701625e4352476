"""Slots in exact order of priority, and draws by rank. It knows no transitions and no ids."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from prioritized_replay import _rank_kernels as kernels
from prioritized_replay._rank_kernels import (
    FREE,
    FRESH,
    HEIGHT,
    MERGE_INNER,
    MERGE_LEAVES,
    PARENT,
    PLACE,
    ROOT,
    ROWS,
    SIZE,
    WIDTH,
    Floats,
    Ints,
    Longs,
)
from prioritized_replay.rank_law import RankLaw

FILL = 48  # entries per node after a rebuild: room to grow, and no node that must be merged


def node_limits(capacity: int) -> tuple[int, int]:
    """Return the largest numbers of inner nodes and of leaves that an order can ever need.

    Two neighbours under one parent hold at least 57 entries together if they are leaves, 32 if they
    are inner nodes. So n rows have at most 2 n / 57 leaves and one more per lowest parent, and a
    level of n nodes at most n / 16 parents and one more per node above those. Summed over the
    levels, of which there are fewer than 10, that is less than 1/26 leaf per slot and 1/13 inner
    node per leaf, and a few.
    """
    if capacity <= WIDTH:
        return 0, 1  # one leaf takes them all
    leaves = capacity // 26 + 40
    return leaves // 13 + 40, leaves


class RankOrder:
    """Slots 0..capacity-1 in exact order of (priority, slot), ranks and draws in O(log N).

    Rank 1 is the highest priority. Rows of equal priority form a tie group: each has the mean
    probability of the ranks that the group covers.

    A counted B+-tree of 64 entries per node, see `_rank_kernels`. Callers have validated all
    arguments: slots are int64 in range and distinct within a call, priorities finite float64 >= 0.
    The order depends on the pairs (slot, priority) only, never on the history.

    Parameters
    ----------
    capacity
        Number of slots, below 2**31.

    Examples
    --------
    >>> order = RankOrder(4)
    >>> order.set(np.array([0, 1, 2]), np.array([0.5, 2.0, 1.0]))
    >>> order.slots_in_order()
    array([1, 2, 0])
    >>> slots, probabilities = order.draw(np.array([0.0, 0.99]), RankLaw(1.0))
    >>> slots, probabilities.round(3)  # (1, 1/2, 1/3) / H(3)
    (array([1, 0]), array([0.545, 0.182]))
    """

    __slots__ = ("_tree", "capacity")

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        inner, leaves = node_limits(capacity)
        inner += 1  # number 0 is nobody
        self._tree = kernels.Tree(
            # All but leaf_of is written before it is read, so no page is touched too early.
            keys=np.empty((inner + leaves, WIDTH)),
            items=np.empty((inner + leaves, WIDTH), np.int32),
            sep_slots=np.empty((inner, WIDTH), np.int32),
            before=np.empty((inner, WIDTH), np.int32),
            links=np.empty((inner + leaves, 3), np.int32),
            leaf_of=np.zeros(capacity, np.int32),
            state=np.zeros(7, np.int32),
        )
        self.clear()

    def __len__(self) -> int:
        return int(self._tree.state[ROWS])

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays, whether the system has given their pages memory yet or not."""
        return sum(array.nbytes for array in self._tree)

    def clear(self) -> None:
        """Forget all rows."""
        if len(self):
            self._tree.leaf_of[:] = 0
        self._load(np.empty(0, np.int64), np.empty(0))

    def rebuild(self, slots: Longs, priorities: Floats) -> None:
        """Forget all rows and load these, O(N log N).

        Parameters
        ----------
        slots
            int64[B], distinct.
        priorities
            float64[B].
        """
        ascending = np.lexsort((slots, priorities))
        self._tree.leaf_of[:] = 0
        self._load(slots[ascending], priorities[ascending])

    def _load(self, slots: Longs, priorities: Floats) -> None:
        state = self._tree.state
        state[:] = 0
        state[FRESH] = 1
        state[FRESH + 1] = len(self._tree.before)
        kernels.load_rows(*self._tree, slots, priorities, FILL)

    def set(self, slots: Longs, priorities: Floats) -> None:
        """Give rows these priorities, wherever they were; rows not present enter. O(B log N).

        Parameters
        ----------
        slots
            int64[B], distinct.
        priorities
            float64[B].
        """
        nodes = np.empty(len(slots), np.int32)
        kernels.place_rows(*self._tree, slots, priorities, nodes)

    def insert_run(self, first_slot: int, count: int, priority: float) -> None:
        """Enter `count` slots from `first_slot` on, around the ring, all at one priority."""
        slots = np.arange(first_slot, first_slot + count) % self.capacity
        self.set(slots, np.full(count, priority))

    def draw(self, uniforms: Floats, law: RankLaw) -> tuple[Longs, Floats]:
        """Draw one row for each uniform number, O(B log N).

        One number decides both the rank and, linearly, the member of its tie group: members of a
        group own equal consecutive parts of the group's interval. So a stratified set of numbers
        stays stratified among ties, where a second, independent number would undo it.

        Parameters
        ----------
        uniforms
            float64[B] in [0, 1); ascending where the draw is stratified.
        law
            Power law over the ranks.

        Returns
        -------
        slots : int64[B]
        probabilities : float64[B]
            Chance of each row in one draw, > 0.
        """
        size = len(uniforms)
        nodes = np.empty(size, np.int32)
        offsets = np.empty(size, np.int32)
        slots = np.empty(size, np.int64)
        probabilities = np.empty(size)
        kernels.draw_rows(
            *self._tree,
            uniforms,
            law.alpha,
            law.constant,
            law.table,
            nodes,
            offsets,
            slots,
            probabilities,
        )
        return slots, probabilities

    def probabilities(self, slots: Longs, law: RankLaw) -> Floats:
        """Chance of each of these slots (int64[B], all present) in one draw: float64[B]."""
        probabilities = np.empty(len(slots))
        kernels.row_probabilities(
            *self._tree, slots, law.alpha, law.constant, law.table, probabilities
        )
        return probabilities

    def smallest_probability(self, law: RankLaw) -> float:
        """Chance of a row of the lowest priority, which no other row falls below."""
        found = kernels.last_probability(*self._tree, law.alpha, law.constant, law.table)
        return float(found)

    def ranges(self, slots: Longs) -> tuple[Longs, Longs]:
        """Tie groups of these slots (int64[B], all present).

        Returns
        -------
        first_rank : int64[B]
            The best rank in the group, from 1.
        count : int64[B]
            How many rows share the priority.
        """
        first_rank = np.empty(len(slots), np.int64)
        count = np.empty(len(slots), np.int64)
        kernels.row_ranges(*self._tree, slots, first_rank, count)
        return first_rank, count

    def priorities(self, slots: Longs) -> Floats:
        """Priorities of these slots (int64[B], all present): float64[B]."""
        priorities = np.empty(len(slots))
        kernels.row_priorities(
            self._tree.keys, self._tree.items, self._tree.leaf_of, slots, priorities
        )
        return priorities

    def slots_in_order(self) -> Longs:
        """All slots from rank 1 on, int64[len(self)]."""
        slots = np.empty(len(self), np.int64)
        kernels.list_rows(*self._tree, slots)
        return slots

    def highest(self) -> float:
        """Return the largest priority."""
        return self._priority_at(len(self) - 1)

    def lowest(self) -> float:
        """Return the smallest priority."""
        return self._priority_at(0)

    def _priority_at(self, position: int) -> float:
        if len(self) == 0:
            raise ValueError("an empty order has no highest and no lowest priority")
        return float(kernels.priority_at(*self._tree, position))

    def check(self) -> None:
        """Raise AssertionError, with the numbers, where the tree breaks one of its rules."""
        tree = self._tree
        leaves = _Level(tree, np.array([tree.state[ROOT]]))
        inner = 0
        for _ in range(tree.state[HEIGHT]):
            level = leaves
            inner += len(level.nodes)
            leaves = _Level(tree, tree.items[level.nodes][level.used])
            level.check_children(tree, leaves)
        leaves.check_rows(tree)
        for kind, first, live in ((0, 1, inner), (1, len(tree.before), len(leaves.nodes))):
            freed = 0
            node = int(tree.state[FREE + kind])
            while node != 0:
                freed += 1
                node = int(tree.links[node, PARENT])
            taken = int(tree.state[FRESH + kind]) - first
            assert live + freed == taken, f"{taken} nodes taken, {live} live and {freed} free"


class _Level:
    """All nodes of one level from left to right, with what `RankOrder.check` compares."""

    def __init__(self, tree: kernels.Tree, nodes: Ints) -> None:
        self.nodes = nodes
        self.sizes = tree.links[nodes, SIZE]
        self.used = np.arange(WIDTH) < self.sizes[:, None]
        keys = tree.keys[nodes]
        self.keys = keys[self.used]
        unused = np.isposinf(keys) | self.used
        self._require(unused.all(axis=1), "an unused key that is not +inf")
        self._require(self.sizes <= WIDTH, "more entries than it is wide")

    def _require(self, fine: npt.NDArray[np.bool_], broken: str) -> None:
        bad = np.flatnonzero(~fine)
        if bad.size:
            raise AssertionError(f"node {self.nodes[bad[0]]} of {len(self.nodes)} has {broken}")

    def _require_entries(self, fine: npt.NDArray[np.bool_], broken: str) -> None:
        table = np.ones_like(self.used)
        table[self.used] = fine
        self._require(table.all(axis=1), broken)

    def _ascending(self, slots: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
        """Whether each entry is above the one before it, across all nodes."""
        above = self.keys[1:] > self.keys[:-1]
        above |= (self.keys[1:] == self.keys[:-1]) & (slots[1:] > slots[:-1])
        return np.concatenate((np.ones(min(len(self.keys), 1), bool), above))

    def check_children(self, tree: kernels.Tree, children: _Level) -> None:
        """Compare an inner level with the level below it."""
        slots = tree.sep_slots[self.nodes][self.used]
        self._require(self.sizes >= 1, "no child")
        self._require_entries(self._ascending(slots), "bounds out of order")
        parents = np.repeat(self.nodes, self.sizes)
        places = np.broadcast_to(np.arange(WIDTH), self.used.shape)[self.used]
        links = tree.links[children.nodes]
        self._require_entries(
            (links[:, PARENT] == parents) & (links[:, PLACE] == places), "a child that denies it"
        )
        rows = np.array([kernels.rows_under(tree, node) for node in children.nodes])
        table = np.zeros(self.used.shape, np.int64)
        table[self.used] = rows
        before = table.cumsum(axis=1) - table
        wrong = (before == tree.before[self.nodes]) | ~self.used
        self._require(wrong.all(axis=1), "a wrong count")
        is_leaf = children.nodes[0] >= len(tree.before)
        least = 1 + (MERGE_LEAVES if is_leaf else MERGE_INNER)
        together = children.sizes[1:] + children.sizes[:-1]
        pairs = (parents[1:] != parents[:-1]) | (together >= least)
        children._require(np.concatenate(([True], pairs)), "too little, with its left neighbour")
        # Bounds: not above any entry of the child, above every entry of the child before.
        child_slots = (tree.items if is_leaf else tree.sep_slots)[children.nodes]
        child_keys = tree.keys[children.nodes]
        full = children.sizes > 0
        last = np.arange(len(full)), np.maximum(children.sizes - 1, 0)
        low = (child_keys[:, 0] > self.keys) | (
            (child_keys[:, 0] == self.keys) & (child_slots[:, 0] >= slots)
        )
        children._require(low | ~full, "an entry below its bound")
        high = (child_keys[last][:-1] < self.keys[1:]) | (
            (child_keys[last][:-1] == self.keys[1:]) & (child_slots[last][:-1] < slots[1:])
        )
        children._require(np.append(high, True) | ~full, "an entry above the next bound")
        if not is_leaf:
            same = (child_keys[:, 0] == self.keys) & (child_slots[:, 0] == slots)
            children._require(same, "a bound that is not its parent's")

    def check_rows(self, tree: kernels.Tree) -> None:
        """Compare the leaves with the rows."""
        slots = tree.items[self.nodes][self.used]
        self._require_entries(self._ascending(slots), "pairs out of order")
        owners = np.repeat(self.nodes, self.sizes)
        self._require_entries(tree.leaf_of[slots] == owners, "a slot that is said to be elsewhere")
        rows = tree.state[ROWS]
        present = np.count_nonzero(tree.leaf_of)
        assert len(slots) == rows == present, (
            f"{rows} rows, {len(slots)} in leaves, {present} known"
        )
