"""A replay buffer over several processes: it joins the writer, the draws and the processes."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prioritized_replay.batch import Batch
from prioritized_replay.fields import arguments
from prioritized_replay.fields.schema import ADDED
from prioritized_replay.integrations.ray import manifest
from prioritized_replay.integrations.ray.agreement import Agreement, LimitReached
from prioritized_replay.integrations.ray.ahead import Batches
from prioritized_replay.integrations.ray.blueprint import (
    OF_STREAMS,
    Blueprint,
    draw_up,
    folder_named,
)
from prioritized_replay.integrations.ray.calls import Calls
from prioritized_replay.integrations.ray.cluster import (
    Processes,
    ray_runs,
    require_sendable,
    start_ray,
    stop_ray,
)
from prioritized_replay.integrations.ray.drawing import Drawing, Round
from prioritized_replay.integrations.ray.inserting import Allow, Inserting
from prioritized_replay.integrations.ray.limiter import Limiter
from prioritized_replay.integrations.ray.numbering import shards_of
from prioritized_replay.integrations.ray.statistics import LastDraw, merged
from prioritized_replay.integrations.ray.updating import Updating
from prioritized_replay.integrations.ray.writer import Rows, Writer
from prioritized_replay.replay import ReplayBuffer
from prioritized_replay.schedules import Schedule

__all__ = ["ShardedReplay"]

Array = NDArray[Any]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MOST_SHARDS = 1024
FLUSHING = 0.25
"""Share of a call's time in which it may send what waits here, before it does what it is for."""


