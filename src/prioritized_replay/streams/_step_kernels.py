"""Compiled loops that turn the staged steps of one call into transitions: see :mod:`.transitions`.

A kernel of this module looks first and changes later: whatever may be refused is refused while
nothing has changed, and when the kernel returns everything has. So a call that is interrupted in
Python has done all of its work or none.

`plan`, int64[8 (2 + columns)], says where everything is; see :class:`.Staging`, which makes it. Its
first two lines of 8 numbers hold what follows here, each further line one column.

`state`, int64[E * width], holds what is remembered of each stream: how many windows are open, the
place of its latest step, whether its next step is a reset step, and for each of n places the
rewards (float64) that the window which begins there has summed up, and its entry priority (float64,
NaN: the largest so far). The steps of stream e lie in a ring of n rows, e n .. e n + n - 1.
"""

from __future__ import annotations

import numpy as np

from prioritized_replay.jit.compiling import inner, kernel
from prioritized_replay.jit.intrinsics import EIGHT, ONE, ZERO, Place, words_as
from prioritized_replay.sampling._ring_kernels import FIRST, ISSUED, LARGEST, TOLD, enter

# Line 0 of a plan: rows. Words of a row; byte of its mark; rows N; steps n of a window; streams E;
# where the return lies, in units of so many bytes; where the discount lies, in units of 4 bytes.
WORDS, MARK, CAPACITY, STEPS, STREAMS, REWARD, REWARD_BYTES, DISCOUNT = 0, 1, 2, 3, 4, 5, 6, 7
# Line 1: byte of `terminated` in a row. Then the block: byte where flags begin, words where stream
# numbers, entry priorities, kept rows and float64 rewards begin. Gamma and the largest return, bits
# of float64.
TERMINATED, FLAGS, NAMED, ENTRIES, KEPT, REWARDS, GAMMA, LIMIT = 8, 9, 10, 11, 12, 13, 14, 15
# A column: bytes of a unit, units of a value, units of a row, unit of the row where it lies, unit
# of the block where it begins; word of the block where its float64 values begin, if it takes any;
# unit where it begins in `finals`, or -1; which observation it belongs to.
UNIT, COUNT, STRIDE, OFFSET, START, WIDE, FINAL, ROLE = 0, 1, 2, 3, 4, 5, 6, 7
COLUMNS = 2  # the first line of a column
PLAIN, OBS, NEXT_OBS = 0, 1, 2  # roles

# What is remembered of a stream.
OPEN, NEWEST, AWAITING, TOTALS = 0, 1, 2, 3
NO_RESET, RESET, RESTARTED = 0, 1, 2  # values of AWAITING; the last: the caller may have reset

# What a call may be refused for; see `refusal`.
TOO_LARGE, CONTRADICTION, NO_FIT, NO_ROOM = 0, 1, 2, 3
LARGEST_FLOAT32 = float(np.finfo(np.float32).max)


@inner
def refusal(kind, place):
    """Return what stands for an error: its kind and the row or column to blame, below 0."""
    return -1 - (4 * place + kind)


@inner
def narrow(block, plan, count, wide):
    """Round the float64 values that came for float32 columns; return a refusal, or 0.

    Bit i of `wide` says whether those of column i did.
    """
    if wide == 0:
        return 0
    block8 = words_as(block, np.float64)
    block4 = words_as(block, np.float32)
    for line in range(COLUMNS, plan.size >> 3):
        column = 8 * line
        if (wide >> (line - COLUMNS)) & 1:
            source = Place(plan[column + WIDE])
            floats = plan[column + UNIT] // 4  # in a unit
            target = Place(plan[column + START] * floats)
            for i in range(Place(count * plan[column + COUNT] * floats)):
                value = block8[source + i]
                if abs(value) > LARGEST_FLOAT32 and abs(value) < np.inf:
                    return refusal(NO_FIT, line - COLUMNS)
                block4[target + i] = np.float32(value)
    return 0


@inner
def equals_final(block, finals, plan, k, stream):
    """Return whether row k begins where the last episode of its stream ended, bit for bit."""
    block4, finals4 = words_as(block, np.uint32), words_as(finals, np.uint32)
    block1, finals1 = words_as(block, np.uint8), words_as(finals, np.uint8)
    for line in range(COLUMNS, plan.size >> 3):
        column = 8 * line
        if plan[column + ROLE] != OBS or plan[column + FINAL] < 0:
            continue
        count = plan[column + COUNT]
        here = plan[column + START] + k * count
        there = plan[column + FINAL] + stream * count
        unit = plan[column + UNIT]
        for i in range(count):
            if unit == 8:
                same = block[here + i] == finals[there + i]
            elif unit == 4:
                same = block4[here + i] == finals4[there + i]
            else:
                same = block1[here + i] == finals1[there + i]
            if not same:
                return False
    return True


