"""Calls that might never return."""

import threading
from concurrent.futures import Future

LONGEST = 60  # seconds


def ended(call):
    """Return what a call returns, or raise what it raises; a TimeoutError if it waits for ever."""
    future = Future()

    def run():
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future.result(LONGEST)
