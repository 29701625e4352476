"""Steps of many streams: whose step a row of a call is, and what it led to.

It knows how callers name streams and hand over values, and where an autoreset leaves the last
observation of an episode. It knows neither windows nor where steps are kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from prioritized_replay.fields import arguments
from prioritized_replay.fields.field import Field, FieldCaster, cast, flag
from prioritized_replay.fields.nested import Structure
from prioritized_replay.streams._step_kernels import wrong_stream
from prioritized_replay.streams.autoreset import (
    FINAL,
    Autoreset,
    final_observations,
    infos_of_rows,
    time_limits,
)
from prioritized_replay.streams.reused_arrays import ReusedArrays
from prioritized_replay.streams.transitions import Steps

__all__ = ["Streams"]

Array = NDArray[Any]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

FLOAT64, INT64, BOOL = np.dtype(np.float64), np.dtype(np.int64), np.dtype(np.bool_)
ONLY_STREAM = np.zeros(1, np.int64)
NO_STREAMS = np.zeros(0, np.int64)
BOOLEAN = Field((), "bool")


class Leaf(NamedTuple):
    """One field of what is given with every step."""

    name: str
    field: Field
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    """Of a call with a step of every stream, (E, ...)."""
    wide: bool
    """Whether float64 may stand for its float32."""


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
    wide : collection of str
        The leaves for which float64 values may be given as they are.
    """

    def __init__(
        self,
        num_envs: int | None,
        autoreset: Autoreset,
        structures: Mapping[str, Structure],
        wide: Sequence[str],
    ) -> None:
        self.num_envs = num_envs
        self.autoreset = autoreset
        self.count = 1 if num_envs is None else num_envs
        """E, 1 for a single stream."""
        self._structures = list(structures.values())
        self._plain = all(structure.plain for structure in self._structures)
        self._next_obs = structures["next_obs"]
        self._all = np.arange(self.count)
        self._seen = np.zeros(self.count + 1, np.int64)  # see `wrong_stream`
        self._lead = (self.count,)
        self._leaves = [
            Leaf(name, field, np.dtype(field.dtype), (self.count, *field.shape), name in wide)
            for structure in self._structures
            for name, field in structure.leaves.items()
        ]
        self._accept = [FieldCaster(leaf.name, leaf.field).accept for leaf in self._leaves]
        names = [leaf.name for leaf in self._leaves]
        self._places_of_next = [names.index(name) for name in self._next_obs.leaves]
        places_of_obs = [names.index(name) for name in structures["obs"].leaves]
        self._twins = list(zip(places_of_obs, self._places_of_next, strict=True))
        self.reused = ReusedArrays()

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
        if (
            type(env) is np.ndarray and env.dtype is INT64 and env.ndim == 1
            and env.flags.carray and wrong_stream(env, self._seen) < 0
        ):  # fmt: skip
            return env, False
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

    def of_episode(self, env: Any) -> int:
        """Return the one stream that an argument ``env`` names.

        Raises
        ------
        ValueError
            If it names none, several, or one that is not there.
        """
        if env is None and self.count == 1:
            return 0
        streams, single = self.named(env)
        if not single:
            got = arguments.shown(env)
            raise ValueError(f"env must be the number of the stream whose episode it is, got {got}")
        return int(streams[0])

    def accept(
        self, env: Any, values: Sequence[Any], terminated: Any, truncated: Any, info: Any
    ) -> Steps:
        """Turn the arguments of a call into steps; nothing is remembered.

        Parameters
        ----------
        env
            From the caller, see :meth:`named`.
        values : sequence
            What was given of ``obs``, ``action``, ``reward``, ``next_obs`` and further columns.
        terminated, truncated : bool[K], or bool for a single stream
            ``truncated`` may be False for all.
        info : mapping, list of mappings or None
            Of the vector environment: final observations are looked for there, and in a list the
            marks of time limits.

        Raises
        ------
        ValueError
            If a value does not fit its field, or a final observation is missing.
        """
        streams: Ints | None = None
        single = False
        count = self.count
        lead: tuple[int, ...] = self._lead
        if env is not None or self.num_envs is None:
            streams, single = self.named(env)
            count = streams.size
            lead = () if single else (count,)
            if self.num_envs is None:
                streams = None
        if not self._plain:
            values = [
                part
                for structure, value in zip(self._structures, values, strict=True)
                for part in structure.take_apart(value)
            ]
        if single:
            taken = [accept(value) for accept, value in zip(self._accept, values, strict=True)]
            is_terminated: Any = flag("terminated", terminated)
            is_truncated: Any = flag("truncated", truncated)
        else:
            taken = []
            for value, (name, field, dtype, shape, wide) in zip(values, self._leaves, strict=True):
                array = value
                if type(array) is not np.ndarray:
                    array = arguments.as_array(name, array)
                if lead is not self._lead:
                    shape = lead + field.shape
                fits = array.dtype is dtype or (wide and array.dtype is FLOAT64)
                if not fits or array.shape != shape:
                    array = cast(name, array, field, lead)
                taken.append(array)
            is_terminated = _flags("terminated", terminated, lead)
            is_truncated = _flags("truncated", truncated, lead)
        infos = infos_of_rows(info, count, single)
        if infos is not None:
            info = infos
            ended = np.atleast_1d(np.logical_or(is_terminated, is_truncated))
            limited = time_limits(infos, np.broadcast_to(ended, (count,)), self.autoreset)
            if limited.any():
                is_terminated = np.logical_and(is_terminated, ~limited).reshape(lead)
                is_truncated = np.logical_or(is_truncated, limited).reshape(lead)
        for place, twin in self._twins:
            name, array = self._leaves[place].name, values[place]
            if array is values[twin]:
                self.reused.check(name, array, is_terminated, is_truncated)
            else:
                self.reused.forget(name)
        if self.autoreset == "same_step":
            ended = np.atleast_1d(np.logical_or(is_terminated, is_truncated))
            if ended.any():
                self._put_final(taken, info, np.broadcast_to(ended, (count,)), single)
        return Steps(count, streams, taken, is_terminated, is_truncated, single)

    def _put_final(self, taken: list[Any], info: Any, ended: Bools, single: bool) -> None:
        """Put final observations in the place of the first ones of the next episodes."""
        structure = self._next_obs
        finals = final_observations(info, ended, single)
        where = FINAL if isinstance(info, Mapping) else "a final observation in info"
        leaves = [
            cast(leaf.replace("next_obs", where, 1), part, field)
            for final in finals
            for (leaf, field), part in zip(
                structure.leaves.items(), structure.take_apart(final, where), strict=True
            )
        ]
        count = len(structure.leaves)
        for k, (place, field) in enumerate(
            zip(self._places_of_next, structure.leaves.values(), strict=True)
        ):
            if single:
                taken[place] = leaves[k]
                continue
            column = np.array(cast(self._leaves[place].name, taken[place], field, (len(ended),)))
            column[ended] = leaves[k::count]
            taken[place] = column


def _flags(name: str, value: Any, lead: tuple[int, ...]) -> Any:
    """Return truth values, bool[K]; False stands for all of them."""
    if value is False:
        return False
    if type(value) is np.ndarray and value.dtype is BOOL and value.shape == lead:
        return value
    return cast(name, value, BOOLEAN, lead)
