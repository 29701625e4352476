"""Q-learning in minibatches, with features that neighbouring states share, and ways of replay.

Knows rows as columns and how to learn from them; knows nothing of the task that they come from.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from prioritized_replay import PrioritizedIndex, Proportional, RankBased, Uniform
from prioritized_replay.experiments.chain import _kernels as kernels
from prioritized_replay.sampling import Specification

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

BATCH_SIZE = 32
TARGET_PERIOD = 10  # updates between two copies of the weights to the target
TILES = 8  # features of a state; two neighbours have all but one in common
SPREAD = 0.01  # standard deviation of the first weights
DIVERGED = 1e6  # an error of this size: the step size is too large


class Rows(NamedTuple):
    """N transitions as columns.

    Attributes
    ----------
    pair : int64[N]
        State and action, 2 s + a.
    reward : float64[N]
    discount : float64[N]
        gamma, or 0 where the episode ended.
    next_obs : int64[N]
        The next state; where the episode ended, a number that counts for nothing.
    """

    pair: Ints
    reward: Floats
    discount: Floats
    next_obs: Ints


@dataclass(frozen=True)
class Way:
    """A way of replay: how rows are drawn, and what is done with their errors.

    Attributes
    ----------
    sampler : Uniform, Proportional or RankBased
    beta : float
        Of the importance-sampling weights; 0 is none.
    clip : float
        Size of an error beyond which the loss is linear, as in a Huber loss.
    """

    sampler: Specification
    beta: float = 0.0
    clip: float = math.inf


Arm = Literal[
    "uniform",
    "proportional",
    "proportional-unweighted",
    "rank",
    "rank-unweighted",
    "lap",
    "lap-scaled",
]

# The library's defaults, and the paper's first betas. LAP's floor and clip are 1 (Fujimoto et al.
# 2020), which is the size of the only reward of a chain; scaled, they are a tenth of that.
WAYS: dict[str, Way] = {
    "uniform": Way(Uniform()),
    "proportional": Way(Proportional(), beta=0.4),
    "proportional-unweighted": Way(Proportional()),
    "rank": Way(RankBased(), beta=0.5),
    "rank-unweighted": Way(RankBased()),
    "lap": Way(Proportional(alpha=0.4, eps=0.0, min_priority=1.0), clip=1.0),
    "lap-scaled": Way(Proportional(alpha=0.4, eps=0.0, min_priority=0.1), clip=0.1),
}


def tiles_of(n: int, width: int = TILES) -> Ints:
    """Return which features each of n states has, int64[n, width].

    A feature is on in ``width`` states in a row. Two neighbours differ in one feature, so any
    values can be represented, and to learn one state's is to move its neighbours'.

    Examples
    --------
    >>> tiles_of(4, width=2)
    array([[0, 3],
           [0, 4],
           [1, 4],
           [1, 5]])
    """
    tiling = np.arange(width)
    tile = (np.arange(n)[:, None] + tiling) // width
    return tile + tiling * (int(tile.max()) + 1)


class Learner:
    """Double DQN whose values are linear in shared features.

    Parameters
    ----------
    n : int
        Number of states.
    step_size : float
        Of gradient descent on the mean loss of a batch, divided by the number of features of a
        state: with 1, a batch of equal rows moves their value to its target.
    clip : float
        See :class:`Way`.
    rng : numpy.random.Generator
        Draws the first weights.
    """

    def __init__(self, n: int, step_size: float, clip: float, rng: np.random.Generator) -> None:
        self.tiles = tiles_of(n)
        self.theta = SPREAD * rng.standard_normal((2, int(self.tiles.max()) + 1))
        self.target = self.theta.copy()
        self.updates = 0
        self._step_size = step_size / TILES
        self._clip = clip
        self._parts = (self.theta, self.target, self.tiles)

    def learn(self, rows: Rows, slots: Ints, weights: npt.NDArray[np.float32]) -> Floats:
        """Make one update with the rows in these slots; return their td errors from before it."""
        td_error = np.empty(slots.size)
        kernels.learn_batch(
            *self._parts, *rows, slots, weights, self._step_size, self._clip, td_error
        )
        self.updates += 1
        if self.updates % TARGET_PERIOD == 0:
            self.target[:] = self.theta
        return td_error

    def td_errors(self, rows: Rows, slots: Ints) -> Floats:
        """Return the present td errors of the rows in these slots."""
        td_error = np.empty(slots.size)
        kernels.td_errors_of(*self._parts, *rows, slots, td_error)
        return td_error

    def values(self) -> Floats:
        """Return Q as it stands, float64[n, 2]."""
        values = np.empty((self.tiles.shape[0], 2))
        kernels.write_values(self.theta, self.tiles, values)
        return values


def diverged(td_error: Floats) -> bool:
    """Return whether errors are so large that there is nothing to be learnt any more."""
    return not np.abs(td_error).max() <= DIVERGED  # NaN is not


def replay(learner: Learner, rows: Rows, index: PrioritizedIndex, beta: float) -> bool:
    """Draw a batch, learn from it, give its errors back; False if the values have diverged.

    The items of the index are the rows.
    """
    draw = index.sample(BATCH_SIZE, beta)
    td_error = learner.learn(rows, draw.ids, draw.weights)
    if diverged(td_error):
        return False
    index.update_priorities(draw.ids, td_error)
    return True
