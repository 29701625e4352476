"""Compiled loops over the open n-step windows of many streams: see :mod:`.n_step`.

The steps of stream e lie in a ring of n places, e n .. e n + n - 1. `state`, int64[E, 2], holds for
each stream how many windows are open and the place in its ring of the latest step; `totals`,
float64[E n], the rewards that the window which begins at a step has summed up so far.
"""

from __future__ import annotations

import numpy as np

from prioritized_replay.jit.compiling import inner, kernel
from prioritized_replay.jit.intrinsics import Place, words_as

OPEN, NEWEST = 0, 1  # columns of `state`
ENDED, TERMINATED, INTERRUPTED = 1, 2, 4  # what may be said of a row; the last: it is no step
SOURCE, LAST, IS_TERMINATED = 0, 1, 2  # lines of `places` of closed windows
RETURN, DISCOUNT = 0, 1  # lines of `values` of closed windows


@kernel
def count_closing(streams, rewards, marks, powers, totals, state, limit):
    """Return how many windows these rows would close; nothing changes.

    Or -1 - k, if row k would make a sum of rewards pass the limit that was within it.
    """
    n_step = totals.size // state.shape[0]
    count = 0
    for k in range(streams.size):
        stream = streams[k]
        waiting = state[stream, OPEN]
        if marks[k] & INTERRUPTED:
            count += waiting
            continue
        newest = state[stream, NEWEST]
        for j in range(waiting):  # the oldest window is j = 0, `waiting` steps back
            place = (newest - (waiting - 1 - j) + n_step) % n_step
            before = totals[stream * n_step + place]
            after = before + powers[waiting - j] * rewards[k]
            if abs(after) > limit and abs(before) < np.inf and abs(rewards[k]) < np.inf:
                return -1 - k
        if marks[k] & ENDED:
            count += waiting + 1
        elif waiting + 1 == n_step:
            count += 1
    return count


@kernel
def close_windows(streams, rewards, marks, powers, totals, state, rows, places, values):
    """Take these rows as steps, or as interruptions, and say what windows they close.

    `rows`, int64[K], receives where each step is to be kept. Of each window that closes, stream by
    stream and the oldest first, `places` receives where its first and its last step are and whether
    it ended in termination, `values` its return and its discount.
    """
    n_step = totals.size // state.shape[0]
    closed = 0
    for k in range(streams.size):
        stream = streams[k]
        waiting = state[stream, OPEN]
        newest = state[stream, NEWEST]
        if not marks[k] & INTERRUPTED:
            for j in range(waiting):
                place = (newest - (waiting - 1 - j) + n_step) % n_step
                totals[stream * n_step + place] += powers[waiting - j] * rewards[k]
            newest = (newest + 1) % n_step
            totals[stream * n_step + newest] = rewards[k]
            waiting += 1
        rows[k] = stream * n_step + newest
        closing = waiting if marks[k] else int(waiting == n_step)
        for j in range(closing):
            place = (newest - (waiting - 1 - j) + n_step) % n_step
            source = stream * n_step + place
            places[SOURCE, closed] = source
            places[LAST, closed] = stream * n_step + newest
            places[IS_TERMINATED, closed] = int(marks[k] & TERMINATED != 0)
            values[RETURN, closed] = totals[source]
            values[DISCOUNT, closed] = 0.0 if marks[k] & TERMINATED else powers[waiting - j]
            closed += 1
        state[stream, OPEN] = waiting - closing
        state[stream, NEWEST] = newest


@kernel
def join_rows(words, first, steps, places, spans):
    """Copy the rows of first steps to slots from `first` on, modulo N, with the end of their last.

    `spans`, int64[1 + columns, 4], says what belongs to the end: its first line holds the words of
    a row, each further line says of one column: bytes in a unit (8, 4 or 1), units in a row, unit
    where the column begins, units in it.
    """
    words4 = words_as(words, np.uint32)
    words1 = words_as(words, np.uint8)
    steps4 = words_as(steps, np.uint32)
    steps1 = words_as(steps, np.uint8)
    size = Place(spans[0, 0])
    capacity = words.size // spans[0, 0]
    for i in range(places.shape[1]):
        slot = Place((first + i) % capacity)
        source = Place(places[SOURCE, i])
        last = Place(places[LAST, i])
        for k in range(size):
            words[slot * size + k] = steps[source * size + k]
        for line in range(1, spans.shape[0]):
            unit = spans[line, 0]
            if unit == 8:
                copy_span(words, slot, steps, last, spans, line)
            elif unit == 4:
                copy_span(words4, slot, steps4, last, spans, line)
            else:
                copy_span(words1, slot, steps1, last, spans, line)


@inner
def copy_span(words, slot, steps, last, spans, line):
    """Copy one column of one row."""
    stride = Place(spans[line, 1])
    offset = Place(spans[line, 2])
    for k in range(Place(spans[line, 3])):
        words[slot * stride + offset + k] = steps[last * stride + offset + k]
