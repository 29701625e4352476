"""Tianshou, used in the fastest way that its documentation names."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, ClassVar

import numpy as np

from prioritized_replay.conformance.stacks import STACK
from prioritized_replay.conformance.subject import (
    ALPHA,
    BETA,
    Drawn,
    Ints,
    StackSubject,
    Subject,
)
from prioritized_replay.conformance.workload import Errors, Floats, Workload


class _Tianshou(Subject):
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


class TianshouStacks(StackSubject, TianshouProportional):
    """Tianshou's ``PrioritizedReplayBuffer`` that keeps the last frame of each observation."""

    name = "tianshou, stacks"
    settings: ClassVar = {
        "class": f"PrioritizedReplayBuffer(alpha={ALPHA['proportional']}, beta={BETA}, "
        f"stack_num={STACK}, ignore_obs_next=True, save_only_last_obs=True)",
        "draws": "independent, with replacement (the only way)",
        "add": "a Batch made before timing",
    }

    def __init__(self, size: int) -> None:
        Subject.__init__(self, size)
        self._memory = import_module("tianshou.data").PrioritizedReplayBuffer(
            size,
            alpha=ALPHA["proportional"],
            beta=BETA,
            stack_num=STACK,
            ignore_obs_next=True,
            save_only_last_obs=True,
        )

    def fill(self, workload: Workload, errors: Floats | None) -> None:
        self._fill(workload)
        if errors is not None:
            self._memory.update_weight(np.arange(self.size), errors)

    def seen(self, drawn: Any) -> Drawn:
        batch, rows = drawn
        return Drawn(rows, batch.act, batch.obs, batch.weight, batch.obs_next)
