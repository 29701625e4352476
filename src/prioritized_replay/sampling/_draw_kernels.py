"""Compiled loops that all distributions use: points of [0, 1), priorities, duplicates."""

from __future__ import annotations

import numpy as np

from prioritized_replay.jit.compiling import inner, kernel
from prioritized_replay.jit.intrinsics import words_as
from prioritized_replay.jit.power import power

ISSUED, FIRST, TOLD, STALE, LARGEST = 0, 1, 2, 3, 4


@inner
def enter(counters, entering, priority):
    """Issue one id."""
    entering[counters[ISSUED] % entering.size] = priority
    numbers = words_as(counters, np.float64)
    numbers[LARGEST] = max(numbers[LARGEST], priority)
    counters[ISSUED] += 1


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
