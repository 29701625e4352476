"""Steps of one process turned into rows, a block at a time. It knows no shard.

The windows of a stream are made here, where all its steps come: rows are complete before they
leave, so each may go to any shard, and no boundary of a block is a boundary of an episode.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from prioritized_replay import Uniform
from prioritized_replay.fields import arguments
from prioritized_replay.fields.field import Field
from prioritized_replay.fields.schema import ADDED, Schema
from prioritized_replay.replay import ReplayBuffer

__all__ = ["Rows", "Writer"]

Array = NDArray[Any]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ERROR = "error_of_window"
STREAM = "stream_of_window"
LARGE = 1024  # bytes from which on a buffer keeps observations once where rows share them


class Rows(NamedTuple):
    """Complete transitions, as a shard takes them."""

    columns: dict[str, Any]
    errors: Floats | None
    """float64[B], NaN where there is none."""

    def __len__(self) -> int:
        return len(self.columns["reward"])


class Writer:
    """The open windows and the rows that wait, of the streams of one process.

    Parameters
    ----------
    fields : mapping of str to Field
        As for the buffer.
    n_step, gamma, num_envs, autoreset
        As for the buffer.
    block : int
        Rows that make a block.

    Raises
    ------
    ValueError
        As :class:`.ReplayBuffer`, or if a discount would be 0 without termination.
    """

    def __init__(
        self,
        fields: Mapping[str, Any],
        *,
        n_step: int = 1,
        gamma: float = 0.99,
        num_envs: int | None = None,
        autoreset: Any = None,
        block: int = 256,
        windows: ReplayBuffer | None = None,
    ) -> None:
        self._schema = Schema(fields)
        streams = 1 if num_envs is None else num_envs
        self._streams = np.arange(streams)
        self._num_envs = num_envs
        self._block = block
        large = any(leaf.nbytes >= LARGE for leaf in self._schema.leaves.values())
        self._sorted = large and streams > 1
        more = {ERROR: Field((), "float64")}
        if self._sorted:
            more[STREAM] = Field((), "int64")
        if n_step > 1 and not np.float32(gamma**n_step) > 0.0:
            raise ValueError(
                f"gamma must be > 0 where n_step > 1 and there are shards, got {gamma}: a row is "
                "sent with its discount, which is 0 where its window ended in termination"
            )
        self._windows = windows or ReplayBuffer(
            2 * block + streams * n_step, {**fields, **more}, sampler=Uniform(), n_step=n_step,
            gamma=gamma, num_envs=num_envs, autoreset=autoreset, seed=0,
        )  # fmt: skip
        self._sent = self._windows.ids_issued
        self._with_errors = True

    @property
    def windows(self) -> ReplayBuffer:
        """The buffer in which windows are made: part of a checkpoint."""
        return self._windows

    @property
    def waiting(self) -> int:
        """Rows that are complete and have not been taken."""
        return self._windows.ids_issued - self._sent

    @property
    def full(self) -> bool:
        """Whether a block is complete."""
        return self.waiting >= self._block

    @property
    def open_windows(self) -> int:
        """Windows that wait for more steps."""
        return int(self._windows.stats()["open_windows"])

    def add(
        self,
        obs: Any,
        action: Any,
        reward: Any,
        next_obs: Any,
        terminated: Any,
        truncated: Any,
        env: Any,
        info: Any,
        td_error: Any,
        extra: Mapping[str, Any],
    ) -> None:
        """Add a step of some streams; see :meth:`.ReplayBuffer.add`."""
        if env is None:
            streams: Any = 0 if self._num_envs is None else self._streams
        else:
            streams = arguments.as_array("env", env)
            if streams.ndim == 0:  # what is no integer, the buffer refuses
                streams = int(streams) if streams.dtype.kind in "iu" else 0
            elif not streams.size:
                streams = streams.astype(np.int64)
        single = isinstance(streams, int)
        count = 1 if single else len(streams)
        if td_error is None:
            errors: Any = np.nan if single else np.full(count, np.nan)
        else:
            errors = arguments.errors(td_error, count, "td_error")
            _require_finite("td_error", errors)
            errors = errors[0] if single else errors
        more = dict(extra)
        for name in (ERROR, STREAM):
            if name in more:
                self._schema.require((*more, "obs", "action", "reward", "next_obs"))
        more[ERROR] = errors
        if self._sorted:
            more[STREAM] = streams
        try:
            self._windows.add(
                obs, action, reward, next_obs, terminated, truncated, env=env, info=info, **more
            )
        except ValueError as error:
            raise self._as_theirs(error) from None

    def parts_of_episode(
        self,
        obs: Any,
        action: Any,
        reward: Any,
        terminated: Any,
        truncated: Any,
        next_obs: Any,
        env: Any,
        extra: Mapping[str, Any],
    ) -> list[dict[str, Any]]:
        """Check an episode, and return it in parts of at most a block, for :meth:`add_part`.

        See :meth:`.ReplayBuffer.add_episode`. All of it is checked before any part is added.
        """
        structures = self._schema.structures
        given = {"obs": obs, "action": action, "reward": reward, **extra}
        self._schema.require((*given, "next_obs"))
        twin = self._checking()
        twin.add_episode(
            obs, action, reward, terminated, truncated, next_obs=next_obs, env=env, **extra
        )
        count = len(arguments.as_array("reward", reward))
        leaves: dict[str, list[Array]] = {}
        for name, value in {**given, "next_obs": next_obs}.items():
            if value is not None:
                parts = structures[name].take_apart(value)
                leaves[name] = [arguments.as_array(name, part) for part in parts]
        if next_obs is None:
            leaves["next_obs"] = [leaf[1:] for leaf in leaves["obs"]]
        ended = [bool(np.asarray(end).reshape(-1)[-1]) for end in (terminated, truncated)]
        result = []
        for first in range(0, count, self._block):
            stop = min(first + self._block, count)
            part = {
                name: structures[name].put_together(iter([leaf[first:stop] for leaf in columns]))
                for name, columns in leaves.items()
            }
            part[ERROR] = np.full(stop - first, np.nan)
            if self._sorted:
                part[STREAM] = np.full(stop - first, 0 if env is None else env)
            ends = ended if stop == count else [False, False]
            part |= {"terminated": ends[0], "truncated": ends[1], "env": env}
            result.append(part)
        return result

    def add_part(self, part: Mapping[str, Any]) -> None:
        """Add what :meth:`parts_of_episode` returned."""
        self._windows.add_episode(**part)

    def _checking(self) -> ReplayBuffer:
        """Return an empty buffer that takes what this one takes."""
        windows = self._windows
        fields = {n: f for n, f in windows.fields.items() if n not in (*ADDED, ERROR, STREAM)}
        return ReplayBuffer(
            1, fields, sampler=Uniform(), n_step=windows.n_step, gamma=windows.gamma,
            num_envs=windows.num_envs, autoreset=windows.autoreset, seed=0,
        )  # fmt: skip

    def end_episode(self, env: Any = None) -> None:
        """Close open windows; see :meth:`.ReplayBuffer.end_episode`."""
        self._windows.end_episode(env)

    def take(self) -> Rows | None:
        """Return the rows that wait; they do not wait any more."""
        issued = self._windows.ids_issued
        first = max(self._sent, issued - len(self._windows))
        if first == issued:
            return None
        batch = self._windows.get(np.arange(first, issued), beta=0.0)
        if self._sorted:  # rows of one stream follow each other, so that they share observations
            batch = batch[np.argsort(batch[STREAM], kind="stable")]
        columns: dict[str, Any] = dict(batch.items())
        errors = columns.pop(ERROR)
        columns.pop(STREAM, None)
        for name in ("weights", "probabilities", "ids"):
            del columns[name]
        # Of one step, `terminated` says all; discount could be 0 without it.
        del columns["discount" if self._windows.n_step == 1 else "terminated"]
        self._sent = issued
        return Rows(columns, None if np.isnan(errors).all() else errors)

    def rows(self, transitions: Mapping[str, Any], td_errors: Any) -> Rows:
        """Check complete transitions of the caller's; see :meth:`.ReplayBuffer.extend`."""
        windows, schema = self._windows, self._schema
        leaves = schema.cast(transitions, windows.gamma, windows.n_step)
        count = len(leaves["reward"])
        errors = None
        if td_errors is not None:
            errors = arguments.errors(td_errors, count)
            _require_finite("td_errors", errors)
        if "discount" in transitions:
            del leaves["terminated"]
        else:
            del leaves["discount"]
        columns: dict[str, Any] = {}
        for name, structure in schema.structures.items():
            parts = [leaves[leaf] for leaf in structure.leaves if leaf in leaves]
            if parts:
                columns[name] = structure.put_together(iter(parts))
        return Rows(columns, errors)

    def _as_theirs(self, error: ValueError) -> ValueError:
        """Return an error without the columns that only this module knows."""
        text = str(error)
        for name in (ERROR, STREAM):
            text = text.replace(f", {name}", "")
        return ValueError(text)


def _require_finite(name: str, errors: Floats) -> None:
    wrong = np.flatnonzero(~np.isfinite(errors))
    if wrong.size:
        place = int(wrong[0])
        raise ValueError(f"{name} must be finite, got {errors[place]} at position {place}")
