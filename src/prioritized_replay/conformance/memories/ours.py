"""Our own memories for ``per check``: ``proportional``, ``rank`` and ``uniform``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import prioritized_replay as per
from prioritized_replay.conformance.memory import (
    Adapter,
    Array,
    Drawn,
    Memory,
    Step,
    VectorStep,
    Wanted,
)
from prioritized_replay.conformance.subject import Law


class _Ours(Memory):
    def __init__(self, law: Law, wanted: Wanted) -> None:
        fields = {
            "obs": per.Field(
                wanted.obs_shape, wanted.obs_dtype, stack_axis=0 if wanted.stacked else None
            ),
            "action": per.Field(wanted.action_shape, wanted.action_dtype),
            "reward": per.Field(),
        }
        self._replay = per.ReplayBuffer(
            wanted.capacity,
            fields,
            sampler=_sampler(law, wanted),
            n_step=wanted.n_step,
            gamma=wanted.gamma,
            num_envs=wanted.num_envs,
            autoreset=None if wanted.num_envs is None else wanted.autoreset,
            seed=wanted.seed,
        )

    def __len__(self) -> int:
        return len(self._replay)

    def add(self, step: Step) -> None:
        self._replay.add(
            step.obs, step.action, step.reward, step.next_obs, step.terminated, step.truncated
        )

    def add_with_error(self, step: Step, td_error: float) -> None:
        self._replay.add(
            step.obs, step.action, step.reward, step.next_obs, step.terminated, step.truncated,
            td_error=td_error,
        )  # fmt: skip

    def add_vector(self, step: VectorStep) -> None:
        self._replay.add(
            step.obs, step.action, step.reward, step.next_obs, step.terminated, step.truncated,
            info=step.info,
        )  # fmt: skip

    def end_episode(self) -> None:
        self._replay.end_episode()

    def sample(self, batch_size: int, beta: float) -> Drawn:
        batch = self._replay.sample(batch_size, beta)
        return Drawn(
            batch.ids, batch.obs, batch.action, batch.reward, batch.next_obs, batch.discount,
            batch.weights, batch.probabilities,
        )  # fmt: skip

    def update(self, ids: Any, td_errors: Array) -> int | None:
        return self._replay.update_priorities(ids, td_errors)

    def set_alpha(self, alpha: float) -> None:
        self._replay.alpha = alpha

    def clear(self) -> None:
        self._replay.clear()

    def save(self, folder: Path) -> None:
        self._replay.save(folder)

    def load(self, folder: Path) -> None:
        self._replay = per.ReplayBuffer.load(folder)


def _sampler(law: Law, wanted: Wanted) -> Any:
    options: dict[str, Any] = {} if wanted.draw is None else {"draw": wanted.draw}
    if law == "uniform":
        return per.Uniform(**options)
    options["weights"] = "raw" if wanted.raw_weights else "batch"
    if law == "rank":
        return per.RankBased(alpha=wanted.alpha, **options)
    return per.Proportional(alpha=wanted.alpha, eps=wanted.eps, **options)


_PROPORTIONAL = Adapter(
    name="prioritized-replay, proportional",
    library="prioritized-replay",
    version=per.__version__,
    law="proportional",
    make=lambda wanted: _Ours("proportional", wanted),
    draw="stratified",
    settings="ReplayBuffer(sampler=Proportional(...)), stratified draws, the default",
)


def proportional() -> Adapter:
    """Return the adapter of ``ReplayBuffer`` with ``Proportional``."""
    return _PROPORTIONAL


def rank() -> Adapter:
    """Return the adapter of ``ReplayBuffer`` with ``RankBased``."""
    return replace(
        _PROPORTIONAL,
        name="prioritized-replay, rank-based",
        law="rank",
        make=lambda wanted: _Ours("rank", wanted),
        settings="ReplayBuffer(sampler=RankBased(...)), stratified draws, the default",
    )


def uniform() -> Adapter:
    """Return the adapter of ``ReplayBuffer`` with ``Uniform``."""
    return replace(
        _PROPORTIONAL,
        name="prioritized-replay, uniform",
        law="uniform",
        make=lambda wanted: _Ours("uniform", wanted),
        settings="ReplayBuffer(sampler=Uniform()), stratified draws, the default",
    )
