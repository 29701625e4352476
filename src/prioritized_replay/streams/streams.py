"""Steps of many streams: whose step a row of a call is, whether it is one, and what it led to.

It knows episodes' ends and autoresets; it knows neither windows nor where steps are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from prioritized_replay.checkpoint.loading import Reader
from prioritized_replay.checkpoint.manifest import Piece
from prioritized_replay.fields import arguments
from prioritized_replay.fields.field import Field, cast
from prioritized_replay.fields.nested import Structure
from prioritized_replay.streams.autoreset import Autoreset, final_observations
from prioritized_replay.streams.n_step import ENDED, TERMINATED, Bytes

__all__ = ["Steps", "Streams"]

Array = NDArray[Any]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

ONLY_STREAM = np.zeros(1, np.int64)
NO_STREAMS = np.zeros(0, np.int64)
BOOLEAN = Field((), "bool")


class Steps(NamedTuple):
    """Steps of K different streams, as they are to be stored."""

    streams: Ints
    """int64[K]"""
    columns: dict[str, Array]
    """Leaves of what was given, each with a leading axis K."""
    marks: Bytes
    """uint8[K], see :meth:`OpenWindows.closing`."""
    given: Ints | None
    """Which rows of the call these are, int64[K]; None: all of them."""
    called: Ints
    """The streams of all rows of the call."""


class Streams:
    """E streams of steps, one for each environment or actor.

    Parameters
    ----------
    num_envs : int or None
        E; None for a single stream whose values have no leading axis.
    autoreset : {"next_step", "same_step", "disabled"}
        What the environments do after an episode's end.
    structures : mapping of str to Structure
        Of ``obs``, ``action``, ``reward``, ``next_obs`` and all further columns that are given.
    """

    def __init__(
        self, num_envs: int | None, autoreset: Autoreset, structures: Mapping[str, Structure]
    ) -> None:
        self.num_envs = num_envs
        self.autoreset = autoreset
        self._structures = dict(structures)
        self.count = 1 if num_envs is None else num_envs
        """E, 1 for a single stream."""
        self._all = np.arange(self.count)
        self._awaiting = np.zeros(self.count, np.bool_)  # the next row is a reset step,
        self._interrupted = np.zeros(self.count, np.bool_)  # unless the caller has reset by hand
        self._final: list[Array] = []  # what the awaiting streams ended with
        if autoreset == "next_step":
            leaves = structures["obs"].leaves.values()
            self._final = [np.zeros((self.count, *leaf.shape), leaf.dtype) for leaf in leaves]

    def named(self, env: Any) -> tuple[Ints, bool]:
        """Return the streams that an argument ``env`` names, and whether rows have no leading axis.

        Raises
        ------
        ValueError
            If a number is out of range or named twice, or there is a single stream.
        """
        if self.num_envs is None:
            if env is not None:
                got = arguments.shown(env)
                raise ValueError(f"env must be left out where num_envs is not given, got {got}")
            return ONLY_STREAM, True
        if env is None:
            return self._all, False
        streams = arguments.as_array("env", env)
        if streams.ndim > 1 or (streams.dtype.kind not in "iu" and streams.size):
            raise ValueError(
                f"env must be an integer or integers of shape (K,), got {streams.dtype} of shape "
                f"{streams.shape}"
            )
        single = streams.ndim == 0
        if streams.size:
            wrong = streams[(streams < 0) | (streams >= self.num_envs)]
            if wrong.size:
                raise ValueError(
                    f"env must be in [0, {self.num_envs - 1}], the numbers of the streams, "
                    f"got {wrong[0]}"
                )
        else:
            streams = NO_STREAMS
        streams = np.require(np.atleast_1d(streams), np.int64, arguments.FIT)
        in_order = np.sort(streams)
        twice = in_order[1:][in_order[1:] == in_order[:-1]]
        if twice.size:
            raise ValueError(f"env must name each stream once, got {twice[0]} twice")
        return streams, single

    def steps(
        self,
        env: Any,
        values: Mapping[str, Any],
        terminated: Any,
        truncated: Any,
        info: Any,
    ) -> Steps:
        """Turn the arguments of a call into steps; what earlier calls left behind is not looked at.

        Parameters
        ----------
        env
            From the caller, see :meth:`named`.
        values : mapping
            What was given of ``obs``, ``action``, ``reward``, ``next_obs`` and further columns.
        terminated, truncated : bool[K], or bool for a single stream
            ``truncated`` may be False for all.
        info : mapping or None
            Of the vector environment: final observations are looked for there.

        Raises
        ------
        ValueError
            If a value does not fit its field, or a final observation is missing.
        """
        streams, single = self.named(env)
        lead = () if single else (streams.size,)
        columns: dict[str, Array] = {}
        for name, structure in self._structures.items():
            leaves = structure.leaves.items()
            parts = structure.take_apart(values[name])
            for (leaf, field), part in zip(leaves, parts, strict=True):
                column = cast(leaf, part, field, lead)
                columns[leaf] = column[np.newaxis] if single else column
        is_terminated = _flags("terminated", terminated, lead)
        ended = is_terminated | _flags("truncated", truncated, lead)
        if self.autoreset == "same_step" and ended.any():
            self._put_final(columns, info, ended, single)
        marks = (ended * ENDED | is_terminated * TERMINATED).astype(np.uint8)
        return Steps(streams, columns, marks, None, streams)

    def without_resets(self, steps: Steps) -> Steps:
        """Return those steps that are not of an autoreset; nothing changes yet.

        Which ones are depends on the calls before: none may come between this and :meth:`commit`.
        """
        streams = steps.streams
        if self.autoreset != "next_step" or not self._awaiting[streams].any():
            return steps
        given = np.flatnonzero(~self._reset_steps(streams, steps.columns, steps.marks != 0))
        columns = {name: column[given] for name, column in steps.columns.items()}
        return Steps(streams[given], columns, steps.marks[given], given, steps.called)

    def commit(self, steps: Steps) -> None:
        """Remember what the rows of a call mean for those that follow."""
        if self.autoreset != "next_step":
            return
        self._awaiting[steps.called] = False
        self._interrupted[steps.called] = False
        ended = np.flatnonzero(steps.marks)
        if ended.size:
            self._awaiting[steps.streams[ended]] = True
            names = self._structures["next_obs"].leaves
            for final, name in zip(self._final, names, strict=True):
                final[steps.streams[ended]] = steps.columns[name][ended]

    def interrupt(self, streams: Ints | slice = slice(None)) -> None:
        """Remember that episodes were closed by hand: the caller may have reset as well."""
        self._interrupted[streams] = True

    def pieces(self) -> list[Piece]:
        """Return what is remembered of each stream, as pieces of a checkpoint."""
        flags = partial(np.stack, (self._awaiting, self._interrupted))
        finals = [
            Piece(f"final-{number}", None, final.copy) for number, final in enumerate(self._final)
        ]
        return [Piece("streams", None, flags), *finals]

    def restore(self, reader: Reader) -> None:
        """Become what a checkpoint says."""
        flags = reader.array("streams", np.bool_, (2, self.count))
        self._awaiting[:], self._interrupted[:] = flags.view(np.uint8) != 0
        for number, final in enumerate(self._final):
            reader.fill(f"final-{number}", final)

    def _reset_steps(self, streams: Ints, columns: Mapping[str, Array], ended: Bools) -> Bools:
        """Return which rows are reset steps, from a final observation to a first one."""
        reset = self._awaiting[streams]
        # After an interruption it depends on whether the caller has reset. If not, the row begins
        # where the episode ended, with the reward of a reset step.
        unsure = reset & self._interrupted[streams]
        if unsure.any():
            reset &= ~(unsure & (ended | (columns["reward"] != 0)))
            for final, name in zip(self._final, self._structures["obs"].leaves, strict=True):
                there, here = final[streams], columns[name]
                same = (there == here) | ((there != there) & (here != here))  # NaN is NaN here
                reset &= ~unsure | same.reshape(len(streams), -1).all(axis=1)
        return reset

    def _put_final(self, columns: dict[str, Array], info: Any, ended: Bools, single: bool) -> None:
        """Put final observations in the place of the first ones of the next episodes."""
        structure = self._structures["next_obs"]
        finals = final_observations(info, ended, single)
        where = "info['final_obs']"
        leaves = [
            cast(leaf.replace("next_obs", where, 1), part, field)
            for final in finals
            for (leaf, field), part in zip(
                structure.leaves.items(), structure.take_apart(final, where), strict=True
            )
        ]
        count = len(structure.leaves)
        for k, name in enumerate(structure.leaves):
            column = columns[name].copy()
            column[ended] = leaves[k::count]
            columns[name] = column


def _flags(name: str, value: Any, lead: tuple[int, ...]) -> Bools:
    """Return truth values of K rows."""
    if value is False:
        return np.zeros(lead or 1, np.bool_)
    return cast(name, value, BOOLEAN, lead).reshape(lead or 1)
