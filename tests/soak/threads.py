"""Eight threads on one buffer: are rows whole, do counts add up, does everybody get on?

    python -m tests.soak.threads --seconds 60

Every column of a row follows from one serial number, so a row of which a part came from another
one gives itself away. Observations are stacks of frames that rows share; windows have three steps.
In a buffer of sequences the serial numbers of a line follow each other as well.
"""

import argparse
import contextlib
import faulthandler
import itertools
import random
import sys
import threading
import time
from collections import Counter
from typing import ClassVar

import numpy as np
from tests.interrupts import drawable

import prioritized_replay as per

GAMMA, N_STEP, EPISODE, STACK = 0.5, 3, 10, 4
ACTORS, STREAMS_EACH, LEARNERS = 3, 2, 3
STREAMS = ACTORS * STREAMS_EACH
SPAN = 10_000_000  # serial numbers of one stream; a multiple of an episode
FIELDS = {
    "obs": per.Field((STACK, 20, 20), "uint8"),
    "action": per.Field((), "int64"),
    "reward": per.Field((), "float64"),
    "mark": per.Field((3,), "float64"),
}
LENGTH, BURN_IN = 6, 2  # of sequences
HANG = 120


def stack(serial):
    """The observation at a step: its frame and those before it, the episode's first one repeated.

    A frame is its serial number, 50 times.
    """
    first = serial - serial % EPISODE
    frames = np.maximum(np.arange(serial - STACK + 1, serial + 1), first)
    return np.repeat(frames, 50).astype(np.int64).view(np.uint8).reshape(STACK, 20, 20)


def after(serial):
    """What the step led to; it belongs to the same episode also at its end."""
    frames = np.maximum(np.arange(serial - STACK + 2, serial + 2), serial - serial % EPISODE)
    return np.repeat(frames, 50).astype(np.int64).view(np.uint8).reshape(STACK, 20, 20)


def reward(serial):
    return serial % 7 - 3.0


def error_of(serials):
    return serials % 5 + 0.5


def check(batch):
    """Fail unless every row is whole: all of it follows from its action, which is its serial."""
    serials = batch.action
    obs, next_obs = (
        column.reshape(len(serials), -1).view(np.int64).reshape(-1, STACK, 50)
        for column in (batch.obs, batch.next_obs)
    )
    first = serials - serials % EPISODE
    back = np.arange(-STACK + 1, 1)
    wanted = np.maximum(serials[:, None] + back, first[:, None])
    assert (obs == wanted[:, :, None]).all(), "obs"
    steps = next_obs[:, -1, 0] - serials  # of the window, 1 to 3
    assert ((steps >= 1) & (steps <= np.minimum(N_STEP, EPISODE - serials % EPISODE))).all(), "m"
    wanted = np.maximum((serials + steps)[:, None] + back, first[:, None])
    assert (next_obs == wanted[:, :, None]).all(), "next_obs"
    rewards = sum(np.where(k < steps, GAMMA**k * reward(serials + k), 0.0) for k in range(N_STEP))
    assert (batch.reward == rewards).all(), "reward"
    ended = (serials + steps) % EPISODE == 0
    assert (batch.discount == np.where(ended, 0.0, GAMMA**steps)).all(), "discount"
    assert (batch.terminated == ended).all(), "terminated"
    assert (batch.mark == np.stack([serials, -serials, serials / 8], 1)).all(), "mark"


