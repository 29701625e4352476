"""Batches drawn ahead by a thread of their own. It does not know how they are drawn."""

from __future__ import annotations

import atexit
import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple, Self
from weakref import WeakSet, finalize

from numpy.typing import NDArray

from prioritized_replay.batch import Batch
from prioritized_replay.fields import arguments
from prioritized_replay.sampling.uniforms import Moment
from prioritized_replay.schedules import Schedule, constant

__all__ = ["Ahead", "Prefetcher"]


class Ahead(NamedTuple):
    """A batch that is drawn but not delivered."""

    batch: Batch[NDArray[Any]]
    number: int
    """Which one it is of all that were drawn ahead from its buffer."""
    before: Moment
    """Where the buffer's generator was before it was drawn."""


class Work:
    """What the thread does and shares with the prefetcher, which it must not keep alive.

    Parameters
    ----------
    draw : callable
        ``draw(beta, waiting)`` appends a batch to ``waiting``.
    depth : int
        How many may wait.
    beta : callable
        Beta of the k-th batch.
    """

    def __init__(
        self, draw: Callable[[float, deque[Ahead]], None], depth: int, beta: Schedule
    ) -> None:
        self.waiting: deque[Ahead] = deque()
        self.depth = depth
        self.closed = False
        self.failure: BaseException | None = None
        self._draw = draw
        self._beta = beta
        # Bells that both sides ring, rather too often than once too few. Unlike conditions they may
        # be rung by a finalizer, which runs in the middle of anything.
        self.taken: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.drawn: queue.SimpleQueue[None] = queue.SimpleQueue()

    def run(self) -> None:
        """Draw whenever fewer than ``depth`` batches wait."""
        number = 0
        try:
            while not self.closed:
                if len(self.waiting) >= self.depth:
                    self.taken.get()
                    continue
                self._draw(arguments.number("beta", self._beta(number), 1.0), self.waiting)
                number += 1
                self.drawn.put(None)
        except BaseException as error:  # it belongs to whoever waits for a batch
            self.failure = error
            self.drawn.put(None)

    def stop(self) -> None:
        """Let the thread end after its current batch, and wake whoever waits for a batch."""
        self.closed = True
        self.taken.put(None)
        self.drawn.put(None)


class Prefetcher:
    """An endless iterator over batches that are drawn ahead.

    It is made by :meth:`ReplayBuffer.prefetch() <prioritized_replay.ReplayBuffer.prefetch>`.
    It ends when it is closed, when a ``with`` block around it is left, or when nobody refers to it
    any more. Any number of threads may take batches from it. A process forked from this one cannot:
    the thread is not there.

    Parameters
    ----------
    draw : callable
        ``draw(batch_size, beta, waiting)`` appends a batch to ``waiting``.
    batch_size, depth, beta
        As for :meth:`~prioritized_replay.ReplayBuffer.prefetch`.

    Raises
    ------
    ValueError
        If an argument is out of range.
    """

    def __init__(
        self,
        draw: Callable[[int, float, deque[Ahead]], None],
        batch_size: int,
        depth: int,
        beta: float | Schedule,
    ) -> None:
        batch_size = arguments.integer("batch_size", batch_size)
        depth = arguments.integer("depth", depth)
        schedule = beta if callable(beta) else constant(arguments.number("beta", beta, 1.0))

        def draw_one(beta: float, waiting: deque[Ahead]) -> None:
            draw(batch_size, beta, waiting)

        self._work = Work(draw_one, depth, schedule)
        self._abandoned = False
        self._thread = threading.Thread(target=self._work.run, name="prefetch", daemon=True)
        finalize(self, self._work.stop)

    def start(self) -> Self:
        """Begin to draw. If that is interrupted, the prefetcher is closed."""
        try:
            _running.add(self)
            self._thread.start()
            return self
        except BaseException:
            self.close()
            raise

    def undelivered(self) -> tuple[Ahead, ...]:
        """Return the batches that wait, the oldest first; none once it is closed."""
        return () if self._work.closed else tuple(self._work.waiting)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch[NDArray[Any]]:
        """Return the next batch; wait for it if need be.

        Raises
        ------
        StopIteration
            If the prefetcher is closed.
        RuntimeError
            In a process forked from the one that made it.
        Exception
            What drawing it raised, after the batches before it; the prefetcher is closed then.

        Notes
        -----
        If it is interrupted, no batch is lost: the next call returns the one that this call would
        have returned.
        """
        work = self._work
        taken: list[Ahead] = []
        waited = False
        try:
            while not work.closed:
                with contextlib.suppress(IndexError):
                    # One call moves it: no interrupt finds it in neither of the two.
                    next(map(taken.append, iter(work.waiting.popleft, None)))
                if taken:
                    if not waited:
                        with contextlib.suppress(queue.Empty):
                            work.drawn.get_nowait()
                    work.taken.put(None)
                    return taken[0].batch
                if (failure := work.failure) is not None:
                    self.close()
                    raise failure
                work.taken.put(None)
                work.drawn.get()
                waited = True
        except BaseException:
            work.waiting.extendleft(taken)
            work.drawn.put(None)  # somebody else may wait for what was not taken here
            raise
        if self._abandoned:
            raise RuntimeError(
                "a Prefetcher works in the process that made it: a forked one has to make its own"
            )
        work.drawn.put(None)  # somebody else may wait as well
        raise StopIteration

    def close(self) -> None:
        """End the thread, and drop the batches that wait. It may be called more than once.

        Examples
        --------
        >>> import prioritized_replay as per
        >>> fields = {"obs": per.Field(), "action": per.Field((), "int64"), "reward": per.Field()}
        >>> replay = per.ReplayBuffer(10, fields)
        >>> ids = replay.add(0.0, 1, 2.0, 3.0, False)
        >>> batches = replay.prefetch(4)
        >>> len(next(batches))
        4
        >>> batches.close()
        >>> next(batches, None) is None  # a closed one has come to its end
        True
        """
        work = self._work
        try:
            work.stop()
            if self._thread.is_alive() and self._thread is not threading.current_thread():
                self._thread.join()
            work.waiting.clear()
            work.failure = None
        except BaseException:
            work.stop()  # nobody waits for the thread then, but it will end
            raise

    def abandon(self) -> None:
        """Become unusable: the thread has stayed in another process."""
        self._abandoned = True
        self._work.closed = True
        self._work.waiting.clear()

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
        work = self._work
        state = "closed" if work.closed else f"{len(work.waiting)} of {work.depth} wait"
        return f"Prefetcher({state})"

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("a Prefetcher cannot be copied or pickled: make another")


_running: WeakSet[Prefetcher] = WeakSet()


@atexit.register
def _close_all() -> None:
    """Let no thread be inside compiled code when the interpreter goes."""
    for prefetcher in list(_running):
        prefetcher.close()
