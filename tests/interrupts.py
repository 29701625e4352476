"""Calls that are ended between any two of their lines: an exception where a signal may strike.

A trace function raises at one event, a line or a call inside the package, and then goes away. What
the call leaves behind must be the state before it or after it, and must go on as that state does.
"""

import contextlib
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

import prioritized_replay as per

PACKAGE = str(Path(per.__file__).parent)


class Interrupt(BaseException):
    """What a signal handler might raise."""


def run_until(call: Callable[[], Any], at: int) -> int:
    """Run a call in which event number `at` raises; return how many events there were before.

    The result is `at` where the exception was raised, and less where the call was over sooner.
    """
    seen = 0

    def local(frame: Any, event: str, arg: Any) -> Any:
        nonlocal seen
        if event == "line":
            if seen == at:
                sys.settrace(None)
                raise Interrupt
            seen += 1
        return local

    def tracer(frame: Any, event: str, arg: Any) -> Any:
        nonlocal seen
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if seen == at:
            sys.settrace(None)
            raise Interrupt
        seen += 1
        return local

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        call()
    except Interrupt:
        return at
    finally:
        sys.settrace(before)
    return seen


def count_events(call: Callable[[], Any]) -> int:
    """Return at how many places a call can be ended."""
    return run_until(call, sys.maxsize)


def contents(replay: per.ReplayBuffer | per.PrioritizedIndex) -> dict[str, Any]:
    """Return what can be seen of a buffer or an index without changing it, to be compared."""
    stats = replay.stats()
    ids = drawable(replay)
    seen: dict[str, Any] = {"stats": tuple(stats.items()), "alpha": replay.alpha}
    if ids.size:
        drawn = replay.get(ids)
        columns = asdict(drawn) if isinstance(drawn, per.Draw) else dict(drawn)
        for name, column in columns.items():
            for place, leaf in enumerate(leaves(column)):
                seen[f"{name} {place}"] = leaf.dtype.str, leaf.shape, leaf.tobytes()
        seen["priorities"] = replay.priorities(ids).tobytes()
    uniforms = replay._uniforms
    seen["uniforms"] = (
        {k: v for k, v in uniforms.state().items()},
        [np.asarray(piece.read()).tobytes() for piece in uniforms.pieces()],
    )
    return seen


def drawable(replay: per.ReplayBuffer | per.PrioritizedIndex) -> np.ndarray:
    """Return the ids of all that can be drawn, the oldest first."""
    stats = replay.stats()
    issued = int(stats["ids_issued"])
    if getattr(replay, "sequence", None) is None:
        return np.arange(issued - int(stats["size"]), issued)
    found = []
    for first in range(issued - int(stats["steps"]), issued):
        with contextlib.suppress(KeyError):
            replay.priorities([first])
            found.append(first)
    return np.array(found, dtype=np.int64)


def leaves(value: Any) -> list[np.ndarray]:
    """Return the arrays of a nested value."""
    if isinstance(value, dict):
        return [leaf for part in value.values() for leaf in leaves(part)]
    if isinstance(value, tuple):
        return [leaf for part in value for leaf in leaves(part)]
    return [np.asarray(value)]
