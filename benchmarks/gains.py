"""What users gain, from the results: how many times as fast as the fastest peer, and what it costs.

Knows results, and which of them say most; knows nothing of how they were measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from benchmarks import measures, stack_measures, vector_measures
from benchmarks.processes import FIRST
from benchmarks.results import Footprint, Ratio, Results
from prioritized_replay.conformance.adapters import ALL_STACKS
from prioritized_replay.conformance.adapters.ours import OURS, OURS_STACKS, OursInFiles
from prioritized_replay.conformance.subject import LAWS

ONE_SIZE = 1_000_000
"""Rows: a measure counts at its largest size that is not above this."""

TRAINING = "train a DQN: steps per second"
DQN_PEER = "stable-baselines3"
LIBRARY = "prioritized-replay"

_DRAW = "draw {batch:,}, update priorities"
WORDS = {
    measures.CYCLE: _DRAW,
    measures.SAMPLE: _DRAW,  # of uniform memories, which have no priorities
    measures.LOOP: "add 4 rows, draw {batch}, update",
    measures.ADD: "add one row",
    measures.ADD_WITH_ERROR: "add one row with its TD error",
    measures.EXTEND: "add {batch:,} rows in one call",
    vector_measures.ADD: "vector, E = {batch}: add a step",
    vector_measures.COLD: "vector, E = {batch}: add between torch updates",
    stack_measures.SAMPLE: "images: draw {batch} stacks",
    stack_measures.LOOP: "images: add 4 stacks, draw {batch}, update",
    stack_measures.ADD: "images: add one stack",
}
"""A measure in the words of the page. One that is missing here is shown by its own name."""

_PLACES = {measure: place for place, measure in enumerate(WORDS)}
_HIDDEN = ("worst: ", stack_measures.IN_FILES)  # they have tables of their own
_FILES = {OursInFiles.name, *stack_measures.TWINS}
_STACKS = {kind.name for kind in ALL_STACKS}

OUR_NAMES = {kind.name for kind in (*OURS, *OURS_STACKS)} | _FILES
"""Contenders of this library."""


@dataclass
class Gain:
    """One measure: for each law, how many times as long the fastest peer takes, and who that is.

    `place` says where it stands among the others.
    """

    what: str
    place: int
    by_law: dict[str, tuple[float, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Cost:
    """Something that is not time of a call, and of which ours takes more than the least peer."""

    what: str
    ours: str
    least: str
    peer: str


def together(found: Sequence[Results]) -> Results:
    """Return the results of several runs as one. Ratios are still those within one run each."""
    whole = Results()
    for results in found:
        whole.contenders += results.contenders
        whole.timings += results.timings
        whole.ratios += results.ratios
        whole.footprints += results.footprints
        whole.starts += results.starts
        whole.training = whole.training or results.training
    return whole


def against_peers(results: Results) -> list[Ratio]:
    """Return the ratios of ours and another library's memory of the same kind.

    Rank-based sampling, which no other library has, counts as prioritized, like proportional.
    """
    kinds = {
        row.name: "uniform" if row.law == "uniform" else "prioritized" for row in results.contenders
    }
    ours = OUR_NAMES | {row.name for row in results.contenders if row.library == LIBRARY}
    return [
        row
        for row in results.ratios
        if row.contender in kinds
        and row.against not in ours
        and kinds.get(row.against) == kinds[row.contender]
    ]


def gains(results: Results) -> list[Gain]:
    """Return every measure beside the fastest peer, in the order of :data:`WORDS`.

    Parameters
    ----------
    results : Results
        Of one run, or of several that :func:`together` joined.
    """
    rows = [
        row
        for row in against_peers(results)
        if row.contender not in _FILES and not row.measure.startswith(_HIDDEN)
    ]
    sizes: dict[str, int] = {}
    for row in rows:
        if row.size <= ONE_SIZE:
            sizes[row.measure] = max(row.size, sizes.get(row.measure, 0))
    found: dict[str, Gain] = {}
    for row in rows:
        law = results.law(row.contender)
        if row.size != sizes.get(row.measure) or law is None:
            continue
        what = WORDS.get(row.measure, f"{row.measure}, {{batch:,}}").format(batch=row.batch)
        place = _PLACES.get(row.measure, len(_PLACES))
        gain = found.setdefault(what, Gain(what, place))
        if law not in gain.by_law or row.ratio < gain.by_law[law][0]:
            gain.by_law[law] = row.ratio, row.against.split(",")[0]
    trained = results.training.get("summary", {})
    times = {law: row["times_sb3"] for law, row in trained.items() if law in LAWS}
    if any(times.values()):
        by_law = {law: (value, DQN_PEER) for law, value in times.items() if value}
        found[TRAINING] = Gain(TRAINING, len(_PLACES) + 1, by_law)
    return sorted(found.values(), key=lambda gain: gain.place)


def costs(results: Results) -> list[Cost]:
    """Return where ours takes more memory than the least peer, and how long compiling takes."""
    found = []
    for law in LAWS:
        ours = _least(_of_law(results, law, ours=True))
        peer = _least(_of_law(results, "proportional" if law == "rank" else law, ours=False))
        if ours is not None and peer is not None and ours[0] > peer[0]:
            of = f"bytes per transition, {law}"
            found.append(Cost(of, f"{ours[0]:,.0f}", f"{peer[0]:,.0f}", peer[1]))
    return found + [
        Cost(f"seconds: {row.what}", f"{row.seconds:.1f}", "", "")
        for row in results.starts
        if row.what.startswith(FIRST)
    ]


def _of_law(results: Results, law: str, *, ours: bool) -> Iterable[Footprint]:
    library = {row.name: row.library for row in results.contenders if row.law == law}
    return [
        row
        for row in results.footprints
        if row.contender in library.keys() - _STACKS and (library[row.contender] == LIBRARY) is ours
    ]


def _least(rows: Iterable[Footprint]) -> tuple[float, str] | None:
    known = [(row.resident, row.contender.split(",")[0]) for row in rows if row.resident]
    return min(known, default=None)
