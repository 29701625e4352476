"""The buffer for Stable-Baselines3, row by row against its own buffers fed the same steps."""

import io
import pickle
from itertools import pairwise
from unittest import mock

import numpy as np
import pytest

pytest.importorskip("stable_baselines3")

import gymnasium
import torch
from gymnasium import spaces
from stable_baselines3 import DQN, SAC
from stable_baselines3.common.buffers import DictReplayBuffer, NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.envs import BitFlippingEnv, FakeImageEnv, SimpleMultiObsEnv
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    VecFrameStack,
    VecNormalize,
    VecTransposeImage,
)
from tests.interrupts import count_events, run_until

import prioritized_replay as per
from prioritized_replay.integrations.stable_baselines3 import (
    PrioritizedReplayBuffer,
    PrioritizedSAC,
)

ALL = per.Uniform(draw="without_replacement")  # a batch of all rows has each of them once
FLOATS = spaces.Box(-5, 5, (4,), np.float32)
IMAGE = spaces.Box(0, 255, (3, 40, 40), np.uint8)
OBSERVATIONS = {
    "float32": FLOATS,
    "float64": spaces.Box(-5, 5, (3, 2), np.float64),
    "discrete": spaces.Discrete(5),
    "multi-discrete": spaces.MultiDiscrete([3, 4]),
    "multi-binary": spaces.MultiBinary(6),
    "image": IMAGE,
    "dict": spaces.Dict({"image": IMAGE, "number": spaces.Discrete(9), "speed": FLOATS}),
}
ACTIONS = {
    "discrete": spaces.Discrete(3),
    "box": spaces.Box(-1, 1, (2,), np.float32),
    "box-1-1": spaces.Box(-1, 1, (1, 1), np.float64),
    "multi-discrete": spaces.MultiDiscrete([2, 3]),
}


def stacked(values):
    """Values of E environments as Stable-Baselines3 passes them on."""
    if isinstance(values[0], dict):
        return {key: stacked([value[key] for value in values]) for key in values[0]}
    return np.stack(values)


def stream(observation_space, action_space, envs, steps, seed, numbers=False):
    """Steps of E environments, whose episodes end at random, a third of them by a time limit."""
    rng = np.random.default_rng(seed)
    observation_space.seed(seed)
    action_space.seed(seed)
    obs = [observation_space.sample() for _ in range(envs)]
    for _ in range(steps):
        next_obs = [observation_space.sample() for _ in range(envs)]
        done = rng.random(envs) < 0.2
        infos = [{"TimeLimit.truncated": bool(end and rng.random() < 0.4)} for end in done]
        action = stacked([action_space.sample() for _ in range(envs)])
        reward = rng.normal(size=envs).astype(np.float32)
        ends = done.astype(np.float32) if numbers else done
        yield stacked(obs), stacked(next_obs), action, reward, ends, infos
        obs = [
            observation_space.sample() if end else value
            for value, end in zip(next_obs, done, strict=True)
        ]


def fed(buffer, steps):
    for step in steps:
        buffer.add(*step)
    return buffer


def their_rows(theirs, positions, envs, normalized=None):
    """What one of their buffers returns of those rows."""
    with mock.patch("numpy.random.randint", return_value=envs):
        return theirs._get_samples(positions, env=normalized)


def our_rows(ours, normalized=None):
    """All rows of ours, in the order of their ids."""
    samples = ours.sample(len(ours), env=normalized)
    order = np.argsort(samples.ids)

    def sorted_(column):
        if isinstance(column, dict):
            return {key: part[order] for key, part in column.items()}
        return None if column is None else column[order]

    return type(samples)(*map(sorted_, samples))


def assert_same(ours, theirs, close=()):
    for name, wanted in theirs._asdict().items():
        got = getattr(ours, name)
        if isinstance(wanted, dict):
            assert got.keys() == wanted.keys()
            for key, part in wanted.items():
                assert got[key].dtype == part.dtype, (name, key)
                assert torch.equal(got[key], part), (name, key)
        elif name == "ids":
            assert np.array_equal(got, wanted)
        elif wanted is None:
            assert got is None
        else:
            assert (got.dtype, got.shape, got.device) == (wanted.dtype, wanted.shape, wanted.device)
            if name in close:
                torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-6)
            else:
                assert torch.equal(got, wanted), name


