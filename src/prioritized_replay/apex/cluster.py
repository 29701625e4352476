"""Ray itself for one training: started here or joined, checked for room, left again.

Knows what a cluster must have; knows nothing of replay and learning.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from prioritized_replay.extras import install_command


def check_installed() -> None:
    """Check that Ray is there.

    Raises
    ------
    ImportError
        It is not; the message says how to install it.
    """
    if find_spec("ray") is None:
        raise ImportError(f"actors needs ray, not installed here: {install_command('ray')}")


class Cluster:
    """Ray for one training: of this machine alone, or a cluster that is there already.

    Parameters
    ----------
    actors : int
        How many processes will ask for a CPU of their own.
    address : str, optional
        HOST:PORT of a cluster's head, or "auto" for one that runs on this machine. By default
        that in the environment variable RAY_ADDRESS; without it, Ray is started here.

    Attributes
    ----------
    is_ours : bool
        Whether it was started for this training, and ends with it.

    Raises
    ------
    ImportError
        Ray is not installed.
    ValueError
        No cluster answers at the address, or it has too few CPUs.
    """

    def __init__(self, actors: int, address: str | None = None) -> None:
        check_installed()
        from prioritized_replay.integrations.ray import start_ray

        address = address or os.environ.get("RAY_ADDRESS") or None
        self.is_ours = address is None
        self._open = False
        # Ray would put its workers behind everything else, and the learner waits for them.
        os.environ.setdefault("RAY_worker_niceness", "0")
        try:
            with _handlers_kept():
                # Ray counts places: the cores of one machine share the work as it comes.
                start_ray(address, num_cpus=actors)
        except ConnectionError as error:
            said = str(error).removeprefix("address ")
            hint = (
                "" if "RAY_AUTH_MODE" in os.environ else ", and RAY_AUTH_MODE=token if it has one"
            )
            raise ValueError(
                f"ray_address {said}; a cluster begins with `ray start --head --port=6379`; it "
                f"must be of the same versions of Ray and Python{hint}"
            ) from error
        self._open = True
        if not self.is_ours:
            self._check_room(actors, str(address))

    def _check_room(self, actors: int, address: str) -> None:
        import ray

        resources: Any = ray.cluster_resources  # not typed there
        places = int(resources().get("CPU", 0))
        if places < actors:
            self.close()
            raise ValueError(
                f"actors must be <= {places}, the CPUs of the Ray cluster at {address}, "
                f"got {actors}"
            )

    def close(self) -> None:
        """End Ray where it was started for this training, or leave the cluster. Twice is fine."""
        if not self._open:
            return
        self._open = False
        from prioritized_replay.integrations.ray import stop_ray

        stop_ray()


@contextlib.contextmanager
def _handlers_kept() -> Iterator[None]:
    """Give SIGTERM back its handler: Ray puts its own there."""
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if main and before is not None:
            signal.signal(signal.SIGTERM, before)
