"""Libraries whose batches are tensors, Stable-Baselines3 and TorchRL, used in their fastest way.

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


class StableBaselines3Uniform(Contender):
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


class TorchRLProportional(Contender):
    """TorchRL's ``TensorDictReplayBuffer`` with its ``PrioritizedSampler``."""

    name = "torchrl"
    library = "torchrl"
    law = "proportional"
    settings: ClassVar = {
        "class": "TensorDictReplayBuffer(LazyTensorStorage, PrioritizedSampler("
        f"alpha={ALPHA['proportional']}, beta={BETA}, eps={EPS})), on the CPU, no prefetching",
        "draws": "independent, with replacement (the only way); batches come as tensors",
        "update": "update_priority with tensors of absolute values, made before timing",
        "add": "a TensorDict made before timing",
    }

    def __init__(self, size: int) -> None:
        super().__init__(size)
        data = import_module("torchrl.data")
        self._memory = data.TensorDictReplayBuffer(
            storage=data.LazyTensorStorage(size),
            sampler=data.PrioritizedSampler(size, alpha=ALPHA["proportional"], beta=BETA, eps=EPS),
        )

    def fill(self, workload: Workload, errors: Floats | None) -> None:
        torch, first = import_module("torch"), 0
        for rows in workload.chunks(self.size):
            self._memory.extend(self.as_rows(rows))
            last = first + len(rows["action"])
            if errors is not None:
                priorities = torch.from_numpy(np.abs(errors[first:last]).astype(np.float32))
                self._memory.update_priority(torch.arange(first, last), priorities)
            first = last

    def as_step(self, step: Mapping[str, Any]) -> Any:
        torch, tensordict = import_module("torch"), import_module("tensordict")
        one = {name: torch.as_tensor(value) for name, value in step.items()}
        one["reward"] = one["reward"].to(torch.float32)
        return tensordict.TensorDict(one, batch_size=[])

    def as_rows(self, rows: Mapping[str, Any]) -> Any:
        torch, tensordict = import_module("torch"), import_module("tensordict")
        columns = {name: torch.as_tensor(column) for name, column in rows.items()}
        return tensordict.TensorDict(columns, batch_size=[len(rows["action"])])

    def as_errors(self, errors: Errors) -> Any:
        return import_module("torch").from_numpy(np.abs(errors))

    def add(self, step: Any) -> None:
        self._memory.add(step)

    def add_with_error(self, step: Any, error: Any) -> None:
        place = self._memory.add(step)
        self._memory.update_priority(place, error)

    def extend(self, rows: Any) -> None:
        self._memory.extend(rows)

    def sample(self, batch: int) -> Any:
        return self._memory.sample(batch)

    def update(self, drawn: Any, errors: Any) -> None:
        self._memory.update_priority(drawn["index"], errors)

    def seen(self, drawn: Any) -> Drawn:
        rows, actions = drawn["index"].numpy().astype(np.int64), drawn["action"].numpy()
        return Drawn(rows, actions, drawn["obs"].numpy(), drawn["priority_weight"].numpy())

    def update_rows(self, rows: Ints, errors: Errors) -> None:
        torch = import_module("torch")
        self._memory.update_priority(torch.from_numpy(rows), torch.from_numpy(np.abs(errors)))
