"""Sequences of steps: what they are, and which of them can be drawn.

It knows where episodes begin and end in each stream; it does not know priorities but the one with
which sequences enter, nor what a step consists of. Steps have been kept when it looks at them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from prioritized_replay.checkpoint.loading import Reader
from prioritized_replay.checkpoint.manifest import Piece
from prioritized_replay.fields import arguments
from prioritized_replay.fields.field import Field
from prioritized_replay.sampling import _ring_kernels as ring
from prioritized_replay.sampling.choices import require_choice
from prioritized_replay.sampling.sampler import Sampler
from prioritized_replay.storage.memory import WORD, Memory
from prioritized_replay.storage.rows import Rows
from prioritized_replay.storage.states import States
from prioritized_replay.streams import _sequence_kernels as kernels
from prioritized_replay.streams.episodes import Episode
from prioritized_replay.streams.transitions import Steps, Transitions

__all__ = ["Boundaries", "Sequence", "Sequences", "require_pieces"]

Array = NDArray[Any]
Ints = NDArray[np.int64]
Boundaries = Literal["stop", "cross"]
NOTHING = np.zeros(0, np.uint64)
NO_STATES = NOTHING, NOTHING, NOTHING.view(np.int32), NOTHING.view(np.int64)
ALL_STAGED = -1  # a stream's number in its place: see `follow_steps`


@dataclass(frozen=True)
class Sequence:
    """What is drawn are sequences of steps, for agents with memory.

    Steps are stored once, however many sequences share them. A sequence begins every ``length -
    overlap`` steps of an episode, and one more ends exactly where the episode does (Kapturowski et
    al. 2019, section 2.3). An episode that is shorter than ``length`` gives one sequence, which is
    padded at its end.

    Parameters
    ----------
    length : int
        Steps T of a sequence, >= 1, burn-in included.
    burn_in : int
        First steps of a sequence that only bring a recurrent state up to date, in [0, length - 1]:
        their errors do not count for its priority.
    overlap : int
        Steps that a sequence has in common with the next, in [0, length - 1]. With ``length - 1``
        every step begins one.
    priority_mix : float
        Share of the largest error in a priority, in [0, 1]; the rest is that of the mean:
        ``priority_mix * max + (1 - priority_mix) * mean`` of abs(td_error).
    boundaries : {"stop", "cross"}
        Whether sequences stop at an episode's end or run over it, into the next episode of their
        stream. Those that cross are never padded.

    Raises
    ------
    ValueError
        If a number is outside its range or a choice is none of those listed.

    Examples
    --------
    >>> import prioritized_replay as per
    >>> fields = {"obs": per.Field(), "action": per.Field((), "int64"), "reward": per.Field()}
    >>> replay = per.ReplayBuffer(100, fields, sequence=per.Sequence(length=3, overlap=1), seed=0)
    >>> for step in range(6):  # an episode of six steps
    ...     ids = replay.add(step, 0, 1.0, step + 1, terminated=step == 5)
    ...     if ids.size:
    ...         print("step", step, "completes", replay.get(ids).obs)
    step 2 completes [[0. 1. 2.]]
    step 4 completes [[2. 3. 4.]]
    step 5 completes [[3. 4. 5.]]
    >>> batch = replay.sample(2)
    >>> applied = replay.update_priorities(batch.ids, batch.reward - 0.5)  # errors float[B, T]
    """

    length: int
    burn_in: int = 0
    overlap: int = 0
    priority_mix: float = 0.9
    boundaries: Boundaries = "stop"

    def __post_init__(self) -> None:
        length = arguments.integer("length", self.length)
        values = {"length": length}
        for name in ("burn_in", "overlap"):
            values[name] = value = arguments.integer(name, getattr(self, name), 0)
            if value >= length:
                raise ValueError(
                    f"{name} must be <= length - 1, which is {length - 1}, got {value}"
                )
        mix = arguments.number("priority_mix", self.priority_mix, 1.0)
        for name, plain in {**values, "priority_mix": mix}.items():
            object.__setattr__(self, name, plain)  # a small integer of NumPy would overflow
        require_choice("boundaries", self.boundaries, Boundaries)

    @property
    def stride(self) -> int:
        """Steps from the beginning of a sequence to that of the next, >= 1."""
        return self.length - self.overlap


class Sequences:
    """Which sequences there are among the steps of a buffer.

    Parameters
    ----------
    specification : Sequence
        What a sequence is.
    capacity : int
        Number of slots N, one for each step.
    streams : int
        Number of streams E.
    states : mapping of str to Field
        Leaves of the columns that are kept once for a sequence.
    memory : Memory
        Where to keep what grows with N.
    transitions : Transitions
        Where the steps are.
    sampler : Sampler
        Who is to draw the sequences; it leaves gaps.

    Attributes
    ----------
    ahead : uint32[N] or uint32[0]
        See :mod:`._sequence_kernels`.
    states : States or None
        The values that are kept once.

    Raises
    ------
    OverLimit, OSError
        If the memory has no room.
    """

    def __init__(
        self,
        specification: Sequence,
        capacity: int,
        streams: int,
        states: Mapping[str, Field],
        memory: Memory,
        transitions: Transitions,
        sampler: Sampler,
    ) -> None:
        assert sampler.some is not None
        self.specification = specification
        self._streams = streams
        self._capacity = capacity
        self._sampler = sampler
        self._some = sampler.some
        length = specification.length
        self._lines = np.zeros(streams * (kernels.RECENT + length), np.int64)
        memory.reserve("sequences", self._lines.nbytes)
        words = -(-capacity * 4 // WORD) if streams > 1 else 0
        self.ahead = NOTHING.view(np.uint32)
        if words:
            self.ahead = memory.words("ahead", words).view(np.uint32)[:capacity]
        self.states = States(capacity, streams, length, states, memory) if states else None
        self._steps = transitions.staging.block, transitions.staging.plan, transitions.rows.words
        self._windows = length, specification.stride, specification.boundaries == "stop"
        self._all = np.arange(streams)
        self._forget()

    def _forget(self) -> None:
        lines = self._lines.reshape(self._streams, -1)
        lines[:] = 0
        lines[:, kernels.NEWEST] = -1
        lines[:, kernels.FRESH] = 1

    def make_room(self, steps: int, *, of_one_stream: bool = False) -> None:
        """Make room for what so many steps may bring.

        Raises
        ------
        OverLimit, MemoryError
            If there is none; nothing has changed then.
        """
        self._sampler.make_room(2 * min(steps, self._capacity))  # of more, the last stay
        if self.states is not None:
            most = steps
            if of_one_stream:  # one with every so many steps, and one at the end
                most = min(steps, steps // self.specification.stride + 2)
            self.states.make_room(most)

    def bytes_to_come(self) -> int:
        """Return about how many more bytes there are once all slots are taken.

        That is so where episodes are much longer than sequences.
        """
        if self.states is None:
            return 0
        return self.states.bytes_to_come(-(-self._capacity // self.specification.stride))

    def staged(self, steps: Steps) -> Array:
        """Return the columns of steps that are kept once, for :meth:`follow`."""
        states = self.states
        if states is None:
            return NOTHING
        values = steps.values[len(steps.values) - len(states.fields) :]
        return states.staged(dict(zip(states.fields, values, strict=True)), steps.number)

    def packed(self, episode: Episode) -> Array:
        """Return the columns of an episode that are kept once, for :meth:`follow`."""
        states = self.states
        if states is None:
            return NOTHING
        return states.packed({name: episode.columns[name] for name in states.fields})

    def follow(
        self,
        given: Array,
        entry: float,
        *,
        named: bool = False,
        stream: int = ALL_STAGED,
        ended: bool = False,
        steps: int = 0,
    ) -> Ints:
        """Look at the steps that got their ids last; a second call does nothing.

        Parameters
        ----------
        given : array
            The columns of these steps that are kept once, from :meth:`staged` or :meth:`packed`.
        entry : float
            The priority with which sequences enter.
        named : bool
            Whether the call has named its streams, as staged.
        stream, ended, steps : int, bool, int
            If all are of one episode: whose, whether it is over, and how many were given.

        Returns
        -------
        int64[...]
            The sequences that can be drawn from now on, by the ids of their first steps.
        """
        counters = self._sampler.counters
        logged = counters.item(ring.LOGGED)
        offset = max(steps - (counters.item(ring.ISSUED) - counters.item(ring.SEEN)), 0)
        waiting, pool, holders, free = self._arrays
        kernels.follow_steps(
            *self._steps, counters, self._sampler.log, *self._some.arrays, self._lines, self.ahead,
            given, waiting, pool, holders, free, named, stream, ended, offset, *self._windows,
            entry,
        )  # fmt: skip
        return self._let_in_since(logged)

    def end(self, streams: Ints | None, entry: float) -> Ints:
        """End the episodes of these streams, all if None; a second call does nothing.

        Returns
        -------
        int64[...]
            As :meth:`follow`.
        """
        counters = self._sampler.counters
        logged = counters.item(ring.LOGGED)
        kernels.end_episodes(
            self._all if streams is None else streams, counters, self._sampler.log,
            *self._some.arrays, self._lines, *self._arrays, *self._windows, entry,
        )  # fmt: skip
        return self._let_in_since(logged)

    @property
    def _arrays(self) -> tuple[Any, ...]:
        if self.states is not None:
            return self.states.arrays
        return NO_STATES

    def _let_in_since(self, logged: int) -> Ints:
        """Return the ids of sequences that were let in since there were so many changes."""
        counters = self._sampler.counters
        if counters.item(ring.LOGGED) == logged:  # as after most steps
            return np.empty(0, np.int64)
        slots, priorities = self._sampler.log[:, logged : counters.item(ring.LOGGED)]
        return self._sampler.ids_of(slots[priorities >= 0.0].astype(np.int64))

    def clear(self) -> None:
        """Forget all sequences. It may be called again if interrupted."""
        self._forget()
        if self.states is not None:
            self.states.clear()

    def pieces(self) -> list[Piece]:
        """Return the pieces of a checkpoint."""
        pieces = [Piece("lines", None, self._lines.copy)]
        written = min(self._sampler.issued, self._capacity)
        if self.ahead.size:
            pieces.append(Piece("ahead", None, self.ahead[:written].copy))
        if self.states is not None:
            pieces += self.states.pieces(self._some.all())
        return pieces

    def state(self) -> dict[str, Any]:
        """Return the rest of what belongs to a checkpoint: nothing."""
        return {}

    def restore(self, reader: Reader) -> None:
        """Restore the state from a checkpoint; the sampler must have been restored before."""
        reader.fill("lines", self._lines)
        issued = self._sampler.issued
        lines = self._lines.reshape(self._streams, -1)
        counts, newest, fresh = lines[:, : kernels.RECENT].T
        recent = lines[:, kernels.RECENT :]
        if not (
            (counts >= 0).all() and (counts <= issued).all()
            and (newest >= -1).all() and (newest < issued).all()
            and ((fresh == 0) | (fresh == 1)).all()
            and (recent >= 0).all() and (recent <= max(issued - 1, 0)).all()
        ):  # fmt: skip
            raise reader.error("must have lines of ids and steps that there can be")
        if self.ahead.size:
            written = min(issued, self._capacity)
            self.ahead[:written] = reader.array("ahead", np.uint32, (written,))
        if self.states is not None:
            self.states.restore(reader, self._some.all())


def require_pieces(
    reader: Reader, sequence: Sequence, streams: int, states: Mapping[str, Field]
) -> None:
    """Check the sizes of what :meth:`Sequences.restore` will read, before memory is taken for it.

    Parameters
    ----------
    reader : Reader
        Of the checkpoint.
    sequence, streams, states
        As for :class:`Sequences`; they are from the checkpoint, and may be any.

    Raises
    ------
    CheckpointError
        If a piece is missing or has another size.
    """
    length = sequence.length
    reader.require("lines", np.int64, (streams * (kernels.RECENT + length),))
    if states:
        words = streams * length * Rows(1, states).row_size // WORD
        reader.require("states_waiting", np.uint64, (words,))
