"""Open n-step windows of many streams, and what else is remembered of a stream between its steps.

It knows numbers, not observations. The window of a step sums the rewards of up to n steps of its
stream from it on. It ends early where the episode ends: by termination it then has discount 0, by
truncation or interruption it bootstraps after the m < n steps that it has.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from prioritized_replay.checkpoint.loading import Reader
from prioritized_replay.checkpoint.manifest import Piece
from prioritized_replay.streams import _step_kernels as kernels

__all__ = ["OpenWindows", "StreamWindows"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class StreamWindows(NamedTuple):
    """The open windows of one stream, the oldest first."""

    places: Ints
    """int64[W]: the rows where their first steps are kept."""
    totals: Floats
    """float64[W]: the rewards that they have summed up."""
    entries: Floats
    """float64[W]: the priorities with which they enter, NaN for none."""


class OpenWindows:
    """The windows of E streams that wait for more steps.

    The latest n steps of stream e are kept in the rows e n .. e n + n - 1 of some store.

    Parameters
    ----------
    n_step : int
        Steps n in a whole window, >= 1. With n = 1 no window is ever open.
    gamma : float
        Discount of one step, in [0, 1].
    streams : int
        Number of streams E.

    Examples
    --------
    >>> windows = OpenWindows(n_step=3, gamma=0.5, streams=2)
    >>> windows.powers
    array([1.   , 0.5  , 0.25 , 0.125])
    >>> len(windows)
    0
    """

    def __init__(self, n_step: int, gamma: float, streams: int) -> None:
        self.n_step = n_step
        self.streams = streams
        self.powers: Floats = np.fromiter((gamma**k for k in range(n_step + 1)), np.float64)
        """float64[n + 1]: gamma**k."""
        self._table = np.zeros((streams, kernels.TOTALS + 2 * n_step), np.int64)
        self.state: Ints = self._table.reshape(-1)
        """int64[...], changed by the kernels of ``streams/_step_kernels.py``."""
        self.awaiting: Ints = self._table[:, kernels.AWAITING]
        """int64[E]: whether the next step of a stream may be a reset step."""
        numbers = self._table[:, kernels.TOTALS :].view(np.float64)
        self._totals: Floats = numbers[:, :n_step]
        self._entries: Floats = numbers[:, n_step:]
        self._entries[:] = np.nan

    def __len__(self) -> int:
        """Return the number of open windows of all streams."""
        return int(self._table[:, kernels.OPEN].sum())

    def count(self, streams: Ints) -> int:
        """Return the number of open windows of these streams, int64[K]."""
        return int(self._table[streams, kernels.OPEN].sum())

    def places_of_next(self, streams: Ints) -> Ints:
        """Return the rows where the next steps of these streams will be kept, int64[K]. O(K)."""
        newest = self._table[streams, kernels.NEWEST]
        places: Ints = streams * self.n_step + (newest + 1) % self.n_step
        return places

    def of(self, stream: int) -> StreamWindows:
        """Return copies of what is known of the open windows of one stream."""
        waiting = min(int(self._table[stream, kernels.OPEN]), self.n_step - 1)
        places = self._places_from(stream, 1 - waiting, waiting)
        totals, entries = self._totals[stream, places], self._entries[stream, places]
        return StreamWindows(stream * self.n_step + places, totals, entries)

    def places_to_come(self, stream: int, count: int) -> Ints:
        """Return the rows where the last n of the next `count` steps of a stream will be kept."""
        kept = min(count, self.n_step)
        return stream * self.n_step + self._places_from(stream, count - kept + 1, kept)

    def after(
        self, stream: int, count: int, totals: Floats, entries: Floats, open_windows: int
    ) -> Ints:
        """Return what :meth:`put` is to be told of a stream after so many steps more.

        Parameters
        ----------
        stream : int
            Whose steps they are.
        count : int
            Steps T.
        totals, entries : float64[W + T]
            See ``StreamWindows``; of the W windows that are open now, then of those of the
            steps.
        open_windows : int
            How many of them are open afterwards.
        """
        line: Ints = self._table[stream].copy()
        numbers = line[kernels.TOTALS :].view(np.float64)
        known = min(totals.size, self.n_step)
        places = self._places_from(stream, count - known + 1, known)
        numbers[places] = totals[totals.size - known :]
        numbers[self.n_step + places] = entries[totals.size - known :]
        line[kernels.OPEN] = open_windows
        line[kernels.NEWEST] = (line[kernels.NEWEST] + count) % self.n_step
        return line

    def put(self, stream: int, line: Ints) -> None:
        """Replace what is remembered of a stream."""
        self._table[stream] = line

    def _places_from(self, stream: int, first: int, count: int) -> Ints:
        """Return places of steps of a stream; step 0 is its newest, 1 the next that will come."""
        newest = int(self._table[stream, kernels.NEWEST])
        places: Ints = (newest + np.arange(first, first + count)) % self.n_step
        return places

    def largest_entry(self) -> float:
        """Return the largest priority with which an open window will enter, 0 if none has one."""
        entries = self._entries.reshape(-1)[self._places()]
        return float(np.fmax.reduce(entries, initial=0.0))

    def clear(self) -> None:
        """Forget the open windows. The callers may restart the environments of all streams."""
        self._table[:, kernels.OPEN] = 0
        self._table[:, kernels.NEWEST] = 0
        self.awaiting[self.awaiting != kernels.NO_RESET] = kernels.RESTARTED
        self._totals[:] = 0.0
        self._entries[:] = np.nan

    def pieces(self) -> list[Piece]:
        """Return the pieces of a checkpoint that hold this state."""
        return [Piece("windows", None, self._table.copy)]

    def restore(self, reader: Reader) -> None:
        """Restore the state from a checkpoint."""
        table = reader.array("windows", np.int64, self._table.shape)
        for column, high in (
            (kernels.OPEN, self.n_step - 1),
            (kernels.NEWEST, self.n_step - 1),
            (kernels.AWAITING, kernels.RESTARTED),
        ):
            if table.size and not (table[:, column].min() >= 0 and table[:, column].max() <= high):
                raise reader.error(f"must have windows with column {column} in [0, {high}]")
        entries: Any = table[:, kernels.TOTALS + self.n_step :].view(np.float64)
        if not (np.isnan(entries) | ((entries >= 0.0) & (entries < np.inf))).all():
            raise reader.error("must have windows that enter with finite priorities >= 0")
        self._table[:] = table

    def _places(self) -> Ints:
        """Return where the first steps of the open windows are kept, int64[open windows]."""
        waiting = self._table[:, kernels.OPEN, None]
        newest = self._table[:, kernels.NEWEST, None]
        back = np.arange(self.n_step)
        first = np.arange(self.streams)[:, None] * self.n_step
        places: Ints = (first + (newest - back) % self.n_step)[back < waiting]
        return places
