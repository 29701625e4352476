"""The training loop: environment -> memory -> agent -> td errors -> memory, as a generator.

Knows the configuration, Gymnasium and the agent; prints, logs and saves nothing.
"""

import math
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import VectorEnv
from torch import Tensor

from prioritized_replay.dqn.agent import DQN
from prioritized_replay.dqn.collecting import Collector, ManyEnvironments, OneEnvironment
from prioritized_replay.dqn.config import TrainConfig
from prioritized_replay.dqn.environments import make_env, make_vector, plays_vectors_only
from prioritized_replay.dqn.evaluation import Evaluation, evaluate
from prioritized_replay.dqn.room import bytes_when_full
from prioritized_replay.dqn.td import Loss, td_loss
from prioritized_replay.replay import ReplayBuffer
from prioritized_replay.samplers import Proportional, RankBased, Uniform
from prioritized_replay.schedules import constant, linear

_RECENT = 100  # training episodes in the mean return
_STACKED = 4  # frames of an observation of ALE


@dataclass(frozen=True, eq=False)
class Progress:
    """Where a run stands; losses, errors and speed are means since the last report.

    Attributes
    ----------
    step, steps : int
        Environment steps done, and of the whole run. With several environments the last steps
        may be a few more than those of the whole run.
    updates : int
        Updates of the network so far.
    episodes : int
        Training episodes completed so far.
    mean_return : float
        Mean return of the last 100 training episodes; NaN before the first has ended.
    last_return : float
        Return of the last training episode; NaN before the first has ended.
    epsilon, beta, learning_rate : float
        As in force at this step.
    loss : float
        Mean weighted loss; NaN where there was no update.
    td_error : float
        Mean abs(td error) of the drawn transitions, from before their updates; NaN as above.
    effective_sample_size : float
        Of the last batch's weights, (sum w)**2 / sum w**2, in [1, B]; NaN before the first.
    steps_per_second : float
        Environment steps per second of training; evaluations and the caller are not counted.
    evaluation : Evaluation or None
        The evaluation made at this step, if there was one.
    is_best : bool
        That evaluation is the best so far (of equals, the later), and the agent's network is in
        ``Training.best_state``.
    """

    step: int
    steps: int
    updates: int
    episodes: int
    mean_return: float
    last_return: float
    epsilon: float
    beta: float
    learning_rate: float
    loss: float
    td_error: float
    effective_sample_size: float
    steps_per_second: float
    evaluation: Evaluation | None = None
    is_best: bool = False


