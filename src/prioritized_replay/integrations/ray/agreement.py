"""What one process asks the coordinator of all: what was lost, and what the limit allows.

It knows no rows and no shards. Where a limit lets nothing pass in time, it says what is missing.
"""

from __future__ import annotations

import contextlib
import time
from typing import Any

import numpy as np

from prioritized_replay.integrations.ray.calls import Gone
from prioritized_replay.integrations.ray.shard import Report

__all__ = ["Agreement", "LimitReached"]

ANSWER = 0.5  # seconds of a deadline that are kept for the coordinator's answer


class LimitReached(TimeoutError):
    """Samples per insert let no more rows be inserted in time."""


class Agreement:
    """The coordinator, as one process sees it.

    Parameters
    ----------
    carrier : Processes
        What carries the calls.
    timeout : float
        Seconds that a call may take.
    limits : tuple of float, optional
        Samples per insert and the tolerance; None where nothing is limited.
    """

    def __init__(self, carrier: Any, timeout: float, limits: tuple[float, float] | None) -> None:
        self._carrier = carrier
        self.timeout = timeout
        self.limits = limits

    def ask(self, method: str, *values: Any) -> Any:
        """Call a method of the coordinator, and wait for its answer.

        Raises
        ------
        TimeoutError
            If it does not answer in time.
        RuntimeError
            If it has ended: nobody knows any more what was lost, and what the limit allows.
        """
        call = self._carrier.coordinate(method, *values)
        try:
            return self._carrier.result(call, self.timeout + 1.0)
        except Gone:
            raise RuntimeError(
                "the coordinator of the shards has died, so this replay can only be closed; it ran "
                "on the machine that made the replay. Load the last checkpoint, if there is one"
            ) from None
        except TimeoutError:
            raise TimeoutError(
                f"the coordinator of the shards has not answered for {self.timeout:g} s"
            ) from None

    def lost(self, shard: int, report: Report) -> None:
        """Say what was last known of a generation that is gone."""
        self.ask("lost", shard, report.generation, report.issued, report.totals.size)

    def elsewhere(self, ticket: int) -> None:
        """Say that others have a block which a shard did not answer."""
        self.ask("elsewhere", ticket)

    def most_inserted_at_once(self, capacity: int) -> int:
        """Return how many rows may be inserted before it is asked again whether more may."""
        if self.limits is None or not np.isfinite(self.limits[1]):
            return capacity
        return max(1, int(self.limits[1] / self.limits[0]))

    def allow_insert(self, rows: int, deadline: float) -> None:
        """Wait until so many rows may be inserted, and count them.

        Raises
        ------
        LimitReached
            If they may not be in time.
        """
        if self.limits is None:
            return
        reason = self.ask("insert", rows, max(0.0, deadline - time.monotonic() - ANSWER))
        if reason is not None:
            raise LimitReached(f"{reason}; none came within {self.timeout:g} s")

    def allow_insert_now(self, rows: int, deadline: float) -> None:
        """Count rows if they may be inserted at this moment.

        Raises
        ------
        LimitReached
            If they may not be.
        """
        self.allow_insert(rows, -np.inf)

    def count_insert(self, rows: int, deadline: float) -> None:
        """Count rows that are inserted whatever the limit says."""
        if self.limits is not None:
            self.ask("inserted_anyway", rows)

    def allow_draw(self, rows: int, most: int, wait: bool, deadline: float) -> int:
        """Return how many draws of so many rows may be made now, and count them.

        Parameters
        ----------
        rows : int
            Of one draw.
        most : int
            Draws that are wanted.
        wait : bool
            Whether to wait until there is one.
        deadline : float
            Until when.

        Raises
        ------
        ValueError
            If such a draw can never be allowed.
        TimeoutError
            If none was in time.
        """
        if self.limits is None:
            return most
        seconds = max(0.0, deadline - time.monotonic() - ANSWER) if wait else 0.0
        allowed, reason = self.ask("draw", rows, most, seconds)
        if wait and not allowed:
            raise TimeoutError(f"{reason}; none came within {self.timeout:g} s")
        return int(allowed)

    def take_back(self, rows: int) -> None:
        """Uncount rows that were not drawn after all."""
        if self.limits is not None:
            with contextlib.suppress(Exception):
                self.ask("take_back", rows)
