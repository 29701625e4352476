"""Replay memories that draw sequences of steps: ours and those of others.

Knows how each library wants its steps and errors; knows neither clocks nor what is told of them. No
library is imported before a memory of it is built.
"""

# The methods of a memory are documented once, where they are declared:
# ruff: noqa: D102
from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

import prioritized_replay as per
from prioritized_replay.conformance.adapters import Peer
from prioritized_replay.conformance.subject import ALPHA, BETA, EPS, Law

Array = NDArray[Any]
Steps = dict[str, Array]
"""Columns of consecutive steps, ``obs`` with one more: the last next observation."""

EPISODE = 1_000  # steps
EPISODES_AT_ONCE = 100
OBS_SIZE = 4  # as of CartPole
PRIORITY_MIX = 0.9


def played(size: int, seed: int) -> Iterator[tuple[Steps, Array]]:
    """Yield N steps in episodes, and an error for each, a hundred episodes at a time.

    The action of a step is its number, and so is the first value of its observation, as float32.
    """
    rng = np.random.default_rng(seed)
    obs = rng.random((EPISODES_AT_ONCE * EPISODE + 1, OBS_SIZE), np.float32)
    reward = rng.random(EPISODES_AT_ONCE * EPISODE, np.float32)
    for first in range(0, size, EPISODES_AT_ONCE * EPISODE):
        count = min(size - first, EPISODES_AT_ONCE * EPISODE)
        obs[: count + 1, 0] = np.arange(first, first + count + 1)
        steps: Steps = {
            "obs": obs[: count + 1],
            "action": np.arange(first, first + count),
            "reward": reward[:count],
        }
        yield steps, rng.standard_normal(count, np.float32)


def later(first: int, count: int) -> list[Steps]:
    """Return single steps, from this number on, to be added after those of :func:`played`."""
    obs = np.full((count + 1, OBS_SIZE), 0.5, np.float32)
    obs[:, 0] = np.arange(first, first + count + 1)
    return [
        {
            "obs": obs[k : k + 2],
            "action": np.arange(first + k, first + k + 1),
            "reward": np.zeros(1, np.float32),
        }
        for k in range(count)
    ]


class SequenceMemory(ABC):
    """A replay memory of N steps that draws sequences of T.

    Parameters
    ----------
    size, length : int
        N and T.

    Attributes
    ----------
    name, library, law
        What it is called, whose it is, and how it draws.
    settings : mapping of str to str
        How it is used, for the reader.
    row_bytes : int
        About how many bytes a step takes.
    draws : bool
        Whether its draws are its own, and not those of another one here.
    """

    name: ClassVar[str]
    library: ClassVar[str]
    law: ClassVar[Law]
    settings: ClassVar[Mapping[str, str]]
    row_bytes: ClassVar[int] = 80
    draws: ClassVar[bool] = True

    def __init__(self, size: int, length: int) -> None:
        self.size, self.length = size, length

    @abstractmethod
    def fill(self, seed: int) -> None:
        """Add the steps of :func:`played`, with priorities of their errors."""

    @abstractmethod
    def as_step(self, step: Steps) -> Any:
        """Bring a step into the form in which this library's own loop would hold it."""

    @abstractmethod
    def add(self, step: Any) -> None:
        """Add one step."""

    @abstractmethod
    def sample(self, batch: int) -> Any:
        """Draw B sequences."""

    @abstractmethod
    def as_errors(self, errors: Array) -> Any:
        """Bring errors, float32[B, T], into the form in which a learner would hold them."""

    @abstractmethod
    def update(self, drawn: Any, errors: Any) -> None:
        """Give drawn sequences new priorities."""

    @abstractmethod
    def seen(self, drawn: Any) -> tuple[Array, Array]:
        """Return the observations [B, T, ...] and actions [B, T] of a batch."""


