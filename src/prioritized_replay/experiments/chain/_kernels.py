# numba infers the types of what it compiles, and its decorators are untyped:
# mypy: disallow-untyped-defs=False, disallow-untyped-calls=False
# mypy: disallow-untyped-decorators=False
"""Compiled loops of Q-learning with features that states share.

Knows values and rows as flat arrays; knows nothing of chains, samplers or seeds.

Throughout, Q(s, a) is the sum of ``theta[a, tiles[s, k]]`` over k: ``theta`` float64[2, K] has a
row of weights for each action, and ``tiles`` int64[n, W] names the W weights of each state. The
memory is given as its columns: ``pair`` int64[N], 2 s + a; ``reward`` and ``discount`` float64[N],
where a discount of 0 marks the end of an episode; ``next_obs`` int64[N].
"""

from __future__ import annotations

from prioritized_replay.jit.compiling import inner, kernel


@inner
def value_of(theta, tiles, state, action):
    """Return Q(state, action)."""
    total = 0.0
    for k in range(tiles.shape[1]):
        total += theta[action, tiles[state, k]]
    return total


@inner
def td_error_of(theta, target, tiles, pair, reward, discount, next_obs):
    """Return the td error of Double DQN: theta chooses the next action, the target values it."""
    found = reward - value_of(theta, tiles, pair >> 1, pair & 1)
    if discount > 0.0:
        first, second = value_of(theta, tiles, next_obs, 0), value_of(theta, tiles, next_obs, 1)
        found += discount * value_of(target, tiles, next_obs, int(second > first))
    return found


@kernel
def td_errors_of(theta, target, tiles, pair, reward, discount, next_obs, slots, td_error):
    """Write the td errors of the rows in these slots."""
    for k in range(slots.size):
        i = slots[k]
        td_error[k] = td_error_of(
            theta, target, tiles, pair[i], reward[i], discount[i], next_obs[i]
        )


@kernel
def learn_batch(
    theta, target, tiles, pair, reward, discount, next_obs, slots, weights, step_size, clip,
    td_error,
):  # fmt: skip
    """Take one step down the mean loss of the rows in these slots, and write their td errors.

    The loss is quadratic up to an error of `clip` and linear beyond it. All td errors are those
    from before the step.
    """
    for k in range(slots.size):
        i = slots[k]
        td_error[k] = td_error_of(
            theta, target, tiles, pair[i], reward[i], discount[i], next_obs[i]
        )
    each = step_size / slots.size
    for k in range(slots.size):
        state, action = pair[slots[k]] >> 1, pair[slots[k]] & 1
        amount = each * weights[k] * min(max(td_error[k], -clip), clip)
        for j in range(tiles.shape[1]):
            theta[action, tiles[state, j]] += amount


@kernel
def write_values(theta, tiles, values):
    """Write Q of all states and actions to `values` float64[n, 2]."""
    for state in range(tiles.shape[0]):
        for action in range(2):
            values[state, action] = value_of(theta, tiles, state, action)
