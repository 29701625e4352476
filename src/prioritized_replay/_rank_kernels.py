# mypy: disallow-untyped-decorators=False
r"""Compiled loops of the exact rank order and of the power law over its ranks.

They know flat arrays only: no validation, no allocation, no randomness, no recursion. They live in
one file because numba notices a changed source file by file, so a caller elsewhere would go on
using a stale copy.

The order is a counted B+-tree of (priority, slot) pairs, ascending. Position 0 is the lowest
priority and rank 1 is position n - 1. Every node is one row of the arrays in `Tree`, up to WIDTH
entries wide. Here it is drawn with WIDTH = 4 and nine rows, slot:priority ::

                      keys      -inf     0.5      0.9      +inf     (+inf: not used)
    inner node 1      sep_slots  0        7        3
    (the root)        items     10       12       11                (numbers of its children)
                      before     0        4        6                (rows left of each child)
                        ________/         |         \\_________
             leaf 10              leaf 12              leaf 11
    keys   0.0 0.1 0.1 0.4      0.5 0.8 +inf +inf      0.9 1.0 1.0 +inf
    items   8   0   2   5        7   1                  3   4   6

- Entry j of an inner node says: every pair in child j is >= (keys[j], sep_slots[j]) and below the
  next such bound. The bound of entry 0 is the bound of the node itself in its parent; -inf at the
  left edge. A bound need not be a live pair.
- Unused keys are +inf, so that a search compares all WIDTH entries in one loop of constant length,
  which vectorises, and needs no size.
- `leaf_of[slot]` is the leaf that holds a slot, and `links` names parent and place of every node,
  so a removal and the rank of a given slot need no search.
- Neighbours under one parent that hold MERGE_LEAVES (or MERGE_INNER) entries or fewer together are
  merged. That bounds the number of nodes for ever, see `node_limits`: no kernel needs to check it.
- Node numbers: 0 is nobody, then the inner nodes, then the leaves.
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

Ints = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

WIDTH = 64  # entries per node
HALF = WIDTH // 2
MERGE_LEAVES = 56  # two neighbouring leaves with so few entries together become one
MERGE_INNER = 31  # likewise inner nodes; less than half a node, so that a split leaves no such pair
SIZE, PARENT, PLACE = (
    0,
    1,
    2,
)  # columns of Tree.links: entries used, parent node, entry in the parent
ROOT, HEIGHT, ROWS = 0, 1, 2  # entries of Tree.state: root node, inner levels, rows held
FREE, FRESH = (
    3,
    5,
)  # and, for inner nodes and then for leaves: first freed node, first untouched one
TABLE = 1024  # ranks whose sums of the power law are tabulated
SMALLEST = 2.2250738585072014e-308  # no probability is below the smallest normal float64


class Tree(NamedTuple):
    """The arrays of one rank order; M nodes of which the first I are inner nodes, N slots."""

    keys: Floats  # float64[M, WIDTH]: priorities in a leaf, lower bounds of the children elsewhere
    items: Ints  # int32[M, WIDTH]: slots in a leaf, children elsewhere
    sep_slots: Ints  # int32[I, WIDTH]: the slot that belongs to each bound
    before: Ints  # int32[I, WIDTH]: rows under the children to the left
    links: Ints  # int32[M, 3]: SIZE, PARENT, PLACE
    leaf_of: Ints  # int32[N]: the leaf that holds a slot, or 0
    state: Ints  # int32[7]: ROOT, HEIGHT, ROWS, FREE (2), FRESH (2)


# --- looking ---------------------------------------------------------------------------------


@njit(cache=True)
def child_for(tree, node, priority, slot):  # type: ignore[no-untyped-def]
    """Entry of an inner node under which the pair belongs: the last bound <= the pair."""
    count = 0
    for j in range(WIDTH):
        key = tree.keys[node, j]
        count += (key < priority) | ((key == priority) & (tree.sep_slots[node, j] <= slot))
    return count - 1


@njit(cache=True)
def pairs_below(tree, leaf, priority, slot):  # type: ignore[no-untyped-def]
    """How many pairs of a leaf are below the given one: where it is, or would be inserted."""
    count = 0
    for j in range(WIDTH):
        key = tree.keys[leaf, j]
        count += (key < priority) | ((key == priority) & (tree.items[leaf, j] < slot))
    return count


@njit(cache=True)
def entry_of(tree, leaf, slot):  # type: ignore[no-untyped-def]
    """Entry of a leaf that holds the slot (the first match: entries beyond SIZE are stale)."""
    found = WIDTH
    for j in range(WIDTH):
        found = min(found, j if tree.items[leaf, j] == slot else WIDTH)
    return found


@njit(cache=True)
def leaf_for(tree, priority, slot):  # type: ignore[no-untyped-def]
    """Leaf to which the pair belongs."""
    node = tree.state[ROOT]
    for _ in range(tree.state[HEIGHT]):
        node = tree.items[node, child_for(tree, node, priority, slot)]
    return node


@njit(cache=True)
def rows_below(tree, priority, slot):  # type: ignore[no-untyped-def]
    """How many rows of the whole order are below the pair."""
    node = tree.state[ROOT]
    count = 0
    for _ in range(tree.state[HEIGHT]):
        j = child_for(tree, node, priority, slot)
        count += tree.before[node, j]
        node = tree.items[node, j]
    return count + pairs_below(tree, node, priority, slot)


@njit(cache=True)
def position_of(tree, leaf, entry):  # type: ignore[no-untyped-def]
    """Position in the whole order of one entry of a leaf: counts summed on the way up."""
    position = np.int64(entry)
    node = leaf
    for _ in range(tree.state[HEIGHT]):
        parent = tree.links[node, PARENT]
        position += tree.before[parent, tree.links[node, PLACE]]
        node = parent
    return position


@njit(cache=True)
def seek(tree, nodes, offsets):  # type: ignore[no-untyped-def]
    """Turn positions (in `offsets`) into leaves (in `nodes`) and entries (in `offsets`).

    Level by level for the whole batch, so that the cache misses of different rows overlap.
    """
    nodes[:] = tree.state[ROOT]
    for _ in range(tree.state[HEIGHT]):
        for b in range(len(nodes)):
            node = nodes[b]
            offset = offsets[b]
            size = tree.links[node, SIZE]
            j = -1
            for k in range(WIDTH):
                j += (k < size) & (tree.before[node, k] <= offset)
            offsets[b] = offset - tree.before[node, j]
            nodes[b] = tree.items[node, j]


@njit(cache=True)
def equals(tree, leaf, entry):  # type: ignore[no-untyped-def]
    """Positions start..stop - 1 of the rows whose priority equals that of one entry."""
    priority = tree.keys[leaf, entry]
    first = 0
    last = 0
    for j in range(WIDTH):
        first += tree.keys[leaf, j] < priority
        last += tree.keys[leaf, j] <= priority
    if first > 0 and last < tree.links[leaf, SIZE]:  # the group begins and ends in this leaf
        start = position_of(tree, leaf, first)
        return start, start + last - first
    return rows_below(tree, priority, -1), rows_below(tree, priority, len(tree.leaf_of))


# --- nodes and their entries -----------------------------------------------------------------


@njit(cache=True)
def take_node(tree, leaf):  # type: ignore[no-untyped-def]
    """Return an empty node: a freed one, else the next untouched one. `leaf` is 0 or 1."""
    node = tree.state[FREE + leaf]
    if node != 0:
        tree.state[FREE + leaf] = tree.links[node, PARENT]
    else:
        node = tree.state[FRESH + leaf]
        tree.state[FRESH + leaf] = node + 1
    tree.keys[node] = np.inf
    tree.links[node] = 0
    return node


@njit(cache=True)
def free_node(tree, node, heir):  # type: ignore[no-untyped-def]
    """Put a node on the free list; PLACE remembers, below zero, which node took its entries."""
    leaf = 1 if node >= len(tree.before) else 0
    tree.links[node, SIZE] = 0
    tree.links[node, PARENT] = tree.state[FREE + leaf]
    tree.links[node, PLACE] = -heir
    tree.state[FREE + leaf] = node


@njit(cache=True)
def adopt(tree, node, start):  # type: ignore[no-untyped-def]
    """Tell the entries from `start` on where they are now."""
    if node >= len(tree.before):
        for j in range(start, tree.links[node, SIZE]):
            tree.leaf_of[tree.items[node, j]] = node
    else:
        for j in range(start, tree.links[node, SIZE]):
            child = tree.items[node, j]
            tree.links[child, PARENT] = node
            tree.links[child, PLACE] = j


@njit(cache=True)
def open_gap(tree, node, at):  # type: ignore[no-untyped-def]
    """Move the entries from `at` on one to the right."""
    size = tree.links[node, SIZE]
    for j in range(size, at, -1):
        tree.keys[node, j] = tree.keys[node, j - 1]
        tree.items[node, j] = tree.items[node, j - 1]
    if node < len(tree.before):
        for j in range(size, at, -1):
            tree.sep_slots[node, j] = tree.sep_slots[node, j - 1]
            tree.before[node, j] = tree.before[node, j - 1]
    tree.links[node, SIZE] = size + 1


@njit(cache=True)
def close_gap(tree, node, at):  # type: ignore[no-untyped-def]
    """Drop the entry `at`: move those behind it one to the left."""
    size = tree.links[node, SIZE] - 1
    for j in range(at, size):
        tree.keys[node, j] = tree.keys[node, j + 1]
        tree.items[node, j] = tree.items[node, j + 1]
    if node < len(tree.before):
        for j in range(at, size):
            tree.sep_slots[node, j] = tree.sep_slots[node, j + 1]
            tree.before[node, j] = tree.before[node, j + 1]
    tree.keys[node, size] = np.inf
    tree.links[node, SIZE] = size


@njit(cache=True)
def move_entries(tree, source, start, target, shift):  # type: ignore[no-untyped-def]
    """Append the entries of `source` from `start` on to `target`; `shift` is added to `before`."""
    size = tree.links[source, SIZE]
    filled = tree.links[target, SIZE]
    for j in range(start, size):
        k = filled + j - start
        tree.keys[target, k] = tree.keys[source, j]
        tree.items[target, k] = tree.items[source, j]
        tree.keys[source, j] = np.inf
        if source < len(tree.before):
            tree.sep_slots[target, k] = tree.sep_slots[source, j]
            tree.before[target, k] = tree.before[source, j] + shift
    tree.links[source, SIZE] = start
    tree.links[target, SIZE] = filled + size - start
    adopt(tree, target, filled)


@njit(cache=True)
def count_up(tree, leaf, change):  # type: ignore[no-untyped-def]
    """Add `change` to every count to the right of a leaf, from its parent up to the root."""
    node = leaf
    for _ in range(tree.state[HEIGHT]):
        parent = tree.links[node, PARENT]
        for j in range(tree.links[node, PLACE] + 1, tree.links[parent, SIZE]):
            tree.before[parent, j] += change
        node = parent


# --- inserting -------------------------------------------------------------------------------


@njit(cache=True)
def grow_root(tree):  # type: ignore[no-untyped-def]
    """Put a new root above the old one, which becomes its only child."""
    child = tree.state[ROOT]
    root = take_node(tree, 0)
    tree.keys[root, 0] = -np.inf
    tree.items[root, 0] = child
    tree.sep_slots[root, 0] = 0
    tree.before[root, 0] = 0
    tree.links[root, SIZE] = 1
    adopt(tree, root, 0)
    tree.state[ROOT] = root
    tree.state[HEIGHT] += 1


@njit(cache=True)
def attach(tree, node, right, rows):  # type: ignore[no-untyped-def]
    """Enter `right`, split off `node` which kept so many `rows`, in the parent beside it.

    A full parent is split first, and its own right half then has to be entered one level up.
    """
    while True:
        if node == tree.state[ROOT]:
            grow_root(tree)
        parent = tree.links[node, PARENT]
        parent_right = 0
        parent_rows = 0
        if tree.links[parent, SIZE] == WIDTH:
            parent_rows = tree.before[parent, HALF]
            parent_right = take_node(tree, 0)
            move_entries(tree, parent, HALF, parent_right, -parent_rows)
        owner = tree.links[node, PARENT]  # the parent, or its right half
        at = tree.links[node, PLACE] + 1
        open_gap(tree, owner, at)
        tree.keys[owner, at] = tree.keys[right, 0]
        leaf = right >= len(tree.before)
        tree.sep_slots[owner, at] = tree.items[right, 0] if leaf else tree.sep_slots[right, 0]
        tree.items[owner, at] = right
        tree.before[owner, at] = tree.before[owner, at - 1] + rows
        adopt(tree, owner, at)
        if parent_right == 0:
            return
        node = parent
        right = parent_right
        rows = parent_rows


@njit(cache=True)
def put(tree, leaf, at, priority, slot):  # type: ignore[no-untyped-def]
    """Write a pair into a leaf that has room."""
    open_gap(tree, leaf, at)
    tree.keys[leaf, at] = priority
    tree.items[leaf, at] = slot
    tree.leaf_of[slot] = leaf


@njit(cache=True)
def insert(tree, leaf, priority, slot):  # type: ignore[no-untyped-def]
    """Insert a pair whose leaf was found earlier in the same batch."""
    at = pairs_below(tree, leaf, priority, slot)
    if at == 0 or at == tree.links[leaf, SIZE]:
        # Between two entries of a leaf a pair is right whatever became of the leaf since. At an
        # end it may belong to a leaf split off or merged meanwhile: look again.
        leaf = leaf_for(tree, priority, slot)
        at = pairs_below(tree, leaf, priority, slot)
    if tree.links[leaf, SIZE] < WIDTH:
        put(tree, leaf, at, priority, slot)
        count_up(tree, leaf, 1)
    else:
        split_and_put(tree, leaf, at, priority, slot)
    tree.state[ROWS] += 1


@njit(cache=True)
def split_and_put(tree, leaf, at, priority, slot):  # type: ignore[no-untyped-def]
    """Split a full leaf, and write a pair into one of the two.

    Half of the entries move to the new leaf. But where the pair goes last under its parent, the old
    leaf stays full: rows that enter in order, as new rows do at the maximum, then fill every leaf.
    """
    parent = tree.links[leaf, PARENT]
    last = tree.links[leaf, PLACE] + 1 >= tree.links[parent, SIZE] or leaf == tree.state[ROOT]
    keep = WIDTH if at == WIDTH and last else HALF
    right = take_node(tree, 1)
    move_entries(tree, leaf, keep, right, 0)
    if at < keep:
        put(tree, leaf, at, priority, slot)
        attach(tree, leaf, right, keep)
        count_up(tree, leaf, 1)
    else:
        put(tree, right, at - keep, priority, slot)
        attach(tree, leaf, right, keep)
        count_up(tree, right, 1)
    mend(tree, right)  # beside a small leaf, half a leaf may be too little
    mend(tree, leaf)


# --- removing --------------------------------------------------------------------------------


@njit(cache=True)
def remove(tree, slot):  # type: ignore[no-untyped-def]
    """Remove a slot; its leaf may be left with too few entries."""
    leaf = tree.leaf_of[slot]
    close_gap(tree, leaf, entry_of(tree, leaf, slot))
    tree.leaf_of[slot] = 0
    count_up(tree, leaf, -1)
    tree.state[ROWS] -= 1


@njit(cache=True)
def merge(tree, parent, at):  # type: ignore[no-untyped-def]
    """Merge child `at` of a parent into the child left of it.

    Where inner nodes are merged, two children that had different parents become neighbours:
    they are merged as well if they hold too little, and so on down.
    """
    while True:
        left = tree.items[parent, at - 1]
        right = tree.items[parent, at]
        junction = tree.links[left, SIZE]
        rows = tree.before[parent, at] - tree.before[parent, at - 1]
        move_entries(tree, right, 0, left, rows)
        free_node(tree, right, left)
        close_gap(tree, parent, at)
        adopt(tree, parent, at)
        if left >= len(tree.before):
            return
        parent = left
        at = junction
        if not fit_together(tree, parent, at):
            return


@njit(cache=True)
def fit_together(tree, parent, at):  # type: ignore[no-untyped-def]
    """Whether child `at` of a parent and the child left of it hold so little as to be merged."""
    if at <= 0 or at >= tree.links[parent, SIZE]:
        return False
    left = tree.items[parent, at - 1]
    together = tree.links[left, SIZE] + tree.links[tree.items[parent, at], SIZE]
    return together <= (MERGE_LEAVES if left >= len(tree.before) else MERGE_INNER)


@njit(cache=True)
def mend(tree, node):  # type: ignore[no-untyped-def]
    """Merge a node that lost entries with its neighbours, then its parent if that lost any."""
    while tree.links[node, PLACE] < 0:  # merged already: go to the node that took its entries
        node = -tree.links[node, PLACE]
    while node != tree.state[ROOT]:
        parent = tree.links[node, PARENT]
        size = tree.links[parent, SIZE]
        while fit_together(tree, parent, tree.links[node, PLACE]):
            node = tree.items[parent, tree.links[node, PLACE] - 1]
            merge(tree, parent, tree.links[node, PLACE] + 1)
        while fit_together(tree, parent, tree.links[node, PLACE] + 1):
            merge(tree, parent, tree.links[node, PLACE] + 1)
        if tree.links[parent, SIZE] == size:
            break
        node = parent
    while tree.state[HEIGHT] > 0 and tree.links[tree.state[ROOT], SIZE] == 1:
        root = tree.state[ROOT]
        child = tree.items[root, 0]
        free_node(tree, root, child)
        tree.links[child, PARENT] = 0
        tree.links[child, PLACE] = 0
        tree.state[ROOT] = child
        tree.state[HEIGHT] -= 1


# --- whole batches ---------------------------------------------------------------------------


@njit(cache=True)
def place_rows(  # type: ignore[no-untyped-def]
    keys, items, sep_slots, before, links, leaf_of, state, slots, priorities, nodes
):
    """Give distinct slots these priorities, wherever they were; `nodes` is int32[B] scratch."""
    tree = Tree(keys, items, sep_slots, before, links, leaf_of, state)
    for b in range(len(slots)):
        nodes[b] = tree.leaf_of[slots[b]]
    for b in range(len(slots)):
        if nodes[b] != 0:
            remove(tree, slots[b])
    for b in range(len(slots)):
        if nodes[b] != 0:
            mend(tree, nodes[b])
    nodes[:] = tree.state[ROOT]
    for _ in range(tree.state[HEIGHT]):  # level by level, so that cache misses overlap
        for b in range(len(slots)):
            node = nodes[b]
            nodes[b] = tree.items[node, child_for(tree, node, priorities[b], slots[b])]
    for b in range(len(slots)):
        insert(tree, nodes[b], priorities[b], slots[b])


@njit(cache=True)
def load_rows(  # type: ignore[no-untyped-def]
    keys, items, sep_slots, before, links, leaf_of, state, slots, priorities, fill
):
    """Build the tree of an empty order from pairs in ascending order, `fill` entries per node."""
    tree = Tree(keys, items, sep_slots, before, links, leaf_of, state)
    rows = len(slots)
    first = tree.state[FRESH + 1]
    count = max(1, -(-rows // fill))
    for k in range(count):
        leaf = take_node(tree, 1)
        start = k * rows // count
        size = (k + 1) * rows // count - start
        for j in range(size):
            tree.keys[leaf, j] = priorities[start + j]
            tree.items[leaf, j] = slots[start + j]
        tree.links[leaf, SIZE] = size
        adopt(tree, leaf, 0)
    tree.state[HEIGHT] = 0
    while count > 1:  # the nodes of one level have consecutive numbers, first .. first + count - 1
        first, count = load_level(tree, first, count, fill)
        tree.state[HEIGHT] += 1
    tree.state[ROOT] = first
    tree.state[ROWS] = rows
    node = first
    for _ in range(tree.state[HEIGHT]):  # nothing is below the left edge
        tree.keys[node, 0] = -np.inf
        tree.sep_slots[node, 0] = 0
        node = tree.items[node, 0]


@njit(cache=True)
def load_level(tree, first_child, children, fill):  # type: ignore[no-untyped-def]
    """Put a level of parents above consecutive nodes; return the first of them and how many."""
    count = -(-children // fill)
    first = tree.state[FRESH]
    for k in range(count):
        node = take_node(tree, 0)
        start = k * children // count
        size = (k + 1) * children // count - start
        rows = 0
        for j in range(size):
            child = first_child + start + j
            leaf = child >= len(tree.before)
            tree.keys[node, j] = tree.keys[child, 0]
            tree.sep_slots[node, j] = tree.items[child, 0] if leaf else tree.sep_slots[child, 0]
            tree.items[node, j] = child
            tree.before[node, j] = rows
            rows += rows_under(tree, child)
        tree.links[node, SIZE] = size
        adopt(tree, node, 0)
    return first, count


@njit(cache=True)
def rows_under(tree, node):  # type: ignore[no-untyped-def]
    """How many rows a node covers: the counts along its right edge."""
    rows = 0
    while node < len(tree.before):
        last = tree.links[node, SIZE] - 1
        rows += tree.before[node, last]
        node = tree.items[node, last]
    return rows + tree.links[node, SIZE]


@njit(cache=True)
def leaf_at(tree, position):  # type: ignore[no-untyped-def]
    """Leaf that holds a position, and the entry in it."""
    node = tree.state[ROOT]
    for _ in range(tree.state[HEIGHT]):
        j = tree.links[node, SIZE] - 1
        while tree.before[node, j] > position:
            j -= 1
        position -= tree.before[node, j]
        node = tree.items[node, j]
    return node, position


@njit(cache=True)
def priority_at(  # type: ignore[no-untyped-def]
    keys, items, sep_slots, before, links, leaf_of, state, position
):
    """Priority of the row at a position."""
    tree = Tree(keys, items, sep_slots, before, links, leaf_of, state)
    leaf, entry = leaf_at(tree, position)
    return tree.keys[leaf, entry]


@njit(cache=True)
def list_rows(  # type: ignore[no-untyped-def]
    keys, items, sep_slots, before, links, leaf_of, state, slots
):
    """Write all slots in rank order: the highest priority first."""
    tree = Tree(keys, items, sep_slots, before, links, leaf_of, state)
    position = np.int64(tree.state[ROWS]) - 1
    done = 0
    while position >= 0:
        leaf, entry = leaf_at(tree, position)
        for j in range(entry, -1, -1):
            slots[done] = tree.items[leaf, j]
            done += 1
        position -= entry + 1


@njit(cache=True)
def row_ranges(  # type: ignore[no-untyped-def]
    keys, items, sep_slots, before, links, leaf_of, state, slots, first, count
):
    """Write, for each slot, the first rank of the rows of equal priority and how many they are."""
    tree = Tree(keys, items, sep_slots, before, links, leaf_of, state)
    start = 0
    stop = 0
    for b in range(len(slots)):
        leaf = tree.leaf_of[slots[b]]
        entry = entry_of(tree, leaf, slots[b])
        position = position_of(tree, leaf, entry)
        if not start <= position < stop:
            start, stop = equals(tree, leaf, entry)
        first[b] = tree.state[ROWS] - stop + 1
        count[b] = stop - start


# --- the power law over ranks ----------------------------------------------------------------


@njit(cache=True)
def box_cox(rank, mass, alpha):  # type: ignore[no-untyped-def]
    """Integral of t**-alpha from 1 to a rank whose mass is rank**-alpha."""
    power = 1.0 - alpha
    if abs(power) > 0.1:
        return (rank * mass - 1.0) / power
    if abs(power) > 1e-20:
        return math.expm1(power * math.log(rank)) / power
    return math.log(rank)


@njit(cache=True)
def smooth_sum(rank, mass, alpha):  # type: ignore[no-untyped-def]
    """H(rank) by Euler and Maclaurin, up to a constant that depends on alpha only."""
    if mass == 0.0:
        return box_cox(rank, mass, alpha)
    third = alpha * (alpha + 1.0) * (alpha + 2.0) / (720.0 * rank * rank * rank)
    return box_cox(rank, mass, alpha) + mass * (0.5 - alpha / (12.0 * rank) + third)


@njit(cache=True)
def fill_law(alpha, table):  # type: ignore[no-untyped-def]
    """Write H(0..TABLE), summed with compensation; return the constant for `smooth_sum`."""
    table[0] = 0.0
    total = 0.0
    excess = 0.0
    for rank in range(1, TABLE + 1):
        term = float(rank) ** -alpha - excess
        grown = total + term
        excess = (grown - total) - term
        total = grown
        table[rank] = total
    return total - smooth_sum(float(TABLE), float(TABLE) ** -alpha, alpha)


@njit(cache=True)
def mass_up_to(rank, alpha, constant, table):  # type: ignore[no-untyped-def]
    """H(rank): the sum of r**-alpha over the ranks 1..rank."""
    if rank <= TABLE:
        return table[rank]
    real = float(rank)
    return constant + smooth_sum(real, real**-alpha, alpha)


@njit(cache=True)
def mass_between(first, last, alpha, table):  # type: ignore[no-untyped-def]
    """Sum of r**-alpha over the ranks first..last, without cancellation."""
    tabled = min(last, TABLE)
    total = 0.0
    if first <= tabled:
        total = table[tabled] - table[first - 1]
    if first <= tabled and (tabled - first < 16 or total < 1e-3 * table[tabled]):
        total = 0.0
        for rank in range(first, tabled + 1):
            total += float(rank) ** -alpha
    if last <= TABLE:
        return total
    low = float(max(first, TABLE + 1))
    low_mass = low**-alpha
    if first == last:
        return low_mass
    high = float(last)
    power = 1.0 - alpha
    stretch = math.log1p((high - low) / low)
    if abs(power) > 1e-20:
        stretch = math.expm1(power * stretch) / power
    high_mass = high**-alpha
    low_slope = low_mass / low
    high_slope = high_mass / high
    third = (low_slope / (low * low) - high_slope / (high * high)) / 720.0
    if third > 0.0:
        third *= alpha * (alpha + 1.0) * (alpha + 2.0)
    total += low * low_mass * stretch + 0.5 * (low_mass + high_mass) - third
    if low_slope > high_slope:
        total += alpha * (low_slope - high_slope) / 12.0
    return total


@njit(cache=True)
def guess_rank(mass, alpha, constant):  # type: ignore[no-untyped-def]
    """Real number close to the rank where H passes `mass`: `smooth_sum` inverted, roughly."""
    power = 1.0 - alpha
    area = mass - constant
    scaled = power * area
    if scaled <= -1.0:  # beyond what the closed form can reach, at either end
        return np.inf if power < 0.0 else 0.0
    if abs(power) > 0.1:
        return (1.0 + scaled) ** (1.0 / power) - 0.5
    if abs(power) > 1e-20:
        return math.exp(min(math.log1p(scaled) / power, 700.0)) - 0.5
    return math.exp(min(area, 700.0)) - 0.5


@njit(cache=True)
def rank_at(mass, rows, alpha, constant, table):  # type: ignore[no-untyped-def]
    """Smallest rank r in 1..rows with H(r) > mass, else rows."""
    rank = np.int64(min(max(guess_rank(mass, alpha, constant), 0.0), rows - 1.0)) + 1
    low = 0  # H(low) <= mass
    high = rows
    if mass < mass_up_to(rank, alpha, constant, table):
        if rank == 1 or mass_up_to(rank - 1, alpha, constant, table) <= mass:
            return rank
        high = rank - 1
    else:
        if rank >= rows or mass < mass_up_to(rank + 1, alpha, constant, table):
            return min(rank + 1, rows)
        low = rank + 1
    while high - low > 1:
        middle = (low + high) // 2
        if mass < mass_up_to(middle, alpha, constant, table):
            high = middle
        else:
            low = middle
    return high


@njit(cache=True)
def member_probability(first, last, total, alpha, table):  # type: ignore[no-untyped-def]
    """Chance of one of the rows that share the ranks first..last; `total` is H of all rows."""
    mass = mass_between(first, last, alpha, table)
    return max(mass / (total * (last - first + 1)), SMALLEST)


@njit(cache=True)
def draw_rows(  # type: ignore[no-untyped-def]
    keys,
    items,
    sep_slots,
    before,
    links,
    leaf_of,
    state,
    uniforms,
    alpha,
    constant,
    table,
    nodes,
    offsets,
    slots,
    probabilities,
):
    """Draw one row per uniform; `nodes` and `offsets` are int32[B] scratch."""
    tree = Tree(keys, items, sep_slots, before, links, leaf_of, state)
    rows = np.int64(tree.state[ROWS])
    total = mass_up_to(rows, alpha, constant, table)
    for b in range(len(uniforms)):
        slots[b] = rows - rank_at(uniforms[b] * total, rows, alpha, constant, table)
        offsets[b] = slots[b]
    seek(tree, nodes, offsets)
    start = np.int64(0)
    stop = np.int64(0)
    below = 0.0
    probability = 0.0
    moved = False
    for b in range(len(uniforms)):
        position = slots[b]
        if not start <= position < stop:
            start, stop = equals(tree, nodes[b], offsets[b])
            below = mass_up_to(rows - stop, alpha, constant, table)
            probability = member_probability(rows - stop + 1, rows - start, total, alpha, table)
        count = stop - start
        if count > 1:
            share = (uniforms[b] * total - below) / total / probability
            member = min(max(np.int64(share), 0), count - 1)
            slots[b] = stop - 1 - member
            moved = moved or slots[b] != position
        probabilities[b] = probability
    if moved:
        for b in range(len(uniforms)):
            offsets[b] = slots[b]
        seek(tree, nodes, offsets)
    for b in range(len(uniforms)):
        slots[b] = tree.items[nodes[b], offsets[b]]


@njit(cache=True)
def row_probabilities(  # type: ignore[no-untyped-def]
    keys,
    items,
    sep_slots,
    before,
    links,
    leaf_of,
    state,
    slots,
    alpha,
    constant,
    table,
    probabilities,
):
    """Write the chance of each slot in one draw."""
    tree = Tree(keys, items, sep_slots, before, links, leaf_of, state)
    rows = np.int64(tree.state[ROWS])
    total = mass_up_to(rows, alpha, constant, table)
    start = np.int64(0)
    stop = np.int64(0)
    probability = 0.0
    for b in range(len(slots)):
        leaf = tree.leaf_of[slots[b]]
        entry = entry_of(tree, leaf, slots[b])
        position = position_of(tree, leaf, entry)
        if not start <= position < stop:
            start, stop = equals(tree, leaf, entry)
            probability = member_probability(rows - stop + 1, rows - start, total, alpha, table)
        probabilities[b] = probability


@njit(cache=True)
def last_probability(  # type: ignore[no-untyped-def]
    keys, items, sep_slots, before, links, leaf_of, state, alpha, constant, table
):
    """Chance of a row of the lowest priority in one draw."""
    tree = Tree(keys, items, sep_slots, before, links, leaf_of, state)
    rows = np.int64(tree.state[ROWS])
    leaf, entry = leaf_at(tree, np.int64(0))
    start, stop = equals(tree, leaf, entry)
    total = mass_up_to(rows, alpha, constant, table)
    return member_probability(rows - stop + 1, rows - start, total, alpha, table)


@njit(cache=True)
def row_priorities(keys, items, leaf_of, slots, priorities):  # type: ignore[no-untyped-def]
    """Write the priority of each slot."""
    for b in range(len(slots)):
        leaf = leaf_of[slots[b]]
        for j in range(WIDTH):
            if items[leaf, j] == slots[b]:
                priorities[b] = keys[leaf, j]
                break  # a later match would be a stale entry