class ShardedReplay:
    """A replay buffer whose rows lie in several processes, on one machine or many, by Ray.

    It has the verbs of :class:`.ReplayBuffer`. The object is a handle: it can be sent to any number
    of Ray's tasks and actors, which add and draw at the same time. Threads may share one.

    Parameters
    ----------
    capacity : int
        Number of transitions kept by all shards together.
    fields : mapping of str to Field
        As for :class:`.ReplayBuffer`.
    shards : int
        How many processes K keep the rows, >= 1 and at most the capacity.
    sampler : specification, optional
        Of every shard; ``Proportional()`` if None. Rank-based: ranks are those within a shard.
    samples_per_insert : float, optional
        How many rows are drawn for each that is inserted, by all processes together. Draws wait
        until enough were inserted.
    tolerance : float, optional
        How many rows draws may stay behind before inserts wait for them, too, at least the rows of
        one batch. By default inserts never wait.
    checkpoint_dir : path, optional
        Where :meth:`save` saves to by default. A shard that dies then restarts from the last
        checkpoint; without, it restarts empty. The folder must not hold a checkpoint: use
        :meth:`load` for one.
    timeout : float
        Seconds that a call may wait for others.
    block : int
        Rows that :meth:`add` gathers before it sends them, >= 1.
    address : str, optional
        Of a Ray cluster, where Ray is not initialised; see :func:`.start_ray`. By default it is
        started on this machine, and ends with the last :class:`ShardedReplay` of the process.
    ray_options : mapping, optional
        Options of the shards' actors, such as ``num_cpus``, ``memory`` or ``resources``. By
        default they need no processor, and are spread over the nodes.
    **options
        ``n_step``, ``gamma``, ``num_envs``, ``autoreset``, ``max_bytes``, ``directory`` and
        ``seed`` as for :class:`.ReplayBuffer`. ``num_envs`` counts the streams of each process
        that adds. ``max_bytes`` is that of all shards.

    Raises
    ------
    ValueError
        If an argument is outside its range, or cannot be sent to another process.
    FileExistsError
        If ``checkpoint_dir`` holds a checkpoint.
    ConnectionError
        If there is no cluster at ``address``.
    RuntimeError
        If the processes cannot be started.

    Notes
    -----
    The probability of a row is the chance q_k of its shard, from what the shards last reported
    (masses, for uniform and rank-based sampling rows), times its probability in the shard at the
    moment of the draw. That is the law really used, so ``weights`` correct it exactly, whatever
    was added and updated meanwhile.

    Examples
    --------
    >>> import prioritized_replay as per
    >>> from prioritized_replay.integrations.ray import ShardedReplay
    >>> fields = {"obs": per.Field((2,)), "action": per.Field((), "int64"), "reward": per.Field()}
    >>> with ShardedReplay(1000, fields, shards=2, seed=1) as replay:  # doctest: +SKIP
    ...     for step in range(100):
    ...         ids = replay.add([step, 0.0], 0, 1.0, [step + 1, 0.0], step % 10 == 9)
    ...     batch = replay.sample(32, beta=0.5)
    ...     applied = replay.update_priorities(batch.ids, batch.reward - 0.5)
    """

    _attached_in = 0
    """The process that was sent this handle."""

    def __init__(
        self,
        capacity: int,
        fields: Mapping[str, Any],
        *,
        shards: int = 4,
        sampler: Any = None,
        samples_per_insert: float | None = None,
        tolerance: float | None = None,
        checkpoint_dir: str | os.PathLike[str] | None = None,
        timeout: float = 30.0,
        block: int = 256,
        address: str | None = None,
        ray_options: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        capacity = arguments.integer("capacity", capacity)
        shards = arguments.integer("shards", shards)
        if shards > min(capacity, MOST_SHARDS):
            reason = f"the capacity, {capacity}" if shards > capacity else str(MOST_SHARDS)
            raise ValueError(f"shards must be <= {reason}, got {shards}")
        limiter = _limiter(samples_per_insert, tolerance)
        self._protected = checkpoint_dir is not None
        folder = None if checkpoint_dir is None else folder_named("checkpoint_dir", checkpoint_dir)
        if folder is not None and (folder / manifest.FILE).exists():
            raise FileExistsError(
                f"checkpoint_dir must not hold a checkpoint, got {str(folder)!r}: "
                "use ShardedReplay.load to go on with it"
            )
        writer = {name: options[name] for name in OF_STREAMS if options.get(name) is not None}
        blueprint = draw_up(capacity, fields, shards, sampler, options)
        timeout = arguments.positive("timeout", timeout)
        block = arguments.integer("block", block)
        made = Writer(fields, **writer, block=block)
        blueprint.template()
        for name, value in (
            ("fields", dict(fields)), ("sampler", sampler), ("ray_options", ray_options)
        ):  # fmt: skip
            require_sendable(name, value)
        self._begin(
            blueprint,
            limiter,
            folder,
            timeout,
            block,
            writer,
            made,
            {},
            address,
            {} if ray_options is None else ray_options,
        )

    @classmethod
    def for_spaces(
        cls, observation_space: Any, action_space: Any, capacity: int, **options: Any
    ) -> Self:
        """Build one for Gymnasium spaces; see :meth:`.ReplayBuffer.for_spaces`."""
        pattern = ReplayBuffer.for_spaces(observation_space, action_space, 1)
        return cls(capacity, _given_fields(pattern), **options)

    @classmethod
    def for_env(cls, env: Any, capacity: int, **options: Any) -> Self:
        """Build one for a Gymnasium environment; see :meth:`.ReplayBuffer.for_env`.

        ``num_envs`` is that of the environment: each process that adds has one like it.

        Examples
        --------
        >>> import gymnasium
        >>> from prioritized_replay.integrations.ray import ShardedReplay
        >>> env = gymnasium.make_vec("CartPole-v1", num_envs=2, vectorization_mode="sync")
        >>> replay = ShardedReplay.for_env(env, 1_000, shards=2)  # doctest: +SKIP
        """
        of_streams = {name: options[name] for name in OF_STREAMS if name in options}
        pattern = ReplayBuffer.for_env(env, 1, **of_streams)
        for name in ("num_envs", "autoreset"):
            options[name] = getattr(pattern, name)
        return cls(capacity, _given_fields(pattern), **options)

    def _begin(
        self, blueprint: Blueprint, limiter: Limiter | None, folder: Path | None, timeout: float,
        block: int, streams: Mapping[str, Any], writer: Writer, resumed: Mapping[str, Any],
        address: str | None, ray_options: Mapping[str, Any],
    ) -> None:  # fmt: skip
        """Start Ray, if need be, and the processes."""
        if not isinstance(ray_options, Mapping):
            raise ValueError(
                "ray_options must be a mapping of options of Ray's actors, got "
                f"{arguments.shown(ray_options)}"
            )
        start_ray(address)
        self._owner = os.getpid()
        self._closed = False
        try:
            processes = Processes.start(blueprint, limiter, resumed, ray_options)
        except BaseException:
            stop_ray()
            raise
        seed = np.random.SeedSequence((blueprint.entropy, blueprint.shards))
        about = {
            "blueprint": blueprint, "folder": folder, "timeout": timeout, "block": block,
            "streams": dict(streams), "protected": self._protected,
            "limits": None if limiter is None else (limiter.samples_per_insert, limiter.tolerance),
        }  # fmt: skip
        self._attach(about, processes, writer, np.random.default_rng(seed))

    def _attach(
        self, about: dict[str, Any], processes: Processes, writer: Writer | None,
        generator: np.random.Generator,
    ) -> None:  # fmt: skip
        """Make what belongs to this handle alone."""
        self._about = about
        self._processes = processes
        self._blueprint: Blueprint = about["blueprint"]
        self._protected = about["protected"]
        # None of these holds on to this object, so it goes with its last name.
        agreement = Agreement(processes, about["timeout"], about["limits"])
        self._agreement = agreement
        self._calls = Calls(processes, self._blueprint.shards, about["timeout"], agreement.lost)
        self._sampler = self._blueprint.options["sampler"]
        self._drawing = Drawing(self._calls, self._sampler, generator)
        self._inserting = Inserting(
            self._calls, self._blueprint.capacity, agreement.allow_insert, agreement.elsewhere
        )
        self._most_inserted_at_once = agreement.most_inserted_at_once(self.capacity)
        self._updating = Updating(self._calls, self._sampler, self._blueprint.capacity_of(0))
        self._writer = writer or self._new_writer()
        self._writing, self._reading = threading.RLock(), threading.RLock()
        self._last = LastDraw()
        self._extra: dict[str, bytes] = {}

    def _new_writer(self) -> Writer:
        about = self._about
        return Writer(self._blueprint.fields, **about["streams"], block=about["block"])

    def __reduce__(self) -> Any:
        self._require_open()
        return _attached, (self._about, self._processes)

    # --- what it is ------------------------------------------------------------------------

    @property
    def capacity(self) -> int:
        """Transitions that all shards keep together."""
        return self._blueprint.capacity

    @property
    def shards(self) -> int:
        """How many shards there are."""
        return self._blueprint.shards

    @property
    def fields(self) -> dict[str, Any]:
        """Every stored column, as of :attr:`.ReplayBuffer.fields`."""
        return self._blueprint.template().fields

    @property
    def sampler(self) -> Any:
        """The specification of every shard."""
        return self._sampler

    @property
    def n_step(self) -> int:
        """Steps of a whole window."""
        return self._writer.windows.n_step

    @property
    def gamma(self) -> float:
        """Discount of one step."""
        return self._writer.windows.gamma

    @property
    def num_envs(self) -> int | None:
        """Streams of each process that adds; None for a single one."""
        return self._writer.windows.num_envs

    @property
    def timeout(self) -> float:
        """Seconds that a call may wait for others."""
        return self._calls.timeout

    @property
    def processes(self) -> list[tuple[str, int]]:
        """Ray's node and the process number of each shard; ``("", 0)`` of one that is away."""
        self._require_open()
        return self._processes.places(min(5.0, self._calls.timeout))[1:]

    def __len__(self) -> int:
        """Return how many rows can be drawn from the shards that answer.

        Raises
        ------
        TimeoutError
            If none does in time.
        """
        deadline = self._flush()
        self._calls.require_some(deadline)
        outcome = self._calls.ask_all("report", deadline)
        if not outcome.values:
            raise self._calls.silence()
        return sum(self._calls.reports[k].totals.size for k in outcome.values)

    def __repr__(self) -> str:
        blueprint = self._blueprint
        rows = sum(report.totals.size for report in self._calls.reports)
        return (
            f"ShardedReplay({rows} of {blueprint.capacity} in {blueprint.shards} shards, "
            f"{self._sampler})"
        )

    # --- adding ----------------------------------------------------------------------------

    def add(
        self,
        obs: Any,
        action: Any,
        reward: Any,
        next_obs: Any,
        terminated: Any,
        truncated: Any = False,
        *,
        env: Any = None,
        info: Any = None,
        td_error: Any = None,
        **extra: Any,
    ) -> Ints:
        """Add one step of the streams of this process; see :meth:`.ReplayBuffer.add`.

        Rows wait until there are ``block`` of them, and are sent together then. :meth:`sample`,
        ``len`` and other calls of this handle send what waits before they begin. So does a handle
        in a task or an actor of Ray when it goes out of use.

        Returns
        -------
        int64[...]
            Ids of the rows that this call sent; mostly none.

        Raises
        ------
        ValueError
            As :meth:`.ReplayBuffer.add`; nothing changes then.
        TimeoutError
            If no shard answers, or ``samples_per_insert`` lets nothing be inserted, in time. The
            step is added all the same: its rows go with a later call. Do not give it again.
        MemoryError
            If a shard would need more than its part of ``max_bytes``. The rows that it was sent,
            up to ``block``, are not stored.
        """
        self._require_open()
        with self._writing:
            self._writer.add(
                obs, action, reward, next_obs, terminated, truncated, env, info, td_error, extra
            )
            return (
                self._send_waiting(self._calls.deadline())
                if self._writer.full
                else np.zeros(0, np.int64)
            )

    def add_episode(
        self,
        obs: Any,
        action: Any,
        reward: Any,
        terminated: Any,
        truncated: Any = False,
        *,
        next_obs: Any = None,
        env: Any = None,
        **extra: Any,
    ) -> Ints:
        """Add the steps of one episode; see :meth:`.ReplayBuffer.add_episode`.

        Returns
        -------
        int64[...]
            Ids of the rows that this call sent.

        Raises
        ------
        ValueError, TimeoutError, MemoryError
            As :meth:`add`.
        """
        self._require_open()
        with self._writing:
            sent = [np.zeros(0, np.int64)]
            failure: TimeoutError | None = None
            for part in self._writer.parts_of_episode(
                obs, action, reward, terminated, truncated, next_obs, env, extra
            ):
                self._writer.add_part(part)
                if self._writer.full and failure is None:
                    try:
                        sent.append(self._send_waiting(self._calls.deadline()))
                    except TimeoutError as error:  # the episode is added, and to its end
                        failure = error
                elif self._writer.full and (rows := self._writer.take()) is not None:
                    self._inserting.keep(rows)
            if failure is not None:
                raise failure
            return np.concatenate(sent)

    def end_episode(self, env: Any = None) -> Ints:
        """Close the open windows of this process; see :meth:`.ReplayBuffer.end_episode`.

        Returns
        -------
        int64[...]
            Ids of all rows that waited in this process: they are sent.

        Raises
        ------
        TimeoutError, MemoryError
            As :meth:`add`.
        """
        self._require_open()
        with self._writing:
            self._writer.end_episode(env)
            return self._send_waiting(self._calls.deadline())

    def extend(
        self, transitions: Mapping[str, Any], td_errors: Any = None, *, wait: bool = True
    ) -> Ints:
        """Add many complete, unrelated transitions; see :meth:`.ReplayBuffer.extend`.

        Parameters
        ----------
        transitions, td_errors
            As there.
        wait : bool
            Whether to wait until the rows have arrived. If not, this returns no ids. Rows of
            several calls are sent together: when there are many, or with the next call of this
            handle after a tenth of a second. Call :meth:`flush` after the last one.

        Returns
        -------
        int64[B]
            Their ids: -1 for rows whose shard has not answered in time. They are on their way
            then, and will not be sent again.

        Raises
        ------
        ValueError
            As there; nothing changes then.
        TimeoutError
            If no shard answers, or ``samples_per_insert`` lets nothing be inserted, in time. The
            message says how many were sent before, if any. The others are not kept, but for
            ``wait=False``: then all are, and go with a later call.
        MemoryError
            As :meth:`add`.
        """
        self._require_open()
        with self._writing:
            rows = self._writer.rows(transitions, td_errors)
            return self._insert(rows, wait)

    def flush(self) -> Ints:
        """Send the rows that wait in this process, and what else it has not waited for.

        Returns
        -------
        int64[...]
            Ids of the rows that waited.

        Raises
        ------
        TimeoutError
            If a shard does not answer, or ``samples_per_insert`` lets nothing be inserted, in time.
        """
        self._require_open()
        return self._flush_all()

    def _flush_all(self, allow: Allow | None = None) -> Ints:
        deadline = self._calls.deadline()
        with self._writing:
            ids = self._send_waiting(deadline, allow)
            self._inserting.land(deadline)
        with self._reading:
            self._updating.push()
            self._updating.land(deadline)
        return ids

    def _send_waiting(self, deadline: float, allow: Allow | None = None) -> Ints:
        rows, most = self._writer.take(), self._most_inserted_at_once
        if rows is None:
            self._inserting.push(deadline, most, allow)
            return np.zeros(0, np.int64)
        return self._inserting.insert(rows, True, deadline, most, keep=True, allow=allow)

    def _insert(self, rows: Rows, wait: bool) -> Ints:
        if not len(rows):
            return np.zeros(0, np.int64)
        return self._inserting.insert(
            rows, wait, self._calls.deadline(), self._most_inserted_at_once
        )

    def _flush(self) -> float:
        """Send what waits here and may be inserted now, unless another thread is about to.

        A draw must not wait for an insert that waits for draws, nor use up its time where a shard
        takes no rows: they stay on their way. Returns when the call that begins with this has to be
        over.
        """
        self._require_open()
        deadline = self._calls.deadline()
        if self._writing.acquire(blocking=False):
            try:
                with contextlib.suppress(LimitReached, TimeoutError):
                    soon = deadline - (1.0 - FLUSHING) * self._calls.timeout
                    self._send_waiting(soon, self._agreement.allow_insert_now)
            finally:
                self._writing.release()
        with self._reading:
            self._updating.push()
        return deadline

    # --- drawing ---------------------------------------------------------------------------

    def sample(self, batch_size: int, beta: float = 1.0) -> Batch[Array]:
        """Draw a batch; see :meth:`.ReplayBuffer.sample`.

        Raises
        ------
        ValueError
            If no shard has a row of positive probability, or as there.
        TimeoutError
            If no shard answers, or ``samples_per_insert`` lets nothing be drawn, in time.

        Notes
        -----
        One call to each shard that has a part, at the same time. Columns that come from a single
        shard are read-only: they lie in Ray's shared memory.
        """
        batch_size = arguments.integer("batch_size", batch_size)
        beta = arguments.number("beta", beta, 1.0)
        deadline = self._flush()
        self._agreement.allow_draw(batch_size, 1, True, deadline)
        try:
            with self._reading:
                begun = self._drawing.begin(batch_size, 1, deadline)
                batch = self._drawing.finish(begun, [beta], deadline)[0]
                self._last.note(batch)
                return batch
        except BaseException:
            self._take_back(batch_size)
            raise

    def batches(self, batch_size: int, beta: float | Schedule = 1.0, ahead: int = 4) -> Batches:
        """Draw batches ahead.

        Several batches are drawn in one call to a shard, and calls are on their way while the
        learner works. Give errors back with ``update_priorities(ids, td_errors, wait=False)``:
        they go with the next draw.

        Parameters
        ----------
        batch_size : int
            B >= 1.
        beta : float or callable
            As in :meth:`sample`, or a schedule: ``beta(k)`` of the k-th batch from here.
        ahead : int
            How many batches may be drawn and not delivered, >= 1. The priorities of a batch are
            older by as many updates.

        Returns
        -------
        Batches
            An endless iterator. Close it, or use it in a ``with`` statement.
        """
        batch_size = arguments.integer("batch_size", batch_size)
        self._require_open()

        def begin(most: int, wait: bool) -> tuple[int, Round] | None:
            deadline = self._flush()
            allowed = self._agreement.allow_draw(batch_size, most, wait, deadline)
            if not allowed:
                return None
            try:
                with self._reading:
                    return allowed, self._drawing.begin(batch_size, allowed, deadline)
            except BaseException:
                self._take_back(batch_size * allowed)
                raise

        def finish(begun: Round, betas: list[float]) -> list[Batch[Array]]:
            try:
                with self._reading:
                    batches = self._drawing.finish(begun, betas, self._calls.deadline())
                    self._last.note(batches[-1])
                    return batches
            except BaseException:
                self._take_back(batch_size * len(betas))
                raise

        return Batches(begin, finish, lambda n: self._take_back(n * batch_size), ahead, beta)

    def _take_back(self, rows: int) -> None:
        if not self._closed:
            self._agreement.take_back(rows)

    def get(self, ids: ArrayLike, beta: float = 1.0) -> Batch[Array]:
        """Return named transitions, as :meth:`sample` would had it drawn these.

        Raises
        ------
        KeyError
            Naming an id that is gone, or was never issued.
        TimeoutError
            If a shard does not answer in time.
        """
        beta = arguments.number("beta", beta, 1.0)
        wanted = arguments.ids(ids)
        deadline = self._flush()
        if not wanted.size:  # nobody has to be asked
            return self._blueprint.template().get(wanted, beta=beta)
        parts, order = self._of_rows("get", wanted, deadline)
        with self._reading:
            batch = self._drawing.joined(list(parts.items()), beta)
        back = np.empty_like(order)
        back[order] = np.arange(order.size)
        return batch[back]

    def priorities(self, ids: ArrayLike) -> Floats:
        """Return priorities; see :meth:`.ReplayBuffer.priorities`.

        Raises
        ------
        KeyError, TimeoutError
            As :meth:`get`.
        """
        wanted = arguments.ids(ids)
        parts, order = self._of_rows("priorities", wanted, self._flush())
        result = np.empty(wanted.size)
        result[order] = np.concatenate([*parts.values(), np.zeros(0)])
        return result

    def _of_rows(
        self, method: str, ids: Ints, deadline: float
    ) -> tuple[dict[int, Any], Ints]:  # fmt: skip
        """Return what shards say of named rows, and where each of these was named."""
        of = shards_of(ids, self.shards)
        calls = {int(k): (method, ids[of == k]) for k in np.unique(of)}
        found = self._answers(calls, deadline)
        parts = {k: found[k] for k in calls}
        for part in parts.values():
            if isinstance(part, int):
                raise KeyError(f"ids must be of live transitions, got {part}, which is not there")
        order = [np.flatnonzero(of == k) for k in calls]
        return parts, np.concatenate([*order, np.zeros(0, np.int64)]).astype(np.int64)

    # --- priorities ------------------------------------------------------------------------

    def update_priorities(self, ids: Any, td_errors: Any, *, wait: bool = True) -> int:
        """Set priorities from new TD errors; see :meth:`.ReplayBuffer.update_priorities`.

        Parameters
        ----------
        ids : int64[B]
            Ids of a batch. Those of rows that are overwritten or lost are skipped.
        td_errors : float[B] or float[B, 1]
            Signed errors.
        wait : bool
            Whether to wait until the shards have them. If not, they are sent in blocks: before the
            next draw of this handle, or when there are many. A shard that dies meanwhile loses
            them with its rows.

        Returns
        -------
        int
            How many of the B were applied. Without waiting, that is not known: 0.

        Raises
        ------
        ValueError
            If an error is not finite, the lengths differ, or an id was never issued. Nothing
            changes then. Where nobody waits, ids that were never issued are skipped.
        TimeoutError
            If a shard does not answer in time.
        """
        self._require_open()
        wanted = arguments.ids(ids)
        errors = arguments.errors(td_errors, wanted.size)
        self._updating.check(wanted, errors)
        if not wanted.size:
            return 0
        if not wait:
            with self._reading:
                self._updating.keep(wanted, errors)
            return 0
        deadline = self._flush()
        with self._reading:
            return self._updating.update(wanted, errors, deadline)

    # --- all the rest ----------------------------------------------------------------------

    def highest(self, k: int) -> Ints:
        """Return the ids of the highest priorities; see :meth:`.ReplayBuffer.highest`.

        Of equal ones the newest come first, as far as rows of several shards have an order.

        Raises
        ------
        ValueError
            If k is no integer >= 0.
        TimeoutError
            If a shard does not answer in time.
        """
        k = arguments.integer("k", k, 0)
        found = list(self._of_all(self._flush(), "highest", k).values())
        ids = np.concatenate([of_shard for of_shard, _ in found])
        priorities = np.concatenate([of_shard for _, of_shard in found])
        return ids[np.lexsort((-ids, -priorities))[:k]]

    @property
    def alpha(self) -> float:
        """How much prioritization; may be set at any time, for all processes that draw."""
        self._require_open()
        changed = self._agreement.ask("state")["alpha"]
        return float(getattr(self._sampler, "alpha", 0.0) if changed is None else changed)

    @alpha.setter
    def alpha(self, alpha: float) -> None:
        self._require_open()
        alpha = arguments.number("alpha", alpha)
        before = self.alpha
        self._agreement.ask("set_alpha", alpha)  # first: a shard that is restarted asks for it
        try:
            self._of_all(self._calls.deadline(), "set_alpha", alpha)
        except ValueError:  # of a shard whose priorities are too large for it; others have taken it
            self._agreement.ask("set_alpha", before)
            self._of_all(self._calls.deadline(), "set_alpha", before)
            raise

    def _of_all(self, deadline: float, *asked: Any) -> dict[int, Any]:
        """Return what every shard says to a call that may be made twice."""
        return self._answers({k: asked for k in range(self.shards)}, deadline)

    def _answers(self, asks: Mapping[int, tuple[Any, ...]], deadline: float) -> dict[int, Any]:
        """Return what shards say to calls that may be made twice."""
        outcome = self._calls.insist(asks, deadline)
        if outcome.late:
            raise TimeoutError(f"shard {min(outcome.late)} has not answered for {self.timeout:g} s")
        return outcome.values

    def clear(self) -> None:
        """Remove all rows of all shards; ids continue where they were."""
        self._require_open()
        self._flush_all(self._agreement.count_insert)
        asks = {k: ("clear",) for k in range(self.shards)}
        outcome = self._calls.insist(asks, self._calls.deadline())
        if outcome.late:
            raise TimeoutError(
                f"shard {min(outcome.late)} has not answered for {self.timeout:g} s: it will "
                "remove its rows, as the others have"
            )

    def stats(self) -> dict[str, float]:
        """Return the state of all shards in plain numbers; see :meth:`.ReplayBuffer.stats`.

        Sizes and counts are sums. Quantiles of priorities are interpolated between those of the
        shards. What is said of the last batch is of the last one of this handle. Besides, there
        are ``shards``, and ``shards_present``, which have answered; ``rows_lost``, rows that were
        in shards that died, in no checkpoint from which they were restarted, and not sent to
        another shard since (they count until it has them); ``waiting``, rows
        of this process that are not sent yet; with ``samples_per_insert``, ``inserted`` and
        ``drawn``; and of each shard k ``shard_k_size`` and ``shard_k_mass``.

        Raises
        ------
        TimeoutError
            If no shard answers in time.
        """
        deadline = self._flush()
        outcome = self._calls.ask_all("stats", deadline)
        with contextlib.suppress(TimeoutError):  # one that is being restarted: what it has lost
            rest = [k for k in range(self.shards) if k not in outcome.values]
            outcome.values |= self._calls.insist({k: ("stats",) for k in rest}, deadline).values
        if not outcome.values:
            raise self._calls.silence()
        state = self._agreement.ask("state")
        own: dict[str, float] = {
            "shards": self.shards,
            "shards_present": len(outcome.values),
            "rows_lost": state["rows_lost"],
            "restarts": sum(state["generations"]),
            "waiting": self._waiting,
            **(state["limiter"] or {}),
        }
        for shard in range(self.shards):
            totals = self._calls.reports[shard].totals
            there = shard in outcome.values
            own[f"shard_{shard}_size"] = totals.size if there else 0
            own[f"shard_{shard}_mass"] = totals.mass if there else 0.0
        result = merged(list(outcome.values.values()), self._last)
        return result | {"open_windows": self._writer.open_windows} | own

    def save(
        self,
        path: str | os.PathLike[str] | None = None,
        extra: Mapping[str, bytes] | None = None,
        *,
        timeout: float | None = None,
    ) -> None:
        """Save all shards to a folder, so that :meth:`load` can restore them.

        The checkpoint is complete, or it does not exist: until then, the one before stays in force.
        Each shard is saved as of one moment; where other processes add meanwhile, these moments
        are not the same. On several machines the folder has to be one that all of them share. Rows
        that wait in this process are sent first, whatever ``samples_per_insert`` says. With
        ``checkpoint_dir``, all shards are saved again if one has died meanwhile. Let one process at
        a time save.

        Parameters
        ----------
        path : path, optional
            The folder; ``checkpoint_dir`` by default.
        extra : mapping of str to bytes, optional
            As for :meth:`.ReplayBuffer.save`.
        timeout : float, optional
            Seconds that it may take, where that is more than other calls may.

        Raises
        ------
        ValueError
            If no folder is given, or extra has something that is not allowed.
        TimeoutError
            If a shard does not answer in time.
        OSError
            If it cannot be written.
        """
        self._require_open()
        if path is None and self._about["folder"] is None:
            raise ValueError("path must be given where there is no checkpoint_dir, got None")
        folder = self._about["folder"] if path is None else folder_named("path", path)
        seconds = self._calls.timeout if timeout is None else arguments.positive("timeout", timeout)
        deadline = time.monotonic() + seconds
        folder.mkdir(parents=True, exist_ok=True)
        while not self._save_once(folder, extra, seconds, deadline):
            pass  # a shard has died meanwhile: the checkpoint has rows that are lost

    def _save_once(
        self, folder: Path, extra: Mapping[str, bytes] | None, seconds: float, deadline: float
    ) -> bool:
        """Save all shards once; return whether all that is saved is there as well."""
        name = manifest.next_set(folder)
        with self._writing, self._reading:
            self._flush_all(self._agreement.count_insert)
            self._blueprint.template().save(folder / name / "template", extra=extra)
            self._writer.windows.save(folder / name / "writer")
            asks = {k: ("save", str(folder / name / f"shard-{k}")) for k in range(self.shards)}
            outcome = self._calls.insist(asks, deadline)
            if outcome.late:
                raise TimeoutError(
                    f"shard {min(outcome.late)} has not saved its rows within {seconds:g} s: "
                    "the checkpoint before is still there. Give save a larger timeout"
                )
            for shard in range(self.shards):
                if not (folder / name / f"shard-{shard}").is_dir():
                    raise OSError(
                        f"path must be a folder that all machines share, got {str(folder)!r}, "
                        f"where shard {shard} has written nothing that is seen here"
                    )
            manifest.write_manifest(folder, name, self._described())
        if not self._protected:
            return True
        generations = [outcome.values[shard] for shard in range(self.shards)]
        usual = folder == self._about["folder"]
        return bool(self._agreement.ask("saved", str(folder / name), generations, usual))

    def _described(self) -> dict[str, Any]:
        """Return what a checkpoint says of the whole."""
        about, limits = self._about, self._agreement.limits
        return {
            "shards": self.shards,
            "capacity": self.capacity,
            "samples_per_insert": None if limits is None else limits[0],
            "tolerance": limits[1] if limits is not None and np.isfinite(limits[1]) else None,
            "block": about["block"],
            "timeout": self._calls.timeout,
            "num_envs": self.num_envs,
            "autoreset": about["streams"].get("autoreset"),
            "protected": self._protected,
            "coordinator": self._agreement.ask("state"),
            "generator": self._drawing.generator.bit_generator.state,
            "written": self._inserting.written.tolist(),
            "entropy": self._blueprint.entropy,
        }

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        timeout: float | None = None,
        address: str | None = None,
        ray_options: Mapping[str, Any] | None = None,
        directory: str | os.PathLike[str] | None = None,
        max_bytes: int | None = None,
    ) -> Self:
        """Return what was saved to a folder, in new processes.

        Shards, windows of the process that saved, limits and random numbers are as they were.

        Parameters
        ----------
        path : path
            The folder. Where there was a ``checkpoint_dir``, it is that from now on.
        timeout, address, ray_options, directory, max_bytes
            As for the class.

        Raises
        ------
        CheckpointError
            If there is no checkpoint, or it is damaged; a ValueError.
        ConnectionError, RuntimeError
            As the class.
        """
        folder = folder_named("path", path)
        plain = manifest.read_manifest(folder)
        parts = folder / plain["set"]
        manifest.require_shards(parts, plain["shards"])
        template = ReplayBuffer.load(parts / "template")
        windows = ReplayBuffer.load(parts / "writer")
        fields = _given_fields(template)
        streams: dict[str, Any] = {"n_step": template.n_step, "gamma": template.gamma}
        for name in ("num_envs", "autoreset"):
            if plain[name] is not None:
                streams[name] = plain[name]
        replay = cls.__new__(cls)
        replay._protected = bool(plain["protected"])
        options = {
            "n_step": template.n_step, "gamma": template.gamma, "max_bytes": max_bytes,
            "directory": directory,
        }  # fmt: skip
        state = plain["coordinator"]
        blueprint = draw_up(
            plain["capacity"], fields, plain["shards"], template.sampler, options, plain["entropy"]
        )
        limiter = _limiter(plain["samples_per_insert"], plain["tolerance"])
        if limiter is not None:
            limiter.restore(state["limiter"])
        resumed = {
            "generations": state["generations"],
            "checkpoint": str(parts),
            "protected": replay._protected,
            "rows_lost": state["rows_lost"],
            "lost": state.get("lost"),
            "alpha": state.get("alpha"),
        }
        seconds = plain["timeout"] if timeout is None else arguments.positive("timeout", timeout)
        writer = Writer(fields, **streams, block=plain["block"], windows=windows)
        replay._begin(
            blueprint, limiter, folder if replay._protected else None, seconds, plain["block"],
            streams, writer, resumed, address, {} if ray_options is None else ray_options,
        )  # fmt: skip
        try:
            replay._drawing.generator.bit_generator.state = plain["generator"]
            replay._inserting.written[:] = plain["written"]
            replay._extra = template.extra
            replay._calls.ask_all("report", replay._calls.deadline())
        except BaseException:
            replay.close()
            raise
        return replay

    @property
    def extra(self) -> dict[str, bytes]:
        """The named bytes in the checkpoint that this was loaded from; {} without."""
        return self._extra

    def close(self) -> None:
        """End the processes, in the process that made the replay; it may be called again.

        In others, rows that wait are sent, and the handle is closed.
        """
        if self._closed:
            return
        if self._owner != os.getpid():
            with contextlib.suppress(Exception):
                self._let_go()
            self._closed = True
            return
        self._closed = True
        self._processes.kill()
        self._writer = self._new_writer()  # the old one owns the folder that it was saved to
        stop_ray()

    def _let_go(self) -> None:
        """Send what waits, as no later call will."""
        try:
            self._flush_all()
        except LimitReached:
            self._flush_all(self._agreement.count_insert)

    def __del__(self) -> None:
        """Send what waits: a task of Ray drops its handle when it returns."""
        of_another = self._attached_in == os.getpid() and not self._closed
        if of_another and (self._waiting or self._updating.waiting) and ray_runs():
            with contextlib.suppress(Exception):
                self._agreement.ask("state")  # where the replay was closed, nobody is waited for
                self._let_go()

    @property
    def _waiting(self) -> int:
        """Rows of this process that are not known to have arrived."""
        return self._writer.waiting + self._inserting.on_the_way

    def __enter__(self) -> Self:
        self._require_open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    __iter__: None = None

    def _require_open(self) -> None:
        if self._closed:
            raise RuntimeError("a ShardedReplay that was closed cannot be used any more")


def _attached(about: dict[str, Any], processes: Processes) -> ShardedReplay:
    """Return a handle in another process, with random numbers of its own."""
    replay = ShardedReplay.__new__(ShardedReplay)
    replay._owner, replay._closed = -1, False
    replay._attach(about, processes, None, np.random.default_rng())
    replay._attached_in = os.getpid()
    return replay


def _given_fields(buffer: ReplayBuffer) -> dict[str, Any]:
    """Return the fields with which a buffer was made."""
    return {name: field for name, field in buffer.fields.items() if name not in ADDED}


def _limiter(samples_per_insert: float | None, tolerance: float | None) -> Limiter | None:
    if samples_per_insert is not None:
        return Limiter(samples_per_insert, tolerance)
    if tolerance is not None:
        raise ValueError(f"tolerance must be left out without samples_per_insert, got {tolerance}")
    return None
