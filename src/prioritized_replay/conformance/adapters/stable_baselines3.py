"""Stable-Baselines3, used in the fastest way that its documentation names."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, ClassVar

import numpy as np

from prioritized_replay.conformance.stacks import FRAME_BYTES, STACK, STACK_SHAPE
from prioritized_replay.conformance.subject import (
    Drawn,
    StackSubject,
    Subject,
)
from prioritized_replay.conformance.workload import OBS_SIZE, Floats, Workload


class StableBaselines3Uniform(Subject):
    """Stable-Baselines3's ``ReplayBuffer``; it has no prioritized one."""

    name = "stable-baselines3, uniform"
    library = "stable-baselines3"
    law = "uniform"
    bulk = False
    settings: ClassVar = {
        "class": "ReplayBuffer(device='cpu', handle_timeout_termination=False), the faster setting",
        "draws": "independent (the only way); batches come as tensors (the only way)",
        "add": "arrays with an axis of one environment, as its loop holds them",
    }

    def __init__(self, size: int) -> None:
        super().__init__(size)
        buffers = import_module("stable_baselines3.common.buffers")
        spaces = import_module("gymnasium.spaces")
        self._memory = buffers.ReplayBuffer(
            size,
            spaces.Box(-np.inf, np.inf, (OBS_SIZE,), np.float32),
            spaces.Discrete(size),
            device="cpu",
            handle_timeout_termination=False,
        )

    def fill(self, workload: Workload, errors: Floats | None) -> None:
        # Row by row would take a minute for ten million; its arrays are public.
        memory, first = self._memory, 0
        for rows in workload.chunks(self.size):
            place = slice(first, first + len(rows["action"]))
            memory.observations[place, 0] = rows["obs"]
            memory.next_observations[place, 0] = rows["next_obs"]
            memory.actions[place, 0, 0] = rows["action"]
            memory.rewards[place, 0] = rows["reward"]
            memory.dones[place, 0] = rows["terminated"]
            first = place.stop
        memory.full = True

    def as_step(self, step: Mapping[str, Any]) -> Any:
        return (
            step["obs"][None],
            step["next_obs"][None],
            np.array([step["action"]]),
            np.array([step["reward"]], np.float32),
            np.array([step["terminated"]]),
            [{}],
        )

    def add(self, step: Any) -> None:
        self._memory.add(*step)

    def sample(self, batch: int) -> Any:
        return self._memory.sample(batch)

    def seen(self, drawn: Any) -> Drawn:
        actions = drawn.actions.numpy()[:, 0].astype(np.int64)  # it does not say which it drew
        return Drawn(actions, actions, drawn.observations.numpy(), None)


class StableBaselines3Stacks(StackSubject, StableBaselines3Uniform):
    """Stable-Baselines3's ``ReplayBuffer``: two whole stacks for each row."""

    name = "stable-baselines3, uniform, stacks"
    row_bytes = 2 * STACK * FRAME_BYTES + 300
    optimized = False
    settings: ClassVar = {
        "class": "ReplayBuffer(device='cpu', handle_timeout_termination=False)",
        "draws": "independent (the only way); batches come as tensors (the only way)",
        "add": "arrays with an axis of one environment, as its loop holds them",
    }

    def __init__(self, size: int) -> None:
        Subject.__init__(self, size)
        buffers = import_module("stable_baselines3.common.buffers")
        spaces = import_module("gymnasium.spaces")
        self._memory = buffers.ReplayBuffer(
            size,
            spaces.Box(0, 255, STACK_SHAPE, np.uint8),
            spaces.Discrete(size),
            device="cpu",
            optimize_memory_usage=self.optimized,
            handle_timeout_termination=False,
        )

    def fill(self, workload: Workload, errors: Floats | None) -> None:
        self._fill(workload)

    def seen(self, drawn: Any) -> Drawn:
        actions = drawn.actions.numpy()[:, 0].astype(np.int64)  # it does not say which it drew
        obs, next_obs = drawn.observations.numpy(), drawn.next_observations.numpy()
        return Drawn(actions, actions, obs, None, next_obs)


class StableBaselines3OneStack(StableBaselines3Stacks):
    """The same with ``optimize_memory_usage``: one stack for each row."""

    name = "stable-baselines3, uniform, one stack"
    row_bytes = STACK * FRAME_BYTES + 300
    optimized = True
    settings: ClassVar = {
        **StableBaselines3Stacks.settings,
        "class": "ReplayBuffer(device='cpu', optimize_memory_usage=True, "
        "handle_timeout_termination=False)",
    }
