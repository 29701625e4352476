"""What is timed of steps of many environments at once: warm, between two updates of torch, images.

Knows memories by their common face; knows no library but torch, which fills the caches with other
work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.results import Check, Ratio, Timing
from benchmarks.session import Session
from benchmarks.timing import Entry, Floats, ratio, spread
from benchmarks.vector_memories import (
    OURS_VECTOR,
    Array,
    OursVector,
    OursVectorStacks,
    Step,
    VectorMemory,
    played,
    played_stacks,
)
from prioritized_replay.conformance.checks import Invalid
from prioritized_replay.conformance.stacks import STACK_SHAPE
from prioritized_replay.conformance.workload import OBS_SIZE

ADD, COLD, STACKS = "vector add", "vector add between torch updates", "vector add of stacks"
FLOAT64 = "a float64 column"
OVER_FRAMES = "vector add of stacks, beyond 1.2 copies of the new frames"
STREAMS, COLD_STREAMS, STACK_STREAMS = (1, 8, 64), 4, 8
N_STEP = 3
NAME = OursVector.name
THREE_STEPS = f"{NAME}, n = {N_STEP}"
WIDE = ("reward", "obs", "next_obs")
WIDE_NAMES = tuple(f"{NAME}, {k + 1} as float64" for k in range(len(WIDE)))
WITH_ERROR, WITH_STREAMS = f"{NAME}, td_error=", f"{NAME}, env="
FRAMES, STACKS_READ = "limit: copy of new frames", "limit: reading both stacks"
MEANING = {
    FRAMES: "the newest frame of each of the next observations, with numpy.copyto",
    STACKS_READ: "obs and next_obs compared with equal arrays, with numpy.array_equal: frames are "
    "shared where they are found to be equal, and that takes reading them",
}
PLAYED = 64  # different steps, which are added again and again
MOST_STACKS = 5_000


def measure_vectors(
    session: Session, peers: Sequence[type[VectorMemory]], size: int, stacks: int
) -> None:
    """Time adding a step of each of 1, 8 and 64 environments, in all the ways there are.

    Parameters
    ----------
    session : Session
        Notes the times.
    peers : sequence of VectorMemory classes
        Who takes part beside ours.
    size, stacks : int
        Rows in the memories, and in those of stacks of frames.
    """
    for streams in STREAMS:
        # a function each, so that one's memories are gone before the next are made
        _measure_warm(session, peers, size, streams)
    _measure_cold(session, peers, size)
    _measure_stacks(session, min(stacks, MOST_STACKS))


def _measure_warm(
    session: Session, peers: Sequence[type[VectorMemory]], size: int, streams: int
) -> None:
    there = _made(session, peers, size, streams)
    longer = OursVector(size, streams, N_STEP)
    longer.touch()
    ours = there[0]
    assert isinstance(ours, OursVector)
    entries = {memory.name: _adding(memory) for memory in there}
    entries[THREE_STEPS] = _adding(longer)
    for k, name in enumerate(WIDE_NAMES):
        entries[name] = _adding(ours, WIDE[: k + 1])
    entries[WITH_ERROR] = _adding_with(ours, td_error=np.linspace(-1, 1, streams, dtype=np.float32))
    entries[WITH_STREAMS] = _adding_with(ours, env=np.arange(streams))
    calls = max(16, 256 // streams)
    times = session.time(ADD, size, streams, entries, _steps(session, streams, calls), calls)
    _compare(session, ADD, size, streams, times, there)
    _note_own(session, size, streams, times, calls)
    _check(session, there, _quiet(session, streams))


def _note_own(
    session: Session, size: int, streams: int, times: Mapping[str, Floats], calls: int
) -> None:
    """Note how the ways to call ours compare with the plain one, from the same rounds."""
    for name in (THREE_STEPS, WITH_ERROR, WITH_STREAMS):
        of = ratio(times[name], times[NAME])
        session.results.ratios.append(
            Ratio(ADD, size, streams, NAME, name, of.median, of.low, of.high)
        )
    columns = spread((times[WIDE_NAMES[-1]] - times[NAME]) / len(WIDE))
    session.results.timings.append(
        Timing(FLOAT64, size, streams, NAME, columns.median, columns.low, columns.high,
               columns.rounds, calls)
    )  # fmt: skip


def _measure_cold(session: Session, peers: Sequence[type[VectorMemory]], size: int) -> None:
    """Time single calls, each after an update of a network, which leaves the caches cold."""
    there = _made(session, peers, size, COLD_STREAMS)
    entries = {memory.name: _adding(memory) for memory in there}
    calls = 16
    times = session.time(
        COLD, size, COLD_STREAMS, entries, _steps(session, COLD_STREAMS, calls), calls,
        between=_torch_update(),
    )  # fmt: skip
    _compare(session, COLD, size, COLD_STREAMS, times, there)
    _check(session, there, _quiet(session, COLD_STREAMS))


def _torch_update() -> Callable[[], object]:
    """Return one update of a network of two layers of 256 units, on a batch of 32."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Linear(OBS_SIZE, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 4)
    )
    optimizer = torch.optim.Adam(network.parameters())
    obs, target = torch.randn(32, OBS_SIZE), torch.randn(32, 4)

    def update() -> None:
        optimizer.zero_grad()
        nn.functional.mse_loss(network(obs), target).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return update


