"""What is timed of whole episodes: one call an episode, beside one call a step, the same rows made.

Ours alone: it is compared with its own other way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

import prioritized_replay as per
from benchmarks.results import Check, Participant
from benchmarks.session import Session
from benchmarks.timing import Entry
from prioritized_replay.conformance.checks import Invalid
from prioritized_replay.conformance.stacks import STACK, STACK_SHAPE

Array = NDArray[Any]
Episode = dict[str, Any]
"""Arguments of ``add_episode``."""

EPISODES, NEW, STACKS = "episodes", "episodes into a new memory", "episodes of stacks"
WHOLE, SINGLE = "ours, add_episode", "ours, add"
OBS_SIZE, ACTION_SIZE, N_STEP = 17, 6, 3  # as of HalfCheetah
LENGTH, STACK_LENGTH = 1_000, 250  # steps of an episode
PLAYED = 8  # different episodes, which are added again and again
CALLS = 8  # episodes in a round
MOST_STACKS = 5_000
SETTINGS = {"sampler": "Proportional()", "n_step": str(N_STEP)}

NUMBERS = {
    "obs": per.Field((OBS_SIZE,)),
    "action": per.Field((ACTION_SIZE,)),
    "reward": per.Field(),
}
IMAGES = {
    "obs": per.Field(STACK_SHAPE, "uint8", stack_axis=0),
    "action": per.Field((), "int64"),
    "reward": per.Field(),
}


def measure_episodes(session: Session, size: int, stacks: int) -> None:
    """Time adding episodes, with small rows and with stacks of frames.

    Parameters
    ----------
    session : Session
        Notes the times, in seconds for one step.
    size, stacks : int
        Rows in the memories, and in those of stacks.
    """
    session.results.contenders += [
        Participant(name, "prioritized-replay", "proportional", SETTINGS)
        for name in (WHOLE, SINGLE)
    ]
    episodes = _played(min(LENGTH, size), session.workload.seed)
    _measure(session, EPISODES, NUMBERS, size, episodes)
    session.time(NEW, size, 1, {WHOLE: _filling(size, episodes)}, lambda _: [None], 1, size)
    stacks = min(stacks, MOST_STACKS)
    _measure(session, STACKS, IMAGES, stacks, _played_stacks(STACK_LENGTH, session.workload.seed))


def _measure(
    session: Session,
    measure: str,
    fields: dict[str, Any],
    size: int,
    episodes: Sequence[Episode],
) -> None:
    """Time both ways in memories that are full."""
    replays = {name: per.ReplayBuffer(size, fields, n_step=N_STEP) for name in (WHOLE, SINGLE)}
    length = len(episodes[0]["reward"])
    for replay in replays.values():
        for k in range(size // length + 1):
            replay.add_episode(**episodes[k % len(episodes)])
        replay.sample(1)
    # A round ends with the draw of a row: until then a sampler need not be told of new ones.
    entries = {
        name: Entry(
            list,
            _one_call(replay) if name == WHOLE else _one_by_one(replay),
            lambda replay=replay: replay.sample(1),  # type: ignore[misc]
        )
        for name, replay in replays.items()
    }
    given = [episodes[k % len(episodes)] for k in range(CALLS)]
    times = session.time(measure, size, 1, entries, lambda _: given, CALLS, length)
    session.compare(measure, size, 1, times, [WHOLE])
    check_rows(replays[WHOLE], replays[SINGLE])
    found = "add_episode left the rows that one add a step left, in every column"
    session.results.checks.append(Check(WHOLE, size, found))


def _one_call(replay: per.ReplayBuffer) -> Callable[[Episode], object]:
    return lambda episode: replay.add_episode(**episode)


def _one_by_one(replay: per.ReplayBuffer) -> Callable[[Episode], None]:
    add = replay.add

    def add_steps(episode: Episode) -> None:
        obs, actions, rewards = episode["obs"], episode["action"], episode["reward"]
        last = len(rewards) - 1
        for k in range(last + 1):
            add(obs[k], actions[k], rewards[k], obs[k + 1], False, k == last)

    return add_steps


def _filling(size: int, episodes: Sequence[Episode]) -> Entry:
    """Return the filling of a new buffer of N rows with N steps, the first draw included."""
    length = len(episodes[0]["reward"])

    def fill(_: None) -> None:
        replay = per.ReplayBuffer(size, NUMBERS, n_step=N_STEP)
        for k in range(size // length):
            replay.add_episode(**episodes[k % len(episodes)])
        replay.sample(1)

    return Entry(list, fill)


def check_rows(one: per.ReplayBuffer, other: per.ReplayBuffer) -> None:
    """Compare the newest rows of two buffers to which the same steps were added.

    Raises
    ------
    Invalid
        If a column differs.
    """
    rows = []
    for replay in (one, other):
        issued = int(replay.stats()["ids_issued"])
        rows.append(replay.get(np.arange(issued - min(len(replay), LENGTH), issued)))
    for name in ("obs", "action", "reward", "discount", "next_obs", "terminated"):
        if not np.array_equal(rows[0][name], rows[1][name]):
            raise Invalid(f"add_episode must make the rows that add makes, got other {name}")


def _played(length: int, seed: int) -> list[Episode]:
    """Return episodes of random numbers, each cut off at its end."""
    rng = np.random.default_rng(seed)
    return [
        {
            "obs": rng.normal(size=(length + 1, OBS_SIZE)).astype(np.float32),
            "action": rng.normal(size=(length, ACTION_SIZE)).astype(np.float32),
            "reward": rng.normal(size=length).astype(np.float32),
            "terminated": False,
            "truncated": True,
        }
        for _ in range(PLAYED)
    ]


def _played_stacks(length: int, seed: int) -> list[Episode]:
    """Return episodes of stacks of random frames."""
    rng = np.random.default_rng(seed)
    episodes = []
    for _ in range(2):
        frames = rng.integers(0, 256, (length + STACK, *STACK_SHAPE[1:]), dtype=np.uint8)
        windows = np.lib.stride_tricks.sliding_window_view(frames, STACK, axis=0)
        episodes.append(
            {
                "obs": np.ascontiguousarray(np.moveaxis(windows, -1, 1)),
                "action": rng.integers(0, 4, length),
                "reward": rng.normal(size=length).astype(np.float32),
                "terminated": False,
                "truncated": True,
            }
        )
    return episodes
