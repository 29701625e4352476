"""A replay buffer for Stable-Baselines3's algorithms, which keeps everything in one of ours."""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.buffers import ReplayBuffer as TheirReplayBuffer
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.preprocessing import get_action_dim, get_obs_shape
from stable_baselines3.common.utils import get_device
from stable_baselines3.common.vec_env import VecNormalize

from prioritized_replay import ReplayBuffer, Uniform
from prioritized_replay.fields import arguments
from prioritized_replay.integrations.stable_baselines3.building import algorithm_that_builds
from prioritized_replay.integrations.stable_baselines3.continuity import Continuity
from prioritized_replay.integrations.stable_baselines3.samples import (
    Observations,
    PrioritizedSamples,
)
from prioritized_replay.integrations.stable_baselines3.steps import StepReader
from prioritized_replay.integrations.stable_baselines3.weighting import Draw, TracedRewards, unseen
from prioritized_replay.schedules import Schedule

__all__ = ["PrioritizedReplayBuffer"]

Array = NDArray[Any]

THEIR_ARRAYS = frozenset(
    ("observations", "next_observations", "actions", "rewards", "timeouts", "_get_samples")
)


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
        Number of environments E.
    optimize_memory_usage : bool
        Makes no difference: observations of 1 KiB and more are always kept once.
    handle_timeout_termination : bool
        Whether an end that ``infos`` mark as ``"TimeLimit.truncated"`` bootstraps.
    sampler : Uniform, Proportional, RankBased or another specification, optional
        How to draw; ``Proportional()`` if None.
    n_steps : int
        Steps of a transition, >= 1.
    gamma : float, optional
        Discount of one step. By default that of the algorithm which builds the buffer, or 0.99
        where none does. It matters where ``n_steps`` > 1.
    beta : float or callable
        How much of the draw's bias the weights correct, in [0, 1], or a schedule of the progress
        that remains, which goes from 1 to 0. The algorithm that makes the buffer knows it; where
        none does, the callback ``ReplayProgress`` tells it.
    weigh_losses : bool
        Whether the loss that an algorithm computes of a batch is weighted, and its errors come
        back, without a word in the algorithm. If False, the algorithm multiplies its loss by
        ``weights`` and calls :meth:`update_priorities`.
    seed : int, SeedSequence, Generator or None
        Of the draws. If None, one number is taken from NumPy's global generator, which the
        algorithm seeds with its own ``seed``.
    max_bytes : int, optional
        What the buffer may take at most.

    Attributes
    ----------
    replay : prioritized_replay.ReplayBuffer
        The buffer behind, which keeps everything.
    progress_remaining : float or None
        From 1 to 0, what ``beta`` is called with. The algorithm sets it.
    last_draw : Draw or None
        Ids and weights of the last batch, and the errors that came back for it.

    Raises
    ------
    ValueError
        If an argument is out of range, a space is none that fits, or ``n_steps`` or ``gamma`` is
        not that of the algorithm which builds the buffer.

    Examples
    --------
    >>> import numpy as np
    >>> from gymnasium import spaces
    >>> space, actions = spaces.Box(-1, 1, (3,)), spaces.Discrete(2)
    >>> buffer = PrioritizedReplayBuffer(100, space, actions, "cpu", n_envs=2, beta=0.5, seed=0)
    >>> obs = np.zeros((2, 3), np.float32)
    >>> for step in range(10):
    ...     action, reward, done = np.array([0, 1]), np.array([1.0, 2.0]), np.array([0.0, 0.0])
    ...     buffer.add(obs, obs + 1, action, reward, done, infos=[{}, {}])
    >>> samples = buffer.sample(8)
    >>> samples.observations.shape, samples.rewards.shape, samples.weights.shape
    (torch.Size([8, 3]), torch.Size([8, 1]), torch.Size([8, 1]))
    >>> buffer.update_priorities(samples.ids, samples.rewards - 0.5)
    8
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
        gamma: float | None = None,
        beta: float | Schedule = 0.4,
        weigh_losses: bool = True,
        seed: Any = None,
        max_bytes: int | None = None,
    ) -> None:
        # The constructors above are not called: they allocate arrays, and set counters that
        # follow from the buffer behind.
        self.n_envs = arguments.integer("n_envs", n_envs)
        rows = arguments.integer("buffer_size", buffer_size, self.n_envs) // self.n_envs
        self.observation_space = observation_space
        self.action_space = action_space
        self.obs_shape: Any = get_obs_shape(observation_space)
        self.action_dim = get_action_dim(action_space)
        self.device = get_device(device)
        self.optimize_memory_usage = optimize_memory_usage
        self.handle_timeout_termination = handle_timeout_termination
        self.n_steps = arguments.integer("n_steps", n_steps)
        algorithm = algorithm_that_builds(self)
        if gamma is None:
            gamma = 0.99 if algorithm is None else algorithm.gamma
        self.gamma = arguments.number("gamma", gamma, 1.0)
        self._algorithm = None if algorithm is None else weakref.ref(algorithm)
        if algorithm is not None:
            self._require_steps_of(algorithm)
        self.beta: float | Schedule = _checked_beta(beta)
        self.weigh_losses = weigh_losses
        self.progress_remaining: float | None = None
        self.last_draw: Draw | None = None
        self._losses_are_seen = False
        self._max_bytes = max_bytes
        self._is_dict = isinstance(observation_space, spaces.Dict)
        single = self.n_envs == self.n_steps == 1  # values without axis are added faster then
        self._steps = StepReader(
            observation_space, action_space, self._maybe_cast_dtype(action_space.dtype),
            self.n_envs, handle_timeout_termination, single,
        )  # fmt: skip
        self._continuity = Continuity()
        if seed is None:
            seed = int(np.random.randint(2**31))  # noqa: NPY002 - the algorithm has seeded it
        self.replay = ReplayBuffer(
            rows * self.n_envs,
            self._steps.fields,
            sampler=sampler,
            n_step=self.n_steps,
            gamma=self.gamma,
            num_envs=None if single else self.n_envs,
            autoreset="disabled",  # the algorithm puts final observations where they belong
            max_bytes=max_bytes,
            seed=seed,
        )

    def _require_steps_of(self, algorithm: OffPolicyAlgorithm) -> None:
        """Refuse steps and a discount other than those that an algorithm was told."""
        if algorithm.n_steps > 1 and self.n_steps != algorithm.n_steps:
            raise ValueError(
                f"n_steps in replay_buffer_kwargs must be that of the algorithm, "
                f"{algorithm.n_steps}, got {self.n_steps}: Stable-Baselines3 does not hand it on"
            )
        if self.n_steps > 1 and self.gamma != algorithm.gamma:
            raise ValueError(
                f"gamma in replay_buffer_kwargs must be that of the algorithm, {algorithm.gamma}, "
                f"got {self.gamma}"
            )

    def __len__(self) -> int:
        """Return how many transitions can be drawn."""
        return len(self.replay)

    def size(self) -> int:
        """Return how many transitions of each environment can be drawn."""
        return len(self.replay) // self.n_envs

    @property
    def buffer_size(self) -> int:  # type: ignore[override]
        """How many transitions of each environment are kept."""
        return self.replay.capacity // self.n_envs

    @property
    def full(self) -> bool:  # type: ignore[override]
        """Whether new transitions overwrite the oldest."""
        return len(self.replay) == self.replay.capacity

    @property
    def pos(self) -> int:  # type: ignore[override]
        """How many transitions of each environment have been made, modulo ``buffer_size``."""
        return self.replay.ids_issued // self.n_envs % self.buffer_size

    @property
    def dones(self) -> Any:  # type: ignore[override]
        """What their ``learn`` marks the last step in, where ``optimize_memory_usage`` is set.

        Whatever is assigned to an element closes the open windows: see :meth:`end_episode`.
        """
        return _Ends(self)

    def __getattr__(self, name: str) -> NoReturn:
        if name in THEIR_ARRAYS:
            raise AttributeError(
                f"a PrioritizedReplayBuffer has no array {name!r}: use replay.get(ids)"
            )
        raise AttributeError(f"a PrioritizedReplayBuffer has no attribute {name!r}")

    def reset(self) -> None:
        """Remove all transitions."""
        self._continuity.forget()
        self.last_draw = None
        self.replay.clear()

    def add(
        self,
        obs: Any,
        next_obs: Any,
        action: Array,
        reward: Array,
        done: Array,
        infos: Sequence[dict[str, Any]],
    ) -> None:
        """Add one step of every environment.

        Parameters
        ----------
        obs, next_obs : array[E, ...], or dict of such
            ``next_obs`` is what the step led to, also where the episode ends.
        action : array[E, ...]
            Any shape of the right size.
        reward : float[E]
        done : bool[E], or numbers 0 and 1
            Where the episode ended.
        infos : sequence of dict
            One for each environment.

        Raises
        ------
        ValueError
            If a value does not fit; nothing changes then.
        """
        step = self._steps.read(obs, next_obs, action, reward, done, infos)
        if self.n_steps == 1:
            self.replay.add(*step)
            return
        # Where an episode has ended, there are no windows to close. If the step is refused, or this
        # call is interrupted, windows have been closed too soon, but no row is wrong.
        if broken := self._continuity.broken(step[0]):
            self.replay.end_episode(broken)
        self.replay.add(*step)
        self._continuity.remember(step[3])

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
            If there is nothing to draw from, ``beta`` has gone out of [0, 1], or ``env`` clips
            rewards where ``n_steps`` > 1.
        RuntimeError
            If the batch before this one was used, and no loss of it was seen, nor of any before
            it; or if ``beta`` is a schedule and nobody told the progress.
        """
        self._require_answer()
        if not len(self.replay) and self.n_steps > 1:
            raise ValueError(
                f"sample needs a transition, which takes n_steps = {self.n_steps} steps of an "
                f"environment: let learning_starts be >= {self.n_steps * self.n_envs}"
            )
        if env is not None and self.n_steps > 1 and env.norm_reward and env.clip_reward < np.inf:
            raise ValueError(
                "clip_reward of VecNormalize must be np.inf where n_steps > 1, as rewards are "
                f"summed before they are normalized, got {env.clip_reward}"
            )
        batch = self.replay.sample(batch_size, self._beta_now())
        obs: Any = batch.obs
        next_obs: Any = batch.next_obs
        reward = batch.reward[:, None]
        if env is not None:
            obs, next_obs = env.normalize_obs(obs), env.normalize_obs(next_obs)
            reward = env.normalize_reward(reward)
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
        """Set priorities from new TD errors.

        Parameters
        ----------
        ids : int64[B]
            Of a batch.
        td_errors : float[B] or float[B, 1]
            Signed errors, as arrays or tensors.

        Returns
        -------
        int
            How many of them are still there.

        Raises
        ------
        ValueError
            As :meth:`prioritized_replay.ReplayBuffer.update_priorities`.
        """
        applied = self.replay.update_priorities(ids, td_errors)
        if self.last_draw is not None:
            self.last_draw.answered = True
        return applied

    def end_episode(self) -> None:
        """Close the open windows: the environments begin new episodes with the next step."""
        self._continuity.forget()
        self.replay.end_episode()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save everything to a folder; see :meth:`prioritized_replay.ReplayBuffer.save`."""
        self.replay.save(path)

    def load(self, path: str | os.PathLike[str], truncate_last_traj: bool = True) -> None:
        """Take over what was saved to a folder, with the sampler and the size that it had.

        The same calls have the same results from then on, bit for bit.

        Parameters
        ----------
        path : path
            The folder.
        truncate_last_traj : bool
            Whether the environments begin new episodes with the next step. If not, that step must
            go on from the last one that was saved.

        Raises
        ------
        ValueError
            If it holds transitions of other spaces, of another number of environments, or of
            other ``n_steps`` or ``gamma``, or if it holds no checkpoint. Nothing changes then.
        """
        loaded = ReplayBuffer.load(path, max_bytes=self._max_bytes)
        for name, there, here in (
            ("n_envs", loaded.num_envs or 1, self.n_envs),
            ("n_steps", loaded.n_step, self.n_steps),
            ("gamma", loaded.gamma, self.gamma),
            ("spaces", _described(loaded), _described(self.replay)),
        ):
            if there != here:
                raise ValueError(f"{name} must be as in {path}, {there}, got {here}")
        if truncate_last_traj:
            loaded.end_episode()
        self._continuity.forget()
        self.last_draw = None
        self.replay = loaded

    def _beta_now(self) -> float:
        beta, progress = self.beta, self.progress_remaining
        if not callable(beta):
            return beta
        algorithm = None if self._algorithm is None else self._algorithm()
        if progress is None and algorithm is not None:
            progress = algorithm._current_progress_remaining
        if progress is None:
            raise RuntimeError(
                "beta is a schedule of the progress that remains, and nobody has told it: let the "
                "algorithm make the buffer (replay_buffer_class), give learn the callback "
                "ReplayProgress(), set progress_remaining, or make beta a number"
            )
        return beta(min(max(progress, 0.0), 1.0))

    def _tensors(self, observations: Any) -> Observations:
        if self._is_dict:
            return {key: self._tensor(part) for key, part in observations.items()}
        return self._tensor(observations)

    def _tensor(self, array: Array) -> torch.Tensor:
        """Return an array of a batch as a tensor, which may be changed."""
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


