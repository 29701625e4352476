"""An adapter for ``per check``: a replay memory that is a deque of steps, drawn uniformly."""

import platform
import random
from collections import deque

import numpy as np

from prioritized_replay.conformance.memory import Adapter, Drawn, Memory, Step, Wanted


class DequeMemory(Memory):
    def __init__(self, wanted: Wanted) -> None:
        wanted.only("capacity", "gamma", "seed", "obs_shape", "obs_dtype")
        self.steps: deque[Step] = deque(maxlen=wanted.capacity)
        self.gamma = wanted.gamma
        self.random = random.Random(wanted.seed)

    def __len__(self) -> int:
        return len(self.steps)

    def add(self, step: Step) -> None:
        self.steps.append(step)

    def sample(self, batch_size: int, beta: float) -> Drawn:
        drawn = self.random.choices(self.steps, k=batch_size)
        return Drawn(
            ids=list(range(batch_size)),  # without priorities nobody asks for them
            obs=np.array([step.obs for step in drawn]),
            action=np.array([step.action for step in drawn]),
            reward=np.array([step.reward for step in drawn]),
            next_obs=np.array([step.next_obs for step in drawn]),
            discount=np.array([0.0 if step.terminated else self.gamma for step in drawn]),
        )


def adapter() -> Adapter:
    return Adapter(
        name="deque, uniform",
        library="Python",
        version=platform.python_version(),
        law="uniform",
        make=DequeMemory,
        not_claimed={"memory": "it promises nothing about bytes", "concurrency": "it has no lock"},
    )
