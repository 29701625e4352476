"""TorchRL for ``per check``: ``proportional`` and ``uniform``, its buffers of TensorDicts."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from prioritized_replay.conformance.memories._libraries import (
    NOT_FINITE,
    require_draw,
    unspoken,
    version_of,
)
from prioritized_replay.conformance.memory import (
    Adapter,
    Array,
    Drawn,
    Memory,
    NotClaimed,
    Step,
    VectorStep,
    Wanted,
)

_SETTINGS = (
    "capacity", "alpha", "eps", "n_step", "gamma", "num_envs", "obs_shape", "obs_dtype",
    "action_shape", "action_dtype", "stacked", "seed", "draw",
)  # fmt: skip


class _Uniform(Memory):
    def __init__(self, wanted: Wanted) -> None:
        wanted.only(*_SETTINGS)
        require_draw(wanted, "independent")
        if wanted.num_envs is not None and wanted.n_step > 1:
            raise NotClaimed(_LATER)
        self._wanted = wanted
        self._torch = import_module("torch")
        self._dict = import_module("tensordict").TensorDict
        options: dict[str, Any] = {
            "storage": import_module("torchrl.data").LazyTensorStorage(wanted.capacity),
            "generator": self._torch.Generator().manual_seed(wanted.seed),
        }
        if wanted.n_step > 1:
            options["transform"] = import_module("torchrl.envs").MultiStepTransform(
                wanted.n_step, wanted.gamma
            )
        self._memory = self._made(wanted, options)

    def __len__(self) -> int:
        return len(self._memory)

    def add(self, step: Step) -> None:
        self._extend(step)

    def add_vector(self, step: VectorStep) -> None:
        ended = step.terminated, step.truncated
        self._rows(step.obs, step.action, step.reward, step.next_obs, *ended)

    def sample(self, batch_size: int, beta: float) -> Drawn:
        batch = self._memory.sample(batch_size)
        after = batch["next"]
        steps = batch["steps_to_next_obs"].numpy() if self._wanted.n_step > 1 else 1
        # What DQNLoss makes of it: gamma ** steps_to_next_obs, and no value where terminated.
        discount = self._wanted.gamma**steps * ~after["terminated"].numpy()[:, 0]
        weights = batch.get("priority_weight", None)
        return Drawn(
            batch["index"].numpy(), batch["observation"].numpy(), batch["action"].numpy(),
            after["reward"].numpy(), after["observation"].numpy(), discount,
            None if weights is None else weights.numpy(),
        )  # fmt: skip

    def clear(self) -> None:
        self._memory.empty()

    def save(self, folder: Path) -> None:
        self._memory.dumps(folder / "replay")

    def load(self, folder: Path) -> None:
        self._memory.loads(folder / "replay")

    def _made(self, wanted: Wanted, options: dict[str, Any]) -> Any:
        return import_module("torchrl.data").TensorDictReplayBuffer(**options)

    def _extend(self, step: Step) -> Any:
        ended = np.array([step.terminated]), np.array([step.truncated])
        return self._rows(
            step.obs[None], np.asarray(step.action)[None], np.array([step.reward]),
            step.next_obs[None], *ended,
        )  # fmt: skip

    def _rows(
        self, obs: Array, action: Array, reward: Array, next_obs: Array, terminated: Array,
        truncated: Array,
    ) -> Any:  # fmt: skip
        after = {
            "observation": next_obs,
            "reward": reward.astype(np.float32)[:, None],
            "done": (terminated | truncated)[:, None],
            "terminated": terminated[:, None],
            "truncated": truncated[:, None],
        }
        rows = {"observation": obs, "action": action, "next": self._tensors(after, len(obs))}
        return self._memory.extend(self._tensors(rows, len(obs)))

    def _tensors(self, columns: dict[str, Any], rows: int) -> Any:
        return self._dict(
            {
                name: self._torch.as_tensor(column) if isinstance(column, np.ndarray) else column
                for name, column in columns.items()
            },
            [rows],
        )


class _Proportional(_Uniform):
    def add_with_error(self, step: Step, td_error: float) -> None:
        if self._wanted.n_step > 1:
            raise NotClaimed("which priority an n-step row gets is not documented")
        self._memory.update_priority(self._extend(step), abs(td_error))

    def sample(self, batch_size: int, beta: float) -> Drawn:
        self._memory.sampler.beta = beta  # as its ParameterScheduler does
        return super().sample(batch_size, beta)

    def update(self, ids: Any, td_errors: Array) -> int | None:
        errors = np.abs(td_errors).astype(np.float32)  # as losses are, and its trees
        self._memory.update_priority(self._torch.as_tensor(ids), self._torch.as_tensor(errors))
        return None

    def set_alpha(self, alpha: float) -> None:
        self._memory.sampler.alpha = alpha

    def _made(self, wanted: Wanted, options: dict[str, Any]) -> Any:
        return import_module("torchrl.data").TensorDictPrioritizedReplayBuffer(
            alpha=wanted.alpha, beta=1.0, eps=wanted.eps, **options
        )


_LATER = "by its documentation MultiStepTransform keeps the last n steps until others follow"
_WHOLE = "transitions are stored whole: what saves memory needs samples that are slices"
_NOT_CLAIMED = {
    **unspoken("threads of its users", "concurrency"),
    "images-are-kept-once": _WHOLE,
    "stacked-frames-are-kept-once": _WHOLE,
    "windows-never-cross-an-end": _LATER,
    "windows-cut-by-truncation-bootstrap": _LATER,
    "every-step-begins-a-window": _LATER,
    "episodes-shorter-than-n": _LATER,
    "windows-that-end-in-truncation": _LATER,
    "windows-at-the-write-position": _LATER,
    "open-windows-wait": _LATER,
    "open-windows-survive": _LATER,
}


def proportional() -> Adapter:
    """Return the adapter of ``TensorDictPrioritizedReplayBuffer``."""
    return Adapter(
        name="torchrl, proportional",
        library="torchrl",
        version=version_of("torchrl"),
        law="proportional",
        make=_Proportional,
        not_claimed={
            **_NOT_CLAIMED,
            **unspoken("errors that are not finite", *NOT_FINITE),
            **unspoken(
                "priorities that come when their row has been replaced",
                "a-late-error-does-not-reach-the-new-row",
                "ids-stay-old-after-many-turns",
            ),
            "late-errors-are-counted": "it does not tell",
            "one-weight-for-each-row": "rewards are columns, (B, 1), and weights are (B,)",
            "rows-of-priority-zero-are-never-drawn": "by its documentation eps ensures that no "
            "priority is 0",
            "errors-reach-their-windows": _LATER,
            "windows-are-weighted-by-the-law": _LATER,
        },
        settings="TensorDictPrioritizedReplayBuffer with LazyTensorStorage and a generator, every "
        "step by extend; MultiStepTransform for n > 1; beta set before each draw; saved by dumps; "
        "its extension built from the sources in its wheel, for the version of PyTorch here",
    )


def uniform() -> Adapter:
    """Return the adapter of ``TensorDictReplayBuffer``."""
    return Adapter(
        name="torchrl, uniform",
        library="torchrl",
        version=version_of("torchrl"),
        law="uniform",
        make=_Uniform,
        not_claimed=_NOT_CLAIMED,
        settings="TensorDictReplayBuffer with LazyTensorStorage and a generator, every step by "
        "extend; MultiStepTransform for n > 1; saved by dumps",
    )
