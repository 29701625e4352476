"""The numbers of a ring of rows, and how a compiled loop gives a row its id.

`counters`, int64[8], holds all that is counted of a ring. A row's slot is its id modulo N. The live
rows have the ids max(FIRST, ISSUED - N) .. ISSUED - 1. A distribution knows those below TOLD; the
priorities of the others lie in `entering`, float64[a power of two], at their ids modulo its size.
"""

from __future__ import annotations

import numpy as np

from prioritized_replay.jit.compiling import inner, kernel
from prioritized_replay.jit.intrinsics import Place, words_as

ISSUED = 0  # ids given so far: the next row's id
FIRST = 1  # the id of the first row since the buffer was cleared
TOLD = 2  # rows with smaller ids are known to the distribution
STALE = 3  # updates that came too late: their rows were overwritten
LARGEST = 4  # the largest priority since the buffer was empty, bits of a float64
# The rest is for a ring of which only some rows can be drawn, such as first steps of sequences.
DRAWABLE = 5  # how many can be
LOGGED = 6  # changes of priorities that the distribution has not received
SEEN = 7  # steps with smaller ids are known to be first steps or not
COUNTERS = 8
THREE = Place(3)


@inner
def enter(counters, numbers, entering, priority):
    """Give the next id to a row that enters with this priority. There must be room for it.

    `numbers` is `counters`, seen as float64.
    """
    issued = counters[ISSUED]
    entering[issued & (entering.size - 1)] = priority
    numbers[LARGEST] = max(numbers[LARGEST], priority)
    counters[ISSUED] = issued + 1


@inner
def first_to_tell(counters, capacity):
    """Return the first live id that the distribution has not received."""
    return max(counters[TOLD], counters[ISSUED] - capacity)


@kernel
def checked_update(counters, ids, td_errors, eps, min_priority, most, capacity, slots, priorities):
    """Turn ids into slots and errors into priorities of rows still there.

    A priority is abs(td_error) + eps, and at least `min_priority`.

    Returns how many they are. But where an id was never issued or an error is not finite, returns
    -1 - i for its place i, ids first; where a priority of a live row is above `most`, -1 - B - i.
    """
    count = ids.size
    issued = counters[ISSUED]
    first = max(counters[FIRST], issued - capacity)
    # These loops look at everything without a branch, so they are vectorised. Where one has seen
    # something, others say where.
    wrong = False
    gone = False
    strange = False
    for i in range(count):
        wrong |= (ids[i] < 0) | (ids[i] >= issued)
        gone |= ids[i] < first
    for i in range(count):
        priority = abs(td_errors[i]) + eps
        strange |= not ((priority < np.inf) & (priority <= most))
    if wrong or strange:
        place = place_refused(ids, td_errors, eps, most, first, issued)
        if place < 0:
            return place
    turn = first - first % capacity  # one division: a live id is less than two turns above
    if not gone:
        for i in range(count):
            slot = ids[i] - turn
            slots[i] = slot - capacity if slot >= capacity else slot
            priorities[i] = max(abs(td_errors[i]) + eps, min_priority)
        return count
    live = 0
    for i in range(count):
        if ids[i] >= first:
            slot = ids[i] - turn
            slots[live] = slot - capacity if slot >= capacity else slot
            priorities[live] = max(abs(td_errors[i]) + eps, min_priority)
            live += 1
    return live


@inner
def place_refused(ids, td_errors, eps, most, first, issued):
    """Return what :func:`checked_update` does where it refuses, or 0."""
    count = ids.size
    for i in range(count):
        if ids[i] < 0 or ids[i] >= issued:
            return -1 - i
    for i in range(count):
        priority = abs(td_errors[i]) + eps
        if not priority < np.inf:
            return -1 - i
        if priority > most and ids[i] >= first:
            return -1 - count - i
    return 0


@inner
def count_update(counters, stale, largest):
    """Count updates that came too late, and remember the largest priority."""
    counters[STALE] += stale
    numbers = words_as(counters, np.float64)
    numbers[LARGEST] = max(numbers[LARGEST], largest)


@kernel
def priorities_of_errors(td_errors, eps, min_priority, most, priorities):
    """Write abs(td_error) + eps, at least `min_priority`, for each error.

    Returns -1, or the place of the first error that is not finite or whose priority is above
    `most`. The largest float64 as `most` lets all finite ones pass.
    """
    for i in range(td_errors.size):
        priority = abs(td_errors[i]) + eps
        if not priority <= most:
            return i
        priorities[i] = max(priority, min_priority)
    return -1


@kernel
def enter_items(counters, entering, marks, capacity, priorities):
    """Give the next ids to items with these priorities, and forget that their slots were drawn.

    There must be room for them: at most N, and as many as may wait.
    """
    numbers = words_as(counters, np.float64)
    forget_drawn(marks, counters[ISSUED], priorities.size, capacity)
    for i in range(priorities.size):
        enter(counters, numbers, entering, priorities[i])


# --- what has been drawn --------------------------------------------------------------------
#
# `marks`, uint8[N / 8], has a bit for each slot: bit slot % 8 of byte slot // 8. So it stays in the
# cache when a byte for each slot would not.


@inner
def mark_drawn(marks, slot):
    """Note that a slot was drawn."""
    marks[Place(slot) >> THREE] |= np.uint8(1 << (slot & 7))


@kernel
def forget_drawn(marks, first, count, capacity):
    """Forget that the slots of these ids were drawn: `count` of them, from `first` on."""
    slot = first % capacity
    for _ in range(count):
        marks[Place(slot) >> THREE] &= np.uint8(0xFF ^ (1 << (slot & 7)))
        slot = slot + 1 if slot + 1 < capacity else 0
