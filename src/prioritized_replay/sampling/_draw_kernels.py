"""Compiled loops that all distributions use: points of [0, 1), priorities, duplicates."""

from __future__ import annotations

import numpy as np

from prioritized_replay.jit.compiling import inner, kernel
from prioritized_replay.jit.intrinsics import words_as
from prioritized_replay.jit.power import power
from prioritized_replay.sampling._ring_kernels import FIRST, ISSUED, checked_update, count_update

# A record of the last batch, int64[...], begins with the sum of its weights, the sum of their
# squares, the least and the largest weight (float64); then come these, and from RECORD on the ids.
COUNT, DRAWS, RECORD = 4, 5, 8  # rows of the batch; batches drawn so far

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
def mass_of(priority, alpha):
    """Return priority**alpha, positive where the priority is; 0 where it is below 0."""
    mass = power(max(priority, 0.0), alpha)
    return mass if priority > 0.0 or (alpha == 0.0 and priority == 0.0) else 0.0


@inner
def place_in(table, key):
    """Return where a hash table holds a key >= 0, or has room for it; -1 marks room.

    int64[2**k], at most half full.
    """
    mask = table.size - 1
    place = (key * 0x9E3779B1) & mask
    for _ in range(mask):  # bounded, should the table be full
        if table[place] == -1 or table[place] == key:
            break
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
def draw_ring(counters, capacity, uniforms, stratified, slots, probabilities):
    """Draw one of the live slots for each uniform, all alike."""
    issued = counters[ISSUED]
    size = max(min(issued - counters[FIRST], capacity), 1)  # so that each slot is one
    end = issued % capacity
    for i in range(uniforms.size):
        place = min(np.int64(point(uniforms, i, stratified) * size), size - 1)
        slot = end - size + place
        slots[i] = slot + capacity if slot < 0 else slot
        probabilities[i] = 1.0 / size


@kernel
def check_update(counters, ids, td_errors, capacity, scratch):
    """Look at an update of rows that have no priorities, and count what came too late.

    `scratch` is int64[2 B]. Returns what :func:`checked_update` does.
    """
    slots = scratch[: ids.size]
    priorities = words_as(scratch[ids.size :], np.float64)
    live = checked_update(counters, ids, td_errors, 0.0, 0.0, np.inf, capacity, slots, priorities)
    if live >= 0:
        count_update(counters, ids.size - live, 0.0)
    return live
