"""What all processes of one replay have to agree on. It knows no buffer and no Ray.

Generations of shards, what was lost with them, the last checkpoint, and the limiter. Its methods
are coroutines of one loop, so one that waits for the limiter keeps no other waiting.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from prioritized_replay.integrations.ray.ledger import Left
from prioritized_replay.integrations.ray.limiter import Limiter
from prioritized_replay.integrations.ray.losses import Begun, Losses, Range, count

__all__ = ["Coordinator"]


class Coordinator:
    """One for each replay.

    Parameters
    ----------
    shards : int
        How many, K.
    limiter : Limiter, optional
        What keeps draws and inserts together.
    generations : list of int, optional
        How often each was restarted before a checkpoint that is loaded was made.
    checkpoint : str, optional
        The folder of that checkpoint, with a folder for each shard.
    protected : bool
        Whether shards that die are restarted from it.
    rows_lost : int
        Before that checkpoint.
    lost : list of list of Range, optional
        Those rows, as far as they are known, of each shard: the checkpoint may bring some back.
    alpha : float, optional
        To which the shards' was set before it, if it was.
    """

    def __init__(
        self,
        shards: int,
        limiter: Limiter | None = None,
        generations: list[int] | None = None,
        checkpoint: str | None = None,
        protected: bool = False,
        rows_lost: int = 0,
        lost: list[list[Range]] | None = None,
        alpha: float | None = None,
    ) -> None:
        self._limiter = limiter
        self._changed = asyncio.Condition()
        self._generations = generations or [0] * shards
        self._begun = [False] * shards
        self._first = checkpoint
        # Newest first: the last one anywhere, and the last one in the usual folder.
        self._latest: list[str] = [checkpoint] if checkpoint is not None and protected else []
        self._losses = [Losses(ranges) for ranges in lost or [[]] * shards]
        self._elsewhere: set[int] = set()
        self._lost_before = rows_lost - sum(map(count, self._lost()))
        self._rows_lost: int | None = None
        self._alpha = alpha

    async def begin(self, shard: int) -> tuple[int, str | None, bool]:
        """Return the generation of a shard that begins, the checkpoint, whether it is continued."""
        if not self._begun[shard]:  # or the first one died before it could
            folders, continued = [self._first] if self._first is not None else [], True
        else:
            self._generations[shard] += 1
            folders, continued = self._latest, False
        parts = [Path(folder) / f"shard-{shard}" for folder in folders]
        found = next((str(part) for part in parts if part.is_dir()), None)
        return self._generations[shard], found, continued

    async def began(
        self, shard: int, generation: int, begun: Begun, left: Left | None = None
    ) -> None:
        """Note with what a generation of a shard begins, and what it has found of one before."""
        self._begun[shard] = True
        self._losses[shard].begin(generation, begun, left)
        self._rows_lost = None

    async def lost(self, shard: int, generation: int, issued: int, size: int) -> None:
        """Note what somebody last knew of a generation that is gone: see :class:`.Losses`."""
        self._losses[shard].tell(generation, issued, size)
        self._rows_lost = None

    async def elsewhere(self, ticket: int) -> None:
        """Note that others have a block which a shard did not answer."""
        self._elsewhere.add(ticket)
        self._rows_lost = None

    async def rows_lost(self) -> int:
        """Return how many rows were lost so far."""
        if self._rows_lost is None:
            self._rows_lost = self._lost_before + sum(map(count, self._lost()))
        return self._rows_lost

    def _lost(self) -> list[list[Range]]:
        return [losses.lost(self._elsewhere) for losses in self._losses]

    async def saved(self, folder: str, generations: list[int], usual: bool = True) -> bool:
        """Note a complete checkpoint, from which shards are restarted from now on.

        Where it is not in the usual folder, the last one that is there is used when this is gone.
        It was made by these generations. Return whether they are still the last ones: one that has
        begun meanwhile lacks rows of the checkpoint, as it was restarted from the one before.
        """
        self._latest = [folder] if usual else [folder, *self._latest[-1:]]
        return generations == self._generations

    async def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {
            "generations": self._generations,
            "rows_lost": await self.rows_lost(),
            "lost": self._lost(),
            "alpha": self._alpha,
            "limiter": None if self._limiter is None else self._limiter.state(),
        }

    async def set_alpha(self, alpha: float) -> None:
        """Note to which alpha was set: shards that are restarted have it."""
        self._alpha = alpha

    async def alpha(self) -> float | None:
        """Return to which alpha was set, if it was."""
        return self._alpha

    async def draw(self, rows: int, most: int, seconds: float) -> tuple[int, str]:
        """Allow up to ``most`` draws of so many rows, one at least; wait for it if need be.

        Returns how many, and 0 with the reason where none was allowed in time.

        Raises
        ------
        ValueError
            If that can never be.
        """
        limiter = self._limiter
        assert limiter is not None
        if (never := limiter.impossible(rows)) is not None:
            raise ValueError(never)
        async with self._changed:
            try:
                async with asyncio.timeout(seconds):
                    await self._changed.wait_for(lambda: limiter.draw(rows))
            except TimeoutError:
                return 0, limiter.why_not_draw(rows)
            allowed = 1
            while allowed < most and limiter.draw(rows):
                allowed += 1
            self._changed.notify_all()
        return allowed, ""

    async def insert(self, rows: int, seconds: float) -> str | None:
        """Allow an insert; wait for it if need be. Return the reason if that took too long."""
        limiter = self._limiter
        assert limiter is not None
        async with self._changed:
            try:
                async with asyncio.timeout(seconds):
                    await self._changed.wait_for(lambda: limiter.insert(rows))
            except TimeoutError:
                return limiter.why_not_insert(rows)
            self._changed.notify_all()
        return None

    async def inserted_anyway(self, rows: int) -> None:
        """Count rows that did not wait for the limit, as they are to be in a checkpoint."""
        if self._limiter is not None:
            async with self._changed:
                self._limiter.inserted += rows
                self._changed.notify_all()

    async def take_back(self, drawn: int = 0, inserted: int = 0) -> None:
        """Uncount what did not come about."""
        if self._limiter is not None:
            async with self._changed:
                self._limiter.take_back(drawn, inserted)
                self._changed.notify_all()
