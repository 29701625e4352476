"""Networks for images, against torch's plain layers."""

import copy

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from torch.testing import assert_close

from prioritized_replay.dqn.convolutions import ConvNetwork, Convolution, Image
from prioritized_replay.dqn.fast.learner import PerceptronLearner
from prioritized_replay.dqn.fast.perceptron import Perceptron
from prioritized_replay.dqn.learner import AutogradLearner
from prioritized_replay.dqn.networks import QNetwork, make_network

ATARI = spaces.Box(0, 255, (4, 84, 84), np.uint8)
MINATAR = spaces.Box(0.0, 1.0, (10, 10, 4), bool)
SIX = spaces.Discrete(6)


def drawn(space, rows, seed=0):
    copy.deepcopy(space).seed(seed)
    return torch.from_numpy(np.stack([space.sample() for _ in range(rows)]))


@pytest.mark.parametrize("name", ["nature", "light"])
@pytest.mark.parametrize("dueling", [False, True])
@pytest.mark.slow
def test_atari_networks_are_the_published_layers_on_pixels_from_0_to_1(name, dueling):
    network = make_network(ATARI, SIX, network=name, dueling=dueling, seed=1)
    layers = copy.deepcopy(network.layers)
    observations = drawn(ATARI, 3)

    outputs = layers(observations.float() / 255)

    values = outputs
    if dueling:
        values = outputs[:, :1] + outputs[:, 1:] - outputs[:, 1:].mean(dim=1, keepdim=True)
    assert_close(network(observations), values, rtol=1e-4, atol=1e-5)
    with torch.no_grad():  # another layout in memory
        assert_close(network(observations), values.detach(), rtol=1e-4, atol=1e-5)
    sizes = {
        "nature": [(32, 4, 8, 8), (64, 32, 4, 4), (64, 64, 3, 3), (512, 3136)],
        "light": [(16, 4, 8, 8), (32, 16, 4, 4), (256, 2592)],
    }
    shapes = [tuple(p.shape) for p in network.parameters() if p.ndim > 1]
    assert shapes[:-1] == sizes[name]
    assert shapes[-1] == (6 + dueling, sizes[name][-1][0])
    strides = [layer.stride for layer in layers if isinstance(layer, nn.Conv2d)]
    assert strides == [(4, 4), (2, 2), (1, 1)][: len(strides)]


def test_channels_may_be_last_and_numbers_other_than_bytes():
    first = spaces.Box(-1.0, 1.0, (3, 40, 50), np.float32)
    last = spaces.Box(-1.0, 1.0, (40, 50, 3), np.float32)
    a, b = (make_network(space, SIX, network="nature", seed=2) for space in (first, last))
    observations = drawn(first, 2)

    assert_close(a(observations), b(observations.movedim(1, -1)), rtol=1e-4, atol=1e-5)
    assert_close(a(observations), a.layers(observations), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "first"),
    [((4, 84, 84), True), ((84, 84, 3), False), ((10, 10, 10), False), ((10, 12, 10), False)],
)
def test_channels_are_first_where_that_axis_is_the_shortest_of_all(shape, first):
    """Also MinAtar's Seaquest, 10x10 with 10 channels, has them last."""
    assert Image.of(spaces.Box(0, 255, shape, np.uint8)).first is first


@settings(deadline=None, max_examples=30)
@given(
    st.sampled_from([(10, 10, 4), (10, 10, 10), (3, 7, 9), (8, 5, 2)]),
    st.sampled_from([bool, np.uint8, np.float32]),
    st.booleans(),
    st.integers(1, 6),
)
def test_the_small_network_is_a_convolution(shape, dtype, dueling, rows):
    """As a product of matrices, with and without autograd: against torch's convolution."""
    space = spaces.Box(0, 255 if dtype is np.uint8 else 1, shape, dtype)
    network = make_network(space, spaces.Discrete(3), dueling=dueling, seed=rows)
    image = Image.of(space)
    observations = drawn(space, rows, seed=rows)
    weight, bias = network.layers[0].weight, network.layers[0].bias
    filters = weight.reshape(16, 3, 3, image.channels).movedim(-1, 1)
    pixels = image.channels_first(observations).float() * image.scale
    features = functional.relu(functional.conv2d(pixels, filters, bias))
    features = features.movedim(1, -1).reshape(rows, -1)
    values = network.head(network.layers[3:](features))

    assert_close(network(observations), values)

    gradient = torch.randn(rows, 3, generator=torch.Generator().manual_seed(1))
    torch.autograd.backward(values, gradient)
    expected = [parameter.grad.clone() for parameter in network.parameters()]
    twin = copy.deepcopy(network)
    perceptron = Perceptron(twin)

    assert_close(perceptron.values(observations), values.detach())
    perceptron.backward(gradient)
    for parameter, wanted in zip(twin.parameters(), expected, strict=True):
        assert_close(parameter.grad, wanted, rtol=1e-4, atol=1e-5)
    values = values.detach()
    for row in range(rows):
        best = perceptron.best_action(observations[row].numpy())
        assert float(values[row, best]) == pytest.approx(float(values[row].max()), abs=1e-5)


