"""What one process of several holds: a buffer, and what the others have to know of it.

It knows one buffer and its own number. It knows no Ray, no other shard and no totals of all.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from prioritized_replay.integrations.ray.blueprint import Blueprint
from prioritized_replay.integrations.ray.ledger import NO_TICKET, Ledger
from prioritized_replay.integrations.ray.losses import Begun
from prioritized_replay.integrations.ray.numbering import Numbering
from prioritized_replay.replay import ReplayBuffer
from prioritized_replay.sampled import Totals, census, totals

__all__ = ["Drawn", "Reply", "Report", "Shard"]

Array = NDArray[Any]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SKETCH = 1001  # quantiles that stand for the priorities of a shard
NUMBERING = "numbering"
"""Name under which a shard's checkpoint keeps how its rows are numbered."""
WARM = 64  # rows that make the compiled code of a shard ready before anybody waits for it


class Report(NamedTuple):
    """What a shard says of itself with every answer."""

    generation: int
    """How often it was restarted."""
    issued: int
    """Rows that its buffer was ever given."""
    totals: Totals
    next_id: int
    """The global id that its next row will have."""


class Reply(NamedTuple):
    """The answer to a call."""

    report: Report
    value: Any


class Drawn(NamedTuple):
    """Rows of one batch from one shard."""

    columns: dict[str, Any]
    """Without ``weights``; ``ids`` are global, ``probabilities`` the shard's own."""


