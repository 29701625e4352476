"""Dopamine for ``per check``: ``proportional`` and ``uniform``, the replay of its JAX agents.

Its ``TransitionAccumulator`` makes windows, and takes the last observation of a row from the next
step. So it is used where windows are asked for; complete rows of one step pass through the protocol
by which a buffer takes any accumulator, and the two are judged apart.
"""

from __future__ import annotations

from collections.abc import Iterator
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
    Wanted,
)

_SETTINGS = (
    "capacity", "alpha", "eps", "n_step", "gamma", "obs_shape", "obs_dtype", "action_shape",
    "action_dtype", "stacked", "seed", "draw",
)  # fmt: skip


class _Complete:
    """An accumulator, by Dopamine's protocol, of steps that bring their next observation."""

    def accumulate(self, element: Any) -> Iterator[Any]:
        yield element

    def clear(self) -> None:
        pass

    def to_state_dict(self) -> dict[str, Any]:
        return {}

    def from_state_dict(self, state_dict: dict[str, Any]) -> None:
        pass


class _Uniform(Memory):
    def __init__(self, wanted: Wanted) -> None:
        wanted.only(*_SETTINGS)
        require_draw(wanted, "independent")
        if wanted.obs_shape == ():
            raise NotClaimed("it compresses arrays that have axes")
        self._wanted = wanted
        self._elements, self._samplers, replay, accumulator = (
            import_module(f"dopamine.jax.replay_memory.{name}")
            for name in ("elements", "samplers", "replay_buffer", "accumulator")
        )
        accumulates: Any = _Complete()
        if wanted.n_step > 1:
            accumulates = accumulator.TransitionAccumulator(1, wanted.n_step, wanted.gamma)
        self._memory = replay.ReplayBuffer(
            transition_accumulator=accumulates,
            sampling_distribution=self._distribution(wanted),
            batch_size=32,
            max_capacity=wanted.capacity,
        )

    def __len__(self) -> int:
        return min(int(self._memory.add_count), self._wanted.capacity)

    def add(self, step: Step) -> None:
        end = step.terminated or step.truncated
        if self._wanted.n_step > 1:  # as its agents do, in step and end_episode
            element = self._elements.TransitionElement(
                step.obs, step.action, step.reward, step.terminated, end
            )
        else:
            element = self._elements.ReplayElement(
                state=step.obs, action=step.action, reward=step.reward, next_state=step.next_obs,
                is_terminal=step.terminated, episode_end=end,
            )  # fmt: skip
        self._memory.add(element, **self._priority())

    def sample(self, batch_size: int, beta: float) -> Drawn:
        batch, drawn = self._memory.sample(batch_size, with_sample_metadata=True)
        obs, next_obs, n = batch.state, batch.next_state, self._wanted.n_step
        if n > 1:
            obs, next_obs = obs[..., 0], next_obs[..., 0]  # stacks of one
        return Drawn(
            drawn.keys, obs, batch.action, batch.reward, next_obs,
            self._wanted.gamma**n * (1.0 - batch.is_terminal), None,
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


_CUT = "by its source, truncation yields no windows of fewer than n steps"
_LATER = "a row waits for the next step, which brings the observation that it ends with"
_NOT_CLAIMED = {
    **unspoken("threads", "concurrency"),
    "images-are-kept-once": "states are stored whole and compressed",
    "stacked-frames-are-kept-once": "states are stored whole and compressed",
    "windows-cut-by-truncation-bootstrap": _CUT,
    "episodes-shorter-than-n": _CUT,
    "windows-at-the-write-position": _LATER,
    "open-windows-wait": _LATER,
    "open-windows-survive": _LATER,
    "windows-that-end-in-truncation": "its agents pass no observation after the last step",
}


def proportional() -> Adapter:
    """Return the adapter of ``ReplayBuffer`` with ``PrioritizedSamplingDistribution``."""
    return Adapter(
        name="dopamine, proportional",
        library="dopamine-rl",
        version=version_of("dopamine-rl"),
        law="proportional",
        make=_Proportional,
        not_claimed={
            **_NOT_CLAIMED,
            **unspoken("errors that are not finite", *NOT_FINITE),
            **unspoken("repeated keys", "of-repeated-ids-the-last-error-counts"),
            "errors-as-a-column": "keys and priorities must have the same shape, by its assertion",
            "errors-reach-their-windows": _CUT,
            "a-late-error-is-no-exception": "an error of a row that is gone is refused",
            "late-errors-are-counted": "it does not tell",
            "windows-are-weighted-by-the-law": "it computes no weights",
        },
        settings="jax.replay_memory: ReplayBuffer and PrioritizedSamplingDistribution, new rows "
        "with max_recorded_priority as its agents do; windows of n steps by TransitionAccumulator, "
        "rows of one step by an accumulator that passes complete ones on",
    )


def uniform() -> Adapter:
    """Return the adapter of ``ReplayBuffer`` with ``UniformSamplingDistribution``."""
    return Adapter(
        name="dopamine, uniform",
        library="dopamine-rl",
        version=version_of("dopamine-rl"),
        law="uniform",
        make=_Uniform,
        not_claimed=_NOT_CLAIMED,
        settings="jax.replay_memory: ReplayBuffer and UniformSamplingDistribution; windows of n "
        "steps by TransitionAccumulator, rows of one step by an accumulator that passes complete "
        "ones on",
    )
