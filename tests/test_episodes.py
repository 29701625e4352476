"""`add_episode` against one `add` a step: two buffers that nothing can tell apart."""

from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests import interrupts
from tests.interrupts import leaves

import prioritized_replay as per

BANK = np.random.default_rng(3).integers(1, 256, (997, 16, 16), dtype=np.uint8)
FIELDS = {
    "action": per.Field((2,), "int32"),
    "reward": per.Field(),
    "tag": per.Field((3,), "uint8"),
}
OBSERVATIONS: dict[str, Any] = {
    "plain": per.Field((3,)),
    "shared": per.Field((16, 16), "float32"),
    "stacks": per.Field((4, 16, 16), "uint8", stack_axis=0),
    "found": per.Field((4, 16, 16), "uint8"),
    "last axis": per.Field((16, 16, 4), "uint8", stack_axis=-1),
    "nested": {"image": per.Field((4, 16, 16), "uint8", stack_axis=0), "speed": (per.Field(),)},
    "two": {"one": per.Field((1024,), "uint8"), "other": per.Field((16, 16), "float32")},
}
SAMPLERS = [
    per.Uniform(),
    per.Proportional(),
    per.RankBased(),
    per.Proportional(eps=0.0, max_priority="current", min_priority=2.0),
    per.RankBased(max_priority="current", draw="without_replacement"),
]
ENDS = [(True, False), (False, True), (True, True), (False, False)]


class Player:
    """One environment, whose observation follows from the time."""

    def __init__(self, kind: str, stream: int) -> None:
        self.kind, self.stream, self.time = kind, stream, 331 * stream
        self.serial = 0

    def observed(self, time: int) -> Any:
        places = (time + np.arange(4)) % len(BANK)
        if self.kind == "plain":
            return np.array([self.stream, time, time % 7], np.float32)
        if self.kind == "shared":
            return BANK[time % len(BANK)].astype(np.float32)
        if self.kind == "two":
            frame = BANK[time % len(BANK)]
            return {"one": np.tile(frame[1].repeat(16), 4), "other": frame.astype(np.float32)}
        if self.kind == "nested":
            return {"image": BANK[places], "speed": (np.float32(time),)}
        return np.moveaxis(BANK[places], 0, -1) if self.kind == "last axis" else BANK[places]

    def play(self, steps: int, ended: bool) -> dict[str, Any]:
        """Return T + 1 observations, and the rest of T steps."""
        times = np.arange(self.time, self.time + steps + 1)
        self.time += steps + 7 * ended
        serials = np.arange(self.serial, self.serial + steps)
        self.serial += steps
        return {
            "obs": stacked([self.observed(int(time)) for time in times]),
            "action": np.stack([serials, serials % 5], axis=1).astype(np.int32),
            "reward": np.sin(serials * 1.7) * 3.0,
            "tag": np.stack([serials % 251] * 3, axis=1).astype(np.uint8),
        }


def stacked(values: list[Any]) -> Any:
    if isinstance(values[0], dict):
        return {key: stacked([value[key] for value in values]) for key in values[0]}
    if isinstance(values[0], tuple):
        return tuple(stacked(list(part)) for part in zip(*values, strict=True))
    return np.stack(values)


def taken(value: Any, which: Any) -> Any:
    """Return rows of a nested value."""
    if isinstance(value, dict):
        return {key: taken(part, which) for key, part in value.items()}
    if isinstance(value, tuple):
        return tuple(taken(part, which) for part in value)
    return value[which]


def add_steps(
    replay: per.ReplayBuffer, episode: dict[str, Any], terminated: bool, truncated: bool, env: Any
) -> np.ndarray:
    """Add the steps of an episode one by one, as it has always been possible."""
    rest = {name: value for name, value in episode.items() if name not in ("obs", "next_obs")}
    count = len(rest["reward"])
    made = [np.empty(0, np.int64)]
    for k in range(count):
        over = k == count - 1
        after = taken(episode["obs"], k + 1)
        info = {"final_obs": after} if replay.autoreset == "same_step" else None
        step = {name: value[k] for name, value in rest.items()}
        made.append(
            replay.add(
                taken(episode["obs"], k), step.pop("action"), step.pop("reward"), after,
                over and terminated, over and truncated, env=env, info=info, **step,
            )
        )  # fmt: skip
    return np.concatenate(made)


def built(kind: str, **options: Any) -> per.ReplayBuffer:
    return per.ReplayBuffer(
        options.pop("capacity"), {"obs": OBSERVATIONS[kind], **FIELDS}, **options
    )


