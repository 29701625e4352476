"""Replay memories that take a step of each of E environments at once: ours and those of others.

Knows how each library wants its steps; knows neither clocks nor what is told of them. No library
is imported before a memory of it is built.
"""

# The methods of a memory are documented once, where they are declared:
# ruff: noqa: D102
from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

import prioritized_replay as per
from prioritized_replay.conformance.adapters import Peer
from prioritized_replay.conformance.stacks import STACK, STACK_SHAPE
from prioritized_replay.conformance.subject import ALPHA, BETA, EPS, Law
from prioritized_replay.conformance.workload import OBS_SIZE

Array = NDArray[Any]
Step = Mapping[str, Array]
"""Arrays with a leading axis E: obs, action, reward, next_obs, terminated, truncated."""
ACTIONS = 4


class VectorMemory(ABC):
    """A replay memory of about N transitions for E environments side by side.

    Parameters
    ----------
    size : int
        The capacity N. It may be rounded to a multiple of E.
    num_envs : int
        E.

    Attributes
    ----------
    name, library, law
        What it is called, whose it is, and how it draws.
    settings : mapping of str to str
        How it is used, for the reader.
    """

    name: ClassVar[str]
    library: ClassVar[str]
    law: ClassVar[Law]
    settings: ClassVar[Mapping[str, str]]

    def __init__(self, size: int, num_envs: int) -> None:
        self.size, self.num_envs = size, num_envs

    @abstractmethod
    def touch(self) -> None:
        """Write to all memory, so that no page of it is new when the clock runs."""

    @abstractmethod
    def as_step(self, step: Step) -> Any:
        """Bring a step into the form in which this library's own loop would hold it."""

    @abstractmethod
    def add(self, step: Any) -> None:
        """Add one step of every environment. This alone is timed."""

    @abstractmethod
    def newest(self) -> tuple[Array, Array]:
        """Return the observations and actions of the E rows that were added last."""


class OursVector(VectorMemory):
    """``ReplayBuffer`` with ``Proportional`` and ``num_envs``."""

    name = "ours, proportional, vector"
    library = "prioritized-replay"
    law: ClassVar[Law] = "proportional"
    sampler: ClassVar[Any] = per.Proportional(alpha=ALPHA["proportional"], eps=EPS)
    shape: ClassVar[tuple[int, ...]] = (OBS_SIZE,)
    dtype: ClassVar[str] = "float32"
    settings: ClassVar = {
        "class": f"ReplayBuffer(sampler=Proportional(alpha={ALPHA['proportional']}, eps={EPS}), "
        "num_envs=E, autoreset='next_step')",
        "add": "arrays as a vector environment returns them; reset steps are found and left out",
    }

    def __init__(self, size: int, num_envs: int, n_step: int = 1) -> None:
        super().__init__(size, num_envs)
        fields = {
            "obs": per.Field(self.shape, self.dtype),
            "action": per.Field((), "int64"),
            "reward": per.Field(),
        }
        self.replay = per.ReplayBuffer(
            size, fields, sampler=self.sampler, n_step=n_step, num_envs=num_envs,
            autoreset="next_step", seed=1,
        )  # fmt: skip

    def touch(self) -> None:
        obs = np.ones((1, *self.shape), self.dtype)
        row = {"obs": obs, "next_obs": obs, "action": np.zeros(1, np.int64)}
        one = {**row, "reward": np.ones(1), "discount": np.ones(1)}
        for _ in range(0, self.size, 4096):
            self.replay.extend({name: value.repeat(4096, 0) for name, value in one.items()})

    def as_step(self, step: Step) -> Any:
        return tuple(step.values())

    def add(self, step: Any) -> None:
        self.replay.add(*step)

    def newest(self) -> tuple[Array, Array]:
        issued = int(self.replay.stats()["ids_issued"])
        batch = self.replay.get(np.arange(issued - self.num_envs, issued))
        return batch.obs, batch.action


class OursVectorUniform(OursVector):
    """The same with ``Uniform``."""

    name = "ours, uniform, vector"
    law = "uniform"
    sampler = per.Uniform()
    settings: ClassVar = {
        **OursVector.settings,
        "class": "ReplayBuffer(sampler=Uniform(), num_envs=E, autoreset='next_step')",
    }


class OursVectorStacks(OursVector):
    """The same with stacks of frames."""

    name = "ours, proportional, vector, stacks"
    shape = STACK_SHAPE
    dtype = "uint8"

    def touch(self) -> None:
        """Frames are not shared unless they follow each other: the adding itself fills it."""


class StableBaselines3Vector(VectorMemory):
    """Stable-Baselines3's ``ReplayBuffer``; it has no prioritized one."""

    name = "stable-baselines3, uniform, vector"
    library = "stable-baselines3"
    law = "uniform"
    settings: ClassVar = {
        "class": "ReplayBuffer(n_envs=E, device='cpu', handle_timeout_termination=False), "
        "the faster setting",
        "add": "arrays as its vector environments return them, and a list of E empty infos",
    }

    def __init__(self, size: int, num_envs: int) -> None:
        super().__init__(size, num_envs)
        buffers = import_module("stable_baselines3.common.buffers")
        spaces = import_module("gymnasium.spaces")
        self._memory = buffers.ReplayBuffer(
            size,
            spaces.Box(-np.inf, np.inf, (OBS_SIZE,), np.float32),
            spaces.Discrete(ACTIONS),
            n_envs=num_envs,
            device="cpu",
            handle_timeout_termination=False,
        )

    def touch(self) -> None:
        for column in ("observations", "next_observations", "actions", "rewards", "dones"):
            getattr(self._memory, column)[:] = 1

    def as_step(self, step: Step) -> Any:
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        ends = step["terminated"] | step["truncated"]
        return step["obs"], step["next_obs"], step["action"], step["reward"], ends, infos

    def add(self, step: Any) -> None:
        self._memory.add(*step)

    def newest(self) -> tuple[Array, Array]:
        memory = self._memory
        return memory.observations[memory.pos - 1], memory.actions[memory.pos - 1, :, 0]


