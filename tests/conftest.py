import os
import signal

import pytest
from hypothesis import settings

# A gate that a script starts in the background ignores Ctrl-C, and so would all that it starts:
# the tests of stopping need it to arrive.
signal.signal(signal.SIGINT, signal.default_int_handler)

# "dev" looks for new counter-examples on every run; "ci" always tries the same ones, more of them.
settings.register_profile("dev", max_examples=30, stateful_step_count=30, deadline=None)
settings.register_profile(
    "ci", max_examples=60, stateful_step_count=40, deadline=None, derandomize=True
)
settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev")
)

# Ray, once started in a process, leaves sockets and a loop behind, which go in any later test.
LEFT_BY_RAY = [
    f"ignore:Exception ignored in. {what}:pytest.PytestUnraisableExceptionWarning"
    for what in ("<socket.socket", "<function BaseEventLoop.__del__")
]


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("processes"):
            for left in LEFT_BY_RAY:
                item.add_marker(pytest.mark.filterwarnings(left))
