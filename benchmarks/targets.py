"""What was aimed at, and whether it was reached: one table of targets, judged from the results.

Knows the targets as data; measures nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from benchmarks import (
    episode_measures,
    index_measures,
    note_measures,
    ray_measures,
    sequence_measures,
    vector_measures,
)
from benchmarks.measures import ADD, CYCLE, GROWTH
from benchmarks.processes import FIRST, IMPORT, LATER
from benchmarks.results import Ratio, Results
from benchmarks.stack_measures import STACKS
from benchmarks.vector_memories import OursVectorStacks
from prioritized_replay.conformance.adapters.ours import OursProportional, OursRank, OursStacks
from prioritized_replay.conformance.stacks import FRAME_BYTES

PROPORTIONAL, RANK = OursProportional.name, OursRank.name
SB3 = "stable-baselines3"


@dataclass(frozen=True)
class Figure:
    """A measured number with its quartiles (or least and most), and against whom it was taken."""

    value: float
    low: float
    high: float
    against: str


@dataclass(frozen=True)
class Target:
    """One aim.

    Attributes
    ----------
    what : str
        What is measured.
    bound : float
        The aim.
    at_least : bool
        Whether more is better.
    unit : str
        ``"x"`` for a ratio, ``"s"`` and ``"us"`` for seconds and microseconds, ``"GB"`` for 1e9
        bytes.
    measured : callable
        Finds the figure in the results; None where it was not measured.
    """

    what: str
    bound: float
    at_least: bool
    unit: str
    measured: Callable[[Results], Figure | None]


@dataclass(frozen=True)
class Verdict:
    """A target and what came of it; ``met`` is None where nothing was measured."""

    target: Target
    figure: Figure | None
    met: bool | None


def judge(results: Results, targets: Sequence[Target] | None = None) -> list[Verdict]:
    """Return every target with what was measured, in the order of :data:`TARGETS`.

    Parameters
    ----------
    results : Results
        What was measured.
    targets : sequence of Target, optional
        Others than these.
    """
    verdicts = []
    for target in TARGETS if targets is None else targets:
        figure = target.measured(results)
        met = None
        if figure is not None:
            beyond = figure.value - target.bound
            met = beyond >= 0 if target.at_least else beyond <= 0
        verdicts.append(Verdict(target, figure, met))
    return verdicts


def fastest_peer(results: Results, measure: str, size: int, batch: int, ours: str) -> Ratio | None:
    """Return how ours compares with the fastest proportional memory of the other libraries."""
    names = {t.name for t in results.contenders if t.law == "proportional"} - {PROPORTIONAL}
    against = [row for row in _ratios(results, measure, size, batch, ours) if row.against in names]
    return min(against, key=lambda row: row.ratio, default=None)


def _ratios(results: Results, measure: str, size: int, batch: int, ours: str) -> Iterator[Ratio]:
    key = (measure, size, batch, ours)
    for row in results.ratios:
        if (row.measure, row.size, row.batch, row.contender) == key:
            yield row


def _figure(row: Ratio | None) -> Figure | None:
    return None if row is None else Figure(row.ratio, row.low, row.high, row.against)


def _peer(measure: str, size: int, batch: int, ours: str) -> Callable[[Results], Figure | None]:
    return lambda results: _figure(fastest_peer(results, measure, size, batch, ours))


def _rank_over_proportional(batch: int) -> Callable[[Results], Figure | None]:
    def measured(results: Results) -> Figure | None:
        rows = _ratios(results, CYCLE, 1_000_000, batch, PROPORTIONAL)
        return _figure(next((row for row in rows if row.against == RANK), None))

    return measured


def _growth(name: str) -> Callable[[Results], Figure | None]:
    def measured(results: Results) -> Figure | None:
        twin = f"{name} at 10,000 rows"
        return _figure(next(_ratios(results, GROWTH, 10_000_000, 1024, twin), None))

    return measured


def _stacks_over_copy(batch: int) -> Callable[[Results], Figure | None]:
    def measured(results: Results) -> Figure | None:
        rows = [row for row in results.ratios if row.contender == STACKS and row.batch == batch]
        return _figure(next((row for row in rows if row.against == OursStacks.name), None))

    return measured


def _stack_bytes(unit: float, least: int) -> Callable[[Results], Figure | None]:
    """Find what a transition takes, by the larger of what we say and what the process grew by."""

    def measured(results: Results) -> Figure | None:
        rows = [
            row for row in results.footprints
            if row.contender == OursStacks.name and row.size >= least
        ]  # fmt: skip
        if not rows:
            return None
        row = max(rows, key=lambda row: row.size)
        value = max(row.reserved or 0.0, row.resident or 0.0) * unit
        return Figure(value, value, value, "")

    return measured


def _start(what: str) -> Callable[[Results], Figure | None]:
    def measured(results: Results) -> Figure | None:
        found = [row for row in results.starts if row.what == what]
        return Figure(found[0].seconds, found[0].least, found[0].most, "") if found else None

    return measured


def _microseconds(
    measure: str, batch: int, name: str = vector_measures.NAME
) -> Callable[[Results], Figure | None]:
    def measured(results: Results) -> Figure | None:
        for row in results.timings:
            if (row.measure, row.batch, row.contender) == (measure, batch, name):
                return Figure(1e6 * row.seconds, 1e6 * row.low, 1e6 * row.high, "")
        return None

    return measured


def _own_ratio(measure: str, batch: int, against: str) -> Callable[[Results], Figure | None]:
    """Find how many times as long another way of ours takes."""

    def measured(results: Results) -> Figure | None:
        rows = [
            row for row in results.ratios
            if (row.measure, row.batch, row.against) == (measure, batch, against)
        ]  # fmt: skip
        return _figure(rows[0] if rows else None)

    return measured


def _index_time(law: str) -> Callable[[Results], Figure | None]:
    """Find what a call takes whatever it draws: one row, of the smallest memory."""

    def measured(results: Results) -> Figure | None:
        name = index_measures.index_name(law)
        rows = [row for row in results.timings if row.contender == name and row.batch == 1]
        if not rows:
            return None
        row = min(rows, key=lambda row: row.size)
        return Figure(1e6 * row.seconds, 1e6 * row.low, 1e6 * row.high, "")

    return measured


def _index_ratio(law: str) -> Callable[[Results], Figure | None]:
    """Find how long the index takes, in times of the buffer, for 512 of the most rows."""

    def measured(results: Results) -> Figure | None:
        name = index_measures.index_name(law)
        rows = [row for row in results.ratios if row.against == name and row.batch == 512]
        return _figure(max(rows, key=lambda row: row.size, default=None))

    return measured


def _sequence_growth(results: Results) -> Figure | None:
    """Find how many times as long a draw takes from 1e8 steps as from 1e6."""
    ways = sequence_measures
    twin = ways.at(1_000_000)
    return _figure(next(_ratios(results, ways.GROWTH, 100_000_000, ways.DRAW_BATCH, twin), None))


def _training(results: Results) -> Figure | None:
    runs = results.training.get("runs", ())
    speed = {(run["contender"], run["seed"]): run["steps_per_second"] for run in runs}
    times = [
        value / speed[SB3, seed]
        for (contender, seed), value in speed.items()
        if contender == "proportional" and (SB3, seed) in speed
    ]
    return Figure(sorted(times)[len(times) // 2], min(times), max(times), SB3) if times else None


TARGETS = (
    Target("add one transition", 10.0, True, "x", _peer(ADD, 1_000_000, 1, PROPORTIONAL)),
    *(
        Target(
            f"sample + update, N = 1e6, batch {batch}", bound, True, "x",
            _peer(CYCLE, 1_000_000, batch, PROPORTIONAL),
        )
        for batch, bound in ((32, 5.0), (256, 7.0), (1024, 7.5))
    ),
    *(
        Target(
            f"sample + update, N = 1e4, batch {batch}", 4.0, True, "x",
            _peer(CYCLE, 10_000, batch, PROPORTIONAL),
        )
        for batch in (32, 256, 1024)
    ),
    *(
        Target(
            f"rank-based, N = 1e6, batch {batch}, against a proportional peer", 2.0, True, "x",
            _peer(CYCLE, 1_000_000, batch, RANK),
        )
        for batch in (32, 256, 1024)
    ),
    *(
        Target(
            f"rank-based, N = 1e6, batch {batch}, in times of our own proportional",
            3.3, False, "x", _rank_over_proportional(batch),
        )
        for batch in (32, 256, 1024)
    ),
    *(
        Target(
            f"growth from N = 1e4 to N = 1e7, batch 1024, {law}", 3.0, False, "x", _growth(name)
        )
        for law, name in (("proportional", PROPORTIONAL), ("rank-based", RANK))
    ),
    Target("DQN training, steps per second", 2.5, True, "x", _training),
    Target(IMPORT, 0.5, False, "s", _start(IMPORT)),
    *(
        Target(f"{what}, {sampler}", bound, False, "s", _start(f"{what}, {sampler}"))
        for what, bound in ((FIRST, 5.0), (LATER, 1.0))
        for sampler in ("Proportional", "RankBased")
    ),
)  # fmt: skip
"""What this library should reach with small rows.