@inner
def keep_finals(block, finals, plan, k, stream):
    """Remember where an episode ended."""
    block4, finals4 = words_as(block, np.uint32), words_as(finals, np.uint32)
    block1, finals1 = words_as(block, np.uint8), words_as(finals, np.uint8)
    for line in range(COLUMNS, plan.size >> 3):
        column = 8 * line
        if plan[column + ROLE] != NEXT_OBS or plan[column + FINAL] < 0:
            continue
        count = plan[column + COUNT]
        here = plan[column + START] + k * count
        there = plan[column + FINAL] + stream * count
        unit = plan[column + UNIT]
        for i in range(count):
            if unit == 8:
                finals[there + i] = block[here + i]
            elif unit == 4:
                finals4[there + i] = block4[here + i]
            else:
                finals1[there + i] = block1[here + i]


@inner
def reward_of(block, plan, k):
    """Return the reward of row k as its column has it, float64."""
    if plan[REWARD_BYTES] == 4:
        return np.float64(words_as(block, np.float32)[plan[REWARDS] + k])
    return words_as(block, np.float64)[plan[REWARDS] + k]


@inner
def stream_of(block, plan, named, k):
    """Return the stream whose step row k is."""
    return np.int64(block[plan[NAMED] + k]) if named else k


@inner
def look(block, plan, state, finals, powers, count, named, next_step):
    """Find the rows of a call that are steps; return how many transitions they make, or a refusal.

    The places of those rows are written to the block behind KEPT, and their number there. The word
    before it is set to 1 when the call has done its work.

    In mode "next_step", the row after an episode's end is a reset step if it begins where the
    episode ended, ends nothing and has no reward. Any other is a step of a caller who has reset the
    environment. Where only the reward speaks against a reset step, one of the two is wrong: that is
    refused, unless the caller has said that episodes were cut short.
    """
    block1 = words_as(block, np.uint8)
    n_step = plan[STEPS]
    streams = plan[STREAMS]
    width = state.size // streams
    totals = words_as(state, np.float64)
    limit = words_as(plan, np.float64)[LIMIT]
    kept = 0
    rows = 0
    for k in range(count):
        stream = stream_of(block, plan, named, k)
        memory = stream * width
        flags = plan[FLAGS] + k
        ended = block1[flags] | block1[flags + streams]
        maybe = next_step and state[memory + AWAITING] and not ended
        if maybe and block1[flags + 2 * streams] and equals_final(block, finals, plan, k, stream):
            if reward_of(block, plan, k) == 0.0:
                continue
            if state[memory + AWAITING] == RESET:
                return refusal(CONTRADICTION, k)
        block[plan[KEPT] + 1 + kept] = np.uint64(k)
        kept += 1
        if n_step == 1:
            continue
        waiting = max(min(state[memory + OPEN], n_step - 1), 0)
        newest = state[memory + NEWEST]
        reward = reward_of(block, plan, k)
        for j in range(waiting):  # the oldest window is j = 0
            place = (newest - (waiting - 1 - j) + n_step) % n_step
            before = totals[memory + TOTALS + place]
            after = before + powers[waiting - j] * reward
            if abs(after) > limit and abs(before) < np.inf and abs(reward) < np.inf:
                return refusal(TOO_LARGE, k)
        if ended:
            rows += waiting + 1
        elif waiting + 1 >= n_step:
            rows += 1
    block[plan[KEPT]] = np.uint64(kept)
    return kept if n_step == 1 else rows


@inner
def remember_ends(block, plan, state, finals, count, named):
    """Remember which streams have to be reset, and where their episodes ended."""
    block1 = words_as(block, np.uint8)
    streams = plan[STREAMS]
    width = state.size // streams
    for k in range(count):
        stream = stream_of(block, plan, named, k)
        flags = plan[FLAGS] + k
        ended = block1[flags] | block1[flags + streams]
        state[stream * width + AWAITING] = RESET if ended else NO_RESET
        if ended:
            keep_finals(block, finals, plan, k, stream)


