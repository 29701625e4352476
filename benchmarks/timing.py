"""Times of several contenders that take turns, and what is told of them: medians and ratios.

Knows calls and clocks; knows nothing of what is called.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Clock = Literal["wall", "cpu"]

_CLOCKS: Mapping[Clock, Callable[[], int]] = {
    "wall": time.perf_counter_ns,
    "cpu": time.process_time_ns,
}


@dataclass(frozen=True)
class Entry:
    """One contender in one measurement.

    Attributes
    ----------
    prepare : callable
        From the inputs of a round, the same for everybody, to one argument for each call, in the
        form that this contender wants. Not timed.
    call : callable
        What is timed, once for each argument.
    finish : callable, optional
        Timed with the round, once at its end.
    """

    prepare: Callable[[Any], Sequence[Any]]
    call: Callable[[Any], object]
    finish: Callable[[], object] | None = None


@dataclass(frozen=True)
class Effort:
    """How much time a measurement may take.

    Attributes
    ----------
    rounds : int
        How many, at most; each has every contender once.
    seconds : float
        After this long no new pair of rounds begins.
    clock : {"wall", "cpu"}
        The time that passes, or the time that this process computes, with all its threads: on a
        machine with other work that hardly depends on it.
    """

    rounds: int
    seconds: float
    clock: Clock = "wall"


@dataclass(frozen=True)
class Spread:
    """A median with the quarters below and above it."""

    median: float
    low: float
    high: float
    rounds: int


def order(names: Sequence[str], round_number: int) -> list[str]:
    """Return who comes after whom in a round: forwards in even rounds, backwards in odd ones.

    Examples
    --------
    >>> order(["a", "b", "c"], 0), order(["a", "b", "c"], 1)
    (['a', 'b', 'c'], ['c', 'b', 'a'])
    """
    return list(names) if round_number % 2 == 0 else list(reversed(names))


def interleave(
    entries: Mapping[str, Entry],
    inputs: Callable[[int], Any],
    effort: Effort,
    *,
    warm_up: int = 2,
    between: Callable[[], object] | None = None,
) -> dict[str, Floats]:
    """Time contenders in turns, forwards and backwards, so that a disturbance meets all of them.

    Rounds come in pairs, one for each order; at least one pair is made. Garbage collection waits
    until the end.

    Parameters
    ----------
    entries : mapping of str to Entry
        The contenders, by name.
    inputs : callable
        From the number of a round to its inputs, the same for every contender. Not timed.
    effort : Effort
        When to stop.
    warm_up : int
        Rounds before those that count.
    between : callable, optional
        Other work, which is done before every single call and not timed. A round's number is then
        the median of its calls, and ``finish`` is not called.

    Returns
    -------
    dict of str to float64[rounds]
        Seconds per call, one number for each round; equal places are of the same round.
    """
    names = list(entries)
    clock = _CLOCKS[effort.clock]
    times: dict[str, list[float]] = {name: [] for name in names}
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        began = time.monotonic()
        for number in range(warm_up + effort.rounds):
            counted = number - warm_up
            if counted == 0:
                began = time.monotonic()  # what is compiled before that takes no round away
            late = time.monotonic() - began > effort.seconds
            if counted >= 2 and counted % 2 == 0 and late:
                break
            given = inputs(number)
            for name in order(names, number):
                entry = entries[name]
                arguments = entry.prepare(given)
                if between is None:
                    elapsed = _together(entry, arguments, clock) / len(arguments)
                else:
                    elapsed = _one_by_one(entry, arguments, clock, between)
                if counted >= 0:
                    times[name].append(elapsed / 1e9)
    finally:
        if collecting:
            gc.enable()
    return {name: np.array(values) for name, values in times.items()}


def _together(entry: Entry, arguments: Sequence[Any], clock: Callable[[], int]) -> int:
    """Return the nanoseconds of all calls and the finish."""
    call, finish = entry.call, entry.finish
    start = clock()
    for argument in arguments:
        call(argument)
    if finish is not None:
        finish()
    return clock() - start


def _one_by_one(
    entry: Entry,
    arguments: Sequence[Any],
    clock: Callable[[], int],
    between: Callable[[], object],
) -> float:
    """Return the median nanoseconds of the calls, each of which comes after other work."""
    call = entry.call
    times = []
    for argument in arguments:
        between()
        start = clock()
        call(argument)
        times.append(clock() - start)
    return float(np.median(times))


def spread(values: Floats) -> Spread:
    """Return the median and the quartiles of some numbers.

    Examples
    --------
    >>> spread(np.array([4.0, 1.0, 2.0, 3.0, 5.0]))
    Spread(median=3.0, low=2.0, high=4.0, rounds=5)
    """
    low, median, high = np.quantile(values, (0.25, 0.5, 0.75))
    return Spread(float(median), float(low), float(high), values.size)


def ratio(numerator: Floats, denominator: Floats) -> Spread:
    """Return how many times longer, round by round: what disturbed both cancels.

    Parameters
    ----------
    numerator, denominator : float64[rounds]
        Times of two contenders from the same call of :func:`interleave`.
    """
    return spread(numerator / denominator)
