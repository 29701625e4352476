"""What is restored gives new rows the same priority as what was saved."""

from importlib.metadata import version

import numpy as np
from dopamine.jax.replay_memory.samplers import PrioritizedSamplingDistribution

law, restored = (PrioritizedSamplingDistribution(0, max_capacity=5) for _ in range(2))
law.add(0, priority=1.0)
law.update(np.array([0]), priorities=np.array([100.0]))
restored.from_state_dict(law.to_state_dict())
print("dopamine-rl", version("dopamine-rl"))
print("max_recorded_priority when saved:  ", law._sum_tree.max_recorded_priority)
print("max_recorded_priority when restored:", restored._sum_tree.max_recorded_priority)
