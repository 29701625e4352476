"""A memory goes on when it is full, also where its capacity is a power of two.

The same shows in every scenario that fails with this IndexError.
"""

from importlib.metadata import version

import numpy as np
from dopamine.jax.replay_memory.accumulator import TransitionAccumulator
from dopamine.jax.replay_memory.elements import TransitionElement
from dopamine.jax.replay_memory.replay_buffer import ReplayBuffer
from dopamine.jax.replay_memory.samplers import PrioritizedSamplingDistribution

print("dopamine-rl", version("dopamine-rl"))
for size in (15, 16, 17):
    law = PrioritizedSamplingDistribution(0, max_capacity=size)
    replay = ReplayBuffer(TransitionAccumulator(1, 1, 0.99), law, batch_size=4, max_capacity=size)
    try:
        for t in range(100):
            replay.add(TransitionElement(np.array([t]), t, 0.0, False, False), priority=1.0)
        print(f"capacity {size}: 100 steps added")
    except IndexError as error:
        print(f"capacity {size}: step {t}: IndexError: {error}")
