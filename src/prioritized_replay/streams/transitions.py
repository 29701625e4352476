"""Transitions made from steps: windows, rows and shared frames joined.

Every change of a call is made by one compiled kernel, see :mod:`._step_kernels`. Frames are counted
besides, in several calls; a note says so meanwhile, and the counts follow from the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy import ndarray  # by this name it is found in one step
from numpy.typing import NDArray

from prioritized_replay.checkpoint import manifest
from prioritized_replay.checkpoint.loading import Reader
from prioritized_replay.checkpoint.manifest import Piece
from prioritized_replay.fields.field import LARGEST
from prioritized_replay.fields.nested import Structure
from prioritized_replay.note import Note
from prioritized_replay.sampling import _ring_kernels as ring
from prioritized_replay.storage.marks import MARKS, TRUNCATED, UNRELATED
from prioritized_replay.storage.memory import Memory, Words
from prioritized_replay.storage.rows import Rows
from prioritized_replay.storage.shared_observation import SharedObservation
from prioritized_replay.streams import _step_kernels as kernels
from prioritized_replay.streams.autoreset import Autoreset
from prioritized_replay.streams.episodes import Episode, EpisodeWindows, TooLarge
from prioritized_replay.streams.n_step import OpenWindows
from prioritized_replay.streams.staging import Staging

__all__ = ["Steps", "Transitions"]

Array = NDArray[Any]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FLOAT64, BOOL = np.dtype(np.float64), np.dtype(np.bool_)
NO_ROOM = -1 - kernels.NO_ROOM
Entering = Callable[[Floats, Ints], Callable[[int], None]]
COMPUTED = ("discount", "terminated")  # columns of a row that no caller gives with a step


class Steps(NamedTuple):
    """Steps of K different streams, each value fit for its column."""

    number: int
    """K"""
    streams: Ints | None
    """int64[K]; None: all streams, in order."""
    values: Sequence[Any]
    """One array[K, ...] for each leaf that is given, in their order; float64 stands for float32.
    For a single step, what can be assigned to an element of the column."""
    terminated: Any
    """bool[K]"""
    truncated: Any
    """bool[K]"""
    single: bool
    """There is one step, and the values have no leading axis."""


class Change:
    """A change of several calls, which is taken back until it is decided, and then completed."""

    def __init__(self) -> None:
        self.commit: Callable[[], None] | None = None
        """What makes the change; it may be called again if it was interrupted."""


class Transitions:
    """N slots for transitions of up to n steps, and the steps of the windows that are open.

    Parameters
    ----------
    capacity : int
        Number of slots N.
    structures : mapping of str to Structure
        Of every column of a transition, in the order in which they are kept.
    n_step : int
        Steps n of a whole window, >= 1.
    gamma : float
        Discount of one step.
    streams : int
        Number of streams E.
    autoreset : {"next_step", "same_step", "disabled"}
        What the environments do after an episode's end.
    memory : Memory
        Where rows and frames lie.
    counters, entering : int64[...], float64[...]
        Of the sampler: the ids given so far, and the priorities with which rows enter.
    tell : callable
        Makes room in ``entering``.
    note : Note
        Where to note what an interrupted call leaves to do.

    Attributes
    ----------
    rows : Rows
        One for each slot; in the place of a large observation a row has the numbers of its frames.
    shared : list of SharedObservation
        The large observations.
    windows : OpenWindows
        Empty for n = 1.
    """

    def __init__(
        self,
        capacity: int,
        structures: Mapping[str, Structure],
        n_step: int,
        gamma: float,
        streams: int,
        autoreset: Autoreset,
        memory: Memory,
        counters: Ints,
        entering: Floats,
        tell: Callable[[], None],
        note: Note,
    ) -> None:
        self._capacity = capacity
        self._n_step = n_step
        self._counters, self._tell, self._note = counters, tell, note
        self._identity = object()
        self._rewritten = 0  # how often all rows have been changed
        self._next_step = autoreset == "next_step"
        obs, next_obs = list(structures["obs"].leaves), list(structures["next_obs"].leaves)
        fields = {
            name: field for part in structures.values() for name, field in part.leaves.items()
        }
        self.shared = [
            SharedObservation(number, names, fields[names[0]], capacity, streams, memory)
            for number, names in enumerate(zip(obs, next_obs, strict=True))
            if SharedObservation.worthwhile(fields[names[0]])
        ]
        for shared in self.shared:
            fields |= dict.fromkeys(shared.names, shared.references)
        self.rows = Rows(capacity, fields, memory, "rows")
        self.windows = OpenWindows(n_step, gamma, streams)
        self._steps = Rows(streams * n_step, fields, memory, "steps") if n_step > 1 else None
        self._step_words = self.rows.words[:0] if self._steps is None else self._steps.words
        reward = np.dtype(fields["reward"].dtype)
        given = {name: field for name, field in fields.items() if name not in COMPUTED}
        large = {name for shared in self.shared for name in shared.names}
        self.staging = Staging(
            given, obs, next_obs, self.rows, capacity, streams, n_step, gamma,
            LARGEST.get(reward.itemsize, np.inf) if reward.kind == "f" else np.inf,
            [name for name in obs if self._next_step and name not in large],
        )  # fmt: skip
        self._final_words = np.zeros(max(self.staging.final_words, 1), np.uint64)
        # Where the episodes of all streams ended, array[E, ...] for leaves of next_obs.
        self._finals = {
            name: np.ndarray(
                (streams, *fields[name].shape), fields[name].dtype, self._final_words, place
            )
            for name, place in self.staging.final_places.items()
        }
        self._next_names = set(next_obs)
        self._all = np.arange(streams)
        columns = self.staging.columns
        self._reward_place = list(given).index("reward")
        self._reward = columns["reward"]
        self._places = {name: place for place, name in enumerate(given)}
        # The columns that are copied as they come, and what tells that float64 came for float32.
        self._copied = [
            (place, column.values, column.wide, 1 << place)
            for place, (name, column) in enumerate(columns.items())
            if name not in large
        ]
        # The same for a step of every stream, with the shape that it must have.
        self._whole = [
            (column.values, np.dtype(column.field.dtype), column.values.shape, column.wide,
             1 << place)
            for place, column in enumerate(columns.values())
        ]  # fmt: skip
        self._flags_shape = (streams,)
        self._numbered = [(place, column) for place, column, _, _ in self._copied]
        self._full = streams
        # What kernels take, in their order.
        staging, windows = self.staging, self.windows
        self._is_terminated, self._is_truncated = staging.flags[:2]
        # What the flags of a call are in which no final observation is to be looked up.
        self._no_ends = bytes(2 * streams) if autoreset == "same_step" else None
        of_ring = counters, entering
        self._for_row = staging.block, staging.plan, self.rows.words, *of_ring
        remembered = windows.state, self._final_words, windows.powers
        self._for_looking = staging.block, staging.plan, *remembered
        rows = self.rows.words, self._step_words
        self._for_interrupts = (
            staging.block, staging.plan, *rows, windows.state, windows.powers, *of_ring
        )  # fmt: skip
        if self._steps is None:
            self._kernel: Callable[..., int] = kernels.add_steps
            self._for_steps: tuple[Any, ...] = (
                staging.block, staging.plan, self.rows.words, *remembered, *of_ring
            )  # fmt: skip
        else:
            self._kernel = kernels.add_windows
            self._for_steps = staging.block, staging.plan, *rows, *remembered, *of_ring

    def add_one(
        self, values: Sequence[Any], ends: tuple[bool, bool], given: float, entry: float
    ) -> int:
        """Make one step of a single stream a transition, where n = 1 and nothing is shared.

        Parameters
        ----------
        values : sequence
            One for each leaf, fit for its column.
        ends : tuple of two bool
            Whether the episode ended in a terminal state, and whether it was cut off.
        given : float
            The priority to enter with, or NaN.
        entry : float
            The priority of a row without one; below 0: the largest so far.

        Returns
        -------
        int
            Its id.
        """
        for place, column in self._numbered:
            column[0] = values[place]
        self._is_terminated[0], self._is_truncated[0] = ends
        identifier: int = kernels.add_row(*self._for_row, given, entry)
        if identifier < 0:
            self._tell()
            identifier = kernels.add_row(*self._for_row, given, entry)
        if identifier < 0:
            raise self._counters_damaged()
        return identifier

    def _counters_damaged(self) -> RuntimeError:
        """Return the error for a kernel that finds no room although no row waits."""
        issued, told = self._counters[[ring.ISSUED, ring.TOLD]].tolist()
        return RuntimeError(
            f"the counters of the buffer were overwritten ({issued} ids issued, {told} received): "
            "make a new buffer and load a checkpoint"
        )

    def add(self, steps: Steps, priorities: Floats | None, entry: float) -> int:
        """Keep steps, and the transitions that they complete.

        Parameters
        ----------
        steps : Steps
            Values are copied here; nobody keeps the arrays.
        priorities : float64[K], optional
            With which the windows that begin at these steps enter.
        entry : float
            The priority of rows that have none of their own; below 0: the largest so far.

        Returns
        -------
        int
            How many transitions were made; their ids are the last ones given.

        Raises
        ------
        ValueError
            If a value does not fit its column, a return is too large for its column, or a step
            may be a reset step and may not; nothing has changed then,
        MemoryError, OSError
            or if there is no room for new frames.
        """
        wide = self._stage(steps, priorities)
        named, with_errors = steps.streams is not None, priorities is not None
        if self.shared:
            return self._add_shared(steps, wide, named, with_errors, entry)
        return self._commit(steps, wide, named, with_errors, entry)

    def add_whole(
        self,
        values: Sequence[Any],
        ends: tuple[Any, Any],
        priorities: Floats | None,
        entry: float,
    ) -> int:
        """Keep a step of every stream, if all of it fits as it is.

        That is the common case, and a call that does nothing else takes half the time. Nothing may
        be shared, and no value nested.

        Parameters
        ----------
        values : sequence
            What a caller gave of each leaf.
        ends : tuple of two
            ``terminated`` and ``truncated``, from the caller too.
        priorities, entry
            As for :meth:`add`.

        Returns
        -------
        int
            How many transitions were made, or < 0 where something is to be cast, to be looked up
            in an info, to be refused, or to be handed over first: nothing has changed then, and
            :meth:`add` is for it.
        """
        wide = 0
        terminated, truncated = ends
        for value, (column, dtype, shape, floats, bit) in zip(values, self._whole, strict=False):
            if type(value) is not ndarray or value.shape != shape:
                return -1
            if value.dtype is dtype:
                column[...] = value
            elif floats is not None and value.dtype is FLOAT64:
                floats[...] = value
                wide |= bit
            else:
                return -1
        shape = self._flags_shape
        if type(terminated) is not ndarray or terminated.dtype is not BOOL:
            return -1
        if terminated.shape != shape:
            return -1
        self._is_terminated[...] = terminated
        if truncated is False:
            self._is_truncated.fill(False)
        elif type(truncated) is ndarray and truncated.dtype is BOOL and truncated.shape == shape:
            self._is_truncated[...] = truncated
        else:
            return -1
        staging = self.staging
        if self._no_ends is not None and staging.flags[:2].tobytes() != self._no_ends:
            return -1
        if priorities is not None:
            staging.entries[...] = priorities
        if staging.rewards is not None:
            staging.rewards[...] = self._reward.values
        options = self._full, wide, False, self._next_step, priorities is not None, entry
        made: int = self._kernel(*self._for_steps, *options)
        return made

    def _stage(self, steps: Steps, priorities: Floats | None) -> int:
        """Copy the values of a call to the staging area; return which of them came as float64."""
        staging, count, values = self.staging, steps.number, steps.values
        mask = 0
        if steps.single:
            for place, column, _, _ in self._copied:
                column[0] = values[place]
            staging.flags[0, 0] = steps.terminated
            staging.flags[1, 0] = steps.truncated
        elif count == self._full:
            for place, column, wide, bit in self._copied:
                value = values[place]
                if wide is not None and value.dtype is FLOAT64:
                    wide[...] = value
                    mask |= bit
                else:
                    column[...] = value
            staging.flags[0] = steps.terminated
            staging.flags[1] = steps.truncated
        else:
            for place, column, wide, bit in self._copied:
                value = values[place]
                if wide is not None and value.dtype is FLOAT64:
                    wide[:count] = value
                    mask |= bit
                else:
                    column[:count] = value
            staging.flags[0, :count] = steps.terminated
            staging.flags[1, :count] = steps.truncated
        if steps.streams is not None:
            staging.named[:count] = steps.streams
        if priorities is not None:
            staging.entries[:count] = priorities
        if staging.rewards is not None:
            staging.rewards[:count] = self._reward.values[:count]
        return mask

    def _commit(self, steps: Steps, wide: int, named: bool, with_errors: bool, entry: float) -> int:
        options = steps.number, wide, named, self._next_step, with_errors, entry
        made: int = self._kernel(*self._for_steps, *options)
        if made == NO_ROOM:
            self._tell()
            made = self._kernel(*self._for_steps, *options)
        if made == NO_ROOM:
            raise self._counters_damaged()
        if made < 0:
            raise self._refused(made, steps)
        return made

    def _add_shared(
        self, steps: Steps, wide: int, named: bool, with_errors: bool, entry: float
    ) -> int:
        """Keep the large observations of the steps as frames, then the steps."""
        staging = self.staging
        streams = self._all if steps.streams is None else steps.streams
        values = {
            name: steps.values[self._places[name]] for part in self.shared for name in part.names
        }
        if steps.single:
            values = {name: value[np.newaxis] for name, value in values.items()}
        if self._next_step:
            self._compare_with_ends(streams, values)
        made: int = kernels.look_at_steps(
            *self._for_looking, steps.number, wide, named, self._next_step
        )
        if made < 0:
            raise self._refused(made, steps)
        kept: Any = slice(0, steps.number)
        number = int(staging.kept[1])
        if number < steps.number:
            kept = staging.kept[2 : 2 + number]
            streams = np.ascontiguousarray(streams[kept])
            values = {name: np.ascontiguousarray(value[kept]) for name, value in values.items()}
        if self.looking and number:
            self.look_for_stacks(values)
        outer = self._note.work
        if number:
            last = [shared.last_references() for shared in self.shared]
            staging.kept[0] = 0
            self._note.begin(partial(self._recount_add, last))
            try:
                columns = self._encoded(streams, values)
            except (MemoryError, OSError):
                self._note.end(outer)  # nothing has changed
                raise
            for name, references in columns.items():
                staging.columns[name].values[kept] = references
            first = int(self._counters[ring.ISSUED]) % self._capacity
            self._release(self.rows, self._slots(first, min(made, self._capacity)))
            if self._steps is not None:
                self._release(self._steps, self.windows.places_of_next(streams))
            elif made > self._capacity:
                passing = made - self._capacity
                for shared in self.shared:
                    shared.drop({name: columns[name][:passing] for name in shared.names})
        self._commit(steps, wide, named, with_errors, entry)
        if self._steps is not None and made:
            self._hold_latest(made)
        self._note.end(outer)
        return made

    def _recount_add(self, last: Sequence[Array]) -> None:
        """Recount after an `add`; `last` is what the streams referred to before it."""
        if not self.staging.kept[0]:
            for shared, references in zip(self.shared, last, strict=True):
                shared.set_last_references(references)
        self.recount()

    def interrupt(self, streams: Ints | None, entry: float) -> int:
        """Close the open windows of streams where they are; return how many transitions that made.

        Parameters
        ----------
        streams : int64[K], optional
            All different; all streams if None.
        entry : float
            As for :meth:`add`.
        """
        staging, named = self.staging, streams is not None
        which = self._all if streams is None else streams
        if streams is not None:
            staging.named[: which.size] = which
        outer = self._note.work
        if self.shared and self._steps is not None:
            self._note.begin(self.recount)
            first = int(self._counters[ring.ISSUED]) % self._capacity
            count = min(self.windows.count(which), self._capacity)
            self._release(self.rows, self._slots(first, count))
        made: int = kernels.interrupt(*self._for_interrupts, which.size, named, entry)
        if made == NO_ROOM:
            self._tell()
            made = kernels.interrupt(*self._for_interrupts, which.size, named, entry)
        if made < 0:
            raise self._counters_damaged()
        if self.shared and self._steps is not None:
            self._hold_latest(made)
            self._note.end(outer)
        return made

    def await_no_reset(self) -> None:
        """Take the next step of every stream for one of an episode, whatever it looks like."""
        self.windows.awaiting[:] = kernels.NO_RESET

    def extend(self, columns: Mapping[str, Array], issue: Callable[[int], None]) -> None:
        """Keep complete transitions.

        Parameters
        ----------
        columns : mapping
            All leaves of B transitions, cast already. Of more than N the last stay.
        issue : callable
            ``issue(first)`` gives B rows their ids, from ``first`` on, and their priorities. It
            may be called again with the same result, if it was interrupted.

        Raises
        ------
        MemoryError, OSError
            If there is no room for new frames, or to hold the rows twice; nothing has changed then.
        """
        first_id = int(self._counters[ring.ISSUED])
        count = len(columns["reward"])
        kept = min(count, self._capacity)
        columns = {name: column[count - kept :] for name, column in columns.items()}
        first = (first_id + count - kept) % self._capacity
        outer = self._note.work
        if self.shared:
            self._note.begin(self.recount)
            try:
                columns = {**columns, **self._encoded(None, columns)}
                rows = self.rows.packed(columns, UNRELATED)
            except (MemoryError, OSError):
                self.recount()
                self._note.end(outer)
                raise
            self._release(self.rows, self._slots(first, kept))
        else:
            rows = self.rows.packed(columns, UNRELATED)
        self._note.begin(partial(self._extend_again, first, rows, issue, first_id))
        self.rows.place(first, rows)
        issue(first_id)
        self._note.end(outer)

    def _extend_again(
        self, first: int, rows: Words, issue: Callable[[int], None], first_id: int
    ) -> None:
        self.rows.place(first, rows)
        issue(first_id)
        self.recount()

    def add_episode(self, episode: Episode, entering: Entering) -> int:
        """Keep the steps of an episode in order, and the transitions that they complete.

        Rows, windows and priorities become what :meth:`add` would make of one step after the other.

        Parameters
        ----------
        episode : Episode
            At most N steps. Values are copied here; nobody keeps the arrays.
        entering : callable
            ``entering(given, calls)``, float64[B] and int64[B], takes the priorities with which B
            new rows enter, NaN for those without one of their own, and the step that completes
            each. It returns what gives these rows their ids; see ``issue`` of :meth:`extend`.

        Returns
        -------
        int
            How many transitions were made; their ids are the last ones given.

        Raises
        ------
        ValueError
            As :meth:`add`.
        MemoryError, OSError
            If there is no room for new frames, or to hold the rows twice. Nothing has changed then.
        """
        if self._begins_with_reset(episode):
            episode = episode.without_first()
        limit = float(self.staging.plan.view(np.float64)[kernels.LIMIT])
        try:
            windows = EpisodeWindows(episode, self.windows, limit)
        except TooLarge as refused:
            raise self._too_large(float(episode.columns["reward"][refused.step])) from None
        names = [name for shared in self.shared for name in shared.names]
        for step in range(episode.steps if names else 0):
            if not self.looking:
                break
            self.look_for_stacks({n: episode.columns[n][step : step + 1] for n in names})
        change = Change()
        last = [shared.last_references() for shared in self.shared]
        outer = self._note.begin(partial(self._settle, change, last))
        try:
            change.commit = self._prepared(episode, windows, entering)
        except (MemoryError, OSError):
            self._settle(change, last)
            self._note.end(outer)
            raise
        change.commit()
        self._note.end(outer)
        return windows.made

    def _prepared(
        self, episode: Episode, windows: EpisodeWindows, entering: Entering
    ) -> Callable[[], None]:
        """Make all that an episode adds, but for what others can see; return what shows it."""
        columns, stream, count = episode.columns, episode.stream, episode.steps
        encoded: dict[str, Array] = {}
        if self.shared and count:
            encoded = self._encoded(np.array([stream]), columns)
            columns = {**columns, **encoded}
        elif self.shared:  # it was a reset step alone
            none = [(name, part.references) for part in self.shared for name in part.names]
            columns = columns | {n: np.zeros((0, *f.shape), f.dtype) for n, f in none}
        before: dict[str, Array] = {}
        places = self.windows.places_to_come(stream, count)
        latest: dict[str, Array] = {}
        if self._steps is not None:
            held = self._steps.columns
            before = {name: held[name][windows.before.places] for name in columns}
            # Copies: an interrupted call is completed later, when the caller may have changed his.
            latest = {n: column[count - places.size :].copy() for n, column in columns.items()}
            for name in COMPUTED:  # no step has them
                latest[name] = np.zeros(places.size, held[name].dtype)
        kept = min(windows.made, self._capacity)
        made = windows.rows(columns, before, self._next_names, kept)
        marks = np.zeros(kept, np.uint8)
        if episode.truncated and self._steps is None:
            marks[-1:] = TRUNCATED
        rows = self.rows.packed(made, marks)
        first_id = int(self._counters[ring.ISSUED])
        first = (first_id + windows.made - kept) % self._capacity
        for shared in self.shared if encoded else ():
            if self._steps is not None:
                shared.hold_columns(made)
                shared.hold_columns(latest)
                shared.release(self._steps, places)
                shared.drop(encoded)
            shared.release(self.rows, self._slots(first, kept))
        over = episode.ended and count > 0
        line = self.windows.after(
            stream, count, windows.totals, windows.entries, windows.open_windows
        )
        if self._next_step:
            line[kernels.AWAITING] = kernels.RESET if over else kernels.NO_RESET
        finals = {name: columns[name][-1].copy() for name in self._finals if over}
        issue = entering(windows.given, windows.calls)

        def commit() -> None:
            self.rows.place(first, rows)
            if self._steps is not None:
                self._steps.write_rows(places, latest)
            for name, final in finals.items():
                self._finals[name][stream] = final
            self.windows.put(stream, line)
            issue(first_id)

        return commit

    def _settle(self, change: Change, last: Sequence[Array]) -> None:
        """Complete a change, or take it back; `last` is what the streams referred to before it."""
        if change.commit is not None:
            change.commit()
        else:
            for shared, references in zip(self.shared, last, strict=True):
                shared.set_last_references(references)
        self.recount()

    def _begins_with_reset(self, episode: Episode) -> bool:
        """Return whether the first step of an episode is a reset step; see the kernels' `look`."""
        stream = episode.stream
        if not (self._next_step and self.windows.awaiting[stream]):
            return False
        first = {name: column[:1] for name, column in episode.columns.items()}
        over = episode.steps == 1
        steps = Steps(
            1, np.array([stream]), [first[name] for name in self._places],
            over and episode.terminated, over and episode.truncated, False,
        )  # fmt: skip
        self._stage(steps, None)
        if self.shared:
            self._compare_with_ends(np.array([stream]), first)
        made: int = kernels.look_at_steps(*self._for_looking, 1, 0, True, True)
        if made < 0:
            raise self._refused(made, steps)
        return not self.staging.kept[1]

    def clear(self) -> None:
        """Forget all transitions and open windows. It may be called again if interrupted."""
        self._rewritten += 1
        self.windows.clear()
        for shared in self.shared:
            shared.clear(self._storages, np.flatnonzero(self.windows.awaiting))

    def recount(self) -> None:
        """Make what is counted of frames agree with the rows, after an interrupted call."""
        for shared in self.shared:
            shared.recount(self._storages)

    @property
    def looking(self) -> bool:
        """Whether it is not known yet of all observations how they are stacked."""
        return any(shared.looking for shared in self.shared)

    def look_for_stacks(self, values: Mapping[str, Array]) -> None:
        """Find out from K >= 1 steps how an observation is stacked, where that is not known yet."""
        written = min(int(self._counters[ring.ISSUED]), self._capacity)
        storages = [(self.rows, written)]
        if self._steps is not None:
            storages.append((self._steps, len(self._steps)))
        outer = self._note.begin(self.recount)
        for shared in self.shared:
            if shared.looking:
                shared.look_for_stack(values, storages)
                self._rewritten += not shared.looking
        self._note.end(outer)

    def pieces(self) -> list[Piece]:
        """Return the pieces of a checkpoint that hold rows, frames, steps and open windows."""
        issued = int(self._counters[ring.ISSUED])
        written = min(issued, self._capacity)
        pieces = self.rows.pieces("rows", self._bounds(issued))
        pieces.append(Piece("marks", None, partial(self.rows.marks, written)))
        if self._steps is not None:
            pieces += self._steps.pieces("steps", self._bounds_of_steps())
        for shared in self.shared:
            pieces += shared.pieces()
        if self.staging.final_words:
            pieces.append(Piece("finals", None, self._final_words.copy))
        return pieces + self.windows.pieces()

    def state(self) -> dict[str, Any]:
        """Return the rest of what belongs to a checkpoint, in plain values."""
        return {name: value for part in self.shared for name, value in part.state().items()}

    def restore(self, reader: Reader) -> None:
        """Restore the state from a checkpoint; the ids given must have been restored before.

        Raises
        ------
        CheckpointError
            If that is not possible; what has changed then is not defined.
        """
        issued = int(self._counters[ring.ISSUED])
        written = min(issued, self._capacity)
        parts = [("rows", self.rows, self._bounds(issued))]
        if self._steps is not None:
            parts.append(("steps", self._steps, self._bounds_of_steps()))
        for shared in self.shared:
            shared.restore(reader, sum(len(rows) for _, rows, _ in parts))
        for name, rows, bounds in parts:
            rows.restore(name, reader, bounds)
            for first, stop, _ in bounds:
                for shared in self.shared:
                    shared.adopt(rows, slice(first, stop), reader)
        for shared in self.shared:
            shared.adopted()
        marks = reader.array("marks", np.uint8, (len(MARKS), -(-written // 8)))
        self.rows.set_marks(marks, written)
        if self.staging.final_words:
            reader.fill("finals", self._final_words)
        self.windows.restore(reader)

    def _compare_with_ends(self, streams: Ints, values: Mapping[str, Array]) -> None:
        """Note of each row whether its large observations are those at which an episode ended."""
        flags = self.staging.flags[2]
        flags[:] = True
        for k in np.flatnonzero(self.windows.awaiting[streams]).tolist():
            flags[k] = all(
                shared.is_last(int(streams[k]), values[shared.names[0]][k])
                for shared in self.shared
            )

    @property
    def _storages(self) -> list[Rows]:
        return [self.rows] if self._steps is None else [self.rows, self._steps]

    def _bounds(self, issued: int) -> list[tuple[int, int, Hashable]]:
        """Return where pieces of rows begin and end, and what tells versions of them apart."""
        written = min(issued, self._capacity)
        each = max(manifest.PIECE // self.rows.row_size, 1)
        bounds: list[tuple[int, int, Hashable]] = []
        for first in range(0, written, each):
            stop = min(first + each, written)
            # Rows are written in the order of the ring: the latest number of any of these says all.
            back = ((issued - 1) % self._capacity - (stop - 1)) % self._capacity
            if (issued - 1) % self._capacity in range(first, stop):
                back = 0
            bounds.append((first, stop, (self._identity, self._rewritten, issued - 1 - back)))
        return bounds

    def bytes_to_come(self, stack: int) -> int:
        """Return about how many more bytes of frames there are when all slots are taken."""
        return sum(shared.bytes_to_come(stack) for shared in self.shared)

    def _bounds_of_steps(self) -> list[tuple[int, int, Hashable]]:
        assert self._steps is not None
        count = len(self._steps)
        each = max(manifest.PIECE // self._steps.row_size, 1)
        return [(first, min(first + each, count), None) for first in range(0, count, each)]

    def _encoded(self, streams: Ints | None, columns: Mapping[str, Array]) -> dict[str, Array]:
        """Return references in the place of large observations; all are encoded or none."""
        encoded: dict[str, Array] = {}
        if len(self.shared) > 1:
            for shared in self.shared:
                shared.make_room(streams, columns)
        for shared in self.shared:
            encoded |= shared.encode(streams, columns)
        return encoded

    def _release(self, rows: Rows, slots: Any) -> None:
        """Let go of the frames of rows that are about to be overwritten."""
        for shared in self.shared:
            shared.release(rows, slots)

    def _hold_latest(self, count: int) -> None:
        """Hold the frames of the rows made last."""
        kept = min(count, self._capacity)
        first = (int(self._counters[ring.ISSUED]) - kept) % self._capacity
        for shared in self.shared:
            shared.hold(self.rows, self._slots(first, kept))

    def _slots(self, first: int, count: int) -> Any:
        """Return an index of so many slots from one on, modulo N."""
        if first + count <= self._capacity:
            return slice(first, first + count)  # in a tenth of the time
        return (first + np.arange(count)) % self._capacity

    def _too_large(self, reward: float) -> ValueError:
        limit = LARGEST[self._reward.field.nbytes]
        return ValueError(
            f"reward must leave n-step returns within {limit:g}, got {reward:g} after others"
        )

    def _refused(self, code: int, steps: Steps) -> ValueError:
        """Return the error for what a kernel has refused."""
        place, kind = divmod(-1 - code, 4)
        if kind == kernels.NO_FIT:
            name = list(self.staging.columns)[place]
            value = np.asarray(steps.values[place])
            lost = np.isfinite(value) & (np.abs(value) > LARGEST[4])
            return ValueError(f"{name} must fit float32, got {value[lost].flat[0]}")
        reward = float(self._reward.values[place])
        if kind == kernels.TOO_LARGE:
            return self._too_large(reward)
        stream = place if steps.streams is None else int(steps.streams[place])
        return ValueError(
            f"reward must be 0 in a reset step, got {reward:g} for stream {stream}: its step "
            "begins where its last episode ended. If the environment was reset by hand, say so "
            "with end_episode() or autoreset='disabled'; if rewards are changed by a wrapper, "
            "leave reset steps out with env="
        )