class _Ends:
    """Stands for the array of ends, of which Stable-Baselines3 only ever sets the last one."""

    def __init__(self, buffer: PrioritizedReplayBuffer) -> None:
        self._buffer = buffer

    def __setitem__(self, position: Any, value: Any) -> None:
        self._buffer.end_episode()


def _described(replay: ReplayBuffer) -> dict[str, Any]:
    """Return the fields of observations and actions, how they are stacked aside."""
    fields = replay.fields
    obs: Any = fields["obs"]
    parts = obs.items() if isinstance(obs, Mapping) else [("obs", obs)]
    described = {name: (field.shape, str(field.dtype)) for name, field in parts}
    action: Any = fields["action"]
    return {**described, "action": (action.shape, str(action.dtype))}


def _checked_beta(beta: Any) -> Any:
    """Return a beta or a schedule of it, if it can be one."""
    if not callable(beta):
        return arguments.number("beta", beta, 1.0)
    if getattr(beta, "steps", 1.0) > 1.0:
        raise ValueError(
            "beta must be a schedule of the progress that remains, from 1 to 0, such as "
            f"linear(1.0, 0.4, 1), got {beta}"
        )
    for progress in (1.0, 0.0):
        arguments.number(f"beta at a progress of {progress} that remains", beta(progress), 1.0)
    return beta
