"""Rows sent to shards in blocks, each of them once. It knows who has which rows, and no steps."""

from __future__ import annotations

import itertools
import secrets
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from prioritized_replay.integrations.ray.calls import Calls
from prioritized_replay.integrations.ray.leveling import spread
from prioritized_replay.integrations.ray.shard import part_of
from prioritized_replay.integrations.ray.writer import Rows

__all__ = ["Allow", "Inserting"]

Ints = NDArray[np.int64]
Allow = Callable[[int, float], None]

GATHERED = 8192
"""Rows that are sent together where nobody waits for them."""
SECONDS = 0.1  # after which gathered rows go with the next ones in any case
SMALL = 4096  # rows of a shard
IN_FLIGHT = 8
"""Pieces that may be on their way without an answer, before a further one waits."""


class Again:
    """A piece that was sent again, in one part or several, as its shard died with it."""

    def __init__(self, piece: Piece) -> None:
        self.ticket, self.within = piece.ticket, piece.again
        self.parts = 0
        """Of which no shard has said yet that it has them."""


class Piece(NamedTuple):
    """Rows on their way to a shard."""

    rows: Rows
    shard: int
    call: Any
    ticket: int
    """Its name in the ledger of the shard."""
    again: Again | None
    """Of what it is a part, if it was sent before."""
    ids: Ints
    """int64[B], to be written when they have arrived."""


class Inserting:
    """Sends rows to shards so that all have about as many.

    A piece is sent again, to another shard, if the one that it was sent to died before it answered:
    what it had of the piece is gone then. A piece whose shard is late is not: it would be there
    twice. It stays on its way until the shard answers or dies. Rows that the caller will not give
    again, as it was told that they are added, are kept where they cannot be sent in time, and go
    with a later call.

    Parameters
    ----------
    calls : Calls
    capacity : int
        Of all shards together.
    allow : callable
        ``allow(rows, deadline)`` waits until so many rows may be inserted, and raises a
        TimeoutError where that takes too long.
    elsewhere : callable
        ``elsewhere(ticket)`` is called when a piece whose shard died has arrived at others.
    """

    def __init__(
        self, calls: Calls, capacity: int, allow: Allow, elsewhere: Callable[[int], None]
    ) -> None:
        self._calls = calls
        self._allow = allow
        self._elsewhere = elsewhere
        self._tickets = itertools.count(1 + secrets.randbits(62))  # no other process has these
        each = capacity // len(calls)
        self._most = capacity
        # Small shards are level to the row: together they keep as many as one buffer would.
        self._slack = each // 64 if each >= SMALL else 0
        self.written: Ints = np.zeros(len(calls), np.int64)
        self._flying: deque[Piece] = deque()
        self._gathered: list[Rows] = []
        self._since = 0.0

    @property
    def on_the_way(self) -> int:
        """Rows that are not known to have arrived."""
        flying = sum(len(piece.rows) for piece in self._flying)
        return flying + sum(map(len, self._gathered))

    def insert(
        self, rows: Rows, wait: bool, deadline: float, most: int, *, keep: bool = False,
        allow: Allow | None = None,
    ) -> Ints:  # fmt: skip
        """Send rows.

        Parameters
        ----------
        rows : Rows
        wait : bool
            Whether to wait until they have arrived. If not, blocks are gathered, and several are
            sent in one call: a call costs more than its rows.
        deadline : float
            Until when.
        most : int
            Rows that one call to ``allow`` may be about.
        keep : bool
            Whether rows that cannot be sent in time are kept. Those that are not waited for are.
        allow : callable, optional
            Asked instead of the usual one.

        Returns
        -------
        int64[B]
            Their ids if they were waited for, -1 of those whose shard is late; else none.

        Raises
        ------
        TimeoutError
            If not all could be sent in time. Without ``keep``, the message says how many were.
        Exception
            What a shard raised. It has none of the rows that it was sent, and they are not kept.
        """
        if not wait:
            if not self._gathered:
                self._since = time.monotonic()
            self._gathered.append(_copy(rows))
            late = time.monotonic() - self._since > SECONDS
            if late or sum(map(len, self._gathered)) >= GATHERED:
                self.push(deadline, most, allow)
            return np.zeros(0, np.int64)
        try:
            self.push(deadline, most, allow)
        except BaseException:
            if keep:
                self.keep(rows)
            raise
        return self._insert(rows, True, deadline, most, keep, allow)

    def keep(self, rows: Rows) -> None:
        """Keep rows, which nobody else holds, until something is sent."""
        self._gathered.append(rows)

    def push(self, deadline: float, most: int | None = None, allow: Allow | None = None) -> None:
        """Send what was gathered; what cannot be sent in time stays gathered."""
        if self._gathered:
            gathered, self._gathered = self._gathered, []
            self._insert(_joined(gathered), False, deadline, most, True, allow)

    def _insert(
        self, rows: Rows, wait: bool, deadline: float, most: int | None, keep: bool,
        allow: Allow | None,
    ) -> Ints:  # fmt: skip
        count, sent = len(rows), 0
        ids = np.full(count, -1, np.int64)
        step = self._most if most is None else min(most, self._most)
        try:
            for first in range(0, count, step):
                part = _part(rows, first, min(first + step, count))
                self._calls.require_some(deadline)  # first: what is allowed counts as inserted
                (allow or self._allow)(len(part), deadline)
                sent = first + len(part)  # before it is sent: better once than twice
                try:
                    self._send(part, ids[first:sent], deadline)
                except TimeoutError:  # no shard is there any more
                    sent = first
                    raise
                self._land(deadline, 0 if wait else IN_FLIGHT)
        except BaseException as error:
            if keep and sent < count:
                self._gathered.insert(0, _part(rows, sent, count))
            elif isinstance(error, TimeoutError) and 0 < sent < count:
                raise TimeoutError(f"{error}; the first {sent} of {count} rows were sent") from None
            raise
        return ids if wait else np.zeros(0, np.int64)

    def land(self, deadline: float) -> None:
        """Wait for everything that is on its way.

        Raises
        ------
        TimeoutError
            If a shard is late.
        """
        self.push(deadline)
        self._land(deadline, 0)
        if self._flying:
            raise self._late()

    def _send(self, rows: Rows, ids: Ints, deadline: float, again: Again | None = None) -> None:
        """Send rows on their way, to one shard or to several."""
        present = self._calls.require_some(deadline)
        given = spread(self.written, present, len(rows), self._slack)
        first = 0
        if again is not None:
            again.parts = int(np.count_nonzero(given))
        for shard in np.flatnonzero(given).tolist():
            stop = first + int(given[shard])
            part = rows if len(rows) == stop - first else _part(rows, first, stop)
            ticket = next(self._tickets)
            call = self._calls.ask(shard, "extend", part.columns, part.errors, ticket)
            self._flying.append(Piece(part, shard, call, ticket, again, ids[first:stop]))
            self.written[shard] += stop - first
            first = stop

    def _land(self, deadline: float, keep: int) -> None:
        """Wait until at most so many pieces are on their way; send again what was lost."""
        late = []
        try:
            while len(self._flying) > keep:
                piece = self._flying.popleft()
                try:
                    outcome = self._calls.answers({piece.shard: piece.call}, deadline)
                except BaseException as error:
                    if isinstance(error, Exception) and not isinstance(error, TimeoutError):
                        self.written[piece.shard] -= len(piece.rows)  # the shard has refused them
                    else:
                        self._flying.appendleft(piece)
                    raise
                if piece.shard in outcome.values:
                    piece.ids[:] = outcome.values[piece.shard]
                    self._arrived(piece.again)
                elif piece.shard in outcome.late:
                    late.append(piece)
                else:
                    self._flying.appendleft(piece._replace(call=None))  # until it can be sent
                    self._calls.require_some(deadline)
                    self._flying.popleft()
                    self.written[piece.shard] -= len(piece.rows)
                    try:
                        self._send(piece.rows, piece.ids, deadline, Again(piece))
                    except TimeoutError:  # no shard is there: it is gone, and is sent later
                        self.written[piece.shard] += len(piece.rows)
                        self._flying.appendleft(piece._replace(call=None))
                        raise
        finally:
            self._flying.extendleft(reversed(late))
        if late and len(self._flying) > IN_FLIGHT:
            raise self._late()

    def _arrived(self, again: Again | None) -> None:
        """Say which pieces that were sent again have arrived as a whole."""
        while again is not None:
            again.parts -= 1
            if again.parts:
                return
            self._elsewhere(again.ticket)
            again = again.within

    def _late(self) -> TimeoutError:
        return TimeoutError(
            f"shard {self._flying[0].shard} has not answered for {self._calls.timeout:g} s, and "
            f"{self.on_the_way} rows are on their way to it"
        )


