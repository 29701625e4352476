"""A new row that is added with max_recorded_priority has the priority of the largest one."""

from importlib.metadata import version

import numpy as np
from dopamine.jax.replay_memory.samplers import PrioritizedSamplingDistribution

law = PrioritizedSamplingDistribution(0, priority_exponent=0.5, max_capacity=5)
law.add(0, priority=1.0)
law.update(np.array([0]), priorities=np.array([100.0]))
tree = law._sum_tree  # this is how full_rainbow_agent reads it
law.add(1, priority=tree.max_recorded_priority)
print("dopamine-rl", version("dopamine-rl"), "with exponent 0.5")
print("row 0 was given priority 100; max_recorded_priority is", tree.max_recorded_priority)
print(f"in the tree row 0 has {tree.get(0):.4f}, the new row {tree.get(1):.4f}; both should be 10")
