"""One run of the benchmark: it fills and checks contenders, times them and notes what came out.

Knows contenders by their common face; knows neither what is measured nor any library.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.results import (
    Absence,
    Check,
    Ratio,
    Results,
    Timing,
    available_bytes,
)
from benchmarks.timing import Effort, Entry, Floats, interleave, ratio, spread
from prioritized_replay.conformance.checks import Invalid, check_batch, check_draws, check_update
from prioritized_replay.conformance.subject import Subject
from prioritized_replay.conformance.workload import Workload


def is_ours(contender: Subject | type[Subject]) -> bool:
    """Return whether a contender is of this library."""
    return contender.library == "prioritized-replay"


@dataclass(frozen=True)
class Session:
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
        self, kinds: Iterable[type[Subject]], size: int, errors: Floats | None
    ) -> list[Subject]:
        """Build and fill those contenders that fit into memory, one after the other.

        Parameters
        ----------
        kinds : iterable of Subject classes
            Whom.
        size : int
            N.
        errors : float64[N] or None
            TD errors of the rows; None: they have the priority of new rows.
        """
        there = []
        for kind in kinds:
            free = available_bytes()
            if free is not None and size * kind.row_bytes > 0.9 * free:
                self._note_absence(
                    f"{kind.name} at {size:,} rows",
                    "it would not fit into memory beside the others",
                )
                continue
            self.say(f"{size:,} rows: filling {kind.name}")
            contender = kind(size)
            contender.fill(self.workload, errors)
            there.append(contender)
        return there

    def checked(self, contenders: list[Subject], errors: Floats) -> list[Subject]:
        """Return the contenders whose draws are right; note what was found, and who is out.

        Raises
        ------
        Invalid
            It is one of ours.
        """
        return [c for c in contenders if self._passes(c, lambda c: self._draws(c, errors))]

    def check_updates(self, contenders: Iterable[Subject]) -> None:
        """Check that updates arrived; the times of a peer where they did not are taken back."""
        for contender in contenders:
            if contender.law != "uniform" and not self._passes(contender, check_update):
                self._take_back(contender)

    def check_batches(self, contenders: Iterable[Subject]) -> None:
        """Check a batch of each memory as it is after all that was done to it."""

        def check(contender: Subject) -> str:
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
        between: Callable[[], object] | None = None,
    ) -> dict[str, Floats]:
        """Time entries in turns and note each one's time, divided by ``scale``."""
        self.say(f"{size:,} rows: {measure}, {batch}")
        times = interleave(entries, inputs, self.effort, between=between)
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

    def _draws(self, contender: Subject, errors: Floats) -> str:
        self.say(f"{contender.size:,} rows: checking what {contender.name} draws")
        return check_draws(contender, self.workload, errors)

    def _passes(self, contender: Subject, check: Callable[[Subject], str]) -> bool:
        try:
            found = check(contender)
        except Invalid as invalid:
            if is_ours(contender):
                raise
            self._note_absence(f"{contender.name} at {contender.size:,} rows", str(invalid))
            return False
        self.results.checks.append(Check(contender.name, contender.size, found))
        return True

    def _take_back(self, contender: Subject) -> None:
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
