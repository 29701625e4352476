"""``python -m tests.soak.ray_kills --kills 200``: shards and writers killed at random moments.

Two processes add tagged rows and a learner draws, updates and saves, while shards and writers are
killed with signal 9. At the end, each tag is looked for in the shards: no row was torn or is there
twice, each row of a checkpoint is still there, no call took longer than it may, and the rows that
shards had and that are gone are as many as ``stats()["rows_lost"]`` says.

A writer is killed in one of two ways. In the middle of a call: which of its rows a shard had is
seen afterwards, before the next kill. Or with a shard, after its call and before anybody else
has heard of its rows.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import os
import signal
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

import prioritized_replay as per
from prioritized_replay.integrations.ray import ShardedReplay, manifest

FIELDS = {"obs": per.Field((4,)), "action": per.Field((), "int64"), "reward": per.Field()}
TIMEOUT = 120.0  # both shards may be dead at once, on a busy machine for long


class Writer:
    """Adds rows whose columns all say the same number."""

    def __init__(self, replay):
        self._replay = replay

    def process(self):
        return os.getpid()

    def write(self, numbers):
        """Add rows; return which of them were acknowledged."""
        return numbers[self._replay.extend(rows_of(numbers)) >= 0]


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


def tags_there(replay):
    """Return the tags of all rows that are in the shards at this moment."""
    ids = replay.highest(replay.capacity)
    return replay.get(ids).action if ids.size else ids


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
    done = died = together = late = saves = following = broken = 0
    had, secured = [], [np.zeros(0, np.int64)]  # tags that shards had, and that were saved
    with (
        tempfile.TemporaryDirectory() as folder,
        ThreadPoolExecutor(1) as thread,
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

        def replace(k):
            writers[k] = actor.remote(replay)
            processes[k] = ray.get(writers[k].process.remote(), timeout=120.0)

        def kill_a_shard():
            alive = [number for _, number in replay.processes if number]
            if alive:
                os.kill(int(generator.choice(alive)), signal.SIGKILL)
            return bool(alive)

        first = fresh(100)
        had.append(first[replay.extend(rows_of(first)) >= 0])
        while done < kills and time.monotonic() < until:
            given = [fresh(400) for _ in writers]
            calls = [w.write.remote(numbers) for w, numbers in zip(writers, given, strict=True)]
            time.sleep(float(generator.random()) * 0.05)
            k, kind = int(generator.integers(2)), generator.random()
            if kind < of_writers / 2:  # a writer, in the middle of a call
                os.kill(processes[k], signal.SIGKILL)
                done, died = done + 1, died + 1
                replace(k)
                had.append(np.intersect1d(tags_there(replay), given[k]))
            elif kind < of_writers:  # a writer and a shard, and nobody else knows of its rows
                had += ray.get(calls, timeout=2 * TIMEOUT)
                os.kill(processes[k], signal.SIGKILL)
                done, died = done + 1, died + 1
                if kill_a_shard():
                    done, together = done + 1, together + 1
                replace(k)
                calls = []
            else:
                done += kill_a_shard()
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
                with contextlib.suppress(ray.exceptions.RayActorError):  # of the killed writer
                    had.append(ray.get(call, timeout=2 * TIMEOUT))
            if generator.random() < 0.2:
                saving = thread.submit(replay.save, timeout=120.0)
                if generator.random() < 0.5:  # kill a shard in the middle of it
                    time.sleep(float(generator.random()) * 0.05)
                    done += kill_a_shard()
                saving.result(timeout=2 * TIMEOUT)
                saves += 1
                secured.append(tags_in(folder)[0])
            if done % 10 == 0:
                say(f"{done} kills, {len(replay)} rows, longest call {longest:.1f} s", flush=True)
        stats = replay.stats()
        replay.save(timeout=120.0)
        there, in_the_end = tags_in(folder)
    had, secured = np.unique(np.concatenate(had)), np.unique(np.concatenate(secured))
    gone = np.setdiff1d(had, there).size
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
    if stats["rows_lost"] != gone:
        raise AssertionError(
            f"{gone} of {had.size} rows are gone, and {stats['rows_lost']} were counted as lost"
        )
    return {
        "kills": done, "kills of writers": died, "with a shard": together,
        "restarts of shards": int(stats["restarts"]), "saves": saves, "rows": had.size,
        "gone": gone, "counted as lost": int(stats["rows_lost"]), "torn": broken,
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
