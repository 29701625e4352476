"""Dopamine for ``per check``: ``proportional`` and ``uniform``, the replay of its JAX agents."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from prioritized_replay.conformance.memories._libraries import require_draw, version_of
from prioritized_replay.conformance.memory import (
    Adapter,
    Array,
    Drawn,
    Memory,
    NotClaimed,
    Step,
    Wanted,
)

_SETTINGS = (
    "capacity", "eps", "n_step", "gamma", "obs_shape", "obs_dtype", "action_shape",
    "action_dtype", "stacked", "seed", "draw",
)  # fmt: skip


class _Uniform(Memory):
    def __init__(self, wanted: Wanted) -> None:
        wanted.only(*_SETTINGS, "alpha")
        require_draw(wanted, "independent")
        if wanted.obs_shape == ():
            raise NotClaimed("its observations are arrays")
        self._wanted = wanted
        self._elements, accumulator, self._samplers, replay = (
            import_module(f"dopamine.jax.replay_memory.{name}")
            for name in ("elements", "accumulator", "samplers", "replay_buffer")
        )
        self._stack = wanted.obs_shape[0] if wanted.stacked else 1
        self._memory = replay.ReplayBuffer(
            transition_accumulator=accumulator.TransitionAccumulator(
                stack_size=self._stack, update_horizon=wanted.n_step, gamma=wanted.gamma
            ),
            sampling_distribution=self._distribution(wanted),
            batch_size=32,
            max_capacity=wanted.capacity,
        )

    def __len__(self) -> int:
        return min(self._memory.add_count, self._wanted.capacity)

    def add(self, step: Step) -> None:
        # What its agents do: (o_t, a_t, r_t) with each step, and the flags of the last one.
        obs = step.obs[-1] if self._wanted.stacked else step.obs
        self._memory.add(
            self._elements.TransitionElement(
                obs, step.action, step.reward, step.terminated,
                step.terminated or step.truncated,
            ),
            **self._priority(),
        )  # fmt: skip

    def sample(self, batch_size: int, beta: float) -> Drawn:
        batch, drawn = self._memory.sample(batch_size, with_sample_metadata=True)
        obs, next_obs = batch.state, batch.next_state
        if self._wanted.stacked:
            obs, next_obs = np.moveaxis(obs, -1, 1), np.moveaxis(next_obs, -1, 1)
        else:
            obs, next_obs = obs[..., 0], next_obs[..., 0]
        discount = self._wanted.gamma**self._wanted.n_step * (1.0 - batch.is_terminal)
        return Drawn(
            drawn.keys, obs, batch.action, batch.reward, next_obs, discount, None,
            getattr(drawn, "probabilities", None),
        )  # fmt: skip

    def clear(self) -> None:
        self._memory.clear()

    def save(self, folder: Path) -> None:
        self._memory.save(str(folder / "replay"), 0)

    def load(self, folder: Path) -> None:
        self._memory.load(str(folder / "replay"), 0)

    def _distribution(self, wanted: Wanted) -> Any:
        return self._samplers.UniformSamplingDistribution(seed=wanted.seed)

    def _priority(self) -> dict[str, float]:
        return {}


class _Proportional(_Uniform):
    def update(self, ids: Any, td_errors: Array) -> int | None:
        # A small number is added by the caller, as its Rainbow does.
        self._memory.update(ids, priorities=np.abs(td_errors) + self._wanted.eps)
        return None

    def _distribution(self, wanted: Wanted) -> Any:
        self._law = self._samplers.PrioritizedSamplingDistribution(
            seed=wanted.seed, priority_exponent=wanted.alpha, max_capacity=wanted.capacity
        )
        return self._law

    def _priority(self) -> dict[str, float]:
        # What its agents pass with every step.
        return {"priority": self._law._sum_tree.max_recorded_priority}


def proportional() -> Adapter:
    """Return the adapter of ``ReplayBuffer`` with ``PrioritizedSamplingDistribution``."""
    return Adapter(
        name="dopamine, proportional",
        library="dopamine-rl",
        version=version_of("dopamine-rl"),
        law="proportional",
        make=_Proportional,
        settings="jax.replay_memory: ReplayBuffer, TransitionAccumulator, "
        "PrioritizedSamplingDistribution; steps and their priorities as its agents add them",
    )


def uniform() -> Adapter:
    """Return the adapter of ``ReplayBuffer`` with ``UniformSamplingDistribution``."""
    return Adapter(
        name="dopamine, uniform",
        library="dopamine-rl",
        version=version_of("dopamine-rl"),
        law="uniform",
        make=_Uniform,
        settings="jax.replay_memory: ReplayBuffer, TransitionAccumulator, "
        "UniformSamplingDistribution; steps as its agents add them",
    )
