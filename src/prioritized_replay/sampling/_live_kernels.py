"""Compiled loops over the slots that can be drawn, where not every slot can.

`present`, uint8[N], is 1 where a slot can be drawn. `counts`, int64[...], has how many are in
each block of 256 slots, in each 16 blocks, and so on up to a root. `starts[k]` is where level k
begins, and the last number of `starts` where the highest ends. So the k-th is found in O(log N).
"""

from __future__ import annotations

import numpy as np

from prioritized_replay.jit.compiling import inner, kernel
from prioritized_replay.sampling._draw_kernels import point
from prioritized_replay.sampling._ring_kernels import DRAWABLE, ISSUED, LOGGED

BLOCK_BITS, FANOUT_BITS = 8, 4
BLOCK, FANOUT = 1 << BLOCK_BITS, 1 << FANOUT_BITS


@inner
def put_in(present, counts, starts, counters, slot):
    """Let a slot be drawn."""
    if present[slot] == 0:
        present[slot] = 1
        counters[DRAWABLE] += 1
        count_slot(counts, starts, slot, 1)


@inner
def take_out(present, counts, starts, counters, slot):
    """Let a slot be drawn no more."""
    if present[slot] != 0:
        present[slot] = 0
        counters[DRAWABLE] -= 1
        count_slot(counts, starts, slot, -1)


@inner
def count_slot(counts, starts, slot, more):
    """Count one slot more, or one less, on every level."""
    node = slot >> BLOCK_BITS
    for level in range(starts.size - 1):
        counts[starts[level] + node] += more
        node >>= FANOUT_BITS


@inner
def slot_at(present, counts, starts, place):
    """Return the slot of which `place` others that can be drawn lie before it, or -1."""
    node = 0
    for level in range(starts.size - 3, -1, -1):
        child = node << FANOUT_BITS
        last = min(child + FANOUT, starts[level + 1] - starts[level]) - 1
        while child < last and place >= counts[starts[level] + child]:
            place -= counts[starts[level] + child]
            child += 1
        node = child
    first = node << BLOCK_BITS
    for slot in range(first, min(first + BLOCK, present.size)):
        if present[slot] != 0:
            if place == 0:
                return slot
            place -= 1
    return -1


@inner
def number_before(present, counts, starts, slot):
    """Return how many slots before one can be drawn."""
    number = 0
    for other in range((slot >> BLOCK_BITS) << BLOCK_BITS, slot):
        number += present[other]
    node = slot >> BLOCK_BITS
    for level in range(starts.size - 1):
        for sibling in range((node >> FANOUT_BITS) << FANOUT_BITS, node):
            number += counts[starts[level] + sibling]
        node >>= FANOUT_BITS
    return number


@kernel
def slots_at(present, counts, starts, counters, places, slots):
    """Write the slots at these places in the order of age, the oldest being at 0."""
    total = max(counters[DRAWABLE], 1)
    before = number_before(present, counts, starts, counters[ISSUED] % present.size)
    for i in range(places.size):
        slots[i] = slot_at(present, counts, starts, (before + places[i]) % total)


@kernel
def draw_some(present, counts, starts, counters, uniforms, stratified, slots, probabilities):
    """Draw one of the slots that can be drawn for each uniform, all alike; the oldest is first."""
    total = max(counters[DRAWABLE], 1)
    before = number_before(present, counts, starts, counters[ISSUED] % present.size)
    for i in range(uniforms.size):
        place = min(np.int64(point(uniforms, i, stratified) * total), total - 1)
        slots[i] = slot_at(present, counts, starts, (before + place) % total)
        probabilities[i] = 1.0 / total


@kernel
def count_all(present, counts, starts, counters):
    """Count anew all slots that can be drawn."""
    counts[:] = 0
    counters[DRAWABLE] = 0
    for slot in range(present.size):
        if present[slot] != 0:
            counters[DRAWABLE] += 1
            count_slot(counts, starts, slot, 1)


@inner
def log_priority(counters, log, slot, priority):
    """Note the new priority of a slot, -1 for none, until the distribution receives it.

    `log`, float64[2, ...]: slots and priorities. There must be room.
    """
    place = counters[LOGGED]
    log[0, place] = slot
    log[1, place] = priority
    counters[LOGGED] = place + 1
