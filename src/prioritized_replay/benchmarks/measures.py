"""What is timed: adding, drawing with updates, growth with the size, and what is hard for ours.

Knows contenders by their common face, fills and checks them, and notes what came out; knows no
library.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from prioritized_replay.benchmarks import limits
from prioritized_replay.benchmarks.contenders import LAWS, Contender
from prioritized_replay.benchmarks.limits import Yardstick
from prioritized_replay.benchmarks.results import (
    Absence,
    Check,
    Ratio,
    Results,
    Timing,
    available_bytes,
)
from prioritized_replay.benchmarks.timing import Effort, Entry, Floats, interleave, ratio, spread
from prioritized_replay.benchmarks.validity import Invalid, check_batch, check_draws, check_update
from prioritized_replay.benchmarks.workload import ROW, Errors, Workload, stacked

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

# At most this many bytes per row are needed by any contender, its trees included. With TorchRL's
# and Tianshou's copies while they are filled it is less than twice the data.
_BYTES_PER_ROW = 300


@dataclass(frozen=True)
class Bench:
    """What all measurements have in common.

    Attributes
    ----------
    workload : Workload
        The data.
    effort : Effort
        Of each measurement.
    results : Results
        Where what is found is noted.
    say : callable
        Takes one line on what happens now.
    """

    workload: Workload
    effort: Effort
    results: Results
    say: Callable[[str], None]

    def filled(
        self, kinds: Iterable[type[Contender]], size: int, errors: Floats | None, beside: int = 0
    ) -> list[Contender]:
        """Build and fill those contenders that fit into memory, one after the other.

        Parameters
        ----------
        kinds : iterable of Contender classes
            Whom.
        size : int
            N.
        errors : float64[N] or None
            TD errors of the rows; None: they have the priority of new rows.
        beside : int
            Bytes that have to stay free for something else.
        """
        there = []
        for kind in kinds:
            free = available_bytes()
            if free is not None and beside + size * _BYTES_PER_ROW > 0.9 * free:
                self._note_absence(
                    f"{kind.name} at {size:,} rows", "it would not fit into memory beside the others"
                )
                continue
            self.say(f"{size:,} rows: filling {kind.name}")
            contender = kind(size)
            contender.fill(self.workload, errors)
            there.append(contender)
        return there

    def checked(self, contenders: list[Contender], errors: Floats) -> list[Contender]:
        """Return the contenders whose draws are right; note what was found, and who is out.

        Raises
        ------
        Invalid
            It is one of ours.
        """
        return [c for c in contenders if self._passes(c, lambda c: self._draws(c, errors))]

    def check_updates(self, contenders: Iterable[Contender]) -> None:
        """Check that updates arrived; the times of a peer where they did not are taken back."""
        for contender in contenders:
            if contender.law != "uniform" and not self._passes(contender, check_update):
                self._take_back(contender)

    def check_batches(self, contenders: Iterable[Contender]) -> None:
        """Check a batch of each memory as it is after all that was done to it."""

        def check(contender: Contender) -> str:
            check_batch(contender, contender.seen(contender.sample(256)), 256)
            return "a batch drawn after the timing is valid"

        for contender in contenders:
            if not self._passes(contender, check):
                self._take_back(contender)

    def time(
        self,
        measure: str,
        size: int,
        batch: int,
        entries: Mapping[str, Entry],
        inputs: Callable[[int], Any],
        calls: int,
        scale: int = 1,
    ) -> dict[str, Floats]:
        """Time entries in turns and note each one's time, divided by ``scale``."""
        self.say(f"{size:,} rows: {measure}, {batch}")
        times = interleave(entries, inputs, self.effort)
        for name, values in times.items():
            of = spread(values / scale)
            self.results.timings.append(
                Timing(measure, size, batch, name, of.median, of.low, of.high, of.rounds, calls)
            )
        return times

    def compare(
        self, measure: str, size: int, batch: int, times: Mapping[str, Floats], ours: Iterable[str]
    ) -> None:
        """Note how many times longer everybody else takes than each of ours."""
        for name in ours:
            for other in times:
                if other != name:
                    of = ratio(times[other], times[name])
                    self.results.ratios.append(
                        Ratio(measure, size, batch, name, other, of.median, of.low, of.high)
                    )

    def _draws(self, contender: Contender, errors: Floats) -> str:
        self.say(f"{contender.size:,} rows: checking what {contender.name} draws")
        return check_draws(contender, self.workload, errors)

    def _passes(self, contender: Contender, check: Callable[[Contender], str]) -> bool:
        try:
            found = check(contender)
        except Invalid as invalid:
            if is_ours(contender):
                raise
            self._note_absence(f"{contender.name} at {contender.size:,} rows", str(invalid))
            return False
        self.results.checks.append(Check(contender.name, contender.size, found))
        return True

    def _take_back(self, contender: Contender) -> None:
        gone = (contender.size, contender.name)
        self.results.timings[:] = [
            row for row in self.results.timings if (row.size, row.contender) != gone
        ]
        self.results.ratios[:] = [
            row for row in self.results.ratios if (row.size, row.against) != gone
        ]

    def _note_absence(self, what: str, why: str) -> None:
        absence = Absence(what, why)
        if absence not in self.results.absent:
            self.results.absent.append(absence)