class Threads:
    """The threads and what they count."""

    options: ClassVar = {"n_step": N_STEP, "num_envs": STREAMS}

    def __init__(self, sampler, capacity=2_000, seed=0):
        self.replay = per.ReplayBuffer(
            capacity, FIELDS, sampler=sampler, gamma=GAMMA, autoreset="disabled", seed=seed,
            **self.options,
        )  # fmt: skip
        self.counts = Counter()
        self.ids = []
        self.failures = []
        self.stop = threading.Event()
        self.started = threading.Barrier(ACTORS + LEARNERS + 2)

    def act(self, actor):
        streams = range(actor * STREAMS_EACH, (actor + 1) * STREAMS_EACH)
        serials = [stream * SPAN for stream in streams]
        while not self.stop.is_set():
            for place, stream in enumerate(streams):
                serial = serials[place]
                serials[place] += 1
                ids = self.replay.add(
                    stack(serial), serial, reward(serial), after(serial),
                    serial % EPISODE == EPISODE - 1, env=stream, mark=mark(serial),
                    **self.error(serial),
                )  # fmt: skip
                self.ids.append(ids)
                self.counts["steps"] += 1

    def error(self, serial):
        return {"td_error": error_of(serial) if serial % 3 == 0 else None}

    def learn(self):
        while not self.stop.is_set():
            if len(self.replay) < 10:
                continue
            try:
                batch = self.replay.sample(32, beta=0.5)
            except ValueError as error:
                self.require_empty(error)
                continue
            self.learn_from(batch)

    def learn_ahead(self):
        while not self.stop.is_set():
            if len(self.replay) < 10:
                continue
            try:
                with self.replay.prefetch(16, depth=3, beta=per.linear(0.4, 1.0, 50)) as batches:
                    for _, batch in zip(range(50), batches, strict=False):
                        self.learn_from(batch)
            except ValueError as error:
                self.require_empty(error)

    def require_empty(self, error):
        """The buffer may have been cleared in the meantime."""
        if "at least one" not in str(error):
            raise error

    def learn_from(self, batch):
        self.check(batch)
        given, errors = self.errors(batch)
        applied = self.replay.update_priorities(batch.ids, given)
        self.counts["updates"] += applied
        self.counts["stale"] += batch.ids.size - applied
        self.counts["batches"] += 1
        try:
            priorities = self.replay.priorities(batch.ids)
        except KeyError:
            return  # one of them is gone by now
        eps = getattr(self.replay.sampler, "eps", 0.0)
        if not isinstance(self.replay.sampler, per.Uniform):
            assert np.allclose(priorities, errors + eps, rtol=1e-12), "priorities"

    def check(self, batch):
        check(batch)

    def errors(self, batch):
        """Return what is given back for a batch, and what priorities come of it."""
        return error_of(batch.action), error_of(batch.action)

    def add_many(self, serial):
        """Add an episode in one call, of no stream; return how many steps that were."""
        serials = np.arange(serial, serial + EPISODE)
        self.ids.append(
            self.replay.extend({
                "obs": np.stack([stack(s) for s in serials]),
                "next_obs": np.stack([after(s) for s in serials]),
                "action": serials, "reward": reward(serials),
                "mark": np.stack([mark(s) for s in serials]),
                "discount": np.where(serials % EPISODE == EPISODE - 1, 0.0, GAMMA),
            }, td_errors=error_of(serials))
        )  # fmt: skip
        return EPISODE

    def latest(self):
        """Return ids of rows that were made last."""
        issued = int(self.replay.stats()["ids_issued"])
        return np.arange(max(issued - 20, 0), issued)

    def meddle(self, seed):
        """What else there is, some of it in the middle of episodes."""
        rng = random.Random(seed)
        replay = self.replay
        serial = STREAMS * SPAN
        while not self.stop.is_set():
            kind = rng.randrange(200)
            self.counts["others"] += 1
            if kind == 0:
                replay.clear()
            elif kind < 10:
                self.ids.append(replay.end_episode(rng.choice((None, rng.randrange(STREAMS)))))
            elif kind < 30:
                serial += self.add_many(serial)
            elif kind < 35 and not isinstance(replay.sampler, per.Uniform):
                replay.alpha = rng.choice((0.3, 0.6, 1.0))
            elif kind < 60:
                size = replay.stats()["size"]
                assert 0 <= size <= replay.capacity
            elif kind < 100:
                repr(replay), len(replay), replay.nbytes, replay.alpha, replay.sampler
            else:
                ids = self.latest()
                if len(ids):
                    with contextlib.suppress(KeyError):
                        self.check(replay.get(ids))
            if kind % 10 == 0:
                time.sleep(0)

    def run(self, seconds=None, steps=None):
        targets = [(self.act, (actor,)) for actor in range(ACTORS)]
        targets += [(self.learn, ())] * LEARNERS + [(self.learn_ahead, ()), (self.meddle, (1,))]
        threads = [
            threading.Thread(target=self._guarded, args=target, daemon=True) for target in targets
        ]
        faulthandler.dump_traceback_later(HANG + (seconds or 0), exit=True)
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-4)
        try:
            for thread in threads:
                thread.start()
            deadline = time.monotonic() + (seconds or HANG)
            while time.monotonic() < deadline and not self.failures:
                if steps is not None and self.counts["steps"] >= steps:
                    break
                self.stop.wait(0.02)
            self.stop.set()
            for thread in threads:
                thread.join(HANG)
                assert not thread.is_alive(), "a thread hangs"
        finally:
            sys.setswitchinterval(interval)
            faulthandler.cancel_dump_traceback_later()
        if self.failures:
            raise self.failures[0]
        self.check_counts()

    def _guarded(self, target, arguments):
        try:
            self.started.wait(HANG)
            target(*arguments)
        except BaseException as error:
            self.failures.append(error)
            self.stop.set()

    def check_counts(self):
        replay, stats = self.replay, self.replay.stats()
        ids = np.concatenate(self.ids)
        assert stats["size"] == len(replay) <= replay.capacity
        assert stats["open_windows"] <= STREAMS * (N_STEP - 1)
        live = self.check_ids(ids)
        assert live.size == len(replay)
        if live.size:
            self.check(replay.get(live))
        # Frames are held by rows, open windows and streams; nobody else.
        shared = replay._transitions.shared[0]
        most = STACK + N_STEP  # different frames in a row, or in what else a stream holds
        steps = stats.get("steps", len(replay))
        assert shared._frames.used <= most * (steps + STREAMS * N_STEP) + (STREAMS + 1) * STACK

    def check_ids(self, ids):
        """Every row had an id of its own; return the live ones."""
        issued = self.replay.ids_issued
        assert np.array_equal(np.sort(ids), np.arange(issued)), "ids"
        return np.arange(issued - len(self.replay), issued)