class OursSequences(SequenceMemory):
    """``ReplayBuffer`` with ``Sequence``."""

    name = "ours, sequences"
    library = "prioritized-replay"
    law: ClassVar[Law] = "proportional"
    sampler: ClassVar[Any] = per.Proportional(alpha=ALPHA["proportional"], eps=EPS)
    settings: ClassVar = {
        "class": f"ReplayBuffer(sampler=Proportional(alpha={ALPHA['proportional']}, eps={EPS}), "
        "sequence=Sequence(length=T, overlap=T - 1))",
        "draws": "sequences, by their own priorities; with weights, masks, ids",
        "update": "update_priorities with float32[B, T]",
    }

    def __init__(self, size: int, length: int) -> None:
        super().__init__(size, length)
        fields = {
            "obs": per.Field((OBS_SIZE,)),
            "action": per.Field((), "int64"),
            "reward": per.Field(),
        }
        self.replay = per.ReplayBuffer(
            size, fields, sampler=self.sampler, seed=1,
            sequence=per.Sequence(length, overlap=length - 1, priority_mix=PRIORITY_MIX),
        )  # fmt: skip

    def fill(self, seed: int) -> None:
        for steps, errors in played(self.size, seed):
            ids = []
            for k in range(0, len(errors), EPISODE):
                stop = min(k + EPISODE, len(errors))
                ids.append(
                    self.replay.add_episode(
                        obs=steps["obs"][k : stop + 1], action=steps["action"][k:stop],
                        reward=steps["reward"][k:stop], terminated=True,
                    )
                )  # fmt: skip
            begun = np.concatenate(ids)
            if self.law == "uniform":
                self.replay.sample(1)  # it receives the new ones when they are needed
            else:
                self.replay.update_priorities(begun, errors[: begun.size])

    def as_step(self, step: Steps) -> Any:
        return (*(step[name][0] for name in ("obs", "action", "reward")), step["obs"][1], False)

    def add(self, step: Any) -> None:
        self.replay.add(*step)

    def sample(self, batch: int) -> Any:
        return self.replay.sample(batch, BETA)

    def as_errors(self, errors: Array) -> Any:
        return errors

    def update(self, drawn: Any, errors: Any) -> None:
        self.replay.update_priorities(drawn.ids, errors)

    def seen(self, drawn: Any) -> tuple[Array, Array]:
        return drawn.obs, drawn.action


class OursUniformSequences(OursSequences):
    """The same with ``Uniform``."""

    name = "ours, uniform, sequences"
    law = "uniform"
    sampler = per.Uniform()
    settings: ClassVar = {
        "class": "ReplayBuffer(sampler=Uniform(), sequence=Sequence(length=T, overlap=T - 1))"
    }


