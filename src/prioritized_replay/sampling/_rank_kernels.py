r"""Compiled loops of the exact rank order and of the power law over its ranks.

They know flat arrays only: no validation, no allocation, no randomness, no recursion.

The order is a counted B+-tree of (priority, slot) pairs, ascending. Position 0 is the lowest
priority and rank 1 is position n - 1. A node is one row of 832 bytes, seen as float64 in `keys` and
as int32 in `cells`; all that one row of a batch needs lies together in 13 cache lines. Drawn here
with up to 4 pairs per leaf and 4 children per inner node ::

                   keys         -inf     0.5      0.9
    node 3         BOUND_SLOTS   0        7        3
    (the root,     ITEMS         2        4        1        (numbers of its children)
    LEVEL 1)       BEFORE        0        4        6        max    (rows left of each child)
                       ________/         |         \_________
            node 2              node 4               node 1        (LEVEL 0: leaves)
    keys    0.0 0.1 0.1 0.4     0.5 0.8 +inf +inf    0.9 1.0 1.0 +inf
    ITEMS    8   0   2   5       7   1                3   4   6    (slots)

- Entry j of an inner node says: every pair in child j is >= the bound (keys[j], BOUND_SLOTS[j]) and
  below the next bound. The bound of entry 0 is the bound of the node itself in its parent; -inf at
  the left edge. A bound need not be a live pair.
- Unused keys are +inf and unused counts the largest int32, so that a search can look at all entries
  without asking how many there are: loops of constant length vectorise. Other unused cells are
  stale.
- `leaf_of[slot]` is the leaf that holds a slot, and every node knows its PARENT and its PLACE in
  it, so a removal and the rank of a given slot need no search.
- Neighbours under one parent that hold MERGE_LEAVES (or MERGE_INNER) entries or fewer together are
  merged. That bounds the number of nodes for ever, see `most_nodes`: no kernel needs to check it.
- Row 0 is no node: its cells hold the state of the whole tree.

Whatever the cells hold, a kernel ends and stays inside its arrays: numbers of nodes, entries, sizes
and levels are looked at before they are used, see `node_in`. A kernel that meets what cannot be
sets DAMAGED, stops, and says so to its caller. It does not look for damage: `RankOrder.check` does.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from prioritized_replay.jit.compiling import inner, kernel
from prioritized_replay.jit.intrinsics import prefetch, words_as
from prioritized_replay.sampling._draw_kernels import keep_last, point
from prioritized_replay.sampling._power_law_kernels import (
    find_ranks,
    mass_up_to,
    member_probability,
)
from prioritized_replay.sampling._ring_kernels import (
    ISSUED,
    TOLD,
    checked_update,
    count_update,
    first_to_tell,
)

Index = np.uint64  # loops over unsigned numbers vectorise: no test for a negative index
Ints = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
LEAF_WIDTH = 64  # pairs in a full leaf
INNER_WIDTH = 32  # children of a full inner node
MERGE_LEAVES = 60  # two neighbouring leaves with so few pairs together become one
MERGE_INNER = 15  # likewise inner nodes; below half a node, so that a split leaves no such pair
ROW = 104  # float64 in a node's row; keys come first
# Columns of `cells`, after the LEAF_WIDTH keys of a leaf, or the INNER_WIDTH keys of an inner node
BOUND_SLOTS, BEFORE = 64, 96  # of an inner node
ITEMS = 128  # slots, or children
SIZE, PARENT, PLACE, LEVEL = 192, 193, 194, 195  # entries; node above, entry there; 0 for a leaf
# and those of row 0
ROOT, ROWS, FREE, FRESH = 0, 1, 2, 3  # root, rows held; first freed, first untouched node
WIDTH = 4  # INNER_WIDTH, see `count_up`
DAMAGED = 5  # not 0 once a kernel has met what cannot be
DEEPEST = 12  # levels above the leaves, at most: see `most_nodes`
BLOCK = 64  # rows for which each step of an update is done together
AHEAD = 6  # rows whose leaves are on their way from memory while one is worked on
MOST = np.iinfo(np.int32).max
NOT_A_COUNT, NO_ROWS = np.int32(MOST), np.int32(0)
IN_LEAF = np.int32(LEAF_WIDTH - 1)  # a mask: no other way to bound an entry takes so little time
LOWEST, HIGHEST = np.int64(-1), np.int64(MOST)  # below and above every slot
HURT = -(2**62)  # what `update_rows` returns for a tree that is damaged
ZERO, ONE = np.int64(0), np.int64(1)  # plain 0 and 1 as arguments would be types of their own


class Tree(NamedTuple):
    """The arrays of one rank order of M - 1 nodes and N slots."""

    keys: Floats  # float64[M, ROW]
    cells: Ints  # int32[M, 2 * ROW], the same memory
    leaf_of: Ints  # int32[N]: the leaf that holds a slot, or 0


# --- what is stored may be nonsense ----------------------------------------------------------


@inner
def node_in(tree, number):
    """Return the number of a node as it was stored, or 0, which is none, where it cannot be one."""
    return np.int32(number if 0 < number < len(tree.keys) else 0)


@inner
def child_of(tree, node, entry):
    """Return a child of an inner node, or 0."""
    return node_in(tree, tree.cells[node, ITEMS + entry])


@inner
def parent_of(tree, node):
    """Return the node above another, or 0; also of the root."""
    return node_in(tree, tree.cells[node, PARENT])


@inner
def place_of(tree, node):
    """Return the entry of a node in its parent."""
    return min(max(tree.cells[node, PLACE], np.int32(0)), np.int32(INNER_WIDTH - 1))


@inner
def root_of(tree):
    """Return the root, or 0."""
    return node_in(tree, tree.cells[0, ROOT])


@inner
def levels(tree):
    """How many levels there are above the leaves."""
    return max(min(tree.cells[root_of(tree), LEVEL], np.int32(DEEPEST)), np.int32(0))


@inner
def damaged(tree):
    """Note that the tree holds what cannot be."""
    tree.cells[0, DAMAGED] = 1


# --- looking ---------------------------------------------------------------------------------


@inner
def child_for(tree, node, priority, slot):
    """Entry of an inner node under which the pair belongs: the last bound <= the pair."""
    count = 0
    for j in range(INNER_WIDTH):
        key, bound = tree.keys[node, j], tree.cells[node, BOUND_SLOTS + j]
        count += (key < priority) | ((key == priority) & (bound <= slot))
    return count - 1


@inner
def child_at(tree, node, position):
    """Entry of an inner node under which its row number `position` lies."""
    j = 0
    for step in (16, 8, 4, 2, 1):
        j += step if tree.cells[node, BEFORE + j + step] <= position else 0
    return j


@inner
def pairs_below(tree, leaf, priority, slot):
    """How many pairs of a leaf are below the given one: where it is, or would be inserted."""
    count = 0
    for j in range(LEAF_WIDTH):
        key, other = tree.keys[leaf, j], tree.cells[leaf, ITEMS + j]
        count += (key < priority) | ((key == priority) & (other < slot))
    return count


@inner
def entry_for(tree, leaf, priority, slot):
    """Count the same, in less time where the priority is new: slots are not looked at then."""
    count = 0
    for j in range(LEAF_WIDTH):
        count += tree.keys[leaf, j] < priority
    if count < LEAF_WIDTH and tree.keys[leaf, count] == priority:
        return pairs_below(tree, leaf, priority, slot)
    return count


@inner
def entry_of(tree, leaf, slot):
    """Entry of a leaf that holds the slot (the first match: entries beyond SIZE are stale)."""
    found = LEAF_WIDTH
    for j in range(LEAF_WIDTH):
        found = min(found, j if tree.cells[leaf, ITEMS + j] == slot else LEAF_WIDTH)
    return found


@inner
def leaf_for(tree, priority, slot):
    """Leaf to which the pair belongs, and how many rows lie left of that leaf."""
    node = root_of(tree)
    rows = 0
    for _ in range(levels(tree)):
        j = child_for(tree, node, priority, slot)
        rows += tree.cells[node, BEFORE + j]
        node = child_of(tree, node, j)
    return node, rows


@inner
def leaf_at(tree, position):
    """Leaf that holds a position, and the entry in it."""
    node = root_of(tree)
    for _ in range(levels(tree)):
        j = child_at(tree, node, np.int32(position))
        position -= tree.cells[node, BEFORE + j]
        node = child_of(tree, node, j)
    return node, position


@inner
def position_of(tree, leaf, entry):
    """Position in the whole order of one entry of a leaf: counts summed on the way up."""
    node = leaf
    position = entry
    for _ in range(levels(tree)):
        parent = parent_of(tree, node)
        position += tree.cells[parent, BEFORE + place_of(tree, node)]
        node = parent
    return position


@inner
def equals(tree, leaf, entry, position):
    """Positions start..stop - 1 of the rows whose priority equals that of the one given.

    The position itself is always among them: others rely on it.
    """
    priority = tree.keys[leaf, entry]
    size = min(tree.cells[leaf, SIZE], np.int32(LEAF_WIDTH))
    if (  # most often the priority is the row's own
        0 < entry < size - 1
        and tree.keys[leaf, entry - 1] < priority
        and tree.keys[leaf, entry + 1] > priority
    ):
        return position, position + 1
    first = pairs_below(tree, leaf, priority, LOWEST)
    last = pairs_below(tree, leaf, priority, HIGHEST)
    if first > 0 and last < size:  # the group begins and ends in this leaf
        start = position + first - entry
        stop = position + last - entry
    else:
        first_leaf, start = leaf_for(tree, priority, LOWEST)
        last_leaf, stop = leaf_for(tree, priority, HIGHEST)
        start += pairs_below(tree, first_leaf, priority, LOWEST)
        stop += pairs_below(tree, last_leaf, priority, HIGHEST)
    if not 0 <= start <= position < stop <= tree.cells[0, ROWS]:
        damaged(tree)
        return position, position + 1
    return start, stop


@inner
def fetch(tree, node):
    """Ask for the cache lines of a node ahead of their use."""
    start = Index(node) * Index(ROW)
    for j in range(0, ROW, 8):
        prefetch(tree.keys, start + Index(j))


# --- nodes and their entries -----------------------------------------------------------------


@inner
def take_node(tree, level):
    """Return an empty node: a freed one, else the next untouched one; 0 if there is none."""
    freed = tree.cells[0, FREE] != 0
    node = node_in(tree, tree.cells[0, FREE if freed else FRESH])
    if node == 0:
        damaged(tree)
        return node
    if freed:
        tree.cells[0, FREE] = tree.cells[node, PARENT]
    else:
        tree.cells[0, FRESH] = node + 1
    tree.cells[node, SIZE] = 0
    tree.cells[node, PARENT] = 0
    tree.cells[node, PLACE] = 0
    tree.cells[node, LEVEL] = level
    clear_entries(tree, node, ZERO)
    return node


@inner
def clear_entries(tree, node, start):
    """Mark the entries from `start` on as unused."""
    if tree.cells[node, LEVEL] == 0:
        for j in range(start, LEAF_WIDTH):
            tree.keys[node, j] = np.inf
    else:
        for j in range(start, INNER_WIDTH):
            tree.keys[node, j] = np.inf
            tree.cells[node, BEFORE + j] = MOST


@inner
def free_node(tree, node, heir):
    """Put a node on the free list; PLACE remembers, below zero, which node took its entries."""
    tree.cells[node, SIZE] = 0
    tree.cells[node, PARENT] = tree.cells[0, FREE]
    tree.cells[node, PLACE] = -heir
    tree.cells[0, FREE] = node


@inner
def adopt(tree, node, start):
    """Tell the entries from `start` on, which are as many as fit, where they are now."""
    if tree.cells[node, LEVEL] == 0:
        for j in range(start, tree.cells[node, SIZE]):
            slot = tree.cells[node, ITEMS + j]
            if 0 <= slot < len(tree.leaf_of):
                tree.leaf_of[slot] = node
            else:
                damaged(tree)
    else:
        for j in range(start, tree.cells[node, SIZE]):
            child = child_of(tree, node, j)
            if child != 0:
                tree.cells[child, PARENT] = node
                tree.cells[child, PLACE] = j
            else:
                damaged(tree)


@inner
def shift_right(row, start, stop):
    """row[start + 1 : stop + 1] = row[start:stop]."""
    for k in range(Index(stop - start)):
        j = Index(stop) - k
        row[j] = row[j - Index(1)]


@inner
def shift_left(row, start, stop):
    """row[start:stop] = row[start + 1 : stop + 1]."""
    for j in range(Index(start), Index(stop)):
        row[j] = row[j + Index(1)]


@inner
def insert_pair(tree, leaf, at, priority, slot):
    """Write a pair into a leaf that has room, as its entry `at`, where `at` <= SIZE < LEAF_WIDTH.

    All entries are read and written, moved or not: loops of constant length take half the time.
    """
    for k in range(1, LEAF_WIDTH):
        j = LEAF_WIDTH - k
        old, new = tree.keys[leaf, j], tree.keys[leaf, j - 1]
        tree.keys[leaf, j] = new if j > at else old
    for k in range(1, LEAF_WIDTH):
        j = ITEMS + LEAF_WIDTH - k
        item, other = tree.cells[leaf, j], tree.cells[leaf, j - 1]
        tree.cells[leaf, j] = other if j > ITEMS + at else item
    tree.keys[leaf, at] = priority
    tree.cells[leaf, ITEMS + at] = slot
    tree.cells[leaf, SIZE] += 1
    tree.leaf_of[slot] = leaf


@inner
def remove_pair(tree, leaf, at):
    """Take the pair of entry `at` out of a leaf."""
    for j in range(LEAF_WIDTH):
        old, new = tree.keys[leaf, j], tree.keys[leaf, j + 1]
        tree.keys[leaf, j] = new if j >= at else old
    for j in range(ITEMS, ITEMS + LEAF_WIDTH):
        item, other = tree.cells[leaf, j], tree.cells[leaf, j + 1]
        tree.cells[leaf, j] = other if j >= ITEMS + at else item
    tree.keys[leaf, LEAF_WIDTH - 1] = np.inf  # what came in from outside
    tree.cells[leaf, SIZE] -= 1


@inner
def put_child(tree, node, at, child, rows):
    """Enter a child, with so many `rows` left of it, into an inner node that has room."""
    size = np.int64(tree.cells[node, SIZE])
    if not 0 <= at <= size < INNER_WIDTH:
        damaged(tree)
        return
    row = tree.cells[node]
    shift_right(tree.keys[node], at, size)
    shift_right(row, BOUND_SLOTS + at, BOUND_SLOTS + size)
    shift_right(row, BEFORE + at, BEFORE + size)
    shift_right(row, ITEMS + at, ITEMS + size)
    slots = ITEMS if tree.cells[child, LEVEL] == 0 else BOUND_SLOTS
    tree.keys[node, at] = tree.keys[child, 0]
    row[BOUND_SLOTS + at] = tree.cells[child, slots]
    row[BEFORE + at] = rows
    row[ITEMS + at] = child
    row[SIZE] = size + 1
    adopt(tree, node, at)


@inner
def drop_child(tree, node, at):
    """Take a child out of an inner node."""
    size = tree.cells[node, SIZE] - 1
    if not 0 <= at <= size < INNER_WIDTH:
        damaged(tree)
        return
    row = tree.cells[node]
    shift_left(tree.keys[node], at, size)
    shift_left(row, BOUND_SLOTS + at, BOUND_SLOTS + size)
    shift_left(row, BEFORE + at, BEFORE + size)
    shift_left(row, ITEMS + at, ITEMS + size)
    row[SIZE] = size
    clear_entries(tree, node, size)
    adopt(tree, node, at)


@inner
def move_entries(tree, source, start, target, rows):
    """Append the entries of `source` from `start` on to `target`; counts grow by `rows`.

    Returns whether that was possible.
    """
    size = np.int64(tree.cells[source, SIZE])
    filled = np.int64(tree.cells[target, SIZE])
    level = tree.cells[source, LEVEL]
    width = LEAF_WIDTH if level == 0 else INNER_WIDTH
    if (
        not (0 <= start <= size <= width and 0 <= filled <= width - (size - start))
        or tree.cells[target, LEVEL] != level
        or source == target
    ):
        damaged(tree)
        return False
    for j in range(start, size):
        k = filled + j - start
        tree.keys[target, k] = tree.keys[source, j]
        tree.cells[target, ITEMS + k] = tree.cells[source, ITEMS + j]
    if level > 0:
        for j in range(start, size):
            k = filled + j - start
            tree.cells[target, BOUND_SLOTS + k] = tree.cells[source, BOUND_SLOTS + j]
            tree.cells[target, BEFORE + k] = tree.cells[source, BEFORE + j] + rows
    tree.cells[source, SIZE] = start
    tree.cells[target, SIZE] = filled + size - start
    clear_entries(tree, source, start)
    adopt(tree, target, filled)
    return True


@inner
def count_up(tree, leaf, change):
    """Add `change` to every count to the right of a leaf, from its parent up to the root.

    All counts are read and written. Their number is read from the tree: if it were known in
    advance, the loop would be unrolled before it could be vectorised (an update of 1024 rows among
    1e6 takes 320 ns a row instead of 440).
    """
    node = np.int32(leaf)
    change = np.int32(change)
    root = tree.cells[0, ROOT]
    left = DEEPEST
    while node != root and left > 0:
        left -= 1
        parent = Index(parent_of(tree, node))  # 0 has counts too, which nobody reads
        place = tree.cells[node, PLACE]
        for j in range(tree.cells[0, WIDTH]):
            rows = tree.cells[parent, BEFORE + j]
            used = (j > place) & (rows != NOT_A_COUNT)
            tree.cells[parent, BEFORE + j] = rows + (change if used else NO_ROWS)
        node = np.int32(parent)
    if node != root:
        damaged(tree)


# --- inserting -------------------------------------------------------------------------------


@inner
def attach(tree, node, right, rows):
    """Enter `right`, split off `node` which kept so many `rows`, in the parent beside it.

    A full parent is split first, and its own right half then has to be entered one level up.
    """
    for _ in range(DEEPEST + 1):
        if right == 0:
            return
        level = np.int64(tree.cells[node, LEVEL])
        if node == tree.cells[0, ROOT]:  # a new root, of which the old one is the only child
            root = take_node(tree, level + 1)
            if root == 0:
                return
            put_child(tree, root, ZERO, node, ZERO)
            tree.keys[root, 0] = -np.inf
            tree.cells[0, ROOT] = root
        parent = parent_of(tree, node)
        if parent == 0:
            break
        parent_right = np.int32(0)
        parent_rows = np.int64(tree.cells[parent, BEFORE + INNER_WIDTH // 2])
        if tree.cells[parent, SIZE] == INNER_WIDTH:
            parent_right = take_node(tree, level + 1)
            half = INNER_WIDTH // 2 * ONE
            if parent_right == 0 or not move_entries(
                tree, parent, half, parent_right, -parent_rows
            ):
                return
        owner = parent_of(tree, node)  # the parent, or its right half
        if owner == 0:
            break
        place = np.int64(place_of(tree, node))
        put_child(tree, owner, place + 1, right, tree.cells[owner, BEFORE + place] + rows)
        node = parent
        right = parent_right
        rows = parent_rows
    damaged(tree)


@inner
def split_and_put(tree, leaf, at, priority, slot):
    """Split a full leaf and write a pair into one of the two.

    Half of the entries move to the new leaf. But where the pair goes last under its parent, the old
    leaf stays full: rows that enter in order, as new rows do at the maximum, then fill every leaf.
    """
    parent = parent_of(tree, leaf)
    last = leaf == tree.cells[0, ROOT] or tree.cells[leaf, PLACE] + 1 == tree.cells[parent, SIZE]
    keep = ONE * (LEAF_WIDTH if at == LEAF_WIDTH and last else LEAF_WIDTH // 2)
    right = take_node(tree, ZERO)
    if right == 0 or not move_entries(tree, leaf, keep, right, ZERO):
        return
    target = leaf
    if at >= keep:
        target = right
        at -= keep
    insert_pair(tree, target, at, priority, slot)
    attach(tree, leaf, right, keep)
    count_up(tree, target, ONE)
    for half in (right, leaf):  # beside a small leaf, half a leaf may be too little
        mend(tree, half)


@inner
def insert(tree, leaf, priority, slot):
    """Insert a pair whose leaf was found earlier in the same batch."""
    at = entry_for(tree, leaf, priority, slot)
    if at == 0 or at == tree.cells[leaf, SIZE] or tree.cells[leaf, LEVEL] != 0:
        # Between two entries of a leaf a pair is right whatever became of the leaf since. At an
        # end it may belong to a leaf split off or merged meanwhile, and a leaf that was merged away
        # may be an inner node by now: look again.
        leaf, _ = leaf_for(tree, priority, slot)
        at = entry_for(tree, leaf, priority, slot)
    size = tree.cells[leaf, SIZE]
    if leaf == 0 or not at <= size <= LEAF_WIDTH:
        damaged(tree)
        return
    tree.cells[0, ROWS] += 1
    if size == LEAF_WIDTH:
        split_and_put(tree, leaf, at, priority, slot)
    else:
        insert_pair(tree, leaf, at, priority, slot)
        count_up(tree, leaf, ONE)


# --- removing --------------------------------------------------------------------------------


@inner
def remove(tree, leaf, slot):
    """Remove a slot from its leaf, which may be left with too few entries."""
    entry = entry_of(tree, leaf, slot)
    if leaf == 0 or not entry < tree.cells[leaf, SIZE] <= LEAF_WIDTH:
        damaged(tree)
        return
    remove_pair(tree, leaf, entry)
    tree.leaf_of[slot] = 0
    tree.cells[0, ROWS] -= 1
    count_up(tree, leaf, -ONE)


@inner
def may_be_small(tree, leaf):
    """Whether a leaf may hold so little with a neighbour that :func:`mend` has to look."""
    parent = parent_of(tree, leaf)
    place = tree.cells[leaf, PLACE]
    if not 0 <= place < INNER_WIDTH:
        return True
    start = tree.cells[parent, BEFORE + place]
    left = tree.cells[parent, BEFORE + max(place - 1, 0)]
    end = tree.cells[parent, BEFORE + min(place + 2, INNER_WIDTH - 1)]
    # The parent does not say where its last child ends.
    unknown = place + 2 >= tree.cells[parent, SIZE]
    small = start + tree.cells[leaf, SIZE] - left <= MERGE_LEAVES
    return unknown | small | (end - start <= MERGE_LEAVES)


@inner
def fit_together(tree, parent, at):
    """Whether child `at` of a parent and the child left of it hold so little as to be merged."""
    size = min(tree.cells[parent, SIZE], np.int32(INNER_WIDTH))
    if at <= 0 or at >= size:
        return False
    right = child_of(tree, parent, at)
    if tree.cells[parent, LEVEL] > 1:
        left = child_of(tree, parent, at - 1)
        return tree.cells[left, SIZE] + tree.cells[right, SIZE] <= MERGE_INNER
    # The counts tell how many rows two leaves hold, with no look at a leaf far away in memory.
    if at + 1 < size:
        end = tree.cells[parent, BEFORE + at + 1]
    else:
        end = tree.cells[parent, BEFORE + at] + tree.cells[right, SIZE]
    return end - tree.cells[parent, BEFORE + at - 1] <= MERGE_LEAVES


@inner
def merge(tree, parent, at):
    """Merge child `at` of a parent into the child left of it.

    Where inner nodes are merged, two children that had different parents become neighbours:
    they are merged as well if they hold too little, and so on down.
    """
    for _ in range(DEEPEST):
        left = child_of(tree, parent, at - 1)
        right = child_of(tree, parent, at)
        if left == 0 or right == 0:
            break
        junction = np.int64(tree.cells[left, SIZE])
        rows = tree.cells[parent, BEFORE + at] - tree.cells[parent, BEFORE + at - 1]
        if not move_entries(tree, right, ZERO, left, rows):
            return
        free_node(tree, right, left)
        drop_child(tree, parent, at)
        parent = left
        at = junction
        if tree.cells[left, LEVEL] == 0 or not fit_together(tree, parent, at):
            return
    damaged(tree)


@inner
def mend(tree, node):
    """Merge a node that lost entries with its neighbours, then its parent if that lost any."""
    for _ in range(len(tree.keys)):  # merged already: go to the node that took its entries
        if tree.cells[node, PLACE] >= 0:
            break
        node = node_in(tree, -np.int64(tree.cells[node, PLACE]))
    merged = False
    for _ in range(DEEPEST * INNER_WIDTH):  # a parent of so many children, on each level
        if tree.cells[0, DAMAGED] or node == tree.cells[0, ROOT]:
            break
        parent = parent_of(tree, node)
        if node == 0 or parent == 0:
            damaged(tree)
            break
        at = np.int64(tree.cells[node, PLACE])
        if not fit_together(tree, parent, at):
            at += 1
        if fit_together(tree, parent, at):
            merge(tree, parent, at)
            node = child_of(tree, parent, at - 1)
            merged = True
        elif merged:
            node = parent
            merged = False
        else:
            break
    for _ in range(DEEPEST):
        root = root_of(tree)
        if tree.cells[root, LEVEL] <= 0 or tree.cells[root, SIZE] != 1:
            break
        child = child_of(tree, root, 0)
        if child == 0 or root == 0:
            damaged(tree)
            break
        free_node(tree, root, child)
        tree.cells[child, PARENT] = 0
        tree.cells[child, PLACE] = 0
        tree.cells[0, ROOT] = child


# --- whole batches ---------------------------------------------------------------------------


@kernel
def place_rows(keys, cells, leaf_of, slots, priorities, scratch):
    """Give slots these priorities, wherever they were; of duplicates the last counts.

    A priority below 0 takes a slot out. `scratch` is int64[6 B + BLOCK + 1] or more. Block by
    block: each step is done for a whole block, so that cache misses overlap. Returns the largest of
    the priorities, or -1 where the tree is damaged.
    """
    tree = Tree(keys, cells, leaf_of)
    size = len(slots)
    kept = scratch[:size]
    values = words_as(scratch[size : 2 * size], np.float64)
    for b in range(size):  # assigned as a slice, the test of their shapes would compile for 2 s
        kept[b] = slots[b]
        values[b] = priorities[b]
    nodes = scratch[2 * size : 2 * size + BLOCK]
    used = 2 * size + BLOCK
    entries = 1
    while entries <= 2 * size:
        entries *= 2
    first = keep_last(kept, values, scratch[used : used + entries])
    lost = False
    for start in range(first, size, BLOCK):
        count = min(BLOCK, size - start)
        for b in range(count):
            nodes[b] = tree.leaf_of[kept[start + b]]
        for b in range(count):
            lost |= (nodes[b] < 0) | (nodes[b] >= len(keys))
        if lost:
            damaged(tree)
        if root_of(tree) == 0 or tree.cells[0, WIDTH] != INNER_WIDTH or tree.cells[0, DAMAGED]:
            damaged(tree)
            return -1.0
        for b in range(-AHEAD, count):
            if b + AHEAD < count:
                fetch(tree, nodes[b + AHEAD])
            if b >= 0 and nodes[b] != 0:
                remove(tree, np.int32(nodes[b]), kept[start + b])
        for b in range(count):  # all leaves are looked at before the first is merged away
            if nodes[b] != 0 and not may_be_small(tree, nodes[b]):
                nodes[b] = 0
        for b in range(count):
            if nodes[b] != 0:
                mend(tree, np.int32(nodes[b]))
        root = root_of(tree)
        for b in range(count):
            nodes[b] = root
        for _ in range(levels(tree)):
            for b in range(count):
                j = child_for(tree, nodes[b], values[start + b], kept[start + b])
                nodes[b] = child_of(tree, nodes[b], j)
        for b in range(-AHEAD, count):
            if b + AHEAD < count:
                fetch(tree, nodes[b + AHEAD])
            if b >= 0 and values[start + b] >= 0.0:
                insert(tree, np.int32(nodes[b]), values[start + b], kept[start + b])
    if tree.cells[0, DAMAGED]:
        return -1.0
    largest = 0.0
    for b in range(first, size):
        largest = max(largest, values[b])
    return largest


@kernel
def update_rows(keys, cells, leaf_of, counters, ids, td_errors, eps, min_priority, scratch):
    """Give rows the priorities of their errors; `scratch` is int64[8 B + BLOCK + 1] or more.

    Returns how many are still there, or having changed nothing what :func:`checked_update` refuses,
    or HURT where the tree is damaged.
    """
    count = ids.size
    slots = scratch[:count]
    priorities = words_as(scratch[count : 2 * count], np.float64)
    live = checked_update(
        counters, ids, td_errors, eps, min_priority, np.inf, leaf_of.size, slots, priorities
    )
    if live < 0:
        return live
    largest = 0.0
    if live > 0:
        largest = place_rows(
            keys, cells, leaf_of, slots[:live], priorities[:live], scratch[2 * count :]
        )
        if largest < 0.0:
            return HURT
    count_update(counters, count - live, largest)
    return live


@kernel
def tell_rows(keys, cells, leaf_of, counters, entering, scratch):
    """Insert new rows at their priorities, and note that they are there.

    `scratch` is int64[8 B + BLOCK + 1] or more for B new rows. Returns whether that was possible.
    """
    capacity = leaf_of.size
    first = first_to_tell(counters, capacity)
    issued = counters[ISSUED]
    count = issued - first
    if not 0 <= count <= min(capacity, (scratch.size - BLOCK - 1) // 8):
        damaged(Tree(keys, cells, leaf_of))
        return False
    slots = scratch[:count]
    priorities = words_as(scratch[count : 2 * count], np.float64)
    for i in range(count):
        slots[i] = (first + i) % capacity
        priorities[i] = entering[(first + i) & (entering.size - 1)]
    largest = 0.0
    if count > 0:
        largest = place_rows(keys, cells, leaf_of, slots, priorities, scratch[2 * count :])
    if largest < 0.0:
        return False
    counters[TOLD] = issued
    return True


@kernel
def rows_under(tree, node):
    """How many rows a node covers: the counts along its right edge."""
    rows = 0
    for _ in range(DEEPEST):
        if tree.cells[node, LEVEL] <= 0:
            break
        last = min(max(tree.cells[node, SIZE] - 1, 0), INNER_WIDTH - 1)
        rows += tree.cells[node, BEFORE + last]
        node = child_of(tree, node, last)
    return rows + tree.cells[node, SIZE]


@kernel
def slot_at(keys, cells, leaf_of, position):
    """Slot of the row at a position, or -1 where the tree is damaged."""
    tree = Tree(keys, cells, leaf_of)
    leaf, entry = leaf_at(tree, position)
    slot = ZERO - 1
    if leaf != 0 and 0 <= entry < LEAF_WIDTH:
        slot = np.int64(tree.cells[leaf, ITEMS + entry])
    if not 0 <= slot < len(leaf_of):
        damaged(tree)
        return ZERO - 1
    return slot


@kernel
def row_priorities(keys, cells, leaf_of, slots, priorities):
    """Write the priority of each slot; return not 0 where the tree is damaged."""
    tree = Tree(keys, cells, leaf_of)
    for b in range(len(slots)):
        leaf = node_in(tree, tree.leaf_of[slots[b]])
        entry = entry_of(tree, leaf, slots[b])
        if leaf == 0 or entry == LEAF_WIDTH:
            damaged(tree)
            break
        priorities[b] = tree.keys[leaf, entry]
    return tree.cells[0, DAMAGED]


@kernel
def row_ranges(keys, cells, leaf_of, slots, starts, stops):
    """Write, for each slot, the positions start .. stop - 1 of the rows of equal priority.

    Returns not 0 where the tree is damaged.
    """
    tree = Tree(keys, cells, leaf_of)
    start = 0
    stop = 0
    for b in range(len(slots)):
        leaf = node_in(tree, tree.leaf_of[slots[b]])
        entry = entry_of(tree, leaf, slots[b])
        position = position_of(tree, leaf, entry)
        if leaf == 0 or entry == LEAF_WIDTH or not 0 <= position < tree.cells[0, ROWS]:
            damaged(tree)
            break
        if not start <= position < stop:
            start, stop = equals(tree, leaf, entry, position)
        starts[b] = start
        stops[b] = stop
    return tree.cells[0, DAMAGED]


@inner
def seek(tree, positions, nodes, entries):
    """Find the leaves (`nodes`) and the `entries` in them that hold these positions.

    Level by level for the whole batch, so that the cache misses of different rows overlap.
    """
    root = root_of(tree)
    for b in range(len(positions)):
        entries[b] = positions[b]
        nodes[b] = root
    for level in range(levels(tree) - 1, -1, -1):
        for b in range(len(positions)):
            node = nodes[b]
            j = child_at(tree, node, entries[b])
            entries[b] -= tree.cells[node, BEFORE + j]
            nodes[b] = child_of(tree, node, j)
            start = Index(nodes[b]) * Index(ROW)
            if level == 0:
                entry = Index(entries[b])
                prefetch(tree.keys, start + entry)
                prefetch(tree.keys, start + (Index(ITEMS) + entry) // Index(2))
                prefetch(tree.keys, start + Index(SIZE // 2))
            else:
                prefetch(tree.keys, start + Index(BEFORE // 2))
                prefetch(tree.keys, start + Index(BEFORE // 2 + 8))


@kernel
def draw_rows(
    keys, cells, leaf_of, uniforms, stratified, alpha, constant, table, scratch, slots,
    probabilities,
):  # fmt: skip
    """Draw one row per uniform, see :func:`_kernels.point`; `scratch` is int32[3 B] or more.

    Returns not 0 where the tree is damaged.
    """
    tree = Tree(keys, cells, leaf_of)
    size = len(uniforms)
    positions, nodes = scratch[:size], scratch[size : 2 * size]
    entries = scratch[2 * size : 3 * size]
    rows = np.int64(tree.cells[0, ROWS])
    if not 0 < rows <= len(leaf_of):
        damaged(tree)
        return tree.cells[0, DAMAGED]
    total = mass_up_to(rows, alpha, constant, table)
    find_ranks(uniforms, stratified, rows, total, alpha, constant, table, slots, probabilities)
    for b in range(len(uniforms)):
        positions[b] = rows - slots[b]
    seek(tree, positions, nodes, entries)
    start = np.int64(0)
    stop = np.int64(0)
    below = 0.0
    shared = 0.0
    moved = False
    beyond = np.int32(0)
    for b in range(len(uniforms)):
        position = np.int64(positions[b])
        if not start <= position < stop:
            entry = np.int64(entries[b] & IN_LEAF)
            beyond |= entries[b] & ~IN_LEAF
            start, stop = equals(tree, nodes[b], entry, position)
            if stop - start > 1:
                shared = member_probability(rows - stop + 1, rows - start, total, alpha, table)
                below = mass_up_to(rows - stop, alpha, constant, table)
        if stop - start > 1:
            share = (point(uniforms, b, stratified) * total - below) / total / shared
            member = min(max(np.int64(share), 0), stop - start - 1)
            positions[b] = stop - 1 - member
            moved = moved or positions[b] != position
            probabilities[b] = shared
    if moved:
        seek(tree, positions, nodes, entries)
    lost = beyond != 0
    for b in range(len(uniforms)):
        slot = np.int64(tree.cells[nodes[b], ITEMS + (entries[b] & IN_LEAF)])
        lost |= not 0 <= slot < len(leaf_of)
        slots[b] = slot
    if lost:
        damaged(tree)
    return tree.cells[0, DAMAGED]
