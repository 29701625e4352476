"""The training loop: environment -> memory -> agent -> td errors -> memory, as a generator.

Knows the configuration, Gymnasium and the agent; prints, logs and saves nothing.
"""

import math
import signal
import time
from collections.abc import Callable, Iterator
from typing import Self

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from torch import Tensor

from prioritized_replay.envs.make import plays_vectors_only
from prioritized_replay.replay import ReplayBuffer
from prioritized_replay.training.build import (
    check_memory,
    make_agent,
    make_memory,
    make_training_env,
)
from prioritized_replay.training.collectors import Collector, ManyEnvironments, OneEnvironment
from prioritized_replay.training.config import TrainConfig
from prioritized_replay.training.evaluation import Evaluation, evaluate
from prioritized_replay.training.progress import Progress
from prioritized_replay.training.state import (
    Learnt,
    State,
    is_finite,
    progress_of,
    restored,
    state_of,
)
from prioritized_replay.training.workers import Workers

_STACKED = 4  # images of an observation of ALE


class Stopped(KeyboardInterrupt):
    """A training was asked to stop, and stopped between two steps: it can be resumed from there.

    Examples
    --------
    >>> from prioritized_replay.training import preset
    >>> config = preset("CliffWalking-v1", steps=300, warmup=150, eval_max_steps=50)
    >>> training = Training(config)
    >>> try:
    ...     for progress in training.run(report_every=100):
    ...         training.stop()  # as the handler of a signal would
    ... except Stopped:  # a KeyboardInterrupt: ``except Exception`` lets it pass
    ...     print("stopped after step", training.step)
    stopped after step 100
    >>> [progress.step for progress in training.run(report_every=100)]
    [200, 300]
    """