class Shard:
    """One buffer of several.

    Parameters
    ----------
    number : int
        Which shard this is.
    blueprint : Blueprint
        How its buffer is made.
    generation : int
        How often the shard was restarted.
    checkpoint : path, optional
        The folder of a checkpoint to begin with; else the buffer is empty. One of the same
        generation is gone on with as if nothing had happened. After one of an older generation,
        rows were added that are lost: their ids are never given again.
    """

    def __init__(
        self,
        number: int,
        blueprint: Blueprint,
        generation: int = 0,
        checkpoint: str | None = None,
    ) -> None:
        self._number, self._blueprint = number, blueprint
        self._generation = generation
        self._numbering = Numbering(number, blueprint.shards)
        folder = blueprint.folder(number, generation)
        if blueprint.directory is not None:
            for old in Path(blueprint.directory).glob(f"shard-{number}-*"):
                shutil.rmtree(old, ignore_errors=True)  # of a generation that is gone
        if checkpoint is None:
            self._buffer = blueprint.buffer(number, generation)
        else:
            most = blueprint.options.get("max_bytes")
            self._buffer = ReplayBuffer.load(checkpoint, directory=folder, max_bytes=most)
            segments = json.loads(self._buffer.extra[NUMBERING])
            self._numbering = Numbering.of(number, blueprint.shards, segments)
        issued = self._buffer.ids_issued
        if self._numbering.generation < generation:
            self._numbering.begin(issued, generation)
        self.begun = Begun(
            issued,
            self._numbering.local_ranges(issued - len(self._buffer), issued),
            self._numbering.global_id(issued) // blueprint.shards,
        )
        """What this generation begins with."""

    def warm(self) -> None:
        """Compile, or load, what draws and inserts need: nobody has to wait for it later."""
        blueprint = self._blueprint
        twin = ReplayBuffer(WARM, blueprint.fields, **blueprint.options, seed=0)
        columns: dict[str, Any] = {}
        for name, nested in twin.fields.items():
            if name != "terminated":
                columns[name] = _zeros(nested)
        for errors in (None, np.ones(WARM)):
            twin.extend(columns, errors)
        ids = twin.sample(WARM).ids
        twin.update_priorities(ids, np.ones(ids.size))
        totals(twin)

    def report(self) -> Reply:
        """Return what the others have to know."""
        return self._reply(None)

    def _reply(self, value: Any) -> Reply:
        buffer = self._buffer
        issued = buffer.ids_issued
        next_id = self._numbering.global_id(issued)
        return Reply(Report(self._generation, issued, totals(buffer), next_id), value)

    def keep_ledger(self, path: Path) -> None:
        """Write down from now on what is taken, in a file that outlives this process.

        Where it cannot be written, what others know of this shard has to do.
        """
        issued, size = self._buffer.ids_issued, len(self._buffer)
        with contextlib.suppress(OSError):
            self._ledger = Ledger(path, self._generation, issued, size)

    def leave(self) -> None:
        """Leave nothing behind."""
        if self._ledger is not None:
            self._ledger.remove()

    _ledger: Ledger | None = None

    def extend(
        self, columns: Mapping[str, Any], errors: Floats | None, ticket: int = NO_TICKET
    ) -> Reply:
        """Add rows; NaN among their errors stands for none. The value is their ids.

        ``ticket`` is the name of this block in the ledger.
        """
        first = self._buffer.ids_issued
        try:
            ids = self._extend(columns, errors)
        finally:
            if self._ledger is not None:
                self._ledger.note(ticket, first, self._buffer.ids_issued, len(self._buffer))
        return self._reply(self._numbering.global_ids(ids))

    def _extend(self, columns: Mapping[str, Any], errors: Floats | None) -> Ints:
        buffer = self._buffer
        if errors is None or not (none := np.isnan(errors)).any():
            return buffer.extend(columns, errors)
        if none.all():
            return buffer.extend(columns)
        # one call for each run of rows that have errors, or have none
        bounds = [0, *(np.flatnonzero(np.diff(none)) + 1), none.size]
        return np.concatenate(
            [
                buffer.extend(_part(columns, a, b), None if none[a] else errors[a:b])
                for a, b in itertools.pairwise(bounds)
            ]
        )

    def draw(self, counts: Sequence[int]) -> Reply:
        """Draw batches of these sizes; the value has a :class:`Drawn` or None for each.

        None stands for what cannot be drawn: there is no row of positive probability, or, without
        replacement, there are too few.
        """
        buffer, distinct = self._buffer, getattr(self._buffer.sampler, "draw", "") in DISTINCT
        drawable = totals(buffer).drawable
        drawn: list[Drawn | None] = []
        for count in counts:
            if not count or not drawable or (distinct and count > drawable):
                drawn.append(None)
                continue
            columns: dict[str, Any] = dict(buffer.sample(count, beta=0.0).items())
            del columns["weights"]
            columns["ids"] = self._numbering.global_ids(columns["ids"])
            drawn.append(Drawn(columns))
        return self._reply(drawn)

    def get(self, ids: Ints) -> Reply:
        """Return named rows, or the first id whose row is gone."""
        numbers = self._numbering.numbers(ids)
        issued = self._buffer.ids_issued
        gone = (numbers < issued - len(self._buffer)) | (numbers >= issued)
        if gone.any():
            return self._reply(int(ids[gone][0]))
        columns: dict[str, Any] = dict(self._buffer.get(numbers, beta=0.0).items())
        del columns["weights"]
        return self._reply(Drawn(columns | {"ids": ids}))

    def priorities(self, ids: Ints) -> Reply:
        """Return priorities of rows, or the first id whose row is gone."""
        reply = self.get(ids)
        if isinstance(reply.value, int):
            return reply
        return self._reply(self._buffer.priorities(self._numbering.numbers(ids)))

    def unknown(self, ids: Ints) -> Reply:
        """Return the first id that was never given, or None."""
        numbers = self._numbering.numbers(ids)
        never = numbers >= self._buffer.ids_issued
        return self._reply(int(ids[never][0]) if never.any() else None)

    def update_priorities(self, ids: Ints, errors: Floats) -> Reply:
        """Set priorities from errors; the value is how many rows are still there.

        Ids that were never given are not known here for certain, and count as stale.
        """
        numbers = self._numbering.numbers(ids)
        known = (numbers >= 0) & (numbers < self._buffer.ids_issued)
        self._strange += int(ids.size - np.count_nonzero(known))
        if not known.all():
            numbers, errors = numbers[known], errors[known]
        return self._reply(self._buffer.update_priorities(numbers, errors))

    _strange = 0  # updates of rows that this buffer never had: lost ones

    def highest(self, k: int) -> Reply:
        """Return ids and priorities of the k rows of highest priority."""
        ids = self._buffer.highest(k)
        return self._reply((self._numbering.global_ids(ids), self._buffer.priorities(ids)))

    def set_alpha(self, alpha: float) -> Reply:
        """Change alpha."""
        self._buffer.alpha = alpha
        return self._reply(None)

    def clear(self) -> Reply:
        """Remove all rows."""
        if self._ledger is not None:  # first: rows that are removed are not lost
            issued = self._buffer.ids_issued
            self._ledger.note(NO_TICKET, issued, issued, 0)
        self._buffer.clear()
        return self._reply(None)

    def stats(self) -> Reply:
        """Return ``(stats, priorities)``: the buffer's numbers and quantiles of its priorities."""
        stats = self._buffer.stats()
        stats["stale_updates"] += self._strange
        sketch = np.sort(census(self._buffer).priorities)
        if sketch.size > SKETCH:
            sketch = np.quantile(sketch, np.linspace(0.0, 1.0, SKETCH))
        return self._reply((stats, sketch))

    def save(self, path: str) -> Reply:
        """Save the buffer to a folder; the value is the generation that did it."""
        segments = json.dumps(self._numbering.segments).encode()
        self._buffer.save(path, extra={NUMBERING: segments})
        return self._reply(self._generation)


DISTINCT = ("without_replacement",)


def _zeros(nested: Any) -> Any:
    if isinstance(nested, Mapping):
        return {name: _zeros(part) for name, part in nested.items()}
    if isinstance(nested, tuple):
        return tuple(_zeros(part) for part in nested)
    return np.zeros((WARM, *nested.shape), nested.dtype)


def _part(columns: Mapping[str, Any], first: int, stop: int) -> dict[str, Any]:
    """Return rows of columns, nested ones too."""
    return {name: part_of(column, first, stop) for name, column in columns.items()}


def part_of(column: Any, first: int, stop: int) -> Any:
    """Return rows of a column."""
    if isinstance(column, Mapping):
        return {name: part_of(part, first, stop) for name, part in column.items()}
    if isinstance(column, tuple):
        return tuple(part_of(part, first, stop) for part in column)
    return column[first:stop]
