"""``info`` as a list with one mapping for each environment, as Stable-Baselines3 returns it.

Its conventions (``DummyVecEnv.step_wait``, ``ReplayBuffer.add``) are written down here by hand: the
environment that ended is reset in the same step; the observation that it ended with is in
``info["terminal_observation"]``; ``info["TimeLimit.truncated"]`` is there with every step and true
where an episode was cut off and did not terminate; there is one array of ``dones``.
"""

import numpy as np
import pytest

import prioritized_replay as per

GAMMA = 0.9
LENGTHS = [(3, True), (2, False), (1, True), (4, False)]  # and whether they terminate
LONGEST = 60


class DummyVecEnv:
    """E counters; an observation is the number of the environment, episode and step."""

    def __init__(self, num_envs: int, nested: bool = False) -> None:
        self.num_envs, self.nested = num_envs, nested
        self.at = [[number, 0, 0] for number in range(num_envs)]
        self.true: list[tuple] = []

    def dressed(self, rows):
        rows = np.array(rows, np.float32)
        return {"a": rows[..., :2], "b": rows[..., 2:]} if self.nested else rows

    def reset(self):
        return self.dressed(self.at)

    def step(self, actions):
        infos: list[dict] = []
        dones = np.zeros(self.num_envs, bool)
        for number, at in enumerate(self.at):
            before = list(at)
            at[2] += 1
            length, terminates = LENGTHS[(at[1] + number) % len(LENGTHS)]
            dones[number] = at[2] == length
            terminated = bool(dones[number]) and terminates
            info = {"TimeLimit.truncated": bool(dones[number]) and not terminates}
            discount = 0.0 if terminated else GAMMA
            self.true.append((*before, *at, np.float32(discount), terminated))
            if dones[number]:
                info["terminal_observation"] = self.dressed(at)
                at[1:] = at[1] + 1, 0
            infos.append(info)
        return self.dressed(self.at), np.ones(self.num_envs, np.float32), dones, infos


def buffer(envs, mode="same_step", **options):
    field = {"a": per.Field((2,)), "b": per.Field((1,))} if envs.nested else per.Field((3,))
    fields = {"obs": field, "action": per.Field((), "int64"), "reward": per.Field()}
    return per.ReplayBuffer(
        1000, fields, num_envs=envs.num_envs, autoreset=mode, gamma=GAMMA, seed=0, **options
    )


def rows(replay):
    batch = replay.get(np.arange(len(replay)))

    def plain(obs):
        return np.concatenate([obs["a"], obs["b"]], 1) if isinstance(obs, dict) else obs

    columns = plain(batch.obs), plain(batch.next_obs), batch.discount, batch.terminated
    return [
        (*map(float, obs), *map(float, next_obs), discount, bool(terminated))
        for obs, next_obs, discount, terminated in zip(*columns, strict=True)
    ]


@pytest.mark.parametrize("nested", [False, True], ids=["box", "dict"])
@pytest.mark.parametrize("num_envs", [1, 3])
@pytest.mark.parametrize("kind", [list, tuple])
@pytest.mark.parametrize("flags", ["dones", "terminated and truncated"])
@pytest.mark.slow
def test_every_step_is_stored_as_it_happened(flags, kind, num_envs, nested):
    envs = DummyVecEnv(num_envs, nested)
    replay = buffer(envs)
    obs = envs.reset()
    for _ in range(LONGEST):
        action = np.zeros(num_envs, np.int64)
        next_obs, reward, dones, infos = envs.step(action)
        ends = (dones,)
        if flags != "dones":
            limits = np.array([info["TimeLimit.truncated"] for info in infos])
            ends = dones & ~limits, limits
        replay.add(obs, action, reward, next_obs, *ends, info=kind(infos))
        obs = next_obs

    assert rows(replay) == envs.true
    assert replay.stats()["open_windows"] == 0


def test_windows_of_several_steps_bootstrap_at_time_limits():
    """One loop with dones and infos, one that separates them as Gymnasium does."""
    separate, together = DummyVecEnv(2), DummyVecEnv(2)
    ours, theirs = buffer(separate, n_step=3), buffer(together, n_step=3)
    for envs, replay in ((separate, ours), (together, theirs)):
        obs = envs.reset()
        for _ in range(LONGEST):
            next_obs, reward, dones, infos = envs.step([0, 0])
            ends, info = (dones,), infos
            if envs is separate:
                limits = np.array([info["TimeLimit.truncated"] for info in infos])
                final = np.empty(2, object)
                for k, one in enumerate(infos):
                    final[k] = one.get("terminal_observation")
                ends, info = (dones & ~limits, limits), {"final_obs": final, "_final_obs": dones}
            replay.add(obs, [0, 0], reward, next_obs, *ends, info=info)
            obs = next_obs

    assert rows(ours) == rows(theirs)
    assert {row[-2] for row in rows(ours)} == {0.0, *(np.float32(GAMMA**m) for m in (1, 2, 3))}


