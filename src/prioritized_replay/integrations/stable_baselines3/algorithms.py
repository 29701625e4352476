"""DQN, SAC and TD3 of Stable-Baselines3 with prioritized replay; one import changed, nothing else.

Each is Stable-Baselines3's own class, with another default for ``replay_buffer_class``. The weights
reach the loss by the rewards of the batch (``weighting.py``). Here is what only the algorithm
knows: the progress of the training for beta, n and the discount, and when episodes are broken off.
"""

from __future__ import annotations

from typing import Any

from stable_baselines3 import DQN, SAC, TD3
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from prioritized_replay.integrations.stable_baselines3.buffer import PrioritizedReplayBuffer
from prioritized_replay.integrations.stable_baselines3.checkpoints import ReplayInFolder
from prioritized_replay.schedules import linear

__all__ = ["PrioritizedDQN", "PrioritizedSAC", "PrioritizedTD3", "ReplayProgress"]

ANNEALED = linear(1.0, 0.4, 1.0)  # of the progress that remains: 0.4 at first, 1 at the end


class Prioritized(ReplayInFolder, OffPolicyAlgorithm):
    """What an off-policy algorithm needs in front of it to learn from prioritized replay."""

    def _setup_model(self) -> None:
        kind = self.replay_buffer_class or PrioritizedReplayBuffer
        if not issubclass(kind, PrioritizedReplayBuffer):
            raise ValueError(
                "replay_buffer_class must be PrioritizedReplayBuffer or a subclass of it, "
                f"got {kind.__name__}"
            )
        # n_steps of the algorithm or of the buffer, as it was given; never both and different
        known = {"n_steps": self.n_steps, "gamma": self.gamma}
        options = known | {"beta": ANNEALED} | self.replay_buffer_kwargs
        for name, own in known.items():
            if options[name] != own and not (name == "n_steps" and own == 1):
                raise ValueError(
                    f"{name} in replay_buffer_kwargs must be that of the algorithm, {own}, "
                    f"got {options[name]}"
                )
        given = self.replay_buffer_kwargs
        self.replay_buffer_class, self.replay_buffer_kwargs = kind, options
        # Stable-Baselines3 would warn that it leaves n_steps to the class of the buffer.
        self.n_steps = 1
        try:
            super()._setup_model()
        finally:
            # What is saved is what was given: a model may be loaded with another gamma.
            self.n_steps, self.replay_buffer_kwargs = options["n_steps"], given
        self._prioritized().progress_remaining = self._current_progress_remaining

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: Any = None,
        reset_num_timesteps: bool = True,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[int, BaseCallback]:
        replay_buffer = self._prioritized()
        if reset_num_timesteps or self._last_obs is None:
            replay_buffer.end_episode()  # the environments are about to be reset
        replay_buffer.last_draw = None  # of an update that was interrupted
        return super()._setup_learn(total_timesteps, callback, reset_num_timesteps, *args, **kwargs)

    def train(self, *args: Any, **kwargs: Any) -> None:
        """Update the networks, as Stable-Baselines3's class does."""
        self._prioritized().progress_remaining = self._current_progress_remaining
        super().train(*args, **kwargs)


class PrioritizedDQN(Prioritized, DQN):
    """Stable-Baselines3's ``DQN`` with prioritized replay.

    Parameters
    ----------
    *args, **kwargs
        As for ``DQN``. ``replay_buffer_class`` is :class:`PrioritizedReplayBuffer`, whose options
        go into ``replay_buffer_kwargs``: ``sampler``, ``beta``, ``seed``. ``n_steps`` and ``gamma``
        are the algorithm's. beta goes from 0.4 to 1 over the training unless it is given.

    Examples
    --------
    >>> model = PrioritizedDQN("MlpPolicy", "CartPole-v1", learning_starts=50, buffer_size=1_000,
    ...                        policy_kwargs={"net_arch": [16]}, device="cpu", seed=0)
    >>> model.learn(100).replay_buffer.size()
    100
    """


class PrioritizedSAC(Prioritized, SAC):
    """Stable-Baselines3's ``SAC`` with prioritized replay; parameters as :class:`PrioritizedDQN`.

    The priority of a transition comes from the larger error of the two critics. The losses of the
    actor and of the entropy coefficient have no weights, as is usual.
    """


class PrioritizedTD3(Prioritized, TD3):
    """Stable-Baselines3's ``TD3`` with prioritized replay; parameters as :class:`PrioritizedDQN`.

    The priority of a transition comes from the larger error of the two critics. The loss of the
    actor has no weights, as is usual.
    """


class ReplayProgress(BaseCallback):
    """Tells a prioritized replay buffer the progress of the training, for a schedule of beta.

    For a buffer that was made apart from its algorithm and has a schedule as ``beta``. One that an
    algorithm makes itself, by ``replay_buffer_class``, asks that algorithm.

    Examples
    --------
    >>> from stable_baselines3 import DQN
    >>> import prioritized_replay as per
    >>> model = DQN("MlpPolicy", "CartPole-v1", learning_starts=50, buffer_size=1_000,
    ...             replay_buffer_class=PrioritizedReplayBuffer,
    ...             policy_kwargs={"net_arch": [16]}, device="cpu", seed=0)
    >>> spaces = model.observation_space, model.action_space
    >>> own = PrioritizedReplayBuffer(1_000, *spaces, beta=per.linear(1.0, 0.4, 1.0), seed=0)
    >>> model.replay_buffer = own
    >>> model.learn(100, callback=ReplayProgress()).replay_buffer.progress_remaining
    0.0
    """

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        replay_buffer = getattr(self.model, "replay_buffer", None)
        if isinstance(replay_buffer, PrioritizedReplayBuffer):
            replay_buffer.progress_remaining = self.model._current_progress_remaining