@inner
def write_column(block, rows, plan, column, k, slot):
    """Copy one value from the block to a row; all three are seen as units of its size."""
    count = Place(plan[column + COUNT])
    source = Place(plan[column + START]) + Place(k) * count
    target = Place(slot) * Place(plan[column + STRIDE]) + Place(plan[column + OFFSET])
    if count == ONE:
        rows[target] = block[source]
    else:
        for i in range(count):
            rows[target + i] = block[source + i]


@inner
def write_row(block, rows, plan, k, slot):
    """Copy all values of row k of the block to a row of the ring, or of the steps."""
    block4, rows4 = words_as(block, np.uint32), words_as(rows, np.uint32)
    block1, rows1 = words_as(block, np.uint8), words_as(rows, np.uint8)
    for line in range(COLUMNS, plan.size >> 3):
        column = 8 * line
        unit = plan[column + UNIT]
        if unit == 8:
            write_column(block, rows, plan, column, k, slot)
        elif unit == 4:
            write_column(block4, rows4, plan, column, k, slot)
        else:
            write_column(block1, rows1, plan, column, k, slot)
    rows1[EIGHT * Place(slot) * Place(plan[WORDS]) + Place(plan[MARK])] = 0


@inner
def write_end(rows, plan, slot, discount, is_terminated):
    """Write the discount of a row, and whether its window ended in termination."""
    words = Place(slot) * Place(plan[WORDS])
    words_as(rows, np.float32)[(words << ONE) + Place(plan[DISCOUNT])] = np.float32(discount)
    words_as(rows, np.uint8)[(words << Place(3)) + Place(plan[TERMINATED])] = is_terminated


@inner
def write_return(rows, plan, slot, value):
    """Write an n-step return, rounded to its column."""
    words = Place(slot) * Place(plan[WORDS])
    size = plan[REWARD_BYTES]
    if size == 4:
        words_as(rows, np.float32)[(words << ONE) + Place(plan[REWARD])] = np.float32(value)
    elif size == 8:
        words_as(rows, np.float64)[words + Place(plan[REWARD])] = value
    else:
        words_as(rows, np.uint16)[(words << Place(2)) + Place(plan[REWARD])] = half_bits(value)


@kernel
def half_bits(value):
    """Return the bits of a float16, rounded to the nearest, ties to even; numba has none."""
    size = abs(value)
    sign = (
        np.uint16(0x8000) if value < 0.0 or (value == 0.0 and 1.0 / value < 0.0) else np.uint16(0)
    )
    if size != size:
        return np.uint16(0x7E00)
    if size >= 65520.0:  # halfway to the next power of two
        return np.uint16(sign | np.uint16(0x7C00))
    exponent = -14
    while exponent < 15 and size >= 2.0 ** (exponent + 1):
        exponent += 1
    scaled = size / 2.0 ** (exponent - 10)
    whole = np.floor(scaled)
    rest = scaled - whole
    number = np.int64(whole)
    if rest > 0.5 or (rest == 0.5 and number & 1):
        number += 1
    # A number of 11 bits or more carries into the exponent, as it must.
    bits = number + ((exponent + 14) << 10) if number >= 1024 or exponent > -14 else number
    return np.uint16(sign | np.uint16(bits))


@inner
def entry_of(given, entry, largest):
    """Return the priority that a row enters with, where `given` is its own or NaN.

    `largest` is the largest so far, or below 0 in an empty buffer, where `entry` takes its place.
    """
    if given == given:
        return given
    return largest if largest >= 0.0 else entry


@inner
def first_entry(counters, entry):
    """Return the priority of a new row: `entry`, or where that is < 0 the largest so far, or 1."""
    if entry >= 0.0:
        return entry
    if counters[ISSUED] == counters[FIRST]:
        return 1.0
    return words_as(counters, np.float64)[LARGEST]


@kernel
def look_at_steps(block, plan, state, finals, powers, count, wide, named, next_step):
    """Do only what :func:`look` does, for a caller who has to make room before the steps enter."""
    refused = narrow(block, plan, count, wide)
    if refused:
        return refused
    return look(block, plan, state, finals, powers, count, named, next_step)