def test_gymnasiums_own_list_has_final_obs_in_it():
    """As its wrapper DictInfoToList makes it."""
    envs = DummyVecEnv(2)
    replay = buffer(envs)
    final = np.array([7.0, 8.0, 9.0], np.float32)

    replay.add(
        *(envs.reset(), [0, 0], [1.0, 1.0], envs.reset(), [True, False]),
        info=[{"final_obs": final}, {}],
    )

    np.testing.assert_array_equal(replay.get([0, 1]).next_obs, [final, [1, 0, 0]])


@pytest.mark.parametrize("limit", [True, False])
def test_one_step_of_one_environment_has_its_own_mapping(limit):
    envs = DummyVecEnv(3)
    replay = buffer(envs)
    info = {"terminal_observation": np.full(3, 5.0), "TimeLimit.truncated": limit}

    for given in ({"env": 1}, {"env": [1]}):
        single = given["env"] == 1
        lead = (lambda x: x) if single else (lambda x: [x])
        ids = replay.add(
            *(lead(np.zeros(3)), lead(0), lead(1.0), lead(np.ones(3)), lead(True)),
            info=info if single else [info],
            **given,
        )
        batch = replay.get(ids)
        np.testing.assert_array_equal(batch.next_obs, np.full((1, 3), 5.0))
        np.testing.assert_array_equal(batch.discount, np.float32([GAMMA if limit else 0.0]))
        assert bool(batch.terminated[0]) is not limit


ENDED = np.array([False, True])
REFUSED = {
    "too short": ([{}], "info must be a mapping, or a list of 2.*, got 1 of them"),
    "too long": (({}, {}, {}), "info must be a mapping, or a list of 2.*, got 3 of them"),
    "empty": ([], "info must be a mapping, or a list of 2.*, got 0 of them"),
    "no mapping": ([{}, None], r"info\[1\] must be a mapping, got None"),
    "a number": (3, "info must be a mapping, or a list of 2, one for each environment, got 3"),
    "an array": (np.array([{}, {}]), "info must be a mapping, or a list of 2.*, got array"),
    "nothing of the row": (
        [{"terminal_observation": np.zeros(3)}, {}],
        r"info\[1\] must hold the final observation .* 'terminal_observation'",
    ),
    "None": (
        [{}, {"terminal_observation": None}],
        r"info\[1\] must hold the final observation .* 'terminal_observation'",
    ),
    "another shape": (
        [{}, {"terminal_observation": np.zeros(2)}],
        r"^a final observation in info must have shape \(3,\), got \(2,\)",
    ),
}


@pytest.mark.parametrize(("info", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_info_is_refused_as_what_it_is(info, message):
    envs = DummyVecEnv(2)
    replay = buffer(envs)
    before = replay.stats()

    with pytest.raises(ValueError, match=message):
        replay.add(envs.reset(), [0, 0], [1.0, 1.0], envs.reset(), ENDED, info=info)

    assert replay.stats() == before


@pytest.mark.parametrize("mode", ["next_step", "disabled"])
def test_environments_that_reset_at_once_need_that_mode(mode):
    envs = DummyVecEnv(2)
    replay = buffer(envs, mode)
    infos = [{}, {"terminal_observation": np.zeros(3)}]

    with pytest.raises(ValueError, match=rf"^autoreset must be 'same_step' .*, got '{mode}'"):
        replay.add(envs.reset(), [0, 0], [1.0, 1.0], envs.reset(), ENDED, info=infos)

    assert len(replay) == replay.stats()["open_windows"] == 0


@pytest.mark.parametrize("n_step", [1, 3])
def test_a_single_stream_has_one_mapping(n_step):
    fields = {"obs": per.Field(), "action": per.Field(), "reward": per.Field()}
    replay = per.ReplayBuffer(10, fields, n_step=n_step)
    replay.add(0.0, 0.0, 1.0, 2.0, False, info={"lives": 3})

    for wrong in ([{}], ({},), 3, "info"):
        with pytest.raises(ValueError, match=r"^info must be a mapping, got "):
            replay.add(0.0, 0.0, 1.0, 2.0, False, info=wrong)

    assert replay.stats()["ids_issued"] + replay.stats()["open_windows"] == 1


@pytest.mark.parametrize("n_step", [1, 3])
def test_a_single_stream_is_not_told_of_final_observations_in_silence(n_step):
    """A wrapper that resets by itself: whether `next_obs` is the final one cannot be known."""
    fields = {"obs": per.Field(), "action": per.Field(), "reward": per.Field()}
    replay = per.ReplayBuffer(10, fields, n_step=n_step)
    info = {"terminal_observation": 2.0, "TimeLimit.truncated": True}
    replay.add(0.0, 0.0, 1.0, 2.0, False, info=info)  # nothing ended

    with pytest.raises(ValueError, match=r"^autoreset must be 'same_step' .* as next_obs$"):
        replay.add(0.0, 0.0, 1.0, 2.0, True, info=info)

    assert replay.stats()["ids_issued"] + replay.stats()["open_windows"] == 1
