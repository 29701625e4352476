"""Tianshou for ``per check``: ``proportional`` and ``uniform``, with its own n-step return."""

from __future__ import annotations

import pickle
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from prioritized_replay.conformance.memories._libraries import (
    CHANCE,
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
    "capacity", "n_step", "gamma", "num_envs", "obs_shape", "obs_dtype", "action_shape",
    "action_dtype", "stacked", "draw",
)  # fmt: skip


class _Uniform(Memory):
    def __init__(self, wanted: Wanted) -> None:
        require_draw(wanted, "independent")
        self._wanted = wanted
        self._data = import_module("tianshou.data")
        self._memory = self._made(wanted)

    def __len__(self) -> int:
        return len(self._memory)

    def add(self, step: Step) -> None:
        self._memory.add(self._batch(step))

    def add_vector(self, step: VectorStep) -> None:
        self._memory.add(self._batch(step))

    def sample(self, batch_size: int, beta: float) -> Drawn:
        batch, ids = self._memory.sample(batch_size)
        return self._shown(batch, ids, None)

    def clear(self) -> None:
        self._memory.reset()

    def save(self, folder: Path) -> None:
        (folder / "buffer.pkl").write_bytes(pickle.dumps(self._memory))

    def load(self, folder: Path) -> None:
        self._memory = pickle.loads((folder / "buffer.pkl").read_bytes())

    def _made(self, wanted: Wanted) -> Any:
        wanted.only(*_SETTINGS, "alpha", "eps", "seed")
        more = {**_more(wanted), "random_seed": wanted.seed}
        if wanted.num_envs is None:
            return self._data.ReplayBuffer(wanted.capacity, **more)
        return self._data.VectorReplayBuffer(wanted.capacity, wanted.num_envs, **more)

    def _batch(self, step: Step | VectorStep) -> Any:
        return self._data.Batch(
            obs=step.obs, act=step.action, rew=step.reward, terminated=step.terminated,
            truncated=step.truncated, obs_next=step.next_obs,
        )  # fmt: skip

    def _shown(self, batch: Any, ids: Array, weights: Array | None) -> Drawn:
        """Show what a learner gets: a return, and a discount for the value of the last next_obs."""
        torch = import_module("torch")
        compute = import_module("tianshou.algorithm.algorithm_base").Algorithm.compute_nstep_return
        last = ids

        def returns(value: float) -> Array:
            def target(_: Any, indices: Array) -> Any:
                nonlocal last
                last = indices
                return torch.full((len(ids),), value, dtype=torch.float64)

            wanted = self._wanted
            done = compute(batch, self._memory, ids, target, wanted.gamma, wanted.n_step)
            return np.asarray(done.returns.numpy()).reshape(-1)

        reward = returns(0.0)
        discount = returns(1.0) - reward
        return Drawn(
            ids, batch.obs, batch.act, reward, self._memory[last].obs_next, discount, weights
        )


class _Proportional(_Uniform):
    def sample(self, batch_size: int, beta: float) -> Drawn:
        self._memory.set_beta(beta)
        batch, ids = self._memory.sample(batch_size)
        return self._shown(batch, ids, np.array(batch.weight))

    def update(self, ids: Any, td_errors: Array) -> int | None:
        self._memory.update_weight(np.asarray(ids), td_errors)
        return None

    def _made(self, wanted: Wanted) -> Any:
        wanted.only(*_SETTINGS, "alpha")
        if wanted.alpha == 0:
            raise NotClaimed("alpha must be greater than 0")
        more = {**_more(wanted), "alpha": wanted.alpha, "beta": 1.0}
        if wanted.num_envs is None:
            return self._data.PrioritizedReplayBuffer(wanted.capacity, **more)
        return self._data.PrioritizedVectorReplayBuffer(wanted.capacity, wanted.num_envs, **more)


def _more(wanted: Wanted) -> dict[str, Any]:
    if not wanted.stacked:
        return {}
    # as its Atari examples do
    return {
        "stack_num": wanted.obs_shape[0], "save_only_last_obs": True, "ignore_obs_next": True,
    }  # fmt: skip


_NO_LAST = "without obs_next, which ignore_obs_next leaves out, the last one of an episode is lost"
_NOT_CLAIMED = {
    **unspoken("threads", "concurrency"),
    "images-are-kept-once": _NO_LAST,
    "stacked-frames-are-kept-once": _NO_LAST,
    "shared-frames-are-right": _NO_LAST,
}


def proportional() -> Adapter:
    """Return the adapter of ``PrioritizedReplayBuffer`` and its vector form."""
    return Adapter(
        name="tianshou, proportional",
        library="tianshou",
        version=version_of("tianshou"),
        law="proportional",
        make=_Proportional,
        eps=float(np.finfo(np.float32).eps),
        not_claimed={
            **_NOT_CLAIMED,
            **unspoken("errors that are not finite", *NOT_FINITE),
            **unspoken(
                "errors that come when their row has been replaced",
                "a-late-error-does-not-reach-the-new-row",
                "ids-stay-old-after-many-turns",
            ),
            **unspoken("a generator of its own: priorities are drawn with numpy.random", *CHANCE),
        },
        settings="PrioritizedReplayBuffer or PrioritizedVectorReplayBuffer, returns by "
        "Algorithm.compute_nstep_return; stacks with stack_num, save_only_last_obs and "
        "ignore_obs_next; saved by pickle",
    )


def uniform() -> Adapter:
    """Return the adapter of ``ReplayBuffer`` and ``VectorReplayBuffer``."""
    return Adapter(
        name="tianshou, uniform",
        library="tianshou",
        version=version_of("tianshou"),
        law="uniform",
        make=_Uniform,
        not_claimed=_NOT_CLAIMED,
        settings="ReplayBuffer or VectorReplayBuffer, returns by Algorithm.compute_nstep_return; "
        "stacks with stack_num, save_only_last_obs and ignore_obs_next; saved by pickle",
    )
