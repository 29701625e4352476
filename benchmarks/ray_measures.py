"""Rows through Ray: drawn ahead, drawn while one waits, inserted; beside other libraries' buffers.

Every contender has one process that holds the rows, and this process, the learner. What Ray itself
takes is measured in the same rounds: a call of nothing, and calls that carry the same bytes to and
from an actor that does nothing with them. So is the buffer alone, in this process.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import numpy as np

import prioritized_replay as per
from benchmarks.results import Absence, Participant, Timing
from benchmarks.session import Session
from benchmarks.timing import Entry
from prioritized_replay.conformance.adapters import missing
from prioritized_replay.conformance.adapters.torchrl import TorchRLProportional
from prioritized_replay.conformance.subject import ALPHA, BETA, EPS
from prioritized_replay.conformance.workload import OBS_SIZE, Workload

AHEAD, DRAW, INSERT = "a batch drawn ahead", "a batch, waited for", "a block inserted"
CALL, TO, FROM = "Ray: an empty call", "Ray: a block there", "Ray: a batch back"
BACK = "a batch drawn ahead, its priorities given back"
OURS, FOUR, ALONE = "ours, one shard", "ours, four shards", "ours, no Ray"
RLLIB, TORCHRL, REVERB = "rllib", "torchrl", "reverb"
ROWS = 1024  # of a batch and of a block
EACH = 8  # batches in a call ahead, for everybody
SIZES = {RLLIB: 50_000}  # RLlib's rows are Python objects: more would not fit into memory
FIELDS = {
    "obs": per.Field((OBS_SIZE,)),
    "action": per.Field((), "int64"),
    "reward": per.Field(),
}
SAMPLER = per.Proportional(alpha=ALPHA["proportional"], eps=EPS)

MEANING = {
    CALL: "an actor's method that returns None, called and waited for",
    TO: "an actor's method that takes the columns of a block and returns None",
    FROM: "an actor's method that returns the columns of a batch that it has ready",
}


class RLlib:
    """RLlib's ``PrioritizedReplayBuffer``: each row a ``SampleBatch`` of one step."""

    name = library = RLLIB

    def __init__(self, size: int) -> None:
        module = import_module("ray.rllib.utils.replay_buffers.prioritized_replay_buffer")
        self._batches = import_module("ray.rllib.policy.sample_batch")
        self._memory = module.PrioritizedReplayBuffer(
            capacity=size, storage_unit="timesteps", alpha=ALPHA["proportional"]
        )
        self._size = size

    def fill(self, workload: Workload, errors: Any) -> None:
        """Add rows with priorities of their own."""
        for rows in workload.chunks(self._size):
            self.extend(rows)
        self._memory.update_priorities(np.arange(self._size), np.abs(errors) + EPS)

    def extend(self, rows: Mapping[str, Any]) -> None:
        """Add rows."""
        self._memory.add(self._batches.SampleBatch(dict(rows)))

    def drawn(self, count: int) -> dict[str, Any]:
        """Return a batch as columns."""
        return dict(self._memory.sample(count, beta=BETA))


class TorchRL(TorchRLProportional):
    """TorchRL's buffer, as in the other parts; batches leave it as arrays."""

    def extend(self, rows: Any) -> None:
        """Add rows."""
        super().extend(self.as_rows(rows))

    def drawn(self, count: int) -> dict[str, Any]:
        """Return a batch as columns."""
        return {name: value.numpy() for name, value in self.sample(count).items()}


PEERS: Mapping[str, Any] = {RLLIB: RLlib, TORCHRL: TorchRL}


class PeerProcess:
    """A peer's buffer in an actor."""

    def __init__(self, name: str, size: int, seed: int) -> None:
        self._memory = PEERS[name](size)
        workload = Workload(seed)
        self._memory.fill(workload, workload.errors(size))

    def extend(self, rows: Any) -> int:
        """Add a block."""
        self._memory.extend(rows)
        return len(rows["action"])

    def draw(self, batches: int, count: int) -> list[dict[str, Any]]:
        """Return several batches."""
        return [self._memory.drawn(count) for _ in range(batches)]


