"""Training and evaluation mode: whose it is, and when."""

import copy

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn
from torch.testing import assert_close

import prioritized_replay as per
from prioritized_replay.dqn import DQN

BOX = spaces.Box(-1.0, 1.0, (4,))
THREE = spaces.Discrete(3)
OBS = np.ones(4, np.float32)


def network_with(layer):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 64), layer, nn.ReLU(), nn.Linear(64, 3))


def agent_of(network, **options):
    memory = per.ReplayBuffer.for_spaces(BOX, THREE, 64, seed=0)
    rng = np.random.default_rng(0)
    obs = rng.normal(size=(64, 4)).astype(np.float32) * 3 + 1
    memory.extend(
        {
            "obs": obs,
            "action": rng.integers(3, size=64),
            "reward": obs[:, 0],
            "next_obs": obs[::-1].copy(),
            "terminated": np.zeros(64, bool),
        }
    )
    options = {"warmup": 1, "batch_size": 16, "epsilon": 0.0, **options}
    return DQN(BOX, THREE, memory, online_network=network, **options)


class Watched(nn.Module):
    """Notes the mode of each pass."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(4, 3)
        self.passes = []

    def forward(self, obs):
        self.passes.append((self.training, torch.is_grad_enabled()))
        return self.out(obs)


@pytest.mark.slow
def test_greedy_actions_have_no_dropout():
    agent = agent_of(network_with(nn.Dropout(0.5)))

    assert len({agent.act(OBS, greedy=True) for _ in range(50)}) == 1
    assert len({agent.act(OBS) for _ in range(50)}) == 1  # epsilon is 0


@pytest.mark.parametrize("layer", [nn.BatchNorm1d(64), nn.BatchNorm1d(64, momentum=None)])
def test_one_observation_is_normalised_by_what_was_seen_while_learning(layer):
    agent = agent_of(network_with(layer))
    for _ in range(20):
        agent.optimize()
    statistics = copy.deepcopy(dict(agent.online_network[1].named_buffers()))

    alone = [agent.act(OBS, greedy=True) for _ in range(3)]
    together = agent.act(np.stack([OBS, 100 * OBS]), greedy=True)

    assert set(alone) == {together[0]}
    assert_close(dict(agent.online_network[1].named_buffers()), statistics, rtol=0, atol=0)
    assert statistics["num_batches_tracked"] == 20  # learning passes only, none for targets


@pytest.mark.parametrize("options", [{"tau": 0.5}, {"target_period": 2}])
def test_the_target_network_follows_the_running_statistics(options):
    """Else it would value by the mean 0 and the variance 1 that it began with, for ever."""
    agent = agent_of(network_with(nn.BatchNorm1d(64)), **options)
    for _ in range(20):
        agent.optimize()

    online, target = (
        dict(net[1].named_buffers()) for net in (agent.online_network, agent.target_network)
    )
    assert target["num_batches_tracked"] == online["num_batches_tracked"] == 20
    assert_close(target["running_mean"], online["running_mean"], rtol=0.5, atol=0.2)
    assert not torch.equal(target["running_mean"], torch.zeros(64))


def test_each_pass_has_its_mode():
    online = Watched()
    agent = agent_of(online)
    online.passes.clear()
    target = agent.target_network
    target.passes = []
    agent.optimize()

    # Double DQN: the online network selects in evaluation mode, then learns in training mode.
    assert online.passes == [(False, False), (True, True)]
    assert target.passes == [(False, False)]
    assert not target.training
    online.passes.clear()
    agent.act(OBS)
    agent.act(OBS, greedy=True)
    assert online.passes == [(False, False)] * 2


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_that_the_user_set_stays(training):
    network = network_with(nn.Dropout(0.5)).train(training)
    network[1].eval()  # one layer by hand
    expected = [module.training for module in network.modules()]
    agent = agent_of(network)

    agent.act(OBS)
    agent.act(OBS, greedy=True)
    agent.optimize()

    assert [module.training for module in network.modules()] == expected


def test_the_mode_stays_when_a_pass_raises():
    network = network_with(nn.Dropout(0.5))
    agent = agent_of(network)
    network[3].bias.data = torch.zeros(7)
    for call in (lambda: agent.act(OBS, greedy=True), agent.optimize):
        with pytest.raises(RuntimeError):
            call()
        assert all(module.training for module in network.modules())
    assert torch.is_grad_enabled()


def test_a_network_in_evaluation_mode_learns_in_training_mode():
    network = network_with(nn.BatchNorm1d(64)).eval()
    agent = agent_of(network)
    agent.optimize()

    assert network[1].num_batches_tracked == 1
    assert not network.training


class Noisy(nn.Module):
    """Adds noise to its values in training mode, drawn anew by reset_noise()."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(4, 3)
        self.register_buffer("noise", torch.zeros(3))
        self.resets = 0

    def reset_noise(self):
        self.resets += 1
        self.noise = 100.0 * torch.randn(3)

    def forward(self, obs):
        return self.out(obs) + self.noise if self.training else self.out(obs)


def test_a_noisy_network_explores_by_its_noise_and_is_greedy_without():
    torch.manual_seed(0)
    network = Noisy()
    agent = agent_of(network, noisy=True)

    explored = {agent.act(OBS) for _ in range(50)}
    together = {tuple(agent.act(np.stack([OBS] * 2)).tolist()) for _ in range(50)}

    assert explored == {0, 1, 2}
    assert len(together) == 3
    assert network.resets == 100
    assert len({agent.act(OBS, greedy=True) for _ in range(50)}) == 1
    assert network.resets == 100  # greedy actions draw nothing
    agent.optimize()
    assert (network.resets, agent.target_network.resets) == (101, 1)
    assert agent.target_network.training
    assert agent.last_td_errors.abs().max() > 20


def test_without_the_option_noise_is_off():
    agent = agent_of(Noisy())
    assert len({agent.act(OBS) for _ in range(50)}) == 1
    agent.optimize()
    assert agent.last_td_errors.abs().max() < 20


def test_noise_that_is_a_buffer_replaced_by_the_network_stays_in_step():
    agent = agent_of(Noisy(), noisy=True, tau=0.5)
    for _ in range(3):
        agent.optimize()
    assert agent.updates == 3
    assert agent.is_finite()
