"""Shards in this process, with answers that may come late, not at all or out of date. For tests.

It stands in for Ray: what it carries is what `cluster.Processes` carries.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import prioritized_replay as per
from prioritized_replay.integrations.ray import sharded
from prioritized_replay.integrations.ray.blueprint import Blueprint
from prioritized_replay.integrations.ray.calls import Calls, Gone
from prioritized_replay.integrations.ray.cluster import _alive, start_ray, stop_ray
from prioritized_replay.integrations.ray.coordinator import Coordinator
from prioritized_replay.integrations.ray.drawing import Drawing
from prioritized_replay.integrations.ray.ledger import Ledger, ledger_file
from prioritized_replay.integrations.ray.shard import Shard

FIELDS = {"obs": per.Field(), "action": per.Field((), "int64"), "reward": per.Field()}


def transitions(values, fields=FIELDS):
    """Rows whose observation and reward say which they are."""
    values = np.asarray(values, np.float64)
    return {
        "obs": values, "action": np.zeros(values.size, np.int64), "reward": values,
        "next_obs": values + 0.5, "terminated": np.zeros(values.size, bool),
    }  # fmt: skip


class Call:
    """One call: done at once, late, or of a shard that is gone."""

    def __init__(self, value: Any = None, state: str = "done", takes: float = 0.0) -> None:
        self.value, self.state = value, state
        self._ready = time.monotonic() + takes

    @property
    def ready(self) -> float:
        """When the answer is there."""
        return float("inf") if self.state == "late" else self._ready


class Carrier:
    """Shards of this process."""

    def __init__(self, blueprint: Blueprint, ledgers: Path | None = None) -> None:
        self.blueprint = blueprint
        self.ledgers = ledgers
        self.generations = [0] * blueprint.shards
        self.shards = [Shard(k, blueprint) for k in range(blueprint.shards)]
        self.state = ["done"] * blueprint.shards
        self.calls: list[tuple[int, str]] = []
        self.takes = 0.0
        """Seconds that an answer takes. If 0, nobody waits for what is late."""
        self.coordinator = Coordinator(blueprint.shards)
        for shard in range(blueprint.shards):
            self.began(shard)

    def began(self, shard: int) -> None:
        """Do what a shard's process does when it begins."""
        file = None if self.ledgers is None else self.ledgers / str(shard)
        left = None if file is None else Ledger.read(file)
        made = self.shards[shard]
        asyncio.run(self.coordinator.began(shard, self.generations[shard], made.begun, left))
        if file is not None:
            made.keep_ledger(file)

    def submit(self, shard: int, method: str, *arguments: Any) -> Call:
        self.calls.append((shard, method))
        state = self.state[shard]
        if state == "gone":
            return Call(None, "gone")
        try:
            value = getattr(self.shards[shard], method)(*arguments)
        except Exception as error:
            value = error
        if state == "dies":
            self.state[shard] = state = "gone"
        return Call(value, state, self.takes)

    def kill(self, shard: int, with_next: bool = False) -> None:
        """Let a shard be gone, or be gone before its next call, which it does, is answered."""
        self.state[shard] = "dies" if with_next else "gone"

    def restart(self, shard: int) -> None:
        self.generations[shard] += 1
        self.shards[shard] = Shard(shard, self.blueprint, self.generations[shard])
        self.began(shard)
        self.state[shard] = "done"

    def wait(self, calls: Sequence[Call], seconds: float) -> set[Call]:
        if self.takes:
            last = max((call.ready for call in calls), default=0.0)
            time.sleep(max(0.0, min(seconds, last - time.monotonic())))
        return {call for call in calls if call.ready <= time.monotonic()}

    def results(self, calls: Sequence[Call], seconds: float) -> list[Any]:
        if len(self.wait(calls, seconds)) < len(calls):
            raise TimeoutError
        for call in calls:
            if call.state == "gone":
                raise Gone("gone")
            if isinstance(call.value, Exception):
                raise call.value
        return [call.value for call in calls]

    def result(self, call: Call, seconds: float) -> Any:
        return self.results([call], seconds)[0]


class InProcess(Carrier):
    """What :class:`.cluster.Processes` is to a whole replay, in this process.

    ``monkeypatch`` lets :class:`.ShardedReplay` make it, and start no Ray.
    """

    @classmethod
    def instead_of_ray(cls, monkeypatch: Any) -> None:
        monkeypatch.setattr(sharded, "Processes", cls)
        monkeypatch.setattr(sharded, "start_ray", lambda address: False)
        monkeypatch.setattr(sharded, "stop_ray", lambda: None)

    @classmethod
    def start(cls, blueprint: Blueprint, limiter: Any, resumed: Any, ray_options: Any) -> InProcess:
        made = cls(blueprint)
        made.loop = asyncio.new_event_loop()
        made.coordinator = Coordinator(blueprint.shards, limiter, **resumed)
        for number in range(blueprint.shards):
            generation, checkpoint, _ = made.coordinate("begin", number).value
            made.generations[number] = generation
            made.shards[number] = Shard(number, blueprint, generation, checkpoint)
            made.began(number)
        return made

    def coordinate(self, method: str, *arguments: Any) -> Call:
        try:
            return Call(self.loop.run_until_complete(getattr(self.coordinator, method)(*arguments)))
        except ValueError as error:
            return Call(error)

    def kill(self) -> None:
        self.loop.close()


class Sharded:
    """What draws from shards of this process."""

    def __init__(
        self, sampler, shards=4, capacity=400, seed=0, timeout=1.0, ledgers=None, **options
    ):
        options = {"sampler": sampler, **options}
        blueprint = Blueprint(shards, capacity, FIELDS, options, None, seed)
        self.carrier = Carrier(blueprint, ledgers)
        self.lost: list[tuple[int, Any]] = []
        self.calls = Calls(self.carrier, shards, timeout, self.note_lost)
        self.drawing = Drawing(self.calls, sampler, np.random.default_rng(seed))

    def note_lost(self, shard, report):
        self.lost.append((shard, report))
        asyncio.run(
            self.carrier.coordinator.lost(
                shard, report.generation, report.issued, report.totals.size
            )
        )

    def note_elsewhere(self, ticket):
        asyncio.run(self.carrier.coordinator.elsewhere(ticket))

    def rows_lost(self):
        return asyncio.run(self.carrier.coordinator.rows_lost())

    def extend(self, shard, values, errors=None):
        """Add rows to one shard, which reports."""
        reply = self.carrier.shards[shard].extend(transitions(values), errors)
        return self.calls.note(shard, reply)

    def sample(self, batch_size, beta=1.0):
        deadline = self.calls.deadline()
        begun = self.drawing.begin(batch_size, 1, deadline)
        return self.drawing.finish(begun, [beta], deadline)[0]


def children(process=None):
    """Return the numbers of the processes below this one, or below another."""
    below = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            below.setdefault(int(fields[1]), []).append(int(entry.name))
    found, ahead = [], [os.getpid() if process is None else process]
    while ahead:
        direct = below.get(ahead.pop(), [])
        found += direct
        ahead += direct
    return found


def ledgers():
    """Return the files that shards have left on this machine."""
    file = ledger_file("replay-", 0)
    return set(file.parent.glob(f"{file.name[:-2]}*"))


@contextlib.contextmanager
def ray_of_this_file():
    """Start Ray; see to it that none of its processes is left afterwards."""
    start_ray()
    before = ledgers()
    try:
        yield
        mine = children()
        assert mine
    finally:
        stop_ray()
    assert ledgers() <= before
    deadline = time.monotonic() + 60.0
    while any(map(_alive, mine)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [process for process in mine if _alive(process)]
