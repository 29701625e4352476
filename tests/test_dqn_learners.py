"""The two learners, and the precision of one of them."""

import copy

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn
from torch.testing import assert_close

import prioritized_replay as per
from prioritized_replay.dqn import DQN, devices
from prioritized_replay.dqn.conversion import Conversion
from prioritized_replay.dqn.fast.learner import PerceptronLearner
from prioritized_replay.dqn.learner import AutogradLearner
from prioritized_replay.dqn.networks import QNetwork
from prioritized_replay.replay import Batch

BOX = spaces.Box(-1.0, 1.0, (3,))
TWO = spaces.Discrete(2)
CPU = torch.device("cpu")

has_bfloat16 = pytest.mark.skipif(
    not devices._has_bfloat16(CPU), reason="this processor has no bfloat16 arithmetic"
)


def networks(dueling=False):
    online = QNetwork(BOX, 2, hidden_sizes=(32, 32), dueling=dueling, seed=1)
    target = QNetwork(BOX, 2, hidden_sizes=(32, 32), dueling=dueling, seed=2)
    return online, target.requires_grad_(False)


def batch(rows=40, spread=1.0):
    rng = np.random.default_rng(3)

    def normal(*shape):
        return torch.from_numpy(spread * rng.normal(size=shape).astype(np.float32))

    return Batch(
        {
            "obs": normal(rows, 3),
            "action": torch.from_numpy(rng.integers(2, size=rows)),
            "reward": normal(rows),
            "discount": torch.from_numpy(0.9 * rng.integers(2, size=rows).astype(np.float32)),
            "next_obs": normal(rows, 3),
            "weights": torch.from_numpy(rng.random(rows).astype(np.float32)),
        }
    )


def by_autograd(online, target, **options):
    optimizer = torch.optim.SGD(online.parameters(), lr=0.1)
    conversion = Conversion(BOX, TWO)
    return AutogradLearner(online, target, optimizer, conversion, device=CPU, **options)


def directly(online, target, **options):
    return PerceptronLearner(online, target, Conversion(BOX, TWO), device=CPU, **options)


def gradient(learner):
    (group,) = learner.optimizer.param_groups
    return torch.cat([parameter.grad.flatten() for parameter in group["params"]])


@pytest.mark.parametrize("dueling", [False, True])
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("loss", ["huber", "squared"])
@pytest.mark.slow
def test_both_ways_give_the_same_errors_and_gradient(double, loss, dueling):
    plain = by_autograd(*networks(dueling), double=double, loss=loss)
    fast = directly(*networks(dueling), double=double, loss=loss)
    drawn = batch(spread=2.0)

    expected = plain.gradient(drawn)
    errors = fast.gradient(drawn)

    assert (expected.abs() > 1.0).any()  # so that huber differs from squared
    assert_close(errors, expected)
    assert_close(gradient(fast), gradient(plain))
    assert not errors.requires_grad
    assert not expected.requires_grad


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_mixing_moves_the_target_by_that_share(share):
    for way in (by_autograd, directly):
        online, target = networks()
        ends = [
            (1.0 - share) * old + share * new
            for old, new in zip(target.parameters(), online.parameters(), strict=True)
        ]
        learner = way(online, target)
        learner.gradient(batch())
        learner.move_target(share)
        learner.move_target(share)  # once for each gradient

        for now, end in zip(target.parameters(), ends, strict=True):
            assert_close(now, end.detach(), rtol=1e-6 if share < 1.0 else 0.0, atol=1e-7)


def test_full_copies_take_the_buffers_along():
    online, target = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    online.running_mean.fill_(5.0)

    by_autograd(online, target).move_target(1.0)

    assert torch.equal(target.running_mean, online.running_mean)


@has_bfloat16
@pytest.mark.parametrize("double", [False, True])
def test_bfloat16_comes_close_to_float32_and_stores_none(double):
    exact = by_autograd(*networks(), double=double, loss="squared")
    online, target = networks()
    seen = []
    online.layers[2].register_forward_hook(lambda *call: seen.append(call[-1].dtype))
    half = by_autograd(online, target, precision="bfloat16", double=double, loss="squared")

    expected = exact.gradient(batch())
    errors = half.gradient(batch())

    assert set(seen) == {torch.bfloat16}
    # 8 bits of mantissa, three layers
    assert_close(errors, expected, rtol=0.0, atol=0.05)
    assert not torch.equal(errors, expected)
    assert errors.dtype == torch.float32
    distance = torch.linalg.vector_norm(gradient(half) - gradient(exact))
    assert distance < 0.03 * torch.linalg.vector_norm(gradient(exact))
    for parameter in [*online.parameters(), *target.parameters()]:
        assert parameter.dtype == torch.float32
    assert {parameter.grad.dtype for parameter in online.parameters()} == {torch.float32}


@has_bfloat16
def test_agent_learns_in_bfloat16():
    rng = np.random.default_rng(0)
    memory = per.ReplayBuffer.for_spaces(BOX, TWO, 64, sampler=per.RankBased(), seed=0)
    obs = rng.normal(size=(64, 3)).astype(np.float32)
    memory.extend(
        {
            "obs": obs,
            "action": rng.integers(2, size=64),
            "reward": obs[:, 0],
            "next_obs": obs,
            "terminated": np.ones(64, bool),
        }
    )
    agent = DQN(
        BOX, TWO, memory, hidden_sizes=(32, 32), warmup=1, learning_rate=3e-3, precision="bfloat16"
    )
    start = copy.deepcopy(agent.online_network.state_dict())
    first = agent.learn(memory.get(np.arange(64))).abs().mean()
    for _ in range(300):
        agent.optimize()

    assert agent.last_td_errors.dtype == torch.float32
    assert agent.learn(memory.get(np.arange(64))).abs().mean() < 0.2 * first
    now = agent.online_network.state_dict()
    assert {value.dtype for value in now.values()} == {torch.float32}
    assert all(not torch.equal(now[name], start[name]) for name in start)
    assert type(agent.act(obs[0], greedy=True)) is int
