"""Environments by name: Atari games, MinAtar, vectors, and what is said where one cannot be had."""

import itertools
import re
import sys

import gymnasium
import numpy as np
import pytest
from ale_py.env import AtariEnv
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from prioritized_replay.envs.make import make_env, make_vector, spec_of
from prioritized_replay.extras import install_command

PONG, BREAKOUT, FREEWAY = "ALE/Pong-v5", "ALE/Breakout-v5", "ALE/Freeway-v5"


def play(env, steps, seed=0):
    """Observations, rewards and ends of random play from a seeded reset on."""
    rng = np.random.default_rng(seed)
    obs, _ = env.reset(seed=seed)
    seen = [(obs, 0.0, False)]
    for _ in range(steps):
        obs, reward, terminated, truncated, _ = env.step(int(rng.integers(env.action_space.n)))
        seen.append((obs, reward, terminated or truncated))
        if terminated or truncated:
            break
    return seen


def test_an_atari_game_gives_stacks_of_grey_frames():
    env = make_env(PONG)

    seen = play(env, 30)

    assert env.observation_space == spaces.Box(0, 255, (4, 84, 84), np.uint8)
    assert env.action_space == spaces.Discrete(6)
    for (obs, _, _), (next_obs, _, _) in itertools.pairwise(seen):
        assert obs.dtype == np.uint8
        assert np.array_equal(obs[1:], next_obs[:-1])
    assert not seen[0][0][:3].any()  # nothing came before the first frame
    assert len(np.unique(seen[-1][0])) > 2
    env.close()


def by_area(frame):
    """A frame of 210x160 made 84x84: the means of areas of 2.5 x 1.90 pixels."""
    fine = frame.astype(float).repeat(2, axis=0).repeat(21, axis=1)
    return fine.reshape(84, 5, 84, 40).mean(axis=(1, 3))


@pytest.mark.slow
def test_frames_are_those_of_the_emulator_skipped_merged_and_made_smaller():
    env = make_env(FREEWAY, sticky_actions=0.0)
    obs, _ = env.reset(seed=3)
    frames = [obs[-1]] + [env.step(0)[0][-1] for _ in range(3)]
    raw = AtariEnv("freeway", frameskip=1, repeat_action_probability=0.0, obs_type="grayscale")
    raw.reset(seed=0)
    raws = [raw.step(0)[0] for _ in range(60)]
    small = [by_area(np.maximum(a, b)) for a, b in itertools.pairwise(raws)]

    def differs(frame, other):
        return np.abs(frame - other).max()

    # It began with some frames in which nothing was done, at most 30; the last of them is shown.
    begin = min(range(30), key=lambda k: differs(frames[0], by_area(raws[k])))
    assert differs(frames[0], by_area(raws[begin])) <= 1.0
    for k in (1, 2, 3):
        assert differs(frames[k], small[begin + 4 * k - 1]) <= 1.0
        assert differs(frames[k], small[begin + 4 * k - 2]) > 20.0


def test_whole_games_with_the_games_own_rewards():
    env = make_env(BREAKOUT, sticky_actions=0.0)

    seen = play(env, 2_000)

    assert seen[-1][2]  # lost, with all five lives
    assert len(seen) > 100
    assert {reward for _, reward, _ in seen} <= {0.0, 1.0, 4.0, 7.0}
    # The observation of the end belongs to the game that ended.
    assert np.array_equal(seen[-2][0][1:], seen[-1][0][:-1])


@pytest.mark.slow
def test_one_seed_one_game_sticky_or_not():
    first, same, other = (play(make_env(BREAKOUT), 60, seed) for seed in (1, 1, 2))
    loose = play(make_env(BREAKOUT, sticky_actions=0.0), 60, 1)

    assert all(np.array_equal(a[0], b[0]) for a, b in zip(first, same, strict=True))
    assert not all(np.array_equal(a[0], b[0]) for a, b in zip(first, other, strict=False))
    assert not all(np.array_equal(a[0], b[0]) for a, b in zip(first, loose, strict=False))


@pytest.mark.slow
def test_without_a_seed_games_differ_and_large_seeds_are_taken():
    env = make_env(FREEWAY)
    env.reset(seed=2**32 - 1)
    firsts = [env.reset()[0] for _ in range(6)]

    assert len({first.tobytes() for first in firsts}) > 1


@pytest.mark.slow
def test_a_game_can_be_watched_while_it_is_played():
    seen = play(make_env(BREAKOUT), 100, seed=4)
    env = make_env(BREAKOUT, render_mode="rgb_array")
    watched = play(env, 100, seed=4)

    screen = env.render()

    assert all(np.array_equal(a[0], b[0]) for a, b in zip(seen, watched, strict=True))
    assert screen.shape == (210, 160, 3)
    assert screen.dtype == np.uint8
    grey = screen @ [0.299, 0.587, 0.114]
    assert abs(grey.mean() - watched[-1][0][-1].mean()) < 3.0
    with pytest.raises(ValueError, match=r"^render_mode must be rgb_array, got 'human'"):
        make_env(BREAKOUT, render_mode="human")