class Training:
    """One training run; :meth:`run` makes it happen, a piece at a time.

    Parameters
    ----------
    config : TrainConfig
        All there is to say about the run.

    Attributes
    ----------
    config : TrainConfig
    agent : DQN
        Usable at any time, also after the run was stopped.
    step, episodes : int
        Environment steps done and training episodes completed.
    replay_bytes : int
        About how much memory the replay needs when it is full.
    best_state : dict of str to Tensor, or None
        Weights of the online network at the best evaluation so far, on the CPU.
    best_evaluation : Evaluation or None
        That evaluation.

    Raises
    ------
    ValueError
        The environment is unknown (the message gives near names), its actions are continuous, its
        observations are neither a box nor discrete, or the device cannot be used.
    ImportError
        The environment needs a package that is not installed.

    Examples
    --------
    >>> from prioritized_replay.dqn import preset
    >>> training = Training(preset("CartPole-v1", steps=1_200, eval_every=600, eval_episodes=2))
    >>> [(progress.step, progress.is_best) for progress in training.run()][0]
    (500, False)
    >>> training.step
    1200
    """

    def __init__(self, config: TrainConfig) -> None:
        seeds = np.random.SeedSequence(config.seed).generate_state(5).tolist()
        agent_seed, memory_seed, self._env_seed, self._select_seed, self._final_seed = seeds
        self.config = config
        self._env = _make_env(config)
        try:
            if config.steps <= config.warmup:
                raise ValueError(
                    f"steps must be > warmup ({config.warmup}), or nothing is learnt, "
                    f"got {config.steps}"
                )
            self.agent = _make_agent(config, self._env, agent_seed, memory_seed)
        except BaseException:
            self._env.close()
            raise
        kind = ManyEnvironments if isinstance(self._env, VectorEnv) else OneEnvironment
        self._collector: Collector = kind(self._env, self.agent, clip_rewards=config.clip_rewards)  # type: ignore[arg-type]
        self.step = 0
        self.episodes = 0
        self.best_state: dict[str, Tensor] | None = None
        self.best_evaluation: Evaluation | None = None
        self._recent: deque[float] = deque(maxlen=_RECENT)
        frames = _STACKED if plays_vectors_only(config.env_id) else 1
        self.replay_bytes = bytes_when_full(self.agent.memory_buffer, frames)

    def run(self, *, report_every: int = 500) -> Iterator[Progress]:
        """Train to the end, reporting every so many steps and after each evaluation.

        Saving and showing are the caller's. The generator may be closed, or left by an exception
        such as KeyboardInterrupt; the agent stays usable then, and another ``run()`` goes on
        from ``step`` with a new episode.

        Parameters
        ----------
        report_every : int
            Environment steps between reports.

        Yields
        ------
        Progress

        Notes
        -----
        Sets torch's number of CPU threads for the whole process.
        """
        if report_every < 1:
            raise ValueError(f"report_every must be >= 1, got {report_every}")
        config, agent, memory = self.config, self.agent, self.agent.memory_buffer
        torch.set_num_threads(config.threads)
        collector = self._collector
        collector.begin(self._env_seed + self.episodes)
        errors: list[Tensor] = []
        weights: list[Tensor] = []
        reported, started = self.step, time.perf_counter()
        while self.step < config.steps:
            before = self.step
            for episode_return in collector.step():
                self.episodes += 1
                self._recent.append(episode_return)
            self.step += collector.num_envs
            trainings = self._times(before, config.train_every)
            if trainings and len(memory) >= config.warmup:
                for _ in range(trainings * config.updates_per_train):
                    agent.optimize()
                    # Tensors are only collected here: reading each would stall a GPU.
                    errors.append(agent.last_td_errors)  # type: ignore[arg-type]
                    weights.append(agent.last_weights)  # type: ignore[arg-type]
            evaluating = self._times(before, config.eval_every) or self.step >= config.steps
            if evaluating or self._times(before, report_every):
                seconds = time.perf_counter() - started
                evaluation, is_best = self._select() if evaluating else (None, False)
                yield Progress(
                    step=self.step,
                    steps=config.steps,
                    updates=agent.updates,
                    episodes=self.episodes,
                    mean_return=float(np.mean(self._recent)) if self._recent else math.nan,
                    last_return=self._recent[-1] if self._recent else math.nan,
                    epsilon=agent.epsilon,
                    beta=agent.beta,
                    learning_rate=agent.learning_rate,
                    loss=_mean_loss(errors, weights, config.loss),
                    td_error=float(torch.cat(errors).abs().mean()) if errors else math.nan,
                    effective_sample_size=_effective_sample_size(agent.last_weights),
                    steps_per_second=(self.step - reported) / seconds,
                    evaluation=evaluation,
                    is_best=is_best,
                )
                errors.clear()
                weights.clear()
                reported, started = self.step, time.perf_counter()

    def final_evaluation(self, episodes: int | None = None) -> Evaluation:
        """Evaluate the best model (the present one before any evaluation) for the record.

        The seeds had no part in training nor in choosing the model.

        Parameters
        ----------
        episodes : int, optional
            By default ``config.final_eval_episodes``.
        """
        episodes = self.config.final_eval_episodes if episodes is None else episodes
        network = self.agent.online_network
        present = {name: value.clone() for name, value in network.state_dict().items()}
        if self.best_state is not None:
            network.load_state_dict(self.best_state)
        try:
            return self._evaluate(episodes, self._final_seed)
        finally:
            network.load_state_dict(present)

    def _times(self, before: int, period: int) -> int:
        """Return how many multiples of a period the last step, from ``before`` on, came to."""
        return self.step // period - before // period

    def close(self) -> None:
        """Close the environment; the agent stays usable."""
        self._env.close()

    def _select(self) -> tuple[Evaluation, bool]:
        """Evaluate the present network, always on the same episodes, and keep it if it is best."""
        evaluation = self._evaluate(self.config.eval_episodes, self._select_seed)
        is_best = self.best_evaluation is None or evaluation.mean >= self.best_evaluation.mean
        if is_best:
            weights = self.agent.online_network.state_dict()
            self.best_state = {
                name: value.detach().to("cpu", copy=True) for name, value in weights.items()
            }
            self.best_evaluation = evaluation
        return evaluation, is_best

    def _evaluate(self, episodes: int, seed: int) -> Evaluation:
        return evaluate(
            self.agent.online_network,
            self.config.env_id,
            episodes,
            seed,
            epsilon=self.config.eval_epsilon,
            max_steps=self.config.eval_max_steps,
            sticky_actions=self.config.sticky_actions,
            device=self.agent.device,
        )


