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
from prioritized_replay.storage.marks import TRUNCATED

# Line 0 of a plan: rows. Words of a row; byte of its marks; rows N; steps n of a window; streams E;
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
LARGEST_FLOAT32 = float(np.nextafter(2.0**128 - 2.0**103, 0.0))  # as fields/field.py has it


@inner
def refusal(kind, place):
    """Return what stands for an error: its kind and the row or column to blame, below 0."""
    return -1 - (4 * place + kind)


@inner
def narrow(block, plan, count, wide):
    """Round the float64 values that came for float32 columns; return a refusal, or 0.

    Bit i < 63 of `wide` says whether those of column i did; those of later columns never do.
    """
    if wide == 0:
        return 0
    block8 = words_as(block, np.float64)
    block4 = words_as(block, np.float32)
    for line in range(COLUMNS, min(plan.size >> 3, COLUMNS + 63)):
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
def reward_of(block4, block8, plan, k):
    """Return the reward of row k as its column has it, float64; the block seen as floats."""
    if plan[REWARD_BYTES] == 4:
        return np.float64(block4[plan[REWARDS] + k])
    return block8[plan[REWARDS] + k]


@inner
def steps_before(newest, back, n_step):
    """Return the place of the step so many < n before the newest; a division takes far longer."""
    place = newest - back
    return place + n_step if place < 0 else place


@inner
def stream_of(block, plan, named, k):
    """Return the stream whose step row k is."""
    return np.int64(block[plan[NAMED] + k]) if named else k


@inner
def look(block, plan, state, finals, powers, count, named, next_step):
    """Find the rows of a call that are steps; return how many transitions they make, or a refusal.

    The places of those rows are written to the block behind KEPT, and their number there. The word
    before it is set to 1 when the call has done its work. E words behind each place, a later step
    of the work writes the row where its values go.

    In mode "next_step", the row after an episode's end is a reset step if it begins where the
    episode ended, ends nothing and has no reward. Any other is a step of a caller who has reset the
    environment. Where only the reward speaks against a reset step, one of the two is wrong: that is
    refused, unless the caller has said that episodes were cut short.
    """
    block1 = words_as(block, np.uint8)
    block4, block8 = words_as(block, np.float32), words_as(block, np.float64)
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
            if reward_of(block4, block8, plan, k) == 0.0:
                continue
            if state[memory + AWAITING] == RESET:
                return refusal(CONTRADICTION, k)
        block[plan[KEPT] + 1 + kept] = np.uint64(k)
        kept += 1
        if n_step == 1:
            continue
        waiting = max(min(state[memory + OPEN], n_step - 1), 0)
        newest = max(min(state[memory + NEWEST], n_step - 1), 0)
        reward = reward_of(block4, block8, plan, k)
        for j in range(waiting):  # the oldest window is j = 0
            place = steps_before(newest, waiting - 1 - j, n_step)
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
def write_column(places, block, rows, plan, column, count):
    """Copy one column of the kept rows; block and rows are seen as units of its size.

    `places` is the block as words: from it come the numbers of these rows, and where each goes.
    """
    size = Place(plan[column + COUNT])
    start, stride = Place(plan[column + START]), Place(plan[column + STRIDE])
    offset = Place(plan[column + OFFSET])
    kept = Place(plan[KEPT]) + ONE
    targets = kept + Place(plan[STREAMS])
    if size == ONE:
        for i in range(Place(count)):
            rows[places[targets + i] * stride + offset] = block[start + places[kept + i]]
        return
    for i in range(Place(count)):
        source = start + places[kept + i] * size
        target = places[targets + i] * stride + offset
        for unit in range(size):
            rows[target + unit] = block[source + unit]