class Training:
    """One training run; :meth:`run` makes it happen, a piece at a time.

    Parameters
    ----------
    config : TrainConfig
        All settings of the run.
    steps : int, optional
        Environment steps to make, if more than in the configuration. The schedules are not
        stretched: beyond their last step they keep their final values.
    memory : ReplayBuffer, optional
        The agent's replay memory, made for the same settings; by default a new one.

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
        How often the environments were reset from outside: once, and once more for each time that
        the run was resumed.
    learnt : Learnt
        Returns, td errors and weights that the next report is made of.
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

    def __init__(
        self, config: TrainConfig, steps: int | None = None, memory: ReplayBuffer | None = None
    ) -> None:
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
            memory = self._memory(memory, memory_seed)
            self.agent = make_agent(config, self._env, memory, agent_seed)
        except BaseException:
            self._env.close()
            raise
        kind = ManyEnvironments if isinstance(self._env, VectorEnv) else OneEnvironment
        self._collector: Collector = kind(self._env, self.agent, clip_rewards=config.clip_rewards)  # type: ignore[arg-type]
        self.steps = config.steps if steps is None else steps
        self.step = self.episodes = self.reported = self.begun = self.best_step = 0
        self.best_state: dict[str, Tensor] | None = None
        self.best_evaluation: Evaluation | None = None
        self.learnt = Learnt()
        self._evaluating = False
        self._stop: int | None = None
        self.replay_bytes = self._replay_bytes()

    def run(
        self, *, report_every: int = 500, after_step: Callable[[], object] | None = None
    ) -> Iterator[Progress]:
        """Train to the end, reporting every so many steps and after each evaluation.

        Saving and showing are the caller's. The generator may be closed, or left by an exception
        such as KeyboardInterrupt. The agent stays usable then, and another ``run()`` continues from
        ``step`` with new episodes. No update is lost or repeated if the generator was left by
        :class:`Stopped`, or while it waited for its caller.

        Parameters
        ----------
        report_every : int
            Environment steps between reports.
        after_step : callable, optional
            Called after each step of training (with E environments: of all of them).

        Yields
        ------
        Progress

        Raises
        ------
        Stopped
            :meth:`stop` was called.
        FloatingPointError
            The agent's td errors or its gradient are not finite: it has diverged, or the
            environment gave such numbers.

        Notes
        -----
        Sets torch's number of CPU threads for the whole process.

        Examples
        --------
        >>> from prioritized_replay.training import preset
        >>> config = preset("CliffWalking-v1", steps=300, warmup=150, eval_max_steps=50)
        >>> training = Training(config)
        >>> reports = training.run(report_every=100)
        >>> training.step  # a generator: it trains while somebody takes its reports
        0
        >>> [progress.step for progress in reports]
        [100, 200, 300]
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
                pace = (self.step - since) / seconds
                progress = progress_of(self, pace, evaluation, is_best)
                self.learnt.clear()
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
            if after_step is not None:
                after_step()

    def stop(self, number: int = signal.SIGINT) -> None:
        """Make :meth:`run` and :meth:`final_evaluation` raise :class:`Stopped` as soon as possible.

        For signal handlers. An evaluation is left at once, a step of training is completed. If
        that takes too long, a second call raises KeyboardInterrupt. What was learnt is still there
        then, but the run cannot be resumed exactly from that moment.

        Parameters
        ----------
        number : int
            The number of the signal; the exception carries it.

        Examples
        --------
        >>> from prioritized_replay.training import preset
        >>> config = preset("CliffWalking-v1", steps=300, warmup=150, eval_max_steps=50)
        >>> training = Training(config)
        >>> training.stop()  # nothing yet: `run` will raise it
        >>> try:
        ...     next(training.run())
        ... except Stopped:
        ...     print("stopped after step", training.step)
        stopped after step 0
        """
        if self._stop is not None:
            raise KeyboardInterrupt(number)
        self._stop = number
        if self._evaluating:
            self._heed_stop()

    def state_dict(self) -> State:
        """Return everything but the replay that is needed to resume; see :meth:`resume`.

        The state holds tensors and plain values only: ``torch.load(file, weights_only=True)``
        reads it back. Take it while :meth:`run` waits for its caller, or after :class:`Stopped`,
        and do not change it.

        Examples
        --------
        >>> from prioritized_replay.training import preset
        >>> config = preset("CliffWalking-v1", steps=300, warmup=150, eval_max_steps=50)
        >>> training = Training(config)
        >>> progress = next(training.run(report_every=200))
        >>> state = training.state_dict()  # the replay is to be saved at the same moment
        >>> state["counts"]["step"], "replay" in state
        (200, False)
        """
        return state_of(self)

    @classmethod
    def resume(
        cls, config: TrainConfig, state: State, memory: ReplayBuffer, steps: int | None = None
    ) -> Self:
        """Return a training that continues another one of the same configuration.

        The learner, the replay, the schedules and all counts are as they were, bit for bit. No
        environment is: the episodes that were open are ended, as ``ReplayBuffer.end_episode``
        does, and new ones begin with a seed that the state fixes. So all trainings that are resumed
        from one state are equal.

        Parameters
        ----------
        config : TrainConfig
        state : dict
            As :meth:`state_dict` returned it.
        memory : ReplayBuffer
            As it was at that moment; it becomes the agent's.
        steps : int, optional
            As for :class:`Training`.

        Raises
        ------
        ValueError
            The state or the replay is not that of such a training.

        Examples
        --------
        >>> from prioritized_replay.training import preset
        >>> config = preset("CliffWalking-v1", steps=300, warmup=150, eval_max_steps=50)
        >>> training = Training(config)
        >>> progress = next(training.run(report_every=200))
        >>> again = Training.resume(config, training.state_dict(), training.agent.memory_buffer)
        >>> again.agent.updates == training.agent.updates
        True
        >>> [progress.step for progress in again.run(report_every=100)]  # from there, not from 0
        [300]
        """
        training = cls(config, steps, memory)
        try:
            restored(training, state)
        except BaseException:
            training.close()
            raise
        return training

    def final_evaluation(self, episodes: int | None = None) -> Evaluation:
        """Evaluate the best model (the present one before any evaluation) for the record.

        The seeds had no part in training nor in choosing the model.

        Parameters
        ----------
        episodes : int, optional
            By default ``config.final_eval_episodes``.

        Examples
        --------
        >>> from prioritized_replay.training import preset
        >>> config = preset("CliffWalking-v1", steps=300, warmup=150, eval_max_steps=50)
        >>> training = Training(config)
        >>> progress = list(training.run(report_every=100))[-1]
        >>> evaluation = training.final_evaluation(episodes=2)  # of the best one, not the last
        >>> evaluation.returns.shape, training.best_step
        ((2,), 300)
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

    def workers(self) -> Workers | None:
        """Return what the next report says of actors and shards, None where there are none.

        Examples
        --------
        >>> from prioritized_replay.training import preset
        >>> config = preset("CliffWalking-v1", steps=300, warmup=150, eval_max_steps=50)
        >>> Training(config).workers() is None  # this process alone plays
        True
        """
        return None

    def _memory(self, memory: ReplayBuffer | None, seed: int) -> ReplayBuffer:
        """Return the agent's memory: the one that is given, or a new one."""
        if self.config.actors:
            raise ValueError(
                f"actors must be 0 for a training in one process, got {self.config.actors}: "
                "per train has actors"
            )
        if memory is None:
            return make_memory(self.config, self._env, seed)
        check_memory(memory, self.config, self._env)
        return memory

    def _replay_bytes(self) -> int:
        frames = _STACKED if plays_vectors_only(self.config.env_id) else 1
        return self.agent.memory_buffer.bytes_when_full(frames)

    def _begin(self) -> None:
        """Begin new episodes, each time with another seed that the run's own fixes."""
        seed = self._env_seed
        if self.begun:
            seed = int(np.random.SeedSequence([seed, self.begun]).generate_state(1)[0])
        self.begun += 1
        self._begin_episodes(seed)

    def _begin_episodes(self, seed: int) -> None:
        self._collector.begin(seed)

    def _advance(self) -> None:
        """Make one step in each environment, and the updates that go with it."""
        config, agent, before = self.config, self.agent, self.step
        for episode_return in self._collector.step():
            self.episodes += 1
            self.learnt.returns.append(episode_return)
        self.step += self._collector.num_envs
        trainings = self.step // config.train_every - before // config.train_every
        if trainings and len(agent.memory_buffer) >= config.warmup:
            for _ in range(trainings * config.updates_per_train):
                self._optimize()

    def _optimize(self) -> None:
        try:
            self._update()
        except ValueError as error:
            if "must be finite" not in str(error):
                raise
            raise FloatingPointError(f"step {self.step:,}: {error}") from error
        self.learnt.add_update(self.agent)

    def _update(self) -> None:
        self.agent.optimize()

    def _owes(self, period: int) -> bool:
        """Whether a multiple of a period was reached since the last report."""
        return self.step // period > self.reported // period

    def _heed_stop(self) -> None:
        if self._stop is not None:
            number, self._stop = self._stop, None
            raise Stopped(number)

    def close(self) -> None:
        """Close the environment; the agent stays usable.

        Examples
        --------
        >>> from prioritized_replay.training import preset
        >>> config = preset("CliffWalking-v1", steps=300, warmup=150, eval_max_steps=50)
        >>> training = Training(config)
        >>> training.close()
        >>> action = training.agent.act(36, greedy=True)
        >>> 0 <= action < 4
        True
        """
        self._env.close()

    def _select(self) -> tuple[Evaluation, bool]:
        """Evaluate the present network, always on the same episodes, and keep it if it is best.

        A network with numbers that are not finite is never the best one.
        """
        evaluation = self._evaluate(self.config.eval_episodes, self._select_seed)
        is_best = is_finite(self.agent.online_network.state_dict()) and (
            self.best_evaluation is None or evaluation.mean >= self.best_evaluation.mean
        )
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
