"""Compiled loops on flat arrays: no validation, no allocation, no randomness.

Every function is numba-compiled on first use and cached. Callers pass C-contiguous arrays of
one dtype each (int64 for slots, float64 for masses and uniforms), so that each kernel is
compiled for one signature only. Kernels hold the GIL on purpose: they are short. An array costs
each call about 80 ns, so kernels take few and do much.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.core.cgutils import get_or_insert_function
from numba.core.imputils import impl_ret_borrowed
from numba.extending import intrinsic, overload
from numba.np.arrayobj import populate_array

from prioritized_replay._compiling import inner, kernel
from prioritized_replay._power_kernels import SMALLEST, power

# Places are unsigned: numba then leaves out the check for negative indices, which halves the time
# of a search. All terms of such a sum must be unsigned, as numba turns int64 + uint64 into float64.

Place = np.uint64
ZERO = Place(0)
ONE = Place(1)
SEVEN = Place(7)
EIGHT = Place(8)

# --- memory ---------------------------------------------------------------------------------


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


def words_as(words, dtype):
    """Return 8-byte words as an array of another dtype; `view` would compile for 0.1 s each."""
    return words.view(dtype)


@intrinsic
def _words_as(typing_context, words, dtype):
    array = types.Array(dtype.dtype, 1, "C")

    def code(context, builder, signature, arguments):
        source = context.make_array(signature.args[0])(context, builder, arguments[0])
        view = context.make_array(array)(context, builder)
        size = context.get_abi_sizeof(context.get_data_type(array.dtype))
        number = context.get_value_type(types.intp)
        count = builder.mul(source.nitems, number(8 // size))
        populate_array(
            view,
            data=builder.bitcast(source.data, view.data.type),
            shape=[count],
            strides=[number(size)],
            itemsize=number(size),
            meminfo=source.meminfo,
            parent=source.parent,
        )
        return impl_ret_borrowed(context, builder, array, view._getvalue())

    return array(words, dtype), code


@overload(words_as)
def _compile_words_as(words, dtype):
    return lambda words, dtype: _words_as(words, dtype)  # type: ignore[call-arg]


# --- trees of fan-out 8 -------------------------------------------------------------------
#
# A tree is one float64 array. `starts[k]` is where level k begins: level 0 holds the leaves,
# one for each slot, the last level the root alone. Node j of level k + 1 has the children
# 8 j .. 8 j + 7 of level k, which fill one 64-byte cache line.


@inner
def sum_of_children(tree, start, node):
    """Return the left-to-right sum of the children of a node, whose level begins at `start`."""
    first = Place(start) + EIGHT * Place(node)
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
        leaf = Place(starts[0]) + Place(slots[i])
        growth += int(masses[i] > 0.0) - int(tree[leaf] > 0.0)
        tree[leaf] = masses[i]
    sum_up(tree, starts, slots)
    return growth


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
            parent = Place(starts[level]) + Place(node)
            tree[parent] = sum_of_children(tree, starts[level - 1], node)
    return growth


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
        if level >= AHEAD_BELOW or level == 0:
            for i in range(targets.size):
                enter_child(tree, start, targets, slots, i)
        else:
            below = Place(starts[level - 1])
            for i in range(targets.size):
                enter_child(tree, start, targets, slots, i)
                prefetch(tree, below + EIGHT * Place(slots[i]))
    for i in range(targets.size):
        targets[i] = tree[Place(starts[0]) + Place(slots[i])]


AHEAD_BELOW = 5  # levels from the sixth up hold few enough nodes to stay in the cache


@inner
def enter_child(tree, start, targets, slots, i):
    """Move target i from its node to the child that holds it; children begin at `start`."""
    first = start + EIGHT * Place(slots[i])
    target = targets[i]
    running = 0.0
    below = 0.0
    child = ZERO
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


@kernel
def set_priorities(tree, starts, stored, slots, priorities, alpha, most):
    """Give slots their priorities and masses priority**alpha, unless a priority is above `most`.

    Of duplicates the last wins. The priorities are used up. Returns by how many the number of
    positive leaves has grown, and the largest of the priorities; or, having changed nothing, 0 and
    infinity.
    """
    for i in range(slots.size):
        if not priorities[i] <= most:
            return 0, np.inf
    for i in range(slots.size):
        stored[Place(slots[i])] = priorities[i]
    largest = 0.0
    for i in range(slots.size):  # those that won
        largest = max(largest, stored[Place(slots[i])])
    for i in range(slots.size):
        priorities[i] = mass_of(priorities[i], alpha)
    return set_masses(tree, starts, slots, priorities), largest


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
def fill_minima(tree, starts, first, stop, value):
    """Write one value to the leaves first..stop-1 of a minimum tree and recompute ancestors."""
    for slot in range(first, stop):
        tree[starts[0] + slot] = value
    for level in range(1, starts.size):
        for node in range(first >> (3 * level), ((stop - 1) >> (3 * level)) + 1):
            tree[starts[level] + node] = least_of_children(tree, starts[level - 1], node)


# --- batches ------------------------------------------------------------------------------


@inner
def point(uniforms, i, stratified):
    """Return the i-th point of [0, 1): a uniform, or one in the i-th of B equal parts of it."""
    return (i + uniforms[i]) / uniforms.size if stratified else uniforms[i]


@kernel
def stratify(uniforms, out):
    """Put uniform i into the i-th of B equal parts of [0, 1)."""
    for i in range(uniforms.size):
        out[i] = point(uniforms, i, True)


@kernel
def priorities_of(ids, td_errors, eps, first_id, next_id, capacity, slots, priorities):
    """Turn ids into slots and errors into priorities, abs(td_error) + eps, of rows still there.

    Those have ids first_id .. next_id - 1. Returns how many they are. But where an id was never
    issued or an error is not finite, returns -1 - i for its place i, ids first.
    """
    for i in range(ids.size):
        if ids[i] < 0 or ids[i] >= next_id:
            return -1 - i
    for i in range(ids.size):
        if not abs(td_errors[i]) + eps < np.inf:
            return -1 - i
    turn = first_id - first_id % capacity  # one division: a live id is less than two turns above
    live = 0
    for i in range(ids.size):
        if ids[i] >= first_id:
            slot = ids[i] - turn
            slots[live] = slot - capacity if slot >= capacity else slot
            priorities[live] = abs(td_errors[i]) + eps
            live += 1
    return live


@kernel
def mass_of(priority, alpha):
    """Return priority**alpha, positive where the priority is."""
    mass = power(priority, alpha)
    return mass if priority > 0.0 or alpha == 0.0 else 0.0


@inner
def importance_weights(probabilities, least, beta, largest, out, summary):
    """Write (P / least)**-beta, at most `largest`; where `least` is 0, the batch's least counts.

    `summary` receives the sum, the sum of squares, the least and the largest weight, as written.
    """
    if least == 0.0:
        least = 1.0
        for i in range(probabilities.size):
            if probabilities[i] > 0.0:
                least = min(least, probabilities[i])
    for i in range(probabilities.size):
        weight = min(power(probabilities[i] / least, -beta), largest)
        out[i] = weight if probabilities[i] > 0.0 or beta == 0.0 else largest
    total = 0.0
    squares = 0.0
    lowest = np.inf
    highest = 0.0
    for i in range(probabilities.size):
        weight = np.float64(out[i])
        total += weight
        squares += weight * weight
        lowest = min(lowest, weight)
        highest = max(highest, weight)
    summary[0] = total
    summary[1] = squares
    summary[2] = lowest
    summary[3] = highest


@inner
def place_in(table, key):
    """Return where a hash table holds a key >= 0, or has room for it; -1 marks room.

    int64[2**k], at most half full.
    """
    mask = table.size - 1
    place = (key * 0x9E3779B1) & mask
    while table[place] != -1 and table[place] != key:
        place = (place + 1) & mask
    return place


@kernel
def keep_last(keys, values, table):
    """Drop all but the last of equal keys, in place; return where the kept ones begin.

    `table` is scratch, see :func:`place_in`. O(B).
    """
    for place in range(table.size):
        table[place] = -1
    kept = keys.size
    for i in range(keys.size - 1, -1, -1):
        place = place_in(table, keys[i])
        if table[place] == -1:
            table[place] = keys[i]
            kept -= 1
            keys[kept] = keys[i]
            values[kept] = values[i]
    return kept


@kernel
def keep_first(keys, values, table):
    """Drop all but the first of equal keys, in place; return how many are kept.

    `table` is scratch, see :func:`place_in`. O(B).
    """
    for place in range(table.size):
        table[place] = -1
    kept = 0
    for i in range(keys.size):
        place = place_in(table, keys[i])
        if table[place] == -1:
            table[place] = keys[i]
            keys[kept] = keys[i]
            values[kept] = values[i]
            kept += 1
    return kept


@kernel
def draw_ring(uniforms, stratified, end, size, capacity, slots, probabilities):
    """Draw one of the last `size` slots before `end`, modulo N, for each uniform."""
    for i in range(uniforms.size):
        place = min(np.int64(point(uniforms, i, stratified) * size), size - 1)
        slot = end - size + place
        slots[i] = slot + capacity if slot < 0 else slot
        probabilities[i] = 1.0 / size


# --- rows ---------------------------------------------------------------------------------
#
# A batch lies in one block of 8-byte words. `layout`, int64[fields + 1, 8], says where: its first
# line holds what follows here, each further line says of one field: bytes in a unit (8, 4 or 1),
# units in the field, units in a whole row, unit of the row where it lies, unit of the block where
# its column begins.

SIZE, WORDS, MARK, CAPACITY = 0, 1, 2, 3  # rows B; words of a row, byte of its mark; rows N
WEIGHTS, PROBABILITIES, IDS, SLOTS = 4, 5, 6, 7  # words of the block where these columns begin

GROUP = Place(32)  # rows that are on their way from memory while as many are copied
FETCHED = Place(64)  # words of a row to ask for; the processor itself then fetches what follows


@inner
def column_of(block, layout, which):
    """Return the words of a column of a batch."""
    start = layout[0, which]
    return block[start : start + layout[0, SIZE]]


@kernel
def complete_batch(mark, rows, layout, newest, least, beta, largest, sums, block):
    """Fill the block of a batch of which the slots and probabilities are there.

    Where `mark`, the rows are marked as drawn. For the rest see :func:`gather_rows`,
    :func:`ids_of` and :func:`importance_weights`.
    """
    slots = words_as(column_of(block, layout, SLOTS), np.int64)
    ids = words_as(column_of(block, layout, IDS), np.int64)
    probabilities = words_as(column_of(block, layout, PROBABILITIES), np.float64)
    weights = words_as(column_of(block, layout, WEIGHTS), np.float32)[: slots.size]
    gather_rows(rows, slots, layout, mark, block)
    ids_of(slots, newest, layout[0, CAPACITY], ids)
    importance_weights(probabilities, least, beta, largest, weights, sums)


@inner
def fetch_rows(rows, slots, first, stop, words):
    """Ask for the rows of slots[first:stop] ahead of their use."""
    for i in range(first, stop):
        start = Place(slots[i]) * words
        for word in range(start & ~SEVEN, start + min(words, FETCHED), EIGHT):
            prefetch(rows, word)


@inner
def gather_rows(rows, slots, layout, mark, block):
    """Copy the fields of rows into contiguous columns; `rows` are words, from a cache line on.

    Rows lie anywhere in memory, so they are fetched a group ahead: 1024 rows of 152 bytes among
    1e6 take 30 us instead of 135, where touching their cache lines alone takes 20.
    """
    rows4 = words_as(rows, np.uint32)
    rows1 = words_as(rows, np.uint8)
    block4 = words_as(block, np.uint32)
    block1 = words_as(block, np.uint8)
    words = Place(layout[0, WORDS])
    size = Place(slots.size)
    fetch_rows(rows, slots, ZERO, min(GROUP, size), words)
    for first in range(ZERO, size, GROUP):
        stop = min(first + GROUP, size)
        fetch_rows(rows, slots, stop, min(stop + GROUP, size), words)
        for line in range(1, layout.shape[0]):
            unit = layout[line, 0]
            if unit == 8:
                copy_field(rows, slots, first, stop, layout, line, block)
            elif unit == 4:
                copy_field(rows4, slots, first, stop, layout, line, block4)
            else:
                copy_field(rows1, slots, first, stop, layout, line, block1)
        if mark:
            for i in range(first, stop):
                rows1[EIGHT * Place(slots[i]) * words + Place(layout[0, MARK])] = 1


@inner
def copy_field(rows, slots, first, stop, layout, line, block):
    """Copy one field of the rows at slots[first:stop] into its column."""
    count = Place(layout[line, 1])
    stride = Place(layout[line, 2])
    offset = Place(layout[line, 3])
    column = Place(layout[line, 4])
    if count == ONE:
        for i in range(first, stop):
            block[column + i] = rows[Place(slots[i]) * stride + offset]
    else:
        for i in range(first, stop):
            source = Place(slots[i]) * stride + offset
            target = column + i * count
            for k in range(count):
                block[target + k] = rows[source + k]


@inner
def ids_of(slots, newest, capacity, ids):
    """Write the ids of the rows at `slots`; the latest row has the id `newest`."""
    slot = newest % capacity
    for i in range(slots.size):
        turn = newest - slot if slots[i] <= slot else newest - slot - capacity
        ids[i] = turn + slots[i]


# --- whole calls --------------------------------------------------------------------------
#
# A draw and the batch it leads to, an update from ids to masses: one call instead of two, which
# for 32 rows is a sixth of the time.


@kernel
def sample_masses(
    tree, starts, uniforms, first, stratified,
    mark, rows, layout, newest, least, beta, largest, sums, block,
):  # fmt: skip
    """Draw a batch by mass, with the uniforms from `first` on; see :func:`complete_batch`."""
    slots = words_as(column_of(block, layout, SLOTS), np.int64)
    probabilities = words_as(column_of(block, layout, PROBABILITIES), np.float64)
    uniforms = uniforms[first : first + slots.size]
    draw_masses(tree, starts, uniforms, stratified, slots, probabilities)
    complete_batch(mark, rows, layout, newest, least, beta, largest, sums, block)


@kernel
def sample_ring(
    end, size, uniforms, first, stratified,
    mark, rows, layout, newest, least, beta, largest, sums, block,
):  # fmt: skip
    """Draw a batch uniformly; see :func:`draw_ring` and :func:`complete_batch`."""
    slots = words_as(column_of(block, layout, SLOTS), np.int64)
    probabilities = words_as(column_of(block, layout, PROBABILITIES), np.float64)
    uniforms = uniforms[first : first + slots.size]
    draw_ring(uniforms, stratified, end, size, layout[0, CAPACITY], slots, probabilities)
    complete_batch(mark, rows, layout, newest, least, beta, largest, sums, block)


@kernel
def update_masses(
    tree, starts, stored, alpha, most, ids, td_errors, eps, first_id, next_id, scratch
):
    """Give rows the priorities of their errors; `scratch` is int64[2 B].

    Returns how many are still there, or less than 0, see :func:`priorities_of`; then what
    :func:`set_priorities` returns. Nothing has changed if the first is < 0 or the last infinite.
    """
    slots = scratch[: ids.size]
    priorities = words_as(scratch[ids.size :], np.float64)
    live = priorities_of(ids, td_errors, eps, first_id, next_id, stored.size, slots, priorities)
    if live <= 0:
        return live, 0, 0.0
    growth, largest = set_priorities(
        tree, starts, stored, slots[:live], priorities[:live], alpha, most
    )
    return live, growth, largest
