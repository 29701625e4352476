"""Batches drawn ahead: several in one call, and further calls on their way. It draws none."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from numpy.typing import NDArray

from prioritized_replay.batch import Batch
from prioritized_replay.fields import arguments
from prioritized_replay.schedules import Schedule, constant

__all__ = ["Batches"]


class Batches:
    """An endless iterator over batches that are drawn ahead.

    It is made by :meth:`.ShardedReplay.batches`. It ends when it is closed, or when a ``with``
    block around it is left. One thread takes batches from it.

    Parameters
    ----------
    begin : callable
        ``begin(most, wait)`` lets up to ``most`` batches be drawn. It returns how many and what
        ``finish`` takes, or None where nothing may be drawn now and ``wait`` is false.
    finish : callable
        ``finish(round, betas)`` returns the batches.
    give_back : callable
        ``give_back(batches)`` is told how many were drawn and not delivered.
    ahead : int
        How many may be drawn and not delivered, >= 1.
    beta : float or callable
        As for :meth:`.ShardedReplay.batches`.
    """

    def __init__(
        self,
        begin: Callable[[int, bool], tuple[int, Any] | None],
        finish: Callable[[Any, list[float]], list[Batch[NDArray[Any]]]],
        give_back: Callable[[int], None],
        ahead: int,
        beta: float | Schedule,
    ) -> None:
        self._begin, self._finish, self._give_back = begin, finish, give_back
        self._ahead = arguments.integer("ahead", ahead)
        self._beta = beta if callable(beta) else constant(arguments.number("beta", beta, 1.0))
        self._each = max(1, self._ahead // 2)
        self._rounds: deque[tuple[int, Any]] = deque()
        self._ready: deque[Batch[NDArray[Any]]] = deque()
        self._number = 0
        self._closed = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch[NDArray[Any]]:
        """Return the next batch; wait for it if need be.

        Raises
        ------
        StopIteration
            If it is closed.
        Exception
            What :meth:`.ShardedReplay.sample` raises.
        """
        if self._closed:
            raise StopIteration
        if not self._ready:
            self._top_up()
            count, begun = self._rounds.popleft()
            numbers = range(self._number, self._number + count)
            betas = [arguments.number("beta", self._beta(number), 1.0) for number in numbers]
            self._ready.extend(self._finish(begun, betas))
            self._number += count
            self._top_up()
        return self._ready.popleft()

    def _top_up(self) -> None:
        """Let further batches be drawn while there is room for a call's worth of them."""
        while True:
            flying = sum(count for count, _ in self._rounds)
            room = self._ahead - flying - max(len(self._ready) - 1, 0)
            if room < self._each and self._rounds:
                return
            needed = not self._rounds and not self._ready
            begun = self._begin(min(self._each, max(room, 1)), needed)
            if begun is None:
                return
            self._rounds.append(begun)

    def close(self) -> None:
        """Drop the batches that were not delivered. It may be called more than once."""
        if not self._closed:
            self._closed = True
            left = len(self._ready) + sum(count for count, _ in self._rounds)
            self._ready.clear()
            self._rounds.clear()
            if left:
                self._give_back(left)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        flying = sum(count for count, _ in self._rounds)
        state = "closed" if self._closed else f"{len(self._ready)} wait, {flying} are being drawn"
        return f"Batches({state})"
