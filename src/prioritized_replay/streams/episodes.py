"""One whole episode at once: its arguments taken apart, and the transitions that it makes.

It knows columns and windows; it does not know where rows, frames and priorities are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from prioritized_replay.fields import arguments
from prioritized_replay.fields.field import Field, cast
from prioritized_replay.fields.nested import Structure
from prioritized_replay.streams._episode_kernels import sum_windows
from prioritized_replay.streams.n_step import OpenWindows

__all__ = ["Episode", "EpisodeWindows", "TooLarge", "accept_episode"]

Array = NDArray[Any]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BOOLEAN = Field((), "bool")


class Episode(NamedTuple):
    """The steps of an episode, or the last ones of it, or the first, each fit for its column."""

    stream: int
    """Whose steps they are."""
    columns: dict[str, Array]
    """array[T, ...] for each leaf that is given with a step."""
    terminated: bool
    """Whether the last step terminated the episode."""
    truncated: bool
    """Whether it was cut off there."""

    @property
    def steps(self) -> int:
        """Number of steps T."""
        return len(self.columns["reward"])

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return self.terminated or self.truncated

    def without_first(self) -> Episode:
        """Return the same without its first step."""
        return self._replace(columns={name: column[1:] for name, column in self.columns.items()})


def accept_episode(
    structures: Mapping[str, Structure],
    values: Mapping[str, Any],
    terminated: Any,
    truncated: Any,
    stream: int,
) -> Episode:
    """Turn the arguments of a call into an episode; nothing is remembered.

    Parameters
    ----------
    structures : mapping of str to Structure
        Of every column.
    values : mapping
        What was given of ``obs``, ``action``, ``reward`` and further columns, each with a leading
        axis. ``next_obs`` may be None: ``obs`` has one row more then.
    terminated, truncated : bool or bool[T]
        Only the last may be true.
    stream : int
        Whose episode it is.

    Raises
    ------
    ValueError
        If a value does not fit its field, or the lengths differ.
    """
    reward = arguments.as_array("reward", values["reward"])
    if reward.ndim != 1 or not len(reward):
        raise ValueError(f"reward must have shape (T,) with T >= 1, got {reward.shape}")
    count = len(reward)
    columns: dict[str, Array] = {}
    for name, value in {**values, "reward": reward}.items():
        if value is None and name == "next_obs":
            continue
        structure = structures[name]
        rows = count + 1 if name == "obs" and values["next_obs"] is None else count
        parts = structure.take_apart(value)
        for (leaf, field), part in zip(structure.leaves.items(), parts, strict=True):
            array = arguments.as_array(leaf, part)
            if name == "obs":
                _check_length(leaf, array, field, rows, count)
            columns[leaf] = cast(leaf, array, field, (rows,))
    if values["next_obs"] is None:
        twins = zip(structures["obs"].leaves, structures["next_obs"].leaves, strict=True)
        for leaf, twin in twins:
            columns[leaf], columns[twin] = columns[leaf][:-1], columns[leaf][1:]
    return Episode(
        stream,
        columns,
        _ends("terminated", terminated, count),
        _ends("truncated", truncated, count),
    )


def _check_length(name: str, array: Array, field: Field, rows: int, count: int) -> None:
    """Check that observations have as many rows as they must, with or without the final one."""
    if array.ndim == 0 or array.shape[1:] != field.shape or len(array) == rows:
        return
    if rows == count and len(array) == count + 1:
        raise ValueError(
            f"next_obs must be left out where {name} has T + 1 = {count + 1} rows, the final "
            "observation among them, got both"
        )
    if rows == count + 1 and len(array) == count:
        raise ValueError(
            f"next_obs must be given where {name} has T = {count} rows, got None: or let {name} "
            f"have {count + 1}, the final observation as the last"
        )
    raise ValueError(f"{name} must have {count} or {count + 1} rows, got {len(array)}")


def _ends(name: str, value: Any, count: int) -> bool:
    """Return whether the last step ended the episode."""
    if value is False or value is True:
        return value
    array = arguments.as_array(name, value)
    flags = cast(name, array, BOOLEAN, () if array.ndim == 0 else (count,)).reshape(-1)
    if flags[:-1].any():
        raise ValueError(
            f"{name} must be true in the last step only, got true in step "
            f"{int(flags.argmax())} of {count}"
        )
    return bool(flags[-1])


class TooLarge(ValueError):
    """A reward makes an n-step return too large for its column.

    Parameters
    ----------
    step : int
        Of the reward.
    """

    def __init__(self, step: int) -> None:
        self.step = step


class EpisodeWindows:
    """The windows that an episode closes, and those that it leaves open.

    Window i begins at the i-th of W + T steps: the W whose windows were open before, then the T of
    the episode.

    Parameters
    ----------
    episode : Episode
        T >= 0 steps.
    windows : OpenWindows
        Of all streams; they stay as they are.
    limit : float
        The largest return that the column of rewards can hold.

    Raises
    ------
    TooLarge
        If a return is larger.

    Attributes
    ----------
    before : StreamWindows
        The windows that were open.
    made : int
        How many windows close, the oldest first.
    open_windows : int
        How many stay open.
    totals, entries : float64[W + T]
        Of every window, what it has summed up and the priority with which its row enters, NaN for
        none.
    given : float64[made]
        Those entries of which rows are made.
    calls : int64[made]
        The step of the episode with which each closes.

    Examples
    --------
    >>> windows = OpenWindows(n_step=2, gamma=0.5, streams=1)
    >>> episode = Episode(0, {"reward": np.array([1.0, 2.0, 4.0])}, True, False)
    >>> closed = EpisodeWindows(episode, windows, limit=np.inf)
    >>> closed.totals, closed.calls
    (array([2., 4., 4.]), array([1, 2, 2]))
    """

    def __init__(self, episode: Episode, windows: OpenWindows, limit: float) -> None:
        n_step, count = windows.n_step, episode.steps
        self.before = windows.of(episode.stream)
        waiting = self.before.places.size
        self._n_step, self._powers = n_step, windows.powers
        self._terminated = episode.terminated
        self._steps = waiting + count
        self.totals = np.concatenate([self.before.totals, np.empty(count)])
        if n_step > 1:
            rewards = episode.columns["reward"].astype(np.float64)
            refused = sum_windows(rewards, self.totals, windows.powers, limit)
            if refused >= 0:
                raise TooLarge(refused)
        self.open_windows = 0 if episode.ended and count else min(n_step - 1, self._steps)
        self.made = self._steps - self.open_windows
        self.entries = np.concatenate([self.before.entries, np.full(count, np.nan)])
        self.given = self.entries[: self.made]
        self._last = np.minimum(np.arange(self.made) + n_step - 1, self._steps - 1)
        self.calls = self._last - waiting

    def rows(
        self,
        columns: Mapping[str, Array],
        before: Mapping[str, Array],
        next_obs: set[str],
        keep: int,
    ) -> dict[str, Array]:
        """Return the last transitions that are made, as columns.

        Parameters
        ----------
        columns : mapping
            array[T, ...] of the episode.
        before : mapping
            array[W, ...] of the steps whose windows were open.
        next_obs : set of str
            The columns that a row has from the last step of its window, not from the first.
        keep : int
            How many.
        """
        made, first = self.made, self.made - keep
        rows: dict[str, Array] = {}
        for name, column in columns.items():
            whole = np.concatenate([before[name], column]) if self.before.places.size else column
            if name in next_obs:
                late = whole[self._n_step - 1 :][first:made]
                missing = keep - len(late)
                if missing:
                    late = np.concatenate([late, np.repeat(whole[-1:], missing, axis=0)])
                rows[name] = late
            elif name == "reward" and self._n_step > 1:
                rows[name] = self.totals[first:made].astype(column.dtype)
            else:
                rows[name] = whole[first:made]
        last = self._last[first:]
        terminated = (last == self._steps - 1) & self._terminated
        discount = self._powers[last - np.arange(first, made) + 1]
        rows["discount"] = np.where(terminated, 0.0, discount).astype(np.float32)
        rows["terminated"] = terminated
        return rows
