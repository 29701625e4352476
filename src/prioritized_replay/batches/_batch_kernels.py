"""Compiled loops that draw a batch and copy its rows into columns."""

from __future__ import annotations

import numpy as np

from prioritized_replay.jit.compiling import inner, kernel
from prioritized_replay.jit.intrinsics import EIGHT, ONE, SEVEN, ZERO, Place, prefetch, words_as
from prioritized_replay.jit.power import power
from prioritized_replay.sampling._draw_kernels import COUNT, DRAWS, RECORD, draw_ring
from prioritized_replay.sampling._rank_kernels import draw_rows
from prioritized_replay.sampling._ring_kernels import mark_drawn
from prioritized_replay.sampling._tree_kernels import draw_masses
from prioritized_replay.storage.marks import DRAWN


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


# --- rows ---------------------------------------------------------------------------------
#
# A batch lies in one block of 8-byte words. `layout`, int64[fields + 1, 8], says where: its first
# line holds what follows here, each further line says of one field: bytes in a unit (8, 4 or 1),
# units in the field, units in a whole row, unit of the row where it lies, unit of the block where
# its column begins.

SIZE, WORDS, MARK, CAPACITY = 0, 1, 2, 3  # rows B; words of a row, byte of its marks; rows N
WEIGHTS, PROBABILITIES, IDS, SLOTS = 4, 5, 6, 7  # words of the block where these columns begin
GROUP = Place(32)  # rows that are on their way from memory while as many are copied
FETCHED = Place(64)  # words of a row to ask for; the processor itself then fetches what follows


@inner
def column_of(block, layout, which):
    """Return the words of a column of a batch."""
    start = layout[0, which]
    return block[start : start + layout[0, SIZE]]


@kernel
def complete_batch(drawn, rows, layout, newest, least, beta, largest, record, block):
    """Fill the block of a batch of which the slots and probabilities are there.

    Where `drawn`, the rows are marked as drawn and the batch is recorded as the last one; else only
    its weights are. See also :func:`gather_rows`, :func:`ids_of` and :func:`importance_weights`.

    Returns 0, or having done nothing one more than the place of a slot that no row has.
    """
    slots = words_as(column_of(block, layout, SLOTS), np.int64)
    ids = words_as(column_of(block, layout, IDS), np.int64)
    probabilities = words_as(column_of(block, layout, PROBABILITIES), np.float64)
    weights = words_as(column_of(block, layout, WEIGHTS), np.float32)[: slots.size]
    strange = place_beyond(slots, layout[0, CAPACITY])
    if strange:
        return strange
    gather_rows(rows, slots, layout, drawn, block)
    ids_of(slots, newest, layout[0, CAPACITY], ids)
    sums = words_as(record, np.float64)
    importance_weights(probabilities, least, beta, largest, weights, sums)
    if drawn:
        for i in range(slots.size):
            record[RECORD + i] = ids[i]
        record[COUNT] = slots.size
        record[DRAWS] += 1
    return 0


@inner
def place_beyond(slots, capacity):
    """Return one more than the place of a slot that no row has, or 0."""
    beyond = False
    for i in range(slots.size):
        beyond |= (slots[i] < 0) | (slots[i] >= capacity)
    if beyond:  # rows would be marked as drawn that are somebody else's memory
        for i in range(slots.size):
            if slots[i] < 0 or slots[i] >= capacity:
                return i + 1
    return 0


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
                rows1[EIGHT * Place(slots[i]) * words + Place(layout[0, MARK])] |= DRAWN


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


@inner
def uniforms_of(numbers, count):
    """Return the next uniforms of a block of numbers, the first of which counts those used."""
    first = 1 + np.int64(numbers[0])
    return numbers[first : first + count]


@kernel
def sample_masses(
    tree, starts, numbers, stratified,
    drawn, rows, layout, newest, least, beta, largest, record, block,
):  # fmt: skip
    """Draw a batch by mass, see :func:`complete_batch`, and count the uniforms it takes."""
    slots = words_as(column_of(block, layout, SLOTS), np.int64)
    probabilities = words_as(column_of(block, layout, PROBABILITIES), np.float64)
    uniforms = uniforms_of(numbers, slots.size)
    draw_masses(tree, starts, uniforms, stratified, slots, probabilities)
    strange = complete_batch(drawn, rows, layout, newest, least, beta, largest, record, block)
    if not strange:
        numbers[0] += slots.size
    return strange


