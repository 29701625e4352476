"""The recipe with memory: its two tasks, the states it stores, and one update along sequences."""

import copy
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from tests.recipe_modules import imported
from torch.testing import assert_close

import prioritized_replay as per

# Options of a short run.
SHORT: dict[str, Any] = {
    "steps": 400, "envs": 4, "warmup": 200, "evaluate_every": 1_000, "evaluation_episodes": 2,
    "hidden_size": 8, "batch_size": 8, "length": 6, "burn_in": 2, "overlap": 3, "train_every": 8,
    "delay": 9,
}  # fmt: skip


@pytest.fixture(scope="module")
def r2d2() -> Iterator[ModuleType]:
    with imported(["r2d2"]) as modules:
        recipe = modules["r2d2"]
        recipe.Agent(recipe.Config())  # the first optimizer loads much of torch
        yield recipe


def drawn(r2d2: ModuleType, monkeypatch: Any, **options: Any) -> tuple[Any, list[Any], list[Any]]:
    """Return a run's agent, its batches, and the ids and errors that it gave back."""
    batches: list[Any] = []
    given: list[Any] = []
    sample, update = per.ReplayBuffer.sample, per.ReplayBuffer.update_priorities

    def sampled(self, *args):
        batches.append(sample(self, *args))
        return batches[-1]

    def updated(self, ids, td_errors):
        given.append((self, ids, td_errors))
        return update(self, ids, td_errors)

    monkeypatch.setattr(per.ReplayBuffer, "sample", sampled)
    monkeypatch.setattr(per.ReplayBuffer, "update_priorities", updated)
    agent = r2d2.main(r2d2.Config(**(SHORT | options)))
    return agent, batches, given


@pytest.mark.slow
@pytest.mark.parametrize("task", ["cartpole", "recall"])
@pytest.mark.parametrize("sampler", ["proportional", "rank", "uniform"])
@pytest.mark.parametrize("network", ["lstm", "feed-forward"])
def test_every_update_gives_the_errors_of_all_steps_back(r2d2, monkeypatch, task, sampler, network):
    _, batches, given = drawn(r2d2, monkeypatch, task=task, sampler=sampler, network=network)

    assert len(batches) == len(given) == 200 / 8
    for batch, (replay, ids, td_errors) in zip(batches, given, strict=True):
        assert np.array_equal(batch.ids, ids)
        assert td_errors.shape == batch.mask.shape == (8, 6)
        assert td_errors[torch.from_numpy(batch.mask)].isfinite().all()
        assert batch.state.shape == (8, 2, 8)
        assert (replay.sequence.length, replay.sequence.burn_in) == (6, 2)
        if sampler == "uniform":
            assert (batch.weights == 1.0).all()
    if sampler != "uniform":
        assert np.unique([batch.weights for batch in batches]).size > 1


@pytest.mark.slow
def test_the_state_of_a_sequence_is_that_before_its_first_step(r2d2, monkeypatch):
    """The learning rate is 0: the states are those of the network as it is in the end."""
    agent, batches, _ = drawn(r2d2, monkeypatch, learning_rate=0.0, delay=12)
    columns = {
        name: np.concatenate([getattr(batch, name) for batch in batches])
        for name in ("ids", "obs", "state", "is_first", "mask", "terminated")
    }
    rows = {int(one): row for row, one in enumerate(columns["ids"])}
    compared = 0
    for one, row in rows.items():
        if columns["is_first"][row, 0]:
            assert not columns["state"][row].any()
        after = rows.get(one + 3 * 4)  # 3 steps of 4 environments later
        if after is None or columns["is_first"][after, 0] or not columns["mask"][row].all():
            continue
        obs, state = (torch.from_numpy(columns[name][row : row + 1]) for name in ("obs", "state"))
        with torch.no_grad():
            _, state = agent.online_network(obs[:, :3], state)
        if not columns["terminated"][row, :3].any():
            assert_close(state[0], torch.from_numpy(columns["state"][after]))
            compared += bool(state.any())
    assert compared > 5