@inner
def write_rows(block, rows, plan, count):
    """Copy the values of the kept rows to rows of the ring, or of the steps, column by column.

    A row is where the word behind it among `targets` says, see :func:`write_column`. Many rows of
    one column in a row take half the time of many columns of one row: what is said of a column is
    read once, and the memory is looked at as one dtype.
    """
    block4, rows4 = words_as(block, np.uint32), words_as(rows, np.uint32)
    block1, rows1 = words_as(block, np.uint8), words_as(rows, np.uint8)
    for line in range(COLUMNS, plan.size >> 3):
        column = 8 * line
        unit = plan[column + UNIT]
        if unit == 8:
            write_column(block, block, rows, plan, column, count)
        elif unit == 4:
            write_column(block, block4, rows4, plan, column, count)
        else:
            write_column(block, block1, rows1, plan, column, count)
    targets = Place(plan[KEPT]) + ONE + Place(plan[STREAMS])
    size, mark = EIGHT * Place(plan[WORDS]), Place(plan[MARK])
    for i in range(Place(count)):
        rows1[block[targets + i] * size + mark] = 0


@inner
def write_end(rows4, rows1, plan, slot, discount, is_terminated):
    """Write the discount of a row, and whether its window ended in termination."""
    words = Place(slot) * Place(plan[WORDS])
    rows4[(words << ONE) + Place(plan[DISCOUNT])] = np.float32(discount)
    rows1[(words << Place(3)) + Place(plan[TERMINATED])] = is_terminated


@inner
def mark_end(rows1, plan, slot, is_truncated):
    """Mark a row, written before, if its episode was cut off after it."""
    if is_truncated:
        rows1[EIGHT * Place(slot) * Place(plan[WORDS]) + Place(plan[MARK])] |= TRUNCATED


@inner
def write_return(rows, rows4, rows8, plan, slot, value):
    """Write an n-step return, rounded to its column; the rows are seen as words and as floats."""
    words = Place(slot) * Place(plan[WORDS])
    size = plan[REWARD_BYTES]
    if size == 4:
        rows4[(words << ONE) + Place(plan[REWARD])] = np.float32(value)
    elif size == 8:
        rows8[words + Place(plan[REWARD])] = value
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
def wrong_stream(streams, seen):
    """Return the place of the first stream that is not there or was named before, or -1.

    `seen`, int64[E + 1]: the number of the call in which each stream was named last; in its last
    place the number of this call.
    """
    count = seen.size - 1
    seen[count] += 1
    for i in range(streams.size):
        stream = streams[i]
        if stream < 0 or stream >= count or seen[stream] == seen[count]:
            return i
        seen[stream] = seen[count]
    return -1


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
    block[plan[KEPT] + 1] = ZERO
    block[plan[KEPT] + 1 + plan[STREAMS]] = np.uint64(slot)
    write_rows(block, rows, plan, 1)
    discount = 0.0 if is_terminated else gamma
    rows4, rows1 = words_as(rows, np.float32), words_as(rows, np.uint8)
    write_end(rows4, rows1, plan, slot, discount, is_terminated)
    mark_end(rows1, plan, slot, words_as(block, np.uint8)[plan[FLAGS] + plan[STREAMS]])
    priority = given if given == given else first_entry(counters, entry)
    enter(counters, words_as(counters, np.float64), entering, priority)
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
    block1, rows1 = words_as(block, np.uint8), words_as(rows, np.uint8)
    given, rows4 = words_as(block, np.float64), words_as(rows, np.float32)
    numbers = words_as(counters, np.float64)
    gamma = words_as(plan, np.float64)[GAMMA]
    capacity = plan[CAPACITY]
    entry = first_entry(counters, entry)
    largest = -1.0 if counters[ISSUED] == counters[FIRST] else entry
    kept = Place(plan[KEPT]) + ONE
    targets = kept + Place(plan[STREAMS])
    slot = counters[ISSUED] % capacity
    for i in range(made):
        block[targets + Place(i)] = np.uint64(slot)
        slot += 1
        if slot == capacity:
            slot = 0
    write_rows(block, rows, plan, made)
    for i in range(made):
        k = np.int64(block[kept + Place(i)])
        is_terminated = block1[plan[FLAGS] + k]
        discount = 0.0 if is_terminated else gamma
        write_end(rows4, rows1, plan, block[targets + Place(i)], discount, is_terminated)
        mark_end(rows1, plan, block[targets + Place(i)], block1[plan[FLAGS] + plan[STREAMS] + k])
        own = given[plan[ENTRIES] + k] if with_errors else np.nan
        if i < made - capacity:
            counters[ISSUED] += 1  # it gives way in this very call
        else:
            priority = entry_of(own, entry, largest)
            largest = max(largest, priority)
            enter(counters, numbers, entering, priority)
    if next_step:
        remember_ends(block, plan, state, finals, count, named)
    block[plan[KEPT] - 1] = np.uint64(1)
    return made


