"""Compiled loops over frames: compare, store, count, copy. They know nothing of rows.

A frame is `words` words of 8 bytes. Frame number f lies in chunk f >> bits, at place
f & (2**bits - 1) of it; `table[chunk]` is the address of the chunk's first word. Frame 0 is all
zero; nobody counts who holds it. `ledger`, uint32[2, frames], holds how often each frame is held in
its first line and the numbers of `free` free frames in its second.

While a call looks for frames that are known, a code stands for each frame of its input: the number
of a stored frame, or NEW plus a place of the input that holds the same bytes; a frame that is not
known has its own place. Places count the frames of all observations first, then those of all next
observations.
"""

from __future__ import annotations

import numpy as np

from prioritized_replay.jit.compiling import inner, kernel
from prioritized_replay.jit.intrinsics import EIGHT, ZERO, Place, words_at

NEW = Place(1 << 31)
STUCK = 2**32 - 1  # a count that has come so far stays: the frame is never free again
TOGETHER = Place(32)  # words that are compared between two branches


@inner
def stored(table, bits, words, number):
    """Return the words of a stored frame."""
    number = Place(number)
    chunk = number >> Place(bits)
    place = number - (chunk << Place(bits))
    return words_at(table[chunk] + EIGHT * Place(words) * place, Place(words))


# --- bytes ----------------------------------------------------------------------------------


@inner
def same(one, other):
    """Return whether two frames are equal."""
    size = Place(one.size)
    whole = size - size % TOGETHER
    for first in range(ZERO, whole, TOGETHER):
        difference = ZERO
        for word in range(first, first + TOGETHER):
            difference |= one[word] ^ other[word]
        if difference != ZERO:
            return False
    difference = ZERO
    for word in range(whole, size):
        difference |= one[word] ^ other[word]
    return difference == ZERO


@inner
def copy(source, target, start):
    """Copy a frame to the words of the target from `start` on."""
    for word in range(Place(source.size)):
        target[start + word] = source[word]


# --- what is known already ------------------------------------------------------------------


@inner
def given(obs, next_obs, words, place):
    """Return the words of a frame of the input."""
    place = np.int64(place) * words
    if place < obs.size:
        return obs[place : place + words]
    place -= obs.size
    return next_obs[place : place + words]


@inner
def find(frame, codes, first, stop, table, bits, words, obs, next_obs):
    """Return the first of codes[first:stop] whose frame equals this one, else NEW + NEW."""
    for i in range(first, stop):
        code = Place(codes[i])
        if i > first and code == Place(codes[i - 1]):
            continue
        if code >= NEW:
            other = given(obs, next_obs, words, code - NEW)
        else:
            other = stored(table, bits, words, code)
        if same(frame, other):
            return code
    return NEW + NEW


@inner
def known(place, row, rows, stack, table, bits, words, last, stream, obs, next_obs, codes):
    """Return the code of a frame of the input: what it is expected to equal is tried first.

    An observation should be the last one of its stream (or, where there are no streams, that which
    came before it), a next observation should be the observation shifted by one.
    """
    frame = given(obs, next_obs, words, place)
    of_obs = row * stack
    of_next = (rows + row) * stack
    is_next = place >= of_next
    own = of_next if is_next else of_obs
    unknown = NEW + NEW
    code = unknown
    for attempt in range(6):
        source, first, stop = codes, 0, 0
        if attempt == 0:  # the one frame that it should equal
            if is_next:
                first = of_obs + min(place - of_next + 1, stack - 1)
            elif stream >= 0:
                source, first = last, stream * stack + place - of_obs
            else:
                first = of_next - stack + place - of_obs
            stop = first + (1 if is_next or stream >= 0 or row > 0 else 0)
        elif attempt == 1:  # an earlier frame of the same stack: an episode begins with repeats
            first, stop = own, place
        elif attempt == 2:  # any of its row's obs
            first, stop = of_obs, of_obs + (stack if is_next else 0)
        elif attempt == 3:  # any of the observation that came before
            if stream >= 0:
                source, first, stop = last, stream * stack, (stream + 1) * stack
            elif row > 0:
                first, stop = of_next - stack, of_next
        elif attempt == 4:  # any of the previous row's obs, without streams
            if stream < 0 and row > 0:
                first, stop = of_obs - stack, of_obs
        elif same(frame, stored(table, bits, words, 0)):  # the frame of zeros, which all share
            return ZERO
        code = find(frame, source, first, stop, table, bits, words, obs, next_obs)
        if code != unknown:
            return code
    return NEW + Place(place)