@pytest.mark.parametrize("network", ["lstm", "feed-forward"])
def test_values_along_a_sequence_are_those_of_single_steps(r2d2, network):
    torch.manual_seed(0)
    agent = r2d2.Agent(r2d2.Config(network=network, hidden_size=8, burn_in=3))
    obs, state = torch.randn(4, 7, 2), torch.randn(4, 2, 8)

    values, last = agent.online_network(obs, state)

    state_now, single = state, []
    for t in range(7):
        value, state_now = agent.online_network(obs[:, t : t + 1], state_now)
        single.append(value)
    assert_close(values, torch.cat(single, dim=1))
    assert_close(last, state_now)
    assert_close(agent.along(agent.online_network, obs, state), values)
    other, _ = agent.online_network(obs, torch.randn(4, 2, 8))
    assert torch.allclose(other, values) == (network == "feed-forward")


def batch_of(rows: int, length: int, real: list[int]) -> SimpleNamespace:
    """Sequences with so many real steps, as a buffer returns them."""
    generator = torch.Generator().manual_seed(1)
    mask = torch.arange(length) < torch.tensor(real)[:, None]
    obs = torch.randn(rows, length + 1, 2, generator=generator)
    return SimpleNamespace(
        obs=obs[:, :-1] * mask[..., None],
        next_obs=obs[:, 1:] * mask[..., None],
        action=torch.randint(2, (rows, length), generator=generator) * mask,
        reward=torch.randn(rows, length, generator=generator) * mask,
        discount=0.9 * mask.float(),
        mask=mask,
        weights=torch.rand(rows, generator=generator),
        state=torch.randn(rows, 2, 8, generator=generator),
    )


def test_the_errors_of_an_update_are_those_of_a_slow_loop(r2d2):
    torch.manual_seed(0)
    agent = r2d2.Agent(r2d2.Config(hidden_size=8, burn_in=2, n_step=3, learning_rate=0.0, tau=0.0))
    for parameter in agent.target_network.advantage.parameters():
        parameter.data *= -1.0  # it would choose the other action
    real = [6, 4, 1]
    batch = batch_of(3, 6, real)

    td_errors = agent.update(batch)

    with torch.no_grad():
        for row, steps in enumerate(real):
            obs = torch.cat((batch.obs[row, :1], batch.next_obs[row]))[None, : steps + 1]
            state = batch.state[row : row + 1]
            online, target = (
                network(obs, state)[0][0]
                for network in (agent.online_network, agent.target_network)
            )
            for t in range(steps):
                last = min(t + 3, steps)  # the step that it bootstraps from
                goal = r2d2.dqn.unrescaled(target[last, online[last].argmax()])
                for k in reversed(range(t, last)):
                    goal = batch.reward[row, k] + batch.discount[row, k] * goal
                expected = r2d2.dqn.rescaled(goal) - online[t, batch.action[row, t]]
                assert_close(td_errors[row, t], expected)


def test_the_gradient_is_that_of_the_weighted_mean_after_the_burn_in(r2d2):
    torch.manual_seed(0)
    agent = r2d2.Agent(r2d2.Config(hidden_size=8, burn_in=2, gradient_clip=1e9))
    before, real = copy.deepcopy(agent), [6, 4, 3]
    batch = batch_of(3, 6, real)
    td_errors = agent.update(batch)

    loss = torch.zeros(())
    for row, steps in enumerate(real):
        with torch.no_grad():
            _, state = before.online_network(
                batch.obs[row : row + 1, :2], batch.state[row : row + 1]
            )
        values = before.online_network(batch.obs[row : row + 1, 2:steps], state)[0][0]
        taken = values[torch.arange(steps - 2), batch.action[row, 2:steps]]
        target = td_errors[row, 2:steps] + taken.detach()
        errors = torch.nn.functional.smooth_l1_loss(taken, target)  # their mean
        loss = loss + batch.weights[row] * errors / 3
    loss.backward()

    for one, same in zip(
        agent.online_network.parameters(), before.online_network.parameters(), strict=True
    ):
        assert_close(one.grad, same.grad)