@kernel
def add_row(block, plan, rows, counters, entering, given, entry):
    """Make one staged step of a single stream a transition of one step; return its id, or < 0.

    All that it has must fit. The only refusal is that `entering` has no room.
    """
    issued = counters[ISSUED]
    if issued < 0 or issued - counters[TOLD] >= entering.size:
        return -1
    slot = issued % plan[CAPACITY]
    gamma = words_as(plan, np.float64)[GAMMA]
    is_terminated = words_as(block, np.uint8)[plan[FLAGS]]
    write_row(block, rows, plan, ZERO, slot)
    write_end(rows, plan, slot, 0.0 if is_terminated else gamma, is_terminated)
    enter(counters, entering, given if given == given else first_entry(counters, entry))
    return issued


@kernel
def add_steps(
    block, plan, rows, state, finals, powers, counters, entering,
    count, wide, named, next_step, with_errors, entry,
):  # fmt: skip
    """Make each staged step a transition of one step; return how many, or a refusal."""
    refused = narrow(block, plan, count, wide)
    if refused:
        return refused
    made = look(block, plan, state, finals, powers, count, named, next_step)
    if made < 0:
        return made
    if counters[ISSUED] - counters[TOLD] + made > entering.size:
        return refusal(NO_ROOM, 0)
    block1 = words_as(block, np.uint8)
    given = words_as(block, np.float64)
    gamma = words_as(plan, np.float64)[GAMMA]
    capacity = plan[CAPACITY]
    entry = first_entry(counters, entry)
    largest = -1.0 if counters[ISSUED] == counters[FIRST] else entry
    for i in range(made):
        k = np.int64(block[plan[KEPT] + 1 + i])
        slot = counters[ISSUED] % capacity
        is_terminated = block1[plan[FLAGS] + k]
        write_row(block, rows, plan, k, slot)
        write_end(rows, plan, slot, 0.0 if is_terminated else gamma, is_terminated)
        own = given[plan[ENTRIES] + k] if with_errors else np.nan
        if i < made - capacity:
            counters[ISSUED] += 1  # it gives way in this very call
        else:
            priority = entry_of(own, entry, largest)
            largest = max(largest, priority)
            enter(counters, entering, priority)
    if next_step:
        remember_ends(block, plan, state, finals, count, named)
    block[plan[KEPT] - 1] = np.uint64(1)
    return made