def _make_env(config: TrainConfig) -> gymnasium.Env[Any, Any] | VectorEnv[Any, Any, Any]:
    sticky = config.sticky_actions
    if config.envs == 1 and not config.end_on_life_loss and not plays_vectors_only(config.env_id):
        return make_env(config.env_id, sticky_actions=sticky)  # faster than a vector of one
    return make_vector(
        config.env_id,
        config.envs,
        sticky_actions=sticky,
        end_on_life_loss=config.end_on_life_loss,
        threads=config.threads,
    )


def _make_agent(
    config: TrainConfig,
    env: gymnasium.Env[Any, Any] | VectorEnv[Any, Any, Any],
    agent_seed: int,
    memory_seed: int,
) -> DQN:
    memory = ReplayBuffer.for_env(
        env,
        config.capacity,
        sampler=make_sampler(config),
        n_step=config.n_step,
        gamma=config.gamma,
        seed=memory_seed,
    )
    if isinstance(env, VectorEnv):
        spaces = env.single_observation_space, env.single_action_space
    else:
        spaces = env.observation_space, env.action_space
    updates = config.total_updates
    falling = round(config.epsilon_fraction * config.steps)
    return DQN(
        *spaces,
        memory,
        network=config.network,
        hidden_sizes=config.hidden_sizes,
        dueling=config.dueling,
        shared_bias=config.shared_bias,
        optimizer=config.optimizer,
        optimizer_eps=config.optimizer_eps,
        learning_rate=linear(config.learning_rate, config.learning_rate_end, updates),
        double=config.double,
        loss=config.loss,
        clip_td_errors=config.clip_td_errors,
        gradient_clip=config.gradient_clip,
        tau=config.tau,
        target_period=config.target_period,
        batch_size=config.batch_size,
        beta=linear(config.effective_beta_start, config.beta_end, updates),
        epsilon=(
            linear(config.epsilon_start, config.epsilon_end, falling)
            if falling
            else constant(config.epsilon_end)
        ),
        warmup=config.warmup,
        device=config.device,
        precision=config.precision,
        seed=agent_seed,
    )


def make_sampler(config: TrainConfig) -> Proportional | RankBased | Uniform:
    """Return the sampler that a configuration asks for."""
    if config.replay == "rank":
        return RankBased(alpha=config.effective_alpha)
    if config.replay == "proportional":
        return Proportional(alpha=config.effective_alpha, eps=config.priority_eps)
    return Uniform()


def _mean_loss(errors: list[Tensor], weights: list[Tensor], loss: Loss) -> float:
    """Return the mean of all updates' losses; batches are equally large, so it is one of rows."""
    if not errors:
        return math.nan
    return float(td_loss(torch.cat(errors), torch.cat(weights), loss))


def _effective_sample_size(weights: Tensor | None) -> float:
    if weights is None:
        return math.nan
    return float(weights.sum() ** 2 / weights.square().sum())
