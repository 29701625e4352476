"""A replay buffer for Stable-Baselines3's algorithms, which keeps everything in one of ours."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.buffers import ReplayBuffer as TheirReplayBuffer
from stable_baselines3.common.preprocessing import get_action_dim, get_obs_shape
from stable_baselines3.common.utils import get_device
from stable_baselines3.common.vec_env import VecNormalize

from prioritized_replay import Uniform
from prioritized_replay.fields.field import Field
from prioritized_replay.integrations.stable_baselines3.weighting import Draw, TracedRewards, unseen
from prioritized_replay.replay import ReplayBuffer
from prioritized_replay.schedules import Schedule

__all__ = ["PrioritizedReplayBuffer", "PrioritizedSamples"]

Array = NDArray[Any]
Ints = NDArray[np.int64]
Observations = torch.Tensor | dict[str, torch.Tensor]


class PrioritizedSamples(NamedTuple):
    """A drawn batch: what Stable-Baselines3's ``ReplayBufferSamples`` has, weights and ids.

    Attributes
    ----------
    observations, next_observations : tensor[B, ...], or dict of such
        Of the dtypes of the space, or float32 where VecNormalize has normalized them.
    actions : tensor[B, A]
    dones : float32[B, 1]
        1 where the episode ended in a terminal state. A time limit is none.
    rewards : float32[B, 1]
        n-step returns where ``n_steps`` > 1.
    discounts : float32[B, 1], or None where ``n_steps`` is 1
        gamma**m of a window of m steps; 0 where ``dones`` is 1.
    weights : float32[B, 1]
        Importance-sampling weights, to be multiplied with the loss of each transition.
    ids : int64[B], as a NumPy array
        For :meth:`PrioritizedReplayBuffer.update_priorities`.
    """

    observations: Observations
    actions: torch.Tensor
    next_observations: Observations
    dones: torch.Tensor
    rewards: torch.Tensor
    discounts: torch.Tensor | None
    weights: torch.Tensor
    ids: Ints


class PrioritizedReplayBuffer(TheirReplayBuffer):
    """Prioritized replay as Stable-Baselines3's ``replay_buffer_class``.

    Parameters
    ----------
    buffer_size : int
        Transitions kept, of all environments together; rounded down to a multiple of ``n_envs``.
    observation_space, action_space : gymnasium.Space
        Of one environment.
    device : torch.device or str
        Where batches go.
    n_envs : int
        Environments side by side.
    optimize_memory_usage : bool
        Makes no difference: observations of 1 KiB and more are always kept once.
    handle_timeout_termination : bool
        Whether an end that ``infos`` mark as ``"TimeLimit.truncated"`` bootstraps.
    sampler : Uniform, Proportional, RankBased or another specification, optional
        How to draw; ``Proportional()`` if None.
    n_steps : int
        Steps of a transition, >= 1.
    gamma : float
        Discount of one step, which matters where ``n_steps`` > 1: that of the algorithm.
    beta : float or callable
        How much of the draw's bias the weights correct, in [0, 1], or a schedule of the progress
        that remains, which goes from 1 to 0. A schedule needs somebody who tells the progress:
        ``PrioritizedDQN`` and its like do, and so does the callback ``ReplayProgress``.
    weigh_losses : bool
        Whether the loss that an algorithm computes of a batch is weighted, and its errors come
        back, without a word in the algorithm. If False, the algorithm multiplies its loss by
        ``weights`` and calls :meth:`update_priorities`.
    seed : int, SeedSequence, Generator or None
        Of the draws. If None, one number is taken from NumPy's global generator, which the
        algorithm seeds with its own ``seed``.
    directory, max_bytes
        As for :class:`prioritized_replay.ReplayBuffer`.

    Raises
    ------
    ValueError
        If an argument is out of range, or a space is not one of those that Stable-Baselines3
        knows.

    Attributes
    ----------
    replay : prioritized_replay.ReplayBuffer
        The buffer behind, which keeps everything.
    progress_remaining : float or None
        From 1 to 0, what ``beta`` depends on. The algorithm sets it.
    last_draw : Draw or None
        Ids and weights of the last batch, and the errors that came back for it.
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        device: torch.device | str = "auto",
        n_envs: int = 1,
        optimize_memory_usage: bool = False,
        handle_timeout_termination: bool = True,
        *,
        sampler: Any = None,
        n_steps: int = 1,
        gamma: float = 0.99,
        beta: float | Schedule = 0.4,
        weigh_losses: bool = True,
        seed: Any = None,
        directory: Any = None,
        max_bytes: int | None = None,
    ) -> None:
        # Not by their constructors, which allocate arrays and reset counters that follow here
        # from the buffer behind.
        if n_envs < 1 or buffer_size < n_envs:
            raise ValueError(
                f"buffer_size must be >= n_envs, which must be >= 1, got {buffer_size} and {n_envs}"
            )
        self.buffer_size = buffer_size // n_envs  # of one environment, as in theirs
        self.observation_space = observation_space
        self.action_space = action_space
        self.obs_shape: Any = get_obs_shape(observation_space)
        self.action_dim = get_action_dim(action_space)
        self.device = get_device(device)
        self.n_envs = n_envs
        self.optimize_memory_usage = optimize_memory_usage
        self.handle_timeout_termination = handle_timeout_termination
        self.n_steps = n_steps
        self.gamma = gamma
        self.beta = beta
        self.weigh_losses = weigh_losses
        self.progress_remaining: float | None = None
        self.last_draw: Draw | None = None
        self._losses_are_seen = False
        if seed is None:
            seed = int(np.random.randint(2**31))  # noqa: NPY002 - as the algorithm seeds it
        self.replay = ReplayBuffer(
            self.buffer_size * n_envs,
            self._fields(),
            sampler=sampler,
            n_step=n_steps,
            gamma=gamma,
            num_envs=n_envs,
            autoreset="disabled",  # the algorithm puts final observations where they belong
            directory=directory,
            max_bytes=max_bytes,
            seed=seed,
        )

    def _fields(self) -> dict[str, Any]:
        space: Any = self.observation_space
        dtype: Any = self._maybe_cast_dtype(self.action_space.dtype)
        obs: Any
        if isinstance(self.observation_space, spaces.Dict):
            obs = {key: Field(self.obs_shape[key], space[key].dtype) for key in space.spaces}
        else:
            obs = Field(self.obs_shape, space.dtype)
        return {"obs": obs, "action": Field((self.action_dim,), dtype), "reward": Field()}

    def __len__(self) -> int:
        """Return how many transitions can be drawn."""
        return len(self.replay)

    def size(self) -> int:
        """Return how many transitions of one environment can be drawn."""
        return len(self.replay) // self.n_envs

    @property
    def full(self) -> bool:  # type: ignore[override]
        """Whether new transitions overwrite the oldest."""
        return len(self.replay) == self.replay.capacity

    @property
    def pos(self) -> int:  # type: ignore[override]
        """Where the next transition goes, in [0, buffer_size)."""
        return self.replay.ids_issued // self.n_envs % self.buffer_size

    def reset(self) -> None:
        """Remove all transitions."""
        self.replay.clear()
        self.last_draw = None

    def add(
        self,
        obs: Any,
        next_obs: Any,
        action: Array,
        reward: Array,
        done: Array,
        infos: list[dict[str, Any]],
    ) -> None:
        """Add one step of every environment.

        Parameters
        ----------
        obs, next_obs : array[E, ...], or dict of such
            ``next_obs`` is what the step led to, also where the episode ends.
        action : array[E, ...]
        reward : float[E]
        done : bool[E], or numbers 0 and 1
            Where the episode ended.
        infos : list of dict
            One for each environment.

        Raises
        ------
        ValueError
            If a value does not fit; nothing changes then.
        """
        rows = self.n_envs
        ended = np.asarray(done)
        if ended.dtype != np.bool_:
            ended = ended != 0
        truncated: Any = False
        if self.handle_timeout_termination:
            limits = [info.get("TimeLimit.truncated", False) for info in infos]
            if any(limits):
                truncated = np.array(limits, np.bool_)
                ended = ended & ~truncated
        self.replay.add(
            self._shaped(obs),
            action.reshape(rows, self.action_dim),
            reward,
            self._shaped(next_obs),
            ended,
            truncated,
        )

    def _shaped(self, obs: Any) -> Any:
        """Return an observation with the shape that is kept: Discrete ones have an axis more."""
        if isinstance(obs, dict):
            return {
                key: part.reshape(self.n_envs, 1)
                if isinstance(self.observation_space[key], spaces.Discrete)  # type: ignore[index]
                else part
                for key, part in obs.items()
            }
        if isinstance(self.observation_space, spaces.Discrete):
            return obs.reshape(self.n_envs, 1)
        return obs

    def sample(self, batch_size: int, env: VecNormalize | None = None) -> PrioritizedSamples:  # type: ignore[override]
        """Draw a batch by priority.

        Parameters
        ----------
        batch_size : int
            B >= 1.
        env : VecNormalize, optional
            Normalizes observations and rewards.

        Raises
        ------
        ValueError
            If there is nothing to draw from, or ``beta`` has gone out of [0, 1].
        RuntimeError
            If the batch before this one was used, and no loss of it was seen, nor of any before
            it; or if ``beta`` is a schedule and nobody told the progress.
        """
        self._require_answer()
        batch = self.replay.sample(batch_size, self._beta_of(self.progress_remaining))
        obs: Any = batch.obs
        next_obs: Any = batch.next_obs
        reward = batch.reward[:, None]
        if env is not None:
            obs, next_obs = env.normalize_obs(obs), env.normalize_obs(next_obs)
            reward = self._normalize_reward(reward, env)
        weights = self._tensor(batch.weights[:, None])
        self.last_draw = Draw(batch.ids, weights, self.replay.update_priorities)
        rewards = self._tensor(reward)
        if self.weigh_losses and not isinstance(self.replay.sampler, Uniform):
            rewards = TracedRewards.of(rewards, self.last_draw)
        return PrioritizedSamples(
            self._tensors(obs),
            self._tensor(batch.action),
            self._tensors(next_obs),
            self._tensor(batch.terminated[:, None].astype(np.float32)),
            rewards,
            None if self.n_steps == 1 else self._tensor(batch.discount[:, None]),
            weights,
            batch.ids,
        )

    def _require_answer(self) -> None:
        """Refuse to draw on for an algorithm whose loss is out of sight."""
        draw = self.last_draw
        if draw is None or self._losses_are_seen:
            return
        if draw.answered:
            self._losses_are_seen = True
        elif draw.used:
            self.last_draw = None
            raise unseen("the rewards of the last batch were used, and no loss of them was seen")

    def update_priorities(self, ids: Any, td_errors: Any) -> int:
        """Set priorities from new TD errors; see the buffer behind.

        Parameters
        ----------
        ids : int64[B]
            Of a batch.
        td_errors : float[B] or float[B, 1]
            Arrays or tensors.

        Returns
        -------
        int
            How many are still there.
        """
        applied = self.replay.update_priorities(ids, td_errors)
        if self.last_draw is not None:
            self.last_draw.answered = True
        return applied

    def end_episode(self) -> None:
        """Close the open windows: the environments were reset in the middle of their episodes."""
        self.replay.end_episode()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save everything to a folder; see :meth:`prioritized_replay.ReplayBuffer.save`."""
        self.replay.save(path)

    def load(self, path: str | os.PathLike[str]) -> None:
        """Take over what was saved to a folder, with the sampler and the capacity that it had.

        The same calls have the same results from then on, bit for bit.

        Parameters
        ----------
        path : path
            The folder.

        Raises
        ------
        ValueError
            If it holds transitions of other spaces, of another number of environments, or of
            other ``n_steps`` or ``gamma``, or no checkpoint at all. Nothing changes then.
        """
        loaded = ReplayBuffer.load(path)
        for name, has, wanted in (
            ("n_envs", loaded.num_envs, self.n_envs),
            ("n_steps", loaded.n_step, self.n_steps),
            ("gamma", loaded.gamma, self.gamma),
            ("observations and actions", loaded.fields, self.replay.fields),
        ):
            if has != wanted:
                raise ValueError(f"{name} must be those of the folder, {has}, got {wanted}")
        self.replay = loaded
        self.buffer_size = loaded.capacity // self.n_envs
        self.last_draw = None

    def _beta_of(self, progress_remaining: float | None) -> float:
        """Return beta at a progress that remains."""
        if not callable(self.beta):
            return self.beta
        if progress_remaining is None:
            raise RuntimeError(
                "beta is a schedule of the progress that remains, and nobody has told it: use "
                "PrioritizedDQN, PrioritizedSAC or PrioritizedTD3, give learn the callback "
                "ReplayProgress(), or make beta a number"
            )
        return self.beta(min(max(progress_remaining, 0.0), 1.0))

    def _tensors(self, observations: Any) -> Observations:
        if isinstance(observations, Mapping):
            return {key: self._tensor(part) for key, part in observations.items()}
        return self._tensor(observations)

    def _tensor(self, array: Array) -> torch.Tensor:
        """Return an array of a batch as a tensor; it shares memory where nobody else has it."""
        if not array.flags.writeable:
            array = np.array(array, order="C")
        tensor = torch.from_numpy(array)
        return tensor if self.device.type == "cpu" else tensor.to(self.device)

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError(
            "a PrioritizedReplayBuffer cannot be copied or pickled: use model.replay_buffer.save "
            "and .load, which write and read a folder, or PrioritizedDQN, PrioritizedSAC or "
            "PrioritizedTD3, whose save_replay_buffer and load_replay_buffer do that"
        )
