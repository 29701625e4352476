"""What becomes of locks and threads when a process forks; it knows nothing of what they guard.

A forked process has a copy of everything, but of all threads only the one that forked. A lock that
another thread held would stay locked for ever, and what it guarded would stay half changed. So the
forking thread takes the locks itself, and the child then gets new ones.
"""

from __future__ import annotations

import contextlib
import os
import threading
from types import TracebackType
from typing import Protocol
from weakref import WeakValueDictionary

__all__ = ["Forkable", "Refusal", "watch"]

PATIENCE = 60.0  # seconds; nobody holds a lock for long, but a fork must not hang for it


class Refusal:
    """Stands in the place of a lock whose holder a child process cannot use, and says why not.

    Parameters
    ----------
    why : str
        What taking the lock raises, as a RuntimeError.
    """

    def __init__(self, why: str) -> None:
        self.why = why

    def __enter__(self) -> bool:
        raise RuntimeError(self.why)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Never called."""


class Forkable(Protocol):
    """Something that holds a lock while it changes."""

    _lock: threading.Lock | Refusal

    def _before_fork(self) -> None:
        """Prepare, in the parent; nobody else is changing it."""

    def _after_fork(self) -> None:
        """Become usable in the child, which has a new lock already."""


_watched: WeakValueDictionary[int, Forkable] = WeakValueDictionary()


class _Forking(threading.local):
    """What the forking thread looks after between the two ends of a fork. Others may fork too."""

    def __init__(self) -> None:
        self.things: list[tuple[Forkable, bool]] = []
        """Each thing, and whether its lock was taken."""


_forking = _Forking()


def watch(thing: Forkable) -> None:
    """Look after something for as long as it lives. It must be complete."""
    _watched[id(thing)] = thing


def _before() -> None:
    for reference in _watched.valuerefs():
        thing = reference()
        if thing is None or isinstance(thing._lock, Refusal):
            continue
        locked = thing._lock.acquire(timeout=PATIENCE)
        thing._before_fork()
        _forking.things.append((thing, locked))


def _in_parent() -> None:
    for thing, locked in _forking.things:
        if locked:
            assert not isinstance(thing._lock, Refusal)
            thing._lock.release()
    _forking.things.clear()


def _in_child() -> None:
    for thing, locked in _forking.things:
        if locked:
            thing._lock = threading.Lock()
            thing._after_fork()
        else:
            thing._lock = Refusal(
                f"this {type(thing).__name__} was in use by another thread when the process was "
                "forked, so the child has no complete copy of it"
            )
    _forking.things.clear()


with contextlib.suppress(AttributeError):  # Windows has no fork
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
