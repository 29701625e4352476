"""Compiled loops that walk along sequences, and fill a batch of them."""

from __future__ import annotations

import numpy as np

from prioritized_replay.batches._batch_kernels import (
    CAPACITY,
    IDS,
    MARK,
    PROBABILITIES,
    SLOTS,
    WEIGHTS,
    WORDS,
    column_of,
    gather_rows,
    ids_of,
    importance_weights,
    place_beyond,
)
from prioritized_replay.jit.compiling import inner, kernel
from prioritized_replay.jit.intrinsics import EIGHT, ONE, ZERO, Place, prefetch, words_as
from prioritized_replay.sampling._draw_kernels import COUNT, DRAWS, RECORD
from prioritized_replay.storage.marks import BEGINS, DRAWN

LARGE, SCALE = 2.0**900, 2.0**-100


@inner
def fetch_steps(rows, layout, ahead, starts, steps):
    """Ask for the rows of sequences before they are looked at, as far as one can guess where.

    A stream goes on most often as many rows later as it did the last time.
    """
    capacity, words, mark = layout[0, CAPACITY], layout[0, WORDS], layout[0, MARK] >> 3
    if ahead.size:
        for b in range(starts.size):
            prefetch(ahead, Place(max(starts[b], 0)))
    for b in range(starts.size):
        slot = max(starts[b], 0)
        hop = min(np.int64(ahead[slot]), capacity - 1) if ahead.size else np.int64(1)
        for _ in range(steps):
            prefetch(rows, Place(slot * words + mark))
            if ahead.size:
                prefetch(ahead, Place(slot))
            slot += hop
            if slot >= capacity:
                slot -= capacity


@kernel
def walk(rows, layout, ahead, newest, stop, starts, slots):
    """Write the slots of T steps from each start on, -1 where there are no more; `slots` [B, T].

    `newest` is the slot of the latest row. Whatever `ahead` holds, each slot is one that there is.
    """
    rows1 = words_as(rows, np.uint8)
    size, mark = EIGHT * Place(layout[0, WORDS]), Place(layout[0, MARK])
    capacity = Place(layout[0, CAPACITY])
    fetch_steps(rows, layout, ahead, starts, slots.shape[1])
    for b in range(starts.size):
        slots[b, 0] = starts[b]
    # Step by step for all, so that their cache misses overlap. A function for one step, which is
    # given arrays, takes three times as long: arrays are counted when they are handed over.
    for t in range(1, slots.shape[1]):
        for b in range(starts.size):
            slot = slots[b, t - 1]
            goes_on = slot >= 0
            further = Place(slot)
            if goes_on:
                hop = ONE
                if ahead.size:
                    hop = Place(ahead[further])
                    goes_on = ZERO < hop < capacity
                else:
                    goes_on = slot != newest
                if goes_on:
                    further += hop
                    if further >= capacity:
                        further -= capacity
                    goes_on = not (stop and rows1[further * size + mark] & BEGINS)
            slots[b, t] = np.int64(further) if goes_on else np.int64(-1)


@kernel
def complete_sequences(
    drawn, rows, layout, ahead, newest, stop, least, beta, largest, record, block, slots, flags
):
    """Fill the block of a batch of sequences of which the first slots and probabilities are there.

    `slots`, int64[B, T], is scratch. `flags`, bool[2, B, T], receives which steps are real, and
    which are the first of an episode. See :func:`complete_batch`, also for what is returned.
    """
    starts = words_as(column_of(block, layout, SLOTS), np.int64)
    ids = words_as(column_of(block, layout, IDS), np.int64)
    probabilities = words_as(column_of(block, layout, PROBABILITIES), np.float64)
    weights = words_as(column_of(block, layout, WEIGHTS), np.float32)[: starts.size]
    capacity = layout[0, CAPACITY]
    strange = place_beyond(starts, capacity)
    if strange:
        return strange
    rows1 = words_as(rows, np.uint8)
    size, mark = 8 * layout[0, WORDS], layout[0, MARK]
    walk(rows, layout, ahead, newest % capacity, stop, starts, slots)
    steps = slots.shape[1]
    padded = False
    for b in range(starts.size):
        for t in range(steps):
            real = slots[b, t] >= 0
            flags[0, b, t] = real
            if not real:
                slots[b, t] = starts[b]  # any row that is in the cache; see below
                padded = True
            flags[1, b, t] = real and (rows1[slots[b, t] * size + mark] & BEGINS) != 0
    gather_rows(rows, slots.reshape(starts.size * steps), layout, False, block)
    if padded:
        clear_padding(layout, block, flags)
    ids_of(starts, newest, capacity, ids)
    importance_weights(probabilities, least, beta, largest, weights, words_as(record, np.float64))
    if drawn:
        for b in range(starts.size):
            rows1[starts[b] * size + mark] |= DRAWN
            record[RECORD + b] = ids[b]
        record[COUNT] = starts.size
        record[DRAWS] += 1
    return 0


@inner
def clear_padding(layout, block, flags):
    """Set all values to 0 of steps that are not real."""
    block1 = words_as(block, np.uint8)
    for line in range(1, layout.shape[0]):
        unit, count, column = layout[line, 0], layout[line, 1], layout[line, 4]
        size = unit * count
        for b in range(flags.shape[1]):
            for t in range(flags.shape[2]):
                if not flags[0, b, t]:
                    first = unit * column + (b * flags.shape[2] + t) * size
                    for k in range(first, first + size):
                        block1[k] = 0


@kernel
def mix_errors(slots, td_errors, burn_in, mix, errors):
    """Write one error for each sequence: `mix` of the largest, the rest of the mean, of its errors.

    Those of real steps after the burn-in count; of a sequence that has none, those of all its real
    steps. `slots`, int64[B, T], is -1 where a step is not real. A sequence that is gone has no real
    step, and the error 0. One that is not finite stands for the sequence.
    """
    for b in range(td_errors.shape[0]):
        steps = 0
        while steps < slots.shape[1] and slots[b, steps] >= 0:
            steps += 1
        first = burn_in if steps > burn_in else 0
        largest = 0.0
        strange = -1
        for t in range(first, steps):
            error = abs(td_errors[b, t])
            if not error < np.inf:
                strange = t
                break
            largest = max(largest, error)
        if strange >= 0:
            errors[b] = td_errors[b, strange]
            continue
        scale = SCALE if largest > LARGE else 1.0  # the sum must not overflow
        total = 0.0
        for t in range(first, steps):
            total += scale * abs(td_errors[b, t])
        mean = total / max(steps - first, 1) / scale
        errors[b] = mix * largest + (1.0 - mix) * mean
