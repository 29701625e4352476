"""A chain of states with a reward at its end, and how many updates it takes to learn it.

Knows the task and when it is learnt; knows nothing of files, figures or progress.

There are ``n`` states in a row and two actions: one leads a state on, the other a state back (in
the first state nowhere). Whoever leaves the last state gets the only reward, 1, and begins again.
The memory is what a random walk of 4 n^2 steps sees: with n = 64 that is about four rewards among
16,384 rows. All arms have the same memory, as exploration is not what is compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import get_args

import numpy as np

from prioritized_replay import PrioritizedIndex
from prioritized_replay.experiments.chain.learner import WAYS, Arm, Floats, Learner, Rows, replay
from prioritized_replay.experiments.tuning import best_step_size

TOLERANCE = 1e-3  # mean squared error of values that are right, as in the Blind Cliffwalk
PATIENCE = 400  # updates for each state before a run is given up
CHECKED_EVERY = 10  # updates
STEP_SIZES = (2.0, 4.0, 8.0, 16.0)
TUNING_SEEDS = range(1_000, 1_005)


@dataclass(frozen=True)
class Chain:
    """A chain of ``n`` states: its discount, its true action values, what a random walk sees.

    Parameters
    ----------
    n : int
        Number of states, at least 2.

    Raises
    ------
    ValueError
        ``n`` is below 2.

    Examples
    --------
    >>> Chain(2).true_values()
    array([[0.25, 0.5 ],
           [0.25, 1.  ]])
    """

    n: int

    def __post_init__(self) -> None:
        if self.n < 2:
            raise ValueError(f"n must be >= 2, got {self.n}")

    @property
    def gamma(self) -> float:
        """Discount of one step, 1 - 1/n: the longer the chain, the further it looks ahead."""
        return 1.0 - 1.0 / self.n

    @property
    def transitions(self) -> int:
        """Number of rows in :meth:`memory`, 4 n^2."""
        return 4 * self.n**2

    def true_values(self) -> Floats:
        """Return float64[n, 2]: of the way back (action 0) and the way on (action 1)."""
        state = np.arange(self.n)
        on = self.gamma ** (self.n - 1 - state)
        return np.stack([self.gamma * on[np.maximum(state - 1, 0)], on], axis=1)

    def walk(self, steps: int, rng: np.random.Generator) -> Rows:
        """Return what a random walk sees that begins in the first state."""
        actions = rng.integers(2, size=steps)
        obs = np.empty(steps, np.int64)
        next_obs = np.empty(steps, np.int64)
        arrived = np.zeros(steps, np.bool_)
        state = 0
        for step, action in enumerate(actions.tolist()):
            obs[step] = state
            state = state + 1 if action else max(state - 1, 0)
            arrived[step] = state == self.n
            next_obs[step] = min(state, self.n - 1)
            if arrived[step]:
                state = 0
        return Rows(
            pair=2 * obs + actions,
            reward=arrived.astype(np.float64),
            discount=np.where(arrived, 0.0, self.gamma),
            next_obs=next_obs,
        )

    def memory(self, rng: np.random.Generator) -> Rows:
        """Return the first walk of :attr:`transitions` steps that arrives at all.

        Another action may be missing: its value is then what its neighbours' values make of it.
        """
        while True:
            rows = self.walk(self.transitions, rng)
            if rows.reward.any():
                return rows


@dataclass
class Progress:
    """When the values and when the policy of a learner were right for the first time.

    Attributes
    ----------
    values : int or None
        Updates until the mean squared error was below ``TOLERANCE``.
    policy : int or None
        Updates until the greedy action was the right one in every state.
    """

    values: int | None = None
    policy: int | None = None

    @property
    def complete(self) -> bool:
        """Whether both were right."""
        return self.values is not None and self.policy is not None

    def look(self, learner: Learner, truth: Floats) -> None:
        """Compare the values of a learner with the true ones."""
        values = learner.values()
        if self.values is None and np.square(values - truth).mean() < TOLERANCE:
            self.values = learner.updates
        if self.policy is None and (values[:, 1] > values[:, 0]).all():
            self.policy = learner.updates


def updates_to_learn(
    n: int, arm: Arm, seed: int, step_size: float, limit: float = float("inf")
) -> Progress:
    """Count the updates that one arm needs to learn the chain of ``n`` states.

    Memory and first weights depend on ``n`` and ``seed`` alone, so arms are compared on the same
    task.

    Parameters
    ----------
    n : int
        Number of states.
    arm : str
        A way of replay, one of ``WAYS``.
    seed : int
        Fixes the memory, the first weights and the draws.
    step_size : float
        See :class:`~prioritized_replay.experiments.chain.learner.Learner`.
    limit : float
        The run is given up after that many updates, and after ``PATIENCE`` for each state.

    Raises
    ------
    ValueError
        An unknown arm, or ``n`` is below 2.
    """
    if arm not in get_args(Arm):
        raise ValueError(f"arm must be one of {', '.join(get_args(Arm))}, got {arm!r}")
    chain, way = Chain(n), WAYS[arm]
    rng = np.random.default_rng([n, seed])
    rows, truth = chain.memory(rng), chain.true_values()
    learner = Learner(n, step_size, way.clip, rng)
    index = PrioritizedIndex(chain.transitions, way.sampler, seed=rng)
    index.append(chain.transitions)  # so ids are places in the memory
    progress = Progress()
    while learner.updates < min(limit, PATIENCE * n) and not progress.complete:
        if not replay(learner, rows, index, way.beta):
            return Progress()
        if learner.updates % CHECKED_EVERY == 0:
            progress.look(learner, truth)
    return progress


def tuned_step_size(n: int, arm: Arm) -> float:
    """Return the step size that gets an arm's values right soonest, on seeds kept for that."""
    return best_step_size(partial(_tried, n, arm), STEP_SIZES, TUNING_SEEDS)


def _tried(n: int, arm: Arm, step_size: float, seed: int, limit: float) -> float:
    return updates_to_learn(n, arm, seed, step_size, limit).values or np.inf