def is_ours(contender: Contender | type[Contender]) -> bool:
    """Return whether a contender is of this library."""
    return contender.library == "prioritized-replay"


def calls_for(batch: int) -> int:
    """Return how many calls a round has: fewer of those that do more."""
    return max(4, min(128, 8192 // batch))


def measure_cycles(
    bench: Bench, kinds: Sequence[type[Contender]], sizes: Sequence[int], batches: Sequence[int]
) -> None:
    """Time a draw with the update of what was drawn, or of uniform memories the draw alone.

    With at least two sizes, those of ours and their peers at the smallest and at the largest size
    also take turns with each other: how much the time grows is told by ratios from the same rounds.

    Parameters
    ----------
    bench : Bench
        Where it is noted.
    kinds : sequence of Contender classes
        Who takes part.
    sizes, batches : sequence of int
        Rows in the memory; rows of a batch.
    """
    for size in sizes:
        for laws in (("proportional", "rank"), ("uniform",)):
            group = [kind for kind in kinds if kind.law in laws]
            if not group:
                continue
            errors = bench.workload.errors(size)
            yardstick = Yardstick(size)
            there = bench.checked(bench.filled(group, size, errors), errors)
            measure = SAMPLE if laws == ("uniform",) else CYCLE
            if measure == CYCLE:
                bench.say(f"{size:,} rows: one access")
                bench.time(limits.CHASE, size, 1, {limits.CHASE: yardstick.access()},
                           lambda _: [0, 0], 2, limits.STEPS)  # fmt: skip
            for batch in batches:
                _time_cycles(bench, measure, there, size, batch, yardstick)
            if measure == CYCLE and size == max(sizes) > min(sizes):
                small = min(sizes)
                twins = bench.filled(group, small, bench.workload.errors(small))
                _time_growth(bench, there, twins, max(batches), yardstick)
            bench.check_updates(there)


def _time_cycles(
    bench: Bench,
    measure: str,
    contenders: Sequence[Contender],
    size: int,
    batch: int,
    yardstick: Yardstick,
) -> None:
    calls = calls_for(batch)
    entries = {c.name: cycle(c, batch, measure) for c in contenders} | yardstick.entries(batch)
    times = bench.time(
        measure, size, batch, entries, lambda n: bench.workload.updates(n, calls, batch), calls
    )
    bench.compare(measure, size, batch, times, [c.name for c in contenders if is_ours(c)])


def _time_growth(
    bench: Bench,
    large: Sequence[Contender],
    small: Sequence[Contender],
    batch: int,
    yardstick: Yardstick,
) -> None:
    size, calls = large[0].size, calls_for(batch)
    smallest = small[0].size
    entries = {c.name: cycle(c, batch, CYCLE) for c in large}
    entries |= {_at(c.name, c.size): cycle(c, batch, CYCLE) for c in small}
    reads = {limits.ROWS: yardstick.entries(batch)[limits.ROWS]}
    reads[_at(limits.ROWS, smallest)] = Yardstick(smallest).entries(batch)[limits.ROWS]
    bench.say(f"{smallest:,} to {size:,} rows: growth, {batch}")
    times = interleave(
        entries | reads, lambda n: bench.workload.updates(n, calls, batch), bench.effort
    )
    for name in [*(c.name for c in large), limits.ROWS]:
        if (twin := _at(name, smallest)) in times:
            of = ratio(times[name], times[twin])
            bench.results.ratios.append(
                Ratio(GROWTH, size, batch, twin, name, of.median, of.low, of.high)
            )


def _at(name: str, size: int) -> str:
    return f"{name} at {size:,} rows"


def cycle(contender: Contender, batch: int, measure: str) -> Entry:
    """Return a draw, with the update of what was drawn unless only the draw is asked for."""
    if measure == SAMPLE:

        def draw(_: object) -> None:
            contender.sample(batch)

        return Entry(list, draw)

    def draw_and_update(errors: Any) -> None:
        contender.update(contender.sample(batch), errors)

    return Entry(lambda given: [contender.as_errors(errors) for errors in given], draw_and_update)


def measure_adding(bench: Bench, kinds: Sequence[type[Contender]], size: int) -> None:
    """Time adding to a full memory: one row, one with its error, many at once; and a training loop.

    Every round of additions ends with the draw of one row, which is part of the time: ours tells
    its sampler of new rows only when it next draws.

    Parameters
    ----------
    bench, kinds
        See :func:`measure_cycles`.
    size : int
        N.
    """
    count, many = 256, 1024
    for laws in (("proportional", "rank"), ("uniform",)):
        there = bench.filled([k for k in kinds if k.law in laws], size, bench.workload.errors(size))
        if not there:
            continue
        ours = [c.name for c in there if is_ours(c)]

        def steps(number: int) -> list[dict[str, Any]]:
            return bench.workload.steps(number, count)

        times = bench.time(ADD, size, 1, {c.name: _adding(c) for c in there}, steps, count)
        bench.compare(ADD, size, 1, times, ours)
        if laws != ("uniform",):
            entries = {c.name: _adding_with_errors(c) for c in there}
            times = bench.time(
                ADD_WITH_ERROR, size, 1, entries,
                lambda n: (steps(n), bench.workload.updates(n, count, 1)), count,
            )  # fmt: skip
            bench.compare(ADD_WITH_ERROR, size, 1, times, ours)
        # Whoever has no call for it adds row by row: that is what a user would have to do.
        entries = {c.name: _extending(c) for c in there}
        rows = [bench.workload.steps(n, many) for n in range(2)]
        times = bench.time(EXTEND, size, many, entries, lambda n: [rows[n % 2]], 1)
        bench.compare(EXTEND, size, many, times, ours)
        if laws != ("uniform",):
            entries = {c.name: _loop(c, 4, 32) for c in there}
            times = bench.time(LOOP, size, 32, entries, _loops(bench, 4, 32), 64)
            bench.compare(LOOP, size, 32, times, ours)
        bench.check_batches(there)


def _adding(contender: Contender) -> Entry:
    return Entry(
        lambda given: [contender.as_step(step) for step in given],
        contender.add,
        lambda: contender.sample(1),
    )


def _adding_with_errors(contender: Contender) -> Entry:
    def prepare(given: tuple[list[dict[str, Any]], Errors]) -> list[tuple[Any, Any]]:
        return [
            (contender.as_step(step), contender.as_errors(error))
            for step, error in zip(*given, strict=True)
        ]

    def call(both: tuple[Any, Any]) -> None:
        contender.add_with_error(*both)

    return Entry(prepare, call, lambda: contender.sample(1))


def _extending(contender: Contender) -> Entry:
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


def _loop(contender: Contender, adds: int, batch: int) -> Entry:
    def prepare(given: list[tuple[list[dict[str, Any]], Errors]]) -> list[tuple[Any, Any]]:
        return [
            ([contender.as_step(step) for step in steps], contender.as_errors(errors))
            for steps, errors in given
        ]

    def call(both: tuple[list[Any], Any]) -> None:
        for step in both[0]:
            contender.add(step)
        contender.update(contender.sample(batch), both[1])

    return Entry(prepare, call)


def _loops(bench: Bench, adds: int, batch: int, calls: int = 64) -> Callable[[int], Any]:
    def inputs(number: int) -> list[tuple[list[dict[str, Any]], Errors]]:
        steps = bench.workload.steps(number, adds * calls)
        errors = bench.workload.updates(number, calls, batch)
        return [(steps[k * adds : (k + 1) * adds], errors[k]) for k in range(calls)]

    return inputs


def measure_worst(
    bench: Bench, kinds: Sequence[type[Contender]], size: int, batch: int = 256
) -> None:
    """Time a draw with its update where priorities are as awkward as they get.

    Parameters
    ----------
    bench, kinds, size
        See :func:`measure_adding`.
    batch : int
        B.
    """
    kinds = [kind for kind in kinds if kind.law != "uniform"]
    calls = calls_for(batch)
    for case in WORST:
        there = bench.filled(kinds, size, _errors(bench, case, size))
        measure = f"worst: {case}"
        if case == "overwriting":
            entries = {c.name: _loop(c, batch, batch) for c in there}
            inputs = _loops(bench, batch, batch, 4)
        else:
            entries = {c.name: cycle(c, batch, CYCLE) for c in there}
            inputs = _updates(bench, case, calls, batch)
        times = bench.time(
            measure, size, batch, entries, inputs, 4 if case == "overwriting" else calls
        )
        bench.compare(measure, size, batch, times, [c.name for c in there if is_ours(c)])
        bench.check_batches(there)


def _errors(bench: Bench, case: str, size: int) -> Floats | None:
    if case == "new rows":
        return None
    if case == "all equal":
        return np.ones(size)
    errors = bench.workload.errors(size)
    return np.clip(10.0 * errors, -1.0, 1.0) if case == "clipped" else errors


def _updates(bench: Bench, case: str, calls: int, batch: int) -> Callable[[int], Errors]:
    def inputs(number: int) -> Errors:
        if case == "all equal":
            return np.ones((calls, batch), np.float32)
        if case == "rising":
            last = 1000.0 + number * calls * batch
            return np.arange(last, last + calls * batch, dtype=np.float32).reshape(calls, batch)
        errors = bench.workload.updates(number, calls, batch)
        if case == "clipped":
            return np.clip(10.0 * errors, -1.0, 1.0)
        return errors

    return inputs


def in_order(kinds: Iterable[type[Contender]]) -> list[type[Contender]]:
    """Return contenders by law, those of a law in the order given."""
    return sorted(kinds, key=lambda kind: LAWS.index(kind.law))
