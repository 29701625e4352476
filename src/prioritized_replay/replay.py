"""The replay buffer: it gives transitions their ids and composes windows, rows and sampler."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Mapping
from operator import attrgetter
from typing import Any, Self, TypedDict, Unpack
from weakref import WeakSet

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prioritized_replay import forking
from prioritized_replay.batch import Batch
from prioritized_replay.batches.builder import BatchBuilder
from prioritized_replay.batches.prefetching import Ahead, Prefetcher
from prioritized_replay.checkpoint.files import CheckpointError
from prioritized_replay.checkpoint.loading import Reader
from prioritized_replay.checkpoint.manifest import Contents, Piece
from prioritized_replay.checkpoint.saving import Saver
from prioritized_replay.fields import arguments, field
from prioritized_replay.fields.field import FieldCaster
from prioritized_replay.fields.nested import Nested, describe_fields, described_fields
from prioritized_replay.fields.schema import ADDED, Schema
from prioritized_replay.sampling.sampler import Sampler
from prioritized_replay.sampling.specifications import (
    Proportional,
    Specification,
    Uniform,
    describe_sampler,
    described_sampler,
)
from prioritized_replay.sampling.uniforms import Seed, UniformStream
from prioritized_replay.schedules import Schedule
from prioritized_replay.storage.memory import Memory, OverLimit, memory_limit, reopened
from prioritized_replay.streams.autoreset import Autoreset, chosen_mode, named
from prioritized_replay.streams.environments import fields_of_spaces, known_of
from prioritized_replay.streams.n_step import ENDED, TERMINATED, Closed
from prioritized_replay.streams.streams import Streams
from prioritized_replay.streams.transitions import Transitions

__all__ = ["Batch", "ReplayBuffer"]

Array = NDArray[Any]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

STEP = ("obs", "action", "reward", "next_obs")  # what every call of `add` names
INT64 = np.dtype(np.int64)
NOT_DESCRIBED = (
    *(ValueError, TypeError, KeyError, AttributeError),
    *(RecursionError, OverflowError),
)
MOST_IDS = 2**62  # that a checkpoint may have given out: those to come are int64 too
LEAST_BYTES = 19  # of memory per transition that has a priority, with what finds it again
MOST_STEPS = 1 << 20
FEW = 16  # rows with priorities of their own that wait rather than enter at once


class Options(TypedDict, total=False):
    """Arguments by name that every way to build a buffer takes."""

    sampler: Specification | None
    n_step: int
    gamma: float
    num_envs: int | None
    autoreset: Autoreset | None
    directory: str | os.PathLike[str] | None
    max_bytes: int | None
    seed: Seed


class ReplayBuffer:
    """Prioritized experience replay: a ring of transitions and a law to draw them by.

    Parameters
    ----------
    capacity : int
        Number of transitions N kept, >= 1; the oldest give way.
    fields : mapping of str to Field
        Shape and dtype of ``obs``, ``action``, ``reward`` and of any further column. The column
        ``next_obs`` is like ``obs``, ``discount`` is float32, ``terminated`` Boolean; these are
        there without being named. A mapping or a tuple of fields in the place of a field stands
        for a nested value, as of a Dict or Tuple space. Observations of 1 KiB and more are kept
        once where steps share them, stacked frames one by one.
    sampler : Uniform, Proportional or RankBased, optional
        How to draw; ``Proportional()`` if None.
    n_step : int
        Steps n of a transition, >= 1: rewards are summed over up to n steps.
    gamma : float
        Discount of one step, in [0, 1].
    num_envs : int, optional
        Number of streams E, >= 1, of which :meth:`add` takes steps side by side, with a leading
        axis. By default there is one stream, without that axis.
    autoreset : {"next_step", "same_step", "disabled"}, optional
        What the environments do after the end of an episode, as in Gymnasium. It has to be given
        with ``num_envs``. A single environment is "disabled" by default, or "next_step".
    directory : path, optional
        Where to keep rows and frames, in files that are mapped into memory, instead of RAM.
    max_bytes : int, optional
        What :attr:`nbytes` may become at most.
    seed : int, SeedSequence, Generator or None
        Of the buffer's own generator; nothing reads a global one.

    Raises
    ------
    ValueError
        If an argument is outside its range, or a required field is missing.
    FileExistsError
        If ``directory`` holds another buffer, or its checkpoint, which is for :meth:`load`.

    Examples
    --------
    >>> import numpy as np
    >>> import prioritized_replay as per
    >>> fields = {"obs": per.Field((2,)), "action": per.Field((), "int64"), "reward": per.Field()}
    >>> replay = per.ReplayBuffer(1000, fields, sampler=per.RankBased(alpha=0.7), seed=1)
    >>> for step in range(100):
    ...     ids = replay.add(np.full(2, step), step % 4, 1.0, np.full(2, step + 1), step % 10 == 9)
    >>> batch = replay.sample(32, beta=0.5)
    >>> batch.obs.shape, batch.weights.max()
    ((32, 2), np.float32(1.0))
    >>> replay.update_priorities(batch.ids, batch.reward - 0.25 * batch.action)
    32
    """

    def __init__(
        self,
        capacity: int,
        fields: Mapping[str, Nested],
        *,
        sampler: Specification | None = None,
        n_step: int = 1,
        gamma: float = 0.99,
        num_envs: int | None = None,
        autoreset: Autoreset | None = None,
        directory: str | os.PathLike[str] | None = None,
        max_bytes: int | None = None,
        seed: Seed = None,
    ) -> None:
        # Never held while foreign code may run.
        self._lock: threading.Lock | forking.Refusal = threading.Lock()
        self._capacity = arguments.integer("capacity", capacity)
        self._n_step = arguments.integer("n_step", n_step)
        if num_envs is not None:
            num_envs = arguments.integer("num_envs", num_envs)
        mode = chosen_mode(autoreset, num_envs)
        self._columns = Schema(fields)
        self._structures = self._columns.structures
        specification = Proportional() if sampler is None else sampler
        if not isinstance(specification, Specification):
            got = arguments.shown(specification)
            raise ValueError(f"sampler must be Uniform, Proportional or RankBased, got {got}")
        reward_type = np.dtype(self._columns.leaves["reward"].dtype)
        if self._n_step > 1 and reward_type.kind != "f":
            raise ValueError(
                f"fields['reward'] must be floating where n_step > 1, got {reward_type}"
            )
        self._gamma = arguments.number("gamma", gamma, 1.0)
        self._uniforms = UniformStream(seed)
        self._sampler = Sampler(specification, self._capacity)
        self._memory = Memory(directory, max_bytes)
        self._memory.reserve(self._sampler.nbytes)
        given = {
            name: structure
            for name, structure in self._structures.items()
            if name not in ("discount", "terminated")
        }
        self._streams = Streams(num_envs, mode, given)
        try:
            self._transitions = Transitions(
                self._capacity, self._structures, self._n_step, self._gamma,
                self._streams.count, self._memory,
            )  # fmt: skip
        except BaseException:
            self._memory.discard()
            raise
        self._storage = self._transitions.storage
        self._blocks = BatchBuilder(
            self._storage, self._capacity, self._structures, self._transitions.shared, self._n_step
        )
        self._extra = self._columns.extra
        # Whether a step is that of a single stream and each of its values a single field,
        nested = any(not structure.plain for structure in self._structures.values())
        self._simple = num_envs is None and mode == "disabled" and not nested
        # and can besides be written as it comes.
        self._bare = self._simple and self._n_step == 1 and not self._transitions.shared
        self._accept = {
            name: FieldCaster(name, field).accept for name, field in self._columns.leaves.items()
        }
        if self._simple:
            self._accept_obs = self._accept["obs"]
            self._accept_action = self._accept["action"]
            self._accept_reward = self._accept["reward"]
            self._accept_next_obs = self._accept["next_obs"]
        # Of the steps that wait in windows, by where they are kept; NaN: the largest so far.
        self._step_priorities = np.full(self._streams.count * self._n_step, np.nan)
        self._priorities_wait = False
        self._issued = 0  # ids given so far: the next row's id
        self._saver = Saver()
        self._loaded_extra: dict[str, bytes] = {}
        self._stale_updates = 0
        self._last_ids = np.empty(0, INT64)  # of the last batch drawn
        self._weight_sums = np.zeros(4)  # of the last batch drawn, see `Blocks.new`
        self._prefetchers: WeakSet[Prefetcher] = WeakSet()
        self._batches_ahead = 0  # how many were drawn for prefetchers
        self._forks = 0  # how often the process was forked
        forking.watch(self)

    @classmethod
    def for_spaces(
        cls,
        observation_space: Any,
        action_space: Any,
        capacity: int,
        **options: Unpack[Options],
    ) -> Self:
        """Build a buffer whose fields fit two Gymnasium spaces; rewards are float32.

        Parameters
        ----------
        observation_space, action_space : gymnasium.Space
            Of one environment: Box, Discrete, MultiDiscrete, MultiBinary, and Dict and Tuple of
            these.
        capacity, **options
            As for the class.

        Raises
        ------
        ValueError
            If a space has no fixed shape and dtype, or as the class does.
        """
        return cls(capacity, fields_of_spaces(observation_space, action_space), **options)

    @classmethod
    def for_env(cls, env: Any, capacity: int, **options: Unpack[Options]) -> Self:
        """Build a buffer for a Gymnasium environment or vector environment.

        Fields, ``num_envs``, the autoreset mode and how frames are stacked are read from it,
        through wrappers; see :meth:`for_spaces`.

        Parameters
        ----------
        env : gymnasium.Env or gymnasium.vector.VectorEnv
            It is not stepped or reset.
        capacity, **options
            As for the class. ``autoreset`` has to be given where a vector environment does not
            say which mode it has.

        Raises
        ------
        ValueError
            If an option contradicts the environment, or as :meth:`for_spaces` does.
        """
        fields, known = known_of(env)
        for name, value in known.items():
            given = options.get(name)
            if given is None:
                options[name] = value  # type: ignore[literal-required]
            elif value is not None and (named(given) if name == "autoreset" else given) != value:
                got = arguments.shown(given)
                raise ValueError(f"{name} must be that of the environment, {value!r}, got {got}")
        return cls(capacity, fields, **options)

    @property
    def capacity(self) -> int:
        """Number of transitions that fit, N."""
        return self._capacity

    @property
    def fields(self) -> dict[str, Nested]:
        """Every stored column: the fields given and ``next_obs``, ``discount``, ``terminated``."""
        return {name: structure.nested for name, structure in self._structures.items()}

    @property
    def n_step(self) -> int:
        """Steps n of a whole window."""
        return self._n_step

    @property
    def gamma(self) -> float:
        """Discount of one step."""
        return self._gamma

    @property
    def num_envs(self) -> int | None:
        """Number of streams E whose steps are added side by side; None for a single stream."""
        return self._streams.num_envs

    @property
    def autoreset(self) -> Autoreset:
        """What the environments do after the end of an episode."""
        return self._streams.autoreset

    @property
    def sampler(self) -> Specification:
        """The specification in force, with the present alpha."""
        return self._sampler.specification

    @property
    def alpha(self) -> float:
        """How much prioritization; may be set at any time.

        O(N) for proportional sampling, whose masses are recomputed, O(1) for rank-based.
        """
        return self._sampler.alpha

    @alpha.setter
    def alpha(self, alpha: float) -> None:
        alpha = arguments.number("alpha", alpha)
        with self._lock:
            waiting = self._step_priorities[self._transitions.windows.rows()]
            self._sampler.set_alpha(alpha, float(np.fmax.reduce(waiting, initial=0.0)))

    @property
    def nbytes(self) -> int:
        """Bytes of memory reserved for rows, frames, priorities and their structures."""
        return self._memory.nbytes

    def __len__(self) -> int:
        """Return the number of transitions that can be sampled."""
        return self._sampler.size

    def __repr__(self) -> str:
        return f"ReplayBuffer({len(self)} of {self._capacity}, {self.sampler})"

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
        info: Mapping[str, Any] | None = None,
        td_error: Any = None,
        **extra: Any,
    ) -> Ints:
        """Add one step of the environment, or one of each of several.

        Parameters
        ----------
        obs, action, reward, next_obs
            The step, in the shapes of the fields. ``next_obs`` is what the step led to, also
            where the episode ends. With ``num_envs`` everything has a leading axis, E or K.
        terminated : bool
            The episode ended in a terminal state: nothing is bootstrapped.
        truncated : bool
            The episode was cut off: its last windows bootstrap from ``next_obs``.
        env : int64[K], optional
            The streams whose steps these are, all different; by default all E in order. A single
            integer: values without leading axis.
        info : mapping, optional
            What the vector environment returned with the step. It is needed where an episode ends
            and ``autoreset`` is ``"same_step"``: ``info["final_obs"]`` then has the observation
            that the step led to, Gymnasium's way or ALE's.
        td_error : float or float[K], optional
            Error of the window that starts here; without it the row enters at the largest
            priority.
        **extra
            The further fields. With n > 1 a row keeps those of its first step.

        Returns
        -------
        int64[...]
            Ids of the rows that became sampleable, stream by stream in the order of the call: for
            n > 1 none while the first window is open, up to n at the end of an episode. Reset
            steps are no transitions.

        Raises
        ------
        ValueError
            If a value does not fit its field, a field is missing or unknown, a final observation
            is missing, or ``env`` names a stream that is not there or twice. Nothing changes then.
        MemoryError, OSError
            If ``max_bytes`` would be passed, or there is no memory for new frames, or no room in
            ``directory``. Nothing changes then either.

        Notes
        -----
        O(row), and O(log N) per row once they are next drawn from.
        """
        if (extra or self._extra) and extra.keys() != set(self._extra):
            self._columns.require((*STEP, *extra))
            raise ValueError(
                "discount must be left to the buffer, which has it from gamma and terminated, "
                f"got {arguments.shown(extra['discount'])}"
            )
        if not self._simple or env is not None:
            given = {"obs": obs, "action": action, "reward": reward, "next_obs": next_obs, **extra}
            return self._add(env, given, terminated, truncated, info, td_error)
        is_terminated = field.flag("terminated", terminated)
        is_truncated = field.flag("truncated", truncated)
        values = [
            self._accept_obs(obs),
            self._accept_action(action),
            self._accept_reward(reward),
            0.0 if is_terminated else self._gamma,
            self._accept_next_obs(next_obs),
            is_terminated,
        ]
        if extra:
            values += [self._accept[name](extra[name]) for name in self._extra]
        error = None if td_error is None else _one_error(td_error)
        with self._lock:
            priority = None if error is None else self._sampler.priority_of(error)
            first = self._issued % self._capacity
            if self._bare:
                self._storage.write(first, values)
            else:
                if self._transitions.looking:
                    observations = {"obs": values[0][np.newaxis], "next_obs": values[4][np.newaxis]}
                    self._look_for_stacks(observations)
                mark = ENDED | TERMINATED if is_terminated else ENDED if is_truncated else 0
                closed = self._transitions.add_one(first, values, mark)
                if closed is not None:
                    if priority is not None:
                        self._step_priorities[closed.rows[0]] = priority
                        self._priorities_wait = True
                    return self._issue(closed.returns.size, self._waited(closed))
            if priority is None:
                self._sampler.append(1)
            else:
                self._sampler.append_each((priority,))
            return self._next_ids(1)

    def end_episode(self, env: Any = None) -> Ints:
        """Close the open windows in the middle of an episode; they bootstrap.

        For an interrupted collection or restarted environments: what is added next belongs to
        another episode.

        Parameters
        ----------
        env : int64[K] or int, optional
            The streams; by default all.

        Returns
        -------
        int64[...]
            Ids of the rows that became sampleable.

        Raises
        ------
        ValueError
            If ``env`` names a stream that is not there or twice.
        """
        streams, _ = self._streams.named(env)
        with self._lock:
            closed = self._transitions.interrupt(self._issued % self._capacity, streams)
            self._streams.interrupt(streams)
            if closed is None:
                return np.zeros(0, INT64)
            return self._issue(closed.returns.size, self._waited(closed))

    def extend(self, transitions: Mapping[str, Any], td_errors: Any = None) -> Ints:
        """Add many complete, unrelated transitions, such as offline data.

        Parameters
        ----------
        transitions : mapping of str to array
            Every field of the buffer and ``next_obs`` with a leading axis B, and one of
            ``discount`` (float[B], 0 where terminated) and ``terminated`` (bool[B], of
            transitions of one step). B may exceed the capacity: the last N stay.
        td_errors : float[B], optional
            Their errors; without them all enter at the largest priority.

        Returns
        -------
        int64[B]
            Their ids.

        Raises
        ------
        ValueError
            If a column is missing, unknown or does not fit; nothing changes then.
        MemoryError, OSError
            As :meth:`add`.
        """
        columns = self._columns.cast(transitions, self._gamma)
        count = len(columns["reward"])
        errors = None if td_errors is None else arguments.errors(td_errors, count)
        kept = min(count, self._capacity)
        columns = {name: column[count - kept :] for name, column in columns.items()}
        with self._lock:
            priorities = None if errors is None else self._sampler.priorities_of(errors)
            first = (self._issued + count - kept) % self._capacity
            self._transitions.extend(first, kept, columns)
            if count:
                self._sampler.append(count, priorities)
            return self._next_ids(count)

    def sample(self, batch_size: int, beta: float = 1.0) -> Batch:
        """Draw a batch.

        Parameters
        ----------
        batch_size : int
            B >= 1.
        beta : float
            How far the weights correct for the law, in [0, 1]: 0 not at all, 1 fully.

        Returns
        -------
        Batch
            With ``weights``, ``probabilities`` and ``ids``.

        Raises
        ------
        ValueError
            If the buffer is empty, no row has a positive probability, a draw without
            replacement asks for more rows than there are, or an argument is out of range.

        Notes
        -----
        O(B log N).
        """
        batch_size = arguments.integer("batch_size", batch_size)
        beta = arguments.number("beta", beta, 1.0)
        with self._lock:
            return self._sample(batch_size, beta)

    def _sample(self, batch_size: int, beta: float) -> Batch:
        sampler = self._sampler
        if not sampler.size:
            raise ValueError("sample needs a buffer with at least one transition, got an empty one")
        batch, frame = self._blocks.new(
            batch_size, self._issued - 1, beta, sampler.weight_bounds(), self._weight_sums, True
        )
        if sampler.plain:
            sampler.sample(batch_size, self._uniforms, frame)
        else:
            slots = sampler.draw(batch_size, self._uniforms, batch.probabilities)
            self._blocks.complete(frame, slots)
        self._last_ids = batch.ids.copy()
        return batch if self._blocks.plain else self._blocks.finished(batch)

    def prefetch(self, batch_size: int, depth: int = 2, beta: float | Schedule = 1.0) -> Prefetcher:
        """Draw batches ahead, in a thread of their own.

        While the learner works on one batch, which it does mostly outside of Python, the next ones
        are drawn.

        Parameters
        ----------
        batch_size : int
            B >= 1.
        depth : int
            How many batches may wait, >= 1. A batch is drawn before the learner has given back the
            errors of the ``depth`` batches before it: its priorities, probabilities and weights
            are that old. Ids still name the same transitions, so errors land on the right rows
            however late they come.
        beta : float or callable
            As in :meth:`sample`, or a schedule: ``beta(k)`` of the k-th batch from here, the first
            being 0. The thread calls it.

        Returns
        -------
        Prefetcher
            An endless iterator over batches. Close it, or use it in a ``with`` statement.

        Raises
        ------
        ValueError
            If an argument is out of range. What :meth:`sample` raises comes from the iterator.

        Examples
        --------
        >>> import numpy as np
        >>> import prioritized_replay as per
        >>> fields = {"obs": per.Field(), "action": per.Field((), "int64"), "reward": per.Field()}
        >>> replay = per.ReplayBuffer(10, fields)
        >>> ids = replay.add(0.0, 1, 2.0, 3.0, False)
        >>> with replay.prefetch(4, beta=per.linear(0.5, 1.0, 100)) as batches:
        ...     for _, batch in zip(range(3), batches):
        ...         applied = replay.update_priorities(batch.ids, batch.reward - 1.5)
        >>> applied
        4
        """
        prefetcher = Prefetcher(self._sample_ahead, batch_size, depth, beta)
        with self._lock:
            self._prefetchers.add(prefetcher)
        return prefetcher.start()

    def _sample_ahead(self, batch_size: int, beta: float, waiting: deque[Ahead]) -> None:
        """Draw a batch that will be delivered from ``waiting``."""
        with self._lock:
            before = self._uniforms.moment()
            batch = self._sample(batch_size, beta)
            waiting.append(Ahead(batch, self._batches_ahead, before))
            self._batches_ahead += 1

    def _delivered_uniforms(self) -> UniformStream:
        """Return the uniforms as they were after the last batch that somebody has got.

        They are what belongs into a checkpoint. The caller holds the lock.
        """
        undelivered = [ahead for one in self._prefetchers for ahead in one.undelivered()]
        if not undelivered:
            return self._uniforms
        return self._uniforms.at(min(undelivered, key=attrgetter("number")).before)

    def _before_fork(self) -> None:
        self._forks += 1

    def _after_fork(self) -> None:
        """Become a buffer of the child process: with its own numbers, or not usable at all."""
        self._uniforms.diverge(self._forks)
        for prefetcher in self._prefetchers:
            prefetcher.abandon()
        self._prefetchers.clear()
        self._saver = Saver()  # another thread of the parent's may have been saving
        if self._memory.directory is not None:
            self._lock = forking.Refusal(
                f"this buffer keeps its rows in files in {self._memory.directory}, which belong to "
                "the process that made it: a forked one has to make a buffer of its own"
            )

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError(
            "a ReplayBuffer cannot be copied or pickled: use save and ReplayBuffer.load instead"
        )

    def get(self, ids: ArrayLike, beta: float = 1.0) -> Batch:
        """Return named transitions, as :meth:`sample` would had it drawn these.

        Parameters
        ----------
        ids : int64[B]
            Ids of transitions that are still there.
        beta : float
            As in :meth:`sample`.

        Raises
        ------
        KeyError
            Naming the first id that is gone, or was never issued.
        """
        wanted = arguments.ids(ids)
        beta = arguments.number("beta", beta, 1.0)
        with self._lock:
            self._require_live(wanted)
            slots = wanted % self._capacity
            batch, frame = self._blocks.new(
                slots.size,
                self._issued - 1,
                beta,
                self._sampler.weight_bounds(),
                np.empty(4),
                False,
            )
            batch.probabilities[:] = self._sampler.probabilities(slots)
            self._blocks.complete(frame, slots)
            return batch if self._blocks.plain else self._blocks.finished(batch)

    def update_priorities(self, ids: Any, td_errors: Any) -> int:
        """Give transitions the priorities of their new TD errors.

        Parameters
        ----------
        ids : int64[B]
            Ids of a batch. Rows overwritten since are skipped; of duplicates the last wins.
        td_errors : float[B] or float[B, 1]
            Signed errors, as arrays or tensors of any floating dtype and device. Absolute
            value, eps and alpha are applied inside.

        Returns
        -------
        int
            How many of the B were applied: those whose rows are still there.

        Raises
        ------
        ValueError
            If an error is not finite, the lengths differ, or an id was never issued. Nothing
            changes then.

        Notes
        -----
        O(B log N).
        """
        wanted = arguments.ids(ids)
        errors = arguments.errors(td_errors, wanted.size)
        sampler = self._sampler
        with self._lock:
            applied = sampler.update(wanted, errors, self._issued - sampler.size, self._issued)
            self._stale_updates += wanted.size - applied
        return applied

    def priorities(self, ids: ArrayLike) -> Floats:
        """Return priorities: abs(td_error) + eps if proportional, abs(td_error) if rank-based.

        Parameters
        ----------
        ids : int64[B]
            Ids of transitions that are still there.

        Returns
        -------
        float64[B]
            1 for each row of a uniform buffer.

        Raises
        ------
        KeyError
            Naming the first id that is gone, or was never issued.
        """
        wanted = arguments.ids(ids)
        with self._lock:
            self._require_live(wanted)
            return self._sampler.priorities(wanted % self._capacity)

    def clear(self) -> None:
        """Forget all transitions and open windows. Ids go on where they were. O(N)."""
        with self._lock:
            self._sampler.clear()
            self._transitions.clear()
            self._streams.interrupt()
            self._step_priorities[:] = np.nan
            self._last_ids = np.empty(0, INT64)
            self._weight_sums[:] = 0.0

    @property
    def extra(self) -> dict[str, bytes]:
        """The named bytes in the checkpoint that this buffer was loaded from; {} without."""
        return self._loaded_extra

    def save(self, path: str | os.PathLike[str], extra: Mapping[str, bytes] | None = None) -> None:
        """Save everything to a folder, so that :meth:`load` goes on where this buffer was.

        The checkpoint is complete or it is not there: until the new one is whole and on disk, the
        old one in that folder is the one that counts. Of a buffer saved to the same folder again,
        only what changed is written: rows and frames of some megabytes each, and all priorities.

        Parameters
        ----------
        path : path
            The folder; it is created if it is not there. One buffer at a time may save to it.
        extra : mapping of str to bytes, optional
            Bytes to keep with the buffer, by name: a learner, say. They are part of the same
            checkpoint, so the two are never of different moments. :meth:`load` returns them as
            :attr:`extra`. Names are of lower-case letters, digits and underscores, with hyphens
            between words. At most 256 names, and 16 GiB in all.

        Raises
        ------
        OSError
            If it cannot be written, as on a full disk. The checkpoint that was there still is.
        ValueError
            If the seed was a generator that is not one of NumPy's own, or ``extra`` has a name or
            a value that is not allowed.

        Notes
        -----
        O(what changed). Other threads go on meanwhile: the buffer's lock is held for listing
        what there is, and once for copying the priorities, the marks of rows drawn, the open
        windows and what changed while the rest was written (beyond 32 MiB, for writing it). The
        checkpoint is of that moment. Forcing files to disk is done without the lock.

        Examples
        --------
        >>> import tempfile
        >>> import prioritized_replay as per
        >>> fields = {"obs": per.Field(), "action": per.Field(), "reward": per.Field()}
        >>> replay = per.ReplayBuffer(100, fields, seed=1)
        >>> _ = replay.add(0.0, 0.0, 1.0, 0.5, False)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     replay.save(folder, extra={"learner": b"weights"})
        ...     again = per.ReplayBuffer.load(folder)
        >>> len(again), again.extra
        (1, {'learner': b'weights'})
        """
        self._saver.save(path, self._lock, self._contents, extra)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        directory: str | os.PathLike[str] | None = None,
        max_bytes: int | None = None,
    ) -> Self:
        """Return the buffer that was saved to a folder.

        The same calls have the same results from then on, bit for bit. No code is run from the
        files, and they are checked: a folder that anybody else wrote can at worst yield other
        transitions.

        Parameters
        ----------
        path : path
            The folder.
        directory, max_bytes
            As for the class: they are not part of a checkpoint. ``directory`` may be ``path``, to
            reopen the directory of a buffer that called :meth:`flush`.

        Raises
        ------
        CheckpointError
            If there is no checkpoint, or it is damaged or of another version; a ValueError.
        FileExistsError
            If ``directory`` is another one and holds a buffer or a checkpoint.
        MemoryError, OSError
            If there is no room for the buffer.

        Notes
        -----
        O(size of the checkpoint), and O(N log N) for the priorities. What the manifest asks for
        is held against the files' sizes and the machine's memory before it is allocated.
        """
        reader = Reader(path, memory_limit())
        if directory is not None:
            directory = reopened(directory, path)
        replay = None
        try:
            options = cls._described(reader)
            replay = cls(**options, directory=directory, max_bytes=max_bytes)
            replay._restore(reader)
            replay._loaded_extra = reader.extra()
            reader.finish()
        except BaseException as error:
            if replay is not None:
                replay._memory.discard()
            if isinstance(error, (CheckpointError, OverLimit, OSError)):
                raise
            if isinstance(error, NOT_DESCRIBED):
                raise reader.error(f"describes no buffer: {error}") from error
            raise
        replay._saver.loaded(reader, replay._contents().pieces)
        return replay

    def flush(self) -> int:
        """Make everything up to now survive this process, where the buffer is in a directory.

        A checkpoint is saved into the directory, beside the files that are in use: these change
        with every step, and what a killed process leaves of them is worth nothing. So the disk
        has to have room for both. ``ReplayBuffer.load(directory, directory=directory)`` reopens
        the buffer as of the last flush.

        Returns
        -------
        int
            Number of transitions that are safe now.

        Raises
        ------
        ValueError
            If the buffer has no directory.
        OSError
            If it cannot be written. The state of the last flush is still there.

        Notes
        -----
        As for :meth:`save`.
        """
        directory = self._memory.directory
        if directory is None:
            raise ValueError("flush needs a buffer with a directory, got one in RAM: use save")
        size = 0

        def contents() -> Contents:
            nonlocal size
            size = len(self)
            return self._contents()

        self._saver.save(directory, self._lock, contents)
        return size

    def _contents(self) -> Contents:
        """Return what belongs to a checkpoint."""
        description = {
            "capacity": self._capacity,
            "fields": [
                [name, describe_fields(structure.nested)]
                for name, structure in self._structures.items()
                if name not in ADDED
            ],
            "sampler": describe_sampler(self._sampler.specification),
            "n_step": self._n_step,
            "gamma": self._gamma,
            "num_envs": self._streams.num_envs,
            "autoreset": self._streams.autoreset,
        }
        uniforms = self._delivered_uniforms()
        pieces = [
            *self._transitions.pieces(self._issued),
            *self._streams.pieces(),
            *self._sampler.pieces(),
            *uniforms.pieces(),
            Piece("entering", None, self._step_priorities.copy),
            Piece("last_ids", None, self._last_ids.copy),
            Piece("weights", None, self._weight_sums.copy),
        ]
        state = {
            "ids_issued": self._issued,
            "stale_updates": self._stale_updates,
            "entering": self._priorities_wait,
            "last_batch": self._last_ids.size,
            **self._sampler.state(),
            **uniforms.state(),
            **self._transitions.state(),
        }
        return Contents(description, state, pieces)

    @staticmethod
    def _described(reader: Reader) -> dict[str, Any]:
        """Return the arguments that a checkpoint describes, if they go with its files."""
        options = dict(reader.description)
        names = ("capacity", "fields", "sampler", "n_step", "gamma", "num_envs", "autoreset")
        if tuple(options) != names:
            raise reader.error(f"must describe {', '.join(names)}, got {', '.join(options)}")
        capacity, n_step, streams = options["capacity"], options["n_step"], options["num_envs"]
        for name, value in (("capacity", capacity), ("n_step", n_step), ("num_envs", streams or 1)):
            if type(value) is not int or value < 1:
                raise reader.error(f"must have {name} an integer >= 1, got {value!r}")
        if n_step > MOST_STEPS:
            raise reader.error(f"must have n_step <= {MOST_STEPS}, got {n_step}")
        reader.require("returns", np.float64, ((streams or 1) * n_step,))
        options["fields"] = {
            name: described_fields(part, reader.most_bytes // 4) for name, part in options["fields"]
        }
        options["sampler"] = described_sampler(options["sampler"])
        needed = 0 if isinstance(options["sampler"], Uniform) else LEAST_BYTES * capacity
        if needed > reader.most_bytes:
            raise reader.error(
                f"describes a buffer of {needed} bytes or more, beyond {reader.most_bytes}"
            )
        return options

    def _restore(self, reader: Reader) -> None:
        """Become what a checkpoint says; this buffer has to be new."""
        self._issued = reader.integer("ids_issued", 0, MOST_IDS)
        self._stale_updates = reader.integer("stale_updates", 0, MOST_IDS)
        self._priorities_wait = reader.flag("entering")
        entering = reader.array("entering", np.float64, self._step_priorities.shape)
        most = self._sampler.most
        if not (np.isnan(entering) | ((entering >= 0.0) & (entering <= most))).all():
            raise reader.error(f"must have priorities in [0, {most}] entering")
        self._step_priorities[:] = entering
        count = reader.integer("last_batch", 0, reader.most_bytes)
        self._last_ids = reader.array("last_ids", INT64, (count,))
        reader.fill("weights", self._weight_sums)
        self._uniforms.restore(reader)
        self._streams.restore(reader)
        self._sampler.restore(reader, self._issued)
        self._transitions.restore(reader, self._issued)

    def stats(self) -> dict[str, float]:
        """Return the state of the buffer in plain numbers. O(N log N).

        Returns
        -------
        dict
            ``size``; ``ids_issued``; ``open_windows``; ``priority_p05`` to ``priority_p95``,
            quantiles of the priorities; ``largest_priority``, with which a new row would enter;
            ``stale_updates``, updates skipped because the row was overwritten; of the last
            batch ``effective_sample_size`` (sum w)**2 / sum w**2, ``weight_min``,
            ``weight_max`` and ``duplicates``, the rows that were in it before;
            ``never_drawn``, the share of live rows never drawn. 0 where nothing is to be measured.
        """
        with self._lock:
            return self._stats()

    def _stats(self) -> dict[str, float]:
        slots = self._sampler.live_slots()
        quantiles = np.zeros(5)
        never_drawn = 0.0
        if slots.size:
            priorities = self._sampler.priorities(slots)
            quantiles = np.quantile(priorities, [0.05, 0.25, 0.5, 0.75, 0.95])
            never_drawn = 1.0 - float(np.mean(self._storage.drawn(slots)))
        total, squares, lowest, highest = self._weight_sums.tolist()
        names = ("priority_p05", "priority_p25", "priority_p50", "priority_p75", "priority_p95")
        return {
            "size": len(self),
            "ids_issued": self._issued,
            "open_windows": len(self._transitions.windows),
            **{name: float(value) for name, value in zip(names, quantiles, strict=True)},
            "largest_priority": self._sampler.entry_priority(),
            "stale_updates": self._stale_updates,
            "effective_sample_size": total * total / squares if squares > 0.0 else 0.0,
            "weight_min": lowest,
            "weight_max": highest,
            "duplicates": self._last_ids.size - np.unique(self._last_ids).size,
            "never_drawn": never_drawn,
        }

    def _add(
        self,
        env: Any,
        values: dict[str, Any],
        terminated: Any,
        truncated: Any,
        info: Any,
        td_error: Any,
    ) -> Ints:
        """Add steps of any streams: first what may raise, then what changes the buffer."""
        steps = self._streams.steps(env, values, terminated, truncated, info)
        errors = None
        if td_error is not None:
            errors = arguments.errors(td_error, steps.called.size, "td_error")
        with self._lock:
            steps = self._streams.without_resets(steps)
            priorities = None
            if errors is not None:
                priorities = self._sampler.priorities_of(errors, "td_error")
                priorities = priorities if steps.given is None else priorities[steps.given]
            first = self._issued % self._capacity
            count = steps.streams.size
            closed = None
            if count:
                if self._transitions.looking:
                    self._look_for_stacks(steps.columns)
                closed = self._transitions.add(first, steps)
            self._streams.commit(steps)
            if closed is not None:
                count = closed.returns.size
                if priorities is not None:
                    self._step_priorities[closed.rows] = priorities
                    self._priorities_wait = True
                priorities = self._waited(closed)
            return self._issue(count, priorities)

    def _look_for_stacks(self, columns: Mapping[str, Array]) -> None:
        self._transitions.look_for_stacks(columns, min(self._issued, self._capacity))

    def _waited(self, closed: Closed) -> Floats | None:
        """Return the priorities with which windows were begun, NaN for the largest so far."""
        if not self._priorities_wait:
            return None
        first_steps = closed.first_steps
        priorities = self._step_priorities[first_steps]
        self._step_priorities[first_steps] = np.nan
        return priorities

    def _issue(self, count: int, priorities: Floats | None) -> Ints:
        """Make rows just written sampleable and give them their ids."""
        if count == 0:
            return np.zeros(0, INT64)
        if priorities is None or np.isnan(priorities).all():
            self._sampler.append(count)
        else:
            largest = self._sampler.entry_priority()
            priorities = np.where(np.isnan(priorities), largest, priorities)
            if count <= FEW:
                self._sampler.append_each(priorities.tolist())
            else:
                self._sampler.append(count, priorities)
        return self._next_ids(count)

    def _next_ids(self, count: int) -> Ints:
        first = self._issued
        self._issued = first + count
        if count != 1:
            return np.arange(first, first + count)
        ids = np.empty(1, INT64)  # in half the time
        ids[0] = first
        return ids

    def _require_live(self, ids: Ints) -> None:
        gone = (ids < self._issued - len(self)) | (ids >= self._issued)
        if gone.any():
            raise KeyError(f"no transition with id {ids[gone][0]}")


def _one_error(td_error: Any) -> float:
    if type(td_error) is float:
        return td_error
    return float(arguments.errors(td_error, 1, "td_error")[0])
