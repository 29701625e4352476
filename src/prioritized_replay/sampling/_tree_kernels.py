"""Compiled loops on flat arrays: no validation, no allocation, no randomness.

Every function is numba-compiled on first use and cached. Callers pass C-contiguous arrays of
one dtype each (int64 for slots, float64 for masses and uniforms), so that each kernel is
compiled for one signature only. Kernels hold the GIL on purpose: they are short. An array costs
each call about 80 ns, so kernels take few and do much.
"""

from __future__ import annotations

import numpy as np

from prioritized_replay.jit.compiling import inner, kernel
from prioritized_replay.jit.intrinsics import EIGHT, ONE, SEVEN, ZERO, Place, prefetch, words_as
from prioritized_replay.jit.power import SMALLEST
from prioritized_replay.sampling._draw_kernels import mass_of, point
from prioritized_replay.sampling._ring_kernels import (
    ISSUED,
    TOLD,
    checked_update,
    count_update,
    first_to_tell,
)

# --- trees of fan-out 8 -------------------------------------------------------------------
#
# A tree is one float64 array. `starts[k]` is where level k begins: level 0 holds the leaves,
# one for each slot, the last level the root alone. Node j of level k + 1 has the children
# 8 j .. 8 j + 7 of level k, which fill one 64-byte cache line. The root is number 0 of the array;
# beside it, a tree of masses counts its positive leaves.

POSITIVE = Place(1)  # where that count is
THREE = Place(3)


@inner
def sum_of_children(tree, start, node):
    """Return the left-to-right sum of the children of a node, whose level begins at `start`."""
    first = Place(start) + EIGHT * Place(node)
    total = tree[first]
    for k in range(ONE, EIGHT):
        total += tree[first + k]
    return total


@inner
def set_mass(tree, start, slot, mass):
    """Write a leaf, where leaves begin at `start`; return by how many more are positive now."""
    leaf = Place(start) + Place(slot)
    more = np.float64(mass > 0.0) - np.float64(tree[leaf] > 0.0)
    tree[leaf] = mass
    return more


@kernel
def set_masses(tree, starts, slots, masses):
    """Write leaves (of duplicates the last wins), then recompute their ancestors."""
    more = 0.0
    for i in range(slots.size):
        more += set_mass(tree, starts[0], slots[i], masses[i])
    tree[POSITIVE] += more
    sum_up(tree, starts, slots)


@inner
def sum_up(tree, starts, slots):
    """Recompute the ancestors of leaves, level by level."""
    for level in range(1, starts.size):
        start = Place(starts[level])
        previous = -1
        for i in range(slots.size):
            node = slots[i] >> (3 * level)
            if node != previous:  # neighbours often share a parent, always near the root
                tree[start + Place(node)] = sum_of_children(tree, starts[level - 1], node)
                previous = node


@inner
def sum_up_between(tree, starts, first, stop):
    """Recompute the ancestors of the leaves first..stop-1, level by level."""
    if stop <= first:
        return
    for level in range(1, starts.size):
        for node in range(first >> (3 * level), ((stop - 1) >> (3 * level)) + 1):
            parent = Place(starts[level]) + Place(node)
            tree[parent] = sum_of_children(tree, starts[level - 1], node)


@kernel
def tell_masses(tree, starts, stored, counters, entering, alpha):
    """Give new rows their priorities and masses, and note that they have them."""
    capacity = stored.size
    first = first_to_tell(counters, capacity)
    issued = counters[ISSUED]
    priority = -1.0
    mass = 0.0
    more = 0.0
    slot = first % capacity
    begin = slot
    for i in range(first, issued):
        if entering[i & (entering.size - 1)] != priority:  # most rows enter at the same one
            priority = entering[i & (entering.size - 1)]
            mass = mass_of(priority, alpha)
        stored[Place(slot)] = priority
        more += set_mass(tree, starts[0], slot, mass)
        slot = slot + 1 if slot + 1 < capacity else 0
    tree[POSITIVE] += more
    count = min(issued - first, capacity) if first < issued else 0
    to_end = min(begin + count, capacity)
    sum_up_between(tree, starts, begin, to_end)
    sum_up_between(tree, starts, 0, begin + count - to_end)
    counters[TOLD] = issued


