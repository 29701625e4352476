"""What an agent refuses: bad settings, parts that do not fit, updates that are not finite.

Nothing may have changed when it does.
"""

import copy
import math

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

import prioritized_replay as per
from prioritized_replay.dqn import DQN

BOX = spaces.Box(-1.0, 1.0, (4,))
THREE = spaces.Discrete(3)


def memory_of(observation_space=BOX, action_space=THREE, capacity=64, **options):
    return per.ReplayBuffer.for_spaces(observation_space, action_space, capacity, seed=0, **options)


def agent_of(memory=None, **options):
    memory = memory_of() if memory is None else memory
    return DQN(BOX, THREE, memory, **{"warmup": 8, "batch_size": 8, **options})


def fill(memory, rows=32, reward=None):
    rng = np.random.default_rng(0)
    obs = rng.normal(size=(rows, 4)).astype(np.float32)
    memory.extend(
        {
            "obs": obs,
            "action": rng.integers(3, size=rows),
            "reward": np.ones(rows, np.float32) if reward is None else reward,
            "next_obs": obs,
            "terminated": np.zeros(rows, bool),
        }
    )
    return memory


@pytest.mark.parametrize("name", ["batch_size", "warmup", "target_period"])
@pytest.mark.parametrize("value", [0, -1, 8.0, 2.5, True, "8", np.float64(8), math.nan], ids=repr)
def test_counts_are_integers(name, value):
    with pytest.raises(ValueError, match=rf"^{name} must be an integer >= 1, got "):
        agent_of(**{name: value})


@pytest.mark.parametrize("name", ["batch_size", "warmup", "target_period"])
@pytest.mark.slow
def test_counts_may_be_numpys(name):
    agent_of(**{name: np.int32(9)})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, "seed must be an integer >= 0, got -1"),
        ({"seed": 1.0}, "seed must be an integer >= 0, got 1.0"),
        ({"seed": None}, "seed must be an integer >= 0, got None"),
        ({"tau": math.nan}, r"tau must be in \(0, 1\], got nan"),
        ({"tau": 1.5}, r"tau must be in \(0, 1\], got 1.5"),
        ({"tau": "0.5"}, r"tau must be in \(0, 1\], got '0.5'"),
        ({"gradient_clip": math.nan}, "gradient_clip must be > 0, got nan"),
        ({"gradient_clip": -1.0}, "gradient_clip must be > 0, got -1.0"),
        ({"learning_rate": 0.0}, "learning_rate must be > 0, got 0.0"),
        ({"learning_rate": -1e-3}, "learning_rate must be >= 0, got -0.001"),
        ({"learning_rate": math.nan}, "learning_rate must be >= 0 and finite, got nan"),
        ({"learning_rate": math.inf}, "learning_rate must be >= 0 and finite, got inf"),
        ({"learning_rate": lambda step: -1.0}, "learning_rate at step 0 must be >= 0, got -1.0"),
        ({"epsilon": 1.5}, r"epsilon must be in \[0, 1\], got 1.5"),
        ({"epsilon": math.nan}, r"epsilon must be in \[0, 1\], got nan"),
        ({"epsilon": lambda step: 2.0}, r"epsilon at step 0 must be in \[0, 1\], got 2.0"),
        ({"beta": -0.1}, r"beta must be in \[0, 1\], got -0.1"),
        ({"beta": lambda step: None}, r"beta at step 0 must be in \[0, 1\], got None"),
        ({"optimizer_eps": math.nan}, "optimizer_eps must be >= 0 and finite, got nan"),
        ({"optimizer_eps": -1.0}, "optimizer_eps must be >= 0, got -1.0"),
        ({"optimizer": "rmsprop", "optimizer_eps": math.inf}, "optimizer_eps must be >= 0"),
        ({"optimizer": None}, "optimizer must be a name or an Optimizer, got NoneType"),
        ({"noisy": True}, "noisy needs an online_network"),
    ],
)
def test_settings_out_of_bounds_are_refused(options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        agent_of(**options)


@pytest.mark.parametrize("name", ["epsilon", "beta", "learning_rate"])
@pytest.mark.slow
def test_schedules_that_leave_their_bounds_are_refused_when_they_do(name):
    agent = agent_of(fill(memory_of()), **{name: lambda step: 0.5 if step < 2 else -1.0})
    online = copy.deepcopy(agent.online_network.state_dict())
    if name == "epsilon":
        agent.actions = 2
        call = agent.adjust_epsilon
    else:
        agent.updates = 2
        call = agent.optimize

    with pytest.raises(ValueError, match=rf"^{name} at step 2 must be .*, got -1.0"):
        call()

    assert agent.updates == (0 if name == "epsilon" else 2)
    assert agent.epsilon == (0.5 if name == "epsilon" else 1.0)
    for key, value in agent.online_network.state_dict().items():
        assert torch.equal(value, online[key])


# Parts that do not fit


def test_a_warmup_beyond_the_capacity_is_refused():
    with pytest.raises(ValueError, match=r"^warmup must be <= the capacity .*\(64\), got 65"):
        agent_of(warmup=65)
    agent_of(warmup=64)


def test_the_default_warmup_is_refused_when_learning_begins():
    agent = DQN(BOX, THREE, memory_of(capacity=100))  # to act only, it may stay
    agent.act(np.zeros(4, np.float32))
    with pytest.raises(ValueError, match=r"capacity of memory_buffer \(100\), got 1000: the agent"):
        agent.optimize()


def test_a_warmup_set_later_is_looked_at_too():
    agent = agent_of()
    agent.warmup = 100
    with pytest.raises(ValueError, match=r"^warmup must be <= the capacity"):
        agent.optimize()


def test_draws_without_replacement_need_rows_enough():
    sampler = per.Proportional(draw="without_replacement")
    with pytest.raises(ValueError, match=r"^batch_size must be <= the capacity .*\(64\)"):
        agent_of(memory_of(sampler=sampler), batch_size=65)
    with pytest.raises(ValueError, match=r"^warmup must be >= batch_size \(16\)"):
        agent_of(memory_of(sampler=sampler), batch_size=16)
    agent_of(memory_of(), batch_size=65)  # with replacement it is possible


def net(inputs=4, outputs=3):
    return nn.Linear(inputs, outputs)


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1)


