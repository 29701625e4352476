"""The sampler alone beside a buffer that draws the same and copies rows too.

Both get the same seed and the same errors, so they draw the same ids in every call: what differs is
what a draw has to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import prioritized_replay as per
from benchmarks.results import Check, Participant, Ratio
from benchmarks.session import Session
from benchmarks.timing import Entry, ratio
from prioritized_replay.conformance.checks import Invalid
from prioritized_replay.sampling.distribution import Fused

INDEX = "index: sample + update"
SIZES, BATCHES = (1_000, 10_000, 100_000, 1_000_000), (1, 8, 64, 512)
SAMPLERS: dict[str, Any] = {
    "uniform": per.Uniform(), "proportional": per.Proportional(), "rank": per.RankBased(),
}  # fmt: skip
FIELDS = {
    "obs": per.Field((17,), "float32"),
    "action": per.Field((6,), "float32"),
    "reward": per.Field((), "float32"),
}
"""Rows as of HalfCheetah, in float32."""
ROWS = "obs and next_obs float32[17], action float32[6], reward and discount float32"
BETA = 0.5
_CHUNK = 1 << 16

Memory = per.PrioritizedIndex | per.ReplayBuffer


def index_name(law: str) -> str:
    """Return the contender that has no rows."""
    return f"index, {law}"


def buffer_name(law: str) -> str:
    """Return the contender that has rows."""
    return f"buffer, {law}"


def shared_name(law: str) -> str:
    """Return the limit of both: nothing but the search for slots, and the new priorities."""
    return f"limit: search and update, {law}"


def measure_index(session: Session, most: int) -> None:
    """Time a draw with its update, of every law, size and batch.

    Parameters
    ----------
    session : Session
        Notes the times.
    most : int
        Rows of the largest memories; larger sizes are left out.
    """
    for law in SAMPLERS:
        session.results.contenders += [
            Participant(index_name(law), "prioritized-replay", f"index, {law}", {}),
            Participant(buffer_name(law), "prioritized-replay", f"index, {law}", {"rows": ROWS}),
        ]
        for size in [size for size in SIZES if size <= most] or [most]:
            # a function each, so that one's memories are gone before the next are made
            _measure_law(session, law, size)


def _measure_law(session: Session, law: str, size: int) -> None:
    session.say(f"{size:,} rows: filling index and buffer, {law}")
    memories = filled(SAMPLERS[law], size, session.workload.errors(size))
    third = filled_index(SAMPLERS[law], size, session.workload.errors(size))
    both: dict[str, Memory] = {index_name(law): memories[0], buffer_name(law): memories[1]}
    for batch in BATCHES:
        calls = max(4, min(128, 8192 // batch))
        entries = {name: _cycle(memory, batch) for name, memory in both.items()}
        entries[shared_name(law)] = _shared(third, batch)

        def errors(number: int, calls: int = calls, batch: int = batch) -> Any:
            return session.workload.updates(number, calls, batch)

        times = session.time(INDEX, size, batch, entries, errors, calls)
        for name in (index_name(law), shared_name(law)):
            of = ratio(times[name], times[buffer_name(law)])
            session.results.ratios.append(
                Ratio(INDEX, size, batch, buffer_name(law), name, of.median, of.low, of.high)
            )
    check_alike(memories)
    found = "it draws what the buffer draws, after the timing too"
    session.results.checks.append(Check(index_name(law), size, found))


def filled(sampler: Any, size: int, errors: Any) -> tuple[per.PrioritizedIndex, per.ReplayBuffer]:
    """Return an index and a buffer with the same priorities."""
    index = filled_index(sampler, size, errors)
    replay = per.ReplayBuffer(size, FIELDS, sampler=sampler, seed=1)
    rng = np.random.default_rng(0)
    for first in range(0, size, _CHUNK):
        part = errors[first : first + _CHUNK]
        count = len(part)
        rows = {
            "obs": rng.standard_normal((count, 17), np.float32),
            "action": rng.standard_normal((count, 6), np.float32),
            "reward": rng.standard_normal(count, np.float32),
            "next_obs": rng.standard_normal((count, 17), np.float32),
            "discount": np.full(count, 0.99, np.float32),
        }
        replay.extend(rows, part)
    return index, replay


def filled_index(sampler: Any, size: int, errors: Any) -> per.PrioritizedIndex:
    """Return an index of items with these errors."""
    index = per.PrioritizedIndex(size, sampler, seed=1)
    index.append(size, errors)
    return index


def _shared(index: per.PrioritizedIndex, batch: int) -> Entry:
    """Return what is left of a draw and an update without ids, weights, checks and rows."""
    sampler = index._sampler
    sampler.prepare()  # it receives the items only when they are needed
    distribution, eps = sampler.distribution, sampler.eps
    assert isinstance(distribution, Fused)
    fused: Any = distribution
    slots, probabilities = np.empty(batch, np.int64), np.empty(batch)
    rng = np.random.default_rng(0)

    def cycle(both: tuple[Any, Any]) -> None:
        fused.draw(both[0], True, slots, probabilities)
        # The index is full and has never gone round: slots are ids.
        fused.update(sampler.counters, slots, both[1], eps, 0.0)

    return Entry(
        lambda given: [(rng.random(batch), errors.astype(np.float64)) for errors in given], cycle
    )


def _cycle(memory: Memory, batch: int) -> Entry:
    def cycle(errors: Any) -> None:
        memory.update_priorities(memory.sample(batch, BETA).ids, errors)

    return Entry(list, cycle)


def check_alike(memories: Sequence[Memory]) -> None:
    """See whether memories that had the same calls draw the same.

    Raises
    ------
    Invalid
        If they do not.
    """
    drawn = [memory.sample(256, BETA) for memory in memories]
    first = drawn[0]
    for other in drawn[1:]:
        if not (
            np.array_equal(first.ids, other.ids) and np.array_equal(first.weights, other.weights)
        ):
            raise Invalid("an index must draw what a buffer with the same priorities draws")
