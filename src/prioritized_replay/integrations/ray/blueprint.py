"""How the buffer of any shard is made: a value that is sent to each. It knows no process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from prioritized_replay import PrioritizedIndex, Proportional
from prioritized_replay.fields import arguments
from prioritized_replay.replay import ReplayBuffer

__all__ = ["OF_STREAMS", "Blueprint", "draw_up", "folder_named"]

OF_STREAMS = ("n_step", "gamma", "num_envs", "autoreset")
"""Options of each process that adds."""
SHARED = ("n_step", "gamma", "max_bytes")


@dataclass(frozen=True)
class Blueprint:
    """How to make the buffer of any shard."""

    shards: int
    capacity: int
    """Of all shards together."""
    fields: Mapping[str, Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of :class:`.ReplayBuffer` by name, but for ``directory`` and ``seed``."""
    directory: str | None = None
    entropy: int = 0
    """What the seeds of all shards and generations are made of."""

    def capacity_of(self, shard: int) -> int:
        """Return how many rows one shard keeps; together they keep all."""
        each, more = divmod(self.capacity, self.shards)
        return each + (shard < more)

    def folder(self, shard: int, generation: int) -> Path | None:
        """Return where one shard keeps its rows, if it is not in RAM."""
        if self.directory is None:
            return None
        return Path(self.directory) / f"shard-{shard}-{generation}"

    def buffer(self, shard: int, generation: int) -> ReplayBuffer:
        """Return a new buffer."""
        seed = np.random.SeedSequence((self.entropy, shard, generation))
        return ReplayBuffer(
            self.capacity_of(shard), self.fields, **self.options,
            directory=self.folder(shard, generation), seed=seed,
        )  # fmt: skip

    def template(self) -> ReplayBuffer:
        """Return an empty buffer of one row like those of the shards."""
        options = {name: value for name, value in self.options.items() if name != "max_bytes"}
        return ReplayBuffer(1, self.fields, **options, seed=0)


def draw_up(
    capacity: int, fields: Mapping[str, Any], shards: int, sampler: Any,
    options: Mapping[str, Any], entropy: int | None = None,
) -> Blueprint:  # fmt: skip
    """Return how to make a shard.

    Raises
    ------
    ValueError, TypeError
        If an option is unknown, or one that shards cannot have.
    """
    known = {*OF_STREAMS, "max_bytes", "directory", "seed"}
    if options.get("sequence") is not None:
        raise ValueError(
            "sequence must be left out where there are shards: their rows are single transitions"
        )
    for name in options:
        if name not in known and name != "sequence":
            raise TypeError(f"ShardedReplay has no argument {name!r}")
    shared = {name: options[name] for name in SHARED if options.get(name) is not None}
    if "max_bytes" in shared:
        shared["max_bytes"] = max(1, arguments.integer("max_bytes", shared["max_bytes"]) // shards)
    shared["sampler"] = Proportional() if sampler is None else sampler
    directory = options.get("directory")
    if entropy is None:
        try:
            entropy = int(np.random.default_rng(options.get("seed")).integers(2**63))
        except (TypeError, ValueError):
            PrioritizedIndex(1, seed=options["seed"])  # which says what a seed may be
            raise
    return Blueprint(
        shards, capacity, dict(fields), shared,
        None if directory is None else str(folder_named("directory", directory)), entropy,
    )  # fmt: skip


def folder_named(name: str, path: Any) -> Path:
    """Return a folder as every process finds it.

    Raises
    ------
    ValueError
        If it is no path; ``name`` is that of the argument.
    """
    try:
        return Path(path).absolute()
    except TypeError:
        raise ValueError(f"{name} must be a path, got {arguments.shown(path)}") from None
