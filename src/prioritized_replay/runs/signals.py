"""What Ctrl-C and SIGTERM do to a run: heard, ignored, or put off. For the main thread."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType

Handler = Callable[[int, FrameType | None], None]


def heeding(stop: Handler) -> AbstractContextManager[None]:
    """Call ``stop`` on Ctrl-C and SIGTERM."""
    return _handled(stop)


def ignoring() -> AbstractContextManager[None]:
    """Ignore both, so that an impatient second Ctrl-C does not spoil the saving."""
    return _handled(signal.SIG_IGN)


@contextmanager
def put_off() -> Iterator[None]:
    """Put both off until the end of a short piece of work, which is then whole."""
    came: list[int] = []
    try:
        with _handled(lambda number, frame: came.append(number)):
            yield
    finally:
        if came:
            signal.raise_signal(came[0])


@contextmanager
def _handled(handler: Handler | signal.Handlers) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # only there signals arrive
        yield
        return
    before = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, handler)
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