def normalizer(env, keys=None, **options):
    """A VecNormalize that has seen something."""
    normalized = VecNormalize(DummyVecEnv([env]), norm_obs_keys=keys, **options)
    rng = np.random.default_rng(5)
    rms = normalized.obs_rms
    for one in rms.values() if isinstance(rms, dict) else [rms]:
        one.update(rng.normal(1.0, 2.0, (50, *one.mean.shape)))
    normalized.ret_rms.update(rng.normal(0.0, 0.1, 50))
    return normalized


def both(observation_space, action_space, steps, envs=3, size=20, **options):
    """A buffer of theirs and one of ours, fed the same steps."""
    kind = DictReplayBuffer if isinstance(observation_space, spaces.Dict) else ReplayBuffer
    arguments = size * envs + envs - 1, observation_space, action_space, "cpu", envs
    # Ours first: theirs reshapes parts of a Dict in the caller's own
    ours = fed(PrioritizedReplayBuffer(*arguments, sampler=ALL, **options), steps)
    theirs = fed(kind(*arguments, **options), steps)
    return theirs, ours


def assert_rows_equal(theirs, ours, envs, normalized=None):
    got = our_rows(ours, normalized)
    at, env = np.divmod(got.ids, envs)
    assert_same(got, their_rows(theirs, at % theirs.buffer_size, env, normalized))
    assert (ours.size(), ours.full, ours.pos) == (theirs.size(), theirs.full, theirs.pos)
    assert ours.buffer_size == theirs.buffer_size
    assert len(ours) == len(set(got.ids)) == theirs.size() * envs


@pytest.mark.parametrize("action", ["discrete", "box"])
@pytest.mark.parametrize("obs", OBSERVATIONS)
@pytest.mark.parametrize("envs", [1, 3])
def test_rows_of_every_space_are_theirs(obs, action, envs):
    for steps in (7, 20, 53):  # part of it, full, wrapped around
        given = list(stream(OBSERVATIONS[obs], ACTIONS[action], envs, steps, steps))
        theirs, ours = both(OBSERVATIONS[obs], ACTIONS[action], given, envs)
        assert_rows_equal(theirs, ours, envs)


@pytest.mark.parametrize("numbers", [False, True])
@pytest.mark.parametrize("limits", [False, True])
@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("envs", [1, 2])
def test_rows_of_every_action_and_kind_of_end_are_theirs(action, limits, numbers, envs):
    given = list(stream(FLOATS, ACTIONS[action], envs, 50, 3, numbers))
    theirs, ours = both(
        FLOATS, ACTIONS[action], given, envs, handle_timeout_termination=limits
    )  # fmt: skip
    assert_rows_equal(theirs, ours, envs)
    assert 0 < our_rows(ours).dones.sum() < len(ours)


def test_less_memory_is_the_same():
    given = list(stream(IMAGE, ACTIONS["discrete"], 1, 12, 4))
    theirs, ours = both(
        IMAGE, ACTIONS["discrete"], given, 1, optimize_memory_usage=True,
        handle_timeout_termination=False,
    )  # fmt: skip
    got = our_rows(ours)
    kept = ~np.array([step[4][0] for step in given])  # theirs loses the last ones of episodes
    got = type(got)(*(None if column is None else column[kept] for column in got))
    assert_same(got, their_rows(theirs, np.flatnonzero(kept), np.zeros(kept.sum(), int)))
    assert ours.replay.bytes_when_full() < 21 * IMAGE.sample().nbytes * 1.5


@pytest.mark.parametrize("envs", [1, 3])
def test_normalized_rows_are_theirs(envs):
    normalized = normalizer(lambda: gymnasium.make("CartPole-v1"))
    given = list(stream(FLOATS, ACTIONS["discrete"], envs, 50, 6))
    theirs, ours = both(FLOATS, ACTIONS["discrete"], given, envs)
    assert_rows_equal(theirs, ours, envs, normalized)
    rewards = our_rows(ours, normalized).rewards
    assert (rewards.abs() == 10.0).any()  # clipped
    assert not torch.equal(rewards, our_rows(ours).rewards)


