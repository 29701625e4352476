"""Class ``PER``: the replay memory of a training loop in ten lines, a thin face of ReplayBuffer."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from prioritized_replay.fields import arguments
from prioritized_replay.fields.field import Field
from prioritized_replay.replay import ReplayBuffer
from prioritized_replay.sampling import Proportional, RankBased
from prioritized_replay.sampling.uniforms import Seed

__all__ = ["PER"]

Columns = tuple[
    NDArray[Any], NDArray[Any], NDArray[np.float32], NDArray[Any],
    NDArray[np.float32], NDArray[np.int64], NDArray[np.float32],
]  # fmt: skip


class PER:
    """Prioritized replay of one-step transitions that draws a fixed batch and anneals its beta.

    Parameters
    ----------
    obs_shape : tuple of int
        Shape of an observation.
    max_len : int
        Number of transitions kept, N.
    batch_size : int
        Transitions in a batch, B.
    alpha : float
        How much prioritization, >= 0.
    beta : float
        How much of the draw's bias the weights correct at first, in [0, 1].
    beta_increment : float
        What :meth:`anneal_beta` adds, >= 0.
    action_shape, action_dtype, obs_dtype
        Shape and dtype of an action, dtype of an observation.
    variant : {"rank", "proportional"}
        Rank-based or proportional sampling.
    eps : float
        Added to abs(td_error) in the proportional variant.
    seed : int, SeedSequence, Generator or None
        Of the memory's own generator.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> memory = PER((3,), max_len=100, batch_size=4, alpha=0.7, beta=0.5, beta_increment=0.25)
    >>> for step in range(20):
    ...     memory.add_experience([step, 0, 0], step % 2, 1.0, [step + 1, 0, 0], step == 19)
    >>> obs, action, reward, next_obs, done, idxs, weights = memory.draw_samples()
    >>> obs.shape, action.shape, done.shape, idxs.shape, weights.shape
    ((4, 3), (4, 1), (4, 1), (4,), (4, 1))
    >>> memory.update_priority(idxs, td_errors=reward - 0.5)
    >>> memory.beta
    0.75
    """

    def __init__(
        self,
        obs_shape: tuple[int, ...],
        max_len: int,
        batch_size: int,
        alpha: float,
        beta: float,
        beta_increment: float,
        *,
        action_shape: tuple[int, ...] = (),
        action_dtype: DTypeLike = "int64",
        obs_dtype: DTypeLike = "float32",
        variant: Literal["rank", "proportional"] = "rank",
        eps: float = 0.01,
        seed: Seed = None,
    ) -> None:
        if not isinstance(variant, str) or variant not in ("rank", "proportional"):
            raise ValueError(
                f"variant must be 'rank' or 'proportional', got {arguments.shown(variant)}"
            )
        self.batch_size = arguments.integer("batch_size", batch_size)
        self.beta = arguments.number("beta", beta, 1.0)
        self.beta_increment = arguments.number("beta_increment", beta_increment)
        self._action = Field(action_shape, action_dtype)
        self.replay = ReplayBuffer(
            arguments.integer("max_len", max_len),
            {"obs": Field(obs_shape, obs_dtype), "action": self._action, "reward": Field()},
            sampler=RankBased(alpha, draw="without_replacement")
            if variant == "rank"
            else Proportional(alpha, eps, draw="without_replacement"),
            gamma=1.0,
            seed=seed,
        )
        """The buffer behind."""

    def __len__(self) -> int:
        """Return the number of transitions held."""
        return len(self.replay)

    @property
    def max_len(self) -> int:
        """Number of transitions that fit."""
        return self.replay.capacity

    @property
    def alpha(self) -> float:
        """How much prioritization; may be set at any time."""
        return self.replay.alpha

    @alpha.setter
    def alpha(self, alpha: float) -> None:
        self.replay.alpha = alpha

    def anneal_beta(self) -> None:
        """Raise beta by ``beta_increment``, to 1 at most.

        Examples
        --------
        >>> memory = PER((), max_len=10, batch_size=2, alpha=0.7, beta=0.5, beta_increment=0.25)
        >>> for _ in range(3):  # for batches drawn elsewhere: `draw_samples` calls it itself
        ...     memory.anneal_beta()
        >>> memory.beta
        1.0
        """
        self.beta = min(self.beta + self.beta_increment, 1.0)

    def add_experience(
        self, obs: ArrayLike, action: ArrayLike, reward: ArrayLike, next_obs: ArrayLike, done: Any
    ) -> None:
        """Add a transition at the largest priority so far.

        ``done`` says that nothing shall be bootstrapped: give it ``terminated``, not
        ``terminated or truncated``. Scalars may come as arrays of one element.

        Raises
        ------
        ValueError
            If a value does not fit; nothing changes then.

        Examples
        --------
        >>> memory = PER((), max_len=10, batch_size=2, alpha=0.7, beta=0.5, beta_increment=0.25)
        >>> memory.add_experience(0.0, [1], [0.5], 2.0, done=False)  # also where only truncated
        >>> memory.add_experience(2.0, 0, 1.0, 3.0, done=2)
        Traceback (most recent call last):
        ValueError: done must be 0 or 1, got 2
        >>> len(memory)
        1
        """
        ended = _scalar("done", done)
        if ended.size != 1 or ended.dtype.kind not in "biuf" or ended not in (0, 1):
            raise ValueError(f"done must be 0 or 1, got {arguments.shown(done)}")
        action = _scalar("action", action) if self._action.shape == () else action
        self.replay.add(obs, action, _scalar("reward", reward), next_obs, bool(ended))

    def draw_samples(self) -> Columns:
        """Draw ``batch_size`` distinct transitions, then anneal beta.

        Returns
        -------
        obs : array[B, ...]
        action : array[B, 1]
            array[B, ...] if ``action_shape`` is not ``()``.
        reward : float32[B, 1]
        next_obs : array[B, ...]
        done : float32[B, 1]
        idxs : int64[B]
            For :meth:`update_priority`. Each names one transition for ever.
        weights : float32[B, 1]
            Importance-sampling weights, the largest being 1.

        Raises
        ------
        ValueError
            If there are fewer than ``batch_size`` transitions.

        Examples
        --------
        >>> memory = PER((), max_len=10, batch_size=2, alpha=0.7, beta=0.5, beta_increment=0.25)
        >>> for step in range(5):
        ...     memory.add_experience(step, 0, 1.0, step + 1, done=step == 4)
        >>> obs, action, reward, next_obs, done, idxs, weights = memory.draw_samples()
        >>> obs.shape, reward.shape, weights.shape  # columns, as a network's values are
        ((2,), (2, 1), (2, 1))
        >>> memory.beta  # for the next batch
        0.75
        """
        batch = self.replay.sample(self.batch_size, self.beta)
        self.anneal_beta()
        return (
            _own(batch.obs),
            batch.action.reshape(self.batch_size, *(self._action.shape or (1,))),
            batch.reward[:, None],
            _own(batch.next_obs),
            batch.terminated[:, None].astype(np.float32),
            batch.ids,
            batch.weights[:, None],
        )

    def update_priority(self, idxs: Any, td_errors: Any) -> None:
        """Give drawn transitions the priorities of their new errors, float[B] or float[B, 1].

        Those that were overwritten since are skipped.

        Raises
        ------
        ValueError
            If an error is not finite or an index was never drawn; nothing changes then.

        Examples
        --------
        >>> memory = PER((), max_len=10, batch_size=2, alpha=0.7, beta=0.5, beta_increment=0.25)
        >>> for step in range(5):
        ...     memory.add_experience(step, 0, 1.0, step + 1, done=step == 4)
        >>> *_, reward, _, done, idxs, weights = memory.draw_samples()
        >>> memory.update_priority(idxs, [[-3.0], [0.5]])  # signed, not weighted
        >>> memory.replay.priorities(idxs)
        array([3. , 0.5])
        """
        self.replay.update_priorities(idxs, td_errors)


def _own(images: NDArray[Any]) -> NDArray[Any]:
    """Return an array that may be changed: those of images share memory with each other."""
    return images if images.flags.writeable else images.copy()


def _scalar(name: str, value: Any) -> NDArray[Any]:
    """Return an array of one element as a scalar; leave others to be refused."""
    array = arguments.as_array(name, value)
    return array.reshape(()) if array.size == 1 else array
