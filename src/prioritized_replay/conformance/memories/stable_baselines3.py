"""Stable-Baselines3 for ``per check``: ``uniform``, the replay buffers that it has."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from prioritized_replay.conformance.memories._libraries import (
    CHANCE,
    images,
    require_draw,
    unspoken,
    version_of,
)
from prioritized_replay.conformance.memory import (
    Adapter,
    Drawn,
    Memory,
    NotClaimed,
    Step,
    VectorStep,
    Wanted,
)

_SETTINGS = (
    "capacity", "alpha", "eps", "n_step", "gamma", "num_envs", "autoreset", "obs_shape",
    "obs_dtype", "action_shape", "action_dtype", "stacked", "draw",
)  # fmt: skip


class _Uniform(Memory):
    def __init__(self, wanted: Wanted) -> None:
        wanted.only(*_SETTINGS)
        require_draw(wanted, "independent")
        if wanted.num_envs is not None and wanted.autoreset == "next_step":
            raise NotClaimed("its vector environments reset in the same step")
        buffers = import_module("stable_baselines3.common.buffers")
        kind, options = buffers.ReplayBuffer, {}
        if wanted.n_step > 1:
            kind = buffers.NStepReplayBuffer
            options = {"n_steps": wanted.n_step, "gamma": wanted.gamma}
        elif images(wanted):
            options = {"optimize_memory_usage": True, "handle_timeout_termination": False}
        self._shape = wanted.obs_shape
        self._gamma, self._envs = wanted.gamma, wanted.num_envs or 1
        self._memory = kind(
            wanted.capacity, *_spaces(wanted), device="cpu", n_envs=self._envs, **options
        )

    def __len__(self) -> int:
        return int(self._memory.size()) * self._envs

    def add(self, step: Step) -> None:
        self._memory.add(
            step.obs[None],
            step.next_obs[None],
            np.asarray(step.action)[None],
            np.array([step.reward]),
            np.array([step.terminated or step.truncated]),
            [{"TimeLimit.truncated": step.truncated and not step.terminated}],
        )

    def add_vector(self, step: VectorStep) -> None:
        next_obs, ended = step.next_obs.copy(), step.terminated | step.truncated
        for index, final in enumerate(step.info.get("final_obs", ())):
            if final is not None:
                next_obs[index] = final  # as its own loop does with info["terminal_observation"]
        limits = (step.truncated & ~step.terminated).tolist()
        infos = [{"TimeLimit.truncated": limit} for limit in limits]
        self._memory.add(step.obs, next_obs, step.action, step.reward, ended, infos)

    def sample(self, batch_size: int, beta: float) -> Drawn:
        batch = self._memory.sample(batch_size)
        factor = self._gamma if batch.discounts is None else batch.discounts.numpy()[:, 0]
        return Drawn(
            range(batch_size),
            batch.observations.numpy().reshape(batch_size, *self._shape),
            batch.actions.numpy(),
            batch.rewards.numpy(),
            batch.next_observations.numpy().reshape(batch_size, *self._shape),
            factor * (1.0 - batch.dones.numpy()[:, 0]),
        )

    def clear(self) -> None:
        self._memory.reset()

    def save(self, folder: Path) -> None:
        # what model.save_replay_buffer calls
        import_module("stable_baselines3.common.save_util").save_to_pkl(
            folder / "replay.pkl", self._memory
        )

    def load(self, folder: Path) -> None:
        self._memory = import_module("stable_baselines3.common.save_util").load_from_pkl(
            folder / "replay.pkl"
        )


def _spaces(wanted: Wanted) -> tuple[Any, Any]:
    spaces = import_module("gymnasium.spaces")
    of_obs = wanted.obs_shape, wanted.obs_dtype
    of_action = wanted.action_shape, wanted.action_dtype
    obs, action = (
        spaces.Discrete(2**62) if shape == () and dtype == "int64" else _box(shape, dtype)
        for shape, dtype in (of_obs, of_action)
    )
    return obs, action


def _box(shape: tuple[int, ...], name: str) -> Any:
    dtype = np.dtype(name)
    spaces = import_module("gymnasium.spaces")
    if dtype.kind == "b":
        return spaces.MultiBinary(shape)
    low, high = -np.inf, np.inf
    if dtype.kind in "iu":
        low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    return spaces.Box(low, high, shape, dtype.type)


def uniform() -> Adapter:
    """Return the adapter of ``ReplayBuffer`` and ``NStepReplayBuffer``."""
    return Adapter(
        name="stable-baselines3, uniform",
        library="stable-baselines3",
        version=version_of("stable-baselines3"),
        law="uniform",
        make=_Uniform,
        not_claimed={
            **unspoken("threads", "concurrency"),
            **unspoken("a generator of its own: it draws with numpy.random", *CHANCE),
            "stacked-frames-are-kept-once": "optimize_memory_usage shares next observations, "
            "not frames",
        },
        settings="ReplayBuffer, or NStepReplayBuffer for n > 1, with time limits handled as its "
        "algorithms do; images with optimize_memory_usage, which excludes that",
    )
