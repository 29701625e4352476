"""cpprb for ``per check``: ``proportional`` and ``uniform``, as its documentation uses it."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from prioritized_replay.conformance.memories._libraries import (
    NOT_FINITE,
    images,
    require_draw,
    unspoken,
    version_of,
)
from prioritized_replay.conformance.memory import (
    Adapter,
    Array,
    DrawMode,
    Drawn,
    Memory,
    NotClaimed,
    Step,
    VectorStep,
    Wanted,
)

_SETTINGS = (
    "capacity", "alpha", "eps", "n_step", "gamma", "num_envs", "obs_shape", "obs_dtype",
    "action_shape", "action_dtype", "stacked", "draw",
)  # fmt: skip


class _Uniform(Memory):
    _way: DrawMode = "independent"

    def __init__(self, wanted: Wanted) -> None:
        wanted.only(*_SETTINGS)
        require_draw(wanted, self._way)
        if wanted.num_envs is not None and wanted.n_step > 1:
            raise NotClaimed("n-step windows need the steps of one episode after the other")
        if wanted.stacked and wanted.n_step > 1:
            raise NotClaimed("stack_compress cannot be used with n-step windows")
        if wanted.stacked and wanted.num_envs is not None:
            raise NotClaimed("stack_compress needs the steps of one episode after the other")
        self._wanted = wanted
        self._memory = self._made(wanted)

    def __len__(self) -> int:
        return int(self._memory.get_stored_size())

    def add(self, step: Step) -> None:
        self._add(step)

    def add_vector(self, step: VectorStep) -> None:
        # Many transitions may be passed at once; whose they are does not matter without windows.
        self._memory.add(
            obs=step.obs, act=step.action, rew=step.reward, next_obs=step.next_obs,
            done=step.terminated,
        )  # fmt: skip

    def end_episode(self) -> None:
        self._memory.on_episode_end()

    def sample(self, batch_size: int, beta: float) -> Drawn:
        return self._shown(self._memory.sample(batch_size), range(batch_size))

    def clear(self) -> None:
        self._memory.clear()

    def save(self, folder: Path) -> None:
        self._memory.save_transitions(str(folder / "transitions.npz"))

    def load(self, folder: Path) -> None:
        self._memory.load_transitions(str(folder / "transitions.npz"))

    def _made(self, wanted: Wanted) -> Any:
        return import_module("cpprb").ReplayBuffer(
            wanted.capacity, _fields(wanted), **_more(wanted)
        )

    def _add(self, step: Step, **priority: float) -> None:
        turned = self._turned_in if self._wanted.stacked else np.asarray
        self._memory.add(
            obs=turned(step.obs), act=step.action, rew=step.reward,
            next_obs=turned(step.next_obs), done=step.terminated, **priority,
        )  # fmt: skip
        if step.terminated or step.truncated:
            self._memory.on_episode_end()

    def _turned_in(self, obs: Array) -> Array:
        return np.ascontiguousarray(np.moveaxis(obs, 0, -1))  # stacks lie along the last axis

    def _shown(self, batch: Any, ids: Any) -> Drawn:
        shape = (len(batch["rew"]), *self._wanted.obs_shape)
        obs, next_obs = batch["obs"], batch["next_obs"]
        if self._wanted.obs_shape == ():
            obs, next_obs = obs.reshape(shape), next_obs.reshape(shape)  # it has columns, (B, 1)
        if self._wanted.stacked:
            obs, next_obs = np.moveaxis(obs, -1, 1), np.moveaxis(next_obs, -1, 1)
        # Since version 10 gamma**N is the learner's; done says whether any step of the window was.
        discount = self._wanted.gamma**self._wanted.n_step * (1.0 - batch["done"][:, 0])
        return Drawn(ids, obs, batch["act"], batch["rew"], next_obs, discount, batch.get("weights"))


class _Proportional(_Uniform):
    _way: DrawMode = "stratified"

    def add_with_error(self, step: Step, td_error: float) -> None:
        if self._wanted.n_step > 1:
            raise NotClaimed("which priority an n-step row gets is not documented")
        self._add(step, priorities=abs(td_error))

    def sample(self, batch_size: int, beta: float) -> Drawn:
        batch = self._memory.sample(batch_size, beta)
        return self._shown(batch, batch["indexes"])

    def update(self, ids: Any, td_errors: Array) -> int | None:
        self._memory.update_priorities(ids, np.abs(td_errors))
        return None

    def _made(self, wanted: Wanted) -> Any:
        return import_module("cpprb").PrioritizedReplayBuffer(
            wanted.capacity, _fields(wanted), alpha=wanted.alpha, eps=wanted.eps,
            check_for_update=True, **_more(wanted),
        )  # fmt: skip


def _fields(wanted: Wanted) -> dict[str, Any]:
    obs = {"shape": wanted.obs_shape or 1, "dtype": np.dtype(wanted.obs_dtype)}
    if wanted.stacked:
        obs["shape"] = (*wanted.obs_shape[1:], wanted.obs_shape[0])
    fields: dict[str, Any] = {
        "obs": obs,
        "act": {"dtype": np.dtype(wanted.action_dtype)},
        "rew": {},
        "done": {},
    }
    if wanted.action_shape:
        fields["act"]["shape"] = wanted.action_shape
    return fields if _shares(wanted) else {**fields, "next_obs": obs}


def _shares(wanted: Wanted) -> bool:
    """Return whether next observations are kept once, which single streams of images do."""
    alone = wanted.n_step == 1 and wanted.num_envs is None
    return wanted.stacked or (alone and images(wanted))


def _more(wanted: Wanted) -> dict[str, Any]:
    if wanted.stacked:
        return {"next_of": "obs", "stack_compress": "obs"}
    if _shares(wanted):
        return {"next_of": "obs"}
    if wanted.n_step == 1:
        return {}
    nstep = {"size": wanted.n_step, "gamma": wanted.gamma, "rew": "rew", "next": "next_obs"}
    return {"Nstep": nstep}


_NOT_CLAIMED = {
    **unspoken("errors that are not finite", *NOT_FINITE),
    **unspoken("threads, only of processes", "concurrency"),
    **unspoken("seeds", "saving-changes-nothing", "the-next-batches-are-the-same"),
    "global-generators-are-left-alone": "its documentation does not speak of generators",
    "one-weight-for-each-row": "a field without a shape is a column, (B, 1), and weights are (B,)",
    **dict.fromkeys(
        (
            "priorities-survive", "the-largest-priority-survives", "open-windows-survive",
            "the-order-of-the-ring-survives", "ids-survive",
        ),
        "save_transitions keeps transitions and nothing else",
    ),
}  # fmt: skip


def proportional() -> Adapter:
    """Return the adapter of ``PrioritizedReplayBuffer``."""
    return Adapter(
        name="cpprb, proportional",
        library="cpprb",
        version=version_of("cpprb"),
        law="proportional",
        make=_Proportional,
        draw="stratified",
        not_claimed=_NOT_CLAIMED,
        settings="PrioritizedReplayBuffer(check_for_update=True); on_episode_end() after "
        "termination and truncation; images with next_of, stacks with stack_compress too",
    )


def uniform() -> Adapter:
    """Return the adapter of ``ReplayBuffer``."""
    return Adapter(
        name="cpprb, uniform",
        library="cpprb",
        version=version_of("cpprb"),
        law="uniform",
        make=_Uniform,
        not_claimed=_NOT_CLAIMED,
        settings="ReplayBuffer; on_episode_end() after termination and truncation; images with "
        "next_of, stacks with stack_compress too",
    )