def test_an_optimizer_holds_the_networks_parameters_and_no_others():
    network, other = net(), net()
    message = "^optimizer must hold the parameters of online_network and no others, got one with "
    for parameters, found in (
        (other.parameters(), "2 foreign parameters, weight is missing"),
        ([network.weight], "0 foreign parameters, bias is missing"),
        ([*network.parameters(), other.bias], "1 foreign parameters"),
    ):
        with pytest.raises(ValueError, match=message + found):
            agent_of(online_network=network, optimizer=sgd(parameters))
    agent_of(online_network=network, optimizer=sgd(network.parameters()))


def test_an_optimizer_may_leave_out_frozen_parameters():
    network = net()
    network.weight.requires_grad_(False)
    agent = agent_of(
        fill(memory_of()), online_network=network, optimizer=sgd([network.bias]), loss="squared"
    )
    before = network.weight.clone()
    agent.optimize()
    assert torch.equal(network.weight, before)


def test_an_optimizer_that_needs_a_closure_is_refused():
    network = net()
    with pytest.raises(ValueError, match=r"^optimizer must step without a closure, which LBFGS"):
        agent_of(online_network=network, optimizer=torch.optim.LBFGS(network.parameters()))


@pytest.mark.parametrize(
    "options",
    [{"network": "mlp"}, {"hidden_sizes": (4,)}, {"dueling": True}, {"shared_bias": True}],
)
def test_options_of_a_network_come_without_one(options):
    (name,) = options
    with pytest.raises(ValueError, match=rf"^{name} is for the network that the agent makes"):
        agent_of(online_network=net(), **options)


def test_an_eps_comes_without_an_optimizer():
    network = net()
    with pytest.raises(ValueError, match=r"^optimizer_eps must be None with an optimizer of your"):
        agent_of(online_network=network, optimizer=sgd(network.parameters()), optimizer_eps=1e-3)