def test_normalized_parts_of_a_dict_are_theirs():
    normalized = normalizer(SimpleMultiObsEnv, keys=["vec"])
    space = normalized.observation_space
    given = list(stream(space, ACTIONS["discrete"], 2, 30, 6))
    theirs, ours = both(space, ACTIONS["discrete"], given, 2)
    assert_rows_equal(theirs, ours, 2, normalized)


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("n_steps", [2, 3, 5])
@pytest.mark.parametrize("envs", [1, 3])
def test_rows_of_several_steps_are_theirs(n_steps, envs, normalized):
    steps, options = 60, {"n_steps": n_steps, "gamma": 0.9}
    scale = None
    if normalized:
        scale = normalizer(lambda: gymnasium.make("CartPole-v1"), clip_reward=np.inf)
    given = list(stream(FLOATS, ACTIONS["box"], envs, steps, n_steps, numbers=True))
    # Theirs, large enough to keep every step, is asked for the rows that ours has
    theirs = NStepReplayBuffer(steps * envs, FLOATS, ACTIONS["box"], "cpu", envs, **options)
    fed(theirs, given)
    ours = PrioritizedReplayBuffer(
        25 * envs, FLOATS, ACTIONS["box"], "cpu", envs, sampler=ALL, **options
    )
    fed(ours, given)
    got = our_rows(ours, scale)
    named = {theirs.observations[t, e].tobytes(): (t, e) for t in range(steps) for e in range(envs)}
    keys = [named[row.numpy().tobytes()] for row in our_rows(ours).observations]
    assert len(set(keys)) == len(keys) == 25 * envs  # wrapped around
    at, env = np.array(keys).T
    wanted = their_rows(theirs, at, env, scale)
    live = 1 - wanted.dones
    torch.testing.assert_close(got.discounts, wanted.discounts * live, rtol=1e-6, atol=0)
    got = got._replace(discounts=wanted.discounts)
    assert_same(got, wanted, close=("rewards",))
    assert set(np.unique((wanted.discounts[:, 0].numpy() / 0.9).round(3))) > {1.0}
    # the newest that are complete, and no others
    done = np.array([step[4] for step in given], bool)
    complete = [
        sum(done[t : t + n_steps, e].any() or t + n_steps <= steps for t in range(steps))
        for e in range(envs)
    ]
    assert ours.replay.ids_issued == sum(complete)
    assert min(at) > 60 - 25 - 2 * n_steps


def test_a_reset_in_the_middle_of_an_episode_closes_windows():
    for envs in (1, 2):
        buffer = PrioritizedReplayBuffer(
            100, FLOATS, ACTIONS["box"], "cpu", envs, n_steps=3, gamma=0.5, sampler=ALL
        )
        no, infos, action = np.zeros(envs, bool), [{}] * envs, np.zeros((envs, 2), np.float32)
        one = np.ones(envs, np.float32)
        obs = np.arange(4.0 * envs, dtype=np.float32).reshape(envs, 4)
        buffer.add(obs, obs + 1, action, one, no, infos)
        assert not len(buffer)
        other = obs + 1
        other[-1] += 7  # only the last environment was reset
        buffer.add(other, other + 1, action, one, no, infos)
        rows = our_rows(buffer)
        assert rows.rewards.tolist() == [[1.0]]
        assert rows.discounts.tolist() == [[0.5]]
        assert torch.equal(rows.next_observations, torch.tensor(obs[-1:] + 1))


