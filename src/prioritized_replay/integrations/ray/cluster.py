"""Ray itself: started and stopped, the processes of a replay, calls to them. It knows no rows."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray import exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from prioritized_replay.fields import arguments
from prioritized_replay.integrations.ray.blueprint import Blueprint
from prioritized_replay.integrations.ray.calls import Gone
from prioritized_replay.integrations.ray.coordinator import Coordinator
from prioritized_replay.integrations.ray.ledger import Ledger, ledger_file, remove_ledgers
from prioritized_replay.integrations.ray.limiter import Limiter
from prioritized_replay.integrations.ray.shard import Shard

__all__ = ["Processes", "ray_runs", "require_sendable", "start_ray", "stop_ray"]

NAMESPACE = "prioritized-replay"
START_SECONDS = 300.0
"""For processes to start: the first on a machine compile their kernels."""
INLINE = 1 << 19  # bytes: a block or a batch of 1024 small rows travels inside its call
REACH_SECONDS = 5.0
LITTLE = 1 << 20
"""Bytes of memory that each process asks for: one that asks for nothing may come to any node."""
ATTEMPTS = 4
"""At starting Ray here: it gives up after 30 s, and a busy machine may take longer."""
END_SECONDS = 10.0

_lock = threading.Lock()
_users = 0
_ours = False
_process = os.getpid()
_names: set[str] = set()  # of this process's replays that are not closed


def start_ray(address: str | None = None, *, num_cpus: int | None = None) -> bool:
    """Make Ray ready, if it is not: start it on this machine, or join a cluster.

    Each call has to be followed by one of :func:`stop_ray` later.

    Parameters
    ----------
    address : str, optional
        Of a cluster, such as ``"10.0.0.1:6379"``, or ``"auto"`` for the one on this machine. By
        default that in the environment variable ``RAY_ADDRESS``; without it, Ray is started.
    num_cpus : int, optional
        Processors that Ray counts with, where it is started; by default those of the machine.

    Returns
    -------
    bool
        Whether this call started or joined it.

    Raises
    ------
    ConnectionError
        If no cluster answers there.
    RuntimeError
        If Ray cannot be started on this machine.
    """
    global _users, _ours
    with _lock:
        if ray.is_initialized():
            _users += 1
            return False
        address = address or os.environ.get("RAY_ADDRESS") or None
        # Ray prints advice about accelerators, and reports usage over the network, unless told.
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        if address in (None, "local"):
            # Larger values go through shared memory, which takes twice as long for these.
            os.environ.setdefault("RAY_max_direct_call_object_size", str(INLINE))
            options |= {"address": "local", "include_dashboard": False, "num_cpus": num_cpus}
        else:
            _require_reachable(str(address))
            options |= {"address": address}
        if address in (None, "local"):
            _start_here(options)
        else:
            _join(str(address), options)
        _users, _ours = 1, True
        return True


def ray_runs() -> bool:
    """Return whether calls can be made: Ray is initialised, and Python does not end."""
    return ray.is_initialized() and not sys.is_finalizing()


def _join(address: str, options: Mapping[str, Any]) -> None:
    try:
        ray.init(**options)
    except Exception as error:
        with contextlib.suppress(Exception):
            ray.shutdown()
        raise ConnectionError(
            f"address must be that of a running Ray cluster, got {address!r}: "
            f"{arguments.shown(str(error))}"
        ) from None


def _start_here(options: Mapping[str, Any]) -> None:
    """Start Ray on this machine; try again where it took too long."""
    for attempt in range(ATTEMPTS):
        before = _children()
        try:
            ray.init(**options)
        except Exception as error:
            with contextlib.suppress(Exception):
                ray.shutdown()
            _end_started(_children() - before)
            if attempt == ATTEMPTS - 1 or isinstance(error, TypeError | ValueError):
                raise RuntimeError(
                    f"Ray could not be started on this machine: {arguments.shown(str(error))}"
                ) from None
        else:
            return


def _children() -> set[int]:
    """Return the numbers of the processes that this one has started, where that can be read."""
    found: set[int] = set()
    with contextlib.suppress(OSError):
        for task in Path("/proc/self/task").iterdir():
            found.update(map(int, (task / "children").read_text().split()))
    return found


def _end_started(processes: set[int]) -> None:
    """End what a start of Ray that failed has left behind; Ray would do so when Python ends."""
    for process in processes:
        with contextlib.suppress(OSError):
            if "ray" in Path(f"/proc/{process}/cmdline").read_text():
                os.kill(process, signal.SIGKILL)


def stop_ray() -> None:
    """Undo one call of :func:`start_ray`; after the last one Ray ends, if we have started it."""
    global _users, _ours
    with _lock:
        _users = max(0, _users - 1)
        if _users == 0 and _ours:
            _ours = False
            ray.shutdown()


@atexit.register
def _stop_at_exit() -> None:
    global _users
    if _ours:
        _users = 1
        stop_ray()
    if os.getpid() == _process:  # and no fork of it
        for name in list(_names):
            _remove_ledgers(name)


def _remove_ledgers(name: str) -> None:
    if name in _names:
        remove_ledgers(name)
        _names.discard(name)


def _require_reachable(address: str) -> None:
    """Check that somebody listens at host:port: Ray itself would try for a minute."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "//" in address:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), REACH_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ConnectionError(
            f"address must be that of a running Ray cluster, got {address!r}: {error}"
        ) from None


