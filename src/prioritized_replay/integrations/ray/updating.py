"""Priorities on their way to shards, waited for or sent in blocks. It knows no rows, only ids."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prioritized_replay import PrioritizedIndex
from prioritized_replay.integrations.ray.calls import Calls
from prioritized_replay.integrations.ray.numbering import shards_of

__all__ = ["Updating"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CALLS = 64
"""Calls with priorities that may be on their way before a further one waits."""
IN_BLOCKS = 8192
"""Priorities that are kept together before they are sent, where nobody waits for them."""
LARGE = 1e15
"""Errors beyond this may give priorities that cannot be used."""


class Updating:
    """Sends priorities to the shards of their rows.

    Parameters
    ----------
    calls : Calls
    sampler : specification
        Of every shard.
    capacity : int
        Of a shard. Both decide which priorities it can have.
    """

    def __init__(self, calls: Calls, sampler: Any, capacity: int) -> None:
        self._calls = calls
        self._sampler, self._capacity = sampler, capacity
        self._flying: deque[dict[int, Any]] = deque()
        self._kept: list[tuple[Ints, Floats]] = []

    @property
    def waiting(self) -> int:
        """Priorities that are kept and not sent."""
        return sum(len(ids) for ids, _ in self._kept)

    def check(self, ids: Ints, errors: Floats) -> None:
        """Check that errors give priorities that every shard can have.

        Raises
        ------
        ValueError
            If they do not, naming the first.
        """
        if not errors.size:
            return
        wrong = np.flatnonzero(~np.isfinite(errors))
        if wrong.size:
            place = int(wrong[0])
            raise ValueError(
                f"td_errors must be finite, got {errors[place]} for id {ids[place]} at position "
                f"{place}"
            )
        largest = float(np.abs(errors).max())
        if largest > LARGE:  # rare, so an index is made for it; a shard would refuse it the same
            judge = PrioritizedIndex(self._capacity, self._sampler)
            judge.append(1)
            judge.update_priorities([0], [largest])

    def update(self, ids: Ints, errors: Floats, deadline: float) -> int:
        """Set priorities, and return how many rows had them set.

        Raises
        ------
        ValueError
            If an id was never issued.
        TimeoutError
            If a shard does not answer in time.
        """
        self._require_issued(ids, deadline)
        outcome = self._calls.answers(self._sent(ids, errors), deadline)
        if outcome.late:
            raise TimeoutError(
                f"shard {next(iter(outcome.late))} has not answered for {self._calls.timeout:g} s: "
                "it has the priorities, and they will be applied"
            )
        return sum(outcome.values.values())

    def keep(self, ids: Ints, errors: Floats) -> None:
        """Keep priorities until :meth:`push`, or until they make a block."""
        self._kept.append((ids.copy(), errors.copy()))
        if self.waiting >= IN_BLOCKS:
            self.push()

    def push(self) -> None:
        """Send what is kept, in one block to each shard."""
        if not self._kept:
            return
        ids = np.concatenate([ids for ids, _ in self._kept])
        errors = np.concatenate([errors for _, errors in self._kept])
        self._kept.clear()
        self._flying.append(self._sent(ids, errors))
        self.land(self._calls.deadline(), CALLS)

    def land(self, deadline: float, keep: int = 0) -> None:
        """Take note of blocks that have arrived; wait until at most so many have not."""
        while self._flying:
            calls = self._flying[0]
            ready = self._calls.carrier.wait(list(calls.values()), 0.0) if calls else set()
            if len(ready) < len(calls) and len(self._flying) <= keep:
                return
            self._flying.popleft()
            self._calls.answers(calls, deadline)

    def _sent(self, ids: Ints, errors: Floats) -> dict[int, Any]:
        """Send priorities to their shards; what belongs to one that is away is lost with it."""
        present = self._calls.present()
        of = shards_of(ids, len(self._calls))
        calls = {}
        for shard in np.unique(of).tolist():
            if present[shard]:
                mine = of == shard
                calls[shard] = self._calls.ask(shard, "update_priorities", ids[mine], errors[mine])
        return {shard: call for shard, call in calls.items() if call is not None}

    def _require_issued(self, ids: Ints, deadline: float) -> None:
        """Check that no id is one that was never given; ask, where this is not known here."""
        if ids.min() < 0:
            raise ValueError(f"ids must be >= 0, got {ids.min()}")
        of = shards_of(ids, len(self._calls))
        given = np.array([report.next_id for report in self._calls.reports])
        if (ids < given[of]).all():
            return
        asked = {}
        present = self._calls.present()
        for shard in np.unique(of).tolist():
            if present[shard]:
                asked[shard] = self._calls.ask(shard, "unknown", ids[of == shard])
        for unknown in self._calls.answers(asked, deadline).values.values():
            if unknown is not None:
                raise ValueError(f"ids must have been issued, got {unknown}")
