"""TorchRL, used in the fastest way that its documentation names."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, ClassVar

import numpy as np

from prioritized_replay.conformance.subject import (
    ALPHA,
    BETA,
    EPS,
    Drawn,
    Ints,
    Subject,
)
from prioritized_replay.conformance.workload import Errors, Floats, Workload


class TorchRLProportional(Subject):
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
