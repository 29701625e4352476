"""A window that truncation cuts has m < n steps: its next value counts gamma**m.

The same shows in episodes-shorter-than-n and in interrupted-episodes-bootstrap.
"""

from importlib.metadata import version

import numpy as np
from cpprb import ReplayBuffer

nstep = {"size": 3, "gamma": 0.5, "rew": "rew", "next": "next_obs"}
fields = {"obs": {}, "act": {"dtype": np.int64}, "rew": {}, "next_obs": {}, "done": {}}
replay = ReplayBuffer(64, fields, Nstep=nstep)
for t in range(6):  # one episode of six steps; step 5 is truncated, so done stays 0
    replay.add(obs=10 + t, act=t, rew=1.0, next_obs=11 + t, done=0.0)
replay.on_episode_end()
rows = replay.get_all_transitions()
print("cpprb", version("cpprb"), "with windows of 3 steps; the last observation is 16")
print("columns:", *sorted(rows), "- none of them tells the discount of a row")
for k, act in enumerate(rows["act"][:, 0]):
    m = min(3, 6 - act)
    seen = f"next_obs {rows['next_obs'][k, 0]:.0f}, done {rows['done'][k, 0]:.0f}"
    print(f"step {act}: {seen}; it has {m} steps and should have next_obs {10 + act + m}")