class TorchRLSequences(SequenceMemory):
    """TorchRL's ``TensorDictReplayBuffer`` with its ``PrioritizedSliceSampler``.

    Its priorities are those of steps: one of a sequence goes to the step where it begins.
    """

    name = "torchrl, sequences"
    library = "torchrl"
    law: ClassVar[Law] = "proportional"
    settings: ClassVar = {
        "class": "TensorDictReplayBuffer(LazyTensorStorage, PrioritizedSliceSampler("
        f"alpha={ALPHA['proportional']}, beta={BETA}, eps={EPS}, slice_len=T, "
        "traj_key='episode', cache_values=True, truncated_key=None, init_key=None)), on the CPU",
        "draws": "slices, by the priorities of their first steps; batches come as tensors, flat",
        "update": f"{PRIORITY_MIX} of the largest and {1 - PRIORITY_MIX:.1f} of the mean absolute "
        "error of each slice, computed with torch, given to update_priority for its first step",
    }
    row_bytes = 100  # beside the rows two float32 trees of up to 4 N places

    def __init__(self, size: int, length: int) -> None:
        super().__init__(size, length)
        data = import_module("torchrl.data")
        self._memory = data.TensorDictReplayBuffer(
            storage=data.LazyTensorStorage(size), sampler=self._sampler(data)
        )

    def _sampler(self, data: Any) -> Any:
        return data.PrioritizedSliceSampler(
            max_capacity=self.size, alpha=ALPHA["proportional"], beta=BETA, eps=EPS,
            **self._slices(),
        )  # fmt: skip

    def _slices(self) -> dict[str, Any]:
        return {
            "slice_len": self.length, "traj_key": "episode", "cache_values": True,
            "truncated_key": None, "init_key": None,
        }  # fmt: skip

    def fill(self, seed: int) -> None:
        torch, first = import_module("torch"), 0
        for steps, errors in played(self.size, seed):
            self._memory.extend(self._as_rows(steps))
            last = first + len(errors)
            if self.law != "uniform":
                priorities = torch.from_numpy(np.abs(errors))
                self._memory.update_priority(torch.arange(first, last), priorities)
            first = last

    def _as_rows(self, steps: Steps) -> Any:
        torch, tensordict = import_module("torch"), import_module("tensordict")
        obs, number = torch.from_numpy(steps["obs"]), torch.from_numpy(steps["action"])
        columns = {
            "obs": obs[:-1],
            "action": number,
            "episode": number // EPISODE,
            ("next", "obs"): obs[1:],
            ("next", "reward"): torch.from_numpy(steps["reward"]),
            ("next", "done"): (number + 1) % EPISODE == 0,
        }
        return tensordict.TensorDict(columns, batch_size=[len(number)])

    def as_step(self, step: Steps) -> Any:
        return self._as_rows(step)[0]

    def add(self, step: Any) -> None:
        self._memory.add(step)

    def sample(self, batch: int) -> Any:
        return self._memory.sample(batch * self.length)

    def as_errors(self, errors: Array) -> Any:
        return import_module("torch").from_numpy(errors)

    def update(self, drawn: Any, errors: Any) -> None:
        errors = errors.abs()
        mixed = PRIORITY_MIX * errors.amax(1) + (1 - PRIORITY_MIX) * errors.mean(1)
        self._memory.update_priority(drawn["index"][:: self.length], mixed)

    def seen(self, drawn: Any) -> tuple[Array, Array]:
        actions = drawn["action"].numpy()
        return (
            drawn["obs"].numpy().reshape(-1, self.length, OBS_SIZE),
            actions.reshape(-1, self.length),
        )


class TorchRLEachStep(TorchRLSequences):
    """The same, where every step of a slice gets the priority of its own error."""

    name = "torchrl, each step"
    draws = False
    settings: ClassVar = {
        **TorchRLSequences.settings,
        "update": "update_priority for all steps, with a tensor of absolute values",
    }

    def update(self, drawn: Any, errors: Any) -> None:
        self._memory.update_priority(drawn["index"], errors.abs().reshape(-1))


class TorchRLUniformSequences(TorchRLSequences):
    """TorchRL's ``TensorDictReplayBuffer`` with its ``SliceSampler``."""

    name = "torchrl, uniform, sequences"
    law = "uniform"
    settings: ClassVar = {
        "class": "TensorDictReplayBuffer(LazyTensorStorage, SliceSampler(slice_len=T, "
        "traj_key='episode', cache_values=True, truncated_key=None, init_key=None)), on the CPU",
    }

    def _sampler(self, data: Any) -> Any:
        return data.SliceSampler(**self._slices())


OURS_SEQUENCES: Sequence[type[SequenceMemory]] = (OursSequences, OursUniformSequences)
PEERS_SEQUENCES: Mapping[Peer, Sequence[type[SequenceMemory]]] = {
    "torchrl": (TorchRLSequences, TorchRLEachStep, TorchRLUniformSequences),
}
CANNOT: Mapping[Peer, str] = {
    "cpprb": "cannot: it draws single transitions, and stacks of frames",
    "tianshou": "cannot: it draws single transitions, and the frames before each as a stack",
    "stable-baselines3": "cannot: its replay draws single transitions; the recurrent algorithm "
    "beside it keeps no replay",
}
"""Libraries that draw no sequences."""