def assert_alike(one: per.ReplayBuffer, other: per.ReplayBuffer) -> None:
    seen, expected = interrupts.contents(one), interrupts.contents(other)
    unlike = [name for name in expected if seen.get(name) != expected[name]]
    assert not unlike
    assert seen.keys() == expected.keys()
    if not len(one):
        return
    for size in (1, min(5, len(one))):
        drawn, wanted = one.sample(size, beta=0.4), other.sample(size, beta=0.4)
        for name in wanted:
            for mine, its in zip(leaves(drawn[name]), leaves(wanted[name]), strict=True):
                np.testing.assert_array_equal(mine, its)


class Both:
    """Two buffers: what `add_episode` does to the one, a number of `add` do to the other."""

    def __init__(self, kind: str, streams: int | None, **options: Any) -> None:
        self.bulk = built(kind, num_envs=streams, **options)
        self.single = built(kind, num_envs=streams, **options)
        self.players = [Player(kind, stream) for stream in range(streams or 1)]
        self.streams = streams

    def env(self, stream: int) -> int | None:
        return None if self.streams is None else stream

    def episode(self, stream: int, steps: int, end: tuple[bool, bool], form: int) -> None:
        episode = self.players[stream].play(steps, any(end))
        given = dict(episode)
        if form & 1:
            given["next_obs"] = taken(episode["obs"], slice(1, None))
            given["obs"] = taken(episode["obs"], slice(None, -1))
        ends: list[Any] = list(end)
        if form & 2:
            ends = [
                np.arange(steps) == steps - 1 if flag else np.zeros(steps, bool) for flag in end
            ]
        ids = self.bulk.add_episode(
            given.pop("obs"), given.pop("action"), given.pop("reward"), *ends,
            env=self.env(stream), **given,
        )  # fmt: skip
        expected = add_steps(self.single, episode, *end, self.env(stream))
        np.testing.assert_array_equal(ids, expected)
        assert ids.dtype == np.int64

    def step(self, stream: int, end: tuple[bool, bool], error: float | None) -> None:
        """One `add` to both, with an error."""
        episode = self.players[stream].play(1, any(end))
        for replay in (self.bulk, self.single):
            replay.add(
                taken(episode["obs"], 0), episode["action"][0], episode["reward"][0],
                taken(episode["obs"], 1), *end, env=self.env(stream), td_error=error,
                tag=episode["tag"][0],
                info={"final_obs": taken(episode["obs"], 1)} if self.streams else None,
            )  # fmt: skip

    def update(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        size = min(4, len(self.bulk))
        if size:
            errors = rng.normal(size=size)
            for replay in (self.bulk, self.single):
                replay.update_priorities(replay.sample(size).ids, errors)

    def saved(self, folder: Any) -> None:
        """Save and load both."""
        for name in ("bulk", "single"):
            getattr(self, name).save(folder / name)
            setattr(self, name, per.ReplayBuffer.load(folder / name))


ACTIONS = st.one_of(
    st.tuples(
        st.just("episode"), st.integers(0, 2), st.integers(1, 12), st.sampled_from(ENDS),
        st.integers(0, 3),
    ),
    st.tuples(
        st.just("step"), st.integers(0, 2), st.sampled_from([(False, False), *ENDS]),
        st.sampled_from([None, 0.0, 0.5, 7.0]),
    ),
    st.tuples(st.just("update"), st.integers(0, 99)),
    st.tuples(st.just("end")),
    st.tuples(st.just("clear")),
    st.tuples(st.just("save")),
)  # fmt: skip


@given(
    kind=st.sampled_from(sorted(OBSERVATIONS)),
    sampler=st.sampled_from(SAMPLERS),
    n_step=st.integers(1, 5),
    capacity=st.sampled_from([1, 2, 3, 8, 13, 40]),
    mode=st.sampled_from([None, "next_step", "same_step", "disabled"]),
    actions=st.lists(ACTIONS, min_size=1, max_size=10),
)
@settings(
    max_examples=60, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
def test_an_episode_makes_the_rows_that_its_steps_would_make_one_by_one(
    kind, sampler, n_step, capacity, mode, actions, tmp_path_factory
):
    streams = None if mode is None else 3
    both = Both(
        kind, streams, sampler=sampler, n_step=n_step, capacity=capacity, autoreset=mode, seed=5
    )
    for action, *how in actions:
        if action in ("episode", "step"):
            how[0] %= streams or 1
        if action == "episode":
            stream, steps, end, form = how
            both.episode(stream, min(steps, capacity), end, form)
        elif action == "step":
            both.step(*how)
        elif action == "update":
            both.update(*how)
        elif action == "save":
            both.saved(tmp_path_factory.mktemp("saved"))
        else:
            for replay in (both.bulk, both.single):
                replay.end_episode() if action == "end" else replay.clear()
        assert_alike(both.bulk, both.single)