def _copy(rows: Rows) -> Rows:
    """Return rows that the caller cannot change any more."""
    columns = {name: _together([column], np.array) for name, column in rows.columns.items()}
    return Rows(columns, None if rows.errors is None else rows.errors.copy())


def _joined(several: list[Rows]) -> Rows:
    """Return the rows of several blocks as one block."""
    columns = {
        name: _together([rows.columns[name] for rows in several], _concatenated)
        for name in several[0].columns
    }
    if all(rows.errors is None for rows in several):
        return Rows(columns, None)
    errors = [
        np.full(len(rows), np.nan) if rows.errors is None else rows.errors for rows in several
    ]
    return Rows(columns, np.concatenate(errors))


def _concatenated(*columns: Any) -> Any:
    return columns[0] if len(columns) == 1 else np.concatenate(columns)


def _together(columns: list[Any], join: Callable[..., Any]) -> Any:
    """Join the arrays of columns, nested ones too, one by one."""
    first = columns[0]
    if isinstance(first, Mapping):
        return {n: _together([column[n] for column in columns], join) for n in first}
    if isinstance(first, tuple):
        return tuple(_together(list(parts), join) for parts in zip(*columns, strict=True))
    return join(*columns)


def _part(rows: Rows, first: int, stop: int) -> Rows:
    """Return some of the rows."""
    columns = {name: part_of(column, first, stop) for name, column in rows.columns.items()}
    return Rows(columns, None if rows.errors is None else rows.errors[first:stop])
