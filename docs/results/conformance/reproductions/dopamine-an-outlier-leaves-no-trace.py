"""After one very large priority came and went, rows are drawn as if it had not been there."""

from importlib.metadata import version

import numpy as np
from dopamine.jax.replay_memory.samplers import PrioritizedSamplingDistribution

print("dopamine-rl", version("dopamine-rl"))
law, rng = PrioritizedSamplingDistribution(0, max_capacity=65), np.random.default_rng(0)
for key in range(64):
    law.add(key, priority=1.0)
for turn in range(50):
    small = 1e-3 * rng.random(64)
    law.update(np.arange(64), priorities=np.where(np.arange(64) == turn, 1e12, small))
law.update(np.arange(64), priorities=small)
print("sum of the priorities:", small.sum(), "- root of the tree:", law._sum_tree.root)
try:
    print("1,000 draws:", len(law.sample(1000).keys))
except AssertionError:
    print("sample raises the AssertionError of SumTree.query")