@inner
def note_window(block, plan, number, memory, source, last, discount):
    """Write down a window that is to be closed; see :func:`close_windows`."""
    words = Place(plan[KEPT]) + ONE + Place(2 * plan[STREAMS]) + (Place(number) << Place(2))
    block[words] = np.uint64(memory)
    block[words + ONE] = np.uint64(source)
    block[words + Place(2)] = np.uint64(last)
    words_as(block, np.float64)[words + Place(3)] = discount


@inner
def close_windows(block, plan, rows, steps, state, counters, entering, made, entry):
    """Make those windows transitions that were written down, in their order.

    Of each there are four words: where the memory of its stream begins, the row of its first step,
    that of its last one, and its discount, -1 where it ended in termination. Of more than N the
    last stay: the others give way in this very call, and their priorities do not count.
    """
    block8 = words_as(block, np.float64)
    rows4, rows8 = words_as(rows, np.float32), words_as(rows, np.float64)
    steps4, rows1 = words_as(steps, np.float32), words_as(rows, np.uint8)
    steps1 = words_as(steps, np.uint8)
    totals, numbers = words_as(state, np.float64), words_as(counters, np.float64)
    n_step = plan[STEPS]
    capacity = plan[CAPACITY]
    size = Place(plan[WORDS])
    largest = -1.0 if counters[ISSUED] == counters[FIRST] else entry
    windows = Place(plan[KEPT]) + ONE + Place(2 * plan[STREAMS])
    slot = counters[ISSUED] % capacity
    for i in range(made):
        window = windows + (Place(i) << Place(2))
        memory = np.int64(block[window])
        source, last = block[window + ONE], block[window + Place(2)]
        discount = block8[window + Place(3)]
        target = Place(slot) * size
        for word in range(size):
            rows[target + word] = steps[source * size + word]
        if source != last:
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
        place = memory + TOTALS + np.int64(source) % n_step
        write_return(rows, rows4, rows8, plan, slot, totals[place])
        is_terminated = discount < 0.0
        write_end(rows4, rows1, plan, slot, 0.0 if is_terminated else discount, is_terminated)
        rows1[EIGHT * target + Place(plan[MARK])] = 0
        if i < made - capacity:
            counters[ISSUED] += 1
        else:
            priority = entry_of(totals[place + n_step], entry, largest)
            largest = max(largest, priority)
            enter(counters, numbers, entering, priority)
        slot += 1
        if slot == capacity:
            slot = 0