@kernel
def find_masses(tree, starts, targets, slots):
    """Descend to the leaf whose share of [0, root) holds each target; targets are used up.

    On return `slots` names the leaves and `targets` holds their masses. The target is kept
    below the mass of the node it stands in, so a node without mass is never entered, whatever
    rounding does. All targets move down one level together: their cache misses overlap. The
    lowest levels are too large for the nearest cache, so each node is asked for one level ahead:
    1024 targets among 1e7 slots take 53 us instead of 95.
    """
    root = tree[Place(starts[starts.size - 1])]
    for i in range(targets.size):
        slots[i] = 0
        if not targets[i] < root:
            targets[i] = np.nextafter(root, 0.0)
    for level in range(starts.size - 2, -1, -1):
        start = Place(starts[level])
        end = Place(starts[level - 1]) if level > 0 else Place(tree.size)
        last = (end - start) // EIGHT - ONE
        if level == 0:
            for i in range(targets.size):
                targets[i] = enter_child(tree, start, last, targets, slots, i)
        elif level >= AHEAD_BELOW:
            for i in range(targets.size):
                enter_child(tree, start, last, targets, slots, i)
        else:
            below = Place(starts[level - 1])
            for i in range(targets.size):
                enter_child(tree, start, last, targets, slots, i)
                prefetch(tree, below + EIGHT * Place(slots[i]))


AHEAD_BELOW = 5  # levels from the sixth up hold few enough nodes to stay in the cache


@inner
def enter_child(tree, start, last, targets, slots, i):
    """Move target i from its node, at most number `last`, to the child that holds it.

    Returns the mass of that child. Children begin at `start`. Where sums are not those of children,
    targets come to nodes that do not exist: they go on from the last one that does.
    """
    node = min(Place(slots[i]), last)
    first = start + EIGHT * node
    target = targets[i]
    running = 0.0
    below = 0.0
    child = ZERO
    for k in range(SEVEN):
        running += tree[first + k]
        if running <= target:
            below = running
            child = k + ONE
    slots[i] = np.int64(EIGHT * node + child)
    mass = tree[first + child]
    target -= below
    if not target < mass:
        target = np.nextafter(mass, 0.0)
    targets[i] = target
    return mass


@kernel
def draw_masses(tree, starts, uniforms, stratified, slots, probabilities):
    """Draw a leaf for each uniform, by its mass; see :func:`point`. Write its probability too.

    A mass that is positive keeps a positive probability when the division underflows.
    """
    root = tree[Place(starts[starts.size - 1])]
    for i in range(uniforms.size):
        probabilities[i] = point(uniforms, i, stratified) * root
    find_masses(tree, starts, probabilities, slots)
    for i in range(uniforms.size):
        probabilities[i] = max(probabilities[i] / root, SMALLEST)


@inner
def fetch_leaves(tree, starts, stored, slots):
    """Ask for what an update of these slots will write, all at once: the misses overlap."""
    for i in range(slots.size):
        slot = Place(slots[i])
        prefetch(stored, slot)
        prefetch(tree, Place(starts[0]) + slot)
        prefetch(tree, Place(starts[1]) + (slot >> THREE))


@kernel
def set_priorities(tree, starts, stored, slots, priorities, alpha, most):
    """Give slots their priorities and masses priority**alpha, unless a priority is above `most`.

    Of duplicates the last wins. The priorities are used up. Returns the largest of them, or, having
    changed nothing, infinity.
    """
    for i in range(slots.size):
        if not priorities[i] <= most:
            return np.inf
    for i in range(slots.size):
        stored[Place(slots[i])] = priorities[i]
    largest = 0.0
    for i in range(slots.size):  # those that won
        largest = max(largest, stored[Place(slots[i])])
    for i in range(slots.size):
        priorities[i] = mass_of(priorities[i], alpha)
    set_masses(tree, starts, slots, priorities)
    return largest


@inner
def least_of_children(tree, start, node):
    """Return the least of the children of a node, whose level begins at `start`."""
    first = Place(start) + EIGHT * Place(node)
    least = tree[first]
    for k in range(ONE, EIGHT):
        least = min(least, tree[first + k])
    return least


@kernel
def set_minima(tree, starts, slots, values):
    """Write leaves of a minimum tree, then recompute their ancestors level by level."""
    for i in range(slots.size):
        tree[starts[0] + slots[i]] = values[i]
    for level in range(1, starts.size):
        previous = -1
        for i in range(slots.size):
            node = slots[i] >> (3 * level)
            if node != previous:
                tree[starts[level] + node] = least_of_children(tree, starts[level - 1], node)
                previous = node


@kernel
def update_masses(
    tree, starts, stored, counters, alpha, most, ids, td_errors, eps, min_priority, scratch
):
    """Give rows the priorities of their errors; `scratch` is int64[2 B].

    Returns how many are still there, or having changed nothing what :func:`checked_update` refuses.
    """
    slots = scratch[: ids.size]
    priorities = words_as(scratch[ids.size :], np.float64)
    live = checked_update(
        counters, ids, td_errors, eps, min_priority, most, stored.size, slots, priorities
    )
    if live < 0:
        return live
    largest = 0.0
    if live > 0:
        fetch_leaves(tree, starts, stored, slots[:live])
        largest = set_priorities(
            tree, starts, stored, slots[:live], priorities[:live], alpha, np.inf
        )
    count_update(counters, ids.size - live, largest)
    return live
