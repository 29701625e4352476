"""Experience from one environment and from many: what the memory is told, what counts as ended."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from prioritized_replay.training.evaluation import Evaluation
from prioritized_replay.training.loop import Training
from prioritized_replay.training.presets import preset


class Clock(gymnasium.Env):
    """Counts its episode's steps from a number of its own on, and pays them ten times over.

    Episodes last from 2 to 5 steps, by the seed, and are terminated where that is odd.
    """

    observation_space = spaces.Box(0.0, 1e9, (2,), np.float64)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.start = float(self.np_random.integers(1_000_000))
        self.length = int(self.np_random.integers(2, 6))
        self.time = 0
        return np.array([self.start, self.time]), {}

    def step(self, action):
        self.time += 1
        ended, odd = self.time == self.length, self.length % 2 == 1
        obs = np.array([self.start, self.time])
        return obs, 10.0 * self.time - 20.0, ended and odd, ended and not odd, {}


@pytest.fixture(autouse=True)
def _clock():
    gymnasium.register("Clock-v0", Clock)
    yield
    del gymnasium.registry["Clock-v0"]


def trained(**settings):
    config = {
        "steps": 240, "warmup": 20, "train_every": 4, "batch_size": 8, "hidden_sizes": (4,),
        "eval_every": 240, "eval_episodes": 1, "n_step": 1,
    }  # fmt: skip
    training = Training(preset("Clock-v0", **(config | settings)))
    reports = list(training.run(report_every=30))
    training.agent.memory_buffer.end_episode()
    return training, reports


@pytest.mark.parametrize("envs", [1, 3, 8])
@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.slow
def test_every_step_is_a_transition_to_what_it_really_led_to(envs, n_step):
    training, _ = trained(envs=envs, n_step=n_step)
    memory = training.agent.memory_buffer

    batch = memory.get(np.arange(240))

    assert len(memory) == training.step == 240
    assert np.array_equal(batch.obs[:, 0], batch.next_obs[:, 0])  # never that of the next episode
    windows = batch.next_obs[:, 1] - batch.obs[:, 1]
    assert set(windows) == set(range(1, n_step + 1))
    kept = np.where(batch.terminated, 0.0, 0.99**windows)
    assert batch.discount == pytest.approx(kept, abs=1e-6)
    assert batch.terminated.any()
    assert n_step == 1 or (~batch.terminated[windows < n_step]).any()  # truncated ones bootstrap


@pytest.mark.parametrize("envs", [1, 3])
def test_returns_and_episodes_are_those_that_were_played(envs):
    training, reports = trained(envs=envs)
    batch = training.agent.memory_buffer.get(np.arange(240))

    paid = {}
    for start, time in batch.next_obs.tolist():
        paid.setdefault(start, []).append(10.0 * time - 20.0)
    ended = [sum(steps) for steps in paid.values()]

    assert 0 <= len(ended) - reports[-1].episodes <= envs  # as many are open at the end
    assert reports[-1].last_return in ended
    assert reports[-1].mean_return == pytest.approx(np.mean(ended), rel=0.6)


@pytest.mark.parametrize("envs", [1, 4])
def test_the_memory_learns_clipped_rewards_and_people_see_the_whole_ones(envs):
    training, reports = trained(envs=envs, clip_rewards=True)
    batch = training.agent.memory_buffer.get(np.arange(240))

    assert batch.reward == pytest.approx(np.clip(10.0 * batch.next_obs[:, 1] - 20.0, -1.0, 1.0))
    assert set(batch.reward) == {-1.0, 0.0, 1.0}
    assert {report.last_return for report in reports} <= {-10.0, 0.0, 20.0, 50.0}


@pytest.mark.parametrize(("envs", "train_every"), [(1, 4), (3, 4), (8, 4), (4, 1), (8, 12), (5, 7)])
@pytest.mark.slow
def test_updates_are_made_per_environment_step_however_many_there_are(envs, train_every):
    training, reports = trained(envs=envs, train_every=train_every, warmup=1)

    assert training.agent.updates == training.step // train_every
    assert abs(training.config.total_updates - training.agent.updates) <= 1
    assert [report.step // 30 for report in reports] == list(range(1, 9))
    assert training.step < 240 + envs
    assert training.agent.actions == training.step


@pytest.mark.parametrize("envs", [1, 4])
def test_a_stopped_run_goes_on_with_new_episodes(envs):
    training = Training(
        preset("Clock-v0", steps=200, warmup=20, envs=envs, n_step=3, batch_size=8, eval_every=200,
               eval_episodes=1, hidden_sizes=(4,))
    )  # fmt: skip
    for stops in (40, 44, 48, 52, 56, 60):  # not all of them at the end of an episode
        run = training.run(report_every=4)
        while next(run).step < stops:
            pass
        run.close()
    list(training.run())
    training.agent.memory_buffer.end_episode()

    batch = training.agent.memory_buffer.get(np.arange(200))
    assert np.array_equal(batch.obs[:, 0], batch.next_obs[:, 0])


def test_same_seed_same_run_with_several_environments():
    def errors(seed):
        return [report.td_error for report in trained(envs=3, seed=seed)[1]][1:]

    assert errors(1) == errors(1)
    assert errors(1) != errors(2)


@pytest.mark.slow
def test_atari_by_lives_and_whole_games():
    training = Training(
        preset("ALE/Breakout-v5", steps=1_200, warmup=900, envs=2, capacity=2_000, n_step=1,
               batch_size=4, train_every=100, end_on_life_loss=True, sticky_actions=0.0,
               eval_every=1_200, eval_episodes=1, eval_max_steps=40)
    )  # fmt: skip
    reports = list(training.run(report_every=100))

    memory = training.agent.memory_buffer
    batch = memory.get(np.arange(1_200))
    assert len(memory) == 1_200
    assert batch.obs.shape == (1_200, 4, 84, 84)
    assert np.array_equal(batch.obs[:, 1:], batch.next_obs[:, :-1])
    assert set(np.unique(batch.reward)) <= {0.0, 1.0}
    lives, games = int(batch.terminated.sum()), reports[-1].episodes
    assert games >= 2
    assert 5 * games <= lives < 5 * (games + 2)
    assert reports[-1].evaluation.lengths.tolist() == [40]
    assert reports[-1].evaluation.capped == 1
    # One frame for each step and a little more, not eight for each row.
    assert memory.nbytes < 1_200 * 84 * 84 * 3
    assert training.replay_bytes == pytest.approx(2_000 * 84 * 84, rel=0.5)


@pytest.mark.slow
def test_the_papers_settings_train():
    training = Training(
        preset("ALE/Pong-v5", "paper", replay="proportional", steps=60, warmup=40, capacity=100,
               batch_size=4, train_every=10, eval_every=60, eval_episodes=1, eval_max_steps=5)
    )  # fmt: skip
    report = list(training.run())[-1]

    assert report.updates == 3  # at steps 40, 50 and 60
    assert np.isfinite(report.loss)
    assert training.agent.memory_buffer.autoreset == "same_step"
    training.close()


def test_every_setting_of_the_paper_reaches_the_agent():
    training = Training(
        preset("ALE/Pong-v5", "paper", replay="proportional", steps=60, warmup=40, capacity=100)
    )
    config, agent = training.config, training.agent
    training.close()

    (group,) = agent.optimizer.param_groups
    assert type(agent.optimizer).__name__ == "CentredRMSProp"
    assert group["eps"] == config.optimizer_eps == (0.01 / 32**2) / 16
    assert agent.online_network.layers[-1].bias.shape == (1,)
    assert agent.clip_td_errors
    assert (agent.tau, agent.target_period, agent.gradient_clip) == (None, 7_500, np.inf)


@pytest.mark.slow
def test_evaluations_are_played_as_the_settings_say(monkeypatch):
    """With the same stickiness as in training."""
    played = []

    def evaluate(network, env_id, episodes, seed, **how):
        played.append((env_id, episodes, how))
        return Evaluation(np.ones(1), np.ones(1, np.int64), 1.0, 0.0, 1.0, (1.0, 1.0))

    monkeypatch.setattr("prioritized_replay.training.loop.evaluate", evaluate)
    training = Training(
        preset("MinAtar/Breakout-v1", steps=8, warmup=4, capacity=8, batch_size=2, eval_every=8,
               eval_episodes=3, final_eval_episodes=5, eval_max_steps=123, eval_epsilon=0.25,
               sticky_actions=0.5)
    )  # fmt: skip
    list(training.run())
    training.final_evaluation()
    training.close()

    assert [(env_id, episodes) for env_id, episodes, _ in played] == [
        ("MinAtar/Breakout-v1", 3),
        ("MinAtar/Breakout-v1", 5),
    ]
    for _, _, how in played:
        assert (how["sticky_actions"], how["max_steps"], how["epsilon"]) == (0.5, 123, 0.25)
    assert training._env.unwrapped.game.sticky_action_prob == 0.5


def test_more_warmup_than_steps_is_refused():
    for steps in (500, 1_000):
        message = rf"^steps must be > warmup \(1000\), or nothing is learnt, got {steps}$"
        with pytest.raises(ValueError, match=message):
            Training(preset("Clock-v0", steps=steps))
