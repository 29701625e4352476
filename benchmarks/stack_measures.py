"""What is timed of stacks of frames and of files: adding, drawing, beside a bare copy and RAM.

Knows contenders by their common face; knows no library.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks import measures
from benchmarks.processes import measure_footprint
from benchmarks.results import Absence, Ratio, available_bytes
from benchmarks.session import Session, is_ours
from benchmarks.timing import Entry, Floats, ratio
from prioritized_replay.conformance.adapters.ours import (
    OursInFiles,
    OursProportional,
    OursStacks,
    OursStacksInFiles,
)
from prioritized_replay.conformance.stacks import STACK_SHAPE
from prioritized_replay.conformance.subject import Subject
from prioritized_replay.conformance.workload import Errors

ADD, SAMPLE, LOOP = "add a stack", "sample stacks", "4 adds, sample, update, stacks"
STACKS = "limit: copy of stacks"
MEANING = (
    "obs and next_obs of as many random rows, with numpy.take into arrays that are there already, "
    "from arrays of whole stacks"
)
IN_FILES = "files: "
BATCHES = (32, 256)
TWINS = {OursStacksInFiles.name: OursStacks.name, OursInFiles.name: OursProportional.name}
"""Who keeps files, and the same in RAM."""


class WholeStacks:
    """Two arrays of N whole stacks, and a bare copy of rows of them.

    Parameters
    ----------
    size : int
        N.
    """

    row_bytes = 2 * int(np.prod(STACK_SHAPE))

    def __init__(self, size: int) -> None:
        # Written, as memory that never was is one page of zeros that is always in the cache.
        self._tables = [np.full((size, *STACK_SHAPE), k, np.uint8) for k in (1, 2)]
        self._rng = np.random.default_rng(0)

    def entry(self, batch: int) -> Entry:
        """Return the copy of B rows, to be timed among the contenders."""
        places = [np.empty((batch, *STACK_SHAPE), np.uint8) for _ in self._tables]
        size = len(self._tables[0])

        def draws(given: Any) -> list[np.ndarray]:
            return list(self._rng.integers(size, size=(len(given), batch)))

        def take(rows: np.ndarray) -> None:
            for table, place in zip(self._tables, places, strict=True):
                table.take(rows, axis=0, out=place, mode="clip")  # any other mode copies twice

        return Entry(draws, take)


def measure_stacks(session: Session, kinds: Sequence[type[Subject]], size: int) -> None:
    """Time adding stacks and drawing them, prioritized and uniform memories apart.

    Parameters
    ----------
    session : Session
        With the data of :class:`~prioritized_replay.conformance.stacks.Stacks`.
    kinds : sequence of Subject classes
        Who takes part.
    size : int
        Rows in the memory.
    """
    for laws in (("proportional",), ("uniform",)):
        _measure_group(session, [kind for kind in kinds if kind.law in laws], size)


def _measure_group(session: Session, group: Sequence[type[Subject]], size: int) -> None:
    errors = session.workload.errors(size)
    there = session.checked(session.filled(group, size, errors), errors)
    if not there:
        return
    ours = [c.name for c in there if is_ours(c)]
    limit = {}
    free = available_bytes()
    fits = free is None or size * WholeStacks.row_bytes < 0.9 * free
    if fits and there[0].law != "uniform":
        whole = WholeStacks(size)
        limit = {batch: whole.entry(batch) for batch in BATCHES}
    for batch in BATCHES:
        calls = max(4, 512 // batch)
        entries = {c.name: measures.cycle(c, batch, measures.SAMPLE) for c in there}
        if limit:
            entries[STACKS] = limit[batch]
        times = session.time(SAMPLE, size, batch, entries, _as_many_as(calls), calls)
        session.compare(SAMPLE, size, batch, times, ours)
        _compare_with_limit(session, size, batch, times, ours)
    adding = {c.name: measures.adding(c) for c in there}
    times = session.time(ADD, size, 1, adding, lambda n: session.workload.steps(n, 256), 256)
    session.compare(ADD, size, 1, times, ours)
    if there[0].law != "uniform":
        looping = {c.name: measures.loop(c) for c in there}
        inputs = measures.loops(session, 4, 32, 32)
        times = session.time(LOOP, size, 32, looping, inputs, 32)
        session.compare(LOOP, size, 32, times, ours)
    session.check_batches(there)


def _as_many_as(calls: int) -> Callable[[int], Any]:
    return lambda number: range(calls)


def _compare_with_limit(
    session: Session, size: int, batch: int, times: dict[str, Floats], ours: Sequence[str]
) -> None:
    """Note how many times as long ours take as the bare copy."""
    if STACKS in times:
        for name in ours:
            of = ratio(times[name], times[STACKS])
            session.results.ratios.append(
                Ratio(SAMPLE, size, batch, STACKS, name, of.median, of.low, of.high)
            )


def measure_stack_footprints(
    session: Session, kinds: Sequence[type[Subject]], size: int, many: int
) -> None:
    """See how many bytes a transition takes: everybody's at one size, ours at a larger one too.

    Parameters
    ----------
    session, kinds, size
        See :func:`measure_stacks`.
    many : int
        The larger size; left out if it does not fit.
    """
    # Pages of files belong to the system.
    wanted: list[tuple[type[Subject], int]] = [
        (kind, size) for kind in kinds if kind is not OursStacksInFiles
    ]
    if many > size:
        wanted.append((OursStacks, many))
    for kind, rows in wanted:
        free = available_bytes()
        if free is not None and rows * kind.row_bytes > 0.9 * free:
            why = "it would not fit into memory"
            session.results.absent.append(Absence(f"{kind.name} at {rows:,} rows", why))
            continue
        session.say(f"bytes per transition: {kind.name}, {rows:,} rows")
        session.results.footprints.append(measure_footprint(kind, rows))


def measure_files(session: Session, size: int) -> None:
    """Time small rows in files beside the same in RAM, with pages that the system has cached.

    Parameters
    ----------
    session : Session
        Of small rows.
    size : int
        Rows in the memory.
    """
    errors = session.workload.errors(size)
    there = session.checked(session.filled((OursProportional, OursInFiles), size, errors), errors)
    ours = [c.name for c in there]
    adding = {c.name: measures.adding(c) for c in there}
    measure = IN_FILES + measures.ADD
    times = session.time(measure, size, 1, adding, lambda n: session.workload.steps(n, 256), 256)
    session.compare(measure, size, 1, times, ours)
    measure = IN_FILES + measures.CYCLE
    for batch in BATCHES:
        entries = {c.name: measures.cycle(c, batch, measures.CYCLE) for c in there}
        inputs, calls = _updates(session, batch), measures.calls_for(batch)
        times = session.time(measure, size, batch, entries, inputs, calls)
        session.compare(measure, size, batch, times, ours)


def _updates(session: Session, batch: int) -> Callable[[int], Errors]:
    calls = measures.calls_for(batch)
    return lambda number: session.workload.updates(number, calls, batch)