def require_sendable(name: str, value: Any) -> None:
    """Check that a value can be sent to another process.

    Raises
    ------
    ValueError
        If it cannot.
    """
    try:
        dumps: Any = ray.cloudpickle.dumps
        dumps(value)
    except Exception as error:
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{name} must be something that can be sent to another process, got "
            f"{arguments.shown(value)}: {arguments.shown(text)}"
        ) from None


class _ReplayShard:
    """The process of a shard. Ray restarts it when it dies."""

    def __init__(self, number: int, blueprint: Blueprint, coordinator_name: str) -> None:
        # By name: an actor that was given a handle may not be restarted, Ray says.
        coordinator = ray.get_actor(coordinator_name, namespace=NAMESPACE)
        generation: int
        checkpoint: str | None
        continued: bool
        generation, checkpoint, continued = ray.get(coordinator.begin.remote(number))
        self._shard: Shard
        try:
            self._shard = Shard(number, blueprint, generation, checkpoint)
        except (OSError, ValueError):
            if continued:
                raise
            self._shard = Shard(number, blueprint, generation)  # better empty than not at all
        alpha = ray.get(coordinator.alpha.remote())
        if alpha is not None:
            self._shard.set_alpha(alpha)
        self._shard.warm()
        file = ledger_file(coordinator_name, number)
        ray.get(coordinator.began.remote(number, generation, self._shard.begun, Ledger.read(file)))
        self._shard.keep_ledger(file)  # which replaces the one that was read

    def call(self, method: str, *arguments: Any) -> Any:
        return getattr(self._shard, method)(*arguments)

    def process(self) -> tuple[str, int]:
        return ray.get_runtime_context().get_node_id(), os.getpid()

    def leave(self) -> tuple[str, int]:
        self._shard.leave()
        return self.process()


class _ReplayCoordinator(Coordinator):
    async def leave(self) -> tuple[str, int]:
        return await self.process()

    async def process(self) -> tuple[str, int]:
        return ray.get_runtime_context().get_node_id(), os.getpid()


