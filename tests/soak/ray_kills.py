"""``python -m tests.soak.ray_kills --kills 200``: shards and writers killed at random moments.

Two processes add tagged rows and a learner draws, updates and saves, while shards and writers are
killed with signal 9. At the end, each tag is looked for in the shards: no row was torn or is there
twice, each row of a checkpoint is still there, no call took longer than it may, and the rows that
were acknowledged and are gone are as many as ``stats()["rows_lost"]`` says.

Where a writer was killed, that number may be off by the rows that nobody but the writer knew of:
those of its last calls. They are counted as *in doubt*. Where only shards are killed, none are.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import os
import signal
import tempfile
import time
from pathlib import Path

import numpy as np

import prioritized_replay as per
from prioritized_replay.integrations.ray import ShardedReplay, manifest

FIELDS = {"obs": per.Field((4,)), "action": per.Field((), "int64"), "reward": per.Field()}
TIMEOUT = 120.0  # both shards may be dead at once, on a busy machine for long
LAST = 3
"""Calls of a writer of which it may be the only one to know something when it is killed."""


class Writer:
    """Adds rows whose columns all say the same number."""

    def __init__(self, replay):
        self._replay = replay

    def process(self):
        return os.getpid()

    def write(self, numbers):
        """Add rows; return which of them were acknowledged."""
        return numbers[self._replay.extend(rows_of(numbers)) >= 0]

    def settle(self):
        """Say what this process knows of shards that died."""
        self._replay.flush()
        self._replay.stats()


def rows_of(numbers):
    """Rows that are tagged with numbers."""
    return {
        "obs": np.repeat(numbers[:, None], 4, 1), "action": numbers, "reward": numbers,
        "next_obs": np.repeat(numbers[:, None], 4, 1), "terminated": np.zeros(len(numbers), bool),
    }  # fmt: skip


def torn(batch):
    """Return how many rows are not of one piece."""
    whole = np.concatenate([batch.obs, batch.next_obs, batch.reward[:, None]], 1)
    return int(np.count_nonzero((whole != batch.action[:, None]).any(1)))


def tags_in(folder):
    """Return the tags of all rows in a checkpoint, and how many are torn."""
    found, broken = [], 0
    for path in sorted(
        (Path(folder) / manifest.read_manifest(Path(folder))["set"]).glob("shard-*")
    ):
        buffer = per.ReplayBuffer.load(path)
        if len(buffer):
            batch = buffer.get(np.arange(buffer.ids_issued - len(buffer), buffer.ids_issued))
            broken += torn(batch)
            found.append(batch.action)
    return np.concatenate([*found, np.zeros(0, np.int64)]), broken


def soak(kills, seed=0, shards=2, of_writers=0.15, minutes=np.inf, say=print):
    """Return numbers of what happened; raise where something is wrong."""
    import ray

    generator = np.random.default_rng(seed)
    longest, until = 0.0, time.monotonic() + 60.0 * minutes
    done = died = late = saves = following = broken = 0
    acknowledged, secured = [], [np.zeros(0, np.int64)]
    doubtful = 0  # rows in the last calls of writers that were killed
    with (
        tempfile.TemporaryDirectory() as folder,
        ShardedReplay(
            10_000_000, FIELDS, shards=shards, seed=seed, checkpoint_dir=folder, timeout=TIMEOUT
        ) as replay,
    ):

        def fresh(most):
            nonlocal following
            count = int(generator.integers(1, most))
            following += count
            return np.arange(following - count, following)

        actor = ray.remote(Writer).options(num_cpus=0, max_restarts=0)
        writers = [actor.remote(replay) for _ in range(2)]
        processes = ray.get([writer.process.remote() for writer in writers])
        sizes = [[], []]  # of each writer's calls
        first = fresh(100)
        acknowledged.append(first[replay.extend(rows_of(first)) >= 0])
        while done < kills and time.monotonic() < until:
            given = [fresh(400) for _ in writers]
            calls = [w.write.remote(numbers) for w, numbers in zip(writers, given, strict=True)]
            for k, numbers in enumerate(given):
                sizes[k].append(numbers.size)
            time.sleep(float(generator.random()) * 0.05)
            if generator.random() < of_writers:  # a writer
                k = int(generator.integers(2))
                os.kill(processes[k], signal.SIGKILL)
                done += 1
                died += 1
                doubtful += sum(sizes[k][-LAST:])
                writers[k], sizes[k] = actor.remote(replay), []
                processes[k] = ray.get(writers[k].process.remote(), timeout=120.0)
            else:
                alive = [number for _, number in replay.processes if number]
                if alive:
                    os.kill(int(generator.choice(alive)), signal.SIGKILL)
                    done += 1
            for _ in range(3):
                begun = time.monotonic()
                try:
                    batch = replay.sample(64)
                    broken += torn(batch)
                    replay.update_priorities(batch.ids, batch.reward % 7)
                except ValueError as error:  # everything was lost, and nothing is added yet
                    if "at least one transition" not in str(error):
                        raise
                except TimeoutError:  # on a machine that takes so long to restart a process
                    late += 1
                longest = max(longest, time.monotonic() - begun)
            for call in calls:
                # Of a writer that died it is not known whether rows were acknowledged.
                with contextlib.suppress(ray.exceptions.RayActorError):
                    acknowledged.append(ray.get(call, timeout=2 * TIMEOUT))
            if generator.random() < 0.2:
                replay.save(timeout=120.0)
                saves += 1
                secured.append(tags_in(folder)[0])
            if done % 10 == 0:
                say(f"{done} kills, {len(replay)} rows, longest call {longest:.1f} s", flush=True)
        ray.get([writer.settle.remote() for writer in writers], timeout=2 * TIMEOUT)
        stats = replay.stats()
        replay.save(timeout=120.0)
        there, in_the_end = tags_in(folder)
    acknowledged, secured = np.concatenate(acknowledged), np.unique(np.concatenate(secured))
    gone = np.setdiff1d(acknowledged, there).size
    twice = there.size - np.unique(there).size
    broken += in_the_end
    if broken or twice or there.size != stats["size"]:
        raise AssertionError(
            f"{broken} rows were torn, and {twice} of {there.size} are there twice; stats said "
            f"{stats['size']}"
        )
    missing = np.setdiff1d(secured, there).size
    if missing:
        raise AssertionError(f"{missing} of {secured.size} rows that were saved are gone")
    if there.size and there.max() >= following:
        raise AssertionError(f"there is a row {there.max()} that nobody has added")
    if longest > 2 * TIMEOUT:  # a draw and an update
        raise AssertionError(f"a call took {longest:.1f} s")
    if abs(stats["rows_lost"] - gone) > doubtful:
        raise AssertionError(
            f"{gone} of {acknowledged.size} acknowledged rows are gone, {stats['rows_lost']} were "
            f"counted as lost, and {doubtful} are in doubt"
        )
    return {
        "kills": done, "kills of writers": died, "restarts of shards": int(stats["restarts"]),
        "saves": saves, "acknowledged": acknowledged.size, "gone": gone,
        "counted as lost": int(stats["rows_lost"]), "in doubt": doubtful, "torn": broken,
        "twice": twice,
        "saved": secured.size, "saved and gone": missing,
        "timeouts": late, "longest call, s": round(longest, 1),
    }  # fmt: skip


def main():
    """Kill shards alone, then shards and writers; write what happened as a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=np.inf, help="of each part, at most")
    parser.add_argument("--output", type=Path, help="a CSV file")
    given = parser.parse_args()
    parts = {"shards": 0.0, "shards and writers": 0.15}
    rows = []
    for part, of_writers in parts.items():
        found = soak(given.kills // 2, given.seed, of_writers=of_writers, minutes=given.minutes)
        print(part, found, flush=True)
        rows += [(part, measure, value) for measure, value in found.items()]
        if given.output is not None:
            given.output.parent.mkdir(parents=True, exist_ok=True)
            with given.output.open("w", newline="") as file:
                csv.writer(file).writerows([("killed", "measure", "value"), *rows])


if __name__ == "__main__":
    main()