@pytest.mark.slow
def test_minatar_games_have_a_picture():
    env = make_env("MinAtar/Breakout-v1", render_mode="rgb_array")
    seen = play(env, 5)

    screen = env.render()

    assert env.metadata["render_modes"] == ["rgb_array"]
    assert env.render_mode == "rgb_array"
    assert screen.shape == (160, 160, 3)
    assert screen.dtype == np.uint8
    drawn = screen.reshape(10, 16, 10, 16, 3)[:, 0, :, 0].any(axis=-1)
    assert np.array_equal(drawn, seen[-1][0].any(axis=-1))
    with pytest.raises(ValueError, match=r"^render_mode must be rgb_array, got 'human'"):
        make_env("MinAtar/Breakout-v1", render_mode="human")


def test_sticky_actions_of_minatar_reach_the_game():
    assert make_env("MinAtar/Breakout-v1").unwrapped.game.sticky_action_prob == 0.1
    env = make_env("MinAtar/Breakout-v1", sticky_actions=0.25)
    assert env.unwrapped.game.sticky_action_prob == 0.25


@pytest.mark.parametrize("env_id", ["CartPole-v1", "MinAtar/Freeway-v1", PONG])
@pytest.mark.slow
def test_vectors_begin_anew_in_the_step_of_an_end(env_id):
    envs = make_vector(env_id, 3)

    assert envs.num_envs == 3
    assert envs.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    assert envs.single_observation_space == make_env(env_id).observation_space
    envs.close()


@pytest.mark.slow
def test_games_go_on_after_a_lost_life():
    envs = make_vector(BREAKOUT, 2, end_on_life_loss=True, sticky_actions=0.0)
    rng = np.random.default_rng(0)
    obs, _ = envs.reset(seed=5)
    lost, over = np.zeros(2, int), np.zeros(2, int)
    for _ in range(900):
        next_obs, _, terminated, truncated, info = envs.step(rng.integers(4, size=2))
        ended = terminated | truncated
        lost += ended
        over += info["game_over"]
        for e in np.flatnonzero(ended):
            # What the step led to is the next frame of the same game, whether it goes on or not.
            assert np.array_equal(obs[e, 1:], info["final_obs"][e, :-1])
            went_on = np.array_equal(info["final_obs"][e], next_obs[e])
            assert went_on != info["game_over"][e]
        obs = next_obs

    assert (over >= 2).all()
    assert (lost >= 5 * over).all()  # five lives a game
    assert (lost < 5 * (over + 1)).all()


def test_what_an_environment_does_not_have_is_refused():
    with pytest.raises(ValueError, match=r"^sticky_actions must be None for CartPole-v1"):
        make_env("CartPole-v1", sticky_actions=0.1)
    with pytest.raises(ValueError, match=r"^sticky_actions must be in \[0, 1\], got 2"):
        make_env(PONG, sticky_actions=2.0)
    with pytest.raises(ValueError, match=r"^end_on_life_loss must be False.*MinAtar/Freeway-v1"):
        make_vector("MinAtar/Freeway-v1", 2, end_on_life_loss=True)
    with pytest.raises(ValueError, match=r"^num_envs must be >= 1, got 0"):
        make_vector("CartPole-v1", 0)


@pytest.mark.parametrize(
    ("env_id", "near"),
    [
        ("CartPol-v1", "CartPole-v1"),
        ("ALE/Pog-v5", "ALE/Pong-v5"),
        ("MinAtar/Brekout-v1", "MinAtar/Breakout-v1"),
    ],
)
def test_unknown_names_get_near_ones(env_id, near):
    for make in (make_env, lambda name: make_vector(name, 2)):
        with pytest.raises(ValueError, match=rf"^env_id must be a registered.*{near}"):
            make(env_id)


@pytest.mark.parametrize(
    ("env_id", "package", "extra"),
    [(PONG, "ale_py", "atari"), ("MinAtar/Breakout-v1", "minatar.gym", "minatar")],
)
def test_a_missing_package_is_named_with_what_installs_it(env_id, package, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)

    command = re.escape(install_command(extra))
    with pytest.raises(ImportError, match=rf"^{env_id} .* not installed here: {command} \("):
        make_env(env_id)


def test_a_package_can_be_named_as_gymnasium_does():
    assert spec_of("gymnasium:CartPole-v1").id == "CartPole-v1"
    assert isinstance(make_env("gymnasium:CartPole-v1"), gymnasium.Env)


def test_memory_of_the_screen_as_numbers_is_left_to_gymnasium():
    gymnasium.register(
        "ALE/PongRam-v5", "ale_py.env:AtariEnv", kwargs={"game": "pong", "obs_type": "ram"}
    )
    try:
        assert make_env("ALE/PongRam-v5").observation_space.shape == (128,)
    finally:
        del gymnasium.registry["ALE/PongRam-v5"]
