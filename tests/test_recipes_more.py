"""What is special in three recipes: distributions of returns, goals in hindsight, useful groups."""

import csv
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from tests.recipe_modules import imported

import prioritized_replay as per

# Options of a short run, and what its evaluations can be.
SHORT: dict[str, tuple[dict[str, Any], float, float]] = {
    "rainbow": (
        {
            "steps": 200, "warmup": 100, "evaluate_every": 100, "target_period": 40,
            "evaluation_episodes": 1, "final_episodes": 2, "max_episode_steps": 50,
        },
        0.0,
        30.0,
    ),
    "her": (
        {"bits": 4, "steps": 300, "warmup": 100, "evaluate_every": 150, "evaluation_episodes": 5},
        0.0,
        1.0,
    ),
    "prompts": ({"prompts": 200, "steps": 4_000, "evaluate_every": 2_000}, 0.0, 1_000.0),
}  # fmt: skip


@pytest.fixture(scope="module")
def recipes() -> Iterator[dict[str, ModuleType]]:
    """Import the recipes, each as a module of its own."""
    with imported(SHORT) as modules:
        yield modules


@pytest.fixture
def buffers(monkeypatch) -> list[per.ReplayBuffer]:
    """Collect the buffers that a run draws from."""
    drawn_from: list[per.ReplayBuffer] = []
    sample = per.ReplayBuffer.sample

    def sampled(self, *args, **kwargs):
        if self not in drawn_from:
            drawn_from.append(self)
        return sample(self, *args, **kwargs)

    monkeypatch.setattr(per.ReplayBuffer, "sample", sampled)
    return drawn_from