@pytest.mark.slow
@pytest.mark.parametrize("envs", [1, 2])
def test_an_interrupted_step_leaves_true_rows(envs):
    steps = list(stream(FLOATS, ACTIONS["box"], envs, 8, 2))
    for step in steps:
        step[4][:] = False  # one long episode
        step[5][:] = [{}] * envs
    for (_, reached, *_), step in pairwise(steps):
        step[0][:] = reached

    def begun():
        options = {"n_steps": 3, "gamma": 0.5, "sampler": ALL}
        buffer = PrioritizedReplayBuffer(100, FLOATS, ACTIONS["box"], "cpu", envs, **options)
        return fed(buffer, steps[:4])

    events = count_events(lambda: begun().add(*steps[4])) - count_events(begun)
    assert events > 20
    obs, next_obs, rewards = (
        np.array([step[k] for step in steps]).swapaxes(0, 1) for k in (0, 1, 3)
    )  # fmt: skip
    for at in range(events):
        buffer = begun()
        run_until(lambda buffer=buffer: buffer.add(*steps[4]), at)
        fed(buffer, steps[5:])
        buffer.end_episode()
        rows = our_rows(buffer)
        starts = []
        for row in range(len(buffer)):
            ((env, start),) = np.argwhere((obs == rows.observations[row].numpy()).all(axis=2))
            starts.append((env, start))
            length = round(np.log(rows.discounts[row].item()) / np.log(0.5))
            assert np.array_equal(rows.next_observations[row], next_obs[env, start + length - 1])
            summed = rewards[env, start : start + length] @ 0.5 ** np.arange(length)
            assert rows.rewards[row].item() == pytest.approx(summed, abs=1e-5)
        everything = {(env, start) for env in range(envs) for start in range(8)}
        missing = everything - set(starts)
        assert missing in (set(), {(env, 4) for env in range(envs)}), at
        assert len(starts) == len(set(starts))


def image_env():
    return FakeImageEnv(action_dim=3, screen_height=84, screen_width=84, n_channels=1)


def collected(envs, buffers, steps, seed=0):
    """Steps of a vector environment, given to buffers as their algorithms do."""
    rng = np.random.default_rng(seed)
    obs = envs.reset()
    for _ in range(steps):
        action = rng.integers(3, size=envs.num_envs)
        new_obs, reward, done, infos = envs.step(action)
        next_obs = new_obs.copy()
        for env in np.flatnonzero(done):
            next_obs[env] = infos[env]["terminal_observation"]
        for buffer in buffers:
            buffer.add(obs, next_obs, action, reward, done, infos)
        obs = new_obs


@pytest.mark.parametrize("first", [False, True])
def test_stacks_of_images_are_kept_once(first):
    envs = VecFrameStack(DummyVecEnv([image_env] * 2), n_stack=4)
    for env in envs.unwrapped.envs:
        env.ep_length = 7
        env.observation_space.seed(1)
    envs = VecTransposeImage(envs) if first else envs
    space = envs.observation_space
    assert space.shape == ((4, 84, 84) if first else (84, 84, 4))
    ours = PrioritizedReplayBuffer(100, space, envs.action_space, "cpu", 2, sampler=ALL)
    theirs = ReplayBuffer(100, space, envs.action_space, "cpu", 2)
    large = PrioritizedReplayBuffer(1_000_000, space, envs.action_space, "cpu", 2)
    collected(envs, [ours, theirs, large], 70)
    assert theirs.full
    assert_rows_equal(theirs, ours, 2)
    assert large.replay.bytes_when_full() / 1_000_000 <= 7167
    # Whoever changes a tensor changes no other row, and nothing that is kept
    rows = our_rows(ours)
    rows.observations.fill_(0)
    rows.next_observations.fill_(0)
    assert_rows_equal(theirs, ours, 2)


def test_a_batch_has_weights_and_ids_and_its_errors_become_priorities():
    buffer = PrioritizedReplayBuffer(
        100, FLOATS, ACTIONS["box"], "cpu", 2, seed=0, beta=1.0, sampler=per.Proportional(1.0, 0.0)
    )
    fed(buffer, stream(FLOATS, ACTIONS["box"], 2, 40, 0))
    errors = torch.linspace(-1.0, 3.0, 80)
    assert buffer.update_priorities(np.arange(80), errors[:, None]) == 80
    samples = buffer.sample(500)
    masses = errors.abs().double().numpy()
    assert buffer.replay.priorities(np.arange(80)) == pytest.approx(masses)
    weights = 1 / masses[samples.ids]
    assert samples.weights.dtype == torch.float32
    assert samples.weights.shape == (500, 1)
    assert samples.weights.numpy()[:, 0] == pytest.approx(weights / weights.max(), rel=1e-5)
    assert np.array_equal(buffer.last_draw.ids, samples.ids)
    assert buffer.last_draw.weights is samples.weights


