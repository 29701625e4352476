"""The replay buffer: it gives transitions their ids and composes windows, rows and sampler."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from operator import attrgetter
from typing import Any, Self, TypedDict, Unpack
from weakref import WeakSet

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prioritized_replay import forking
from prioritized_replay.batch import Batch
from prioritized_replay.batches.builder import BatchBuilder
from prioritized_replay.batches.drawing import fused_draw
from prioritized_replay.batches.prefetching import Ahead, Prefetcher
from prioritized_replay.batches.sequences import SequenceBuilder, mixed_errors
from prioritized_replay.checkpoint.checkpointed import Checkpointed
from prioritized_replay.checkpoint.files import CheckpointError
from prioritized_replay.checkpoint.loading import NOT_DESCRIBED, Reader, read_checkpoint
from prioritized_replay.checkpoint.manifest import Contents
from prioritized_replay.fields import arguments
from prioritized_replay.fields.field import FieldCaster, flag
from prioritized_replay.fields.nested import Nested, describe_fields, described_fields
from prioritized_replay.fields.schema import ADDED, Schema
from prioritized_replay.offline.reading import Recorded
from prioritized_replay.offline.writing import Block, episodes_of, write_dataset
from prioritized_replay.sampled import Sampled, no_room
from prioritized_replay.sampling import SPECIFICATIONS, Specification, Uniform
from prioritized_replay.sampling._draw_kernels import RECORD
from prioritized_replay.sampling.specifications import describe_sampler, described_sampler
from prioritized_replay.sampling.uniforms import Seed, UniformStream
from prioritized_replay.schedules import Schedule
from prioritized_replay.storage.marks import DRAWN, TRUNCATED, UNRELATED
from prioritized_replay.storage.memory import Memory, OverLimit, memory_limit, reopened
from prioritized_replay.streams.autoreset import (
    Autoreset,
    chosen_mode,
    has_terminal,
    infos_of_rows,
    named,
)
from prioritized_replay.streams.environments import fields_of_spaces, known_of
from prioritized_replay.streams.episodes import Episode, accept_episode
from prioritized_replay.streams.sequences import Sequence as SequenceSpecification
from prioritized_replay.streams.sequences import Sequences, require_pieces
from prioritized_replay.streams.streams import Streams
from prioritized_replay.streams.transitions import Steps, Transitions

__all__ = ["Batch", "ReplayBuffer"]

Array = NDArray[Any]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

STEP = ("obs", "action", "reward", "next_obs")  # what every call of `add` names
INT64 = np.dtype(np.int64)
NAN = float("nan")
MOST_IDS = 2**62  # that a checkpoint may have given out: those to come are int64 too
LEAST_BYTES = 19  # of memory per transition that has a priority, with what finds it again
MOST_STEPS = 1 << 20
EXPORTED = 1 << 24  # bytes of rows that are copied at a time, or a single row
FEW = 16  # rows with priorities of their own that wait rather than enter at once


class Options(TypedDict, total=False):
    """Arguments by name that every way to build a buffer takes."""

    sampler: Specification | None
    n_step: int
    gamma: float
    num_envs: int | None
    autoreset: Autoreset | None
    sequence: SequenceSpecification | None
    directory: str | os.PathLike[str] | None
    max_bytes: int | None
    seed: Seed


class ReplayBuffer(Sampled):
    """Prioritized experience replay: a ring of transitions, and a distribution to draw them from.

    Parameters
    ----------
    capacity : int
        Number of transitions N kept, of single steps where there are sequences, >= 1; a new one
        then overwrites the oldest.
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
    sequence : Sequence, optional
        What is drawn, if not single transitions: sequences of steps. The capacity is that of steps
        then, at least one sequence, and ``n_step`` is 1.
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
        If ``directory`` belongs to a live buffer, or holds the files of another one or its
        checkpoint, which is for :meth:`load`.

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

    _thing = "transition"

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
        sequence: SequenceSpecification | None = None,
        directory: str | os.PathLike[str] | None = None,
        max_bytes: int | None = None,
        seed: Seed = None,
    ) -> None:
        super().__init__(capacity, sampler, seed)
        self._n_step = arguments.integer("n_step", n_step)
        self._sequence = _checked_sequence(sequence, self._capacity, self._n_step)
        if num_envs is not None:
            num_envs = arguments.integer("num_envs", num_envs)
        mode = chosen_mode(autoreset, num_envs)
        self._columns = Schema(fields, sequence is not None)
        self._structures = self._columns.structures
        reward_type = np.dtype(self._columns.leaves["reward"].dtype)
        if self._n_step > 1 and reward_type.kind != "f":
            raise ValueError(
                f"fields['reward'] must be floating where n_step > 1, got {reward_type}"
            )
        self._gamma = arguments.number("gamma", gamma, 1.0)
        count = 1 if num_envs is None else num_envs
        self._most_rows = count * self._n_step  # that one call of `add` can make
        try:
            self._memory = Memory(directory, max_bytes, self._ownership)
            self._make_sampler(self._most_rows, gaps=sequence is not None)
            self._build(num_envs, mode)
        except BaseException:
            if hasattr(self, "_memory"):
                self._memory.discard()
            self._ownership.release()  # the error may hold on to this object
            raise

    def _build(self, num_envs: int | None, mode: Autoreset) -> None:
        """Make what takes memory or files, and what depends on it."""
        self._memory.reserve("priorities", self._sampler.nbytes)
        try:
            self._transitions = Transitions(
                self._capacity, self._structures, self._n_step, self._gamma,
                1 if num_envs is None else num_envs, mode, self._memory, self._sampler.counters,
                self._sampler.entering, self._sampler.tell, self._note,
            )  # fmt: skip
        except OverLimit:
            raise
        except MemoryError as error:
            raise no_room(self._capacity, error) from None
        staged = self._transitions.staging.columns.values()
        given = {
            name: structure
            for name, structure in (self._structures | self._columns.states).items()
            if name not in ("discount", "terminated")
        }
        self._streams = Streams(
            num_envs, mode, given, [column.name for column in staged if column.wide is not None]
        )
        self._rows = self._transitions.rows
        self._blocks = BatchBuilder(
            self._rows, self._capacity, self._structures, self._transitions.shared, self._n_step
        )
        self._sequences: Sequences | None = None
        self._drawn = self._blocks
        if self._sequence is not None:
            self._build_sequences(self._sequence)
        self._extra = self._columns.extra
        # Whether a step is a row of its own, which one short call can write as it comes.
        self._bare = (
            num_envs is None
            and self._sequence is None
            and mode == "disabled"
            and self._n_step == 1
            and not self._transitions.shared
            and all(structure.plain for structure in self._structures.values())
        )
        # Whether a step of every stream can be taken as it comes, if all of it fits.
        self._side_by_side = (
            num_envs is not None
            and self._sequence is None
            and not self._transitions.shared
            and all(structure.plain for structure in self._structures.values())
        )
        self._accept = [
            FieldCaster(column.name, column.field).accept
            for column in self._transitions.staging.columns.values()
        ]
        if self._bare:
            self._accept_obs, self._accept_action, self._accept_reward, self._accept_next_obs = (
                self._accept[:4]
            )
        direct = self._sampler.direct and self._sequence is None
        self._fused = fused_draw(self._sampler.distribution) if direct else None
        self._prefetchers: WeakSet[Prefetcher] = WeakSet()
        forking.watch(self)

    def _build_sequences(self, sequence: SequenceSpecification) -> None:
        """Make what follows the steps and lets sequences be drawn."""
        self._thing = "sequence"
        self._accept_errors = partial(arguments.errors_of_steps, steps=sequence.length)
        states = self._columns.states
        self._sequences = sequences = Sequences(
            sequence, self._capacity, self._streams.count, self._columns.leaves_of_states,
            self._memory, self._transitions, self._sampler,
        )  # fmt: skip
        self._drawn = SequenceBuilder(
            self._rows, self._capacity, self._structures, self._transitions.shared,
            sequence.length, sequence.boundaries == "stop", sequences.ahead, states,
            lambda slots: sequences.states.columns_of(slots) if sequences.states else {},
        )  # fmt: skip
        self._not_rows = np.full(self._streams.count, -1.0)  # no step can be drawn by itself

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

        Examples
        --------
        >>> from gymnasium import spaces
        >>> import prioritized_replay as per
        >>> space = spaces.Box(0, 255, (4, 84, 84), "uint8")
        >>> replay = per.ReplayBuffer.for_spaces(space, spaces.Discrete(6), 1_000)
        >>> replay.fields["obs"].dtype, replay.fields["action"].shape, replay.num_envs
        (dtype('uint8'), (), None)

        Of a vector environment, give ``single_observation_space`` and ``single_action_space``.
        """
        return cls(capacity, fields_of_spaces(observation_space, action_space), **options)

    @classmethod
    def for_env(cls, env: Any, capacity: int, **options: Unpack[Options]) -> Self:
        """Build a buffer for a Gymnasium environment or vector environment.

        Fields, ``num_envs``, the autoreset mode and how frames are stacked are read from it,
        through wrappers; see :meth:`for_spaces`. A vector environment must have been made with
        ``copy=True``, its default: without, ``obs`` becomes ``next_obs`` before it is added.

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
            If it is no environment, or one that was made with ``copy=False``, if an option
            contradicts it, or as :meth:`for_spaces` does.

        Examples
        --------
        >>> import gymnasium
        >>> import prioritized_replay as per
        >>> env = gymnasium.make_vec("CartPole-v1", num_envs=2, vectorization_mode="sync")
        >>> replay = per.ReplayBuffer.for_env(env, 1_000, n_step=3)
        >>> replay.num_envs, replay.autoreset, replay.fields["obs"].shape
        (2, 'next_step', (4,))
        >>> per.ReplayBuffer.for_env(env, 1_000, num_envs=4)
        Traceback (most recent call last):
        ValueError: num_envs must be that of the environment, 2, got 4
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

    @classmethod
    def from_minari(
        cls,
        dataset: Any,
        capacity: int | None = None,
        *,
        infos: Sequence[str] = (),
        **options: Unpack[Options],
    ) -> Self:
        """Build a buffer that holds the episodes of a data set of Minari.

        Its fields are those of the data set's spaces, as for :meth:`for_spaces`; rewards are
        rounded to float32. Episodes are added in their order, see :meth:`add_episode`; one of them
        is in memory at a time. No episode goes on in the next one: where neither ``terminations``
        nor ``truncations`` has an end, the episode counts as truncated.

        Parameters
        ----------
        dataset : minari.MinariDataset or str
            The data set, all of it or a part that ``filter_episodes`` returned, or the id of one
            that is on this machine.
        capacity : int, optional
            Number of transitions kept: those of the last episodes, where there are more. By
            default the number of steps of the data set.
        infos : sequence of str, optional
            Names of recorded infos to keep as columns. A row has what its step returned, not what
            the reset returned before it.
        **options
            As for the class. With ``num_envs``, all episodes are of stream 0.

        Raises
        ------
        ImportError
            If an id is given and Minari is not installed.
        FileNotFoundError
            If there is no such data set on this machine.
        ValueError
            If a space has no fixed shape and dtype, an episode lacks one of the infos, the data
            set is empty, or as the class does.

        Examples
        --------
        >>> import prioritized_replay as per
        >>> replay = per.ReplayBuffer.from_minari(
        ...     "mujoco/hopper/medium-v0", n_step=3, sampler=per.RankBased()
        ... )  # doctest: +SKIP

        :doc:`/offline` makes a data set and reads it.
        """
        recorded = Recorded(dataset, infos)
        replay = cls(recorded.steps if capacity is None else capacity, recorded.fields, **options)
        stream = None if replay.num_envs is None else 0
        try:
            for number, episode in recorded.episodes():
                try:
                    replay.add_episode(**episode, env=stream)
                except ValueError as error:
                    raise ValueError(f"episode {number} of the data set: {error}") from None
                replay.end_episode(stream)
                replay._transitions.await_no_reset()
        except BaseException:
            replay._memory.discard()
            replay._ownership.release()
            raise
        return replay

    def to_minari(
        self,
        dataset_id: str,
        *,
        env: Any = None,
        observation_space: Any = None,
        action_space: Any = None,
        **metadata: Any,
    ) -> Any:
        """Write the transitions to a new data set of Minari, episode by episode.

        :meth:`from_minari` makes the same rows of it again, bit for bit: images are not compressed.
        Priorities are not part of a data set. A buffer does not know the seeds of episodes, nor
        what resets returned: where it has columns of its own, these become infos, and their first
        row of an episode, the reset's, is zero.

        An episode of which the first steps have given way to newer ones begins in the middle, with
        the oldest step that is there. An episode that was left open is marked as truncated, as
        Minari's own collector does it: the one that is being collected, or one that was followed
        by a step which does not begin where it had led to.

        Parameters
        ----------
        dataset_id : str
            Of the new data set, such as ``"cartpole/mine-v0"``.
        env : gymnasium.Env, EnvSpec or str, optional
            The environment. Its spaces are those of the data set, and its specification is kept.
        observation_space, action_space : gymnasium.Space, optional
            Instead of the environment's. A buffer knows shapes and dtypes but not bounds, so
            ``env`` or both spaces must be given.
        **metadata
            Further arguments of ``minari.create_dataset_from_buffers``: ``author``,
            ``description``, ``algorithm_name`` and others.

        Returns
        -------
        minari.MinariDataset

        Raises
        ------
        ImportError
            If Minari is not installed.
        ValueError
            If the transitions are not single steps of episodes in their order: ``n_step`` > 1,
            which has added up the rewards; ``num_envs`` > 1, whose steps lie between each other;
            rows of :meth:`extend`. If the buffer is empty, the id is no id or is taken, or the
            spaces do not fit. There is no data set then.
        RuntimeError
            If other threads overwrite transitions before they are written.

        Examples
        --------
        >>> import prioritized_replay as per
        >>> fields = {"obs": per.Field(), "action": per.Field((), "int64"), "reward": per.Field()}
        >>> per.ReplayBuffer(10, fields, n_step=3).to_minari("mine-v0", env="CartPole-v1")
        Traceback (most recent call last):
        ValueError: to_minari needs n_step=1, got 3: the rewards of single steps are gone

        :doc:`/offline` has one that writes a data set.
        """
        if self._n_step > 1:
            raise ValueError(
                f"to_minari needs n_step=1, got {self._n_step}: the rewards of single steps are "
                "gone"
            )
        if self._streams.count > 1:
            raise ValueError(
                f"to_minari needs a single stream, got num_envs={self._streams.count}: their steps "
                "lie between each other, and a row does not say whose it is"
            )
        if not self._sampler.rows:
            raise ValueError("to_minari needs at least one transition, got an empty buffer")
        episodes = episodes_of(self._blocks_in_order(), self._structures)
        spaces = observation_space, action_space
        return write_dataset(dataset_id, env, spaces, episodes, self._structures, metadata)

    def _blocks_in_order(self) -> Iterator[Block]:
        """Iterate over the rows that are there now, the oldest first."""
        with self._lock: first, stop = self._live_ids()  # fmt: skip
        size = sum(field.nbytes for field in self._columns.leaves.values())
        count = max(EXPORTED // size, 1)
        for start in range(first, stop, count):
            with self._lock: block = self._block(start, min(start + count, stop))  # fmt: skip
            yield block

    def __repr__(self) -> str:
        if self._sequence is None:
            return super().__repr__()
        steps = f"{self._sampler.rows} of {self._capacity} steps"
        return f"{type(self).__name__}({len(self)} sequences in {steps}, {self.sampler})"

    @property
    def fields(self) -> dict[str, Nested]:
        """Every stored column: the fields given and ``next_obs``, ``discount``, ``terminated``.

        Examples
        --------
        >>> import prioritized_replay as per
        >>> fields = {"obs": per.Field(), "action": per.Field(), "reward": per.Field()}
        >>> list(per.ReplayBuffer(10, fields).fields)
        ['obs', 'action', 'reward', 'discount', 'next_obs', 'terminated']
        """
        structures = self._structures | self._columns.states
        return {name: structure.nested for name, structure in structures.items()}

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
    def sequence(self) -> SequenceSpecification | None:
        """What is drawn, if not single transitions; else None.

        Examples
        --------
        >>> import prioritized_replay as per
        >>> fields = {"obs": per.Field(), "action": per.Field(), "reward": per.Field()}
        >>> replay = per.ReplayBuffer(100, fields, sequence=per.Sequence(20, burn_in=5))
        >>> replay.sequence.length, per.ReplayBuffer(100, fields).sequence
        (20, None)
        """
        return self._sequence

    @property
    def nbytes(self) -> int:
        """Bytes of memory reserved for rows, frames, priorities and their structures.

        Examples
        --------
        >>> import prioritized_replay as per
        >>> fields = {"obs": per.Field(), "action": per.Field((), "int64"), "reward": per.Field()}
        >>> small, large = (per.ReplayBuffer(n, fields) for n in (1_000, 2_000))
        >>> 1.9 < large.nbytes / small.nbytes < 2.1  # reserved before any row comes
        True
        """
        return self._memory.nbytes

    def bytes_when_full(self, stack: int = 1) -> int:
        """Return about how many bytes :attr:`nbytes` will be when the buffer is full.

        Of columns that are kept once for a sequence it counts those of long episodes: many that are
        shorter than ``length - overlap`` have more sequences.

        Parameters
        ----------
        stack : int
            Images of one observation, of which each step brings a new one. Until the first steps
            are added, the buffer itself cannot know that.

        Examples
        --------
        >>> import prioritized_replay as per
        >>> fields = {"obs": per.Field((4, 84, 84), "uint8"), "action": per.Field((), "int64"),
        ...           "reward": per.Field()}
        >>> replay = per.ReplayBuffer(1_000, fields)
        >>> replay.bytes_when_full() // replay.bytes_when_full(stack=4)
        3
        """
        to_come = self._transitions.bytes_to_come(stack)
        if self._sequences is not None:
            to_come += self._sequences.bytes_to_come()
        return self._memory.nbytes + to_come

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
        info: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
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
        info : mapping, or list of mappings, optional
            What the vector environment returned with the step. It is needed where an episode ends
            and ``autoreset`` is ``"same_step"``: ``info["final_obs"]`` then has the observation
            that the step led to, Gymnasium's way or ALE's. A list has one mapping for each
            environment, as Stable-Baselines3's: ``info[k]["terminal_observation"]`` is that
            observation, and an end with ``info[k]["TimeLimit.truncated"]`` counts as truncated,
            so that ``terminated`` may be what Stable-Baselines3 calls ``dones``.
        td_error : float or float[K], optional
            Error of the window that starts here; without it the row enters at the largest
            priority. Not of sequences.
        **extra
            The further fields. With n > 1 a row keeps those of its first step.

        Returns
        -------
        int64[...]
            Ids of the rows that became sampleable, stream by stream in the order of the call: for
            n > 1 none while the first window is open, up to n at the end of an episode. Reset
            steps are no transitions. Of sequences, those that became whole, in the same order: at
            most one of each stream.

        Raises
        ------
        ValueError
            If a value does not fit its field, a field is missing or unknown, a final observation
            is missing, ``env`` names a stream that is not there or twice, or the environment
            writes all observations into the same array. Nothing changes then.
        MemoryError, OSError
            If ``max_bytes`` would be passed, or there is no memory for new frames, or no room in
            ``directory``. Nothing changes then either.

        Notes
        -----
        O(row), and O(log N) per row once they are next drawn from.

        Examples
        --------
        >>> import prioritized_replay as per
        >>> fields = {"obs": per.Field(), "action": per.Field((), "int64"), "reward": per.Field()}
        >>> replay = per.ReplayBuffer(100, fields, n_step=2, gamma=0.5)
        >>> replay.add(0.0, 1, 4.0, 1.0, terminated=False)  # its window needs one step more
        array([], dtype=int64)
        >>> ids = replay.add(1.0, 0, 4.0, 2.0, terminated=False, truncated=True)
        >>> ids, replay.get(ids).reward
        (array([0, 1]), array([6., 4.], dtype=float32))
        >>> replay.get(ids).discount  # of a truncated episode; 0 had this been given as terminated
        array([0.25, 0.5 ], dtype=float32)
        """
        if (extra or self._extra) and extra.keys() != set(self._extra):
            raise self._wrong_columns(extra)
        if not self._bare or env is not None or (info is not None and has_terminal(info)):
            values = [obs, action, reward, next_obs]
            if extra:
                values += [extra[name] for name in self._extra]
            # An info of another kind and an array given twice are for the checks of the long way.
            if (
                self._side_by_side and env is None and obs is not next_obs
                and (info is None or type(info) is dict)
            ):  # fmt: skip
                errors = None
                if td_error is not None:
                    errors = arguments.errors(td_error, self._streams.count, "td_error")
                ends = terminated, truncated
                with self._lock: ids = self._add_whole(values, ends, errors)  # fmt: skip
                if ids is not None:
                    return ids
            steps = self._streams.accept(env, values, terminated, truncated, info)
            errors = None
            if td_error is not None:
                errors = arguments.errors(td_error, steps.number, "td_error")
            with self._lock: return self._add(steps, errors)  # fmt: skip
        is_terminated = flag("terminated", terminated)
        is_truncated = flag("truncated", truncated)
        if info is not None and type(info) is not dict:
            infos_of_rows(info, 1, single=True)
        values = [
            self._accept_obs(obs),
            self._accept_action(action),
            self._accept_reward(reward),
            self._accept_next_obs(next_obs),
        ]
        if extra:
            accept = self._accept
            values += [accept[4 + k](extra[name]) for k, name in enumerate(self._extra)]
        if obs is next_obs:
            self._streams.reused.check("obs", obs, is_terminated, is_truncated)
        error = None if td_error is None else _one_error(td_error)
        ends = is_terminated, is_truncated
        with self._lock: return self._add_one(values, ends, error)  # fmt: skip

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
        """Add the steps of one episode, all at once.

        The rows are exactly those that a call of :meth:`add` for each step would make, in a small
        part of the time: windows of n steps, shared frames, ids, priorities and all.

        Parameters
        ----------
        obs : array[T + 1, ...] or array[T, ...]
            With T + 1 rows the last is the final observation. With T, ``next_obs`` is needed.
            Nested observations are mappings and tuples of such arrays.
        action, reward : array[T, ...]
            T >= 1. Of more rows than the capacity the last N stay.
        terminated, truncated : bool or bool[T]
            How the last step ended the episode; no other step may have. If it is neither, the
            episode stays open: its last windows wait, as after :meth:`add`, and the next
            :meth:`add` or :meth:`add_episode` of that stream goes on with it. :meth:`end_episode`
            closes them instead.
        next_obs : array[T, ...], optional
            What each step led to.
        env : int, optional
            The stream whose episode it is. It is needed where ``num_envs`` is above 1.
        **extra
            The further fields, array[T, ...].

        Returns
        -------
        int64[...]
            Ids of the rows that became sampleable, or of the sequences, the oldest first.

        Raises
        ------
        ValueError
            If a value does not fit its field, lengths differ, a step before the last ended the
            episode, there are no steps, a field is missing or unknown, or ``env`` is no stream.
            Nothing changes then.
        MemoryError, OSError
            As :meth:`add`. All frames of the episode need room beside those that they replace.

        Notes
        -----
        O(T n). A mode of ``autoreset`` counts as in :meth:`add`, but that the last observation is
        always the final one: ``"same_step"`` needs no ``info``, and with ``"next_step"`` a first
        step that begins where the last episode of the stream ended, without a reward, is a reset
        step and no transition. All sequences of one call enter at the same priority, also with
        ``max_priority="current"``: the largest one when it begins.

        Examples
        --------
        >>> import numpy as np
        >>> import prioritized_replay as per
        >>> fields = {"obs": per.Field(), "action": per.Field((), "int64"), "reward": per.Field()}
        >>> replay = per.ReplayBuffer(100, fields, n_step=2, gamma=0.5)
        >>> ids = replay.add_episode(  # three steps, four observations
        ...     obs=[0.0, 1.0, 2.0, 3.0], action=[1, 0, 1], reward=[1.0, 2.0, 4.0], terminated=True
        ... )
        >>> batch = replay.get(ids)
        >>> batch.reward, batch.next_obs
        (array([2., 4., 4.], dtype=float32), array([2., 3., 3.], dtype=float32))
        >>> batch.discount
        array([0.25, 0.  , 0.  ], dtype=float32)
        """
        if (extra or self._extra) and extra.keys() != set(self._extra):
            raise self._wrong_columns(extra)
        values = dict(zip(STEP, (obs, action, reward, next_obs), strict=True)) | extra
        stream = self._streams.of_episode(env)
        structures = self._structures | self._columns.states
        episode = accept_episode(structures, values, terminated, truncated, stream)
        self._streams.reused.forget()
        with self._lock: return self._add_episode(episode)  # fmt: skip

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
            Ids of the rows that became sampleable, or of the sequences.

        Raises
        ------
        ValueError
            If ``env`` names a stream that is not there or twice.
        MemoryError
            If ``max_bytes`` would be passed by columns that are kept once for a sequence. Nothing
            changes then.

        Examples
        --------
        >>> import prioritized_replay as per
        >>> fields = {"obs": per.Field(), "action": per.Field((), "int64"), "reward": per.Field()}
        >>> replay = per.ReplayBuffer(100, fields, n_step=3, gamma=0.5)
        >>> replay.add(0.0, 1, 1.0, 1.0, False)
        array([], dtype=int64)
        >>> ids = replay.end_episode()  # without it, the next step would count as this one's second
        >>> replay.get(ids).next_obs, replay.get(ids).discount
        (array([1.], dtype=float32), array([0.5], dtype=float32))
        """
        streams, _ = self._streams.named(env)
        which = None if env is None else streams
        self._streams.reused.forget()
        with self._lock: return self._end_episode(which)  # fmt: skip

    def extend(self, transitions: Mapping[str, Any], td_errors: Any = None) -> Ints:
        """Add many complete, unrelated transitions. For whole episodes use :meth:`add_episode`.

        Parameters
        ----------
        transitions : mapping of str to array
            Every field of the buffer and ``next_obs`` with a leading axis B, and one of
            ``discount`` (float[B], 0 where terminated) and ``terminated`` (bool[B], of
            transitions of one step, only where ``n_step`` is 1). B may exceed the capacity: the
            last N stay.
        td_errors : float[B], optional
            Their errors; without them all enter at the largest priority.

        Returns
        -------
        int64[B]
            Their ids.

        Raises
        ------
        ValueError
            If a column is missing, unknown or does not fit, ``terminated`` is given without
            ``discount`` where ``n_step`` > 1, or there are sequences; nothing changes then.
        MemoryError, OSError
            As :meth:`add`.

        Examples
        --------
        >>> import numpy as np
        >>> import prioritized_replay as per
        >>> fields = {"obs": per.Field(), "action": per.Field((), "int64"), "reward": per.Field()}
        >>> replay = per.ReplayBuffer(100, fields)
        >>> transitions = {
        ...     "obs": [0.0, 1.0, 2.0], "action": [0, 1, 1], "reward": [0.0, 0.0, 1.0],
        ...     "next_obs": [1.0, 2.0, 3.0], "terminated": [False, False, True],
        ... }
        >>> ids = replay.extend(transitions, td_errors=[0.1, 0.2, 0.9])
        >>> ids, replay.get(ids).discount
        (array([0, 1, 2]), array([0.99, 0.99, 0.  ], dtype=float32))
        """
        if self._sequence is not None:
            raise ValueError(
                "extend must be left out where there are sequences, got unrelated transitions: use "
                "add or add_episode"
            )
        columns = self._columns.cast(transitions, self._gamma, self._n_step)
        count = len(columns["reward"])
        errors = None if td_errors is None else arguments.errors(td_errors, count)
        with self._lock: return self._extend(columns, errors)  # fmt: skip

    def sample(self, batch_size: int, beta: float = 1.0) -> Batch[Array]:
        """Draw a batch.

        Parameters
        ----------
        batch_size : int
            B >= 1.
        beta : float
            How much of the draw's bias the weights correct, in [0, 1]: 0 is none of it, 1 all.

        Returns
        -------
        Batch
            With ``weights``, ``probabilities`` and ``ids``.

        Raises
        ------
        ValueError
            If the buffer is empty, no row has a positive probability, a draw without
            replacement asks for more rows than there are, or an argument is out of range.
        TypeError
            If beta is a schedule: it is to be called with a step, ``beta=beta(step)``.

        Notes
        -----
        O(B log N).

        Examples
        --------
        >>> import prioritized_replay as per
        >>> fields = {"obs": per.Field(), "action": per.Field((), "int64"), "reward": per.Field()}
        >>> replay = per.ReplayBuffer(100, fields, seed=0)
        >>> ids = [int(replay.add(k, 0, 1.0, k + 1, False, td_error=k)[0]) for k in range(4)]
        >>> batch = replay.sample(8, beta=0.5)
        >>> len(batch), batch.obs.shape, len(replay)  # more than there are: a row may come twice
        (8, (8,), 4)
        >>> replay.sample(8, beta=per.constant(0.5))
        Traceback (most recent call last):
        TypeError: beta must be a number, got constant(0.5): call it with a step: beta=beta(step)
        """
        batch_size = arguments.integer("batch_size", batch_size)
        beta = arguments.number("beta", beta, 1.0)
        with self._lock: return self._sample(batch_size, beta)  # fmt: skip

    def _sample(self, batch_size: int, beta: float) -> Batch[Array]:
        if self._note.work is not None:
            self._note.settle()
        sampler, uniforms = self._sampler, self._uniforms
        issued = sampler.issued
        if not sampler.size:
            got = "an empty one" if self._sequence is None else f"none, steps kept: {sampler.rows}"
            raise ValueError(f"sample needs a buffer with at least one {self._thing}, got {got}")
        batch, call = self._drawn.new(
            batch_size, issued - 1, beta, sampler.weight_bounds(), self._last.room_for(batch_size),
            True,
        )  # fmt: skip
        fused = self._fused if batch_size <= uniforms.size else None
        numbers = None if fused is None else uniforms.at_hand(batch_size)
        at_once = numbers is not None
        outer = None
        if not at_once:  # uniforms are used up before the batch is drawn
            outer = self._note.begin(partial(self._undo_draw, uniforms.moment(), self._last.draws))
        try:
            if fused is not None:
                sampler.prepare()
                if numbers is None:
                    numbers = uniforms.block_for(batch_size)
                strange = fused(sampler.distribution, numbers, sampler.stratified, call)
                if strange:
                    raise self._drawn.refused(strange, call)
            else:
                slots = sampler.draw(batch_size, uniforms, batch.probabilities)
                self._drawn.complete(call, slots)
        except ValueError:
            self._note.settle()  # nothing was drawn
            raise
        if not at_once:
            self._note.end(outer)
        return batch if self._drawn.plain else self._drawn.finished(batch)

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
        with self._lock: self._prefetchers.add(prefetcher)  # fmt: skip
        return prefetcher.start()

    def _sample_ahead(self, batch_size: int, beta: float, waiting: deque[Ahead]) -> None:
        """Draw a batch that will be delivered from ``waiting``."""
        with self._lock: self._draw_ahead(batch_size, beta, waiting)  # fmt: skip

    def _draw_ahead(self, batch_size: int, beta: float, waiting: deque[Ahead]) -> None:
        self._note.settle()
        before = self._uniforms.moment()
        batch = self._sample(batch_size, beta)
        waiting.append(Ahead(batch, self._last.draws, before))

    def _delivered_uniforms(self) -> UniformStream:
        """Return the uniforms as they were after the last batch that somebody has got.

        They are what belongs into a checkpoint. The caller holds the lock.
        """
        undelivered = [ahead for one in self._prefetchers for ahead in one.undelivered()]
        if not undelivered:
            return self._uniforms
        return self._uniforms.at(min(undelivered, key=attrgetter("number")).before)

    def _after_fork(self) -> None:
        """Become a buffer of the child process: with its own numbers, or not usable at all."""
        if self._memory.directory is not None:
            self._note.work = None  # it is the parent's to settle
        super()._after_fork()
        for prefetcher in self._prefetchers:
            prefetcher.abandon()
        self._prefetchers.clear()
        if self._memory.directory is not None:
            self._lock = forking.Refusal(
                f"this buffer keeps its rows in files in {self._memory.directory}, which belong to "
                "the process that made it: a forked one has to make a buffer of its own"
            )

    def get(self, ids: ArrayLike, beta: float = 1.0) -> Batch[Array]:
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

        Notes
        -----
        O(B log N).

        Examples
        --------
        >>> import prioritized_replay as per
        >>> fields = {"obs": per.Field(), "action": per.Field((), "int64"), "reward": per.Field()}
        >>> replay = per.ReplayBuffer(2, fields)
        >>> ids = [int(replay.add(k, 0, 10.0 * k, k + 1, False)[0]) for k in range(3)]
        >>> replay.get(ids[1:]).reward
        array([10., 20.], dtype=float32)
        >>> replay.get(ids)
        Traceback (most recent call last):
        KeyError: 'ids must be of live transitions, from 1 to 2, got 0, which is gone'
        """
        wanted = arguments.ids(ids)
        beta = arguments.number("beta", beta, 1.0)
        with self._lock: return self._get(wanted, beta)  # fmt: skip

    def _get(self, wanted: Ints, beta: float) -> Batch[Array]:
        self._note.settle()
        self._require_live(wanted)
        slots = wanted % self._capacity
        bounds = self._sampler.weight_bounds()
        batch, call = self._drawn.new(
            slots.size, self._sampler.issued - 1, beta, bounds, np.empty(RECORD, INT64), False
        )
        batch.probabilities[:] = self._sampler.probabilities(slots)
        self._drawn.complete(call, slots)
        return batch if self._drawn.plain else self._drawn.finished(batch)

    def _live_ids(self) -> tuple[int, int]:
        """Return the first id of a row that is there, and the next to be given."""
        self._note.settle()
        issued = self._sampler.issued
        return issued - self._sampler.rows, issued

    def _block(self, first: int, stop: int) -> Block:
        """Return rows for an export; they do not count as drawn."""
        ids = np.arange(first, stop)
        if first < self._live_ids()[0]:
            raise RuntimeError(
                "to_minari needs the transitions to stay until they are written, but others were "
                f"added meanwhile, and {first} is gone"
            )
        slots = ids % self._capacity
        batch, call = self._blocks.new(
            ids.size, self._sampler.issued - 1, 0.0, (1.0, 1.0), np.empty(RECORD, INT64), False
        )
        batch.probabilities[:] = 1.0
        self._blocks.complete(call, slots)
        batch = batch if self._blocks.plain else self._blocks.finished(batch)
        truncated, unrelated = (self._rows.marked(m, slots) for m in (TRUNCATED, UNRELATED))
        return Block(first, batch, truncated, unrelated)

    def _update(self, wanted: Ints, errors: Floats) -> int:
        if self._note.work is not None:
            self._note.settle()
        if self._sequence is not None:
            errors = self._errors_of_sequences(self._sequence, wanted, errors)
        return self._sampler.update(wanted, errors)

    def _largest_waiting(self) -> float:
        return self._transitions.windows.largest_entry()

    def _clear_all(self) -> None:
        self._sampler.clear()
        self._transitions.clear()
        if self._sequences is not None:
            self._sequences.clear()
        self._last.clear()

    def save(self, path: str | os.PathLike[str], extra: Mapping[str, bytes] | None = None) -> None:
        """Save everything to a folder, so that :meth:`load` can restore this buffer.

        The checkpoint is complete, or it does not exist. Until the new one is complete and on disk,
        the old one in that folder stays in force. A second save to the same folder writes only what
        changed: rows and frames in pieces of some megabytes, and all priorities.

        Parameters
        ----------
        path : path
            The folder; it is created if it is not there. It belongs to this buffer then, until the
            buffer is gone or has saved to four other folders, or one that was loaded from it in
            the same process saves to it.
        extra : mapping of str to bytes, optional
            Bytes to keep with the buffer, by name: a learner, say. They are part of the same
            checkpoint, so the two are never of different moments. :meth:`load` returns them as
            :attr:`extra`. Names are of lower-case letters, digits and underscores, with hyphens
            between words. At most 256 names, and 16 GiB in all.

        Raises
        ------
        FileExistsError
            If another live buffer saves to the folder, or keeps its rows there.
        OSError
            If it cannot be written, as on a full disk. The checkpoint that was there still is.
        ValueError
            If the seed was a generator that is not one of NumPy's own, or ``extra`` has a name or
            a value that is not allowed.

        Notes
        -----
        O(what changed). Other threads may use the buffer meanwhile. Its lock is held twice: to list
        what there is, and to copy the priorities, the marks of rows drawn, the open windows and
        what changed while the rest was written (beyond 32 MiB, to write it). The checkpoint is of
        that second moment. Forcing files to disk is done without the lock.

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
        ValueError
            If ``directory`` is no path, or ``max_bytes`` is no integer >= 1.
        FileExistsError
            If ``directory`` belongs to a live buffer, or if it is not ``path`` and holds a buffer
            or a checkpoint.
        MemoryError, OSError
            If there is no room for the buffer.

        Notes
        -----
        O(size of the checkpoint), and O(N log N) for the priorities. What the manifest asks for
        is held against the files' sizes and the machine's memory before it is allocated. Where
        another buffer saves to the folder meanwhile, loading begins again with the new checkpoint.

        Examples
        --------
        >>> import tempfile
        >>> import prioritized_replay as per
        >>> fields = {"obs": per.Field(), "action": per.Field((), "int64"), "reward": per.Field()}
        >>> replay = per.ReplayBuffer(10, fields, seed=1)
        >>> _ = replay.extend({"obs": range(5), "action": range(5), "reward": range(5),
        ...                    "next_obs": range(1, 6), "discount": [0.9] * 5})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     replay.save(folder)
        ...     again = per.ReplayBuffer.load(folder)  # its random numbers are saved too
        >>> bool((again.sample(8).ids == replay.sample(8).ids).all())
        True
        """
        return read_checkpoint(
            path, memory_limit(), lambda reader: cls._loaded(reader, directory, max_bytes)
        )

    @classmethod
    def _loaded(
        cls, reader: Reader, directory: str | os.PathLike[str] | None, max_bytes: int | None
    ) -> Self:
        """Return the buffer of one checkpoint; see :meth:`load`."""
        # What the caller named is not to be blamed on the manifest.
        if max_bytes is not None:
            max_bytes = arguments.integer("max_bytes", max_bytes)
        if directory is not None:
            directory = reopened(directory, reader.folder)
        replay = None
        try:
            options = cls._described(reader)
            replay = cls(**options, directory=directory, max_bytes=max_bytes)
            replay._restore(reader)
            replay._loaded_extra = reader.extra()
            reader.finish()
            replay._saver.loaded(reader, replay._contents().pieces)
            return replay
        except BaseException as error:
            if replay is not None:
                replay._memory.discard()
            if isinstance(error, (CheckpointError, OverLimit, OSError)):
                raise
            if isinstance(error, NOT_DESCRIBED):
                raise reader.not_described("a buffer", error) from error
            raise

    def flush(self) -> int:
        """Make everything up to now survive this process, where the buffer is in a directory.

        A checkpoint is saved into the directory, beside the files that are in use: these change
        with every step, and what a killed process leaves of them is worth nothing. So the disk
        has to have room for both. ``ReplayBuffer.load(directory, directory=directory)`` reopens
        the buffer as of the last flush.

        Returns
        -------
        int
            Number of transitions, or of sequences, that are safe now.

        Raises
        ------
        ValueError
            If the buffer has no directory.
        OSError
            If it cannot be written. The state of the last flush is still there.

        Notes
        -----
        As for :meth:`save`.

        Examples
        --------
        >>> import tempfile
        >>> import prioritized_replay as per
        >>> fields = {"obs": per.Field(), "action": per.Field((), "int64"), "reward": per.Field()}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     replay = per.ReplayBuffer(10, fields, directory=folder)
        ...     ids = replay.add(0.0, 0, 1.0, 1.0, False)
        ...     safe = replay.flush()
        ...     ids = replay.add(1.0, 0, 1.0, 2.0, False)  # after the flush: lost
        ...     del replay  # a folder belongs to one live buffer
        ...     again = per.ReplayBuffer.load(folder, directory=folder)
        ...     safe, len(again)
        ...     del again
        (1, 1)
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
        """Return what belongs to a checkpoint. The caller holds the lock."""
        self._note.settle()
        structures = self._structures | self._columns.states
        description = {
            "capacity": self._capacity,
            "fields": [
                [name, describe_fields(structure.nested)]
                for name, structure in structures.items()
                if name not in ADDED
            ],
            "sampler": describe_sampler(self._sampler.specification),
            "n_step": self._n_step,
            "gamma": self._gamma,
            "num_envs": self._streams.num_envs,
            "autoreset": self._streams.autoreset,
            "sequence": None if self._sequence is None else asdict(self._sequence),
        }
        return self._contents_of(description)

    @staticmethod
    def _described(reader: Reader) -> dict[str, Any]:
        """Return the arguments that a checkpoint describes, if they go with its files."""
        options = dict(reader.description)
        if "kind" in options:
            raise reader.error("holds a PrioritizedIndex: use PrioritizedIndex.load")
        names = (
            *("capacity", "fields", "sampler", "n_step", "gamma", "num_envs", "autoreset"),
            "sequence",
        )
        if tuple(options) != names:
            raise reader.error(f"must describe {', '.join(names)}, got {', '.join(options)}")
        capacity, n_step, streams = options["capacity"], options["n_step"], options["num_envs"]
        for name, value in (("capacity", capacity), ("n_step", n_step), ("num_envs", streams or 1)):
            if type(value) is not int or value < 1:
                raise reader.error(f"must have {name} an integer >= 1, got {value!r}")
        if n_step > MOST_STEPS:
            raise reader.error(f"must have n_step <= {MOST_STEPS}, got {n_step}")
        reader.require("windows", np.int64, (streams or 1, 3 + 2 * n_step))
        options["fields"] = {
            name: described_fields(part, reader.most_bytes // 4) for name, part in options["fields"]
        }
        options["sampler"] = described_sampler(options["sampler"], SPECIFICATIONS)
        options["sequence"] = sequence = _described_sequence(options["sequence"])
        if sequence is not None:
            states = Schema(options["fields"], sequences=True).leaves_of_states
            require_pieces(reader, sequence, streams or 1, states)
        needed = 0 if isinstance(options["sampler"], Uniform) else LEAST_BYTES * capacity
        if needed > reader.most_bytes:
            raise reader.error(
                f"describes a buffer of {needed} bytes or more, beyond {reader.most_bytes}"
            )
        return options

    def _parts(self) -> list[Checkpointed]:
        parts: list[Checkpointed] = [
            self._delivered_uniforms(), self._sampler, self._last, self._transitions
        ]  # fmt: skip
        return parts if self._sequences is None else [*parts, self._sequences]

    def _restore(self, reader: Reader) -> None:
        super()._restore(reader)
        most = self._sampler.most
        if self._transitions.windows.largest_entry() > most:
            raise reader.error(f"must have windows that enter with priorities <= {most}")

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
            Of sequences, ``size`` is how many can be drawn, and ``steps`` how many steps are kept.

        Examples
        --------
        >>> import prioritized_replay as per
        >>> fields = {"obs": per.Field(), "action": per.Field((), "int64"), "reward": per.Field()}
        >>> replay = per.ReplayBuffer(2, fields, seed=0)
        >>> ids = [int(replay.add(k, 0, 1.0, k + 1, False)[0]) for k in range(3)]
        >>> replay.update_priorities(ids, [1.0, 1.0, 3.0])  # the first row was overwritten
        2
        >>> stats = replay.stats()
        >>> stats["size"], stats["ids_issued"], stats["stale_updates"], stats["never_drawn"]
        (2, 3, 1, 1.0)
        """
        with self._lock: return self._stats()  # fmt: skip

    def _stats(self) -> dict[str, float]:
        self._note.settle()
        more = {"open_windows": len(self._transitions.windows)}
        if self._sequences is not None:
            more["steps"] = self._sampler.rows
        return self._statistics(**more)

    def _were_drawn(self, slots: Ints) -> Flags:
        return self._rows.marked(DRAWN, slots)

    def _rewards(self) -> Array | None:
        slots = np.arange(*self._live_ids()) % self._capacity
        rewards: Array = self._rows.columns["reward"][slots]
        return rewards

    def _add(self, steps: Steps, errors: Floats | None) -> Ints:
        """Add steps of any streams. All checks come before the first change."""
        self._note.settle()
        sampler = self._sampler
        if self._sequences is not None:
            return self._add_to_sequences(self._sequences, steps, errors)
        priorities = None if errors is None else sampler.priorities_of(errors, "td_error")
        made = self._transitions.add(steps, priorities, self._entry_priority())
        return self._latest_ids(made)

    def _add_to_sequences(self, sequences: Sequences, steps: Steps, errors: Floats | None) -> Ints:
        """Add steps, and let the sequences that they complete be drawn."""
        if errors is not None:
            raise ValueError(
                "td_error must be left out where there are sequences, got one of a single step: "
                "give errors to update_priorities"
            )
        sequences.make_room(steps.number)
        named = steps.streams is not None
        given, entry = sequences.staged(steps), self._sampler.entry_priority()
        follow = partial(sequences.follow, given, entry, named=named)
        outer = self._note.begin(follow)
        try:
            self._transitions.add(steps, self._not_rows[: steps.number], 0.0)
        except (ValueError, MemoryError, OSError):
            self._note.end(outer)  # nothing has changed
            raise
        ids = follow()
        self._note.end(outer)
        return ids

    def _add_whole(
        self, values: list[Any], ends: tuple[Any, Any], errors: Floats | None
    ) -> Ints | None:
        """Add a step of every stream, or return None if that is for :meth:`_add`."""
        if self._note.work is not None:
            self._note.settle()
        priorities = None if errors is None else self._sampler.priorities_of(errors, "td_error")
        made = self._transitions.add_whole(values, ends, priorities, self._entry_priority())
        if made < 0:
            return None
        return self._latest_ids(made)

    def _add_one(self, values: list[Any], ends: tuple[bool, bool], error: float | None) -> Ints:
        """Add a step of a single stream that is a row of its own."""
        if self._note.work is not None:
            self._note.settle()
        priority = NAN if error is None else self._sampler.priority_of(error)
        ids = np.empty(1, INT64)
        ids[0] = self._transitions.add_one(values, ends, priority, self._entry_priority())
        return ids

    def _entry_priority(self) -> float:
        """Return what new rows enter with; below 0: the largest so far, or 1 if there is none."""
        sampler = self._sampler
        if sampler.current or (sampler.min_priority > 1.0 and not sampler.size):
            return sampler.entry_priority()
        return -1.0

    def _wrong_columns(self, extra: Mapping[str, Any]) -> ValueError:
        """Return the error for further columns that are not those of the buffer."""
        self._columns.require((*STEP, *extra))
        return ValueError(
            "discount must be left to the buffer, which has it from gamma and terminated, "
            f"got {arguments.shown(extra['discount'])}"
        )

    def _add_episode(self, episode: Episode) -> Ints:
        self._note.settle()
        sampler = self._sampler
        if self._sequences is not None:
            return self._add_episode_to_sequences(self._sequences, episode)

        def entering(given: Floats, calls: Ints) -> Callable[[int], None]:
            priorities = sampler.priorities_in_turn(given, calls)
            return partial(sampler.append_at, priorities=priorities)

        return self._latest_ids(self._transitions.add_episode(episode, entering))

    def _add_episode_to_sequences(self, sequences: Sequences, episode: Episode) -> Ints:
        """Add the steps of an episode, and let the sequences that they complete be drawn."""
        sampler = self._sampler
        sequences.make_room(episode.steps, of_one_stream=True)
        follow = partial(
            sequences.follow, sequences.packed(episode), sampler.entry_priority(),
            stream=episode.stream, ended=episode.ended, steps=episode.steps,
        )  # fmt: skip

        def entering(priorities: Floats, calls: Ints) -> Callable[[int], None]:
            return partial(sampler.issue_at, count=priorities.size)

        outer = self._note.begin(follow)
        try:
            self._transitions.add_episode(episode, entering)
        except (ValueError, MemoryError, OSError):
            self._note.end(outer)  # nothing has changed
            raise
        ids = follow()
        self._note.end(outer)
        return ids

    def _end_episode(self, streams: Ints | None) -> Ints:
        self._note.settle()
        sequences = self._sequences
        if sequences is not None:
            sequences.make_room(self._streams.count)
            end = partial(self._end_sequences, sequences, streams, self._sampler.entry_priority())
            outer = self._note.begin(end)
            ids = end()
            self._note.end(outer)
            return ids
        return self._latest_ids(self._transitions.interrupt(streams, self._entry_priority()))

    def _end_sequences(self, sequences: Sequences, streams: Ints | None, entry: float) -> Ints:
        """End the episodes of these streams, all if None; a second call does nothing."""
        self._transitions.interrupt(streams, 0.0)
        return sequences.end(streams, entry)

    def _require_live(self, ids: Ints) -> None:
        super()._require_live(ids)
        some = self._sampler.some
        if some is None:
            return
        none = some.present[ids % self._capacity] == 0
        if none.any():
            raise KeyError(f"ids must name sequences, got {ids[none][0]}, at which none begins")

    def _errors_of_sequences(
        self, sequence: SequenceSpecification, wanted: Ints, errors: Floats
    ) -> Floats:
        """Return one error for each sequence, float64[B], of one each or one of each step.

        Raises
        ------
        ValueError
            If an id is that of a step at which no sequence begins.
        """
        sampler, some = self._sampler, self._sampler.some
        assert some is not None
        live = (wanted >= sampler.issued - sampler.rows) & (wanted < sampler.issued)
        slots = np.where(live, wanted % self._capacity, 0)
        none = live & (some.present[slots] == 0)
        if none.any():
            raise ValueError(
                f"ids must name sequences, got {wanted[none][0]}, at which none begins"
            )
        if errors.ndim == 1:
            return errors
        assert isinstance(self._drawn, SequenceBuilder)
        steps = self._drawn.steps_of(np.where(live, slots, -1), sampler.issued - 1)
        return mixed_errors(steps, errors, sequence.burn_in, sequence.priority_mix)

    def _extend(self, columns: dict[str, Array], errors: Floats | None) -> Ints:
        self._note.settle()
        sampler, count = self._sampler, len(columns["reward"])
        priorities = None if errors is None else sampler.priorities_of(errors)
        if priorities is None:
            priorities = np.full(count, sampler.entry_priority())

        self._transitions.extend(columns, partial(sampler.append_at, priorities=priorities))
        return self._latest_ids(count)


def _checked_sequence(sequence: Any, capacity: int, n_step: int) -> SequenceSpecification | None:
    """Return what is drawn, if a buffer can have it."""
    if sequence is None:
        return None
    if not isinstance(sequence, SequenceSpecification):
        raise ValueError(f"sequence must be a Sequence, got {arguments.shown(sequence)}")
    if n_step != 1:
        raise ValueError(
            f"n_step must be 1 where there are sequences, got {n_step}: n_step_targets makes "
            "targets of several steps along a sequence"
        )
    if capacity < sequence.length:
        raise ValueError(
            f"capacity must be >= the length of a sequence, {sequence.length}, got {capacity}"
        )
    return sequence


def _described_sequence(plain: Any) -> SequenceSpecification | None:
    """Return the specification that a checkpoint describes."""
    if plain is None:
        return None
    sequence = SequenceSpecification(**plain)
    if asdict(sequence) != plain:
        raise ValueError(f"a sequence must be described in full, got {plain}")
    return sequence


def _one_error(td_error: Any) -> float:
    if type(td_error) is float:
        return td_error
    return float(arguments.errors(td_error, 1, "td_error")[0])
