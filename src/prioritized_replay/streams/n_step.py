"""n-step windows of many streams: returns and discounts. It knows numbers, not observations.

The window of a step sums the rewards of up to n steps of its stream from it on, and ends early
where the episode ends: by termination it then has discount 0, by truncation or interruption it
bootstraps after the m < n steps that it has.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from prioritized_replay.checkpoint.loading import Reader
from prioritized_replay.checkpoint.manifest import Piece
from prioritized_replay.streams import _window_kernels as kernels
from prioritized_replay.streams._window_kernels import ENDED, INTERRUPTED, TERMINATED

__all__ = ["ENDED", "INTERRUPTED", "TERMINATED", "Closed", "OpenWindows"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bytes = NDArray[np.uint8]


class Closed(NamedTuple):
    """Windows that closed, R of them, stream by stream and the oldest first."""

    rows: Ints
    """Where each of the K steps is to be kept, int64[K]."""
    places: Ints
    """int64[3, R]: where the first step of each window is kept, where the last, and whether it
    ended in termination."""
    returns: Floats
    """float64[R]"""
    discounts: Floats
    """float64[R]"""

    @property
    def first_steps(self) -> Ints:
        """Where the first step of each window is kept, int64[R]."""
        places: Ints = self.places[kernels.SOURCE]
        return places


class OpenWindows:
    """The windows of E streams that wait for more steps.

    The latest n steps of stream e are kept, by whoever knows what is in them, in the rows
    e n .. e n + n - 1 of some store.

    Parameters
    ----------
    n_step : int
        Steps n in a whole window, >= 1.
    gamma : float
        Discount of one step, in [0, 1].
    streams : int
        How many, E.
    limit : float
        The largest return that can be stored.

    Examples
    --------
    >>> windows = OpenWindows(n_step=2, gamma=0.5, streams=1, limit=1e30)
    >>> stream = np.zeros(1, np.int64)
    >>> for reward, mark in ((1.0, 0), (10.0, ENDED | TERMINATED)):
    ...     step = stream, np.array([reward]), np.array([mark], np.uint8)
    ...     closed = windows.step(*step, windows.closing(*step))
    >>> closed.returns, closed.discounts
    (array([ 6., 10.]), array([0., 0.]))
    """

    def __init__(self, n_step: int, gamma: float, streams: int, limit: float) -> None:
        self.n_step = n_step
        self._limit = limit
        self._totals = np.zeros(streams * n_step)
        self._powers = np.fromiter((gamma**k for k in range(n_step + 1)), np.float64, n_step + 1)
        self._state = np.zeros((streams, 2), np.int64)

    def __len__(self) -> int:
        """Return the number of open windows of all streams."""
        return int(self._state[:, kernels.OPEN].sum())

    def rows(self) -> Ints:
        """Return where the first steps of the open windows are kept, int64[open windows]."""
        waiting, newest = self._state[:, :1], self._state[:, 1:]
        back = np.arange(self.n_step)
        first = np.arange(len(self._state))[:, None] * self.n_step
        rows: Ints = (first + (newest - back) % self.n_step)[back < waiting]
        return rows

    def closing(self, streams: Ints, rewards: Floats, marks: Bytes) -> int:
        """Return how many windows :meth:`step` would close, R; nothing changes. O(K n).

        Parameters
        ----------
        streams : int64[K]
            Whose step each row is, all different.
        rewards : float64[K]
        marks : uint8[K]
            ``ENDED``, and ``TERMINATED`` if so, or ``INTERRUPTED`` for no step at all: the open
            windows close where they are.

        Raises
        ------
        ValueError
            If a return would be too large to be stored.
        """
        count: int = kernels.count_closing(
            streams, rewards, marks, self._powers, self._totals, self._state, self._limit
        )
        if count < 0:
            raise ValueError(
                f"reward must leave n-step returns within {self._limit:g}, got "
                f"{rewards[-1 - count]:g} after others"
            )
        return count

    def step(self, streams: Ints, rewards: Floats, marks: Bytes, closing: int) -> Closed:
        """Take steps or interruptions, and return the windows that close. O(K n).

        Parameters
        ----------
        streams, rewards, marks
            As for :meth:`closing`.
        closing : int
            What it returned.
        """
        rows = np.empty(streams.size, np.int64)
        places = np.empty((3, closing), np.int64)
        values = np.empty((2, closing))
        kernels.close_windows(
            streams, rewards, marks, self._powers, self._totals, self._state, rows, places, values
        )
        return Closed(rows, places, values[0], values[1])

    def pieces(self) -> list[Piece]:
        """Return the open windows, as pieces of a checkpoint."""
        return [
            Piece("returns", None, self._totals.copy),
            Piece("windows", None, self._state.copy),
        ]

    def restore(self, reader: Reader) -> None:
        """Become what a checkpoint says."""
        state = reader.array("windows", np.int64, self._state.shape)
        if state.size and not (state.min() >= 0 and state.max() < self.n_step):
            raise reader.error(f"must have windows of {self.n_step} steps")
        self._state[:] = state
        self._totals[:] = reader.array("returns", np.float64, self._totals.shape)

    def clear(self) -> None:
        """Forget the open windows."""
        self._state[:] = 0