def test_beta_follows_the_progress_that_remains():
    buffer = PrioritizedReplayBuffer(
        50, FLOATS, ACTIONS["box"], "cpu", seed=0, beta=per.linear(1.0, 0.4, 1), weigh_losses=False
    )
    fed(buffer, stream(FLOATS, ACTIONS["box"], 1, 40, 0))
    buffer.update_priorities(np.arange(40), np.arange(1.0, 41.0))
    for progress, beta in [(1.0, 0.4), (0.5, 0.7), (0.0, 1.0), (-0.1, 1.0)]:
        buffer.progress_remaining = progress
        samples = buffer.sample(20)
        same = buffer.replay.get(samples.ids, beta=beta)
        assert np.array_equal(samples.weights.numpy()[:, 0], same.weights)
    buffer.beta = lambda progress: 1.0 - 0.6 * progress  # which must not pass 1 after the end
    assert buffer.sample(20).weights.max() == 1.0


def test_one_seed_gives_one_sequence_of_draws():
    def drawn(seed, of_numpy):
        np.random.seed(of_numpy)  # noqa: NPY002 - as the algorithms do
        buffer = PrioritizedReplayBuffer(50, FLOATS, ACTIONS["box"], "cpu", seed=seed)
        fed(buffer, stream(FLOATS, ACTIONS["box"], 1, 40, 0))
        return buffer.sample(30).ids.tolist()

    assert drawn(1, 1) == drawn(1, 2) != drawn(2, 1)
    assert drawn(None, 1) == drawn(None, 1) != drawn(None, 2)


def test_reset_and_extend():
    buffer = PrioritizedReplayBuffer(50, FLOATS, ACTIONS["box"], "cpu", sampler=ALL)
    given = list(stream(FLOATS, ACTIONS["box"], 1, 20, 0))
    buffer.extend(*map(list, zip(*given, strict=True)))
    assert (buffer.size(), buffer.pos, buffer.full) == (20, 20, False)
    buffer.reset()
    assert (len(buffer), buffer.size(), buffer.full) == (0, 0, False)
    fed(buffer, given)
    assert torch.equal(our_rows(buffer).rewards[:, 0], torch.tensor([s[3][0] for s in given]))


@pytest.mark.parametrize("n_steps", [1, 3])
@pytest.mark.parametrize("space", ["float32", "dict"])
def test_a_loaded_buffer_goes_on_bit_for_bit(space, n_steps, tmp_path):
    observations, actions = OBSERVATIONS[space], ACTIONS["discrete"]
    given = list(stream(observations, actions, 2, 60, 1))
    options = {"n_steps": n_steps, "sampler": per.RankBased(0.9), "weigh_losses": False}
    buffer = PrioritizedReplayBuffer(60, observations, actions, "cpu", 2, seed=1, **options)
    fed(buffer, given[:40])
    buffer.update_priorities(buffer.sample(16).ids, np.arange(16.0))
    buffer.save(tmp_path)
    # Sampler and size are the folder's
    other = PrioritizedReplayBuffer(500, observations, actions, "cpu", 2, n_steps=n_steps)
    other.load(tmp_path, truncate_last_traj=False)
    assert (other.buffer_size, other.size(), other.pos) == (30, buffer.size(), buffer.pos)
    for step in given[40:]:
        for one in (buffer, other):
            one.add(*step)
        first, second = buffer.sample(8), other.sample(8)
        assert np.array_equal(first.ids, second.ids)
        assert torch.equal(first.weights, second.weights)
        assert torch.equal(first.rewards, second.rewards)
        buffer.update_priorities(first.ids, first.rewards)
        other.update_priorities(second.ids, second.rewards)


