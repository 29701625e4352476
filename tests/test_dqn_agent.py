"""The agent: what an update learns, what it writes back, how it acts."""

import copy
import io
import math

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn
from torch.testing import assert_close

import prioritized_replay as per
from prioritized_replay.dqn import DQN
from prioritized_replay.dqn.fast.adam import FlatAdam
from prioritized_replay.dqn.rmsprop import CentredRMSProp

BOX = spaces.Box(-1.0, 1.0, (3,))
TWO = spaces.Discrete(2)


@pytest.fixture(autouse=True)
def _one_thread():
    """Two threads on these small networks only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def filled(sampler=None, rows=200, seed=5, **settings):
    """Return a memory of random transitions."""
    memory = per.ReplayBuffer.for_spaces(BOX, TWO, 256, sampler=sampler, seed=seed, **settings)
    rng = np.random.default_rng(seed)
    obs = rng.normal(size=(rows, 3)).astype(np.float32)
    memory.extend(
        {
            "obs": obs,
            "action": rng.integers(2, size=rows),
            "reward": rng.normal(size=rows).astype(np.float32),
            "next_obs": np.roll(obs, 1, axis=0),
            "terminated": rng.random(rows) < 0.1,
        }
    )
    return memory


def agent_on(memory, **settings):
    sizes = {} if "online_network" in settings else {"hidden_sizes": (16,)}
    return DQN(BOX, TWO, memory, **{**sizes, "warmup": 1, **settings})


class OneParameter(nn.Module):
    """Action values theta * x and 0."""

    def __init__(self, theta):
        super().__init__()
        self.theta = nn.Parameter(torch.tensor([theta]))

    def forward(self, x):
        return torch.cat([self.theta * x, 0.0 * x], dim=1)


@pytest.mark.slow
def test_priority_written_back_is_the_unweighted_error_from_before_the_update():
    """On one parameter, by hand: neither the weight nor the step taken may show in it."""
    space = spaces.Box(-10.0, 10.0, (1,))
    memory = per.ReplayBuffer.for_spaces(
        space, TWO, 8, sampler=per.Proportional(alpha=1.0, eps=0.0), seed=0
    )
    x, reward = np.array([[1.0], [2.0]], np.float32), np.array([1.0, 10.0], np.float32)
    memory.extend(
        {"obs": x, "action": [0, 0], "reward": reward, "next_obs": x, "terminated": [True] * 2},
        td_errors=[1.0, 3.0],
    )
    network = OneParameter(0.5)
    agent = DQN(
        space, TWO, memory, online_network=network, batch_size=64, warmup=1, loss="squared",
        gradient_clip=None, optimizer=torch.optim.SGD(network.parameters(), lr=0.125),
        tau=1.0,
    )  # fmt: skip

    agent.optimize()

    # delta = reward - 0.5 x, for a batch that holds both rows under weights 1 and 1/3.
    assert sorted(set(agent.last_weights.tolist())) == pytest.approx([1 / 3, 1.0])
    np.testing.assert_allclose(memory.priorities([0, 1]), [0.5, 9.0], rtol=1e-6)
    # theta moved by lr * mean(w delta x)
    delta = agent.last_td_errors
    drawn_x = torch.where(delta == 0.5, 1.0, 2.0)
    step = 0.125 * (agent.last_weights * delta * drawn_x).mean()
    assert_close(network.theta.detach(), 0.5 + step.reshape(1))


def test_discount_of_the_batch_decides_what_bootstraps():
    memory = per.ReplayBuffer.for_spaces(BOX, TWO, 8, n_step=2, gamma=0.5)
    zero, one = np.zeros(3, np.float32), np.ones(3, np.float32)
    memory.add(zero, 0, 1.0, one, terminated=False, truncated=True)
    memory.add(zero, 0, 1.0, one, terminated=True, truncated=False)
    memory.add(zero, 0, 1.0, zero, terminated=False)
    memory.add(zero, 0, 1.0, one, terminated=False)
    agent = agent_on(memory, double=False)
    with torch.no_grad():
        q = float(agent.online_network(torch.zeros(1, 3))[0, 0])
        after = float(agent.target_network(torch.ones(1, 3)).max())

    errors = agent.learn(memory.get([0, 1, 2]))

    truncated, terminated, two_steps = 1.0 + 0.5 * after - q, 1.0 - q, 1.5 + 0.25 * after - q
    assert_close(errors, torch.tensor([truncated, terminated, two_steps]))


def test_double_is_one_option():
    memory = filled()
    errors = {}
    for double in (False, True):
        agent = agent_on(memory, double=double)
        with torch.no_grad():
            for parameter in agent.target_network.parameters():
                parameter.neg_()
        online, target = copy.deepcopy(agent.online_network), agent.target_network
        batch = memory.get(np.arange(100))
        errors[double] = agent.learn(batch)
        with torch.no_grad():
            value = target(torch.from_numpy(batch.next_obs))
            selector = online(torch.from_numpy(batch.next_obs)) if double else value
            chosen = value[torch.arange(100), selector.argmax(1)]
            q = online(torch.from_numpy(batch.obs))[torch.arange(100), batch.action]
        expected = torch.from_numpy(batch.reward + batch.discount * chosen.numpy()) - q
        assert_close(errors[double], expected)

    assert (errors[True] < errors[False]).any()


def test_nothing_happens_before_warmup():
    memory = filled(rows=9)
    agent = agent_on(memory, warmup=10)
    before = copy.deepcopy(agent.online_network.state_dict())

    agent.optimize()

    assert agent.updates == 0
    assert agent.last_loss is None
    assert_close(agent.online_network.state_dict(), before)
    memory.add(np.zeros(3), 0, 0.0, np.zeros(3), terminated=True)
    agent.optimize()
    assert agent.updates == 1


def test_update_moves_towards_the_target():
    agent = agent_on(filled(), hidden_sizes=(64, 64), learning_rate=3e-3, target_period=10_000)
    batch = agent.memory_buffer.get(np.arange(200))
    first = agent.learn(batch).abs().mean()
    for _ in range(300):
        last = agent.learn(batch).abs().mean()

    assert last < 0.5 * first


def test_soft_target_moves_by_tau():
    agent = agent_on(filled(), tau=0.25)
    before = [p.clone() for p in agent.target_network.parameters()]

    agent.optimize()

    online = list(agent.online_network.parameters())
    for old, new, now in zip(before, online, agent.target_network.parameters(), strict=True):
        assert not torch.equal(old, new)
        assert_close(now, 0.75 * old + 0.25 * new.detach())


def test_hard_target_is_copied_every_period():
    agent = agent_on(filled(), target_period=3)
    start = copy.deepcopy(agent.target_network.state_dict())
    for updates in range(1, 7):
        agent.optimize()
        if updates == 2:
            assert_close(agent.target_network.state_dict(), start)
        if updates % 3 == 0:
            assert_close(agent.target_network.state_dict(), agent.online_network.state_dict())


def test_target_network_gets_no_gradient():
    agent = agent_on(filled())
    agent.optimize()

    assert all(p.grad is None and not p.requires_grad for p in agent.target_network.parameters())


@pytest.mark.parametrize("clip", [None, 1e-3])
def test_gradient_clip_bounds_the_norm(clip):
    agent = agent_on(filled(), gradient_clip=clip)

    agent.optimize()

    norm = torch.cat([p.grad.flatten() for p in agent.online_network.parameters()]).norm()
    assert norm > 1e-2 if clip is None else norm == pytest.approx(1e-3, rel=1e-4)


def test_schedules_follow_updates_and_actions():
    memory = filled()
    agent = agent_on(
        memory,
        learning_rate=per.linear(1.0, 0.0, 4),
        beta=per.linear(0.5, 1.0, 4),
        epsilon=per.linear(1.0, 0.0, 10),
    )
    seen = []
    for _ in range(3):
        agent.act(np.zeros(3, np.float32))
        agent.act(np.zeros(3, np.float32), greedy=True)
        seen.append((agent.beta, agent.learning_rate, agent.epsilon))
        agent.optimize()

    np.testing.assert_allclose(seen, [(0.5, 1.0, 1.0), (0.625, 0.75, 0.9), (0.75, 0.5, 0.8)])
    # The step size in the optimizer is that of the update just made.
    assert agent.optimizer.param_groups[0]["lr"] == pytest.approx(0.5)


def test_own_optimizer_keeps_its_step_size():
    network = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.25)
    agent = agent_on(filled(), online_network=network, optimizer=optimizer)
    agent.optimize()

    assert agent.optimizer is optimizer
    assert agent.learning_rate == optimizer.param_groups[0]["lr"] == 0.25


@pytest.mark.parametrize(
    ("settings", "kind", "eps"),
    [
        ({}, FlatAdam, 1e-8),
        ({"optimizer_eps": 1e-4}, FlatAdam, 1e-4),
        ({"optimizer": "rmsprop"}, CentredRMSProp, 0.01 / 32**2),
        ({"optimizer": "rmsprop", "optimizer_eps": 1e-6}, CentredRMSProp, 1e-6),
        ({"online_network": nn.Linear(3, 2)}, torch.optim.Adam, 1e-8),
    ],
)
def test_optimizers_by_name(settings, kind, eps):
    agent = agent_on(filled(), **settings)
    before = [parameter.clone() for parameter in agent.online_network.parameters()]

    agent.optimize()

    assert type(agent.optimizer) is kind
    assert agent.optimizer.param_groups[0]["eps"] == eps
    assert agent.optimizer.param_groups[0]["lr"] == agent.learning_rate == 5e-4
    after = agent.online_network.parameters()
    assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("clip", [False, True])
def test_priorities_may_come_from_clipped_errors(clip):
    memory = filled(per.Proportional(alpha=0.6, eps=0.01))
    agent = agent_on(memory, clip_td_errors=clip, batch_size=200)
    with torch.no_grad():
        list(agent.online_network.parameters())[-1] += torch.tensor([2.0, -2.0])

    agent.optimize()

    errors = agent.last_td_errors.abs()
    assert (errors > 1.0).sum() > 50  # what is reported is not clipped
    largest = memory.priorities(np.arange(200)).max()
    assert largest == pytest.approx(1.01 if clip else float(errors.max()) + 0.01, rel=1e-6)


def test_greedy_action_has_the_highest_value():
    agent = agent_on(filled(), epsilon=1.0)
    observations = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    with torch.no_grad():
        best = agent.online_network(torch.from_numpy(observations)).argmax(1).tolist()

    assert agent.act(observations, greedy=True).tolist() == best
    assert [agent.act(row, greedy=True) for row in observations] == best
    assert type(agent.act(observations[0], greedy=True)) is int
    assert agent.actions == 0


def test_epsilon_is_the_share_of_random_actions():
    observation = np.zeros(3, np.float32)
    agent = agent_on(filled(), epsilon=0.5, seed=1)
    best = agent.act(observation, greedy=True)

    # Half of the random actions happen to be the best one: 3/4 best, s.d. 0.0097 of 2000.
    one_by_one = np.mean([agent.act(observation) == best for _ in range(2000)])
    together = np.mean(agent.act(np.zeros((2000, 3), np.float32)) == best)

    assert one_by_one == pytest.approx(0.75, abs=0.04)
    assert together == pytest.approx(0.75, abs=0.04)
    assert agent.actions == 4000


def test_exploration_is_seeded():
    observations = np.zeros((50, 3), np.float32)
    first, same, other = (agent_on(filled(), epsilon=1.0, seed=seed) for seed in (1, 1, 2))

    actions = first.act(observations)

    assert np.array_equal(actions, same.act(observations))
    assert not np.array_equal(actions, other.act(observations))


def test_discrete_observations_act_alone_and_together():
    space = spaces.Discrete(5)
    memory = per.ReplayBuffer.for_spaces(space, TWO, 8)
    agent = DQN(space, TWO, memory, hidden_sizes=(4,), epsilon=0.0, warmup=1, batch_size=2)
    memory.add(3, 1, 1.0, 4, terminated=False)

    agent.optimize()

    together = agent.act(np.arange(5))
    assert together.shape == (5,)
    assert [agent.act(np.int64(state)) for state in range(5)] == together.tolist()
    assert agent.updates == 1


def test_state_dict_continues_bit_for_bit(tmp_path):
    settings = {"learning_rate": per.linear(1e-2, 1e-3, 20), "epsilon": 0.5, "tau": 0.1}
    agent = agent_on(filled(), **settings)
    for _ in range(5):
        agent.optimize()
        agent.act(np.zeros(3, np.float32))
    torch.save(agent.state_dict(), tmp_path / "agent.pt")
    copied = agent_on(filled(), **settings, seed=9)
    copied.load_state_dict(torch.load(tmp_path / "agent.pt", weights_only=True))
    batch = filled().get(np.arange(50))
    observations = np.random.default_rng(1).normal(size=(50, 3)).astype(np.float32)

    for one in (agent, copied):
        for _ in range(3):
            one.learn(batch)

    assert copied.updates == agent.updates == 8
    assert torch.equal(agent.last_td_errors, copied.last_td_errors)
    assert np.array_equal(agent.act(observations), copied.act(observations))


def test_state_of_another_network_changes_nothing():
    agent, other = agent_on(filled()), agent_on(filled(), hidden_sizes=(8,), seed=3)
    before = copy.deepcopy(agent.state_dict())

    with pytest.raises(RuntimeError, match="size mismatch"):
        agent.load_state_dict(other.state_dict())

    assert_close(agent.state_dict()["online_network"], before["online_network"], rtol=0, atol=0)
    assert agent.state_dict()["generator"] == before["generator"]


def saved(state):
    data = io.BytesIO()
    torch.save(copy.deepcopy(state), data)
    return data.getvalue()


ANOTHER_OPTIMIZER = {
    "no eps": lambda state: state["param_groups"][0].pop("eps"),
    "eps of text": lambda state: state["param_groups"][0].update(eps="1"),
    "eps NaN": lambda state: state["param_groups"][0].update(eps=math.nan),
    "no group": lambda state: state["param_groups"].pop(),
    "a tensor": lambda state: state.update(param_groups=torch.ones(3)),
    "a moment less": lambda state: state["state"][0].pop(min(state["state"][0])),
    "sizes": lambda state: state["state"].update({0: dict.fromkeys(state["state"][0], BAD[0])}),
    "text": lambda state: state["state"].update({0: dict.fromkeys(state["state"][0], BAD[1])}),
    "nothing": lambda state: state.clear(),
}
BAD = torch.ones(3), "x"


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
@pytest.mark.parametrize("name", ANOTHER_OPTIMIZER)
def test_state_of_another_optimizer_changes_nothing(optimizer, name):
    agent = agent_on(filled(), optimizer=optimizer)
    for _ in range(3):
        agent.optimize()
    agent.load_state_dict(copy.deepcopy(agent.state_dict()))
    before = copy.deepcopy(agent.state_dict())
    state = copy.deepcopy(before)
    ANOTHER_OPTIMIZER[name](state["optimizer"])

    with pytest.raises(ValueError, match=r"^the state must be that of this optimizer, got"):
        agent.load_state_dict(state)

    after = agent.state_dict()
    for name in ("online_network", "optimizer"):
        assert saved(after[name]) == saved(before[name])
    assert after["generator"] == before["generator"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size must be an integer >= 1, got 0"),
        ({"warmup": 0}, "warmup must be an integer >= 1, got 0"),
        ({"target_period": 0}, "target_period must be an integer >= 1, got 0"),
        ({"tau": 0.0}, r"tau must be in \(0, 1\], got 0.0"),
        ({"gradient_clip": 0.0}, "gradient_clip must be > 0, got 0.0"),
        ({"loss": "l1"}, "loss must be one of huber, squared, got 'l1'"),
        ({"precision": "half"}, "precision must be one of float32, bfloat16, got 'half'"),
        ({"device": "warp"}, "device must be one that torch can use, got 'warp'"),
        (
            {"optimizer": "sgd"},
            "optimizer must be one of adam, rmsprop, or an Optimizer, got 'sgd'",
        ),
        ({"network": "cnn"}, "network must be one of auto, mlp, nature, light, small, got 'cnn'"),
        ({"optimizer": torch.optim.SGD([torch.zeros(1)])}, "optimizer needs the online_network"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        agent_on(filled(), **settings)


def test_continuous_actions_are_refused():
    with pytest.raises(ValueError, match=r"^action_space must be Discrete.*got Box"):
        DQN(BOX, spaces.Box(-1.0, 1.0, (2,)), filled())


@pytest.mark.parametrize("shape", [(), (2, 2, 3)])
def test_observation_with_wrong_axes_is_refused(shape):
    with pytest.raises(ValueError, match=r"obs must have shape \(3,\)"):
        agent_on(filled()).act(np.zeros(shape, np.float32))


@pytest.mark.parametrize("sampler", [per.Uniform(), per.Proportional(), per.RankBased()])
def test_optimize_writes_the_errors_of_the_rows_it_drew(sampler):
    memory = filled(sampler)
    agent = agent_on(memory, batch_size=8)
    # The same seed draws the same batch.
    ids = filled(sampler).sample(8).ids

    agent.optimize()

    expected = agent.last_td_errors.abs().double().numpy()
    if isinstance(sampler, per.Proportional):
        expected = expected + sampler.eps
    if not isinstance(sampler, per.Uniform):
        np.testing.assert_allclose(memory.priorities(ids), expected)


@pytest.mark.parametrize("settings", [{"tau": 0.1}, {"target_period": 3}, {"double": False}])
def test_a_given_network_learns_what_the_agents_own_does(settings):
    """Through autograd and Adam over many tensors, or directly and over one: the same steps."""
    own = agent_on(filled(), learning_rate=1e-2, gradient_clip=0.1, **settings)
    given = agent_on(
        filled(),
        online_network=copy.deepcopy(own.online_network),
        learning_rate=1e-2,
        gradient_clip=0.1,
        **settings,
    )

    for _ in range(20):
        own.optimize()
        given.optimize()

    for network in ("online_network", "target_network"):
        assert_close(
            getattr(own, network).state_dict(), getattr(given, network).state_dict(),
            rtol=1e-4, atol=1e-5,
        )  # fmt: skip
    assert_close(own.last_loss, given.last_loss)


def test_last_loss_is_that_of_the_latest_update():
    memory = filled()
    agent = agent_on(memory)
    agent.optimize()
    delta, weights = agent.last_td_errors, agent.last_weights

    huber = torch.where(delta.abs() <= 1.0, 0.5 * delta**2, delta.abs() - 0.5)

    assert_close(agent.last_loss, (weights * huber).mean())


@pytest.mark.parametrize("chosen", [False, True])
def test_subnormal_means_become_zero_and_the_setting_stays_the_users(chosen):
    agent = agent_on(filled(), learning_rate=1e-3)
    agent.optimize()
    (state,) = agent.optimizer.state.values()
    if not torch.set_flush_denormal(chosen):
        pytest.skip("this processor cannot take them as 0")
    try:
        state["exp_avg"].fill_(2e-38)
        agent.online_network.zero_grad(set_to_none=False)
        agent._learner.gradient = lambda *batch, **settings: torch.zeros(8)  # every gradient is 0
        for _ in range(20):
            agent.learn(agent.memory_buffer.sample(8))
        still_on = float(torch.tensor(1e-39) * 1.0) == 0.0
    finally:
        torch.set_flush_denormal(False)

    assert still_on is chosen
    assert not state["exp_avg"].any()


@pytest.mark.parametrize("space", [spaces.Box(-1, 1, (4,)), spaces.Discrete(5)], ids=str)
@pytest.mark.parametrize("greedy", [True, False])
@pytest.mark.parametrize(
    "obs",
    [
        *([0.0, 1.0, 2.0], np.zeros((4, 4, 4)), np.zeros((2, 5)), -1, 7, [6, 1]),
        *("high", None, [None] * 4, np.zeros(4, complex), np.zeros(4, object), [[1.0], 2.0]),
    ],
    ids=str,
)
def test_acting_on_no_observation_is_refused_and_nothing_is_counted(space, greedy, obs):
    memory = per.ReplayBuffer.for_spaces(space, spaces.Discrete(2), 10)
    agent = DQN(space, spaces.Discrete(2), memory, seed=0)
    if isinstance(obs, list) and len(obs) == 3 and isinstance(space, spaces.Discrete):
        pytest.skip("three of them")
    with pytest.raises(ValueError, match="obs must"):
        agent.act(obs, greedy=greedy)
    assert agent.actions == 0


@pytest.mark.parametrize(
    "change",
    [lambda x: x[::-1], lambda x: x.astype(">f8"), lambda x: x],
    ids=["backwards", "big-endian", "read-only"],
)
def test_acting_takes_observations_of_any_order_in_memory(change):
    space = spaces.Box(-1, 1, (4,))
    memory = per.ReplayBuffer.for_spaces(space, spaces.Discrete(2), 10)
    agent = DQN(space, spaces.Discrete(2), memory, seed=0)
    obs = change(np.array([0.5, -0.25, 0.125, 0.0], np.float32))
    obs.flags.writeable = False
    assert agent.act(obs, greedy=True) == agent.act(np.array(obs, np.float32), greedy=True)
    assert agent.act(obs[None], greedy=True) == agent.act(obs, greedy=True)
