"""cpprb, used in the fastest way that its documentation names."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, ClassVar

import numpy as np

from prioritized_replay.conformance.stacks import STACK, STACK_SHAPE
from prioritized_replay.conformance.subject import (
    ALPHA,
    BETA,
    EPS,
    Drawn,
    Ints,
    StackSubject,
    Subject,
)
from prioritized_replay.conformance.workload import OBS_SIZE, Errors, Floats, Workload


class _Cpprb(Subject):
    library = "cpprb"

    @staticmethod
    def _fields() -> dict[str, dict[str, Any]]:
        return {
            "obs": {"shape": OBS_SIZE, "dtype": np.float32},
            "action": {"dtype": np.int64},
            "reward": {"dtype": np.float32},
            "next_obs": {"shape": OBS_SIZE, "dtype": np.float32},
            "terminated": {"dtype": np.bool_},
        }

    def as_step(self, step: Mapping[str, Any]) -> Any:
        return dict(step)

    def as_rows(self, rows: Mapping[str, Any]) -> Any:
        return dict(rows)

    def as_errors(self, errors: Errors) -> Any:
        return np.abs(errors)  # float32, which its trees are made of; it adds eps itself

    def add(self, step: Any) -> None:
        self._memory.add(**step)

    def extend(self, rows: Any) -> None:
        self._memory.add(**rows)

    _memory: Any


class CpprbProportional(_Cpprb):
    """cpprb's ``PrioritizedReplayBuffer``."""

    name = "cpprb"
    law = "proportional"
    settings: ClassVar = {
        "class": f"PrioritizedReplayBuffer(alpha={ALPHA['proportional']}, eps={EPS}), the dtype of "
        "each field given, check_for_update off",
        "draws": "stratified, with replacement (the only way)",
        "update": "absolute values as float32, the dtype of its trees, made before timing",
        "add": "keyword arguments from a dict made before timing",
    }

    def __init__(self, size: int) -> None:
        super().__init__(size)
        cpprb = import_module("cpprb")
        self._memory = cpprb.PrioritizedReplayBuffer(
            size, self._fields(), alpha=ALPHA["proportional"], eps=EPS
        )

    def fill(self, workload: Workload, errors: Floats | None) -> None:
        first = 0
        for rows in workload.chunks(self.size):
            last = first + len(rows["action"])
            if errors is None:
                self._memory.add(**rows)
            else:
                priorities = np.abs(errors[first:last]).astype(np.float32)
                self._memory.add(**rows, priorities=priorities)
            first = last

    def add_with_error(self, step: Any, error: Any) -> None:
        self._memory.add(**step, priorities=error)

    def sample(self, batch: int) -> Any:
        return self._memory.sample(batch, beta=BETA)

    def update(self, drawn: Any, errors: Any) -> None:
        self._memory.update_priorities(drawn["indexes"], errors)

    def seen(self, drawn: Any) -> Drawn:
        rows = drawn["indexes"].astype(np.int64)
        return Drawn(rows, drawn["action"][:, 0], drawn["obs"], drawn["weights"])

    def update_rows(self, rows: Ints, errors: Errors) -> None:
        self._memory.update_priorities(rows.astype(np.uint64), np.abs(errors))


class CpprbUniform(_Cpprb):
    """cpprb's ``ReplayBuffer``."""

    name = "cpprb, uniform"
    law = "uniform"
    settings: ClassVar = {
        "class": "ReplayBuffer, the dtype of each field given",
        "draws": "independent (the only way)",
    }

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._memory = import_module("cpprb").ReplayBuffer(size, self._fields())

    def fill(self, workload: Workload, errors: Floats | None) -> None:
        for rows in workload.chunks(self.size):
            self._memory.add(**rows)

    def sample(self, batch: int) -> Any:
        return self._memory.sample(batch)

    def seen(self, drawn: Any) -> Drawn:
        actions = drawn["action"][:, 0]  # it does not say which rows it drew
        return Drawn(actions, actions, drawn["obs"], None)


class CpprbStacks(StackSubject, CpprbProportional):
    """cpprb's ``PrioritizedReplayBuffer`` that shares frames of stacks and next observations."""

    name = "cpprb, stacks"
    settings: ClassVar = {
        "class": f"PrioritizedReplayBuffer(alpha={ALPHA['proportional']}, eps={EPS}, "
        "next_of='obs', stack_compress='obs')",
        "add": "on_episode_end is called where an episode ends; stacks along the last axis, "
        "brought there before timing",
        "draws": "stratified, with replacement (the only way)",
    }

    def __init__(self, size: int) -> None:
        Subject.__init__(self, size)
        fields = {
            "obs": {"shape": (*STACK_SHAPE[1:], STACK), "dtype": np.uint8},
            "action": {"dtype": np.int64},
            "reward": {"dtype": np.float32},
            "terminated": {"dtype": np.bool_},
        }
        self._memory = import_module("cpprb").PrioritizedReplayBuffer(
            size, fields, alpha=ALPHA["proportional"], eps=EPS, next_of="obs", stack_compress="obs"
        )

    def fill(self, workload: Workload, errors: Floats | None) -> None:
        self._fill(workload)
        if errors is not None:
            priorities = np.abs(errors).astype(np.float32)
            self._memory.update_priorities(np.arange(self.size, dtype=np.uint64), priorities)

    def as_step(self, step: Mapping[str, Any]) -> Any:
        turned = {
            name: np.ascontiguousarray(np.moveaxis(step[name], 0, -1))
            for name in ("obs", "next_obs")
        }
        return {**step, **turned}

    def add(self, step: Any) -> None:
        self._memory.add(**step)
        if step["terminated"]:
            self._memory.on_episode_end()

    def seen(self, drawn: Any) -> Drawn:
        obs, next_obs = (np.moveaxis(drawn[name], -1, 1) for name in ("obs", "next_obs"))
        rows = drawn["indexes"].astype(np.int64)
        return Drawn(rows, drawn["action"][:, 0], obs, drawn["weights"], next_obs)
