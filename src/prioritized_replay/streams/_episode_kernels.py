"""Compiled loops over the steps of one episode."""

from __future__ import annotations

import numpy as np

from prioritized_replay.jit.compiling import kernel


@kernel
def sum_windows(rewards, totals, powers, limit):
    """Sum up the rewards of the windows that begin at W + T steps; return -1.

    `totals`, float64[W + T]: of the W windows that were open it has the sums so far. The sums are
    made step by step, so that they have the bits which `add` gives them. Where one gets beyond the
    limit, the step of the reward to blame is returned.
    """
    n_step = powers.size - 1
    waiting = totals.size - rewards.size
    for step in range(rewards.size):
        newest = waiting + step
        reward = rewards[step]
        for i in range(max(newest - n_step + 1, 0), newest):
            before = totals[i]
            after = before + powers[newest - i] * reward
            if abs(after) > limit and abs(before) < np.inf and abs(reward) < np.inf:
                return step
            totals[i] = after
        totals[newest] = reward
    return -1
