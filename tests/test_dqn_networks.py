"""Networks: spaces, the dueling head, seeds."""

import pytest
import torch
from gymnasium import spaces
from torch.testing import assert_close

from prioritized_replay.dqn.networks import QNetwork, make_network

BOX = spaces.Box(-1.0, 1.0, (2, 3))


@pytest.mark.slow
def test_box_is_flattened_whatever_its_dtype():
    network = QNetwork(BOX, 4, hidden_sizes=(8,))
    floats = torch.arange(12.0).reshape(2, 2, 3)

    values = network(floats)

    assert values.shape == (2, 4)
    assert_close(values, network(floats.to(torch.uint8)))
    assert_close(values, network(floats.double()))
    assert_close(values, network.layers(floats.reshape(2, 6)))


def test_discrete_is_one_hot_from_its_start():
    network = QNetwork(spaces.Discrete(3, start=5), 2, hidden_sizes=())
    weight, bias = network.layers[0].weight.detach(), network.layers[0].bias.detach()

    values = network(torch.tensor([5, 7])).detach()

    assert_close(values, torch.stack([weight[:, 0] + bias, weight[:, 2] + bias]))


def test_dueling_advantages_are_mean_centred():
    network = QNetwork(BOX, 3, hidden_sizes=(), dueling=True)
    observation = torch.ones(1, 2, 3)
    raw = network.layers(observation.reshape(1, 6)).detach()[0]

    values = network(observation).detach()[0]

    assert raw.shape == (4,)
    assert_close(values.mean(), raw[0])
    assert_close(values - values.mean(), raw[1:] - raw[1:].mean())


def test_seed_fixes_the_weights_and_leaves_the_global_generator_alone():
    before = torch.random.get_rng_state()

    first, same, other = (QNetwork(BOX, 2, seed=seed) for seed in (1, 1, 2))

    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(first.layers[0].weight, same.layers[0].weight)
    assert not torch.equal(first.layers[0].weight, other.layers[0].weight)


def test_continuous_actions_are_refused_in_one_line():
    with pytest.raises(ValueError, match=r"^action_space must be Discrete.*got Box\(.*\)$"):
        make_network(BOX, spaces.Box(-1.0, 1.0, (1,)))


@pytest.mark.parametrize(
    ("observation_space", "action_space", "settings", "message"),
    [
        (spaces.Dict({"a": BOX}), spaces.Discrete(2), {}, "observation_space must be Box or"),
        (BOX, spaces.Discrete(2), {"hidden_sizes": (8, 0)}, "hidden_sizes must be >= 1, got"),
    ],
)
def test_what_cannot_work_is_refused(observation_space, action_space, settings, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        make_network(observation_space, action_space, **settings)
