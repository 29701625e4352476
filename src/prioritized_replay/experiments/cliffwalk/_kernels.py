# numba infers the types of what it compiles, and its decorators are untyped:
# mypy: disallow-untyped-defs=False, disallow-untyped-calls=False
# mypy: disallow-untyped-decorators=False
"""Compiled loops of the Blind Cliffwalk: the learning rule, and the two arms that cheat.

Knows values and transitions as flat arrays; knows nothing of rows of states, samplers or seeds.

Throughout, Q(s, a) = theta[2 s + a] + constant * theta[-1]: one weight for each pair (s, a), and
one for a feature that is always ``constant``, 0 in the table and 1 in the linear case. So
``theta`` float64[2 n + 1] has one entry more than ``truth`` float64[2 n]. The memory is given as
its columns: ``pair`` and ``next_obs`` int64[N], ``reward`` and ``discount`` float64[N], where a
discount of 0 marks the end of an episode.
"""

from __future__ import annotations

import heapq

import numpy as np

from prioritized_replay.jit.compiling import kernel


@kernel
def mean_squared_error(theta, constant, truth):
    """Return the mean of (Q - truth)^2 over all pairs."""
    shared = constant * theta[-1]
    total = 0.0
    for pair in range(truth.size):
        total += (theta[pair] + shared - truth[pair]) ** 2
    return total / truth.size


@kernel
def td_error_of(theta, constant, pair, reward, discount, next_obs):
    """Return reward + discount * max_a Q(next_obs, a) - Q(pair)."""
    shared = constant * theta[-1]
    best = max(theta[2 * next_obs], theta[2 * next_obs + 1]) + shared
    return reward + discount * best - theta[pair] - shared


@kernel
def move(theta, constant, pair, amount):
    """Add amount * phi to theta: phi is 1 at the pair and `constant` at the end."""
    theta[pair] += amount
    theta[-1] += amount * constant


@kernel
def learn_in_order(
    theta, constant, truth, step_size, tolerance, pair, reward, discount, next_obs, slots, td_error
):
    """Learn from the transitions in these slots, one by one, and write their td errors.

    Returns the number of updates after which the mean squared error was below the tolerance, and
    stops there; 0 if it never was.
    """
    for k in range(slots.size):
        i = slots[k]
        delta = td_error_of(theta, constant, pair[i], reward[i], discount[i], next_obs[i])
        td_error[k] = delta
        move(theta, constant, pair[i], step_size * delta)
        if mean_squared_error(theta, constant, truth) < tolerance:
            return k + 1
    return 0


@kernel
def learn_greedily(
    theta, constant, truth, step_size, tolerance, pair, reward, discount, next_obs, limit
):
    """Replay the transition of the largest priority each time, the oldest of equal ones.

    A priority is the size of the td error when last replayed, 1 before. Returns the number of
    updates as `learn_in_order` does, at most `limit`.
    """
    queue = [(-1.0, i) for i in range(pair.size)]  # equal priorities: already a heap
    for update in range(1, limit + 1):
        i = queue[0][1]
        delta = td_error_of(theta, constant, pair[i], reward[i], discount[i], next_obs[i])
        move(theta, constant, pair[i], step_size * delta)
        heapq.heapreplace(queue, (-abs(delta), i))
        if mean_squared_error(theta, constant, truth) < tolerance:
            return update
    return 0


@kernel
def learn_with_hindsight(
    theta, constant, truth, step_size, tolerance, pair, reward, discount, next_obs, limit,
    negligible,
):  # fmt: skip
    """Try an update with each transition, and make the one that leaves the least error.

    Copies of a transition have the same effect, so give each distinct one once. Of equally good
    ones the first is taken; of td errors below `negligible` only the largest is tried, and only if
    all are below. Returns the number of updates as `learn_in_order` does, at most `limit`.
    """
    trial = np.empty_like(theta)
    best = np.empty_like(theta)
    td_error = np.empty(pair.size)
    for update in range(1, limit + 1):
        for i in range(pair.size):
            td_error[i] = td_error_of(theta, constant, pair[i], reward[i], discount[i], next_obs[i])
        needed = min(negligible, np.abs(td_error).max())
        least = np.inf
        for i in range(pair.size):
            if abs(td_error[i]) >= needed:
                trial[:] = theta
                move(trial, constant, pair[i], step_size * td_error[i])
                error = mean_squared_error(trial, constant, truth)
                if error < least:
                    least = error
                    best[:] = trial
        theta[:] = best
        if least < tolerance:
            return update
    return 0
