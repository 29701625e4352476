"""What a replay memory holds, in plain numbers: read from a checkpoint, or taken of a live one.

Knows the memory's public names and its census; judges nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prioritized_replay.checkpoint.files import CheckpointError
from prioritized_replay.index import PrioritizedIndex
from prioritized_replay.replay import ReplayBuffer
from prioritized_replay.sampled import Census, census

Array = NDArray[Any]
Memory = ReplayBuffer | PrioritizedIndex

HIGHEST = 20  # rows that are looked at one by one
_LONGEST = 8  # numbers of a vector that are shown
_COMPUTED = ("weights", "probabilities", "ids", "mask", "is_first")


@dataclass(frozen=True, eq=False)
class Portrait:
    """A replay memory as it was at one moment.

    Attributes
    ----------
    kind : str
        "ReplayBuffer" or "PrioritizedIndex".
    things : str
        What is drawn: "transitions", "sequences" or "items".
    sampler : Specification
        How they are drawn.
    alpha : float
        The exponent in force; 0 where priorities do not count.
    capacity, rows : int
        How many rows there may be, and are. Of sequences: steps.
    stats : dict
        What ``stats()`` returns.
    census : Census
        Everything that can be drawn, the oldest first.
    """

    kind: str
    things: str
    sampler: Any
    alpha: float
    capacity: int
    rows: int
    stats: dict[str, float]
    census: Census

    @property
    def size(self) -> int:
        """How many can be drawn."""
        return self.census.ids.size

    @property
    def issued(self) -> int:
        """How many ids have been given."""
        return int(self.stats["ids_issued"])

    @property
    def ages(self) -> Array:
        """How many rows have come since each of those that can be drawn, int64[size]."""
        ages: Array = self.issued - 1 - self.census.ids
        return ages

    def highest_drawn(self, k: int) -> Array:
        """Return the places in the census of the highest priorities that an error may have given.

        New rows enter with the largest priority so far, and are often all of the highest.
        """
        drawn = np.flatnonzero(self.census.drawn)
        order = np.lexsort((-drawn, -self.census.priorities[drawn]))
        places: Array = drawn[order[:k]]
        return places

    @property
    def summary(self) -> str:
        """One line: what it is and how much is in it."""
        if self.things == "sequences":
            return f"{self.size:,} sequences in {self.rows:,} of {self.capacity:,} steps"
        return f"{self.size:,} of {self.capacity:,} {self.things}"


@dataclass(frozen=True, eq=False)
class Leaf:
    """One column of one row: the array, and along which axis images are stacked, if that is so."""

    name: str
    value: Array
    stack_axis: int | None


def load_memory(path: Path) -> Memory:
    """Return the buffer or the index of which a folder holds a checkpoint.

    Raises
    ------
    CheckpointError
        There is none, or it is damaged or of another version; a ValueError.
    MemoryError, OSError
        There is no room for it.
    """
    try:
        return ReplayBuffer.load(path)
    except CheckpointError as error:
        if "PrioritizedIndex.load" not in str(error):
            raise
    return PrioritizedIndex.load(path)


def portrait_of(memory: Memory) -> Portrait:
    """Return the portrait of a memory. Nothing counts as drawn. O(N log N)."""
    stats = memory.stats()
    things = "items"
    if isinstance(memory, ReplayBuffer):
        things = "transitions" if memory.sequence is None else "sequences"
    return Portrait(
        kind=type(memory).__name__,
        things=things,
        sampler=memory.sampler,
        alpha=memory.alpha,
        capacity=memory.capacity,
        rows=int(stats.get("steps", stats["size"])),
        stats=stats,
        census=census(memory),
    )


def columns_of(memory: Memory, ids: Array) -> list[list[Leaf]]:
    """Return the columns of named rows, of a sequence those of its first step; none of an index."""
    if isinstance(memory, PrioritizedIndex) or not ids.size:
        return [[] for _ in ids]
    batch, fields = memory.get(ids), memory.fields
    columns = [
        (name, leaf, field)
        for name in batch
        if name not in _COMPUTED
        for name, leaf, field in _leaves(name, batch[name], fields.get(name))
    ]
    of_steps = memory.sequence is not None
    found: list[list[Leaf]] = []
    for row in range(ids.size):
        leaves = []
        for name, leaf, field in columns:
            once = not of_steps or getattr(field, "per_sequence", False)
            value = leaf[row] if once else leaf[row, 0]
            leaves.append(Leaf(name, np.asarray(value), getattr(field, "stack_axis", None)))
        found.append(leaves)
    return found


def shown(value: Array) -> str:
    """Return a value as a few numbers, or its dtype and shape where there are many."""
    if value.size > _LONGEST:
        return f"{value.dtype}[{', '.join(map(str, value.shape))}]"
    numbers = [
        str(number) if value.dtype.kind in "iub" else f"{float(number):.3g}"
        for number in value.ravel()
    ]
    return numbers[0] if value.ndim == 0 else f"[{', '.join(numbers)}]"


def _leaves(name: str, value: Any, field: Any) -> Iterator[tuple[str, Array, Any]]:
    """Yield the arrays of a nested column with their names and fields."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _leaves(f"{name}.{key}", part, field[key] if field else None)
    elif isinstance(value, tuple):
        for key, part in enumerate(value):
            yield from _leaves(f"{name}.{key}", part, field[key] if field else None)
    else:
        yield name, np.asarray(value), field
