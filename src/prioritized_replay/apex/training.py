"""The training of Ape-X: actors fill the shards, this process learns from batches drawn ahead.

Knows the order of things: work, reports, updates, priorities. It is a
:class:`~prioritized_replay.training.Training`, so a run shows, saves and evaluates it as any other.
"""

import time
from typing import Any, Self, cast

import numpy as np
from torch import Tensor

from prioritized_replay.apex.cluster import Cluster
from prioritized_replay.apex.crew import Crew
from prioritized_replay.apex.exploration import epsilons
from prioritized_replay.apex.pace import Pace
from prioritized_replay.apex.shards import Emptied, Shards
from prioritized_replay.replay import ReplayBuffer
from prioritized_replay.training.build import make_memory
from prioritized_replay.training.config import TrainConfig
from prioritized_replay.training.loop import Training
from prioritized_replay.training.state import State, restored
from prioritized_replay.training.workers import ActorReport, Workers

PUBLISH_EVERY = 25
"""Updates between parameters for the actors; new ones are put out only when work is given out."""

_WAIT = 0.1  # seconds for a report, before Ctrl-C is looked for again
_PATIENCE = 600.0  # seconds without a report, after which something must be wrong


class ApexTraining(Training):
    """One training with actors; :meth:`run` makes it happen, as in one process.

    A step counts when its actor has reported it, and the updates that ``train_every`` asks for are
    made then: as many for a step as in one process. Actors have at most two pieces of work each at
    hand, so they wait where the learner is slower.

    Parameters
    ----------
    config : TrainConfig
        With ``actors`` >= 1.
    steps : int, optional
        As for :class:`Training`.
    memory : Shards, optional
        By default new ones.
    cluster : Cluster
        Where actors and shards run; it is closed with the training.

    Raises
    ------
    ValueError, ImportError
        As for :class:`Training`.
    """

    def __init__(
        self,
        config: TrainConfig,
        steps: int | None = None,
        memory: Any = None,
        *,
        cluster: Cluster,
    ) -> None:
        self._cluster = cluster
        self._shards: Any = memory
        self._crew: Crew | None = None
        try:
            super().__init__(config, steps, memory)
        except BaseException:
            if self._shards is not None:
                self._shards.close()
            cluster.close()
            raise
        self._show_epsilon()
        self._paces = [Pace() for _ in range(config.actors)]
        self._made = [0] * config.actors  # environment steps of each actor
        self._news: list[str] = []
        self._heard = time.monotonic()

    @classmethod
    def resume(
        cls,
        config: TrainConfig,
        state: State,
        memory: Any,
        steps: int | None = None,
        *,
        cluster: Cluster | None = None,
    ) -> Self:
        """Return a training that continues another one; see :meth:`Training.resume`.

        The learner, the replay and the counts are as they were; the actors begin new episodes.
        """
        assert cluster is not None
        training = cls(config, steps, memory, cluster=cluster)
        try:
            restored(training, state)
            training._made = [int(steps) for steps in state["actors"]][: config.actors]
            training._show_epsilon()
        except BaseException:
            training.close()
            raise
        return training

    def state_dict(self) -> State:
        """Return everything but the replay; the priorities that are on their way arrive first."""
        self._shards.settle()
        return {**super().state_dict(), "actors": list(self._made)}

    def workers(self) -> Workers:
        """Return what actors and shards did since the last call."""
        crew = self._crew
        replaced = [m.started for m in crew.members] if crew else [0] * self.config.actors
        actors = tuple(
            ActorReport(
                actor=number,
                epsilon=epsilon,
                steps=self._made[number],
                steps_per_second=pace.steps_per_second,
                mean_return=pace.mean_return,
                parameter_age=pace.parameter_age,
                replaced=replaced[number],
            )
            for number, (epsilon, pace) in enumerate(
                zip(epsilons(self.config.actors), self._paces, strict=True)
            )
        )
        for pace in self._paces:
            pace.clear()
        news = tuple(self._news)
        self._news.clear()  # the crew holds on to this list
        shards = self._shards.reports(fresh=self.step >= self.steps)  # the last one of the run
        return Workers(actors, shards, self._shards.rows_lost, news + self._shards.news())

    def close(self) -> None:
        """End the actors, the shards, and Ray where it was started for them."""
        try:
            if self._crew is not None:
                self._crew.end()
            self._shards.close()
        finally:
            self._cluster.close()
            super().close()

    def _show_epsilon(self) -> None:
        """Let reports show the mean of the actors: the agent here does not act."""
        self.agent.epsilon = float(np.mean(epsilons(self.config.actors)))

    def _memory(self, memory: Any, seed: int) -> ReplayBuffer:
        if memory is None:
            memory = Shards.new(self.config, self._env, seed)
        self._shards = memory
        memory.check(self.config, self._env)
        return cast(ReplayBuffer, self._shards)  # the agent asks it for gamma only

    def _replay_bytes(self) -> int:
        if not self._cluster.is_ours:
            return 0  # it is other machines' memory
        # Rows that were sent share no images.
        return make_memory(self.config, self._env, 0).bytes_when_full(1)

    def _begin_episodes(self, seed: int) -> None:
        if self._crew is None:
            self._crew = Crew(self.config, self._shards.replay, self._news.append)
        self._crew.begin(seed)
        self._heard = time.monotonic()

    def _advance(self) -> None:
        """Give out work, take one report, and make the updates that go with its steps."""
        crew, config, agent = self._crew, self.config, self.agent
        assert crew is not None
        if crew.version is None or agent.updates - crew.version >= PUBLISH_EVERY:
            weights = agent.online_network.state_dict()
            crew.publish(
                {name: w.detach().cpu().numpy() for name, w in weights.items()}, agent.updates
            )
        crew.assign(self.steps - self.step - crew.steps_at_work)
        report = crew.next_report(_WAIT)
        if report is None:
            if time.monotonic() - self._heard > _PATIENCE:
                raise RuntimeError(f"no actor has reported anything for {_PATIENCE:.0f} seconds")
            return
        self._heard = time.monotonic()
        collected, before = report.collected, self.step
        self._paces[report.number].count(collected, agent.updates)
        self._made[report.number] += collected.steps
        self.episodes += len(collected.returns)
        self.learnt.returns.extend(collected.returns)
        self.step += collected.steps
        # A report may begin before the warm-up has ended: those of its steps ask for no update.
        before = max(before, config.warmup - 1)
        trainings = self.step // config.train_every - before // config.train_every
        if trainings > 0 and self._shards.hold(config.warmup):
            try:
                for _ in range(trainings * config.updates_per_train):
                    self._optimize()
            except Emptied:
                self._news.append("The replay is empty: updates wait until it is filled again.")

    def _update(self) -> None:
        batch = self._shards.next_batch(self.agent.batch_size, lambda: self.agent.beta)
        errors: Tensor = self.agent.learn(batch)
        if self.agent.clip_td_errors:
            errors = errors.clamp(-1.0, 1.0)
        self._shards.give_back(batch.ids, errors)
