"""Whether the tree of a rank order keeps its rules, whatever its memory holds."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from prioritized_replay.sampling import _rank_kernels as rank_kernels
from prioritized_replay.sampling._rank_kernels import (
    BEFORE,
    BOUND_SLOTS,
    DAMAGED,
    DEEPEST,
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
    ROWS,
    SIZE,
    WIDTH,
    Floats,
    Ints,
    Tree,
)

Flags = npt.NDArray[np.bool_]


def check_tree(tree: Tree, most: int) -> None:
    """Look at every node of a tree, see `_rank_kernels`. O(N).

    Parameters
    ----------
    tree
        Its cells may hold anything: no number is used before it was looked at.
    most
        How many nodes there may be.

    Raises
    ------
    AssertionError
        At the first broken rule. It names the node, and says what is wrong with it.
    """
    state = tree.cells[0]
    root = int(state[ROOT])
    assert 0 < root < len(tree.keys), f"the root is said to be node {root} of {len(tree.keys) - 1}"
    depth = int(tree.cells[root, LEVEL])
    assert 0 <= depth <= DEEPEST, f"node {root} (the root) has {depth} levels below it"
    level = _Level(tree, state[ROOT : ROOT + 1], depth)
    used = np.zeros(len(tree.keys), bool)
    used[root] = True
    while level.number > 0:
        children = level.children(tree)
        level.check_children(tree, children)
        level = children
        used[level.nodes] = True
    level.check_rows(tree)
    links = tree.cells[root, [PARENT, PLACE]].tolist()
    assert links == [0, 0], f"node {root} (the root) is said to be below another, at {links}"
    taken = int(state[FRESH]) - 1
    assert 0 < taken <= most, f"{taken} nodes taken of {most}"
    freed = 0
    node = int(state[FREE])
    while node != 0:
        assert 0 < node <= taken, f"node {node} of {taken} said to be free"
        assert not used[node], f"node {node} said to be free, but in use, or free already"
        used[node] = True
        freed += 1
        node = int(tree.cells[node, PARENT])
    found = np.count_nonzero(used)
    assert found == taken, f"{taken} nodes taken, {found - freed} live and {freed} free"
    assert state[WIDTH] == INNER_WIDTH, f"inner nodes said to be {state[WIDTH]} wide"
    assert state[DAMAGED] == 0, "damage that a kernel has met, and nothing else"


class _Level:
    """All nodes of one level from left to right, with what :func:`check_tree` compares."""

    def __init__(self, tree: Tree, nodes: Ints, number: int) -> None:
        self.nodes = nodes
        self.number = number
        self.width = INNER_WIDTH if self.number else LEAF_WIDTH
        self.slots_column = BOUND_SLOTS if self.number else ITEMS
        self.sizes = tree.cells[nodes, SIZE]
        self.used = np.arange(self.width) < self.sizes[:, None]
        keys = tree.keys[nodes, : self.width]
        self.keys = keys[self.used]
        self.slots = self.column(tree, self.slots_column)
        self.require(tree.cells[nodes, LEVEL] == self.number, "a wrong level")
        self.require(self.sizes >= (1 if number else 0), "too few entries")
        self.require(self.sizes <= self.width, "more entries than it is wide")
        self.require((np.isposinf(keys) | self.used).all(axis=1), "an unused key that is not +inf")
        order = np.ones(len(self.keys), bool)
        order[1:] = above(self.keys[1:], self.slots[1:], self.keys[:-1], self.slots[:-1])
        self.require_entries(order, "entries out of order")

    def children(self, tree: Tree) -> _Level:
        """Return the level below, of which each node is one."""
        numbers = self.column(tree, ITEMS)
        self.require_entries((numbers > 0) & (numbers < len(tree.keys)), "a child that is no node")
        return _Level(tree, numbers, self.number - 1)

    def column(self, tree: Tree, start: int) -> Ints:
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

    def check_children(self, tree: Tree, children: _Level) -> None:
        """Compare an inner level with the level below it."""
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

    def check_rows(self, tree: Tree) -> None:
        """Compare the leaves with the rows."""
        exists = (self.slots >= 0) & (self.slots < len(tree.leaf_of))
        self.require_entries(exists, "a slot that does not exist")
        owners = np.repeat(self.nodes, self.sizes)
        self.require_entries(tree.leaf_of[self.slots] == owners, "a slot said to be elsewhere")
        times = np.bincount(self.slots, minlength=1)
        self.require_entries(times[self.slots] == 1, "a slot that occurs more than once")
        rows, found = tree.cells[0, ROWS], len(self.slots)
        known = np.count_nonzero(tree.leaf_of)
        assert rows == found == known, f"{rows} rows, {found} in leaves, {known} known"


def above(keys: Floats, slots: Ints, other_keys: Floats, other_slots: Ints) -> Flags:
    """Whether pairs are above others."""
    higher: Flags = keys > other_keys
    higher |= (keys == other_keys) & (slots > other_slots)
    return higher
