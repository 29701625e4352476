"""The network without autograd: the same values, gradients and actions as with it."""

import copy

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch.testing import assert_close

from prioritized_replay.dqn.fast.perceptron import Perceptron
from prioritized_replay.dqn.networks import QNetwork

SPACES = {
    "box": spaces.Box(-1.0, 1.0, (3,)),
    "image": spaces.Box(0, 255, (2, 2, 1), np.uint8),
    "double": spaces.Box(-1.0, 1.0, (2,), np.float64),
    "discrete": spaces.Discrete(5, start=2),
}
SHAPES = [
    {"hidden_sizes": (7, 5)},
    {"hidden_sizes": (7, 5), "dueling": True},
    {"hidden_sizes": (6,), "dueling": True},
    {"hidden_sizes": ()},
    {"hidden_sizes": (), "dueling": True},
]


def drawn(space, rows, seed=0):
    space.seed(seed)
    return np.stack([space.sample() for _ in range(rows)])


@pytest.fixture(params=SPACES)
def space(request):
    return SPACES[request.param]


@pytest.fixture(params=SHAPES, ids=str)
def pair(request, space):
    """Return a network, and a perceptron over a copy of it."""
    network = QNetwork(space, num_actions=4, seed=1, **request.param)
    copied = copy.deepcopy(network)
    return network, copied, Perceptron(copied)


@pytest.mark.slow
def test_values_and_gradients_are_those_of_autograd(pair, space):
    network, copied, perceptron = pair
    observations = torch.from_numpy(drawn(space, 9))
    slope = torch.from_numpy(np.random.default_rng(2).normal(size=(9, 4)).astype(np.float32))

    for _ in range(2):  # the second time must not add to the first
        values = perceptron.values(observations)
        perceptron.backward(slope)

    expected = network(observations)
    expected.backward(slope)
    assert_close(values, expected.detach())
    assert not values.requires_grad
    for mine, other in zip(copied.parameters(), network.parameters(), strict=True):
        assert_close(mine.grad, other.grad)
    flat = torch.cat([parameter.grad.flatten() for parameter in network.parameters()])
    assert_close(perceptron.parameters.grad, flat)


def test_rows_beyond_those_of_the_gradient_have_no_part_in_it(pair, space):
    _, _, perceptron = pair
    observations = torch.from_numpy(drawn(space, 9))
    slope = torch.ones(4, 4)
    perceptron.values(observations[:4])
    perceptron.backward(slope)
    alone = perceptron.parameters.grad.clone()

    perceptron.values(observations)
    perceptron.backward(slope)

    assert_close(perceptron.parameters.grad, alone)


def test_best_action_is_that_of_the_network(pair, space):
    network, _, perceptron = pair
    observations = drawn(space, 200)
    with torch.no_grad():
        best = network(torch.from_numpy(observations)).argmax(dim=1).tolist()

    actions = [perceptron.best_action(np.asarray(observation)) for observation in observations]

    assert actions == best
    assert {type(action) for action in actions} == {int}


@pytest.mark.slow
def test_network_and_perceptron_are_one(pair, space):
    _, network, perceptron = pair
    observations = torch.from_numpy(drawn(space, 6))
    optimizer = torch.optim.SGD([perceptron.parameters], lr=0.5)
    before = network(observations)

    perceptron.values(observations)
    perceptron.backward(torch.ones(6, 4))
    optimizer.step()

    after = network(observations)
    assert not torch.equal(after, before)
    assert_close(perceptron.values(observations), after.detach())
    network.load_state_dict({name: -value for name, value in network.state_dict().items()})
    assert_close(perceptron.values(observations), network(observations).detach())
    best = network(observations).argmax(dim=1).tolist()
    assert [perceptron.best_action(row) for row in observations.numpy()] == best
    assert list(network.state_dict()) == [name for name, _ in network.named_parameters()]


def test_network_without_gradient_gets_none():
    network = QNetwork(SPACES["box"], num_actions=2).requires_grad_(False)

    perceptron = Perceptron(network)

    assert not perceptron.parameters.requires_grad
    assert perceptron.parameters.grad is None
    assert all(parameter.grad is None for parameter in network.parameters())


def test_moving_the_network_away_is_noticed():
    network = QNetwork(SPACES["box"], num_actions=2)
    perceptron = Perceptron(network)
    network.double()

    with pytest.raises(RuntimeError, match="moved or copied"):
        perceptron.values(torch.zeros(2, 3))
    with pytest.raises(RuntimeError, match="moved or copied"):
        perceptron.best_action(np.zeros(3, np.float32))
