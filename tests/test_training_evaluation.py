"""Evaluation: complete episodes, each counted once, and honest summaries."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from prioritized_replay.envs.make import make_env, step_limit
from prioritized_replay.training.evaluation import DEFAULT_MAX_STEPS, default_max_steps, evaluate
from prioritized_replay.training.statistics import bootstrap, interquartile_mean

MADE = []


class Marathon(gymnasium.Env):
    """An episode's length is drawn at reset; each step pays 1 for action 1, else 0."""

    observation_space = spaces.Box(0.0, 100.0, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self):
        self.closed = False
        self.seeds = []
        MADE.append(self)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seeds.append(seed)
        self.length = int(self.np_random.integers(1, 40))
        self.time = 0
        return self._observation(), {}

    def step(self, action):
        assert self.time < self.length, "stepped after the end"
        self.time += 1
        ended = self.time == self.length
        terminated = ended and self.length % 2 == 0
        return self._observation(), float(action), terminated, ended and not terminated, {}

    def _observation(self):
        return np.array([self.time, self.length], np.float32)

    def close(self):
        self.closed = True


class Always(nn.Module):
    """Prefers one action; remembers how many observations it saw at once."""

    def __init__(self, action):
        super().__init__()
        self.values = torch.eye(2)[action]
        self.rows = []

    def forward(self, observations):
        assert not self.training
        self.rows.append(len(observations))
        return self.values.expand(len(observations), 2)


@pytest.fixture(autouse=True)
def _marathon():
    gymnasium.register("Marathon-v0", Marathon)
    MADE.clear()
    yield
    del gymnasium.registry["Marathon-v0"]


def lengths_of(seed, episodes):
    """Return the episodes' lengths, found without the evaluation's loop."""
    env = Marathon()
    children = np.random.SeedSequence(seed).spawn(episodes)
    lengths = []
    for child in children:
        env.reset(seed=int(child.generate_state(1)[0]))
        lengths.append(env.length)
    return lengths


@pytest.mark.parametrize("num_envs", [1, 2, 7, 100])
def test_every_episode_is_played_once_and_to_its_end(num_envs):
    result = evaluate(Always(1), "Marathon-v0", 23, seed=4, num_envs=num_envs)

    expected = lengths_of(4, 23)
    assert result.lengths.tolist() == expected
    assert result.returns.tolist() == expected
    assert result.returns.dtype == np.float64
    assert result.lengths.dtype == np.int64


class OddEven(nn.Module):
    """Prefers action 1 where time + length is even."""

    def forward(self, observations):
        even = observations.sum(dim=1) % 2 == 0
        return torch.stack([~even, even], dim=1).float()


@pytest.mark.parametrize("num_envs", [1, 3, 40])
def test_every_action_answers_its_own_episodes_observation(num_envs):
    result = evaluate(OddEven(), "Marathon-v0", 40, seed=8, num_envs=num_envs)

    expected = [sum((t + n) % 2 == 0 for t in range(n)) for n in lengths_of(8, 40)]
    assert result.returns.tolist() == expected


def test_short_episodes_are_not_counted_more_often():
    """Collecting the first 100 to end among many environments would favour the short ones."""
    result = evaluate(Always(1), "Marathon-v0", 100, seed=0, num_envs=50)

    assert result.lengths.tolist() == lengths_of(0, 100)


def test_network_runs_once_per_step_for_all():
    network = Always(0)

    result = evaluate(network, "Marathon-v0", 8, seed=1, num_envs=8)

    assert len(network.rows) == result.lengths.max()
    assert sum(network.rows) == result.lengths.sum()
    assert network.training
    assert result.returns.tolist() == [0.0] * 8


@pytest.mark.parametrize("num_envs", [1, 3, 40])
def test_episodes_are_cut_off_where_they_would_go_on(num_envs):
    whole = lengths_of(8, 40)
    cap = int(np.median(whole))

    result = evaluate(Always(1), "Marathon-v0", 40, seed=8, num_envs=num_envs, max_steps=cap)

    assert result.lengths.tolist() == [min(length, cap) for length in whole]
    assert result.returns.tolist() == result.lengths.tolist()
    assert result.capped == sum(length > cap for length in whole) > 0
    assert evaluate(Always(1), "Marathon-v0", 5, seed=8).capped == 0
    with pytest.raises(ValueError, match=r"^max_steps must be >= 1, got 0"):
        evaluate(Always(1), "Marathon-v0", 1, seed=0, max_steps=0)


def test_seed_decides():
    first, same, other = (evaluate(Always(1), "Marathon-v0", 20, seed=s) for s in (1, 1, 2))

    assert first.returns.tolist() == same.returns.tolist()
    assert first.interval == same.interval
    assert first.returns.tolist() != other.returns.tolist()