class TianshouVector(VectorMemory):
    """Tianshou's ``PrioritizedVectorReplayBuffer``."""

    name = "tianshou, vector"
    library = "tianshou"
    law: ClassVar[Law] = "proportional"
    settings: ClassVar = {
        "class": f"PrioritizedVectorReplayBuffer(buffer_num=E, alpha={ALPHA['proportional']}, "
        f"beta={BETA}), nothing stacked, no info stored",
        "add": "a Batch made before timing",
    }

    def __init__(self, size: int, num_envs: int) -> None:
        super().__init__(size, num_envs)
        self._data = import_module("tianshou.data")
        self._memory = self._made()
        self._last: Any = None

    def _made(self) -> Any:
        make = self._data.PrioritizedVectorReplayBuffer
        return make(self.size, self.num_envs, alpha=ALPHA["proportional"], beta=BETA)

    def touch(self) -> None:
        shape = (self.num_envs, OBS_SIZE)
        flags = np.zeros(self.num_envs, np.bool_)
        self.add(self.as_step({
            "obs": np.ones(shape, np.float32), "action": np.zeros(self.num_envs, np.int64),
            "reward": np.ones(self.num_envs, np.float32), "next_obs": np.ones(shape, np.float32),
            "terminated": flags, "truncated": flags,
        }))  # fmt: skip
        for column in ("obs", "act", "rew", "terminated", "truncated", "done", "obs_next"):
            values = getattr(self._memory, column)
            values[:] = values[0]

    def as_step(self, step: Step) -> Any:
        return self._data.Batch(
            obs=step["obs"],
            act=step["action"],
            rew=step["reward"],
            terminated=step["terminated"],
            truncated=step["truncated"],
            obs_next=step["next_obs"],
        )

    def add(self, step: Any) -> None:
        self._last = self._memory.add(step)[0]

    def newest(self) -> tuple[Array, Array]:
        return self._memory.obs[self._last], self._memory.act[self._last]


class TianshouVectorUniform(TianshouVector):
    """Tianshou's ``VectorReplayBuffer``."""

    name = "tianshou, uniform, vector"
    law = "uniform"
    settings: ClassVar = {
        "class": "VectorReplayBuffer(buffer_num=E), nothing stacked, no info stored",
        "add": "a Batch made before timing",
    }

    def _made(self) -> Any:
        return self._data.VectorReplayBuffer(self.size, self.num_envs)


OURS_VECTOR: Sequence[type[VectorMemory]] = (OursVector, OursVectorUniform)
PEERS_VECTOR: Mapping[Peer, Sequence[type[VectorMemory]]] = {
    "stable-baselines3": (StableBaselines3Vector,),
    "tianshou": (TianshouVector, TianshouVectorUniform),
}


def played(num_envs: int, count: int, seed: int, end: float = 0.005) -> list[dict[str, Array]]:
    """Return steps that follow each other, with reset steps after ends, as Gymnasium's are.

    Parameters
    ----------
    num_envs : int
        E.
    count : int
        How many steps. The last one ends no episode, so that the first may come after it.
    seed : int
        Of what is random.
    end : float
        The chance of a step to end its episode.
    """
    rng = np.random.default_rng((seed, num_envs))
    obs = rng.standard_normal((num_envs, OBS_SIZE), np.float32)
    ended = np.zeros(num_envs, np.bool_)
    steps: list[dict[str, Array]] = []
    for k in range(count):
        next_obs = rng.standard_normal((num_envs, OBS_SIZE), np.float32)
        reward = rng.standard_normal(num_envs, np.float32)
        reward[ended] = 0.0  # of a reset step
        ended = (rng.random(num_envs) < end) & ~ended & (k < count - 1)
        steps.append({
            "obs": obs, "action": rng.integers(ACTIONS, size=num_envs), "reward": reward,
            "next_obs": next_obs, "terminated": ended, "truncated": np.zeros(num_envs, np.bool_),
        })  # fmt: skip
        obs = next_obs
    return steps


def played_stacks(num_envs: int, count: int, seed: int) -> list[dict[str, Array]]:
    """Return steps of games that do not end, with stacks of frames of random bytes."""
    rng = np.random.default_rng((seed, num_envs))
    frames = rng.integers(256, size=(count + STACK, num_envs, *STACK_SHAPE[1:]), dtype=np.uint8)
    stacks = [np.stack([*frames[k : k + STACK]], axis=1) for k in range(count + 1)]
    flags = np.zeros(num_envs, np.bool_)
    steps: list[dict[str, Array]] = [
        {
            "obs": stacks[k], "action": rng.integers(ACTIONS, size=num_envs),
            "reward": np.zeros(num_envs, np.float32), "next_obs": stacks[k + 1],
            "terminated": flags, "truncated": flags,
        }
        for k in range(count)
    ]  # fmt: skip
    return steps
