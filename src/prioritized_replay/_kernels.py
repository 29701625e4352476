"""Compiled loops on flat arrays: no validation, no allocation, no randomness.

Every function is numba-compiled on first use and cached. Callers pass C-contiguous arrays of
one dtype each (int64 for slots, float64 for masses and uniforms), so that each kernel is
compiled for one signature only. Kernels hold the GIL on purpose: they are short.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.core.cgutils import get_or_insert_function
from numba.extending import intrinsic, overload

from prioritized_replay._compiling import kernel

# --- trees of fan-out 8 -------------------------------------------------------------------
#
# A tree is one float64 array. `starts[k]` is where level k begins: level 0 holds the leaves,
# one for each slot, the last level the root alone. Node j of level k + 1 has the children
# 8 j .. 8 j + 7 of level k, which fill one 64-byte cache line.
#
# Places in a tree are unsigned: numba then leaves out the check for negative indices, which
# halves the time of a search (1024 targets among 1e6 slots: 61 us, signed 125 us). All terms
# of such a sum must be unsigned, as numba turns int64 + uint64 into float64.

ONE = np.uint64(1)
SEVEN = np.uint64(7)
EIGHT = np.uint64(8)


@kernel
def sum_of_children(tree, start, node):
    """Return the left-to-right sum of the children of a node, whose level begins at `start`."""
    first = np.uint64(start) + EIGHT * np.uint64(node)
    total = tree[first]
    for k in range(ONE, EIGHT):
        total += tree[first + k]
    return total


@kernel
def set_masses(tree, starts, slots, masses):
    """Write leaves (of duplicates the last wins), then recompute their ancestors level by level.

    Returns by how many the number of positive leaves has grown.
    """
    growth = 0
    for i in range(slots.size):
        leaf = starts[0] + slots[i]
        growth += int(masses[i] > 0.0) - int(tree[leaf] > 0.0)
        tree[leaf] = masses[i]
    for level in range(1, starts.size):
        previous = -1
        for i in range(slots.size):
            node = slots[i] >> (3 * level)
            if node != previous:  # neighbours often share a parent, always near the root
                tree[starts[level] + node] = sum_of_children(tree, starts[level - 1], node)
                previous = node
    return growth


@kernel
def fill_masses(tree, starts, first, stop, mass):
    """Write one mass to the leaves first..stop-1, then recompute their ancestors.

    Returns by how many the number of positive leaves has grown.
    """
    growth = 0
    for leaf in range(starts[0] + first, starts[0] + stop):
        growth += int(mass > 0.0) - int(tree[leaf] > 0.0)
        tree[leaf] = mass
    for level in range(1, starts.size):
        for node in range(first >> (3 * level), ((stop - 1) >> (3 * level)) + 1):
            tree[starts[level] + node] = sum_of_children(tree, starts[level - 1], node)
    return growth


@kernel
def find_masses(tree, starts, targets, slots):
    """Descend to the leaf whose share of [0, root) holds each target; targets are used up.

    On return `slots` names the leaves and `targets` holds their masses. The target is kept
    below the mass of the node it stands in, so a node without mass is never entered, whatever
    rounding does. All targets move down one level together: their cache misses overlap.
    """
    root = tree[starts[starts.size - 1]]
    for i in range(targets.size):
        slots[i] = 0
        if not targets[i] < root:
            targets[i] = np.nextafter(root, 0.0)
    for level in range(starts.size - 2, -1, -1):
        start = np.uint64(starts[level])
        for i in range(targets.size):
            first = start + EIGHT * np.uint64(slots[i])
            target = targets[i]
            running = 0.0
            below = 0.0
            child = ONE - ONE
            for k in range(SEVEN):
                running += tree[first + k]
                if running <= target:
                    below = running
                    child = k + ONE
            slots[i] = 8 * slots[i] + np.int64(child)
            mass = tree[first + child]
            target -= below
            if not target < mass:
                target = np.nextafter(mass, 0.0)
            targets[i] = target
    for i in range(targets.size):
        targets[i] = tree[starts[0] + slots[i]]


@kernel
def least_of_children(tree, start, node):
    """Return the least of the children of a node, whose level begins at `start`."""
    first = np.uint64(start) + EIGHT * np.uint64(node)
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
def fill_minima(tree, starts, first, stop, value):
    """Write one value to the leaves first..stop-1 of a minimum tree and recompute ancestors."""
    for slot in range(first, stop):
        tree[starts[0] + slot] = value
    for level in range(1, starts.size):
        for node in range(first >> (3 * level), ((stop - 1) >> (3 * level)) + 1):
            tree[starts[level] + node] = least_of_children(tree, starts[level - 1], node)


# --- batches ------------------------------------------------------------------------------


@kernel
def priorities_of(td_errors, eps, out):
    """Write abs(td_error) + eps; return the first place that is not finite, or -1."""
    for i in range(td_errors.size):
        out[i] = abs(td_errors[i]) + eps
        if not out[i] < np.inf:
            return i
    return -1


@kernel
def masses_of(priorities, alpha, least, out):
    """Write priority**alpha, kept >= `least` where the priority is positive; return the largest."""
    largest = 0.0
    for i in range(priorities.size):
        mass = priorities[i] ** alpha
        if mass < least and priorities[i] > 0.0:
            mass = least
        out[i] = mass
        largest = max(largest, mass)
    return largest


@kernel
def stratify(uniforms, out):
    """Put uniform i into the i-th of B equal parts of [0, 1)."""
    size = uniforms.size
    for i in range(size):
        out[i] = (i + uniforms[i]) / size


@kernel
def importance_weights(probabilities, least, beta, largest, out):
    """Write (P / least)**-beta, at most `largest`, and return sum, sum of squares, min, max."""
    total = 0.0
    squares = 0.0
    lowest = np.inf
    highest = 0.0
    for i in range(probabilities.size):
        weight = largest
        if probabilities[i] > 0.0 or beta == 0.0:
            weight = min((probabilities[i] / least) ** -beta, largest)
        out[i] = weight
        total += weight
        squares += weight * weight
        lowest = min(lowest, weight)
        highest = max(highest, weight)
    return total, squares, lowest, highest


@kernel
def keep_last(keys, values, table):
    """Drop all but the last of equal keys, in place; return where the kept ones begin.

    `table` is a scratch hash table: int64[2**k] with 2**k >= 2 B. O(B).
    """
    table[:] = -1
    mask = table.size - 1
    kept = keys.size
    for i in range(keys.size - 1, -1, -1):
        key = keys[i]
        place = (key * 0x9E3779B1) & mask
        while table[place] != -1 and table[place] != key:
            place = (place + 1) & mask
        if table[place] == -1:
            table[place] = key
            kept -= 1
            keys[kept] = key
            values[kept] = values[i]
    return kept


# --- rows ---------------------------------------------------------------------------------


def prefetch(array, place):
    """Ask for the cache line of array[place] (unsigned) ahead of its use; nothing in Python."""


@intrinsic
def _prefetch(typing_context, array, place):
    def code(context, builder, signature, arguments):
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        line = builder.bitcast(builder.gep(data, [arguments[1]]), ir.IntType(8).as_pointer())
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [line.type, number, number, number])
        function = get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        builder.call(function, [line, number(0), number(3), number(1)])  # read, keep, data
        return context.get_dummy_value()

    return types.void(array, place), code


@overload(prefetch)
def _compile_prefetch(array, place):
    return lambda array, place: _prefetch(array, place)  # type: ignore[call-arg]


@kernel
def gather_rows(rows8, rows4, rows1, slots, layout, stride, mark, block8, block4, block1):
    """Copy fields of the rows at `slots` into contiguous columns of one block.

    rows8, rows4, rows1 and block8, block4, block1 are the same bytes as words of 8, 4 and 1
    bytes. Each line of `layout` says of one field: bytes in a word, words in the field, words
    in a whole row, word of the row where it lies, word of the block where its column begins.
    `stride` is the number of 8-byte words in a row. Byte `mark` of every row becomes 1, unless
    `mark` is negative.

    Rows lie anywhere in memory: fetching them 8 ahead takes 1024 rows of 152 bytes among 1e6
    from 135 to 52 us, unsigned places from 316 to 135.
    """
    words = np.uint64(stride)
    for i in range(slots.size):
        if i + 8 < slots.size:
            ahead = np.uint64(slots[i + 8]) * words
            for word in range(ahead, ahead + words, EIGHT):
                prefetch(rows8, word)
        slot = np.uint64(slots[i])
        for f in range(layout.shape[0]):
            width = layout[f, 0]
            count = np.uint64(layout[f, 1])
            source = slot * np.uint64(layout[f, 2]) + np.uint64(layout[f, 3])
            target = np.uint64(layout[f, 4]) + np.uint64(i) * count
            if width == 8:
                for k in range(count):
                    block8[target + k] = rows8[source + k]
            elif width == 4:
                for k in range(count):
                    block4[target + k] = rows4[source + k]
            else:
                for k in range(count):
                    block1[target + k] = rows1[source + k]
        if mark >= 0:
            rows1[EIGHT * slot * words + np.uint64(mark)] = 1