class Processes:
    """Handles of the processes of one replay, which can be sent to other processes.

    Parameters
    ----------
    shards : sequence of actor handles
    coordinator : actor handle
    """

    def __init__(self, shards: Sequence[Any], coordinator: Any) -> None:
        self._shards, self._coordinator = list(shards), coordinator
        self._name = ""

    @classmethod
    def start(
        cls,
        blueprint: Blueprint,
        limiter: Limiter | None,
        resumed: Mapping[str, Any],
        ray_options: Mapping[str, Any],
    ) -> Processes:
        """Start the processes, and wait until they can work.

        Raises
        ------
        RuntimeError, MemoryError, OSError, ValueError
            If one cannot; all are gone then.
        """
        made = cls([], None)
        try:
            options = {
                "num_cpus": 0, "memory": LITTLE, "max_restarts": -1, "max_task_retries": 0,
                **ray_options,
            }  # fmt: skip
            name = made._name = f"replay-{uuid.uuid4().hex}"
            _names.add(name)
            # Here: the loss of another machine is a loss of shards, which can be repaired.
            here = NodeAffinitySchedulingStrategy(
                ray.get_runtime_context().get_node_id(), soft=False
            )
            made._coordinator = (
                ray.remote(_ReplayCoordinator)
                .options(
                    num_cpus=0,
                    memory=LITTLE,
                    max_concurrency=1000,
                    name=name,
                    namespace=NAMESPACE,
                    scheduling_strategy=here,
                )
                .remote(blueprint.shards, limiter, **resumed)
            )
            for number in range(blueprint.shards):
                actor = ray.remote(_ReplayShard).options(
                    **{"scheduling_strategy": "SPREAD"} | options
                )
                made._shards.append(actor.remote(number, blueprint, name))
            ray.get([shard.process.remote() for shard in made._shards], timeout=START_SECONDS)
            return made
        except exceptions.RayActorError as error:
            made.kill()
            cause = error.__cause__ or getattr(error, "cause", None)
            raise RuntimeError(f"a shard could not start: {_reason(error, cause)}") from None
        except exceptions.GetTimeoutError:
            made.kill()
            raise RuntimeError(
                f"{blueprint.shards} shards did not start within {START_SECONDS:g} s: does the "
                f"cluster have what ray_options asks for, {dict(ray_options)}?"
            ) from None
        except BaseException:
            made.kill()
            raise

    def __len__(self) -> int:
        return len(self._shards)

    def submit(self, shard: int, method: str, *arguments: Any) -> Any:
        """Call a method of a shard; return what :meth:`result` takes."""
        try:
            return self._shards[shard].call.remote(method, *arguments)
        except exceptions.RayActorError as error:
            raise Gone(str(error)) from None

    def coordinate(self, method: str, *arguments: Any) -> Any:
        """Call a method of the coordinator; return what :meth:`result` takes."""
        return getattr(self._coordinator, method).remote(*arguments)

    def wait(self, calls: Sequence[Any], seconds: float) -> set[Any]:
        """Return those of the calls that are done, all unless the time is over before."""
        ready, _ = ray.wait(
            list(calls), num_returns=len(calls), timeout=max(seconds, 0.0), fetch_local=False
        )
        return set(ready)

    def results(self, calls: Sequence[Any], seconds: float) -> list[Any]:
        """Return the results of several calls in one go.

        Raises
        ------
        Gone
            If one of them will have none.
        TimeoutError
            If that takes too long.
        """
        try:
            results: list[Any] = ray.get(list(calls), timeout=max(seconds, 0.0))
            return results
        except exceptions.GetTimeoutError:
            raise TimeoutError from None
        except exceptions.RayTaskError as error:
            cause = error.cause
            raise (cause if isinstance(cause, Exception) else RuntimeError(str(error))) from None
        except (exceptions.RayActorError, exceptions.ObjectLostError) as error:
            raise Gone(str(error)) from None

    def result(self, call: Any, seconds: float) -> Any:
        """Return the result of a call; see :meth:`results`."""
        return self.results([call], seconds)[0]

    def places(self, seconds: float) -> list[tuple[str, int]]:
        """Return node and process number of those that answer in time, the coordinator first."""
        calls = [actor.process.remote() for actor in [self._coordinator, *self._shards]]
        ready, _ = ray.wait(calls, num_returns=len(calls), timeout=max(seconds, 0.0))
        found = []
        for call in calls:
            with contextlib.suppress(exceptions.RayError):
                found.append(ray.get(call) if call in ready else ("", 0))
        return found

    def kill(self) -> None:
        """End the processes, and wait until those on this machine are gone."""
        actors = [a for a in [*self._shards, self._coordinator] if a is not None]
        if actors and ray.is_initialized():
            self._end(actors)
        _remove_ledgers(self._name)  # of shards that could not do so any more

    def _end(self, actors: Sequence[Any]) -> None:
        places = []
        with contextlib.suppress(Exception):
            calls = [actor.leave.remote() for actor in actors]
            ready, _ = ray.wait(calls, num_returns=len(calls), timeout=2.0)
            for call in ready:
                with contextlib.suppress(Exception):
                    places.append(ray.get(call))
        for actor in actors:
            with contextlib.suppress(Exception):
                ray.kill(actor, no_restart=True)
        with contextlib.suppress(Exception):
            here = ray.get_runtime_context().get_node_id()
            deadline = time.monotonic() + END_SECONDS
            for node, process in places:
                while node == here and _alive(process) and time.monotonic() < deadline:
                    time.sleep(0.02)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except OSError:
        return False
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return True


def _reason(error: BaseException, cause: Any) -> str:
    """Return the line of Ray's message that says what happened."""
    lines = [line.strip() for line in str(cause or error).splitlines() if line.strip()]
    return arguments.shown(lines[-1] if lines else type(error).__name__)