def _measure_stacks(session: Session, size: int) -> None:
    """Time adding stacks of frames, beside a copy of the frames that are new in them."""
    ours = OursVectorStacks(size, STACK_STREAMS)
    steps = played_stacks(STACK_STREAMS, PLAYED, session.workload.seed)
    for k in range(size // STACK_STREAMS + 1):
        ours.add(ours.as_step(steps[k % PLAYED]))
    ring = np.zeros((size // STACK_STREAMS + 1, STACK_STREAMS, *STACK_SHAPE[1:]), np.uint8)
    ring[:] = 1
    place = 0

    def copy_frames(stacks: Array) -> None:
        nonlocal place
        np.copyto(ring[place], stacks[:, -1])
        place = (place + 1) % len(ring)

    def read(pairs: Sequence[tuple[Array, Array]]) -> None:
        for one, other in pairs:
            np.array_equal(one, other)

    entries = {
        ours.name: _adding(ours),
        FRAMES: Entry(lambda steps: [step["next_obs"] for step in steps], copy_frames),
        STACKS_READ: Entry(
            lambda steps: [
                [(step[name], step[name].copy()) for name in ("obs", "next_obs")] for step in steps
            ],
            read,
        ),
    }
    times = session.time(STACKS, size, STACK_STREAMS, entries, lambda _: steps, PLAYED)
    over = spread(times[ours.name] - 1.2 * times[FRAMES])
    session.results.timings.append(
        Timing(OVER_FRAMES, size, STACK_STREAMS, ours.name, over.median, over.low, over.high,
               over.rounds, PLAYED)
    )  # fmt: skip
    _check(session, [ours], steps[:1])


def _made(
    session: Session, peers: Sequence[type[VectorMemory]], size: int, streams: int
) -> list[VectorMemory]:
    there = []
    for kind in (*OURS_VECTOR, *peers):
        session.say(f"{size:,} rows: filling {kind.name} for {streams} environments")
        memory = kind(size, streams)
        memory.touch()
        there.append(memory)
    return there


def _steps(session: Session, streams: int, calls: int) -> Callable[[int], list[dict[str, Array]]]:
    steps = played(streams, PLAYED, session.workload.seed)
    return lambda _: [steps[k % PLAYED] for k in range(calls)]


def _quiet(session: Session, streams: int) -> list[dict[str, Array]]:
    """Return two steps in which no episode ends, so that no row of the second is a reset step."""
    return played(streams, 2, session.workload.seed + 1, end=0.0)


def _adding(memory: VectorMemory, wide: Sequence[str] = ()) -> Entry:
    def prepare(steps: Sequence[Mapping[str, Array]]) -> list[Any]:
        return [
            memory.as_step(dict(step) | {name: step[name].astype(np.float64) for name in wide})
            for step in steps
        ]

    return Entry(prepare, memory.add)


def _adding_with(memory: OursVector, **options: Any) -> Entry:
    add = memory.replay.add
    return Entry(
        lambda steps: [memory.as_step(step) for step in steps], lambda step: add(*step, **options)
    )


def _compare(
    session: Session,
    measure: str,
    size: int,
    streams: int,
    times: Mapping[str, Floats],
    there: Sequence[VectorMemory],
) -> None:
    """Note how many times as long the memories of other libraries take as each of ours."""
    peers = [memory.name for memory in there if not isinstance(memory, OursVector)]
    for memory in there:
        if isinstance(memory, OursVector):
            of = {name: times[name] for name in (memory.name, *peers)}
            session.compare(measure, size, streams, of, [memory.name])


def _check(session: Session, there: Sequence[VectorMemory], steps: Sequence[Step]) -> None:
    """Add one more step to each memory, and see whether it lies there.

    Raises
    ------
    Invalid
        If it does not.
    """
    for memory in there:
        for step in steps:
            memory.add(memory.as_step(step))
        obs, action = memory.newest()
        if not (np.array_equal(obs, step["obs"]) and np.array_equal(action, step["action"])):
            raise Invalid(f"{memory.name}: the newest rows must be those added last")
        found = f"the rows that {memory.num_envs} environments added last are there"
        session.results.checks.append(Check(memory.name, memory.size, found))