class Nothing:
    """An actor that only shows what a call costs."""

    def __init__(self, batch: dict[str, Any]) -> None:
        self._batch = {name: np.array(column) for name, column in batch.items()}

    def nothing(self) -> None:
        """Return None."""

    def take(self, rows: Any) -> None:
        """Take a block and return None."""

    def give(self) -> dict[str, Any]:
        """Return a batch that is ready."""
        return self._batch


def measure_ray(session: Session, size: int) -> None:
    """Time what goes through Ray, ours and others', and Ray itself.

    Parameters
    ----------
    session : Session
        With the data of small rows.
    size : int
        N.
    """
    try:
        import ray

        from prioritized_replay.integrations.ray import start_ray, stop_ray
    except ImportError as error:
        session.results.absent.append(Absence("Ray", str(error)))
        return
    start_ray()
    try:
        _measure(session, size, ray)
    finally:
        stop_ray()


def _measure(session: Session, size: int, ray: Any) -> None:
    from prioritized_replay.integrations.ray import ShardedReplay

    options: dict[str, Any] = {"sampler": SAMPLER, "seed": 1, "timeout": 120.0}
    results = session.results
    block = _columns(next(session.workload.chunks(ROWS)))
    alone = per.ReplayBuffer(size, FIELDS, sampler=SAMPLER, seed=1)
    _fill(alone, session.workload, size)
    empty = ray.remote(Nothing).options(num_cpus=0).remote(dict(alone.sample(ROWS).items()))
    peers = _peers(session, size, ray)
    with (
        ShardedReplay(size, FIELDS, shards=1, **options) as one,
        ShardedReplay(size, FIELDS, shards=4, **options) as four,
    ):
        ours = {OURS: one, FOUR: four}
        for replay in ours.values():
            _fill(replay, session.workload, size)
        results.contenders += [
            Participant(name, "prioritized-replay", "proportional", {"class": "ShardedReplay"})
            for name in ours
        ]
        results.contenders.append(
            Participant(ALONE, "prioritized-replay", "proportional", {"class": "ReplayBuffer"})
        )
        draws: dict[str, Entry] = {
            CALL: _each(lambda _: ray.get(empty.nothing.remote())),
            FROM: _each(lambda _: ray.get(empty.give.remote())),
            ALONE: _each(lambda _: alone.sample(ROWS, BETA)),
        }
        ahead = {FROM: _many(lambda: empty.give.remote(), ray)}
        back: dict[str, Entry] = {}
        inserts = {
            TO: _waves(lambda rows: empty.take.remote(rows), ray),
            ALONE: _each(lambda rows: alone.extend(rows)),
        }
        iterators = {name: replay.batches(ROWS, BETA, ahead=2 * EACH)
                     for name, replay in ours.items()}  # fmt: skip
        for name, replay in ours.items():
            draws[name], inserts[name] = _drawing(replay), _inserting(replay)
            ahead[name], back[name] = _next(iterators[name]), _next(iterators[name], replay)
        for name, actor in peers.items():
            draws[name], inserts[name] = _drawing_of(actor, ray), _inserting_of(actor, ray)
            ahead[name] = _rounds(actor, ray)
        for measure, entries, calls in (
            (AHEAD, ahead, 64), (BACK, back, 64), (DRAW, draws, 32), (INSERT, inserts, 32),
        ):  # fmt: skip
            given = [block] * calls
            times = session.time(measure, size, ROWS, entries, _always(given), calls)
            session.compare(measure, size, ROWS, times, [name for name in ours if name in times])
        for source in iterators.values():
            source.close()
        for actor in [*peers.values(), empty]:
            ray.kill(actor)