def test_loading_closes_open_windows_unless_told_otherwise(tmp_path):
    buffer = PrioritizedReplayBuffer(50, FLOATS, ACTIONS["box"], "cpu", n_steps=3)
    obs, no = np.zeros((1, 4), np.float32), np.zeros(1, bool)
    buffer.add(obs, obs + 1, np.zeros((1, 2)), np.ones(1), no, [{}])
    buffer.save(tmp_path)
    buffer.load(tmp_path, truncate_last_traj=False)
    assert len(buffer) == 0
    buffer.load(tmp_path)
    assert len(buffer) == 1


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"n_envs": 2}, "n_envs must be as in .*, 1, got 2"),
        ({"n_steps": 2}, "n_steps must be as in .*, 1, got 2"),
        ({"gamma": 0.5}, r"gamma must be as in .*, 0.99, got 0.5"),
        ({"observation_space": spaces.Box(-5, 5, (3,))}, "spaces must be as in"),
        ({"action_space": spaces.Discrete(3)}, "spaces must be as in"),
    ],
)
def test_a_folder_of_other_transitions_is_refused(options, named, tmp_path):
    arguments = {"observation_space": FLOATS, "action_space": ACTIONS["box"], "device": "cpu"}
    PrioritizedReplayBuffer(50, **arguments).save(tmp_path)
    buffer = PrioritizedReplayBuffer(50, **arguments | options)
    before = buffer.replay
    with pytest.raises(ValueError, match=named):
        buffer.load(tmp_path)
    with pytest.raises(per.CheckpointError):
        buffer.load(tmp_path / "nothing")
    assert buffer.replay is before


