"""The other libraries, each behind the same face and used in its fastest documented way.

Knows what each library calls things and which of its forms is fastest; knows nothing of how it is
timed or judged. A library is imported when it is first used: none of them is needed to import this.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module, metadata
from typing import Any, ClassVar, Literal

import numpy as np

from prioritized_replay.benchmarks.contenders import (
    ALPHA,
    BETA,
    EPS,
    Contender,
    Drawn,
    Ints,
)
from prioritized_replay.benchmarks.workload import OBS_SIZE, Errors, Floats, Workload

Peer = Literal["cpprb", "tianshou", "stable-baselines3", "torchrl"]


def missing(peer: Peer) -> str | None:
    """Return why a library cannot take part, or None if it can."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they greet with warnings about optional parts
            metadata.version(peer)
            if peer == "torchrl":
                # Its trees are compiled, and fit one version of torch; without them it imports.
                import_module("torchrl.data").PrioritizedSampler(2, alpha=0.6, beta=0.4)
            else:
                import_module({"stable-baselines3": "stable_baselines3"}.get(peer, peer))
    except metadata.PackageNotFoundError:
        return "not installed"
    except Exception as error:  # whatever a foreign library raises while it loads
        return f"does not load here: {type(error).__name__}: {str(error).splitlines()[0]}"
    return None


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

    def update(self, drawn: Any, errors: Any) -> None:
        raise NotImplementedError

    def seen(self, drawn: Any) -> Drawn:
        actions = drawn["action"][:, 0]  # it does not say which rows it drew
        return Drawn(actions, actions, drawn["obs"], None)

    def update_rows(self, rows: Ints, errors: Errors) -> None:
        raise NotImplementedError


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

    def as_rows(self, rows: Mapping[str, Any]) -> Any:
        raise NotImplementedError

    def as_errors(self, errors: Errors) -> Any:
        return errors.astype(np.float64)  # which its tree is made of

    def add(self, step: Any) -> None:
        self._memory.add(step)

    def extend(self, rows: Any) -> None:
        raise NotImplementedError

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

    def update(self, drawn: Any, errors: Any) -> None:
        raise NotImplementedError

    def seen(self, drawn: Any) -> Drawn:
        batch, rows = drawn
        return Drawn(rows, batch.act, batch.obs, None)

    def update_rows(self, rows: Ints, errors: Errors) -> None:
        raise NotImplementedError


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

    def as_rows(self, rows: Mapping[str, Any]) -> Any:
        raise NotImplementedError

    def as_errors(self, errors: Errors) -> Any:
        raise NotImplementedError

    def add(self, step: Any) -> None:
        self._memory.add(*step)

    def extend(self, rows: Any) -> None:
        raise NotImplementedError

    def sample(self, batch: int) -> Any:
        return self._memory.sample(batch)

    def update(self, drawn: Any, errors: Any) -> None:
        raise NotImplementedError

    def seen(self, drawn: Any) -> Drawn:
        actions = drawn.actions.numpy()[:, 0].astype(np.int64)  # it does not say which it drew
        return Drawn(actions, actions, drawn.observations.numpy(), None)

    def update_rows(self, rows: Ints, errors: Errors) -> None:
        raise NotImplementedError


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


PEERS: Mapping[Peer, Sequence[type[Contender]]] = {
    "cpprb": (CpprbProportional, CpprbUniform),
    "tianshou": (TianshouProportional, TianshouUniform),
    "stable-baselines3": (StableBaselines3Uniform,),
    "torchrl": (TorchRLProportional,),
}
