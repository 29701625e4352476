"""Flashbax for ``per check``: ``proportional``, whole transitions in its prioritised buffer."""

from __future__ import annotations

from functools import cache
from importlib import import_module
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
    "capacity", "alpha", "eps", "gamma", "num_envs", "obs_shape", "obs_dtype", "action_shape",
    "action_dtype", "stacked", "seed", "draw",
)  # fmt: skip


class _Proportional(Memory):
    def __init__(self, wanted: Wanted) -> None:
        wanted.only(*_SETTINGS)
        require_draw(wanted, "stratified")
        if np.dtype(wanted.obs_dtype).itemsize == 8:
            raise NotClaimed("JAX has no types of 64 bits unless its user turns them on")
        self._wanted, self._envs = wanted, wanted.num_envs or 1
        self._random = import_module("jax.random")
        self._key = self._random.PRNGKey(wanted.seed)
        action = np.zeros(wanted.action_shape, _narrow(wanted.action_dtype))
        obs = np.zeros(wanted.obs_shape, wanted.obs_dtype)
        one = {
            "obs": obs, "action": action, "reward": np.float32(0), "discount": np.float32(0),
            "next_obs": obs,
        }  # fmt: skip
        self._state = self._calls(1).init(_as_jax(one))

    def __len__(self) -> int:
        rows = self._wanted.capacity // self._envs
        return self._envs * (rows if self._state.is_full else int(self._state.current_index))

    def add(self, step: Step) -> None:
        self._add(
            step.obs[None], np.asarray(step.action)[None], np.array([step.reward]),
            step.next_obs[None], np.array([step.terminated]),
        )  # fmt: skip

    def add_vector(self, step: VectorStep) -> None:
        self._add(step.obs, step.action, step.reward, step.next_obs, step.terminated)

    def sample(self, batch_size: int, beta: float) -> Drawn:
        self._key, key = self._random.split(self._key)
        calls = self._calls(batch_size)
        if not calls.can_sample(self._state):
            raise ValueError("can_sample is False")
        batch = calls.sample(self._state, key)
        rows = {name: np.asarray(column)[:, 0] for name, column in batch.experience.items()}
        return Drawn(
            np.asarray(batch.indices), rows["obs"], rows["action"], rows["reward"],
            rows["next_obs"], rows["discount"], None, np.asarray(batch.probabilities),
        )  # fmt: skip

    def update(self, ids: Any, td_errors: Array) -> int | None:
        # "Commonly this will be abs(td-error) + eps": eps is the caller's.
        priorities = np.abs(td_errors) + self._wanted.eps
        self._state = self._calls(1).set_priorities(
            self._state, _as_jax(np.asarray(ids)), _as_jax(priorities.astype(np.float32))
        )
        return None

    def _add(self, obs: Array, action: Array, reward: Array, next_obs: Array, end: Array) -> None:
        columns = {
            "obs": obs,
            "action": action.astype(_narrow(self._wanted.action_dtype)),
            "reward": reward.astype(np.float32),
            "discount": (self._wanted.gamma * ~end).astype(np.float32),
            "next_obs": next_obs,
        }
        with_time = {name: column[:, None] for name, column in columns.items()}
        self._state = self._calls(1).add(self._state, _as_jax(with_time))

    def _calls(self, batch_size: int) -> Any:
        return _calls(self._wanted.capacity, self._envs, batch_size, self._wanted.alpha)


@cache
def _calls(capacity: int, envs: int, batch_size: int, alpha: float) -> Any:
    """Return its pure functions, compiled. Only ``sample`` depends on the size of a batch."""
    jit = import_module("jax").jit
    buffer = import_module("flashbax").make_prioritised_trajectory_buffer(
        add_batch_size=envs,
        sample_batch_size=batch_size,
        sample_sequence_length=1,
        period=1,
        min_length_time_axis=1,
        max_length_time_axis=capacity // envs,
        priority_exponent=alpha,
        device="cpu",
    )
    return buffer.replace(
        add=jit(buffer.add, donate_argnums=0),
        sample=jit(buffer.sample),
        set_priorities=jit(buffer.set_priorities, donate_argnums=0),
    )


def _as_jax(columns: Any) -> Any:
    jax = import_module("jax")
    return jax.tree_util.tree_map(import_module("jax.numpy").array, columns)


def _narrow(dtype: str) -> str:
    return {"int64": "int32", "float64": "float32"}.get(dtype, dtype)


def proportional() -> Adapter:
    """Return the adapter of ``make_prioritised_trajectory_buffer``."""
    return Adapter(
        name="flashbax, proportional",
        library="flashbax",
        version=version_of("flashbax"),
        law="proportional",
        make=_Proportional,
        draw="stratified",
        not_claimed={
            **unspoken("threads: its calls are pure functions", "concurrency"),
            **unspoken("errors that are not finite", *NOT_FINITE),
            **unspoken(
                "errors that come when their row has been replaced",
                "a-late-error-does-not-reach-the-new-row",
                "ids-stay-old-after-many-turns",
            ),
            "images-are-kept-once": "whole transitions are stored, for the sake of truncation",
            "stacked-frames-are-kept-once": "whole transitions are stored",
        },
        settings="make_prioritised_trajectory_buffer(sample_sequence_length=1, period=1) of whole "
        "transitions, as its README advises where episodes may be truncated; jax.jit with donated "
        "states; eps added by the caller",
    )