@kernel
def sample_ring(
    counters, numbers, stratified,
    drawn, rows, layout, newest, least, beta, largest, record, block,
):  # fmt: skip
    """Draw a batch uniformly, see :func:`complete_batch`, and count the uniforms it takes."""
    slots = words_as(column_of(block, layout, SLOTS), np.int64)
    probabilities = words_as(column_of(block, layout, PROBABILITIES), np.float64)
    uniforms = uniforms_of(numbers, slots.size)
    draw_ring(counters, layout[0, CAPACITY], uniforms, stratified, slots, probabilities)
    strange = complete_batch(drawn, rows, layout, newest, least, beta, largest, record, block)
    if not strange:
        numbers[0] += slots.size
    return strange


@kernel
def sample_rows(
    keys, cells, leaf_of, alpha, constant, table, numbers, stratified,
    drawn, rows, layout, newest, least, beta, largest, record, block,
):  # fmt: skip
    """Draw a batch by rank, see :func:`complete_batch`, and count the uniforms it takes.

    Returns -1, having drawn nothing, where the order is damaged.
    """
    slots = words_as(column_of(block, layout, SLOTS), np.int64)
    probabilities = words_as(column_of(block, layout, PROBABILITIES), np.float64)
    uniforms = uniforms_of(numbers, slots.size)
    scratch = words_as(block[layout[0, SLOTS] + slots.size :], np.int32)
    damaged = draw_rows(
        keys, cells, leaf_of, uniforms, stratified, alpha, constant, table, scratch, slots,
        probabilities,
    )  # fmt: skip
    if damaged:
        return -1
    strange = complete_batch(drawn, rows, layout, newest, least, beta, largest, record, block)
    if not strange:
        numbers[0] += slots.size
    return strange


# --- draws without rows -------------------------------------------------------------------
#
# Slots are written where ids shall be, and become those there.


@kernel
def complete_draw(
    numbers, marks, newest, capacity, least, beta, largest, record, probabilities, ids, weights
):
    """Turn slots that were drawn into ids, and write their weights.

    `marks`, see :mod:`._ring_kernels`, remembers what has been drawn; without elements, nothing is
    remembered but the sums of the weights. `numbers` counts the uniforms used. See
    :func:`complete_batch`, also for what is returned.
    """
    slots = ids
    strange = place_beyond(slots, capacity)
    if strange:
        return strange
    if marks.size:
        for i in range(slots.size):
            mark_drawn(marks, slots[i])
    ids_of(slots, newest, capacity, ids)
    importance_weights(probabilities, least, beta, largest, weights, words_as(record, np.float64))
    if marks.size:
        for i in range(slots.size):
            record[RECORD + i] = ids[i]
        record[COUNT] = slots.size
        record[DRAWS] += 1
        numbers[0] += slots.size
    return 0


@kernel
def draw_masses_alone(
    tree, starts, numbers, stratified,
    marks, newest, capacity, least, beta, largest, record, probabilities, ids, weights,
):  # fmt: skip
    """Draw by mass, see :func:`complete_draw`."""
    draw_masses(tree, starts, uniforms_of(numbers, ids.size), stratified, ids, probabilities)
    return complete_draw(
        numbers, marks, newest, capacity, least, beta, largest, record, probabilities, ids, weights
    )


@kernel
def draw_ring_alone(
    counters, numbers, stratified,
    marks, newest, capacity, least, beta, largest, record, probabilities, ids, weights,
):  # fmt: skip
    """Draw uniformly, see :func:`complete_draw`."""
    draw_ring(counters, capacity, uniforms_of(numbers, ids.size), stratified, ids, probabilities)
    return complete_draw(
        numbers, marks, newest, capacity, least, beta, largest, record, probabilities, ids, weights
    )


@kernel
def draw_rows_alone(
    keys, cells, leaf_of, alpha, constant, table, scratch, numbers, stratified,
    marks, newest, capacity, least, beta, largest, record, probabilities, ids, weights,
):  # fmt: skip
    """Draw by rank, see :func:`complete_draw`; `scratch` is int32[3 B].

    Returns -1, having drawn nothing, where the order is damaged.
    """
    damaged = draw_rows(
        keys, cells, leaf_of, uniforms_of(numbers, ids.size), stratified, alpha, constant, table,
        scratch, ids, probabilities,
    )  # fmt: skip
    if damaged:
        return -1
    return complete_draw(
        numbers, marks, newest, capacity, least, beta, largest, record, probabilities, ids, weights
    )