@inner
def close_window(
    rows, steps, plan, state, powers, counters, entering, stream, place, newest, length,
    is_terminated, entry, largest, passing,
):  # fmt: skip
    """Make the window that begins at `place` a transition; return the largest priority so far.

    Where `passing`, it gives way in this very call, and its priority does not count.
    """
    n_step = plan[STEPS]
    memory = stream * (state.size // plan[STREAMS])
    slot = counters[ISSUED] % plan[CAPACITY]
    source = stream * n_step + place
    last = stream * n_step + newest
    words = Place(plan[WORDS])
    for word in range(words):
        rows[Place(slot) * words + word] = steps[Place(source) * words + word]
    if source != last:
        rows4, steps4 = words_as(rows, np.uint32), words_as(steps, np.uint32)
        rows1, steps1 = words_as(rows, np.uint8), words_as(steps, np.uint8)
        for line in range(COLUMNS, plan.size >> 3):
            column = 8 * line
            if plan[column + ROLE] != NEXT_OBS:
                continue
            unit = plan[column + UNIT]
            if unit == 8:
                copy_column(rows, steps, plan, column, last, slot)
            elif unit == 4:
                copy_column(rows4, steps4, plan, column, last, slot)
            else:
                copy_column(rows1, steps1, plan, column, last, slot)
    numbers = words_as(state, np.float64)
    write_return(rows, plan, slot, numbers[memory + TOTALS + place])
    write_end(rows, plan, slot, 0.0 if is_terminated else powers[length], is_terminated)
    words_as(rows, np.uint8)[EIGHT * Place(slot) * words + Place(plan[MARK])] = 0
    if passing:
        counters[ISSUED] += 1
        return largest
    priority = entry_of(numbers[memory + TOTALS + n_step + place], entry, largest)
    enter(counters, entering, priority)
    return max(largest, priority)


@inner
def copy_column(rows, steps, plan, column, source, slot):
    """Copy one column from a row of the steps to a row of the ring."""
    stride = Place(plan[column + STRIDE])
    offset = Place(plan[column + OFFSET])
    for i in range(Place(plan[column + COUNT])):
        rows[Place(slot) * stride + offset + i] = steps[Place(source) * stride + offset + i]


@kernel
def add_windows(
    block, plan, rows, steps, state, finals, powers, counters, entering,
    count, wide, named, next_step, with_errors, entry,
):  # fmt: skip
    """Take each staged step and close the windows that it completes; return how many, or refuse.

    Rows are made stream by stream in the order of the call, of each stream the oldest window first.
    """
    refused = narrow(block, plan, count, wide)
    if refused:
        return refused
    made = look(block, plan, state, finals, powers, count, named, next_step)
    if made < 0:
        return made
    if counters[ISSUED] - counters[TOLD] + made > entering.size:
        return refusal(NO_ROOM, 0)
    block1 = words_as(block, np.uint8)
    given = words_as(block, np.float64)
    n_step = plan[STEPS]
    streams = plan[STREAMS]
    width = state.size // streams
    numbers = words_as(state, np.float64)
    entry = first_entry(counters, entry)
    largest = -1.0 if counters[ISSUED] == counters[FIRST] else entry
    first_kept = counters[ISSUED] + made - plan[CAPACITY]
    for i in range(np.int64(block[plan[KEPT]])):
        k = np.int64(block[plan[KEPT] + 1 + i])
        stream = stream_of(block, plan, named, k)
        memory = stream * width
        flags = plan[FLAGS] + k
        is_terminated = block1[flags]
        reward = reward_of(block, plan, k)
        waiting = max(min(state[memory + OPEN], n_step - 1), 0)
        newest = state[memory + NEWEST]
        for j in range(waiting):
            place = (newest - (waiting - 1 - j) + n_step) % n_step
            numbers[memory + TOTALS + place] += powers[waiting - j] * reward
        newest = (newest + 1) % n_step
        waiting += 1
        write_row(block, steps, plan, k, stream * n_step + newest)
        numbers[memory + TOTALS + newest] = reward
        numbers[memory + TOTALS + n_step + newest] = (
            given[plan[ENTRIES] + k] if with_errors else np.nan
        )
        ended = is_terminated | block1[flags + streams]
        closing = waiting if ended else int(waiting == n_step)
        for j in range(closing):
            place = (newest - (waiting - 1 - j) + n_step) % n_step
            largest = close_window(
                rows, steps, plan, state, powers, counters, entering, stream, place, newest,
                waiting - j, is_terminated, entry, largest, counters[ISSUED] < first_kept,
            )  # fmt: skip
        state[memory + OPEN] = waiting - closing
        state[memory + NEWEST] = newest
    if next_step:
        remember_ends(block, plan, state, finals, count, named)
    block[plan[KEPT] - 1] = np.uint64(1)
    return made


@kernel
def interrupt(
    block, plan, rows, steps, state, powers, counters, entering, count, named, entry,
):  # fmt: skip
    """Close all open windows of these streams where they are; return how many.

    Streams that wait for a reset step may have been restarted by the caller.
    """
    n_step = plan[STEPS]
    width = state.size // plan[STREAMS]
    entry = first_entry(counters, entry)
    largest = -1.0 if counters[ISSUED] == counters[FIRST] else entry
    made = 0
    if n_step > 1:
        for k in range(count):
            waiting = state[stream_of(block, plan, named, k) * width + OPEN]
            made += max(min(waiting, n_step - 1), 0)
    if counters[ISSUED] - counters[TOLD] + made > entering.size:
        return refusal(NO_ROOM, 0)
    first_kept = counters[ISSUED] + made - plan[CAPACITY]
    for k in range(count):
        stream = stream_of(block, plan, named, k)
        memory = stream * width
        if state[memory + AWAITING]:
            state[memory + AWAITING] = RESTARTED
        if n_step == 1:
            continue
        waiting = min(state[memory + OPEN], n_step - 1)
        newest = state[memory + NEWEST]
        for j in range(waiting):
            place = (newest - (waiting - 1 - j) + n_step) % n_step
            largest = close_window(
                rows, steps, plan, state, powers, counters, entering, stream, place, newest,
                waiting - j, np.uint8(0), entry, largest, counters[ISSUED] < first_kept,
            )  # fmt: skip
        state[memory + OPEN] = 0
    return made


@kernel
def copy_rows(rows, words, size, counters, capacity):
    """Copy complete rows of `size` words each to the slots that come next, modulo N."""
    first = counters[ISSUED]
    for row in range(words.size // size):
        target = Place((first + row) % capacity) * Place(size)
        source = Place(row) * Place(size)
        for word in range(Place(size)):
            rows[target + word] = words[source + word]
