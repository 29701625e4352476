"""``python -m tests.soak.ray_kills --kills 200``: shards and writers killed at random moments.

Two processes add tagged rows and a learner draws, updates and saves, while shards and writers are
killed with signal 9. At the end: no torn row was ever drawn, no call took longer than it may, the
rows that are there and those that were lost are, together, those that were acknowledged.
"""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
import time

import numpy as np

import prioritized_replay as per
from prioritized_replay.integrations.ray import ShardedReplay

FIELDS = {"obs": per.Field((4,)), "action": per.Field((), "int64"), "reward": per.Field()}
TIMEOUT = 30.0


class Writer:
    """Adds rows whose columns all say the same number."""

    def __init__(self, replay, first):
        self._replay, self._next = replay, first

    def process(self):
        return os.getpid()

    def write(self, count):
        """Add rows; return the ids that were acknowledged, of no other rows."""
        numbers = np.arange(self._next, self._next + count) % 16_000_000
        self._next += count
        rows = {
            "obs": np.repeat(numbers[:, None], 4, 1), "action": numbers, "reward": numbers,
            "next_obs": np.repeat(numbers[:, None], 4, 1), "terminated": np.zeros(count, bool),
        }  # fmt: skip
        return int(np.count_nonzero(self._replay.extend(rows) >= 0))

    def settle(self):
        """Say what this process knows of shards that died."""
        self._replay.stats()


def check(batch):
    """See that each row is of one piece."""
    for k in range(4):
        np.testing.assert_array_equal(batch.obs[:, k], batch.action)
        np.testing.assert_array_equal(batch.next_obs[:, k], batch.action)
    np.testing.assert_array_equal(batch.reward, batch.action)


def soak(kills, seed=0, shards=2, of_writers=0.15, say=print):
    """Return numbers of what happened; raise where something is wrong."""
    import ray

    generator = np.random.default_rng(seed)
    longest = acknowledged = unknown = died = late = 0
    with (
        tempfile.TemporaryDirectory() as folder,
        ShardedReplay(
            10_000_000, FIELDS, shards=shards, seed=seed, checkpoint_dir=folder, timeout=TIMEOUT
        ) as replay,
    ):
        actor = ray.remote(Writer).options(num_cpus=0, max_restarts=0)
        writers = [actor.remote(replay, 1_000_000 * k) for k in range(2)]
        processes = ray.get([writer.process.remote() for writer in writers])
        made, done = len(writers), 0
        acknowledged += len(replay.extend(rows_of(100)))
        while done < kills:
            calls = [writer.write.remote(int(generator.integers(1, 400))) for writer in writers]
            time.sleep(float(generator.random()) * 0.05)
            if generator.random() < of_writers:  # a writer
                k = int(generator.integers(2))
                os.kill(processes[k], signal.SIGKILL)
                done += 1
                died += 1
                writers[k] = actor.remote(replay, 1_000_000 * made)
                processes[k] = ray.get(writers[k].process.remote(), timeout=120.0)
                made += 1
            else:
                alive = [number for _, number in replay.processes if number]
                if alive:
                    os.kill(int(generator.choice(alive)), signal.SIGKILL)
                    done += 1
            for _ in range(3):
                begun = time.monotonic()
                try:
                    batch = replay.sample(64)
                    check(batch)
                    replay.update_priorities(batch.ids, batch.reward % 7)
                except ValueError as error:  # everything was lost, and nothing is added yet
                    if "at least one transition" not in str(error):
                        raise
                except TimeoutError:  # on a machine that takes so long to restart a process
                    late += 1
                longest = max(longest, time.monotonic() - begun)
            for call in calls:
                try:
                    acknowledged += ray.get(call, timeout=2 * TIMEOUT)
                except ray.exceptions.RayActorError:
                    unknown += 1  # of a writer that died: acknowledged or not
            if generator.random() < 0.2:
                replay.save(timeout=120.0)
            if done % 10 == 0:
                say(f"{done} kills, {len(replay)} rows, longest call {longest:.1f} s")
        ray.get([writer.settle.remote() for writer in writers], timeout=2 * TIMEOUT)
        stats = replay.stats()
    if longest > 2 * TIMEOUT:  # a draw and an update
        raise AssertionError(f"a call took {longest:.1f} s")
    if not died and stats["size"] + stats["rows_lost"] != acknowledged:
        raise AssertionError(
            f"{acknowledged} rows were acknowledged, {stats['size']} are there and "
            f"{stats['rows_lost']} lost"
        )
    return {
        "kills": done, "of writers": died, "longest": longest, "acknowledged": acknowledged,
        "size": stats["size"], "rows_lost": stats["rows_lost"], "restarts": stats["restarts"],
        "unknown": unknown, "late": late,
    }  # fmt: skip


def rows_of(count):
    """The first rows."""
    return {
        "obs": np.zeros((count, 4)), "action": np.zeros(count, np.int64),
        "reward": np.zeros(count), "next_obs": np.zeros((count, 4)),
        "terminated": np.zeros(count, bool),
    }  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print(soak(given.kills, given.seed))