def test_epsilon_plays_at_random_but_repeatably():
    greedy = evaluate(Always(1), "Marathon-v0", 200, seed=3)
    half, same = (
        evaluate(Always(1), "Marathon-v0", 200, seed=3, epsilon=1.0, num_envs=n) for n in (5, 50)
    )

    assert half.returns.tolist() == same.returns.tolist()
    assert half.lengths.tolist() == greedy.lengths.tolist()
    # About 4000 steps, half of them action 1: s.d. 0.008 of the share.
    assert half.returns.sum() / half.lengths.sum() == pytest.approx(0.5, abs=0.04)


def test_summaries():
    result = evaluate(Always(1), "Marathon-v0", 50, seed=6)
    returns = np.sort(result.returns)

    assert result.mean == pytest.approx(returns.mean())
    assert result.std == pytest.approx(np.sqrt(((returns - returns.mean()) ** 2).mean()))
    assert result.iqm == pytest.approx(returns[12:38].mean())
    low, high = result.interval
    assert low < result.mean < high
    # The normal approximation of a 95 % interval of the mean.
    assert high - low == pytest.approx(2 * 1.96 * returns.std() / np.sqrt(50), rel=0.15)


def test_interquartile_mean_ignores_the_extremes():
    assert interquartile_mean(np.array([-1e9, 1.0, 2.0, 3.0, 4.0, 1e9, 2.5, 2.5])) == 2.5
    assert interquartile_mean(np.array([7.0])) == 7.0


def test_environments_are_closed_also_after_an_error():
    evaluate(Always(1), "Marathon-v0", 4, seed=0)
    with pytest.raises(ZeroDivisionError):
        evaluate(_Broken(), "Marathon-v0", 4, seed=0)

    assert len(MADE) == 8
    assert all(env.closed for env in MADE)


class _Broken(nn.Module):
    def forward(self, observations):
        return 1 / 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"episodes": 0}, "episodes must be >= 1, got 0"),
        ({"num_envs": 0}, "num_envs must be >= 1, got 0"),
        ({"epsilon": 1.5}, r"epsilon must be in \[0, 1\], got 1.5"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        evaluate(Always(0), **{"env_id": "Marathon-v0", "episodes": 1, "seed": 0, **settings})


@pytest.mark.parametrize(
    ("env_id", "near"),
    [
        ("CartPol-v1", "CartPole-v1"),
        ("cartpole-v1", "CartPole-v1"),
        ("CartPole-v7", "CartPole-v1"),
        ("nowhere/CartPole-v1", "CartPole-v1"),
        ("Cart Pole-v1", "CartPole-v1"),
    ],
)
def test_unknown_environment_gets_near_names(env_id, near):
    with pytest.raises(
        ValueError, match=rf"^env_id must be .*got '{env_id}'; near names: .*{near}"
    ):
        make_env(env_id)


class Circle(gymnasium.Env):
    """Never ends."""

    observation_space = spaces.Discrete(3)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        return 0, {}

    def step(self, action):
        return 1, 1.0, False, False, {}


@pytest.fixture
def _circle():
    gymnasium.register("Circle-v0", Circle)
    gymnasium.register("Lap-v0", Circle, max_episode_steps=DEFAULT_MAX_STEPS + 10)
    yield
    del gymnasium.registry["Circle-v0"], gymnasium.registry["Lap-v0"]


class First(nn.Module):
    def forward(self, observations):
        return torch.tensor([1.0, 0.0]).expand(len(observations), 2)


@pytest.mark.usefixtures("_circle")
def test_an_episode_without_an_end_is_cut_off():
    result = evaluate(First(), "Circle-v0", 2, seed=0)

    assert result.lengths.tolist() == [DEFAULT_MAX_STEPS] * 2
    assert result.capped == 2
    assert default_max_steps("Circle-v0") == DEFAULT_MAX_STEPS


@pytest.mark.usefixtures("_circle")
def test_the_time_limit_of_an_environment_holds_even_where_it_is_longer():
    result = evaluate(First(), "Lap-v0", 1, seed=0)

    assert result.lengths.tolist() == [DEFAULT_MAX_STEPS + 10]
    assert result.capped == 0
    assert evaluate(First(), "Circle-v0", 1, seed=0, max_steps=7).lengths.tolist() == [7]


def test_which_environments_have_a_limit_of_their_own():
    limits = {name: step_limit(name) for name in ("CartPole-v1", "CliffWalking-v1", "ALE/Pong-v5")}
    assert limits == {"CartPole-v1": 500, "CliffWalking-v1": None, "ALE/Pong-v5": 27_000}


@pytest.mark.slow
def test_the_bootstrap_needs_little_memory_and_draws_as_in_one_go():
    values = np.random.default_rng(3).normal(size=3_000)  # more resamples than are held at a time
    draws = np.random.default_rng(0).integers(values.size, size=(10_000, values.size))
    low, high = np.quantile(values[draws].mean(axis=-1), (0.025, 0.975))
    found = bootstrap(values, lambda resampled: resampled.mean(axis=-1))
    assert (found.low, found.high) == (low, high)