class Returning(nn.Module):
    def __init__(self, change):
        super().__init__()
        self.out, self.change = net(), change

    def forward(self, obs):
        return self.change(self.out(obs))


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (
            net(outputs=2),
            r"must return floats of shape \(B, 3\).*float32 of shape \(2, 2\)",
        ),
        (net(outputs=4), r"must return floats of shape \(B, 3\).*of shape \(2, 4\)"),
        (net(inputs=5), r"must take the observations .*float32\[2, 4\], but raised RuntimeError"),
        (net().double(), "must take the observations .*but raised RuntimeError"),
        (Returning(lambda q: q[0]), r"must return floats of shape \(B, 3\).*of shape \(3,\)"),
        (Returning(lambda q: q[..., None]), r"must return floats of shape.*\(2, 3, 1\)"),
        (Returning(lambda q: q.long()), "must return floats of shape.*got torch.int64"),
        (Returning(lambda q: (q, None)), "must return a tensor of action values, got tuple"),
        (Returning(lambda q: q.sum(0, keepdim=True)), r"must return floats of.*of shape \(1, 3\)"),
        (lambda obs: obs, "must be a torch.nn.Module, got function"),
    ],
)
def test_a_network_that_does_not_fit_the_spaces_is_refused(network, message):
    with pytest.raises(ValueError, match=f"^online_network {message}"):
        agent_of(online_network=network)


def test_looking_at_a_network_leaves_it_and_the_generator_alone():
    network = nn.Sequential(net(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), net(8, 3))
    state = copy.deepcopy(network.state_dict())
    generator = torch.random.get_rng_state()

    agent_of(online_network=network)

    assert torch.equal(torch.random.get_rng_state(), generator)
    for key, value in network.state_dict().items():
        assert torch.equal(value, state[key])


def test_lazy_layers_get_their_sizes():
    network = nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(3))
    agent = agent_of(fill(memory_of()), online_network=network)
    agent.optimize()
    assert agent.updates == 1


@pytest.mark.parametrize(
    ("observation_space", "action_space", "message"),
    [
        (spaces.Box(-1, 1, (5,)), THREE, r"obs must have shape \(4,\), got Field\(shape=\(5,\)"),
        (spaces.Discrete(4), THREE, r"obs must have shape \(4,\), got Field\(shape=\(\)"),
        (spaces.Dict({"a": BOX}), THREE, r"obs must have shape \(4,\)"),
        (BOX, spaces.Box(-1, 1, (2,)), "memory_buffer must have one integer per action"),
        (BOX, spaces.MultiDiscrete([2, 2]), "memory_buffer must have one integer per action"),
    ],
)
def test_a_buffer_for_other_spaces_is_refused(observation_space, action_space, message):
    with pytest.raises(ValueError, match=message):
        agent_of(memory_of(observation_space, action_space))


def test_a_buffer_without_the_parts_of_nested_observations_is_refused():
    nested = spaces.Dict({"a": BOX, "b": BOX})
    with pytest.raises(ValueError, match=r"^memory_buffer must fit observation_space: obs must be"):
        DQN(nested, THREE, memory_of(), online_network=net(), warmup=8)
    with pytest.raises(ValueError, match=r"a mapping with keys \['a', 'b'\], got \['a'\]"):
        DQN(nested, THREE, memory_of(spaces.Dict({"a": BOX})), online_network=net(), warmup=8)


# Updates that are not finite


def snapshot(agent):
    """Return everything that an update may change, as plain values."""
    return copy.deepcopy(
        {
            "online": dict(agent.online_network.state_dict()),
            "target": dict(agent.target_network.state_dict()),
            "optimizer": agent.optimizer.state_dict(),
            "counts": (agent.updates, agent.actions, agent.epsilon),
            "priorities": agent.memory_buffer.priorities(np.arange(20)).tolist(),
            "latest": (agent.last_td_errors, agent.last_weights),
        }
    )


def assert_same(one, other):
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key, value in one.items():
            assert_same(value, other[key])
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other


