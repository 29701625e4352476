"""The training loop: environment -> memory -> agent -> td errors -> memory, as a generator.

Knows the configuration, Gymnasium and the agent; prints, logs and saves nothing.
"""

import math
import signal
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from torch import Tensor

from prioritized_replay.dqn.td import Loss, td_loss
from prioritized_replay.envs.make import plays_vectors_only
from prioritized_replay.replay import ReplayBuffer
from prioritized_replay.training.build import check_same, make_agent, make_training_env
from prioritized_replay.training.collectors import Collector, ManyEnvironments, OneEnvironment
from prioritized_replay.training.config import TrainConfig
from prioritized_replay.training.evaluation import Evaluation, evaluate
from prioritized_replay.training.progress import Progress
from prioritized_replay.training.room import bytes_when_full

State = dict[str, Any]

_RECENT = 100  # training episodes in the mean return
_STACKED = 4  # frames of an observation of ALE
_NO_STATE = (
    *(ValueError, TypeError, KeyError, AttributeError),
    *(RuntimeError, IndexError, OverflowError),
)
_COUNTS = ("step", "episodes", "reported", "best_step", "begun")


class Stopped(KeyboardInterrupt):
    """A run was asked to stop, and has: between two steps, from where it can go on."""


class Training:
    """One training run; :meth:`run` makes it happen, a piece at a time.

    Parameters
    ----------
    config : TrainConfig
        All there is to say about the run.
    steps : int, optional
        Environment steps to make, where the run is to go on beyond those of the configuration;
        the schedules do not: they stay at their ends.

    Attributes
    ----------
    config : TrainConfig
    agent : DQN
        Usable at any time, also after the run was stopped.
    steps : int
        Environment steps of the whole run.
    step, episodes : int
        Environment steps done and training episodes completed.
    reported : int
        The step of the latest report.
    begun : int
        How often the environments were begun anew, which is once unless the run was stopped.
    replay_bytes : int
        About how much memory the replay needs when it is full.
    best_state : dict of str to Tensor, or None
        Weights of the online network at the best evaluation so far, on the CPU.
    best_evaluation : Evaluation or None
        That evaluation.
    best_step : int
        The step it was made at.

    Raises
    ------
    ValueError
        The environment is unknown (the message gives near names), its actions are continuous, its
        observations are neither a box nor discrete, or the device cannot be used.
    ImportError
        The environment needs a package that is not installed.

    Examples
    --------
    >>> from prioritized_replay.training import preset
    >>> training = Training(preset("CartPole-v1", steps=1_200, eval_every=600, eval_episodes=2))
    >>> [(progress.step, progress.is_best) for progress in training.run()][0]
    (500, False)
    >>> training.step
    1200
    """

    def __init__(self, config: TrainConfig, steps: int | None = None) -> None:
        seeds = np.random.SeedSequence(config.seed).generate_state(5).tolist()
        agent_seed, memory_seed, self._env_seed, self._select_seed, self._final_seed = seeds
        self.config = config
        self._env = make_training_env(config)
        try:
            if config.steps <= config.warmup:
                raise ValueError(
                    f"steps must be > warmup ({config.warmup}), or nothing is learnt, "
                    f"got {config.steps}"
                )
            self.agent = make_agent(config, self._env, agent_seed, memory_seed)
        except BaseException:
            self._env.close()
            raise
        kind = ManyEnvironments if isinstance(self._env, VectorEnv) else OneEnvironment
        self._collector: Collector = kind(self._env, self.agent, clip_rewards=config.clip_rewards)  # type: ignore[arg-type]
        self.steps = config.steps if steps is None else steps
        self.step = self.episodes = self.reported = self.begun = self.best_step = 0
        self.best_state: dict[str, Tensor] | None = None
        self.best_evaluation: Evaluation | None = None
        self._recent: deque[float] = deque(maxlen=_RECENT)
        self._errors: list[Tensor] = []  # and weights of the updates since the last report
        self._weights: list[Tensor] = []
        self._evaluating = False
        self._stop: int | None = None
        frames = _STACKED if plays_vectors_only(config.env_id) else 1
        self.replay_bytes = bytes_when_full(self.agent.memory_buffer, frames)

    def run(self, *, report_every: int = 500) -> Iterator[Progress]:
        """Train to the end, reporting every so many steps and after each evaluation.

        Saving and showing are the caller's. The generator may be closed, or left by an exception
        such as KeyboardInterrupt; the agent stays usable then, and another ``run()`` goes on
        from ``step`` with new episodes. It goes on exactly where the generator was left while it
        waited for its caller, or by :class:`Stopped`.

        Parameters
        ----------
        report_every : int
            Environment steps between reports.

        Yields
        ------
        Progress

        Raises
        ------
        Stopped
            :meth:`stop` was called.

        Notes
        -----
        Sets torch's number of CPU threads for the whole process.
        """
        if report_every < 1:
            raise ValueError(f"report_every must be >= 1, got {report_every}")
        torch.set_num_threads(self.config.threads)
        started: float | None = None
        since = self.step
        while True:
            self._heed_stop()
            evaluating = (
                self._owes(self.config.eval_every) or self.reported < self.step >= self.steps
            )
            if evaluating or self._owes(report_every):
                seconds = math.nan if started is None else time.perf_counter() - started
                evaluation, is_best = self._select() if evaluating else (None, False)
                progress = self._progress((self.step - since) / seconds, evaluation, is_best)
                self._errors.clear()
                self._weights.clear()
                self.reported = since = self.step
                yield progress
                if started is not None:
                    started = time.perf_counter()
                continue
            if self.step >= self.steps:
                return
            if started is None:
                self._begin()
                started = time.perf_counter()
            self._advance()

    def stop(self, number: int = signal.SIGINT) -> None:
        """Let :meth:`run` and :meth:`final_evaluation` raise :class:`Stopped` as soon as may be.

        For signal handlers. An evaluation is left at once, a step of training is completed. Where
        that takes too long, a second call raises KeyboardInterrupt; what is learnt is still there
        then, but the run cannot go on exactly.

        Parameters
        ----------
        number : int
            What the exception is to carry: the number of the signal.
        """
        if self._stop is not None:
            raise KeyboardInterrupt(number)
        self._stop = number
        if self._evaluating:
            self._heed_stop()

    def state_dict(self) -> State:
        """Return everything but the replay that a run needs to go on; see :meth:`restore`.

        Tensors and plain values only: ``torch.load(file, weights_only=True)`` reads it back. To be
        taken where the run was left as :meth:`run` says, and not changed.
        """
        best, judged = None, self.best_evaluation
        if judged is not None:
            best = {
                "network": self.best_state,
                "returns": torch.from_numpy(judged.returns),
                "lengths": torch.from_numpy(judged.lengths),
                "numbers": [judged.mean, judged.std, judged.iqm, *judged.interval],
                "capped": judged.capped,
            }
        agent = self.agent
        latest = agent.last_td_errors, agent.last_weights
        return {
            "agent": agent.state_dict(),
            "counts": {name: getattr(self, name) for name in _COUNTS},
            "recent": [float(episode_return) for episode_return in self._recent],
            "errors": torch.cat(self._errors) if self._errors else None,
            "weights": torch.cat(self._weights) if self._weights else None,
            "latest": None if latest[0] is None else list(latest),
            "best": best,
        }

    def restore(self, state: State, memory: ReplayBuffer) -> None:
        """Go on where another training of the same configuration was.

        The learner, the replay, the schedules and all counts are as they were, bit for bit. No
        environment is: the episodes that were open are ended, as ``ReplayBuffer.end_episode``
        does, and new ones begin with a seed that the state records; so all that go on from one
        state go on alike.

        Parameters
        ----------
        state : dict
            As :meth:`state_dict` returned it.
        memory : ReplayBuffer
            As it was then; it becomes the agent's.

        Raises
        ------
        ValueError
            One of them is not of such a training. This one cannot be used then.
        """
        check_same(memory, self.agent.memory_buffer)
        try:
            self._restore(state)
        except _NO_STATE as error:
            said = " ".join(str(error).split())[:200]
            raise ValueError(
                f"the state does not fit the configuration: {type(error).__name__}: {said}"
            ) from error
        self.agent.memory_buffer = memory

    def _restore(self, state: State) -> None:
        counts = {name: state["counts"][name] for name in _COUNTS}
        for name, count in counts.items():
            if type(count) is not int or count < 0:
                raise ValueError(f"{name} must be an integer >= 0, got {count!r}")
        agent, device = self.agent, self.agent.device
        agent.load_state_dict(state["agent"])
        vars(self).update(counts)
        self._recent.extend(map(float, state["recent"]))
        for name, kept in (("errors", self._errors), ("weights", self._weights)):
            if state[name] is not None:
                kept.append(_row_of_numbers(name, state[name]).to(device))
        if list(map(len, self._errors)) != list(map(len, self._weights)):
            raise ValueError("there must be as many weights as errors")
        if state["latest"] is not None:
            for part in state["latest"]:
                _row_of_numbers("latest", part)
            agent.last_td_errors, agent.last_weights = (part.to(device) for part in state["latest"])
        if (best := state["best"]) is not None:
            network = agent.online_network.state_dict()
            if {name: value.shape for name, value in best["network"].items()} != {
                name: value.shape for name, value in network.items()
            }:
                raise ValueError("the best network is another")
            mean, std, iqm, low, high = map(float, best["numbers"])
            self.best_state = best["network"]
            self.best_evaluation = Evaluation(
                returns=best["returns"].numpy(),
                lengths=best["lengths"].numpy(),
                mean=mean,
                std=std,
                iqm=iqm,
                interval=(low, high),
                capped=int(best["capped"]),
            )

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

    def _begin(self) -> None:
        """Begin new episodes, each time with another seed that the run's own fixes."""
        seed = self._env_seed
        if self.begun:
            seed = int(np.random.SeedSequence([seed, self.begun]).generate_state(1)[0])
        self.begun += 1
        self._collector.begin(seed)

    def _advance(self) -> None:
        """Make one step in each environment, and the updates that go with it."""
        config, agent, before = self.config, self.agent, self.step
        for episode_return in self._collector.step():
            self.episodes += 1
            self._recent.append(episode_return)
        self.step += self._collector.num_envs
        trainings = self.step // config.train_every - before // config.train_every
        if trainings and len(agent.memory_buffer) >= config.warmup:
            for _ in range(trainings * config.updates_per_train):
                agent.optimize()
                # Tensors are only collected here: reading each would stall a GPU.
                self._errors.append(agent.last_td_errors)  # type: ignore[arg-type]
                self._weights.append(agent.last_weights)  # type: ignore[arg-type]

    def _owes(self, period: int) -> bool:
        """Whether a multiple of a period was reached since the last report."""
        return self.step // period > self.reported // period

    def _heed_stop(self) -> None:
        if self._stop is not None:
            number, self._stop = self._stop, None
            raise Stopped(number)

    def _progress(self, pace: float, evaluation: Evaluation | None, is_best: bool) -> Progress:
        agent, errors = self.agent, self._errors
        return Progress(
            step=self.step,
            steps=self.steps,
            updates=agent.updates,
            episodes=self.episodes,
            mean_return=float(np.mean(self._recent)) if self._recent else math.nan,
            last_return=self._recent[-1] if self._recent else math.nan,
            epsilon=agent.epsilon,
            beta=agent.beta,
            learning_rate=agent.learning_rate,
            loss=_mean_loss(errors, self._weights, self.config.loss),
            td_error=float(torch.cat(errors).abs().mean()) if errors else math.nan,
            effective_sample_size=_effective_sample_size(agent.last_weights),
            steps_per_second=pace,
            evaluation=evaluation,
            is_best=is_best,
        )

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
            self.best_evaluation, self.best_step = evaluation, self.step
        return evaluation, is_best

    def _evaluate(self, episodes: int, seed: int) -> Evaluation:
        self._evaluating = True
        try:
            self._heed_stop()
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
        finally:
            self._evaluating = False


def _row_of_numbers(name: str, value: Any) -> Tensor:
    if not isinstance(value, Tensor) or value.ndim != 1 or not value.is_floating_point():
        raise ValueError(f"{name} must be a tensor of a row of numbers")
    return value


def _mean_loss(errors: list[Tensor], weights: list[Tensor], loss: Loss) -> float:
    """Return the mean of all updates' losses; batches are equally large, so it is one of rows."""
    if not errors:
        return math.nan
    return float(td_loss(torch.cat(errors), torch.cat(weights), loss))


def _effective_sample_size(weights: Tensor | None) -> float:
    if weights is None:
        return math.nan
    return float(weights.sum() ** 2 / weights.square().sum())
