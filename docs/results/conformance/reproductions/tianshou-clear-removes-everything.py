"""After reset(), a memory holds the rows that are added then, and no others."""

from importlib.metadata import version

import numpy as np
from tianshou.data import Batch, PrioritizedReplayBuffer

replay = PrioritizedReplayBuffer(16, alpha=0.6, beta=0.4)
row = {"obs": 0, "rew": 0.0, "terminated": False, "truncated": False, "obs_next": 0}
for act in range(16):
    replay.add(Batch(act=act, **row))
replay.reset()
for act in range(100, 105):
    replay.add(Batch(act=act, **row))
batch, _ = replay.sample(1000)
print("tianshou", version("tianshou"), "after reset() and five new rows, len is", len(replay))
print("rows in 1,000 draws:", *np.unique(batch.act), "- should be 100 to 104")
