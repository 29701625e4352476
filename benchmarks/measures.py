"""What is timed: adding, drawing with updates, growth with the size, and what is hard for ours.

Knows contenders by their common face; knows no library, and not how anything is timed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks import limits
from benchmarks.limits import Yardstick
from benchmarks.results import Ratio
from benchmarks.session import Session, is_ours
from benchmarks.timing import Entry, Floats, interleave, ratio
from prioritized_replay.conformance.subject import LAWS, Subject
from prioritized_replay.conformance.workload import ROW, Errors, stacked

ADD, ADD_WITH_ERROR, EXTEND = "add", "add with its TD error", "extend"
CYCLE, SAMPLE, LOOP, GROWTH = "sample + update", "sample", "4 adds, sample, update", "growth"
WORST: Mapping[str, str] = {
    "random": "random TD errors, as everywhere else",
    "all equal": "every priority is the same, before and after",
    "clipped": "TD errors ten times as large, clipped to [-1, 1]: most priorities are 1",
    "rising": "every update is above all before it",
    "new rows": "no row was ever updated: all have the priority of a new row",
    "overwriting": "as many rows added as drawn, between any two draws",
}

DATA_BYTES = ROW.itemsize


def calls_for(batch: int) -> int:
    """Return how many calls a round has: fewer of those that do more."""
    return max(4, min(128, 8192 // batch))


# Who is timed in the same turns.
_TOGETHER = (("proportional", "rank"), ("uniform",))


def measure_cycles(
    session: Session, kinds: Sequence[type[Subject]], sizes: Sequence[int], batches: Sequence[int]
) -> None:
    """Time a draw with the update of what was drawn, or of uniform memories the draw alone.

    With at least two sizes, those of ours and their peers at the smallest and at the largest size
    also take turns with each other: how much the time grows is told by ratios from the same rounds.

    Parameters
    ----------
    session : Session
        Fills and checks them, and notes their times.
    kinds : sequence of Subject classes
        Who takes part.
    sizes, batches : sequence of int
        Rows in the memory; rows of a batch.
    """
    for size in sizes:
        for laws in _TOGETHER:
            if group := [kind for kind in kinds if kind.law in laws]:
                # a function each, so that one group's memories are gone before the next is filled
                _measure_group(session, group, size, batches, min(sizes), max(sizes))


def _measure_group(
    session: Session,
    group: Sequence[type[Subject]],
    size: int,
    batches: Sequence[int],
    smallest: int,
    largest: int,
) -> None:
    errors = session.workload.errors(size)
    yardstick = Yardstick(size)
    there = session.checked(session.filled(group, size, errors), errors)
    if not there:
        return
    measure = SAMPLE if there[0].law == "uniform" else CYCLE
    if measure == CYCLE:
        session.time(
            limits.CHASE, size, 1, {limits.CHASE: yardstick.access()},
            lambda _: [0, 0], 2, limits.STEPS,
        )  # fmt: skip
    for batch in batches:
        _time_cycles(session, measure, there, size, batch, yardstick)
    if measure == CYCLE and size == largest > smallest:
        twins = session.filled(group, smallest, session.workload.errors(smallest))
        _time_growth(session, there, twins, max(batches), yardstick)
    session.check_updates(there)


def _time_cycles(
    session: Session,
    measure: str,
    contenders: Sequence[Subject],
    size: int,
    batch: int,
    yardstick: Yardstick,
) -> None:
    calls = calls_for(batch)
    entries = {c.name: cycle(c, batch, measure) for c in contenders} | yardstick.entries(batch)
    times = session.time(
        measure, size, batch, entries, lambda n: session.workload.updates(n, calls, batch), calls
    )
    session.compare(measure, size, batch, times, [c.name for c in contenders if is_ours(c)])


def _time_growth(
    session: Session,
    large: Sequence[Subject],
    small: Sequence[Subject],
    batch: int,
    yardstick: Yardstick,
) -> None:
    size, calls = large[0].size, calls_for(batch)
    smallest = small[0].size
    entries = {c.name: cycle(c, batch, CYCLE) for c in large}
    entries |= {_at(c.name, c.size): cycle(c, batch, CYCLE) for c in small}
    reads = {limits.ROWS: yardstick.entries(batch)[limits.ROWS]}
    reads[_at(limits.ROWS, smallest)] = Yardstick(smallest).entries(batch)[limits.ROWS]
    session.say(f"{smallest:,} to {size:,} rows: growth, {batch}")
    times = interleave(
        entries | reads, lambda n: session.workload.updates(n, calls, batch), session.effort
    )
    for name in [*(c.name for c in large), limits.ROWS]:
        if (twin := _at(name, smallest)) in times:
            of = ratio(times[name], times[twin])
            session.results.ratios.append(
                Ratio(GROWTH, size, batch, twin, name, of.median, of.low, of.high)
            )


def _at(name: str, size: int) -> str:
    return f"{name} at {size:,} rows"


def cycle(contender: Subject, batch: int, measure: str) -> Entry:
    """Return a draw, with the update of what was drawn unless only the draw is asked for."""
    if measure == SAMPLE:

        def draw(_: object) -> None:
            contender.sample(batch)

        return Entry(list, draw)

    def draw_and_update(errors: Any) -> None:
        contender.update(contender.sample(batch), errors)

    return Entry(lambda given: [contender.as_errors(errors) for errors in given], draw_and_update)


def measure_adding(session: Session, kinds: Sequence[type[Subject]], size: int) -> None:
    """Time adding to a full memory: one row, one with its error, many at once; and a training loop.

    Every round of additions ends with the draw of one row, which is part of the time: ours tells
    its sampler of new rows only when it next draws.

    Parameters
    ----------
    session, kinds
        See :func:`measure_cycles`.
    size : int
        N.
    """
    for laws in _TOGETHER:
        if group := [kind for kind in kinds if kind.law in laws]:
            _measure_adding_of(session, group, size)


def _measure_adding_of(session: Session, group: Sequence[type[Subject]], size: int) -> None:
    there = session.filled(group, size, session.workload.errors(size))
    if not there:
        return
    ours = [c.name for c in there if is_ours(c)]
    prioritized = there[0].law != "uniform"
    count, many = 256, 1024

    def steps(number: int) -> list[dict[str, Any]]:
        return session.workload.steps(number, count)

    def steps_with_errors(number: int) -> tuple[list[dict[str, Any]], Errors]:
        return steps(number), session.workload.updates(number, count, 1)

    def rows(number: int) -> list[list[dict[str, Any]]]:
        return [session.workload.steps(number % 2, many)]

    times = session.time(ADD, size, 1, {c.name: adding(c) for c in there}, steps, count)
    session.compare(ADD, size, 1, times, ours)
    if prioritized:
        entries = {c.name: _adding_with_errors(c) for c in there}
        times = session.time(ADD_WITH_ERROR, size, 1, entries, steps_with_errors, count)
        session.compare(ADD_WITH_ERROR, size, 1, times, ours)
    # Whoever has no call for it adds row by row: that is what a user would have to do.
    times = session.time(EXTEND, size, many, {c.name: _extending(c) for c in there}, rows, 1)
    session.compare(EXTEND, size, many, times, ours)
    if prioritized:
        entries = {c.name: loop(c) for c in there}
        times = session.time(LOOP, size, 32, entries, loops(session, 4, 32, 64), 64)
        session.compare(LOOP, size, 32, times, ours)
    session.check_batches(there)


def adding(contender: Subject) -> Entry:
    """Return the addition of single rows; a round ends with the draw of one."""
    return Entry(
        lambda given: [contender.as_step(step) for step in given],
        contender.add,
        lambda: contender.sample(1),
    )


def _adding_with_errors(contender: Subject) -> Entry:
    def prepare(given: tuple[list[dict[str, Any]], Errors]) -> list[tuple[Any, Any]]:
        return [
            (contender.as_step(step), contender.as_errors(error))
            for step, error in zip(*given, strict=True)
        ]

    def call(both: tuple[Any, Any]) -> None:
        contender.add_with_error(*both)

    return Entry(prepare, call, lambda: contender.sample(1))


def _extending(contender: Subject) -> Entry:
    if contender.bulk:
        return Entry(
            lambda given: [contender.as_rows(stacked(steps)) for steps in given],
            contender.extend,
            lambda: contender.sample(1),
        )

    def call(steps: list[Any]) -> None:
        for step in steps:
            contender.add(step)

    return Entry(
        lambda given: [[contender.as_step(step) for step in steps] for steps in given],
        call,
        lambda: contender.sample(1),
    )


def loop(contender: Subject) -> Entry:
    """Return the loop of a DQN: some additions, a draw, an update."""

    def prepare(given: list[tuple[list[dict[str, Any]], Errors]]) -> list[tuple[Any, Any]]:
        return [
            ([contender.as_step(step) for step in steps], contender.as_errors(errors))
            for steps, errors in given
        ]

    def call(both: tuple[list[Any], Any]) -> None:
        for step in both[0]:
            contender.add(step)
        contender.update(contender.sample(len(both[1])), both[1])

    return Entry(prepare, call)


def loops(session: Session, adds: int, batch: int, calls: int) -> Callable[[int], Any]:
    """Return what makes the inputs of :func:`loop`: steps to add and errors for the update."""

    def inputs(number: int) -> list[tuple[list[dict[str, Any]], Errors]]:
        steps = session.workload.steps(number, adds * calls)
        errors = session.workload.updates(number, calls, batch)
        return [(steps[k * adds : (k + 1) * adds], errors[k]) for k in range(calls)]

    return inputs


def measure_worst(
    session: Session, kinds: Sequence[type[Subject]], size: int, batch: int = 256
) -> None:
    """Time a draw with its update where priorities are as awkward as they get.

    Parameters
    ----------
    session, kinds, size
        See :func:`measure_adding`.
    batch : int
        B.
    """
    prioritized = [kind for kind in kinds if kind.law != "uniform"]
    for case in WORST:
        _measure_case(session, prioritized, case, size, batch)


def _measure_case(
    session: Session, kinds: Sequence[type[Subject]], case: str, size: int, batch: int
) -> None:
    there = session.filled(kinds, size, _errors(session, case, size))
    if case == "overwriting":
        calls = 4
        entries = {c.name: loop(c) for c in there}
        inputs = loops(session, batch, batch, calls)
    else:
        calls = calls_for(batch)
        entries = {c.name: cycle(c, batch, CYCLE) for c in there}
        inputs = _updates(session, case, calls, batch)
    measure = f"worst: {case}"
    times = session.time(measure, size, batch, entries, inputs, calls)
    session.compare(measure, size, batch, times, [c.name for c in there if is_ours(c)])
    session.check_batches(there)


def _errors(session: Session, case: str, size: int) -> Floats | None:
    if case == "new rows":
        return None
    if case == "all equal":
        return np.ones(size)
    errors = session.workload.errors(size)
    return np.clip(10.0 * errors, -1.0, 1.0) if case == "clipped" else errors


def _updates(session: Session, case: str, calls: int, batch: int) -> Callable[[int], Errors]:
    def inputs(number: int) -> Errors:
        if case == "all equal":
            return np.ones((calls, batch), np.float32)
        if case == "rising":
            last = 1000.0 + number * calls * batch
            return np.arange(last, last + calls * batch, dtype=np.float32).reshape(calls, batch)
        errors = session.workload.updates(number, calls, batch)
        if case == "clipped":
            np.clip(10.0 * errors, -1.0, 1.0, out=errors)
        return errors

    return inputs


def in_order(kinds: Iterable[type[Subject]]) -> list[type[Subject]]:
    """Return contenders by law, those of a law in the order given."""
    return sorted(kinds, key=lambda kind: LAWS.index(kind.law))
