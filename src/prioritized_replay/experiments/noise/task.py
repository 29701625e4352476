"""A chain with noise on the rewards of one half, and how wrong the values are after learning.

Knows the task and the arms; knows nothing of files, figures or progress.

There are 32 states in a row: the right action leads on, and from the last state to a reward of 1;
the wrong one ends the episode. In the first 16 states, every reward has normal noise of mean 0 and
standard deviation sigma. So there the td errors are large and teach nothing. The memory holds 8,192
steps from states and actions chosen at random, so nothing is rare: uniform replay has no handicap.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import numpy as np

from prioritized_replay import PrioritizedIndex, Proportional, RankBased
from prioritized_replay.experiments.chain.learner import (
    DIVERGED,
    WAYS,
    Floats,
    Learner,
    Rows,
    Way,
    replay,
)
from prioritized_replay.experiments.tuning import best_step_size

STATES = 32
NOISY = STATES // 2  # states with noise, the first ones
GAMMA = 1.0 - 1.0 / STATES
TRANSITIONS = 8_192
UPDATES = 500
STEP_SIZES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
TUNING_SEEDS = range(1_000, 1_005)

Arm = Literal[
    "uniform",
    "proportional",
    "proportional-floor",
    "proportional-corrected",
    "proportional-unweighted",
    "proportional-unweighted-floor",
    "rank",
    "rank-mix",
    "rank-unweighted",
    "rank-unweighted-mix",
    "lap",
]
SOLVED = "solved"  # in tables, beside the arms: what the memory says, without learning in steps

# A floor of 1, the size of the reward: no error below it counts more than another. Ranks know no
# floor; a half of uniform draws is what they have instead.
FLOOR = Proportional(min_priority=1.0)
MIX = RankBased(uniform_mix=0.5)
NOISE_WAYS: dict[str, Way] = {
    "uniform": WAYS["uniform"],
    "proportional": WAYS["proportional"],
    "proportional-floor": Way(FLOOR, beta=0.4),
    "proportional-corrected": Way(Proportional(), beta=1.0),
    "proportional-unweighted": WAYS["proportional-unweighted"],
    "proportional-unweighted-floor": Way(FLOOR),
    "rank": WAYS["rank"],
    "rank-mix": Way(MIX, beta=0.5),
    "rank-unweighted": WAYS["rank-unweighted"],
    "rank-unweighted-mix": Way(MIX),
    "lap": WAYS["lap"],
}


def true_values() -> Floats:
    """Return float64[32, 2]: 0 of the wrong action (0), gamma^(31 - s) of the right one (1)."""
    right = GAMMA ** (STATES - 1 - np.arange(STATES))
    return np.stack([np.zeros(STATES), right], axis=1)


def memory(sigma: float, rng: np.random.Generator) -> Rows:
    """Return steps from states and actions chosen at random, each of the 64 at least once."""
    pair = np.concatenate(
        [np.arange(2 * STATES), rng.integers(2 * STATES, size=TRANSITIONS - 2 * STATES)]
    )
    state, action = pair // 2, pair % 2
    arrived = (state == STATES - 1) & (action == 1)
    noise = sigma * rng.standard_normal(TRANSITIONS)
    return Rows(
        pair=pair,
        reward=np.where(state < NOISY, noise, arrived),
        discount=np.where((action == 1) & ~arrived, GAMMA, 0.0),
        next_obs=np.minimum(state + 1, STATES - 1),
    )


@dataclass(frozen=True)
class Mistakes:
    """How wrong values are.

    Attributes
    ----------
    error, quiet_error : float
        Root of their mean squared error, in all states and in those without noise.
    wrong : float
        Share of the states whose greedy action is the wrong one.
    """

    error: float
    quiet_error: float
    wrong: float


def mistakes_of(values: Floats) -> Mistakes:
    """Compare values with the true ones."""
    square = np.square(values - true_values())
    return Mistakes(
        error=float(np.sqrt(square.mean())),
        quiet_error=float(np.sqrt(square[NOISY:].mean())),
        wrong=float((values[:, 1] <= values[:, 0]).mean()),
    )


def solved(sigma: float, seed: int) -> Mistakes:
    """Return the mistakes that are in the memory itself: it is solved exactly, state by state.

    Each value is the mean of all rewards of its pair, and the discounted best value after it.
    """
    rows = memory(sigma, np.random.default_rng(seed))
    reward = np.bincount(rows.pair, rows.reward) / np.bincount(rows.pair)
    values = reward.reshape(STATES, 2)
    for state in range(STATES - 2, -1, -1):
        values[state, 1] += GAMMA * values[state + 1].max()
    return mistakes_of(values)


def mistakes_after(
    sigma: float, arm: Arm, seed: int, step_size: float, updates: int = UPDATES
) -> Mistakes:
    """Learn with one arm, and return how wrong its values are then.

    Memory and first weights depend on ``sigma`` and ``seed`` alone, so arms are compared on the
    same task; with another sigma the noise is the same, but for its size.

    Parameters
    ----------
    sigma : float
        Standard deviation of the noise, >= 0.
    arm : str
        A way of replay, one of ``NOISE_WAYS``.
    seed : int
        Fixes the memory, the first weights and the draws.
    step_size : float
        See :class:`~prioritized_replay.experiments.chain.learner.Learner`.
    updates : int
        Of 32 rows each.

    Raises
    ------
    ValueError
        An unknown arm.
    """
    if arm not in get_args(Arm):
        raise ValueError(f"arm must be one of {', '.join(get_args(Arm))}, got {arm!r}")
    way, rng = NOISE_WAYS[arm], np.random.default_rng(seed)
    rows = memory(sigma, rng)
    learner = Learner(STATES, step_size, way.clip, rng)
    index = PrioritizedIndex(TRANSITIONS, way.sampler, seed=rng)
    index.append(TRANSITIONS)  # so ids are places in the memory
    for _ in range(updates):
        if not replay(learner, rows, index, way.beta):
            return Mistakes(DIVERGED, DIVERGED, 1.0)
    return mistakes_of(learner.values())


def tuned_step_size(sigma: float, arm: Arm, updates: int = UPDATES) -> float:
    """Return the step size that leaves an arm the least error, on seeds kept for that."""
    return best_step_size(partial(_error_after, sigma, arm, updates), STEP_SIZES, TUNING_SEEDS)


def _error_after(
    sigma: float, arm: Arm, updates: int, step_size: float, seed: int, limit: float
) -> float:
    return mistakes_after(sigma, arm, seed, step_size, updates).error
