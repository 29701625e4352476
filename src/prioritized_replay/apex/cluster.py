"""Ray itself: starts it on this machine, or joins a cluster, and leaves it again.

Knows Ray's settings; knows nothing of replay and learning.
"""

import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from importlib.util import find_spec

from prioritized_replay.extras import install_command

_OBJECT_STORE = 512 << 20  # bytes; parameters and batches on their way are far smaller
_SECONDS = 5.0  # for a cluster to answer


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
    processes : int
        How many processes will be asked for.
    address : str, optional
        HOST:PORT of a cluster's head, or "auto" for one that runs on this machine. By default Ray
        is started here, for this training only.

    Attributes
    ----------
    is_ours : bool
        Whether it was started for this training, and ends with it.

    Raises
    ------
    ImportError
        Ray is not installed.
    ValueError
        No cluster answers at the address, or it has fewer CPUs than processes are asked for.
    RuntimeError
        This process has joined Ray already.
    """

    def __init__(self, processes: int, address: str | None = None) -> None:
        check_installed()
        import ray

        if ray.is_initialized():
            raise RuntimeError("this process uses Ray already: call ray.shutdown() first")
        self._open = False
        self.is_ours = address is None
        if address is None:
            self._start(processes)
        else:
            self._join(processes, address)
        self._open = True

    def _start(self, processes: int) -> None:
        import ray

        # It would ask the network which cloud this is, and report to its makers.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        with _handlers_kept():
            ray.init(
                address="local",  # whatever RAY_ADDRESS says
                num_cpus=processes,  # a number of places: the machine's cores share the work
                num_gpus=0,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                object_store_memory=_OBJECT_STORE,
            )

    def _join(self, processes: int, address: str) -> None:
        import ray

        if address != "auto":
            _check_answers(address)
        try:
            with _handlers_kept():
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ValueError(_absent(address, error)) from error
        places = int(ray.cluster_resources().get("CPU", 0))
        if places < processes:
            ray.shutdown()
            raise ValueError(
                f"ray_address must be a cluster with at least {processes} CPUs, one for each "
                f"actor and shard, got {places} at {address}"
            )

    def close(self) -> None:
        """End Ray where it was started for this training, or leave the cluster. Twice is fine."""
        if not self._open:
            return
        self._open = False
        import ray

        ray.shutdown()


def _check_answers(address: str) -> None:
    """Raise where nothing listens: Ray itself would try for a long time, and log it."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise ValueError(f"ray_address must be HOST:PORT or auto, got {address!r}")
    try:
        socket.create_connection((host, int(port)), timeout=_SECONDS).close()
    except OSError as error:
        raise ValueError(_absent(address, error)) from error


def _absent(address: str, error: Exception) -> str:
    said = " ".join(str(error).split())[:120]
    return (
        f"ray_address: no Ray cluster answers at {address} ({said}): start one with "
        "`ray start --head --port=6379`, or leave the address out"
    )


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