# --- whole calls ----------------------------------------------------------------------------


@inner
def hold_one(ledger, number):
    """Count one more who holds a frame."""
    if number > 0 and ledger[0, number] < STUCK:
        ledger[0, number] += 1


@inner
def release_one(ledger, free, number):
    """Count one fewer who holds a frame; return how many frames are free then."""
    if number > 0 and ledger[0, number] < STUCK:
        ledger[0, number] -= 1
        if ledger[0, number] == 0:
            ledger[1, free] = number
            free += 1
    return free


@kernel
def encode(
    table, bits, words, ledger, free, stack, last, streams, obs, next_obs, references, writes, group
):  # fmt: skip
    """Store the frames of two observations a row, each of them once, and hold each reference.

    `references`, uint32[2 rows stack], receives their numbers: of all observations, then of all
    next observations. `last`, uint32[streams stack], holds the last observation of each stream;
    without `streams` the rows belong to none, and with a single one all of them are its steps in
    order: the first is compared with `last`, the others with the row before. `writes`, int64[...],
    counts for each 2**group frames how many were written.

    Returns how many frames are free then; if that is < 0, nothing has changed.
    """
    rows = references.size // (2 * stack)
    half = rows * stack
    for row in range(rows):
        stream = streams[row] if row < streams.size else -1
        for start in range(row * stack, 2 * half, half):
            for place in range(start, start + stack):
                code = known(
                    place, row, rows, stack, table, bits, words, last, stream, obs, next_obs,
                    references,
                )  # fmt: skip
                references[place] = code
    left = free
    for place in range(2 * half):
        left -= int(Place(references[place]) == NEW + Place(place))
    if left < 0:
        return left
    for row in range(rows):
        for start in range(row * stack, 2 * half, half):
            for place in range(start, start + stack):
                code = Place(references[place])
                if code == NEW + Place(place):
                    free -= 1
                    number = ledger[1, free]
                    frame = stored(table, bits, words, number)
                    copy(given(obs, next_obs, words, place), frame, ZERO)
                    writes[Place(number) >> Place(group)] += 1
                    references[place] = number
                elif code >= NEW:
                    references[place] = references[code - NEW]
                hold_one(ledger, references[place])
        of = row if streams.size == rows else row + 1 - rows  # of a single stream the last row
        if 0 <= of < streams.size:
            first = streams[of] * stack
            for i in range(stack):
                hold_one(ledger, references[half + row * stack + i])
            for i in range(stack):
                free = release_one(ledger, free, last[first + i])
                last[first + i] = references[half + row * stack + i]
    return free


@kernel
def hold(ledger, references):
    """Count one more who holds each of these frames."""
    for i in range(references.size):
        hold_one(ledger, references[i])


@kernel
def release(ledger, free, references):
    """Count one fewer who holds each of these frames; return how many are free then."""
    for i in range(references.size):
        free = release_one(ledger, free, references[i])
    return free


@kernel
def chained(references, following, shift):
    """Return whether in every row the one observation, shifted, begins the following one."""
    for row in range(references.shape[0]):
        for i in range(references.shape[1] - shift):
            if following[row, i] != references[row, i + shift]:
                return False
    return True


@kernel
def gather(table, bits, words, references, following, skip, block):
    """Copy for each row the frames of one observation and the following one's from `skip` on."""
    stack = references.shape[1]
    start = ZERO
    for row in range(references.shape[0]):
        for i in range(2 * stack - skip):
            number = references[row, i] if i < stack else following[row, skip + i - stack]
            copy(stored(table, bits, words, number), block, start)
            start += Place(words)