def _peers(session: Session, size: int, ray: Any) -> dict[str, Any]:
    """Start the peers that are there; note who is not."""
    actors, absent = {}, session.results.absent
    for name in PEERS:
        reason = missing("torchrl") if name == TORCHRL else _missing(
            "ray.rllib.utils.replay_buffers.prioritized_replay_buffer"
        )  # fmt: skip
        if reason is None:
            count = min(size, SIZES.get(name, size))
            session.say(f"{count:,} rows: filling {name} in an actor")
            actor = ray.remote(PeerProcess).options(num_cpus=0)
            actors[name] = actor.remote(name, count, session.workload.seed)
            try:
                ray.get(actors[name].draw.remote(1, ROWS), timeout=600.0)
            except Exception as error:
                del actors[name]
                reason = f"does not work: {str(error).strip().splitlines()[-1]}"
            session.results.contenders.append(
                Participant(name, name, "proportional", {"rows": f"{count:,}"})
            )
        if reason is not None:
            absent.append(Absence(f"{name} in a Ray actor", reason))
    reason = _missing("reverb")
    absent.append(Absence(REVERB, reason or "it has a server of its own, and is not called by Ray"))
    return actors


def _missing(module: str) -> str | None:
    try:
        import_module(module)
    except Exception as error:  # whatever a foreign library raises while it loads
        return f"does not load: {type(error).__name__}: {str(error).splitlines()[0]}"
    return None


def _columns(rows: Mapping[str, Any]) -> dict[str, Any]:
    return {name: np.ascontiguousarray(column) for name, column in rows.items()}


def _fill(replay: Any, workload: Workload, size: int) -> None:
    errors, first = workload.errors(size), 0
    for rows in workload.chunks(size):
        last = first + len(rows["action"])
        replay.extend(rows, errors[first:last])
        first = last


def _each(call: Callable[[Any], object]) -> Entry:
    return Entry(lambda given: given, call)


def _always(given: list[Any]) -> Callable[[int], list[Any]]:
    return lambda _: given


def _drawing(replay: Any) -> Entry:
    return _each(lambda _: replay.sample(ROWS, BETA))


def _inserting(replay: Any) -> Entry:
    """Return inserts that are waited for at the end of a round."""
    return Entry(lambda given: given, lambda rows: replay.extend(rows, wait=False), replay.flush)


def _next(source: Any, replay: Any = None) -> Entry:
    """Return batches that are drawn ahead, and, with a replay, errors given back to it."""
    if replay is None:
        return _each(lambda _: next(source))
    errors = np.linspace(-1.0, 1.0, ROWS)
    return _each(lambda _: replay.update_priorities(next(source).ids, errors, wait=False))


def _drawing_of(actor: Any, ray: Any) -> Entry:
    return _each(lambda _: ray.get(actor.draw.remote(1, ROWS)))


def _inserting_of(actor: Any, ray: Any) -> Entry:
    return _waves(lambda rows: actor.extend.remote(rows), ray)


def _many(call: Callable[[], Any], ray: Any) -> Entry:
    """Return calls of which four are always on their way."""
    flying: deque[Any] = deque()

    def one(_: Any) -> None:
        while len(flying) < 4:
            flying.append(call())
        ray.get(flying.popleft())

    return Entry(lambda given: given, one)


def _rounds(actor: Any, ray: Any) -> Entry:
    """Return calls for several batches each, of which two are always on their way."""
    flying: deque[Any] = deque()
    ready: deque[Any] = deque()

    def one(_: Any) -> None:
        while len(flying) < 2:
            flying.append(actor.draw.remote(EACH, ROWS))
        if not ready:
            ready.extend(ray.get(flying.popleft()))
        ready.popleft()

    return Entry(lambda given: given, one)


def _waves(call: Callable[[Any], Any], ray: Any) -> Entry:
    """Return calls that are waited for at the end of a round, eight at most on their way."""
    flying: deque[Any] = deque()

    def one(rows: Any) -> None:
        flying.append(call(rows))
        if len(flying) > 8:
            ray.get(flying.popleft())

    def finish() -> None:
        ray.get(list(flying))
        flying.clear()

    return Entry(lambda given: given, one, finish)


def rows_per_second(timing: Timing) -> float:
    """Return how many rows went through in a second."""
    return timing.batch / timing.seconds
