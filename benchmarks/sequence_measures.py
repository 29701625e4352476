"""What is timed of sequences: drawing them, new priorities, growth with the steps, bare copies.

Knows memories by their common face; knows no library but ours, whose rows are compared with a copy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

import prioritized_replay as per
from benchmarks.results import Absence, Check, Footprint, Participant, Ratio, available_bytes
from benchmarks.sequence_memories import (
    CANNOT,
    OURS_SEQUENCES,
    PEERS_SEQUENCES,
    OursSequences,
    SequenceMemory,
    Steps,
    later,
)
from benchmarks.session import Session
from benchmarks.timing import Entry, interleave, ratio
from prioritized_replay.conformance.adapters import Peer, missing
from prioritized_replay.conformance.checks import Invalid
from prioritized_replay.conformance.subject import BETA

Array = NDArray[Any]
Shape = tuple[int, ...]

UPDATE_BATCH, UPDATE_LENGTH = 16, 64
DRAW_BATCH, DRAW_LENGTH = 256, 8
UPDATE = f"update sequences of {UPDATE_LENGTH} steps"
CYCLE = f"sample + update sequences of {UPDATE_LENGTH} steps"
DRAW = f"sample sequences of {DRAW_LENGTH} steps"
ADD_AND_DRAW = f"add a step, sample sequences of {DRAW_LENGTH} steps"
GROWTH = f"growth, sequences of {DRAW_LENGTH} steps"
NAME = OursSequences.name
LARGEST_OF_PEERS = 10_000_000  # steps

COPY = "limit: copy of sequences"
MEANING = (
    "obs and next_obs of as many sequences that begin at random steps, with numpy.take of whole "
    "observations into arrays that are there already, from two arrays of all steps"
)
COPY_BATCH, COPY_LENGTH = 16, 64
COPY_STEPS = 20_000
WIDTHS: Mapping[str, tuple[Shape, str]] = {
    "1 KiB, in rows": ((128,), "float32"),
    "1 KiB images": ((32, 32), "uint8"),
    "4 KiB images": ((64, 64), "uint8"),
    "12 KiB images": ((64, 64, 3), "uint8"),
}
"""Observations by their bytes; *in rows*: what the observation and the next one take together, as
those below 1 KiB are kept in the rows."""

BYTES = "bytes of a step"
TRANSITIONS, OF_SEQUENCES = "ours, transitions", "ours, sequences of 8"
KEPT: Mapping[str, tuple[Shape, str, int]] = {
    "small rows": ((4,), "float32", 1_000_000),
    "HalfCheetah": ((17,), "float32", 1_000_000),
    "84x84 images": ((84, 84), "uint8", 20_000),
}
"""Observations whose steps are counted in bytes, and how many steps."""

_EPISODE = 1_000  # steps, of the buffers that are made here
_BOOST = 1e15  # an error beside which those of the others are nothing


def copied(width: str) -> str:
    """Return the measure of a batch beside a bare copy."""
    return f"sample sequences of {COPY_LENGTH} steps, {width}"


def at(size: int) -> str:
    """Return the contender of a growth that is the smaller one."""
    return f"{NAME} of {size:,} steps"


def measure_sequences(
    session: Session, peers: Iterable[Peer], sizes: Sequence[int], some: int
) -> None:
    """Time draws and updates of sequences, and count bytes.

    Parameters
    ----------
    session : Session
        Notes what comes out.
    peers : iterable of str
        Libraries to measure beside, as far as they draw sequences.
    sizes : sequence of int
        Steps in memory for draws, the smallest first.
    some : int
        Steps in memory for the rest, at most.
    """
    kinds = _taking_part(session, peers)
    # a function each, so that one's memories are gone before the next are made
    for law in ("proportional", "uniform"):
        group = [kind for kind in kinds if kind.law == law and kind.draws]
        for size in sizes:
            if law == "proportional" or size <= LARGEST_OF_PEERS:
                _measure_draws(session, group, size, sizes[0])
    _measure_updates(session, [kind for kind in kinds if kind.law != "uniform"], some)
    for width in WIDTHS:
        _measure_copies(session, width, min(COPY_STEPS, some))
    for kept in KEPT:
        _measure_bytes(session, kept, some)


def _taking_part(session: Session, peers: Iterable[Peer]) -> list[type[SequenceMemory]]:
    """Return who takes part; note how each is used, and who cannot."""
    kinds = list(OURS_SEQUENCES)
    absent = session.results.absent
    for peer in peers:
        if peer in CANNOT:
            absent.append(Absence(f"{peer}, sequences", CANNOT[peer]))
        for kind in PEERS_SEQUENCES.get(peer, ()):
            try:
                kind(100, 2)
            except (ImportError, RuntimeError) as error:  # some need no compiled part, some do
                absent.append(Absence(kind.name, missing(peer) or str(error)))
            else:
                kinds.append(kind)
    session.results.contenders += [
        Participant(kind.name, kind.library, kind.law, dict(kind.settings)) for kind in kinds
    ]
    return kinds


def _filled(
    session: Session, kinds: Iterable[type[SequenceMemory]], size: int, length: int
) -> list[SequenceMemory]:
    """Make those memories that fit, fill and check them."""
    there = []
    for kind in kinds:
        free = available_bytes()
        why = None
        if kind.library != OursSequences.library and size > LARGEST_OF_PEERS:
            why = "ours alone is measured there, as there is no room for several"
        elif free is not None and size * kind.row_bytes > 0.9 * free:
            why = "it would not fit into memory"
        if why is not None:
            session.results.absent.append(Absence(f"{kind.name} at {size:,} steps", why))
            continue
        session.say(f"{size:,} steps: filling {kind.name}")
        memory = kind(size, length)
        memory.fill(session.workload.seed)
        check_contents(memory)
        found = f"{DRAW_BATCH} sequences held {length} steps each of one episode, in their order"
        session.results.checks.append(Check(kind.name, size, found))
        there.append(memory)
    return there


def check_contents(memory: SequenceMemory) -> None:
    """See whether what is drawn are the steps of one episode in their order.

    Raises
    ------
    Invalid
        If it is not.
    """
    obs, actions = memory.seen(memory.sample(DRAW_BATCH))
    if actions.shape != (DRAW_BATCH, memory.length):
        raise Invalid(f"{memory.name}: a batch must be [B, T], got {actions.shape}")
    if not (np.diff(actions, axis=1) == 1).all():
        raise Invalid(f"{memory.name}: a sequence must have steps that follow each other")
    if not (actions[:, 0] // _EPISODE == actions[:, -1] // _EPISODE).all():
        raise Invalid(f"{memory.name}: a sequence must lie within one episode")
    if not np.array_equal(obs[..., 0], actions.astype(np.float32)):
        raise Invalid(f"{memory.name}: observations must be those of the same steps")


def check_update(memory: SequenceMemory) -> str:
    """Give one sequence a huge error, and see whether it is drawn from then on.

    Raises
    ------
    Invalid
        If it is not.
    """
    drawn = memory.sample(1)
    memory.update(drawn, memory.as_errors(np.full((1, memory.length), _BOOST, np.float32)))
    first = memory.seen(drawn)[1][0, 0]
    # Where each step has a priority, slices begin at any of those steps.
    starts = memory.seen(memory.sample(DRAW_BATCH))[1][:, 0]
    share = float(((starts >= first) & (starts < first + memory.length)).mean())
    if share < 0.9:
        raise Invalid(f"{memory.name}: a huge error must be drawn, got it in {share:.0%} of draws")
    return f"a huge error made {share:.0%} of draws begin there"


def _measure_draws(
    session: Session, kinds: Sequence[type[SequenceMemory]], size: int, smallest: int
) -> None:
    """Time draws, alone and after additions, and how they grow from the smallest memory on."""
    there = _filled(session, kinds, size, DRAW_LENGTH)
    if not there or not isinstance(there[0], OursSequences):
        return  # ours does not fit
    ours, calls = there[0], 32
    entries = {memory.name: _drawing(memory) for memory in there}
    times = session.time(DRAW, size, DRAW_BATCH, entries, lambda _: [None] * calls, calls)
    session.compare(DRAW, size, DRAW_BATCH, times, [ours.name])
    if size > smallest and ours.name == NAME:
        twin = _filled(session, [OursSequences], smallest, DRAW_LENGTH)[0]
        both = {NAME: _drawing(ours), at(smallest): _drawing(twin)}
        session.say(f"{smallest:,} to {size:,} steps: growth")
        grown = interleave(both, lambda _: [None] * calls, session.effort)
        of = ratio(grown[NAME], grown[at(smallest)])
        session.results.ratios.append(
            Ratio(GROWTH, size, DRAW_BATCH, at(smallest), NAME, of.median, of.low, of.high)
        )
    if size <= LARGEST_OF_PEERS:
        _measure_adding(session, there, size)


def _drawing(memory: SequenceMemory) -> Entry:
    return Entry(list, lambda _: memory.sample(DRAW_BATCH))


def _measure_adding(session: Session, there: Sequence[SequenceMemory], size: int) -> None:
    """Time draws that each come after an addition, as those of a training do."""
    calls, added = 2, size

    def steps(_: int) -> list[Steps]:
        nonlocal added
        added += calls
        return later(added - calls, calls)

    def entry(memory: SequenceMemory) -> Entry:
        def call(step: Any) -> None:
            memory.add(step)
            memory.sample(DRAW_BATCH)

        return Entry(lambda given: [memory.as_step(step) for step in given], call)

    times = session.time(
        ADD_AND_DRAW, size, DRAW_BATCH, {memory.name: entry(memory) for memory in there}, steps,
        calls,
    )  # fmt: skip
    session.compare(ADD_AND_DRAW, size, DRAW_BATCH, times, [m.name for m in there if _ours(m)])


def _measure_updates(session: Session, kinds: Sequence[type[SequenceMemory]], size: int) -> None:
    """Time new priorities for sequences that were drawn, from an error of each step."""
    there = _filled(session, kinds, size, UPDATE_LENGTH)
    ours, calls = [memory.name for memory in there if _ours(memory)], 64

    def errors(number: int) -> Array:
        shape = calls, UPDATE_BATCH, UPDATE_LENGTH
        return np.random.default_rng(number).standard_normal(shape, np.float32)

    def updating(memory: SequenceMemory) -> Entry:
        return Entry(
            lambda given: [(memory.sample(UPDATE_BATCH), memory.as_errors(one)) for one in given],
            lambda both: memory.update(*both),
        )

    def drawing_and_updating(memory: SequenceMemory) -> Entry:
        return Entry(
            lambda given: [memory.as_errors(one) for one in given],
            lambda one: memory.update(memory.sample(UPDATE_BATCH), one),
        )

    for measure, entry in ((UPDATE, updating), (CYCLE, drawing_and_updating)):
        entries = {memory.name: entry(memory) for memory in there}
        times = session.time(measure, size, UPDATE_BATCH, entries, errors, calls)
        session.compare(measure, size, UPDATE_BATCH, times, ours)
    for memory in there:
        session.results.checks.append(Check(memory.name, size, check_update(memory)))


def _ours(memory: SequenceMemory) -> bool:
    return isinstance(memory, OursSequences)


def _measure_copies(session: Session, width: str, size: int) -> None:
    """Time batches beside a copy of their observations."""
    shape, dtype = WIDTHS[width]
    session.say(f"{size:,} steps: filling {width}")
    replay = _buffer(size, shape, dtype, per.Sequence(COPY_LENGTH, overlap=COPY_LENGTH // 2))
    rng = np.random.default_rng(session.workload.seed)
    # Written, as memory that never was is one page of zeros that is always in the cache.
    tables = [_random(rng, (size, *shape), dtype) for _ in range(2)]
    places = [np.empty((COPY_BATCH * COPY_LENGTH, *shape), dtype) for _ in tables]

    def draws(given: Sequence[None]) -> list[Array]:
        starts = rng.integers(size - COPY_LENGTH, size=(len(given), COPY_BATCH, 1))
        return list((starts + np.arange(COPY_LENGTH)).reshape(len(given), -1))

    def take(rows: Array) -> None:
        for table, place in zip(tables, places, strict=True):
            table.take(rows, axis=0, out=place, mode="clip")  # any other mode copies twice

    entries = {
        NAME: Entry(list, lambda _: replay.sample(COPY_BATCH, BETA)),
        COPY: Entry(draws, take),
    }
    calls, measure = 8, copied(width)
    times = session.time(measure, size, COPY_BATCH, entries, lambda _: [None] * calls, calls)
    of = ratio(times[NAME], times[COPY])
    session.results.ratios.append(
        Ratio(measure, size, COPY_BATCH, COPY, NAME, of.median, of.low, of.high)
    )


def _measure_bytes(session: Session, kept: str, most: int) -> None:
    """Count the bytes of a step in a full buffer, beside those of a transition."""
    shape, dtype, size = KEPT[kept]
    size = min(size, most)
    session.say(f"{size:,} steps: bytes, {kept}")
    found = []
    for name, sequence in ((TRANSITIONS, None), (OF_SEQUENCES, per.Sequence(DRAW_LENGTH))):
        replay = _buffer(size, shape, dtype, sequence)
        replay.sample(1)  # the priorities are there only then
        found.append(replay.nbytes / size)
        session.results.footprints.append(Footprint(f"{name}, {kept}", size, found[-1], None))
    of = found[1] / found[0]
    session.results.ratios.append(
        Ratio(f"{BYTES}, {kept}", size, 1, TRANSITIONS, OF_SEQUENCES, of, of, of)
    )


def _buffer(size: int, shape: Shape, dtype: str, sequence: per.Sequence | None) -> per.ReplayBuffer:
    """Return a buffer that is full of episodes of random observations, no two of them alike."""
    fields = {"obs": per.Field(shape, dtype), "action": per.Field((), "int64"),
              "reward": per.Field()}  # fmt: skip
    replay = per.ReplayBuffer(size, fields, sequence=sequence, seed=1)
    rng = np.random.default_rng(0)
    for first in range(0, size, _EPISODE):
        steps = min(_EPISODE, size - first)
        replay.add_episode(
            obs=_random(rng, (steps + 1, *shape), dtype), action=np.arange(steps),
            reward=np.ones(steps, np.float32), terminated=True,
        )  # fmt: skip
    return replay


def _random(rng: np.random.Generator, shape: Shape, dtype: str) -> Array:
    if dtype == "uint8":
        return rng.integers(256, size=shape, dtype=np.uint8)
    return rng.random(shape, np.float32)
