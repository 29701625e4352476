"""How many rows may be drawn for each that was inserted. It knows two counts; others wait."""

from __future__ import annotations

import math
from typing import Any

from prioritized_replay.fields import arguments

__all__ = ["Limiter"]


class Limiter:
    """Keeps rows drawn at S for each row inserted.

    The *credit* is S times the rows inserted minus the rows drawn. A draw of B rows goes ahead
    where the credit is at least B, so it never falls below 0. Rows are inserted while it is at most
    the tolerance; without one, always.

    Parameters
    ----------
    samples_per_insert : float
        S > 0.
    tolerance : float, optional
        How many rows the draws may stay behind before inserts wait. It has to be at least a batch:
        or both sides could wait for each other.

    Raises
    ------
    ValueError
        If a number is outside its range.

    Examples
    --------
    >>> limiter = Limiter(samples_per_insert=2.0, tolerance=8)
    >>> limiter.insert(3), limiter.draw(4), limiter.draw(4), limiter.credit
    (True, True, False, 2.0)
    >>> limiter.insert(5), limiter.insert(1), limiter.credit  # it waits for draws
    (True, False, 12.0)
    """

    def __init__(self, samples_per_insert: float, tolerance: float | None = None) -> None:
        self.samples_per_insert = arguments.positive("samples_per_insert", samples_per_insert)
        self.tolerance = math.inf
        if tolerance is not None:
            self.tolerance = arguments.number("tolerance", tolerance)
        self.inserted = 0
        self.drawn = 0

    @property
    def credit(self) -> float:
        """How many rows may be drawn now."""
        return self.samples_per_insert * self.inserted - self.drawn

    def impossible(self, batch_size: int) -> str | None:
        """Return why so many rows can never be drawn at once, if they cannot."""
        if batch_size <= self.tolerance:
            return None
        return (
            f"tolerance must be >= the rows of one draw, {batch_size}, got {self.tolerance:g}: "
            "inserts would wait for the draw, and the draw for inserts"
        )

    def draw(self, rows: int) -> bool:
        """Count a draw, if it may go ahead."""
        if self.credit < rows:
            return False
        self.drawn += rows
        return True

    def insert(self, rows: int) -> bool:
        """Count an insert, if it may go ahead."""
        if self.credit > self.tolerance:
            return False
        self.inserted += rows
        return True

    def take_back(self, drawn: int = 0, inserted: int = 0) -> None:
        """Uncount what did not come about."""
        self.drawn -= drawn
        self.inserted -= inserted

    def why_not_draw(self, rows: int) -> str:
        """Return what a draw waits for."""
        missing = math.ceil((rows - self.credit) / self.samples_per_insert)
        return (
            f"a draw of {rows} rows waits for {missing} more to be inserted: with "
            f"samples_per_insert={self.samples_per_insert:g}, {self.inserted} inserted rows allow "
            f"{math.floor(self.samples_per_insert * self.inserted)} draws, and {self.drawn} are "
            "made"
        )

    def why_not_insert(self, rows: int) -> str:
        """Return what an insert waits for."""
        missing = math.ceil(self.credit - self.tolerance)
        return (
            f"an insert of {rows} rows waits for {missing} to be drawn: with samples_per_insert="
            f"{self.samples_per_insert:g} and tolerance={self.tolerance:g}, {self.inserted} "
            f"inserted rows need "
            f"{math.ceil(self.samples_per_insert * self.inserted - self.tolerance)} draws, and "
            f"{self.drawn} are made"
        )

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"inserted": self.inserted, "drawn": self.drawn}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what :meth:`state` returned."""
        self.inserted = arguments.integer("inserted", state["inserted"], 0)
        self.drawn = arguments.integer("drawn", state["drawn"], 0)
