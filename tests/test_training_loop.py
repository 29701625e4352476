"""The training loop: what it counts, reports, keeps, and how it stops."""

import math

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.envs.classic_control import CartPoleEnv
from torch.testing import assert_close

from prioritized_replay.training.config import TrainConfig
from prioritized_replay.training.evaluation import Evaluation
from prioritized_replay.training.loop import Training
from prioritized_replay.training.presets import preset

TINY = {
    "steps": 1_200,
    "warmup": 100,
    "hidden_sizes": (16,),
    "batch_size": 16,
    "eval_every": 500,
    "eval_episodes": 2,
    "final_eval_episodes": 3,
}


def tiny(**overrides):
    return Training(preset("CartPole-v1", **{**TINY, **overrides}))


class TwoStates(gymnasium.Env):
    """States 0 and 1 take turns; each step pays 1. ``ends`` says whether the third one ends it."""

    observation_space = spaces.Discrete(2)
    action_space = spaces.Discrete(1)

    def __init__(self, terminates):
        self.terminates = terminates

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state = self.time = 0
        return self.state, {}

    def step(self, action):
        self.time += 1
        self.state = 1 - self.state
        ended = self.time == 3
        return self.state, 1.0, ended and self.terminates, ended and not self.terminates, {}


@pytest.fixture
def two_states():
    for name in ("Truncates-v0", "Terminates-v0"):
        gymnasium.register(name, TwoStates, kwargs={"terminates": name == "Terminates-v0"})
    yield
    for name in ("Truncates-v0", "Terminates-v0"):
        del gymnasium.registry[name]


@pytest.mark.parametrize(("replay", "n_step"), [("rank", 1), ("proportional", 1), ("uniform", 2)])
@pytest.mark.usefixtures("two_states")
@pytest.mark.slow
def test_truncation_bootstraps_and_termination_does_not(replay, n_step):
    """With gamma 1/2: worth 2 for ever if only cut off; with an end after three steps, less."""
    values = {}
    for name in ("Truncates-v0", "Terminates-v0"):
        config = TrainConfig(
            env_id=name, replay=replay, n_step=n_step, gamma=0.5, steps=800, hidden_sizes=(),
            train_every=1, warmup=32, batch_size=32, learning_rate=0.1, learning_rate_end=1e-4,
            tau=0.2, eval_every=800, eval_episodes=1, loss="squared",
        )  # fmt: skip
        training = Training(config)
        list(training.run())
        with torch.no_grad():
            values[name] = training.agent.online_network(torch.tensor([0, 1])).flatten()

    assert_close(values["Truncates-v0"], torch.tensor([2.0, 2.0]), rtol=0.0, atol=0.01)
    # Both values depend on the mix of rows, since state 0 is seen with and without the end;
    # a terminal step alone is worth 1, the first of three 1.75.
    assert values["Terminates-v0"].max() < 1.75


def test_reports_come_at_the_interval_and_at_evaluations():
    training = tiny()

    reports = list(training.run(report_every=400))

    assert [report.step for report in reports] == [400, 500, 800, 1000, 1200]
    assert [report.evaluation is not None for report in reports] == [False, True, False, True, True]
    assert {report.steps for report in reports} == {1_200}
    last = reports[-1]
    # Windows enter the memory up to two steps late, so that the first training may be missed.
    assert 0 <= training.config.total_updates - training.agent.updates <= 1
    assert last.updates == training.agent.updates
    assert last.beta == pytest.approx(1.0, abs=2e-3)
    assert last.learning_rate == pytest.approx(training.config.learning_rate_end, rel=0.05)
    assert last.epsilon == training.config.epsilon_end
    assert last.episodes == training.episodes > 0
    assert last.steps_per_second > 0
    assert 1.0 <= last.effective_sample_size <= 16.0
    assert 0.0 < last.loss < 10.0
    assert last.td_error > 0.0


def test_before_learning_the_numbers_are_not_made_up():
    first = next(tiny(warmup=1_000).run(report_every=5))

    assert first.updates == 0
    for value in (first.loss, first.td_error, first.effective_sample_size, first.mean_return):
        assert math.isnan(value)


def test_returns_are_those_of_the_training_episodes():
    training = tiny(eval_every=1_200)
    steps = []
    real = training._env.step

    def step(action):
        outcome = real(action)
        steps.append(outcome[2] or outcome[3])
        return outcome

    training._env.step = step

    reports = list(training.run())

    ends = np.flatnonzero(steps) + 1
    lengths = np.diff(ends, prepend=0)
    assert reports[-1].episodes == len(lengths)
    assert reports[-1].last_return == lengths[-1]
    assert reports[-1].mean_return == pytest.approx(lengths[-100:].mean())


@pytest.mark.slow
def test_same_seed_same_run_and_another_seed_another():
    def outcome(seed):
        training = tiny(seed=seed)
        reports = list(training.run())
        numbers = [(r.step, r.episodes, r.mean_return, r.loss, r.td_error) for r in reports]
        final = training.final_evaluation()
        return numbers, training.agent.online_network.state_dict(), final.returns.tolist()

    first, same, other = outcome(1), outcome(1), outcome(2)

    assert first[0] == same[0]
    assert_close(first[1], same[1], rtol=0, atol=0)
    assert first[2] == same[2]
    assert first[0] != other[0]


