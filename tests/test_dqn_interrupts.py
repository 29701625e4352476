"""An update that is interrupted anywhere leaves the agent of one moment, or the agent says so.

An exception is raised once at each line and call inside the package, one at a time: in the agent,
and in the buffer that it draws from and gives priorities to. The ordinary run takes some of these
places; ``INTERRUPT_EVERYWHERE=1`` takes them all.
"""

import copy
import gc
import math
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

import prioritized_replay as per
from prioritized_replay.dqn import DQN

PACKAGE = str(Path(per.__file__).parent)
EVERYWHERE = os.environ.get("INTERRUPT_EVERYWHERE") == "1"
STEP = 1 if EVERYWHERE else 7

BOX = spaces.Box(-1.0, 1.0, (3,))
TWO = spaces.Discrete(2)


class Stop(KeyboardInterrupt):
    """What is raised; a class of its own, so that nothing else is taken for it."""


class Interruption:
    """Raises at one event inside the package, and counts the events until then."""

    def __init__(self, at):
        self.at = at
        self.seen = 0

    def __enter__(self):
        gc.disable()  # or what earlier cases left behind would be closed, and traced, here
        sys.settrace(self._event)
        return self

    def __exit__(self, *error):
        sys.settrace(None)
        gc.enable()

    def _event(self, frame, event, argument):
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if event in ("call", "line"):
            self.seen += 1
            if self.seen == self.at:
                sys.settrace(None)
                raise Stop
        return self._event


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))


def normalised():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))


KINDS = {
    "own": lambda: {"hidden_sizes": (8,)},
    "own, tau": lambda: {"hidden_sizes": (8,), "tau": 0.25},
    "own, target due": lambda: {"hidden_sizes": (8,), "target_period": 3},
    "own, rmsprop": lambda: {"hidden_sizes": (8,), "optimizer": "rmsprop", "tau": 0.25},
    "given": lambda: {"online_network": net()},
    "given, tau": lambda: {"online_network": net(), "tau": 0.25},
    "given, target due": lambda: {"online_network": net(), "target_period": 3},
    "batch norm, tau": lambda: {"online_network": normalised(), "tau": 0.25},
}


def agent_of(kind, *, updates=2):
    """Return an agent after some updates: the third is to be interrupted."""
    memory = per.ReplayBuffer.for_spaces(BOX, TWO, 64, seed=1)
    rng = np.random.default_rng(2)
    obs = rng.normal(size=(64, 3)).astype(np.float32)
    memory.extend(
        {
            "obs": obs,
            "action": rng.integers(2, size=64),
            "reward": rng.normal(size=64).astype(np.float32),
            "next_obs": np.roll(obs, 1, axis=0),
            "terminated": rng.random(64) < 0.1,
        }
    )
    agent = DQN(
        BOX, TWO, memory, warmup=1, batch_size=8, seed=3,
        learning_rate=per.linear(1e-2, 1e-3, 10), **KINDS[kind](),
    )  # fmt: skip
    for _ in range(updates):
        agent.optimize()
    return agent


def moment(agent):
    """Return what must be of one moment, as plain values."""
    return copy.deepcopy(
        {
            "online": dict(agent.online_network.state_dict()),
            "target": dict(agent.target_network.state_dict()),
            "optimizer": agent.optimizer.state_dict()["state"],
            "updates": agent.updates,
            "priorities": agent.memory_buffer.priorities(np.arange(64)),
        }
    )