@inner
def copy_column(rows, steps, plan, column, source, slot):
    """Copy one column from a row of the steps to a row of the ring."""
    stride, offset = Place(plan[column + STRIDE]), Place(plan[column + OFFSET])
    here, there = source * stride + offset, Place(slot) * stride + offset
    for i in range(Place(plan[column + COUNT])):
        rows[there + i] = steps[here + i]


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
    block4, block8 = words_as(block, np.float32), words_as(block, np.float64)
    n_step = plan[STEPS]
    streams = plan[STREAMS]
    width = state.size // streams
    totals = words_as(state, np.float64)
    kept = Place(plan[KEPT]) + ONE
    targets = kept + Place(streams)
    steps_kept = np.int64(block[plan[KEPT]])
    windows = 0
    for i in range(steps_kept):
        k = np.int64(block[kept + Place(i)])
        stream = stream_of(block, plan, named, k)
        memory = stream * width
        flags = plan[FLAGS] + k
        is_terminated = block1[flags]
        reward = reward_of(block4, block8, plan, k)
        waiting = max(min(state[memory + OPEN], n_step - 1), 0)
        newest = max(min(state[memory + NEWEST], n_step - 1), 0)
        for j in range(waiting):
            place = steps_before(newest, waiting - 1 - j, n_step)
            totals[memory + TOTALS + place] += powers[waiting - j] * reward
        newest = steps_before(newest, n_step - 1, n_step)
        waiting += 1
        first = stream * n_step
        block[targets + Place(i)] = np.uint64(first + newest)
        totals[memory + TOTALS + newest] = reward
        totals[memory + TOTALS + n_step + newest] = (
            block8[plan[ENTRIES] + k] if with_errors else np.nan
        )
        ended = is_terminated | block1[flags + streams]
        closing = waiting if ended else int(waiting == n_step)
        for j in range(closing):
            place = steps_before(newest, waiting - 1 - j, n_step)
            discount = -1.0 if is_terminated else powers[waiting - j]
            note_window(block, plan, windows, memory, first + place, first + newest, discount)
            windows += 1
        state[memory + OPEN] = waiting - closing
        state[memory + NEWEST] = newest
    write_rows(block, steps, plan, steps_kept)
    entry = first_entry(counters, entry)
    close_windows(block, plan, rows, steps, state, counters, entering, windows, entry)
    if next_step:
        remember_ends(block, plan, state, finals, count, named)
    block[plan[KEPT] - 1] = np.uint64(1)
    return made


@kernel
def interrupt(
    block, plan, rows, steps, state, powers, counters, entering, count, named, entry,
):  # fmt: skip
    """Close all open windows of these streams where they are; return how many.

    Streams that wait for a reset step may have been restarted by the caller. Where there are no
    windows and one stream, its episode is cut off after its latest row.
    """
    n_step = plan[STEPS]
    width = state.size // plan[STREAMS]
    made = 0
    if n_step > 1:
        for k in range(count):
            waiting = state[stream_of(block, plan, named, k) * width + OPEN]
            made += max(min(waiting, n_step - 1), 0)
    if counters[ISSUED] - counters[TOLD] + made > entering.size:
        return refusal(NO_ROOM, 0)
    windows = 0
    for k in range(count):
        stream = stream_of(block, plan, named, k)
        memory = stream * width
        if state[memory + AWAITING]:
            state[memory + AWAITING] = RESTARTED
        if n_step == 1:
            continue
        waiting = min(state[memory + OPEN], n_step - 1)
        newest = max(min(state[memory + NEWEST], n_step - 1), 0)
        first = stream * n_step
        for j in range(waiting):
            place = steps_before(newest, waiting - 1 - j, n_step)
            last, discount = first + newest, powers[waiting - j]
            note_window(block, plan, windows, memory, first + place, last, discount)
            windows += 1
        state[memory + OPEN] = 0
    if n_step == 1 and count == 1 and plan[STREAMS] == 1 and counters[ISSUED] > counters[FIRST]:
        slot = (counters[ISSUED] - 1) % plan[CAPACITY]
        rows1 = words_as(rows, np.uint8)
        is_terminated = rows1[8 * slot * plan[WORDS] + plan[TERMINATED]]
        mark_end(rows1, plan, slot, not is_terminated)
    entry = first_entry(counters, entry)
    close_windows(block, plan, rows, steps, state, counters, entering, windows, entry)
    return made
