"""The replay as the learner of Ape-X uses it: draws ahead, priorities that nobody waits for.

Knows :class:`~prioritized_replay.integrations.ray.ShardedReplay`; knows no actor and no network.
"""

import math
import os
import time
from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from prioritized_replay.batch import Batch
from prioritized_replay.integrations.ray import ShardedReplay
from prioritized_replay.training.build import make_memory, make_sampler
from prioritized_replay.training.config import TrainConfig
from prioritized_replay.training.workers import ShardReport

AHEAD = 8
"""Batches that are on their way while the learner works; half of them come with one call."""

_SECONDS = 300.0  # for a shard to answer: one that died has to start again
_SAVE_SECONDS = 3_600.0
_SHARE = 20.0  # so many times as long as it took, shards are not asked for their numbers again
_MADE = ("next_obs", "discount", "terminated")  # columns that a replay makes by itself


class Emptied(Exception):
    """The shards have nothing to draw from: those that died came back empty."""


class Shards:
    """A sharded replay, with what the learner has asked of it.

    Parameters
    ----------
    replay : ShardedReplay
    """

    def __init__(self, replay: ShardedReplay) -> None:
        self.replay = replay
        """Can be sent to actors."""
        self.rows_lost = 0
        """Rows of shards that died, up to the last :meth:`reports`."""
        self._drawn: npt.NDArray[np.int64] = np.zeros(replay.shards, np.int64)
        self._batches: Any = None
        self._filled = False
        self._stats = replay.stats()
        self._due = -math.inf  # when they may be asked for again
        self._restarts = int(self._stats["restarts"])
        self._news: list[str] = []

    @classmethod
    def new(cls, config: TrainConfig, env: Any, seed: int) -> Self:
        """Start empty shards for an environment."""
        replay = ShardedReplay(
            config.capacity, **_pattern(config, env), seed=seed, timeout=_SECONDS
        )
        return cls._wrapped(replay)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Start shards with what :meth:`save` has saved.

        Raises
        ------
        CheckpointError
            There is no checkpoint, or it is damaged; a ValueError.
        """
        return cls._wrapped(ShardedReplay.load(path, timeout=_SECONDS))

    @classmethod
    def _wrapped(cls, replay: ShardedReplay) -> Self:
        try:
            return cls(replay)
        except BaseException:
            replay.close()
            raise

    def check(self, config: TrainConfig, env: Any) -> None:
        """Check that these are the shards that :meth:`new` would make.

        Raises
        ------
        ValueError
            A setting or a field is another.
        """
        expected = {"capacity": config.capacity, **_pattern(config, env)}
        for name, wanted in expected.items():
            found = getattr(self.replay, name)
            if name == "fields":
                found = {field: found[field] for field in found if field not in _MADE}
                found, wanted = _layout(found), _layout(wanted)
            if found != wanted:
                raise ValueError(f"{name} of the replay must be {wanted}, got {found}")

    @property
    def gamma(self) -> float:
        """Discount of one step."""
        return self.replay.gamma

    @property
    def extra(self) -> dict[str, bytes]:
        """The named bytes in the checkpoint that this was loaded from."""
        return self.replay.extra

    def hold(self, rows: int) -> bool:
        """Return whether the shards together have held so many rows since they were empty."""
        self._filled = self._filled or len(self.replay) >= rows
        return self._filled

    def next_batch(self, batch_size: int, beta: Callable[[], float]) -> Batch:
        """Return the next of the batches that are drawn ahead.

        Parameters
        ----------
        batch_size : int
            Always the same.
        beta : callable
            Gives the exponent of the weights.

        Raises
        ------
        Emptied
            There are no rows any more.
        """
        if self._batches is None:
            self._batches = self.replay.batches(batch_size, lambda number: beta(), ahead=AHEAD)
        try:
            batch: Batch = next(self._batches)
        except ValueError:
            self._batches.close()
            self._batches = None
            if len(self.replay):
                raise
            self._filled = False
            raise Emptied from None
        self._drawn += np.bincount(batch.ids % self.replay.shards, minlength=self.replay.shards)
        return batch

    def give_back(self, ids: npt.NDArray[np.int64], errors: Any) -> None:
        """Let priorities follow td errors float32[B]; they are sent in blocks, with later draws."""
        self.replay.update_priorities(ids, errors, wait=False)

    def settle(self) -> None:
        """Wait until the priorities given back have arrived."""
        self.replay.flush()

    def reports(self, *, fresh: bool = False) -> tuple[ShardReport, ...]:
        """Return what each shard holds.

        It may be what they held a while ago, unless it has to be fresh: a full shard takes 0.2 s.
        """
        began = time.monotonic()
        if fresh or began >= self._due:
            self._stats = self.replay.stats()
            ended = time.monotonic()
            self._due = ended + _SHARE * (ended - began)
        stats = self._stats
        restarts, lost = int(stats["restarts"]), int(stats["rows_lost"])
        if restarts > self._restarts:
            self._news.append(
                f"A shard of the replay died and was started again: {lost - self.rows_lost:,} "
                "rows are lost."
            )
        self._restarts, self.rows_lost = restarts, lost
        return tuple(
            ShardReport(
                shard=shard,
                rows=int(stats[f"shard_{shard}_size"]),
                mass=float(stats[f"shard_{shard}_mass"]),
                draws=int(self._drawn[shard]),
            )
            for shard in range(self.replay.shards)
        )

    def news(self) -> tuple[str, ...]:
        """Return what happened since the last call, in sentences."""
        news, self._news = tuple(self._news), []
        return news

    def save(self, path: str | os.PathLike[str], extra: Mapping[str, bytes] | None = None) -> None:
        """Save all shards; see :meth:`ShardedReplay.save`."""
        self.replay.save(path, extra=extra, timeout=_SAVE_SECONDS)

    def close(self) -> None:
        """End the processes of the shards. Twice is fine."""
        self.replay.close()


def _pattern(config: TrainConfig, env: Any) -> dict[str, Any]:
    """Return the options of the shards for an environment."""
    pattern = make_memory(config, env, 0, capacity=1)
    return {
        "fields": {name: pattern.fields[name] for name in pattern.fields if name not in _MADE},
        "shards": config.shards,
        "sampler": make_sampler(config),
        "n_step": config.n_step,
        "gamma": config.gamma,
    }


def _layout(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: (getattr(field, "shape", field), getattr(field, "dtype", field))
        for name, field in fields.items()
    }
