"""End every call of every kind of buffer at each of its events, and look at what is left.

    python -m tests.soak.interrupts
    python -m tests.soak.interrupts --kinds frames-rank-3-None-31 --calls add clear

It is ``test_interrupts`` with nothing left out. What a call leaves must be the state before or
after it. A run that was stopped goes on with ``--from`` and the first kind that it had not printed.
"""

import argparse
import multiprocessing
import sys
import tempfile
import warnings
from pathlib import Path
from typing import NamedTuple

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tests.test_interrupts import CALLS, KINDS, TRIALS, Trial

SHOWN = 5  # complaints of one call that are printed
KIND_NAMES = [kind.name for kind in KINDS]
CALL_NAMES = [call.__name__ for call in CALLS]


class Result(NamedTuple):
    """What became of one call of one kind of buffer."""

    kind: str
    call: str
    events: int
    complaints: list[str]


def end_everywhere(names: tuple[str, str]) -> Result:
    """End one call of one kind of buffer at each of its events."""
    # Python says so where an exception strikes a generator that is being closed: the call went on.
    sys.unraisablehook = lambda _: None
    warnings.simplefilter("ignore")
    kind, call = KINDS[KIND_NAMES.index(names[0])], CALLS[CALL_NAMES.index(names[1])]
    complaints = []
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(kind, call, Path(folder))
        for at in range(trial.count):
            try:
                complaint = trial.complaint(at)
            except Exception as error:
                complaint = f"then raises {error!r}"
            if complaint is not None:
                complaints.append(f"{trial} event {at} of {trial.count}: {complaint}")
    return Result(*names, trial.count, complaints)


def run(kinds: list[str], calls: list[str], processes: int) -> int:
    """Print the counts of each kind and call; return how many events left something half done."""
    pairs = [(kind.name, call.__name__) for kind, call in TRIALS]
    work = [(kind, call) for kind in kinds for call in calls if (kind, call) in pairs]
    events = inconsistent = 0
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    with (
        multiprocessing.get_context("spawn").Pool(processes) as pool,
        Progress(*columns, TimeRemainingColumn()) as progress,
    ):
        task = progress.add_task("calls", total=len(work))
        results = pool.imap(end_everywhere, work)
        for kind in kinds:
            of_kind = []
            for _ in [call for call in calls if (kind, call) in pairs]:
                of_kind.append(next(results))
                progress.advance(task)
            counts = ", ".join(f"{result.call} {result.events}" for result in of_kind)
            complaints = [result.complaints for result in of_kind]
            progress.console.print(f"{kind}: {counts}", soft_wrap=True, highlight=False)
            for some in complaints:
                for complaint in some[:SHOWN]:
                    progress.console.print(f"  {complaint}", soft_wrap=True, highlight=False)
            events += sum(result.events for result in of_kind)
            inconsistent += sum(map(len, complaints))
            progress.console.print(f"  {events} events so far, {inconsistent} inconsistent")
    what = f"{len(kinds)} kinds x {len(calls)} calls"
    print(f"{events} events of {what}: {inconsistent} inconsistent")
    return inconsistent


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kinds", nargs="+", default=KIND_NAMES, choices=KIND_NAMES)
    parser.add_argument("--from", dest="first", choices=KIND_NAMES, help="begin with this kind")
    parser.add_argument("--calls", nargs="+", default=CALL_NAMES, choices=CALL_NAMES)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    kinds = options.kinds
    if options.first is not None:
        kinds = KIND_NAMES[KIND_NAMES.index(options.first) :]
    return 1 if run(kinds, options.calls, options.processes) else 0


if __name__ == "__main__":
    sys.exit(main())