@pytest.mark.parametrize(
    ("options", "error", "named"),
    [
        ({"buffer_size": 1, "n_envs": 2}, ValueError, "buffer_size must be an integer >= 2, got 1"),
        ({"n_envs": 0}, ValueError, "n_envs must be an integer >= 1, got 0"),
        ({"n_steps": 0}, ValueError, "n_steps must be an integer >= 1, got 0"),
        ({"gamma": 1.5}, ValueError, r"gamma must be in \[0, 1\], got 1.5"),
        ({"sampler": "rank"}, ValueError, "sampler must be one of .*, got 'rank'"),
        ({"sampler": per.RankBased}, ValueError, "sampler must be one of"),
        ({"beta": 1.5}, ValueError, r"beta must be in \[0, 1\], got 1.5"),
        ({"beta": lambda _: 2.0}, ValueError, r"beta at a progress .* in \[0, 1\], got 2.0"),
        ({"beta": per.linear(0.4, 1.0, 1000)}, ValueError, "schedule of the progress that remains"),
        ({"observation_space": spaces.Dict({"a": spaces.Dict({"b": FLOATS})})}, ValueError, "nest"),
        ({"observation_space": spaces.Tuple([FLOATS])}, NotImplementedError, "not supported"),
        ({"n_sampled_goal": 4}, TypeError, "n_sampled_goal"),
        ({"max_bytes": 10}, MemoryError, "max_bytes"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, error, named):
    defaults = {"buffer_size": 10, "observation_space": FLOATS, "action_space": ACTIONS["box"]}
    with pytest.raises(error, match=named):
        PrioritizedReplayBuffer(**defaults | options)


@pytest.mark.parametrize(
    ("place", "value", "named"),
    [
        (0, np.zeros((2, 5), np.float32), r"obs must have shape \(2, 4\)"),
        (0, np.zeros((3, 4), np.float32), "obs must have"),
        (0, np.float32(0), "obs must have"),
        (1, np.zeros(4, np.float32), "next_obs must have"),
        (2, np.zeros((3, 2)), r"action must have shape \(2, 2\), or that size, got \(3, 2\)"),
        (3, np.zeros(3), "reward must have"),
        (4, np.array([0.0, 0.5]), "done must be Boolean, or 0 and 1"),
        (4, np.array([True]), "done must have 2 rows"),
        (5, [{}], "infos must be 2"),
    ],
)
@pytest.mark.parametrize("n_steps", [1, 3])
def test_steps_that_do_not_fit_are_refused_and_change_nothing(place, value, named, n_steps):
    buffer = PrioritizedReplayBuffer(
        50, FLOATS, ACTIONS["box"], "cpu", 2, sampler=ALL, n_steps=n_steps
    )
    *before, step = stream(FLOATS, ACTIONS["box"], 2, 11, 0)
    fed(buffer, before)
    rows = our_rows(buffer)
    wrong = list(step)
    wrong[4] = np.array([True, True])
    wrong[place] = value
    with pytest.raises(ValueError, match=named):
        buffer.add(*wrong)
    assert_same(our_rows(buffer), rows)
    buffer.add(*step)


def test_a_single_environment_refuses_the_steps_of_two():
    buffer = PrioritizedReplayBuffer(50, FLOATS, ACTIONS["discrete"], "cpu")
    (step,) = stream(FLOATS, ACTIONS["discrete"], 2, 1, 0)
    with pytest.raises(ValueError, match="action must have shape"):
        buffer.add(*step)
    with pytest.raises(ValueError, match="must have 1 rows, as n_envs"):
        buffer.add(step[0], step[1], step[2][:1], step[3][:1], np.zeros(1, bool), [{}])
    assert not len(buffer)


def test_a_part_of_a_dict_that_is_missing_is_named():
    buffer = PrioritizedReplayBuffer(50, OBSERVATIONS["dict"], ACTIONS["discrete"], "cpu")
    (step,) = stream(OBSERVATIONS["dict"], ACTIONS["discrete"], 1, 1, 0)
    obs = {key: step[0][key] for key in ("image", "speed")}
    with pytest.raises(ValueError, match="obs must be a mapping with 'image', 'number', 'speed'"):
        buffer.add(obs, *step[1:])


def test_ids_and_errors_that_do_not_fit_are_refused_and_change_nothing():
    buffer = PrioritizedReplayBuffer(50, FLOATS, ACTIONS["box"], "cpu")
    fed(buffer, stream(FLOATS, ACTIONS["box"], 1, 10, 0))
    before = buffer.replay.priorities(range(10))
    for ids, errors, named in [
        ([3, 10], [1.0, 1.0], "10"),  # of another buffer, or not yet issued
        ([3], [np.nan], "finite"),
        ([3], [1.0, 2.0], "shape"),
    ]:
        with pytest.raises(ValueError, match=named):
            buffer.update_priorities(ids, errors)
    assert np.array_equal(before, buffer.replay.priorities(range(10)))


def test_what_cannot_be_given_is_said():
    empty = PrioritizedReplayBuffer(50, FLOATS, ACTIONS["box"], "cpu", n_steps=3)
    with pytest.raises(ValueError, match="let learning_starts be >= 3"):
        empty.sample(4)
    with pytest.raises(AttributeError, match=r"no array 'observations': use replay.get\(ids\)"):
        _ = empty.observations
    with pytest.raises(AttributeError, match="no attribute 'colour'"):
        _ = empty.colour
    with pytest.raises(TypeError, match=r"use model\.replay_buffer\.save"):
        pickle.dumps(empty)
    fed(empty, stream(FLOATS, ACTIONS["box"], 1, 10, 0))
    with pytest.raises(ValueError, match=r"clip_reward of VecNormalize must be np.inf .* 10.0"):
        empty.sample(4, env=normalizer(lambda: gymnasium.make("CartPole-v1")))


def test_their_algorithm_trains_with_less_memory_and_begins_anew():
    model = DQN(
        "MlpPolicy", "CartPole-v1", learning_starts=20, buffer_size=100, device="cpu", seed=0,
        policy_kwargs={"net_arch": [8]}, replay_buffer_class=PrioritizedReplayBuffer,
        optimize_memory_usage=True, replay_buffer_kwargs={"n_steps": 3},
    )  # fmt: skip
    model.learn(52)
    assert len(model.replay_buffer) < 52
    with pytest.warns(UserWarning, match="last trajectory"):
        model.learn(0)
    assert len(model.replay_buffer) == 52  # the windows that were open


def test_environments_with_goals_train_and_pickled_options_come_back(tmp_path):
    env = BitFlippingEnv(n_bits=4, continuous=True)
    model = PrioritizedSAC(
        "MultiInputPolicy", env, learning_starts=20, device="cpu", policy_kwargs={"net_arch": [8]},
        buffer_size=100, replay_buffer_kwargs={"sampler": per.RankBased(0.8), "beta": 0.5},
    )  # fmt: skip
    model.learn(25)
    model.save(tmp_path / "model")
    model.save_replay_buffer(tmp_path / "replay")
    again = PrioritizedSAC.load(tmp_path / "model", env=env, device="cpu")
    assert again.replay_buffer.replay.sampler == per.RankBased(0.8)
    again.load_replay_buffer(tmp_path / "replay")
    assert again.replay_buffer.size() == 25
    with pytest.raises(TypeError, match="path must be that of a folder"):
        again.load_replay_buffer(io.BytesIO())
    assert SAC.load(tmp_path / "model", env=env, device="cpu") is not None
