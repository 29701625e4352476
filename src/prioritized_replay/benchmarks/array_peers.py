"""Libraries whose batches are arrays, cpprb and Tianshou, each used in its fastest documented way.

Knows what they call things and which of their forms is fastest; knows nothing of how they are timed
or judged. A library is imported when its contender is built, so this module needs none of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, ClassVar

import numpy as np

from prioritized_replay.benchmarks.contenders import ALPHA, BETA, EPS, Contender, Drawn, Ints
from prioritized_replay.benchmarks.workload import OBS_SIZE, Errors, Floats, Workload


class _Cpprb(Contender):
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


class _Tianshou(Contender):
    library = "tianshou"
    bulk = False  # `update` moves another buffer's rows, with a Python loop over them
    _memory: Any

    def fill(self, workload: Workload, errors: Floats | None) -> None:
        data = import_module("tianshou.data")
        for rows in workload.chunks(self.size):
            ends = rows["terminated"]
            source = data.ReplayBuffer.from_data(
                obs=rows["obs"],
                act=rows["action"],
                rew=rows["reward"],
                terminated=ends,
                truncated=np.zeros_like(ends),
                done=ends,
                obs_next=rows["next_obs"],
            )
            self._memory.update(source)

    def as_step(self, step: Mapping[str, Any]) -> Any:
        return import_module("tianshou.data").Batch(
            obs=step["obs"],
            act=step["action"],
            rew=step["reward"],
            terminated=step["terminated"],
            truncated=False,
            obs_next=step["next_obs"],
        )

    def as_errors(self, errors: Errors) -> Any:
        return errors.astype(np.float64)  # which its tree is made of

    def add(self, step: Any) -> None:
        self._memory.add(step)

    def sample(self, batch: int) -> Any:
        return self._memory.sample(batch)


class TianshouProportional(_Tianshou):
    """Tianshou's ``PrioritizedReplayBuffer``."""

    name = "tianshou"
    law = "proportional"
    eps = float(np.finfo(np.float32).eps)  # fixed there
    settings: ClassVar = {
        "class": f"PrioritizedReplayBuffer(alpha={ALPHA['proportional']}, beta={BETA}), nothing "
        "stacked, no info stored",
        "draws": "independent, with replacement (the only way)",
        "update": "TD errors as float64, the dtype of its tree, made before timing",
        "add": "a Batch made before timing",
    }

    def __init__(self, size: int) -> None:
        super().__init__(size)
        data = import_module("tianshou.data")
        self._memory = data.PrioritizedReplayBuffer(size, alpha=ALPHA["proportional"], beta=BETA)

    def fill(self, workload: Workload, errors: Floats | None) -> None:
        super().fill(workload, errors)
        if errors is not None:
            self._memory.update_weight(np.arange(self.size), errors)

    def add_with_error(self, step: Any, error: Any) -> None:
        place, *_ = self._memory.add(step)
        self._memory.update_weight(place, error)

    def update(self, drawn: Any, errors: Any) -> None:
        self._memory.update_weight(drawn[1], errors)

    def seen(self, drawn: Any) -> Drawn:
        batch, rows = drawn
        return Drawn(rows, batch.act, batch.obs, batch.weight)

    def update_rows(self, rows: Ints, errors: Errors) -> None:
        self._memory.update_weight(rows, errors.astype(np.float64))


class TianshouUniform(_Tianshou):
    """Tianshou's ``ReplayBuffer``."""

    name = "tianshou, uniform"
    law = "uniform"
    settings: ClassVar = {
        "class": "ReplayBuffer, nothing stacked, no info stored",
        "draws": "independent (the only way)",
        "add": "a Batch made before timing",
    }

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._memory = import_module("tianshou.data").ReplayBuffer(size)

    def seen(self, drawn: Any) -> Drawn:
        batch, rows = drawn
        return Drawn(rows, batch.act, batch.obs, None)
