"""A window whose last step terminates has no future: done should be 1."""

from importlib.metadata import version

import numpy as np
from cpprb import ReplayBuffer

nstep = {"size": 3, "gamma": 0.5, "rew": "rew", "next": "next_obs"}
fields = {"obs": {}, "act": {"dtype": np.int64}, "rew": {}, "next_obs": {}, "done": {}}
replay = ReplayBuffer(64, fields, Nstep=nstep)
for t in range(6):  # one episode of six steps; step 5 terminates
    replay.add(obs=t, act=t, rew=1.0, next_obs=t + 1, done=t == 5)
replay.on_episode_end()
rows = replay.get_all_transitions()
print("cpprb", version("cpprb"), "with windows of 3 steps; the episode terminates at 6")
for act, next_obs, done in zip(rows["act"], rows["next_obs"], rows["done"], strict=True):
    should = "1" if act[0] + 3 >= 6 else "0"
    print(f"step {act[0]}: next_obs {next_obs[0]:.0f}, done {done[0]:.0f}, should be {should}")