def run(module: ModuleType, **options: Any) -> Any:
    short, _, _ = SHORT[module.__name__.removeprefix("recipe_")]
    return module.main(module.Config(**(short | options)))


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["proportional", "rank", "uniform"])
@pytest.mark.parametrize("name", SHORT)
def test_a_run_writes_its_curve_and_its_seed_repeats_it(recipes, name, sampler, tmp_path):
    options, least, most = SHORT[name]
    run(recipes[name], sampler=sampler, csv=tmp_path / "first.csv")
    if sampler == "proportional":
        run(recipes[name], sampler=sampler, csv=tmp_path / "again.csv")
        assert (tmp_path / "first.csv").read_bytes() == (tmp_path / "again.csv").read_bytes()
    with (tmp_path / "first.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    every = options["evaluate_every"]
    assert [int(row["step"]) for row in rows] == [every, 2 * every]
    assert all(least <= float(row["return"]) <= most for row in rows)


def projected_slowly(reward, discount, probabilities, v_min, v_max):
    """Move the atoms one by one (Bellemare et al. 2017, algorithm 1)."""
    rows, count = probabilities.shape
    spacing = (v_max - v_min) / (count - 1)
    goal = np.zeros((rows, count))
    for row in range(rows):
        for atom in range(count):
            value = reward[row] + discount[row] * (v_min + atom * spacing)
            position = (min(max(value, v_min), v_max) - v_min) / spacing
            for k in range(count):
                share = max(0.0, 1.0 - abs(position - k))
                goal[row, k] += probabilities[row, atom] * share
    return goal


@pytest.mark.parametrize(("v_min", "v_max", "count"), [(0.0, 20.0, 51), (-3.0, 2.0, 6)])
def test_the_projection_is_that_of_a_slow_loop(recipes, v_min, v_max, count):
    rng = np.random.default_rng(0)
    reward = rng.normal(0.0, v_max, 12).astype(np.float32)
    reward[:3] = 0.0, 1.0, 2.0
    discount = np.array([0.0, 1.0, 0.99] * 4, np.float32)
    probabilities = rng.dirichlet(np.full(count, 0.3), 12).astype(np.float32)
    goal = recipes["rainbow"].project(
        *map(torch.from_numpy, (reward, discount, probabilities)), v_min, v_max
    )
    slow = projected_slowly(reward, discount, probabilities, v_min, v_max)
    np.testing.assert_allclose(goal.numpy(), slow, atol=2e-6)
    np.testing.assert_allclose(goal.sum(1), 1.0, atol=1e-5)


def test_noise_is_a_product_of_inputs_and_outputs_and_can_be_left_out(recipes):
    torch.manual_seed(0)
    layer = recipes["rainbow"].NoisyLinear(6, 4)
    x = torch.randn(3, 6)
    means = layer(x)  # no noise before the first resampling
    layer.resample()
    noise = torch.outer(layer.of_outputs, layer.of_inputs)
    weight = layer.mean.weight + layer.noise.weight * noise
    bias = layer.mean.bias + layer.noise.bias * layer.of_outputs
    torch.testing.assert_close(layer(x), x @ weight.T + bias)
    assert not torch.allclose(layer(x), means)
    torch.testing.assert_close(layer.eval()(x), means)


def test_a_network_gives_distributions_that_depend_on_the_image(recipes):
    torch.manual_seed(0)
    network = recipes["rainbow"].Network((10, 10, 4), 3, 51)
    images = torch.rand(2, 10, 10, 4) < 0.2
    chances = network(images).exp()
    assert chances.shape == (2, 3, 51)
    torch.testing.assert_close(chances.sum(2), torch.ones(2, 3))
    assert not torch.allclose(chances[0], chances[1])


def test_rainbow_draws_three_steps_by_what_their_distributions_lack(recipes, buffers):
    run(recipes["rainbow"])
    (buffer,) = buffers
    assert buffer.n_step == 3
    rows = buffer.get(np.arange(len(buffer)))
    open_ones = rows.discount[~rows.terminated]
    assert open_ones == pytest.approx(0.99**3)
    assert np.unique(buffer.priorities(rows.ids)).size > 20
    assert (buffer.priorities(rows.ids) >= 0.01).all()


@pytest.mark.parametrize("how", ["future", "final"])
def test_goals_in_hindsight_have_the_rewards_that_belong_to_them(recipes, how):
    rng = np.random.default_rng(3)
    length, bits = 9, 3  # short enough to come by the same state twice
    states = np.zeros((length + 1, bits), np.float32)
    actions = rng.integers(bits, size=length)
    for step, bit in enumerate(actions):
        states[step + 1] = states[step]
        states[step + 1, bit] = 1.0 - states[step, bit]
    made = recipes["her"].in_hindsight(states, actions, how, 4, rng)
    rows = len(made["action"])
    assert rows == length * (1 if how == "final" else 4)
    for row in range(rows):
        step = row % length
        goal = made["obs"]["goal"][row]
        assert (made["next_obs"]["goal"][row] == goal).all()
        assert (made["obs"]["state"][row] == states[step]).all()
        assert (made["next_obs"]["state"][row] == states[step + 1]).all()
        assert made["action"][row] == actions[step]
        later = states[-1:] if how == "final" else states[step + 1 :]
        assert (later == goal).all(1).any()
        there = (states[step + 1] == goal).all()
        assert made["terminated"][row] == there
        assert made["reward"][row] == (0.0 if there else -1.0)
    assert made["terminated"].any()
    assert not made["terminated"].all()


@pytest.mark.parametrize(("relabel", "each"), [("future", 4), ("final", 1), ("none", 0)])
def test_every_finished_episode_is_in_the_buffer_with_its_other_goals(
    recipes, buffers, relabel, each
):
    her = recipes["her"]
    run(her, relabel=relabel, bits=6, steps=180)
    (buffer,) = buffers
    assert 180 * (1 + each) - 5 * each <= len(buffer) <= 180 * (1 + each)
    rows = buffer.get(np.arange(len(buffer)))
    flipped = rows.obs["state"] != rows.next_obs["state"]
    assert (flipped == (np.arange(6) == rows.action[:, None])).all()
    reached = (rows.next_obs["state"] == rows.next_obs["goal"]).all(1)
    assert (rows.terminated == reached).all()
    assert (rows.reward == np.where(reached, 0.0, -1.0)).all()
    assert (rows.discount == np.where(reached, 0.0, np.float32(0.98))).all()


def test_flipping_ends_at_the_goal_or_after_as_many_steps_as_bits(recipes):
    env = recipes["her"].BitFlipping(5)
    obs, _ = env.reset(seed=2)
    wrong = np.flatnonzero(obs["state"] != obs["goal"])
    assert wrong.size
    for bit in wrong:
        obs, reward, terminated, truncated, _ = env.step(bit)
        assert (reward, terminated) == ((0.0, True) if bit == wrong[-1] else (-1.0, False))
    assert not truncated or wrong.size == 5
    env.reset(seed=2)
    ends = [env.step(wrong[0])[2:4] for _ in range(5)]
    assert [truncated for _, truncated in ends] == [False] * 4 + [True]


def test_useful_groups_are_those_whose_answers_differ(recipes):
    prompts = recipes["prompts"]
    rewards = np.array([[0, 0, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0], [1, 1, 0, 0]], float)
    assert prompts.useful(rewards) == 2
    assert prompts.worth(rewards).tolist() == [0.0, 0.0, 0.1875, 0.25]


def test_a_simulated_learner_answers_by_its_skill_and_gains_from_useful_groups_only(recipes):
    prompts = recipes["prompts"]
    learner = prompts.Learner(prompts.Config(prompts=3))
    learner.difficulty[:] = learner.skill + np.array([0.0, 2.0, -2.0])
    rewards = learner.answer(np.arange(3), 40_000)
    assert np.unique(rewards).tolist() == [0.0, 1.0]
    chances = 1.0 / (1.0 + np.exp([0.0, 2.0, -2.0]))
    assert rewards.mean(1) == pytest.approx(chances, abs=0.015)  # 6 standard errors
    before = learner.skill
    learner.learn(np.array([[1.0, 1.0], [0.0, 0.0]]))
    assert learner.skill == before
    learner.learn(np.array([[1.0, 0.0], [0.0, 0.0]]))
    assert learner.skill == pytest.approx(before + 0.5 * learner.learning_rate)


def test_the_index_draws_more_useful_groups_than_uniform_draws(recipes):
    curves = {
        sampler: run(recipes["prompts"], sampler=sampler) for sampler in ("proportional", "uniform")
    }
    last = {sampler: curve[-1] for sampler, curve in curves.items()}
    assert last["proportional"][1] > 2.0 * last["uniform"][1]  # useful groups
    assert last["proportional"][2] > last["uniform"][2]  # skill