def test_best_is_the_latest_of_the_best_evaluations(monkeypatch):
    means = iter([1.0, 3.0, 2.0, 3.0, 1.0])

    def judged(episodes, seed):
        mean = next(means)
        returns = np.full(episodes, mean)
        return Evaluation(returns, returns.astype(np.int64), mean, 0.0, mean, (mean, mean))

    training = tiny(steps=500, eval_every=100, warmup=20)
    monkeypatch.setattr(training, "_evaluate", judged)
    is_best, states = [], []
    for report in training.run(report_every=1_000):
        is_best.append(report.is_best)
        state = training.agent.online_network.state_dict()
        states.append({name: value.clone() for name, value in state.items()})

    assert is_best == [True, True, False, True, False]
    assert training.best_evaluation.mean == 3.0
    # Kept as it was then: learning went on after it.
    assert_close(training.best_state, states[3], rtol=0, atol=0)
    assert not torch.equal(states[3]["layers.0.weight"], states[4]["layers.0.weight"])


@pytest.mark.slow
def test_final_evaluation_is_of_the_best_model_and_leaves_the_present_one():
    training = tiny()
    list(training.run())
    present = {k: v.clone() for k, v in training.agent.online_network.state_dict().items()}
    seen = []
    training.best_state = {name: torch.zeros_like(value) for name, value in present.items()}
    training.agent.online_network.register_forward_hook(
        lambda module, inputs, output: seen.append(float(output.abs().max()))
    )

    evaluation = training.final_evaluation()

    assert len(evaluation.returns) == 3
    assert set(seen) == {0.0}  # the zeroed best model gave every value
    assert_close(training.agent.online_network.state_dict(), present, rtol=0, atol=0)
    assert len(training.final_evaluation(episodes=5).returns) == 5


def test_training_selection_and_final_evaluation_use_different_seeds(monkeypatch):
    seeds = []
    real = CartPoleEnv.reset

    def reset(self, *, seed=None, options=None):
        seeds.append(seed)
        return real(self, seed=seed, options=options)

    monkeypatch.setattr(CartPoleEnv, "reset", reset)
    training = tiny(steps=500, eval_every=500, eval_episodes=3)
    list(training.run())
    training.final_evaluation()

    given = [seed for seed in seeds if seed is not None]
    assert len(given) == 1 + 3 + 3
    assert len(set(given)) == 7


def test_stopping_leaves_the_agent_usable_and_the_run_can_go_on():
    training = tiny()
    run = training.run(report_every=200)
    next(run)
    with pytest.raises(KeyboardInterrupt):
        run.throw(KeyboardInterrupt)

    assert training.step == 200
    assert training.agent.act(np.zeros(4, np.float32)) in (0, 1)
    training.agent.optimize()

    reports = list(training.run())

    assert reports[-1].step == training.step == 1_200
    # The window open at step 200 was closed there: it bootstraps after one step of three.
    memory = training.agent.memory_buffer
    assert memory.get([197, 198, 199]).discount == pytest.approx([0.99**3, 0.99**2, 0.99])
    memory.end_episode()
    assert len(memory) == 1_200


@pytest.mark.slow
def test_every_step_becomes_a_transition():
    training = tiny()
    list(training.run())
    training.agent.memory_buffer.end_episode()

    assert len(training.agent.memory_buffer) == 1_200


@pytest.mark.parametrize(("train_every", "updates_per_train"), [(1, 1), (8, 3), (256, 128)])
@pytest.mark.slow
def test_updates_keep_their_rhythm(train_every, updates_per_train):
    training = tiny(
        steps=600, eval_every=600, train_every=train_every, updates_per_train=updates_per_train,
        n_step=1,
    )  # fmt: skip
    list(training.run())

    times = sum(step % train_every == 0 and step >= 100 for step in range(1, 601))
    assert training.agent.updates == training.config.total_updates == times * updates_per_train


def test_unknown_environment_and_continuous_actions_are_refused():
    with pytest.raises(ValueError, match=r"^env_id must be a registered.*near names: CartPole-v1"):
        Training(TrainConfig(env_id="CartPol-v1"))
    with pytest.raises(ValueError, match=r"^action_space must be Discrete"):
        Training(TrainConfig(env_id="Pendulum-v1"))
    with pytest.raises(ValueError, match=r"^device must be one that torch can use"):
        tiny(device="warp")
    with pytest.raises(ValueError, match=r"^report_every must be >= 1, got 0"):
        next(tiny().run(report_every=0))


def test_hard_copies_squared_loss_and_dueling_train_too():
    training = tiny(steps=700, tau=None, target_period=50, loss="squared", dueling=True,
                    double=False, gradient_clip=None)  # fmt: skip

    last = list(training.run())[-1]

    assert last.updates > 0
    assert math.isfinite(last.loss)
