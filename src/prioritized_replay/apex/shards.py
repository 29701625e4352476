"""The replay as the learner of Ape-X uses it: batches drawn ahead, priorities given back in blocks.

Knows :class:`ShardedReplay` and what a learner wants of it; knows no actor and no network.
"""

from collections.abc import Iterator
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from prioritized_replay.batch import Batch
from prioritized_replay.apex._standin import ShardedReplay
from prioritized_replay.training.build import make_memory
from prioritized_replay.training.config import TrainConfig
from prioritized_replay.training.workers import ShardReport

AHEAD = 4
"""Batches that are on their way while the learner works."""

_BLOCK = 8  # batches whose priorities are given back together


class Shards:
    """A sharded replay with what is on its way from it and to it."""

    def __init__(self, replay: Any, config: TrainConfig) -> None:
        self.handle = replay
        self._batch_size = config.batch_size
        self._batches: Iterator[Batch] | None = None
        self._given: list[tuple[npt.NDArray[np.int64], Tensor]] = []
        self._filled = False

    @classmethod
    def new(cls, config: TrainConfig, env: Any, seed: int) -> Self:
        return cls(ShardedReplay(lambda: make_memory(config, env, seed)), config)

    @property
    def gamma(self) -> float:
        return float(self.handle.gamma)

    def hold(self, rows: int) -> bool:
        """Return whether the shards together have had so many rows at once."""
        self._filled = self._filled or len(self.handle) >= rows
        return self._filled

    def next_batch(self, agent: Any) -> Batch:
        if self._batches is None:
            self._batches = self.handle.batches(self._batch_size, agent.beta, ahead=AHEAD)
        return next(self._batches)

    def give_back(self, ids: npt.NDArray[np.int64], errors: Tensor) -> None:
        self._given.append((ids, errors))
        if len(self._given) >= _BLOCK:
            self.settle()

    def settle(self) -> None:
        if self._given:
            ids = np.concatenate([ids for ids, _ in self._given])
            errors = torch.cat([errors for _, errors in self._given]).cpu().numpy()
            self._given.clear()
            self.handle.update_priorities(ids, errors)

    def reports(self) -> tuple[ShardReport, ...]:
        return (ShardReport(0, len(self.handle), 0, 0),)

    def news(self) -> tuple[str, ...]:
        return ()

    def close(self) -> None:
        self.handle.close()
