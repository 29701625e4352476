"""PFRL for ``per check``: ``proportional`` and ``uniform``, as its agents use its buffers."""

from __future__ import annotations

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
        require_draw(wanted, "without_replacement")
        self._wanted = wanted
        self._buffers = import_module("pfrl.replay_buffers")
        self._memory = self._made(wanted)

    def __len__(self) -> int:
        return len(self._memory)

    def add(self, step: Step) -> None:
        self._add(
            0, step.obs, step.action, step.reward, step.next_obs, step.terminated, step.truncated
        )

    def add_vector(self, step: VectorStep) -> None:
        for env in range(len(step.reward)):
            self._add(
                env, step.obs[env], step.action[env], step.reward[env], step.next_obs[env],
                bool(step.terminated[env]), bool(step.truncated[env]),
            )  # fmt: skip

    def end_episode(self) -> None:
        for env in range(self._wanted.num_envs or 1):
            self._memory.stop_current_episode(env_id=env)

    def sample(self, batch_size: int, beta: float) -> Drawn:
        return self._shown(self._memory.sample(batch_size), range(batch_size), None)

    def save(self, folder: Path) -> None:
        self._memory.save(str(folder / "replay.pkl"))

    def load(self, folder: Path) -> None:
        self._memory.load(str(folder / "replay.pkl"))

    def _made(self, wanted: Wanted) -> Any:
        wanted.only(*_SETTINGS, "alpha", "eps")
        return self._buffers.ReplayBuffer(wanted.capacity, num_steps=wanted.n_step)

    def _add(
        self, env: int, obs: Array, action: Any, reward: float, next_obs: Array,
        terminated: bool, truncated: bool,
    ) -> None:  # fmt: skip
        self._memory.append(obs, action, reward, next_obs, is_state_terminal=terminated, env_id=env)
        if truncated and not terminated:
            self._memory.stop_current_episode(env_id=env)

    def _shown(self, rows: Any, ids: Any, weights: Array | None) -> Drawn:
        batch = import_module("pfrl.replay_buffer").batch_experiences(
            rows, import_module("torch").device("cpu"), lambda obs: obs, self._wanted.gamma
        )
        return Drawn(
            ids,
            batch["state"].numpy(),
            batch["action"].numpy(),
            batch["reward"].numpy(),
            batch["next_state"].numpy(),
            (batch["discount"] * (1.0 - batch["is_state_terminal"])).numpy(),
            weights,
        )


class _Proportional(_Uniform):
    _drawn: list[Any] | None = None  # the rows that wait for their errors

    def sample(self, batch_size: int, beta: float) -> Drawn:
        self._settle()
        self._memory.beta = beta
        rows = self._memory.sample(batch_size)
        self._drawn = list(rows)
        return self._shown(rows, list(rows), np.array([row[0]["weight"] for row in rows]))

    def update(self, ids: Any, td_errors: Array) -> int | None:
        drawn = self._drawn or []
        if len(ids) != len(drawn) or any(a is not b for a, b in zip(ids, drawn, strict=True)):
            raise NotClaimed("errors are given to the whole of the last batch, once")
        self._give(np.abs(td_errors).tolist())
        return None

    def end_episode(self) -> None:
        super().end_episode()
        self._note_new_rows()

    def save(self, folder: Path) -> None:
        self._settle()
        super().save(folder)

    def _made(self, wanted: Wanted) -> Any:
        wanted.only(*_SETTINGS, "alpha", "eps", "raw_weights")
        return self._buffers.PrioritizedReplayBuffer(
            wanted.capacity, alpha=wanted.alpha, beta0=1.0, betasteps=None, eps=wanted.eps,
            normalize_by_max=not wanted.raw_weights, error_max=None, num_steps=wanted.n_step,
        )  # fmt: skip

    def _add(
        self, env: int, obs: Array, action: Any, reward: float, next_obs: Array,
        terminated: bool, truncated: bool,
    ) -> None:  # fmt: skip
        self._settle()
        super()._add(env, obs, action, reward, next_obs, terminated, truncated)
        self._note_new_rows()

    # It wants errors for every batch. Where a scenario gives none, rows get the errors they had.

    def _settle(self) -> None:
        if self._drawn is not None:
            self._give([row[0]["had"] for row in self._drawn])

    def _give(self, errors: list[float]) -> None:
        self._memory.update_errors(errors)
        for row, error in zip(self._drawn or [], errors, strict=True):
            row[0]["had"] = error
        self._drawn = None

    def _note_new_rows(self) -> None:
        for row in reversed(self._memory.memory.data):
            if "had" in row[0]:
                break
            alpha, largest = self._wanted.alpha, self._memory.memory.max_priority
            row[0]["had"] = largest ** (1.0 / alpha) - self._wanted.eps if alpha else 1.0


_NOT_CLAIMED = {
    **unspoken("threads", "concurrency"),
    **unspoken("a generator of its own: it draws with numpy.random", *CHANCE),
    "open-windows-survive": "save writes the content of the memory, and they are not in it yet",
    **dict.fromkeys(
        ("the-callers-arrays-are-copied", "images-are-kept-once", "stacked-frames-are-kept-once"),
        "it keeps the objects that it is given: sharing and copying are its caller's",
    ),
}


def proportional() -> Adapter:
    """Return the adapter of ``PrioritizedReplayBuffer``."""
    return Adapter(
        name="pfrl, proportional",
        library="pfrl",
        version=version_of("pfrl"),
        law="proportional",
        make=_Proportional,
        not_claimed={
            **_NOT_CLAIMED,
            **unspoken("errors that are not finite", *NOT_FINITE),
            "rows-of-priority-zero-are-never-drawn": "priorities must be greater than 0",
        },
        draw="without_replacement",
        settings="PrioritizedReplayBuffer(error_max=None, betasteps=None), beta set before each "
        "draw, batch_experiences; every batch gets errors, as its agents do it: where a scenario "
        "gives none, those that the rows had",
    )


def uniform() -> Adapter:
    """Return the adapter of ``ReplayBuffer``."""
    return Adapter(
        name="pfrl, uniform",
        library="pfrl",
        version=version_of("pfrl"),
        law="uniform",
        make=_Uniform,
        not_claimed=_NOT_CLAIMED,
        draw="without_replacement",
        settings="ReplayBuffer, batch_experiences",
    )
