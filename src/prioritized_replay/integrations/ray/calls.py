"""Calls to shards of which some may be gone or slow. It knows who answers, and no rows.

Whatever carries the calls, Ray or a test, has ``submit``, ``wait``, ``results`` and ``result`` as
:class:`.cluster.Processes`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prioritized_replay.integrations.ray.shard import Reply, Report
from prioritized_replay.sampled import Totals

__all__ = ["Calls", "Gone", "Outcome"]

NOTHING = Report(-1, 0, Totals(0, 0, 0.0, 0.0), 0)
FRESH = 0.05  # seconds for which a shard that is not asked for anything need not report
AGAIN = 0.2  # seconds between two attempts to reach a shard that is gone


class Gone(Exception):
    """A process did not answer, as it has ended or is being restarted."""


class Outcome:
    """What came of calls to several shards."""

    def __init__(self) -> None:
        self.values: dict[int, Any] = {}
        self.gone: set[int] = set()
        """Did not do what they were asked, or it died with them."""
        self.late: dict[int, Any] = {}
        """Have not answered yet; the calls."""


class Calls:
    """Who of K shards can be asked, and what each last reported.

    Parameters
    ----------
    carrier : Processes
        What carries the calls.
    shards : int
        K.
    timeout : float
        Seconds that a call may take.
    lost : callable
        ``lost(shard, report)`` is called with the last report of a generation that is gone.
    """

    def __init__(
        self, carrier: Any, shards: int, timeout: float, lost: Callable[[int, Report], None]
    ) -> None:
        self.carrier = carrier
        self.timeout = timeout
        self.reports = [NOTHING] * shards
        self._lost = lost
        self._lock = threading.RLock()
        self._away: dict[int, Any] = {}
        self._tried = [0.0] * shards
        self._heard = [-np.inf] * shards
        self._asked: dict[int, Any] = {}

    def __len__(self) -> int:
        return len(self.reports)

    def deadline(self) -> float:
        """Return when a call that begins now has to be over."""
        return time.monotonic() + self.timeout

    def note(self, shard: int, reply: Reply) -> Any:
        """Note what a shard says of itself; return the value of its answer."""
        report = reply.report
        with self._lock:
            before = self.reports[shard]
            if report.generation > before.generation and before.generation >= 0:
                self._lost(shard, before)
            if (report.generation, report.issued) >= (before.generation, before.issued):
                self.reports[shard] = report
            self._heard[shard] = time.monotonic()
        return reply.value

    def present(self) -> NDArray[np.bool_]:
        """Return which shards can be asked, bool[K]; look after those that could not."""
        with self._lock:
            for shard in list(self._away):
                self._look_after(shard)
            result = np.ones(len(self), np.bool_)
            result[list(self._away)] = False
            return result

    def _look_after(self, shard: int) -> None:
        call = self._away[shard]
        if call is None:
            if time.monotonic() - self._tried[shard] < AGAIN:
                return
            self._away[shard] = call = self._try(shard)
            if call is None:
                return
        if not self.carrier.wait([call], 0.0):
            return
        try:
            self.note(shard, self.carrier.result(call, 1.0))
        except TimeoutError:
            return
        except Gone:
            self._away[shard] = None
            return
        except Exception:  # of the call that was late: the shard answers
            pass
        del self._away[shard]

    def _try(self, shard: int) -> Any:
        self._tried[shard] = time.monotonic()
        try:
            return self.carrier.submit(shard, "report")
        except Gone:
            return None

    def require_some(self, deadline: float) -> NDArray[np.bool_]:
        """Return which shards can be asked; wait until there is one.

        Raises
        ------
        TimeoutError
            If there is none in time.
        """
        while not (present := self.present()).any():
            if time.monotonic() >= deadline:
                raise self.silence()
            time.sleep(0.02)
        return present

    def silence(self) -> TimeoutError:
        """Return the error that says that no shard has answered."""
        return TimeoutError(f"none of {len(self)} shards has answered for {self.timeout:g} s")

    def require(self, shards: Iterable[int], deadline: float) -> None:
        """Wait until these shards can be asked.

        Raises
        ------
        TimeoutError
            If they cannot in time.
        """
        wanted = list(shards)
        while not (present := self.present())[wanted].all():
            if time.monotonic() >= deadline:
                missing = ", ".join(str(k) for k in wanted if not present[k])
                raise TimeoutError(
                    f"shard {missing} of {len(self)} has not answered for {self.timeout:g} s"
                )
            time.sleep(0.02)

    def ask(self, shard: int, method: str, *arguments: Any) -> Any:
        """Call a method of a shard; None if it is gone."""
        try:
            return self.carrier.submit(shard, method, *arguments)
        except Gone:
            self._is_gone(shard)
            return None

    def _is_gone(self, shard: int) -> None:
        with self._lock:
            if self._away.get(shard) is None:
                self._away[shard] = self._try(shard)

    def answers(self, calls: Mapping[int, Any], deadline: float) -> Outcome:
        """Wait for the answers to calls, one to a shard, until all came or time is over.

        Raises
        ------
        Exception
            What a shard raised, after all others were waited for.
        """
        outcome = Outcome()
        calls = dict(calls)
        for shard in [shard for shard, call in calls.items() if call is None]:
            outcome.gone.add(shard)
            del calls[shard]
        if not calls:
            return outcome
        seconds = deadline - time.monotonic()
        try:
            replies = self.carrier.results(list(calls.values()), seconds)
        except Exception:
            return self._one_by_one(calls, deadline, outcome)
        for shard, reply in zip(calls, replies, strict=True):
            outcome.values[shard] = self.note(shard, reply)
        return outcome

    def _one_by_one(self, calls: dict[int, Any], deadline: float, outcome: Outcome) -> Outcome:
        failure: Exception | None = None
        ready = self.carrier.wait(list(calls.values()), deadline - time.monotonic())
        for shard, call in calls.items():
            if call not in ready:
                outcome.late[shard] = call
                with self._lock:
                    self._away.setdefault(shard, call)
                continue
            try:
                reply = self.carrier.result(call, max(deadline - time.monotonic(), 1.0))
                outcome.values[shard] = self.note(shard, reply)
            except Gone:
                outcome.gone.add(shard)
                self._is_gone(shard)
            except TimeoutError:
                outcome.late[shard] = call
            except Exception as error:
                failure = error
        if failure is not None:
            raise failure
        return outcome

    def ask_all(self, method: str, deadline: float, *arguments: Any) -> Outcome:
        """Call a method of every shard that is present, and wait for the answers."""
        shards = np.flatnonzero(self.present()).tolist()
        return self.answers({k: self.ask(k, method, *arguments) for k in shards}, deadline)

    def insist(self, asks: Mapping[int, tuple[Any, ...]], deadline: float) -> Outcome:
        """Ask shards, each for something of its own; ask those again that die before they answer.

        It must do no harm to do it twice. A shard that has died a moment ago is not known to have,
        so one call may always meet a dead one.

        Parameters
        ----------
        asks : mapping of int to tuple
            Of each shard the method and its arguments.
        deadline : float
            Until when.

        Raises
        ------
        TimeoutError
            If they cannot be asked in time.
        Exception
            What a shard raised.
        """
        self.require(asks, deadline)
        outcome = self.answers({k: self.ask(k, *asks[k]) for k in asks}, deadline)
        while outcome.gone:
            self.require(outcome.gone, deadline)
            again = self.answers({k: self.ask(k, *asks[k]) for k in outcome.gone}, deadline)
            outcome.values |= again.values
            outcome.late |= again.late
            outcome.gone = again.gone
        return outcome

    def refresh(self, but: Any = ()) -> None:
        """Let shards that have not answered lately report; nobody waits for it."""
        now = time.monotonic()
        with self._lock:
            for shard in [k for k, call in self._asked.items() if self.carrier.wait([call], 0.0)]:
                try:
                    self.note(shard, self.carrier.result(self._asked.pop(shard), 1.0))
                except Gone:
                    self._is_gone(shard)
                except TimeoutError:
                    pass
            for shard in range(len(self)):
                known = shard in but or shard in self._away or shard in self._asked
                if not known and now - self._heard[shard] > FRESH:
                    call = self.ask(shard, "report")
                    if call is not None:
                        self._asked[shard] = call
