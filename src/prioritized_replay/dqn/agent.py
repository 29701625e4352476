"""How the agent learns: draw a batch, make one update, write the priorities back.

Read :meth:`Agent.optimize`, then ``learner.py`` and ``td.py``: that is one update. ``dqn.py`` makes
the parts and acts. Axes: B batch.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from prioritized_replay.dqn.checks import Schedule, check_warmup
from prioritized_replay.dqn.conversion import Conversion
from prioritized_replay.dqn.devices import modes_kept
from prioritized_replay.dqn.protocol import Learner
from prioritized_replay.replay import Batch, ReplayBuffer


@dataclass(slots=True)
class _Update:
    """An update from its step on: what an interrupted one still has to do."""

    number: int
    td_errors: Tensor
    batch: Batch
    memory: ReplayBuffer | None  # where the priorities go
    stepped: bool = False


class Agent:
    """The learning half of :class:`~prioritized_replay.dqn.DQN`, which has the documentation.

    Parameters
    ----------
    learner : Learner
        Of the online and the target network.
    conversion : Conversion
    learning_rate : schedule of updates, or None
        None: the optimizer keeps its own.
    beta, epsilon : schedule of updates, schedule of exploring actions
    """

    def __init__(
        self,
        learner: Learner,
        conversion: Conversion,
        memory_buffer: ReplayBuffer,
        *,
        learning_rate: Schedule | None,
        beta: Schedule,
        epsilon: Schedule,
        clip_td_errors: bool,
        tau: float | None,
        target_period: int,
        batch_size: int,
        warmup: int,
        device: torch.device,
    ) -> None:
        self.memory_buffer, self.optimizer, self.device = memory_buffer, learner.optimizer, device
        self.tau, self.target_period = tau, target_period
        self.batch_size, self.warmup = batch_size, warmup
        self._learner, self._conversion = learner, conversion
        self._learning_rate, self._beta, self._epsilon = learning_rate, beta, epsilon
        self.clip_td_errors = clip_td_errors
        self.updates = self.actions = 0
        self.adjust_epsilon()
        self.last_td_errors: Tensor | None = None
        self.last_weights: Tensor | None = None
        self._open: _Update | None = None  # its step has begun, and not all is done that follows
        self._loading = False  # load_state_dict has begun

    @property
    def beta(self) -> float:
        """Exponent of the importance-sampling weights at the next update."""
        return self._beta(self.updates)

    @property
    def learning_rate(self) -> float:
        """Step size of the next update."""
        if self._learning_rate is not None:
            return self._learning_rate(self.updates)
        return float(self.optimizer.param_groups[0]["lr"])

    def adjust_epsilon(self) -> None:
        """Bring ``epsilon`` to its schedule's value for the actions taken so far."""
        self.epsilon = self._epsilon(self.actions)

    def optimize(self) -> None:
        """Learn from one batch and write its priorities back; do nothing before ``warmup``.

        Raises
        ------
        ValueError
            The buffer can never hold ``warmup`` transitions, or as for :meth:`learn`.
        """
        self._finish()
        if len(self.memory_buffer) < self.warmup:
            check_warmup(self.memory_buffer, self.warmup)
            return
        batch = self.memory_buffer.sample(self.batch_size, self.beta)
        self._update(batch, self.memory_buffer)
        self.adjust_epsilon()

    def learn(self, batch: Batch) -> Tensor:
        """Make one update from a batch, and move the target network when it is due.

        Parameters
        ----------
        batch : Batch
            As sampled, or already as tensors.

        Returns
        -------
        float32[B], on ``device``
            Signed td errors from before the update, not weighted, to be given to
            ``memory_buffer.update_priorities(batch.ids, ...)``.

        Raises
        ------
        ValueError
            A td error or the gradient is not finite, and nothing has changed.
        """
        self._finish()
        return self._update(batch, None)

    @modes_kept()
    def _update(self, batch: Batch, memory: ReplayBuffer | None) -> Tensor:
        """Learn from a batch that came from ``memory``, or from elsewhere."""
        rate = None if self._learning_rate is None else self._learning_rate(self.updates)
        tensors = self._conversion.batch(batch, self.device)
        try:
            errors = self._learner.gradient(tensors)
            self._open = _Update(self.updates + 1, errors, tensors, memory)
        except BaseException:
            self._learner.undo()
            raise
        self._learner.step(rate)
        self._open.stepped = True
        self._finish()
        return errors

    def _finish(self, *, go_on: bool = True) -> None:
        """Do what comes after the step. Each part may be done twice, so an interrupted call too."""
        if self._loading:
            raise RuntimeError("load_state_dict was interrupted: load a state first")
        update = self._open
        if update is None:
            return
        stepped = update.stepped or self._learner.stepped()
        if stepped is None and not go_on:
            raise RuntimeError(
                "the optimizer's step was interrupted and may be half made: load_state_dict goes "
                "back to a checkpoint; optimize and learn count it as made and continue"
            )
        if stepped is not False:
            self.updates = update.number
            if self.tau is not None:
                self._learner.move_target(self.tau)
            elif self.updates % self.target_period == 0:
                self._learner.move_target(1.0)
            self.last_td_errors, self.last_weights = update.td_errors, update.batch.weights
            if update.memory is not None:
                errors = update.td_errors
                clipped = errors.clamp(-1.0, 1.0) if self.clip_td_errors else errors
                update.memory.update_priorities(update.batch.ids, clipped)
        self._open = None
