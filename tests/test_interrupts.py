"""Whatever a call was doing when it was ended: the buffer is as before it or as after it.

The ordinary run looks at a few events of every call; all of them are looked at by
``python -m tests.soak.interrupts``.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from tests import interrupts
from tests.checkpoint_driving import (
    OTHER_SAMPLERS,
    SAMPLERS,
    WITH_MEMORY,
    World,
    drive,
    fields_of,
    sequence_of,
)

import prioritized_replay as per

CAPACITY = 24
STEPS = 31  # before the call: the ring has gone round
FURTHER = 9  # after it, compared bit for bit
SAMPLED = int(os.environ.get("PER_INTERRUPTS", "4"))  # events of a call; 0: all of them


class Kind(NamedTuple):
    """How a buffer is built; see :class:`tests.checkpoint_driving.Case`."""

    storage: str
    sampler: str
    n_step: int
    autoreset: str | None = None
    steps: int = STEPS
    first: int = 1000
    sequence: str | None = None

    @property
    def name(self) -> str:
        return "-".join(map(str, (*self[:5], self.sequence) if self.sequence else self[:5]))

    def build(self, **options: Any) -> tuple[per.ReplayBuffer, World]:
        """Return a buffer and its world, as they are before the call."""
        replay = per.ReplayBuffer(
            CAPACITY,
            fields_of(self.storage, self.sequence),
            sampler=(SAMPLERS | OTHER_SAMPLERS)[self.sampler],
            n_step=self.n_step,
            num_envs=None if self.autoreset is None else 3,
            autoreset=self.autoreset,
            seed=7,
            **sequence_of(self.sequence),
            **options,
        )
        world = World(self)  # type: ignore[arg-type]
        drive(replay, world, 0, self.steps)
        return replay, world


KINDS = [
    Kind("rows", "uniform", 1),
    Kind("rows", "proportional", 1),
    Kind("rows", "rank", 1),
    Kind("rows", "rank", 3),
    Kind("rows", "proportional", 1, None, 4),  # not yet full
    Kind("rows", "current", 2, "next_step"),
    Kind("rows", "mixed", 1, "same_step"),
    Kind("rows", "distinct-rank", 3, "disabled"),
    Kind("frames", "proportional", 1),
    Kind("frames", "rank", 3),
    Kind("frames", "uniform", 2, "same_step"),
    Kind("frames", "proportional", 1, "next_step"),
    Kind("frames", "rank", 3, "next_step"),
    Kind("found", "rank", 3, None, 2),  # how it is stacked is found in the call
    Kind("found", "proportional", 1, None, 1),
    Kind("two", "rank", 3, "disabled"),
    Kind("nested", "proportional", 2, "next_step"),
    Kind("rows", "proportional", 1, sequence="overlapping"),
    Kind("rows", "rank", 1, "next_step", sequence="apart"),
    Kind("rows", "current", 1, "same_step", sequence="across"),
    Kind("frames", "distinct-rank", 1, None, sequence="overlapping"),
    Kind("nested", "proportional", 1, "next_step", sequence="across"),
    Kind("found", "uniform", 1, "disabled", 3, sequence="apart"),
]


def step_of(world: World) -> dict[str, Any]:
    return world.step()


def add(replay: per.ReplayBuffer, world: World) -> Callable[[], Any]:
    step = world.step()
    return lambda: replay.add(**step)


def add_with_error(replay: per.ReplayBuffer, world: World) -> Callable[[], Any]:
    step = world.step()
    error: Any = 3.5 if replay.num_envs is None else np.arange(3.0)
    return lambda: replay.add(**step, td_error=error)


def add_ending(replay: per.ReplayBuffer, world: World) -> Callable[[], Any]:
    step = world.step()
    step["truncated"] = np.ones_like(step["truncated"]) if replay.num_envs else True
    if replay.autoreset == "same_step":
        step["info"] = {"final_obs": step["next_obs"]}
    if replay.autoreset == "next_step":
        world.awaiting[:] = True
    return lambda: replay.add(**step)


def add_subset(replay: per.ReplayBuffer, world: World) -> Callable[[], Any]:
    step = world.step()
    if replay.num_envs is None:
        return lambda: replay.add(**step)
    picked = {name: pick(value) for name, value in step.items()}
    return lambda: replay.add(**picked, env=np.array([2, 0]))


def pick(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: pick(part) for name, part in value.items()}
    if isinstance(value, tuple):
        return tuple(pick(part) for part in value)
    return value[[2, 0]]


def rows_of(kind_world: World, count: int) -> dict[str, Any]:
    """Return complete transitions for `extend`."""
    steps = [kind_world.row(0) for _ in range(count)]
    from tests.checkpoint_driving import stacked

    names = ("obs", "action", "reward", "next_obs")
    rows = {name: stacked([step[name] for step in steps]) for name in names}
    return {**rows, "discount": np.full(count, 0.5)}


def extend(replay: per.ReplayBuffer, world: World) -> Callable[[], Any]:
    rows = rows_of(world, 7)
    return lambda: replay.extend(rows)


def extend_beyond(replay: per.ReplayBuffer, world: World) -> Callable[[], Any]:
    rows = rows_of(world, CAPACITY + 5)
    return lambda: replay.extend(rows, np.arange(CAPACITY + 5.0))


def episode_of(world: World, count: int, end: str | None = None) -> dict[str, Any]:
    """Return one more episode of the last stream but one, for `add_episode`."""
    from tests.checkpoint_driving import stacked

    stream = max(world.count - 2, 0)
    if world.awaiting[stream]:
        world.times[stream] += 10
    time = int(world.times[stream])
    world.times[stream] = time + count + (10 if end else 0)
    world.awaiting[stream] = end is not None and world.case.autoreset == "next_step"
    memory = {}
    if world.case.sequence in WITH_MEMORY:
        memory["memory"] = np.stack([world.memory(stream, time + k) for k in range(count)])
    return {
        **memory,
        "obs": stacked([world.observed(stream, time + k) for k in range(count + 1)]),
        "action": np.arange(count) % 4,
        "reward": np.arange(1.0, count + 1.0),
        "terminated": end == "terminated",
        "truncated": end == "truncated",
        "env": stream if world.count > 1 else None,
    }


def add_episode(replay: per.ReplayBuffer, world: World) -> Callable[[], Any]:
    episode = episode_of(world, 7, "terminated")
    return lambda: replay.add_episode(**episode)


def add_whole_ring(replay: per.ReplayBuffer, world: World) -> Callable[[], Any]:
    episode = episode_of(world, CAPACITY, "truncated")
    return lambda: replay.add_episode(**episode)


def add_open_episode(replay: per.ReplayBuffer, world: World) -> Callable[[], Any]:
    """Of one step: where n > 2, no window closes."""
    episode = episode_of(world, 1)
    return lambda: replay.add_episode(**episode)


def end_episode(replay: per.ReplayBuffer, world: World) -> Callable[[], Any]:
    return replay.end_episode


def end_one(replay: per.ReplayBuffer, world: World) -> Callable[[], Any]:
    return (lambda: replay.end_episode(env=1)) if replay.num_envs else replay.end_episode


def update(replay: per.ReplayBuffer, world: World) -> Callable[[], Any]:
    issued = int(replay.stats()["ids_issued"])
    before, last = issued - 2, issued - 1
    if replay.sequence is not None:
        before, last = np.append([-1, -1], interrupts.drawable(replay))[-2:]
    ids = np.array([last, before, before, issued - CAPACITY - 3])
    errors = np.array([9.0, -0.5, 12.0, 3.0])[ids >= 0]
    return lambda: replay.update_priorities(ids[ids >= 0], errors)


def update_sequences(replay: per.ReplayBuffer, world: World) -> Callable[[], Any]:
    """By an error of each step: some ids twice, one that has gone."""
    ids = interrupts.drawable(replay)[-3:]
    ids = np.append(ids, ids[-1:])
    gone = replay.ids_issued - CAPACITY - 3
    ids = np.append(ids, [gone] if gone >= 0 else [])
    length = replay.sequence.length
    errors = np.arange(1.0, 1.0 + ids.size * length).reshape(ids.size, length)
    return lambda: replay.update_priorities(ids.astype(np.int64), errors)


def alpha(replay: per.ReplayBuffer, world: World) -> Callable[[], Any]:
    def change() -> None:
        replay.alpha = 0.0 if isinstance(replay.sampler, per.Uniform) else 0.3

    return change


def clear(replay: per.ReplayBuffer, world: World) -> Callable[[], Any]:
    return replay.clear


def sample(replay: per.ReplayBuffer, world: World) -> Callable[[], Any]:
    size = min(5, len(replay))
    return lambda: replay.sample(size, beta=0.4) if size else None


def sample_beyond_a_block(replay: per.ReplayBuffer, world: World) -> Callable[[], Any]:
    """The uniforms that were drawn in advance do not last."""
    distinct = "without" in replay.sampler.draw
    for _ in range(0 if distinct or not len(replay) else 41):
        replay.sample(100)
    size = min(20, len(replay)) if distinct else 100
    return lambda: replay.sample(size) if len(replay) else None


def draw_ahead(replay: per.ReplayBuffer, world: World) -> Callable[[], Any]:
    """As the thread of a prefetcher does, and in its place."""
    from collections import deque

    waiting: Any = deque()
    return lambda: replay._sample_ahead(4, 0.5, waiting) if len(replay) >= 4 else None


def highest(replay: per.ReplayBuffer, world: World) -> Callable[[], Any]:
    return lambda: replay.highest(5)


CALLS = [
    *(add, add_with_error, add_ending, add_subset, extend, extend_beyond, end_episode, end_one),
    *(update, alpha, clear, sample, sample_beyond_a_block, draw_ahead),
    *(add_episode, add_whole_ring, add_open_episode, update_sequences, highest),
]


def fits(kind: Kind, call: Callable[..., Any]) -> bool:
    """Return whether there is such a call of such a buffer."""
    without = (
        (update_sequences,) if kind.sequence is None else (add_with_error, extend, extend_beyond)
    )
    return call not in without


TRIALS = [(kind, call) for kind in KINDS for call in CALLS if fits(kind, call)]


class Outcome(NamedTuple):
    """What a buffer is, and what it then does."""

    contents: dict[str, Any]
    digests: list[str]


def outcome(replay: per.ReplayBuffer, world: World, first: int) -> Outcome:
    seen = interrupts.contents(replay)
    # Memory for frames that was added before the call was ended stays.
    return Outcome(seen, drive(replay, world, first, FURTHER, memory=False))


class Trial:
    """One call of one kind of buffer, to be ended at any of its events."""

    def __init__(self, kind: Kind, call: Callable[..., Any], folder: Path) -> None:
        self.kind, self.call, self.folder = kind, call, folder
        replay, world = kind.build()
        call(replay, world)  # consumes what the call would of the world
        self.before = outcome(replay, world, kind.steps + 1)
        replay, world = kind.build()
        call(replay, world)()
        self.after = outcome(replay, world, kind.steps + 1)
        replay, world = kind.build()
        self.count = interrupts.count_events(call(replay, world))

    def complaint(self, at: int) -> str | None:
        """End the call at one event; say what is neither as before it nor as after it, or None."""
        replay, world = self.kind.build()
        interrupts.run_until(self.call(replay, world), at)
        if at % 3 == 0:  # saved by the next call, or drawn from
            replay.save(self.folder / "after")
            replay = per.ReplayBuffer.load(self.folder / "after")
        found = outcome(replay, world, self.kind.steps + 1)
        both = self.before, self.after
        as_seen = [one for one in both if found.contents == one.contents]
        if not as_seen:
            unlike = [differences(found, one) for one in both]
            return f"unlike the state before it {unlike[0]}, unlike that after it {unlike[1]}"
        if all(found.digests != one.digests for one in as_seen):
            return "goes on differently"
        return None

    def __str__(self) -> str:
        return f"{self.kind.name} {self.call.__name__}"


def places(count: int, seed: int) -> Iterator[int]:
    """Return the events to look at: all, or some that are drawn and the last."""
    if SAMPLED == 0 or count <= SAMPLED:
        return iter(range(count))
    drawn = np.random.default_rng(seed).choice(count, SAMPLED, replace=False)
    return iter(sorted({*drawn.tolist(), count - 1}))


def differences(found: Outcome, expected: Outcome) -> list[str]:
    names = found.contents.keys() | expected.contents.keys()
    return sorted(n for n in names if found.contents.get(n) != expected.contents.get(n))


# Python says so where an exception strikes a generator that is being closed: the call went on.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("kind", "call"), TRIALS, ids=lambda one: one.name if isinstance(one, Kind) else one.__name__
)
@pytest.mark.slow
def test_a_call_that_is_ended_leaves_the_state_before_or_after_it(kind, call, tmp_path):
    trial = Trial(kind, call, tmp_path)
    for at in places(trial.count, seed=KINDS.index(kind) * 100 + CALLS.index(call)):
        complaint = trial.complaint(at)
        assert complaint is None, f"{trial} event {at} of {trial.count}: {complaint}"
