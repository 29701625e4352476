"""Every step gives a row, and the row of the step that terminates is the one without a future.

The same shows in returns-add-up, windows-never-cross-an-end and others of the group n-step.
"""

from importlib.metadata import version

import numpy as np
from dopamine.jax.replay_memory.accumulator import TransitionAccumulator
from dopamine.jax.replay_memory.elements import TransitionElement

print("dopamine-rl", version("dopamine-rl"))
for n in (1, 3):  # step t has reward 10**t; step 5, the last one, terminates
    accumulator = TransitionAccumulator(stack_size=1, update_horizon=n, gamma=0.5)
    rows = {}
    for t in range(6):  # as its agents' step and end_episode pass it
        step = TransitionElement(np.array([t]), t, 10.0**t, t == 5, t == 5)
        rows |= {row.action: row for row in accumulator.accumulate(step)}
    for t in range(6):
        reward = sum(0.5**k * 10.0 ** (t + k) for k in range(n) if t + k < 6)
        row = rows.get(t)
        seen = f"reward {row.reward:g}, is_terminal {row.is_terminal}" if row else "no row"
        print(f"n = {n}, step {t}: {seen}; should be reward {reward:g}, {t + n >= 6}")