class SequenceThreads(Threads):
    """The same of sequences; an actor's episodes may be cut by whoever ends or clears."""

    options: ClassVar = {
        "num_envs": STREAMS + 1,
        "sequence": per.Sequence(LENGTH, burn_in=BURN_IN, overlap=2),
    }

    def error(self, serial):
        return {}

    def check(self, batch):
        """Fail unless every line is of steps that follow each other, and zero behind its end."""
        real = batch.mask.sum(axis=1)
        assert (batch.mask == (np.arange(LENGTH) < real[:, None])).all(), "mask"
        assert (real > 0).all(), "mask"
        serials = batch.action[:, :1] + np.arange(LENGTH)
        assert (batch.action[batch.mask] == serials[batch.mask]).all(), "action"
        assert (serials // EPISODE == serials[:, :1] // EPISODE)[batch.mask].all(), "episode"
        ended = batch.mask & (serials % EPISODE == EPISODE - 1)
        assert (batch.terminated == ended).all(), "terminated"
        assert (batch.discount == np.where(batch.mask & ~ended, GAMMA, 0.0)).all(), "discount"
        assert not batch.is_first[:, 1:].any(), "is_first"
        assert batch.is_first[serials[:, 0] % EPISODE == 0, 0].all(), "is_first"
        assert (batch.reward == np.where(batch.mask, reward(serials), 0.0)).all(), "reward"
        marks = np.stack([serials, -serials, serials / 8], axis=2)
        assert (batch.mark == marks * batch.mask[:, :, None]).all(), "mark"
        back = np.arange(-STACK + 1, 1)
        first = serials - serials % EPISODE
        for column, ahead in ((batch.obs, 0), (batch.next_obs, 1)):
            frames = (
                column.reshape(*serials.shape, -1).view(np.int64).reshape(*serials.shape, STACK, 50)
            )
            wanted = np.maximum((serials + ahead)[:, :, None] + back, first[:, :, None])
            wanted = wanted * batch.mask[:, :, None]
            assert (frames == wanted[:, :, :, None]).all(), "obs"

    def errors(self, batch):
        """The same number for each step that counts, so that their mix is it too."""
        errors = error_of(batch.action[:, 0])
        given = np.full(batch.mask.shape, np.nan)
        counted = batch.mask & (np.arange(LENGTH) >= BURN_IN)
        counted[~counted.any(axis=1)] = batch.mask[~counted.any(axis=1)]
        np.copyto(given, errors[:, None], where=counted)
        return given, errors

    def add_many(self, serial):
        """Add an episode in one call, of a stream that no actor has."""
        serials = np.arange(serial, serial + EPISODE)
        self.ids.append(
            self.replay.add_episode(
                np.stack([*(stack(s) for s in serials), after(serials[-1])]), serials,
                reward(serials), True, env=STREAMS, mark=np.stack([mark(s) for s in serials]),
            )
        )  # fmt: skip
        return EPISODE

    def latest(self):
        """Return ids that were given last."""
        return np.concatenate(self.ids[-20:] or [np.empty(0, np.int64)])

    def check_ids(self, ids):
        assert np.unique(ids).size == ids.size, "ids"
        found = drawable(self.replay)
        assert np.isin(found, ids).all(), "ids"
        return found


def mark(serial):
    return np.array([serial, -serial, serial / 8])


SAMPLERS = {
    "proportional": per.Proportional(),
    "rank": per.RankBased(),
    "uniform": per.Uniform(),
    "current": per.Proportional(draw="independent", max_priority="current", weights="buffer"),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="for each sampler")
    options = parser.parse_args()
    for kind, (name, sampler) in itertools.product((Threads, SequenceThreads), SAMPLERS.items()):
        threads = kind(sampler)
        threads.run(options.seconds)
        rows = int(threads.replay.stats()["ids_issued"])
        counts = ", ".join(f"{threads.counts[what]:,} {what}" for what in sorted(threads.counts))
        print(
            f"{kind.__name__}, {name}, {options.seconds:g} s: {rows:,} rows, {counts}", flush=True
        )
    print("every row was whole, every count adds up, every thread ended")


if __name__ == "__main__":
    main()
