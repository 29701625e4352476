"""`add_episode` against one `add` a step: two buffers that nothing can tell apart."""

import sys
from functools import partial
from typing import Any

import numpy as np
import pytest
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
    per.Proportional(eps=0.0, max_priority="current", min_priority=0.1),
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
    mode=st.sampled_from([None, "single", "next_step", "same_step", "disabled"]),
    actions=st.lists(ACTIONS, min_size=1, max_size=10),
)
@settings(
    max_examples=60, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@pytest.mark.slow
def test_an_episode_makes_the_rows_that_its_steps_would_make_one_by_one(
    kind, sampler, n_step, capacity, mode, actions, tmp_path_factory
):
    streams = None if mode in (None, "single") else 3
    mode = "next_step" if mode == "single" else mode  # of one environment
    both = Both(
        kind, streams, sampler=sampler, n_step=n_step, capacity=capacity, autoreset=mode, seed=5
    )
    for action, *how in actions:
        if action in ("episode", "step"):
            how[0] %= streams or 1
        if action == "episode":
            stream, steps, end, form = how
            both.episode(stream, steps, end, form)
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


def test_every_kind_of_buffer_takes_a_long_history():
    """What the drawn histories rarely have: many laps, and windows of all streams open at once."""
    rng = np.random.default_rng(1)
    for number, kind in enumerate(sorted(OBSERVATIONS)):
        both = Both(
            kind, 3, sampler=SAMPLERS[number % 5], n_step=1 + number % 5, capacity=17,
            autoreset="same_step", seed=5,
        )  # fmt: skip
        for _ in range(25):
            stream, steps = int(rng.integers(3)), int(rng.integers(1, 13))
            if rng.random() < 0.3:
                both.step(stream, ENDS[int(rng.integers(4))], float(rng.random()))
            else:
                both.episode(stream, steps, ENDS[int(rng.integers(4))], int(rng.integers(4)))
            both.update(int(rng.integers(99)))
        assert_alike(both.bulk, both.single)
        assert both.bulk.stats()["ids_issued"] > 4 * 17


def test_rows_enter_at_the_largest_priority_of_the_moment_where_that_is_the_law():
    """A row of high priority gives way in the middle of the episode, one with an error enters."""
    both = Both(
        "plain", None, n_step=3, capacity=3, seed=5,
        sampler=per.Proportional(eps=0.0, max_priority="current"),
    )  # fmt: skip
    both.episode(0, 3, (True, False), 0)
    for replay in (both.bulk, both.single):
        replay.update_priorities([0, 1, 2], [9.0, 0.5, 0.5])
    both.step(0, (False, False), 0.25)
    both.step(0, (False, False), 0.25)
    assert both.bulk.stats()["largest_priority"] == 9.0

    both.episode(0, 3, (True, False), 0)

    assert both.bulk.priorities([5, 6, 7]).tolist() == [0.5, 0.5, 0.5]
    assert_alike(both.bulk, both.single)


@pytest.mark.parametrize("kind", ["plain", "stacks"])
def test_a_first_step_that_is_a_reset_step_makes_no_row(kind):
    both = Both(kind, 1, n_step=2, capacity=20, autoreset="next_step", seed=5)
    for replay in (both.bulk, both.single):
        player = Player(kind, 0)
        first, second = player.play(3, False), player.play(4, False)  # begins where that ended
        second["reward"][0] = 0.0
        for episode in (first, second):
            if replay is both.single:
                ids = add_steps(replay, episode, True, False, 0)
            else:
                ids = replay.add_episode(**episode, terminated=True)
    assert ids.tolist() == [3, 4, 5]
    assert_alike(both.bulk, both.single)

    third = player.play(2, False)
    with pytest.raises(ValueError, match="reward must be 0 in a reset step"):
        both.bulk.add_episode(**third, terminated=True)
    assert_alike(both.bulk, both.single)


@pytest.mark.parametrize("kind", ["plain", "stacks"])
def test_a_reset_step_alone_is_no_episode(kind):
    both = Both(kind, 1, n_step=3, capacity=9, autoreset="next_step", seed=5)
    player = both.players[0]
    first, reset, second = player.play(2, False), player.play(1, False), player.play(4, False)
    reset["reward"][:] = 0.0
    for episode, terminated in ((first, True), (reset, False), (second, True)):
        made = both.bulk.add_episode(**episode, terminated=terminated)
        assert made.tolist() == add_steps(both.single, episode, terminated, False, 0).tolist()
    assert len(both.bulk) == 6
    assert_alike(both.bulk, both.single)


def test_shared_observations_of_an_episode_are_kept_once():
    frames = {}
    for way in ("bulk", "single"):
        both = Both("stacks", None, n_step=3, capacity=2_000, seed=5)
        replay = getattr(both, way)
        for _ in range(4):
            episode = both.players[0].play(50, True)
            if way == "bulk":
                replay.add_episode(**episode, terminated=True)
            else:
                add_steps(replay, episode, True, False, None)
        frames[way] = replay._transitions.shared[0]._frames.used
    assert frames["bulk"] == frames["single"] == 4 * 54


def test_nothing_is_left_of_frames_that_gave_way():
    replay = built("stacks", n_step=3, capacity=30, seed=5)
    player = Player("stacks", 0)
    for _ in range(40):
        replay.add_episode(**player.play(13, True), terminated=True)
    shared = replay._transitions.shared[0]
    used = shared._frames.used
    replay._transitions.recount()
    assert shared._frames.used == used


def test_rewards_are_summed_up_as_add_sums_them_up():
    """Bit by bit, whatever the dtype and the discount."""
    rng = np.random.default_rng(2)
    for dtype in ("float16", "float32", "float64"):
        fields = {"obs": per.Field(), "action": per.Field(), "reward": per.Field((), dtype)}
        bulk, single = (per.ReplayBuffer(500, fields, n_step=7, gamma=0.983, seed=1) for _ in "12")
        rewards, obs = rng.normal(size=300) * 10, np.arange(301.0)
        bulk.add_episode(obs, np.zeros(300), rewards, False)
        for k in range(300):
            single.add(obs[k], 0.0, rewards[k], obs[k + 1], False)
        assert_alike(bulk, single)


@pytest.mark.parametrize("kind", ["plain", "shared"])
@pytest.mark.parametrize("n_step", [1, 2, 3, 5])
def test_what_is_not_finite_is_taken_as_add_takes_it(kind, n_step):
    """Infinite bounds in observations, NaN in a recording: nothing is dropped or mended."""
    rng = np.random.default_rng(n_step)
    strange = np.array([np.nan, np.inf, -np.inf])
    for mode in ("next_step", "same_step", "disabled"):
        both = Both(
            kind, 2, sampler=SAMPLERS[1], n_step=n_step, capacity=11, autoreset=mode, seed=5
        )
        for number in range(12):
            stream, end = int(rng.integers(2)), ENDS[number % 4]
            episode = both.players[stream].play(int(rng.integers(1, 7)), any(end))
            for column in (episode["obs"][..., 0], episode["reward"]):
                at = rng.random(column.shape) < 0.2
                column[at] = rng.choice(strange, at.sum())
            ids = both.bulk.add_episode(**episode, terminated=end[0], truncated=end[1], env=stream)
            np.testing.assert_array_equal(ids, add_steps(both.single, episode, *end, stream))
            assert_alike(both.bulk, both.single)


PLAIN = {"obs": np.ones((4, 3)), "action": np.ones((3, 2), int), "reward": np.ones(3),
         "terminated": True, "tag": np.ones((3, 3), int)}  # fmt: skip
MISSING = object()
BAD = {
    "no steps": (
        {"obs": np.ones((1, 3)), "action": np.ones((0, 2), int), "reward": [], "tag": []},
        r"reward must have shape \(T,\) with T >= 1",
    ),
    "reward a number": ({"reward": 1.0}, "reward must have shape"),
    "reward a column": ({"reward": np.ones((3, 1))}, "reward must have shape"),
    "reward words": ({"reward": ["a", "b", "c"]}, "reward must be numeric"),
    "reward too large": ({"reward": [1.0, 1e39, 2.0]}, "reward must fit float32"),
    "return too large": ({"reward": [3e38, 3e38, 0.0]}, "reward must leave n-step returns within"),
    "obs without the final one": ({"obs": np.ones((3, 3))}, "next_obs must be given where obs"),
    "obs too short": ({"obs": np.ones((2, 3))}, "obs must have 3 or 4 rows, got 2"),
    "obs too long": ({"obs": np.ones((5, 3))}, "obs must have 3 or 4 rows, got 5"),
    "obs a number": ({"obs": 1.0}, "obs must have shape"),
    "obs too wide": ({"obs": np.ones((4, 2))}, "obs must have shape"),
    "obs nested": ({"obs": {"one": np.ones((4, 3))}}, "obs must have shape"),
    "the final one twice": ({"next_obs": np.ones((3, 3))}, "next_obs must be left out where obs"),
    "next_obs too long": (
        {"obs": np.ones((3, 3)), "next_obs": np.ones((4, 3))}, "next_obs must have shape"),
    "action too short": ({"action": np.ones((2, 2), int)}, "action must have shape"),
    "action floats": ({"action": np.ones((3, 2))}, "action must be of an integer dtype"),
    "column too long": ({"tag": np.ones((4, 3), int)}, "tag must have shape"),
    "column missing": ({"tag": MISSING}, "missing tag"),
    "column unknown": ({"colour": np.ones(3)}, "unknown colour"),
    "errors": ({"td_error": np.ones(3)}, "unknown td_error"),
    "discount": ({"discount": np.ones(3)}, "discount must be left to the buffer"),
    "terminated in the middle": (
        {"terminated": [False, True, True]}, "terminated must be true in the last step only"),
    "truncated in the middle": (
        {"truncated": [True, False, False]},
        "truncated must be true in the last step only, got true in step 0 of 3",
    ),
    "terminated too short": ({"terminated": [False, True]}, "terminated must have shape"),
    "terminated a number": ({"terminated": 0.5}, "terminated must be of an integer dtype"),
    "terminated two": ({"terminated": 2}, r"terminated must be in \[0, 1\]"),
    "truncated None": ({"truncated": None}, "truncated must be numeric"),
    "env left out": ({"env": None}, "env must be the number of the stream"),
    "env a list": ({"env": [1]}, "env must be the number of the stream"),
    "env not there": ({"env": 2}, r"env must be in \[0, 1\]"),
    "env below 0": ({"env": -1}, r"env must be in \[0, 1\]"),
    "env a float": ({"env": 1.0}, "env must be an integer"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_episode_names_its_parameter_and_changes_nothing(name):
    changes, message = BAD[name]
    given = {name: v for name, v in {**PLAIN, "env": 1, **changes}.items() if v is not MISSING}
    replays = [
        built("plain", capacity=6, n_step=3, num_envs=2, autoreset="disabled", seed=1) for _ in "12"
    ]
    for replay in replays:
        replay.add_episode(**{**PLAIN, "terminated": False}, env=1)

    with pytest.raises(ValueError, match=message) as raised:
        replays[0].add_episode(**given)

    assert "\n" not in str(raised.value)
    assert_alike(*replays)
    for replay in replays:
        replay.add_episode(**PLAIN, env=1)
    assert_alike(*replays)


def test_a_stream_is_not_named_where_there_is_one():
    replay = built("plain", capacity=6)
    with pytest.raises(ValueError, match="env must be left out"):
        replay.add_episode(**PLAIN, env=0)
    alone = built("plain", capacity=6, num_envs=1, autoreset="disabled")
    assert len(alone.add_episode(**PLAIN)) == len(alone.add_episode(**PLAIN, env=0)) == 3


def test_an_episode_for_which_there_is_no_room_changes_nothing():
    replays = [built("stacks", capacity=60, n_step=3, seed=1) for _ in "12"]
    player = Player("stacks", 0)
    first, second = player.play(20, False), player.play(60, True)
    for replay in replays:
        replay.add_episode(**first, terminated=False)
    replays[0]._memory.max_bytes = replays[0].nbytes + 1

    with pytest.raises(MemoryError, match="max_bytes"):
        replays[0].add_episode(**second, terminated=True)

    assert_alike(*replays)
    replays[0]._memory.max_bytes = None
    for replay in replays:
        replay.add_episode(**second, terminated=True)
    assert_alike(*replays)


@pytest.mark.parametrize("ended", [True, False])
@pytest.mark.slow
def test_an_interrupted_episode_does_not_depend_on_what_becomes_of_its_arrays(ended):
    """It is completed by the next call, when a collector may have filled them anew."""

    def until(event: int) -> tuple[int, per.ReplayBuffer, Player]:
        replay = built("plain", capacity=20, n_step=3, num_envs=1, autoreset="next_step", seed=1)
        player = Player("plain", 0)
        replay.add_episode(**player.play(15, True), terminated=True)
        episode = player.play(10, False)
        call = partial(replay.add_episode, **episode, terminated=False, truncated=ended)
        seen = interrupts.run_until(call, event)
        for array in episode.values():
            array[:] = 99
        return seen, replay, player

    def later(replay: per.ReplayBuffer, player: Player) -> Any:
        """What is there after one more step, a reset step if the episode ended, and after more."""
        step = player.play(1, False)
        step["reward"][:] = 0.0
        replay.add_episode(**step, terminated=False)
        replay.add_episode(**player.play(5, False), terminated=True)
        return interrupts.contents(replay)

    until(sys.maxsize)  # what is compiled at first has events of its own
    count, *after = until(sys.maxsize)
    both = [later(*until(0)[1:]), later(*after)]
    for event in range(count - 1, count - 50, -1):
        assert later(*until(event)[1:]) in both, f"event {event} of {count}"


def test_extend_names_the_way_for_whole_episodes():
    replay = per.ReplayBuffer(
        9, {"obs": per.Field(), "action": per.Field(), "reward": per.Field()}, n_step=2
    )
    rows = {name: np.zeros(3) for name in ("obs", "action", "reward", "next_obs")}
    with pytest.raises(ValueError, match="add_episode"):
        replay.extend({**rows, "terminated": np.zeros(3, bool)})