def test_neither_padding_nor_burn_in_changes_what_is_learnt(r2d2):
    torch.manual_seed(0)
    agent = r2d2.Agent(r2d2.Config(hidden_size=8, burn_in=2, n_step=1))
    other, batch = copy.deepcopy(agent), batch_of(3, 6, [6, 4, 3])
    agent.update(batch)
    batch.reward[:, :2] += 7.0
    batch.next_obs = torch.where(batch.mask[..., None], batch.next_obs, 7.0)
    batch.reward = torch.where(batch.mask, batch.reward, 7.0)

    other.update(batch)

    pairs = zip(agent.online_network.parameters(), other.online_network.parameters(), strict=True)
    for one, same in pairs:
        assert_close(one, same)


def test_the_target_network_follows_a_part_of_the_way(r2d2):
    torch.manual_seed(0)
    agent = r2d2.Agent(r2d2.Config(hidden_size=8, burn_in=2, tau=0.25))
    before = [parameter.detach().clone() for parameter in agent.target_network.parameters()]

    agent.update(batch_of(3, 6, [6, 4, 3]))

    networks = (agent.target_network, agent.online_network)
    now, online = ([p.detach() for p in network.parameters()] for network in networks)
    assert not torch.equal(
        torch.cat([p.flatten() for p in before]), torch.cat([p.flatten() for p in online])
    )
    for old, new, other in zip(before, now, online, strict=True):
        assert_close(new, 0.75 * old + 0.25 * other)


def test_velocities_are_hidden_and_nothing_else_is_changed(r2d2):
    hidden = r2d2.HiddenVelocities(gymnasium.make("CartPole-v1"))
    plain = gymnasium.make("CartPole-v1")
    obs, _ = hidden.reset(seed=3)
    full, _ = plain.reset(seed=3)
    ended = False
    while not ended:
        assert obs.dtype == np.float32
        assert hidden.observation_space.contains(obs)
        np.testing.assert_allclose(obs, full[[0, 2]] / [0.6, 0.05], rtol=1e-6)
        obs, *outcome, _ = hidden.step(1)
        full, *same, _ = plain.step(1)
        assert outcome == same
        ended = any(outcome[1:])
    assert 4.0 < np.abs(obs).max() < 5.0  # it fell


@pytest.mark.parametrize("right", [True, False])
def test_the_cue_is_seen_once_and_names_the_action_that_is_paid(r2d2, right):
    env, cues, later = r2d2.Recall(delay=20), set(), []
    for seed in range(10):
        obs, _ = env.reset(seed=seed)
        cue = int(obs[0] > 0)
        cues.add(cue)
        seen, rewards = [], []
        ended = False
        while not ended:
            action = cue if len(rewards) < 20 or right else 1 - cue
            obs, reward, ended, truncated, _ = env.step(action)
            assert env.observation_space.contains(obs)
            assert not truncated
            seen.append(obs)
            rewards.append(reward)
        assert rewards == [0.0] * 20 + [float(right)]
        later.append(np.array(seen))
    assert cues == {0, 1}
    assert all(np.array_equal(later[0], one) for one in later), "the cue shows later"


@pytest.mark.parametrize("task", ["cartpole", "recall"])
def test_an_evaluation_is_the_mean_over_one_episode_of_each_environment(r2d2, task):
    config = r2d2.Config(task=task, hidden_size=8, delay=5)
    torch.manual_seed(0)
    agent = r2d2.Agent(config)
    envs = r2d2.make_envs(config, 5)
    envs.reset(seed=3)
    found = r2d2.evaluate(agent, envs)

    total, env = 0.0, r2d2.make_envs(config, 1).envs[0]
    for seed in range(3, 8):
        env.reset(seed=seed)
        obs, _ = env.reset()
        state, ended = torch.zeros(1, 2, 8), False
        while not ended:
            (action,), state = agent.act(obs[None], state)
            obs, reward, terminated, truncated, _ = env.step(action)
            total += float(reward)
            ended = terminated or truncated
    assert found == pytest.approx(total / 5)
