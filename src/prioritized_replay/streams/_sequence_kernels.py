"""Compiled loops that follow the steps of each stream and let complete sequences be drawn.

A sequence is named by its first step: what can be drawn are the rows of those. Rows have been
written and have their ids when :func:`follow_steps` looks at them; it does all of its work in one
call, and nothing if it is called again.

`lines`, int64[E * (RECENT + T)], holds what is remembered of each stream: the number of steps of
its episode so far (of all its steps where sequences cross ends), the id of its latest step or -1,
whether its next step is the first of an episode, and the ids of its last T steps in a ring.

`ahead`, uint32[N], says of each row how many ids later its stream goes on, 0 while it has not. With
a single stream that is always the next id, and the array is empty.

Columns that are kept once for a sequence lie packed as words: `given`, those of the steps of the
call; `waiting`, those of the last T steps of each stream; `pool`, those of sequences that can be
drawn. `holders`, int32[N], has one more than the place in the pool where a row begins a sequence,
else 0. `free`, int64[1 + places], is a stack of free places, its height first. All are empty where
there are no such columns.
"""

from __future__ import annotations

import numpy as np

from prioritized_replay.jit.compiling import inner, kernel
from prioritized_replay.jit.intrinsics import words_as
from prioritized_replay.sampling._live_kernels import log_priority, put_in, take_out
from prioritized_replay.sampling._ring_kernels import FIRST, ISSUED, LARGEST, SEEN
from prioritized_replay.storage.marks import BEGINS
from prioritized_replay.streams._step_kernels import (
    FLAGS,
    KEPT,
    MARK,
    NAMED,
    STREAMS,
    WORDS,
)

COUNT, NEWEST, FRESH, RECENT = 0, 1, 2, 3  # what is remembered of a stream


@inner
def let_in(
    first, counters, log, present, counts, starts, waiting, pool, holders, free, place, entry
):
    """Let the sequence be drawn that begins at the step of this id, if that is still there.

    `place` is where the columns of that step wait that are kept once.
    """
    capacity = present.size
    if first < max(counters[FIRST], counters[ISSUED] - capacity):
        return
    slot = first % capacity
    if holders.size and free[0] > 0:
        kept = free[free[0]]
        free[0] -= 1
        holders[slot] = kept + 1
        size = pool.size // (free.size - 1)
        for word in range(size):
            pool[kept * size + word] = waiting[place * size + word]
    put_in(present, counts, starts, counters, slot)
    log_priority(counters, log, slot, entry)
    numbers = words_as(counters, np.float64)
    numbers[LARGEST] = max(numbers[LARGEST], entry)


@inner
def let_go(slot, counters, log, present, counts, starts, holders, free):
    """Let the sequence be drawn no more that began at a row which is overwritten."""
    if present[slot] != 0:
        take_out(present, counts, starts, counters, slot)
        log_priority(counters, log, slot, -1.0)
    if holders.size and holders[slot] != 0:
        free[0] += 1
        free[free[0]] = holders[slot] - 1
        holders[slot] = 0


@inner
def last_start(steps, length, stride):
    """Return at which step the last sequence of an episode begins, or -1 if it is complete."""
    if steps <= 0:
        return -1
    if steps < length:
        return 0
    return -1 if (steps - length) % stride == 0 else steps - length


@kernel
def follow_steps(
    block, plan, rows, counters, log, present, counts, starts, lines, ahead,
    given, waiting, pool, holders, free, named, stream, ended, offset, length, stride, stop, entry,
):  # fmt: skip
    """Look at all rows that have got an id since the last call.

    Parameters
    ----------
    named : bool
        Whether the staged call says whose its steps are.
    stream : int
        The stream of all of them, or -1: they are the staged steps that were kept.
    ended : bool
        Whether the last of them ends an episode, if they are of one stream.
    offset : int
        The place of the first of them in `given`, if they are of one stream.
    length, stride : int
        Steps of a sequence, and from one beginning to the next.
    stop : bool
        Whether sequences stop where an episode does.
    entry : float
        The priority with which sequences enter.
    """
    capacity = present.size
    rows1, block1 = words_as(rows, np.uint8), words_as(block, np.uint8)
    width = RECENT + length
    issued = counters[ISSUED]
    oldest = max(counters[FIRST], issued - capacity)
    state_words = waiting.size // (length * (lines.size // width))
    first = counters[SEEN]
    for i in range(issued - first):
        identifier = first + i
        if stream < 0:
            k = np.int64(block[plan[KEPT] + 1 + i])
            line = width * (np.int64(block[plan[NAMED] + k]) if named else k)
            is_end = (block1[plan[FLAGS] + k] | block1[plan[FLAGS] + plan[STREAMS] + k]) != 0
        else:
            k = offset + i
            line = width * stream
            is_end = ended and identifier == issued - 1
        if identifier >= oldest:
            slot = identifier % capacity
            let_go(slot, counters, log, present, counts, starts, holders, free)
            if lines[line + FRESH]:
                rows1[8 * slot * plan[WORDS] + plan[MARK]] |= BEGINS
            if ahead.size:
                ahead[slot] = 0
                newest = lines[line + NEWEST]
                if newest >= oldest:
                    ahead[newest % capacity] = identifier - newest
        steps = lines[line + COUNT]
        lines[line + RECENT + steps % length] = identifier
        place = line // width * length
        for word in range(state_words):
            target = (place + steps % length) * state_words + word
            waiting[target] = given[k * state_words + word]
        steps += 1
        begin = np.int64(-1)
        if steps >= length and (steps - length) % stride == 0:
            begin = steps - length
        elif stop and is_end:
            begin = last_start(steps, length, stride)
        if begin >= 0:
            at = begin % length
            let_in(
                lines[line + RECENT + at], counters, log, present, counts, starts, waiting, pool,
                holders, free, place + at, entry,
            )  # fmt: skip
        lines[line + COUNT] = 0 if stop and is_end else steps
        lines[line + NEWEST] = identifier
        lines[line + FRESH] = is_end
    counters[SEEN] = issued


@kernel
def end_episodes(
    streams, counters, log, present, counts, starts, lines, waiting, pool, holders, free,
    length, stride, stop, entry,
):  # fmt: skip
    """End the episodes of these streams at their latest steps, as far as they have not ended."""
    width = RECENT + length
    for i in range(streams.size):
        line = width * streams[i]
        if lines[line + FRESH]:
            continue
        lines[line + FRESH] = 1
        if not stop:
            continue
        begin = last_start(lines[line + COUNT], length, stride)
        lines[line + COUNT] = 0
        if begin >= 0:
            at = begin % length
            let_in(
                lines[line + RECENT + at], counters, log, present, counts, starts, waiting, pool,
                holders, free, streams[i] * length + at, entry,
            )  # fmt: skip