Ratios are times of a peer over ours, or as the row says.
"""

_WAYS = vector_measures

VECTOR_TARGETS = (
    *(
        Target(f"{_WAYS.ADD}, {streams} environments", bound, False, "us",
               _microseconds(_WAYS.ADD, streams))
        for streams, bound in zip(_WAYS.STREAMS, (5.0, 7.0, 12.0), strict=True)
    ),
    *(
        Target(f"{_WAYS.ADD}, {streams} environments, n = {_WAYS.N_STEP}, in times of n = 1",
               1.6, False, "x", _own_ratio(_WAYS.ADD, streams, _WAYS.THREE_STEPS))
        for streams in _WAYS.STREAMS
    ),
    *(
        Target(f"what a float64 column adds to that, {streams} environments", 0.3, False, "us",
               _microseconds(_WAYS.FLOAT64, streams))
        for streams in _WAYS.STREAMS
    ),
    Target(f"{_WAYS.COLD}, {_WAYS.COLD_STREAMS} environments", 10.0, False, "us",
           _microseconds(_WAYS.COLD, _WAYS.COLD_STREAMS)),
    Target(f"{_WAYS.OVER_FRAMES}, {_WAYS.STACK_STREAMS} environments", 10.0, False, "us",
           _microseconds(_WAYS.OVER_FRAMES, _WAYS.STACK_STREAMS, OursVectorStacks.name)),
    *(
        Target(f"what notes add to {measure}", 1.02, False, "x",
               _own_ratio(note_measures.NOTE + measure, 1, note_measures.NAME))
        for measure in note_measures.MEASURES
    ),
)  # fmt: skip
"""What adding a step of many environments should take, and what notes may cost."""

RAY_TARGETS = (
    Target("1024 rows drawn ahead: a million rows a second", 1024.0, False, "us",
           _microseconds(ray_measures.AHEAD, ray_measures.ROWS, ray_measures.OURS)),
    Target("1024 rows inserted: a million rows a second", 1024.0, False, "us",
           _microseconds(ray_measures.INSERT, ray_measures.ROWS, ray_measures.OURS)),
    Target("1024 rows drawn, waited for", 3000.0, False, "us",
           _microseconds(ray_measures.DRAW, ray_measures.ROWS, ray_measures.OURS)),
)  # fmt: skip
"""What rows should take through Ray, one process for a shard and one for the learner."""

INDEX_TARGETS = (
    *(
        Target(f"512 of 1,000,000 items, {law}, in times of a buffer", 0.6, False, "x",
               _index_ratio(law))
        for law in index_measures.SAMPLERS
    ),
    *(
        Target(f"1 of 1,000 items, {law}", 10.0, False, "us", _index_time(law))
        for law in index_measures.SAMPLERS
    ),
)  # fmt: skip
"""What the sampler alone should take."""

EPISODE_TARGETS = (
    Target("a million steps in episodes of 1,000 into a new memory, n = 3", 2.0, False, "s",
           _microseconds(episode_measures.NEW, 1, episode_measures.WHOLE)),
)  # fmt: skip
"""What adding whole episodes should take: seconds of a million steps, microseconds of one."""

_SEQ = sequence_measures

SEQUENCE_TARGETS = (
    Target(f"{_SEQ.UPDATE_BATCH} x {_SEQ.UPDATE_LENGTH} errors: new priorities", 300.0, False, "us",
           _microseconds(_SEQ.UPDATE, _SEQ.UPDATE_BATCH, _SEQ.NAME)),
    Target(f"{_SEQ.DRAW_BATCH} sequences of {_SEQ.DRAW_LENGTH}: 1e8 steps, in times of 1e6",
           2.0, False, "x", _sequence_growth),
    *(
        Target(f"{_SEQ.COPY_BATCH} sequences of {_SEQ.COPY_LENGTH}, {width}, in times of a bare "
               "copy of their bytes", 1.5, False, "x",
               _own_ratio(_SEQ.copied(width), _SEQ.COPY_BATCH, _SEQ.NAME))
        for width in _SEQ.WIDTHS
    ),
    *(
        Target(f"bytes of a step, {kept}, in times of a transition", 1.1, False, "x",
               _own_ratio(f"{_SEQ.BYTES}, {kept}", 1, _SEQ.OF_SEQUENCES))
        for kept in _SEQ.KEPT
    ),
)  # fmt: skip
"""What it should reach with sequences."""

STACK_TARGETS = (
    Target(
        "84x84x4 stacks: bytes of a transition, all told, in times of one frame",
        1.02, False, "x", _stack_bytes(1 / FRAME_BYTES, 10_000),
    ),
    Target(
        "84x84x4 stacks: 1e6 transitions", 7.3, False, "GB", _stack_bytes(1e-3, 1_000_000)
    ),
    Target(
        "84x84x4 stacks: sample 32, in times of a bare copy of the same bytes",
        1.0, False, "x", _stacks_over_copy(32),
    ),
)  # fmt: skip
"""What it should reach with stacks of frames."""