def batch_normed():
    return nn.Sequential(net(4, 8), nn.BatchNorm1d(8), nn.ReLU(), net(8, 3))


NETWORKS = {"own": lambda: None, "given": lambda: net(4, 3), "batch norm": batch_normed}


def put_nan(name, row, value=math.nan):
    """Return a memory of 20 rows with one bad number."""
    columns = {
        "obs": np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32),
        "action": np.arange(20) % 3,
        "reward": np.ones(20, np.float32),
        "next_obs": np.zeros((20, 4), np.float32),
        "terminated": np.zeros(20, bool),
    }
    columns[name][row] = value
    memory = memory_of(spaces.Box(-np.inf, np.inf, (4,)))
    memory.extend(columns)
    return memory


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("loss", ["huber", "squared"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("reward", math.nan),
        ("reward", math.inf),
        ("obs", math.nan),
        ("next_obs", math.nan),
        ("obs", -math.inf),
    ],
)
@pytest.mark.slow
def test_an_error_that_is_not_finite_changes_nothing_and_names_the_transition(
    kind, loss, name, value
):
    agent = agent_of(
        put_nan(name, 15, value), online_network=NETWORKS[kind](), tau=0.5, loss=loss, seed=1
    )
    memory = agent.memory_buffer
    agent.learn(memory.get(np.arange(10)))
    before = snapshot(agent)

    if not (kind == "batch norm" and name == "obs"):  # there one row spoils them all
        with pytest.raises(ValueError, match=r"^td_errors must be finite, got .* with ids 15\. "):
            agent.learn(memory.get(np.arange(20)))
    seen = []

    def optimize_until_drawn():
        while True:
            seen.append(snapshot(agent))
            agent.optimize()

    with pytest.raises(ValueError, match="Nothing was changed") as caught:
        optimize_until_drawn()
    before = seen[-1]

    assert "15" in str(caught.value)
    assert "memory_buffer.get(ids)" in str(caught.value)
    assert_same(snapshot(agent), before)
    assert agent.is_finite()
    agent.learn(memory.get(np.arange(10)))  # and it goes on
    agent.state_dict()


@pytest.mark.parametrize("kind", ["own", "given"])
def test_many_transitions_are_not_all_listed(kind):
    agent = agent_of(
        fill(memory_of(), reward=np.full(32, np.inf, np.float32)), online_network=NETWORKS[kind]()
    )
    with pytest.raises(ValueError, match=r"with ids 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 22 more\. "):
        agent.learn(agent.memory_buffer.get(np.arange(32)))


@pytest.mark.parametrize("kind", ["own", "given"])
def test_a_gradient_beyond_float32_changes_nothing(kind):
    agent = agent_of(
        fill(memory_of(), reward=np.full(32, 1e30, np.float32)),
        online_network=NETWORKS[kind](), loss="squared", gradient_clip=None,
    )  # fmt: skip
    before = snapshot(agent)

    with pytest.raises(ValueError, match=r"^the gradient must be finite, got one that is not"):
        agent.optimize()

    assert_same(snapshot(agent), before)


def test_a_batch_without_ids_is_named_by_rows():
    agent = agent_of(put_nan("reward", 15))
    batch = agent.memory_buffer.get(np.arange(10, 20))
    del batch.ids
    with pytest.raises(ValueError, match=r"for transitions with rows 5\. "):
        agent.learn(batch)


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_network_that_is_not_finite_is_known(kind):
    agent = agent_of(fill(memory_of()), online_network=NETWORKS[kind]())
    assert agent.is_finite()
    for network in (agent.online_network, agent.target_network):
        parameter = list(network.parameters())[-1]
        with torch.no_grad():
            parameter[0] = math.inf
        assert not agent.is_finite()
        with torch.no_grad():
            parameter[0] = 0.0
    assert agent.is_finite()
    with torch.no_grad():
        parameter[0] = math.nan
        list(agent.online_network.parameters())[-1][0] = math.nan
    with pytest.raises(ValueError, match="the network has diverged"):
        agent.optimize()
    assert agent.updates == 0