def same(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    return bool(np.array_equal(one, other))


def events_of(kind):
    for _ in range(2):  # the first time some things are compiled or loaded
        agent = agent_of(kind)
        with Interruption(0) as counting:
            agent.optimize()
    return counting.seen


def interrupted_at(kind, at):
    agent = agent_of(kind)
    with pytest.raises(Stop), Interruption(at):
        agent.optimize()
    return agent


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.slow
def test_an_update_interrupted_anywhere_leaves_one_moment_or_says_so(kind):
    before, after = moment(agent_of(kind)), moment(agent_of(kind, updates=3))
    assert not same(before, after)
    outcomes = {"before": 0, "after": 0, "said so": 0}
    events = events_of(kind)
    assert events > 300  # those in the buffer among them
    for at in range(1 + hash_of(kind) % STEP, events + 1, STEP):
        agent = interrupted_at(kind, at)
        if agent.interrupted:
            with pytest.raises(RuntimeError, match="the optimizer's step was interrupted"):
                agent.state_dict()
            outcomes["said so"] += 1
        else:
            agent.state_dict()  # as a checkpoint begins: it finishes what was begun
            now = moment(agent)
            found = "before" if same(now, before) else "after" if same(now, after) else None
            assert found, f"two moments after event {at} of {events}"
            outcomes[found] += 1
        agent.optimize()  # and it goes on
        assert not agent.interrupted
        assert agent.updates in (3, 4)
        assert agent.is_finite()
        agent.state_dict()

    assert outcomes["before"]
    assert outcomes["after"]
    if kind in ("own", "own, tau", "own, target due"):
        assert not outcomes["said so"]  # one compiled call makes the step and counts it


def hash_of(kind):
    """Return a number that is the same in each process."""
    return sum(map(ord, kind))


@pytest.mark.parametrize("kind", ["own, tau", "given, tau"])
@pytest.mark.slow
def test_learn_alone_is_as_safe(kind):
    def begun():
        agent = agent_of(kind)
        return agent, agent.memory_buffer.get(np.arange(8))

    agent, batch = begun()
    before = moment(agent)
    with Interruption(0) as counting:
        agent.learn(batch)
    after = moment(agent)
    for at in range(1, counting.seen + 1, STEP):
        agent, batch = begun()
        with pytest.raises(Stop), Interruption(at):
            agent.learn(batch)
        if not agent.interrupted:
            agent.state_dict()
            now = moment(agent)
            assert same(now, before) or same(now, after), at


@pytest.mark.parametrize("kind", ["own", "batch norm, tau"])
@pytest.mark.slow
def test_loading_that_is_interrupted_says_so_until_a_state_is_loaded(kind):
    state = copy.deepcopy(agent_of(kind, updates=5).state_dict())
    wanted = moment(agent_of(kind, updates=5))
    agent = agent_of(kind)
    with Interruption(0) as counting:
        agent.load_state_dict(state)
    for at in range(1, counting.seen + 1):
        agent = agent_of(kind)
        before = moment(agent)
        with pytest.raises(Stop), Interruption(at):
            agent.load_state_dict(state)
        if agent.interrupted:
            for call in (agent.state_dict, agent.optimize):
                with pytest.raises(RuntimeError, match="load_state_dict was interrupted"):
                    call()
        else:
            now = moment(agent)
            del now["priorities"], before["priorities"]
            assert same(now, before) or same(now, {k: wanted[k] for k in now}), at
        agent.load_state_dict(state)
        assert not agent.interrupted
        agent.optimize()
        assert agent.updates == 6


def test_a_step_that_is_half_made_can_be_taken_back_by_loading_a_checkpoint():
    class Halting(torch.optim.SGD):
        stops = False

        def step(self, closure=None):
            super().step()
            if self.stops:
                raise Stop

    network = net()
    agent = agent_with(network, Halting(network.parameters(), lr=0.1))
    checkpoint = copy.deepcopy(agent.state_dict())
    agent.optimizer.stops = True
    with pytest.raises(Stop):
        agent.optimize()
    agent.optimizer.stops = False

    assert agent.interrupted
    with pytest.raises(RuntimeError, match="load_state_dict goes back to a checkpoint"):
        agent.state_dict()
    agent.load_state_dict(checkpoint)
    assert not agent.interrupted
    assert agent.state_dict()["updates"] == 0


def test_priorities_of_an_interrupted_update_go_to_the_buffer_that_gave_the_batch():
    agent = agent_of("own")
    first, other = agent.memory_buffer, agent_of("own").memory_buffer
    untouched = other.priorities(np.arange(64))
    written = []
    write = first.update_priorities

    def stop_once(ids, errors):
        if not written:
            written.append(ids)
            raise Stop
        return write(ids, errors)

    first.update_priorities = stop_once
    with pytest.raises(Stop):
        agent.optimize()
    agent.memory_buffer = other
    agent.state_dict()

    np.testing.assert_array_equal(other.priorities(np.arange(64)), untouched)
    np.testing.assert_allclose(
        first.priorities(written[0]), agent.last_td_errors.abs().numpy() + 0.01, rtol=1e-6
    )


def agent_with(network, optimizer):
    memory = agent_of("own").memory_buffer
    return DQN(
        BOX, TWO, memory, online_network=network, optimizer=optimizer, warmup=1, batch_size=8
    )


@pytest.mark.parametrize("kind", ["own", "given, tau", "batch norm, tau"])
@pytest.mark.parametrize("call", ["optimize", "act"])
def test_torchs_own_modes_are_as_before_after_an_interruption(kind, call):
    """Gradients off for the thread, or flushing of small numbers on, would outlive the update."""

    def run(agent):
        return agent.optimize() if call == "optimize" else agent.act(np.zeros(3), greedy=True)

    for _ in range(2):
        agent = agent_of(kind)
        with Interruption(0) as counting:
            run(agent)
    agent, kept = agent_of(kind), []
    for at in range(1, counting.seen + 1, STEP):
        try:
            with Interruption(at):
                run(agent)
        except Stop as stop:
            kept.append(stop)  # with its frames, as a notebook keeps the latest
        assert torch.is_grad_enabled(), at
        assert not torch.is_inference_mode_enabled(), at
        assert math.ulp(0.0) * 1.0 > 0.0, at
