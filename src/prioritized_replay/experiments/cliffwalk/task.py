"""The Blind Cliffwalk of the paper: its states, its memory, and five ways to choose from it.

Knows the task and when it is learnt; knows nothing of files, figures or progress.

A row of ``n`` states and two actions (Schaul et al. 2015, section 3.1 and appendix B.1): the right
action leads on, and from the last state to the only reward; the wrong one ends the episode. Which
action is right alternates along the row. The memory holds all that can happen from the beginning,
so the arms differ only in the order in which they replay it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from prioritized_replay.experiments.cliffwalk import _kernels as kernels
from prioritized_replay.note import Note
from prioritized_replay.sampling import Proportional, RankBased, Specification, Uniform
from prioritized_replay.sampling.sampler import Sampler
from prioritized_replay.sampling.uniforms import UniformStream

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Arm = Literal["uniform", "oracle", "greedy", "proportional", "rank"]
Features = Literal["tabular", "linear"]

STEP_SIZE = 0.25
TOLERANCE = 1e-3
SPREAD = 0.1  # standard deviation of the first weights; the paper says N(0, 0.1)
PATIENCE = 100  # updates for each transition in memory before a run is given up

SAMPLERS: dict[str, Specification] = {
    # All draws are independent: one at a time there is nothing to stratify. Uniform ones do not
    # depend on what was learnt, so many are made in one call; stratified, they would come in order.
    "uniform": Uniform(draw="independent"),
    "proportional": Proportional(alpha=0.6, eps=1e-4, draw="independent"),
    "rank": RankBased(alpha=0.7, draw="independent"),
}


class Memory(NamedTuple):
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
class Cliffwalk:
    """A row of ``n`` states: its discount, its true action values, everything it can show.

    Parameters
    ----------
    n : int
        Number of states, at least 2.

    Raises
    ------
    ValueError
        ``n`` is below 2, where the discount would not be positive.

    Examples
    --------
    >>> Cliffwalk(2).gamma
    0.5
    >>> Cliffwalk(2).true_values()
    array([[0.5, 0. ],
           [0. , 1. ]])
    """

    n: int

    def __post_init__(self) -> None:
        if self.n < 2:
            raise ValueError(f"n must be >= 2, got {self.n}")

    @property
    def gamma(self) -> float:
        """Discount of one step, 1 - 1/n: the longer the row, the further it looks ahead."""
        return 1.0 - 1.0 / self.n

    @property
    def transitions(self) -> int:
        """Number of transitions in :meth:`memory`, 2^(n+1) - 2."""
        return int(2 ** (self.n + 1) - 2)

    def true_values(self) -> Floats:
        """Return float64[n, 2]: gamma^(n-1-i) for the right action of state i, 0 for the wrong."""
        state = np.arange(self.n)
        values = np.zeros((self.n, 2))
        values[state, state % 2] = self.gamma ** (self.n - 1 - state)
        return values

    def memory(self, rng: np.random.Generator) -> Memory:
        """Play all 2^n sequences of actions to their ends, in random order, and keep every step.

        Parameters
        ----------
        rng : numpy.random.Generator
            Decides the order of the episodes.

        Returns
        -------
        Memory
            N = 2^(n+1) - 2 transitions. State i comes 2^(n-1-i) times with each action; exactly
            one reward is 1.
        """
        sequence = rng.permutation(2**self.n)
        state = np.arange(self.n)
        actions = (sequence[:, None] >> state) & 1  # [episode, state]
        right = actions == state % 2
        reached = np.ones_like(right)  # a state is reached by right actions only
        reached[:, 1:] = np.logical_and.accumulate(right[:, :-1], axis=1)
        episode, obs = np.nonzero(reached)
        led_on = right[episode, obs]
        rewarded = led_on & (obs == self.n - 1)
        continues = led_on & ~rewarded
        return Memory(
            pair=2 * obs + actions[episode, obs],
            reward=rewarded.astype(np.float64),
            discount=np.where(continues, self.gamma, 0.0),
            next_obs=np.where(continues, obs + 1, obs),
        )


class Learner:
    """Q-learning on one transition at a time, until the values are near the true ones.

    Q(s, a) = theta . phi(s, a), where phi is one-hot over the pairs (s, a), and in the linear case
    has one more entry that is always 1, shared by both actions. Learnt means that the mean squared
    error over all 2n values is below ``TOLERANCE``.

    Parameters
    ----------
    walk : Cliffwalk
        The task.
    features : "tabular" or "linear"
        Without or with the constant feature.
    rng : numpy.random.Generator
        Draws the first theta.
    spread : float
        Standard deviation of the first theta. With 0 nothing but the rewarded transition has an
        error at first, and a greedy learner that has replayed the others by then stops learning.
    """

    def __init__(
        self,
        walk: Cliffwalk,
        features: Features,
        rng: np.random.Generator,
        spread: float = SPREAD,
    ) -> None:
        self.constant = {"tabular": 0.0, "linear": 1.0}[features]
        self.truth = walk.true_values().ravel()
        self.theta = spread * rng.standard_normal(self.truth.size + 1)
        self._task = (self.theta, self.constant, self.truth, STEP_SIZE, TOLERANCE)

    def values(self) -> Floats:
        """Return Q as it stands, float64[n, 2]."""
        return np.reshape(self.theta[:-1] + self.constant * self.theta[-1], (-1, 2))

    def learn(self, memory: Memory, slots: Ints, td_error: Floats) -> int:
        """Learn from transitions one after another, until the values are learnt.

        Parameters
        ----------
        memory : Memory
        slots : int64[B]
            Which transitions, in the order of replay.
        td_error : float64[B]
            Receives the error of each from before its update.

        Returns
        -------
        int
            The number of updates after which the values were learnt, 0 if they were not.
        """
        return int(kernels.learn_in_order(*self._task, *memory, slots, td_error))

    def learn_greedily(self, memory: Memory, limit: int) -> int:
        """Learn from the largest error each time; the number of updates, 0 if ``limit`` is too few.

        New transitions count as errors of 1; of equal errors the oldest transition is taken.
        """
        return int(kernels.learn_greedily(*self._task, *memory, limit))

    def learn_with_hindsight(self, memory: Memory, limit: int) -> int:
        """Learn from what helps most each time; the number of updates, 0 if ``limit`` is too few.

        This oracle tries all updates and makes the one that leaves the smallest global error. In
        the linear case it leaves td errors below the root of ``TOLERANCE`` alone while there are
        larger ones: there each update moves all values through the shared feature, so that in the
        end any does more harm than good, and the best choice would be to replay a transition
        without error for ever.
        """
        _, distinct = np.unique(memory.pair, return_index=True)
        different = [column[distinct] for column in memory]
        negligible = self.constant * TOLERANCE**0.5
        return int(kernels.learn_with_hindsight(*self._task, *different, limit, negligible))


def updates_to_learn(n: int, arm: Arm, features: Features, seed: int) -> int | None:
    """Count the updates that one arm needs to learn the walk of ``n`` states.

    The memory and the first theta depend on ``n`` and ``seed`` alone, so that arms are compared on
    the same task. Every transition enters with the same priority; there are no importance weights.

    Parameters
    ----------
    n : int
        Number of states.
    arm : "uniform", "oracle", "greedy", "proportional" or "rank"
        How the next transition is chosen. The first and the last two draw with the
        :class:`~prioritized_replay.sampling.sampler.Sampler` of every replay buffer.
    features : "tabular" or "linear"
        See :class:`Learner`.
    seed : int
        Fixes the memory's order, the first theta and the draws.

    Returns
    -------
    int or None
        None if it was not learnt after 100 updates for each transition in memory.

    Raises
    ------
    ValueError
        An unknown arm, or ``n`` is below 2.
    """
    if arm not in get_args(Arm):
        raise ValueError(f"arm must be one of {', '.join(get_args(Arm))}, got {arm!r}")
    walk = Cliffwalk(n)
    rng = np.random.default_rng([n, seed])
    memory = walk.memory(rng)
    learner = Learner(walk, features, rng)
    limit = PATIENCE * walk.transitions
    if arm == "oracle":
        return learner.learn_with_hindsight(memory, limit) or None
    if arm == "greedy":
        return learner.learn_greedily(memory, limit) or None

    sampler = Sampler(SAMPLERS[arm], walk.transitions, Note())
    sampler.append(np.ones(walk.transitions))  # the ids are the slots
    uniforms = UniformStream(rng)
    size = min(10_000, walk.transitions) if arm == "uniform" else 1
    td_error = np.empty(size)
    probabilities = np.empty(size)
    for done in range(0, limit, size):
        slots = sampler.draw(size, uniforms, probabilities)
        updates = learner.learn(memory, slots, td_error)
        if updates:
            return done + updates
        if arm != "uniform":
            sampler.update(slots, td_error)
    return None
