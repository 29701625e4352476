"""Who keeps stacks of frames: ours, and the libraries that store less than two stacks a row.

Knows how each is used; what is timed, and how it is judged, is as with small rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, ClassVar

import numpy as np

import prioritized_replay as per
from prioritized_replay.benchmarks.array_peers import CpprbProportional, TianshouProportional
from prioritized_replay.benchmarks.contenders import (
    ALPHA,
    BETA,
    EPS,
    Contender,
    Drawn,
    OursInFiles,
    OursProportional,
    OursUniform,
)
from prioritized_replay.benchmarks.peers import Peer
from prioritized_replay.benchmarks.stacks import FRAME_BYTES, STACK, STACK_SHAPE, Stacks
from prioritized_replay.benchmarks.tensor_peers import StableBaselines3Uniform
from prioritized_replay.benchmarks.workload import Floats, Workload


class _OfStacks(Contender):
    """A memory that is filled step by step, since only steps in order can share frames."""

    row_bytes = FRAME_BYTES * 5 // 4

    @classmethod
    def workload(cls) -> Workload:
        return Stacks()

    def _fill(self, workload: Workload) -> None:
        assert isinstance(workload, Stacks)
        for step in workload.played(self.size):
            self.add(self.as_step(step))


class _OursStacks(_OfStacks):
    settings: ClassVar = {
        "fields": f"obs: Field({STACK_SHAPE}, 'uint8', stack_axis=0)",
        "add": "one plain step after the other: what is shared is found by the library",
    }
    fields: ClassVar[Mapping[str, per.Field]] = {
        "obs": per.Field(STACK_SHAPE, "uint8", stack_axis=0),
        "action": per.Field((), "int64"),
        "reward": per.Field(),
    }
    _replay: Any

    def fill(self, workload: Workload, errors: Floats | None) -> None:
        self._fill(workload)
        if errors is not None and self.law != "uniform":
            self._replay.update_priorities(np.arange(self.size), errors)

    def seen(self, drawn: Any) -> Drawn:
        weights = None if self.law == "uniform" else drawn.weights
        return Drawn(drawn.ids % self.size, drawn.action, drawn.obs, weights, drawn.next_obs)


class OursStacks(_OursStacks, OursProportional):
    """``ReplayBuffer`` with ``Proportional``."""

    name = "ours, proportional, stacks"


class OursStacksInFiles(_OursStacks, OursInFiles):
    """The same in a directory."""

    name = "ours, proportional, stacks in files"
    settings: ClassVar = {
        **_OursStacks.settings,
        "where": OursInFiles.settings["where"],
    }


class OursStacksUniform(_OursStacks, OursUniform):
    """``ReplayBuffer`` with ``Uniform``."""

    name = "ours, uniform, stacks"


class CpprbStacks(_OfStacks, CpprbProportional):
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
        Contender.__init__(self, size)
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


class TianshouStacks(_OfStacks, TianshouProportional):
    """Tianshou's ``PrioritizedReplayBuffer`` that keeps the last frame of each observation."""

    name = "tianshou, stacks"
    settings: ClassVar = {
        "class": f"PrioritizedReplayBuffer(alpha={ALPHA['proportional']}, beta={BETA}, "
        f"stack_num={STACK}, ignore_obs_next=True, save_only_last_obs=True)",
        "draws": "independent, with replacement (the only way)",
        "add": "a Batch made before timing",
    }

    def __init__(self, size: int) -> None:
        Contender.__init__(self, size)
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


class StableBaselines3Stacks(_OfStacks, StableBaselines3Uniform):
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
        Contender.__init__(self, size)
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


OURS_STACKS: Sequence[type[Contender]] = (OursStacks, OursStacksInFiles, OursStacksUniform)
PEERS_STACKS: Mapping[Peer, Sequence[type[Contender]]] = {
    "cpprb": (CpprbStacks,),
    "tianshou": (TianshouStacks,),
    "stable-baselines3": (StableBaselines3Stacks, StableBaselines3OneStack),
}
ALL_STACKS: Sequence[type[Contender]] = (
    *OURS_STACKS,
    *(kind for kinds in PEERS_STACKS.values() for kind in kinds),
)
