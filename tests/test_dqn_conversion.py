"""One conversion of observations and actions, for acting, learning and evaluation."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn
from torch.testing import assert_close

import prioritized_replay as per
from prioritized_replay.dqn import DQN
from prioritized_replay.dqn.conversion import Conversion
from prioritized_replay.dqn.networks import make_network
from prioritized_replay.training import evaluate

BOX = spaces.Box(-1.0, 1.0, (4,))
THREE = spaces.Discrete(3)
PAIR = spaces.Dict(
    {
        "near": spaces.Box(-1.0, 1.0, (4,), np.float64),
        "far": spaces.Tuple((spaces.Discrete(5, start=2), spaces.Box(0, 255, (2, 2), np.uint8))),
    }
)


class Flat(nn.Module):
    """Any observations, flattened; remembers what it was given."""

    def __init__(self, inputs, actions=3):
        super().__init__()
        self.out = nn.Linear(inputs, actions)
        self.seen = []

    def forward(self, observations):
        self.seen.append(described(observations))
        rows = [
            leaf.flatten(1) if leaf.ndim > 1 else leaf[:, None] for leaf in leaves(observations)
        ]
        return self.out(torch.cat([row.float() for row in rows], 1))


def leaves(nested):
    if isinstance(nested, torch.Tensor):
        return [nested]
    parts = nested.values() if isinstance(nested, dict) else nested
    return [leaf for part in parts for leaf in leaves(part)]


def described(nested):
    """Return structure, dtypes and the shape of one observation."""
    if isinstance(nested, torch.Tensor):
        return nested.dtype, tuple(nested.shape[1:])
    if isinstance(nested, dict):
        return {key: described(part) for key, part in nested.items()}
    return tuple(map(described, nested))


def trained(observation_space, action_space, network=None, steps=12, **options):
    """Return an agent after some steps and updates, and the actions that it took."""
    memory = per.ReplayBuffer.for_spaces(observation_space, action_space, 64, seed=0)
    agent = DQN(
        observation_space, action_space, memory, online_network=network, warmup=8, batch_size=8,
        **{"epsilon": 0.5, **options},
    )  # fmt: skip
    observation_space.seed(0)
    actions = []
    obs = observation_space.sample()
    for _ in range(steps):
        actions.append(agent.act(obs))
        following = observation_space.sample()
        memory.add(obs, actions[-1], 1.0, following, terminated=False)
        obs = following
        agent.optimize()
    return agent, actions


@pytest.mark.parametrize("start", [0, 1, -2, 7])
@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.int64])
@pytest.mark.parametrize("given", [False, True], ids=["own", "given"])
@pytest.mark.slow
def test_actions_of_every_dtype_and_start_are_learnt_from(dtype, start, given):
    if start < 0 and np.dtype(dtype).kind == "u":
        pytest.skip("there are no such actions")
    space = spaces.Discrete(3, start=start, dtype=dtype)

    agent, actions = trained(BOX, space, Flat(4) if given else None)

    assert agent.updates == 5
    assert set(actions) <= set(range(start, start + 3))
    assert all(space.contains(action) for action in actions)
    assert agent.memory_buffer.fields["action"].dtype == dtype


@pytest.mark.parametrize("given", [False, True], ids=["own", "given"])
def test_actions_from_a_start_learn_what_actions_from_zero_do(given):
    results = []
    for start in (0, 5):
        torch.manual_seed(0)
        agent, actions = trained(
            BOX, spaces.Discrete(3, start=start), Flat(4) if given else None, seed=1
        )
        results.append((np.array(actions) - start, agent.online_network.state_dict()))

    np.testing.assert_array_equal(results[0][0], results[1][0])
    assert_close(results[0][1], results[1][1], rtol=0, atol=0)


def test_actions_together_start_there_too():
    agent, _ = trained(BOX, spaces.Discrete(3, start=5), epsilon=1.0)
    observations = np.zeros((200, 4), np.float32)

    assert set(agent.act(observations).tolist()) == {5, 6, 7}
    (best,) = set(agent.act(observations, greedy=True).tolist())
    assert best == agent.act(observations[0], greedy=True)
    assert 5 <= best <= 7


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.uint16, np.int32, np.uint64, np.int64])
@pytest.mark.parametrize("start", [0, 3])
@pytest.mark.parametrize("given", [False, True], ids=["own", "given"])
def test_discrete_observations_of_every_dtype_and_start(dtype, start, given):
    space = spaces.Discrete(4, start=start, dtype=dtype)
    network = Flat(1) if given else None

    agent, _ = trained(space, THREE, network)
    together = agent.act(np.arange(start, start + 4), greedy=True)

    assert agent.updates == 5
    alone = [agent.act(k, greedy=True) for k in range(start, start + 4)]
    assert alone == together.tolist()
    if given:
        assert set(network.seen) == {(torch.int64, ())}
    with pytest.raises(ValueError, match=rf"obs must be in \[{start}, {start + 3}\]"):
        agent.act(start + 4)


GIVEN_AS = {
    "float16": torch.float32,
    "float32": torch.float32,
    "float64": torch.float32,
    ">f8": torch.float32,
    "bool": torch.bool,
    "uint8": torch.uint8,
    "int8": torch.int8,
    "int16": torch.int16,
    "uint16": torch.int32,
    "uint32": torch.int64,
    ">i4": torch.int32,
}


@pytest.mark.parametrize("dtype", GIVEN_AS)
def test_a_network_sees_one_dtype_whatever_it_is_used_for(dtype):
    space = spaces.Box(0, 1, (4,), np.dtype(dtype).type)
    network = Flat(4)
    agent, _ = trained(space, THREE, network)
    one = np.array([0, 1, 1, 0], dtype)

    agent.act(one, greedy=True)
    agent.act(np.stack([one, one]), greedy=True)
    agent.learn(agent.memory_buffer.get(np.arange(4)))
    agent.learn(agent.memory_buffer.get(np.arange(4)).to_torch(keep_float64=True))

    assert set(network.seen) == {(GIVEN_AS[dtype], (4,))}


@pytest.mark.parametrize("dtype", ["float16", "float64", "bool", "uint8", "int16", "uint16"])
def test_the_agents_own_network_acts_alone_as_together_on_any_dtype(dtype):
    space = spaces.Box(0, 1, (4,), dtype)
    agent, _ = trained(space, THREE)
    rows = np.random.default_rng(0).integers(2, size=(16, 4)).astype(dtype)

    assert [agent.act(row, greedy=True) for row in rows] == agent.act(rows, greedy=True).tolist()


def test_nested_observations_reach_an_own_network_as_the_space_is_nested():
    network = Flat(4 + 1 + 4)
    agent, _ = trained(PAIR, THREE, network)
    obs = PAIR.sample()
    several = {
        "near": np.stack([obs["near"]] * 3),
        "far": tuple(np.stack([part] * 3) for part in obs["far"]),
    }

    together = agent.act(several, greedy=True)

    assert agent.updates == 5
    assert together.tolist() == [agent.act(obs, greedy=True)] * 3
    assert agent.act(several).shape == (3,)
    (seen,) = {repr(each) for each in network.seen}
    expected = {  # Gymnasium sorts the keys
        "far": ((torch.int64, ()), (torch.uint8, (2, 2))),
        "near": (torch.float32, (4,)),
    }
    assert seen == repr(expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda obs: obs["near"], r"obs must be a mapping with keys \['far', 'near'\]"),
        (lambda obs: {"near": obs["near"]}, r"obs must be a mapping with keys .*got \['near'\]"),
        (lambda obs: {**obs, "far": obs["far"][:1]}, r"obs\['far'\] must be a tuple of 2 parts"),
        (lambda obs: {**obs, "near": np.zeros(3)}, r"obs\['near'\] must have shape \(4,\)"),
        (lambda obs: {**obs, "near": np.zeros((2, 4))}, "obs must have the same number of env"),
        (
            lambda obs: {**obs, "far": (9, obs["far"][1])},
            r"obs\['far'\]\[0\] must be in \[2, 6\], got 9",
        ),
        (
            lambda obs: {**obs, "far": (3, np.full((2, 2), 0.5))},
            r"obs\['far'\]\[1\] must be of an integer dtype",
        ),
    ],
)
def test_nested_observations_that_do_not_fit_are_refused_by_name(change, message):
    agent, _ = trained(PAIR, THREE, Flat(9))
    before = agent.actions

    with pytest.raises(ValueError, match=f"^{message}"):
        agent.act(change(PAIR.sample()))

    assert agent.actions == before


def test_learning_from_floats_in_an_integer_space_is_refused():
    agent, _ = trained(spaces.Box(0, 255, (4,), np.uint8), THREE)
    batch = agent.memory_buffer.get([0, 1])
    batch.obs = batch.obs / 255.0

    with pytest.raises(ValueError, match=r"^obs must be of uint8, got float64"):
        agent.learn(batch)
    with pytest.raises(ValueError, match=r"^obs must be of uint8, got torch.float32"):
        agent.learn(batch.to_torch())


def test_learning_from_actions_that_are_not_integers_is_refused():
    agent, _ = trained(BOX, THREE)
    batch = agent.memory_buffer.get([0, 1])
    batch.action = batch.action.astype(np.float32)

    with pytest.raises(ValueError, match=r"^action must be of an integer dtype, got float32"):
        agent.learn(batch)
    with pytest.raises(ValueError, match=r"^action must be of an integer dtype, got torch.float32"):
        agent.learn(batch.to_torch())


class Counting(gymnasium.Env):
    """Ten steps; the reward is 1 for the action that the observation names."""

    def __init__(self, nested=True):
        self.nested = nested
        self.observation_space = PAIR if nested else spaces.Discrete(3, start=4, dtype=np.int32)
        self.action_space = spaces.Discrete(3, start=4, dtype=np.int32)
        self._steps = 0

    def _observation(self):
        self._wanted = 4 + int(self.np_random.integers(3))
        if not self.nested:
            return np.int32(self._wanted)
        near = np.zeros(4)
        near[self._wanted - 4] = 1.0
        return {"near": near, "far": (2, np.zeros((2, 2), np.uint8))}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._steps = 0
        return self._observation(), {}

    def step(self, action):
        assert self.action_space.contains(action)
        reward = float(action == self._wanted)
        self._steps += 1
        return self._observation(), reward, False, self._steps == 10, {}


@pytest.fixture
def _registered():
    for name, nested in (("Nested-v0", True), ("Started-v0", False)):
        gymnasium.register(name, lambda nested=nested: Counting(nested), disable_env_checker=True)
    yield
    for name in ("Nested-v0", "Started-v0"):
        del gymnasium.registry[name]


@pytest.mark.usefixtures("_registered")
@pytest.mark.parametrize("num_envs", [1, 3])
def test_evaluation_converts_alike(num_envs):
    network = Flat(9)
    with torch.no_grad():  # reads the wanted action off the part "near"
        network.out.weight.zero_()
        network.out.weight[:, 5:8] = torch.eye(3)
        network.out.bias.zero_()

    evaluation = evaluate(network, "Nested-v0", 4, seed=0, num_envs=num_envs)

    assert evaluation.returns.tolist() == [10.0] * 4
    (seen,) = {repr(each) for each in network.seen}
    assert "torch.float64" not in seen


@pytest.mark.usefixtures("_registered")
@pytest.mark.parametrize("epsilon", [0.0, 1.0])
def test_evaluation_counts_actions_from_their_start(epsilon):
    env = Counting(nested=False)
    network = make_network(env.observation_space, env.action_space, hidden_sizes=())
    with torch.no_grad():
        network.layers[0].weight.copy_(torch.eye(3))
        network.layers[0].bias.zero_()

    evaluation = evaluate(network, "Started-v0", 20, seed=0, epsilon=epsilon)

    if epsilon == 0.0:
        assert evaluation.mean == 10.0
    else:  # one third of 200 steps, s.d. of the mean 0.33
        assert evaluation.mean == pytest.approx(10 / 3, abs=1.2)


def test_blank_observations_lie_in_their_space():
    conversion = Conversion(PAIR, THREE)

    blank = conversion.blank(2)
    first = {"near": blank["near"][0], "far": (blank["far"][0][0], blank["far"][1][0])}

    assert PAIR.contains(first)
    assert conversion.rows(conversion.observations(blank)[0]) == 2