@pytest.mark.parametrize(
    ("space", "kind"),
    [
        (ATARI, ConvNetwork),
        (spaces.Box(0, 255, (96, 96, 3), np.uint8), ConvNetwork),
        (MINATAR, QNetwork),
        (spaces.Box(0.0, 1.0, (4, 35, 35)), QNetwork),
        (spaces.Box(0.0, 1.0, (4, 84)), QNetwork),
        (spaces.Discrete(4), QNetwork),
    ],
)
def test_the_network_is_chosen_by_the_space(space, kind):
    network = make_network(space, SIX)

    assert type(network) is kind
    assert network(drawn(space, 2)).shape == (2, 6)


@pytest.mark.parametrize(
    ("space", "options", "message"),
    [
        (spaces.Box(0.0, 1.0, (2, 2, 2)), {}, "observation_space must be Box or Discrete"),
        (spaces.Box(0.0, 1.0, (4, 3, 3, 3)), {}, "observation_space must be Box or Discrete"),
        (spaces.Dict({}), {}, "observation_space must be Box or Discrete"),
        (spaces.Box(0.0, 1.0, (4,)), {"network": "nature"}, "observation_space must be an image"),
        (spaces.Discrete(3), {"network": "small"}, "observation_space must be an image"),
        (MINATAR, {"network": "light"}, "observation_space must be of images large enough.*1x1"),
        (ATARI, {"network": "resnet"}, "network must be one of auto, mlp, nature, light, small"),
        (MINATAR, {"shared_bias": True}, "shared_bias must be False for the network small"),
        (ATARI, {"shared_bias": True, "dueling": True}, "shared_bias must be False with dueling"),
    ],
)
def test_what_fits_no_network_is_refused(space, options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        make_network(space, SIX, **options)


def test_an_image_can_still_be_flattened():
    network = make_network(MINATAR, SIX, network="mlp", hidden_sizes=(8,))

    assert network.layers[0].weight.shape == (8, 400)


def test_a_shared_bias_is_one_number_for_all_actions():
    network = make_network(ATARI, SIX, network="light", shared_bias=True)
    last = network.layers[-1]
    observations = drawn(ATARI, 2)
    before = network(observations).detach()

    with torch.no_grad():
        last.bias += 2.0

    assert last.bias.shape == (1,)
    assert_close(network(observations).detach(), before + 2.0)


def test_the_last_layer_computes_in_full_precision():
    network = make_network(ATARI, SIX, network="light", seed=3)
    with torch.no_grad():
        network.layers[-1].bias += 100.0  # bfloat16 would round to halves
    observations = drawn(ATARI, 8)

    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        values = network(observations)

    assert values.dtype == torch.float32
    with torch.no_grad():
        assert_close(values, network(observations), rtol=0.0, atol=0.02)


def test_seeds_fix_the_weights_and_leave_the_global_generator_alone():
    before = torch.random.get_rng_state()

    def filters(seed):
        layers = [Convolution(4, 8, 4)]
        return ConvNetwork(ATARI, 2, convolutions=layers, units=8, seed=seed).layers[0].weight

    assert torch.equal(filters(1), filters(1))
    assert not torch.equal(filters(1), filters(2))
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("space", "learner"), [(ATARI, AutogradLearner), (MINATAR, PerceptronLearner)]
)
@pytest.mark.slow
def test_the_agent_trains_them_its_way(space, learner):
    import prioritized_replay as per
    from prioritized_replay.dqn import DQN

    memory = per.ReplayBuffer.for_spaces(space, SIX, 64, seed=0)
    agent = DQN(
        space, SIX, memory, network="auto", warmup=8, batch_size=8, seed=0, learning_rate=1e-3
    )
    space.seed(0)
    obs = [space.sample() for _ in range(16)]
    for k, each in enumerate(obs):
        memory.add(each, k % 6, float(k % 2), obs[k - 1], terminated=True)
    losses = []
    for _ in range(60):
        agent.optimize()
        losses.append(float(agent.last_td_errors.abs().mean()))

    assert isinstance(agent._learner, learner)
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:10])
    assert agent.act(np.stack(obs[:3])).shape == (3,)
    assert agent.act(obs[0], greedy=True) == agent.act(np.stack(obs[:1]), greedy=True)[0]
