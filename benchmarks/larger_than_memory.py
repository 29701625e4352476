"""Keep 10 GB of frames in a directory with 2 GB of memory, draw from them, check every pixel.

For Linux. The process may have no more than ``--memory`` of its own (RLIMIT_DATA). That does not
count what the system keeps of the files; to limit both, run it in a control group, for example::

    systemd-run --user --scope -p MemoryMax=2G python -m benchmarks.larger_than_memory
"""

from __future__ import annotations

import argparse
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import prioritized_replay as per
from prioritized_replay.conformance.stacks import FRAME_BYTES, STACK_SHAPE, Stacks

GIGA = 10**9
STEPS = Stacks()  # frames that carry their number, in episodes
BATCH = 32


def main() -> None:
    """Fill, overwrite, draw, check; print what it took."""
    arguments = parsed()
    in_group = limit_memory(arguments.memory)
    arguments.directory.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="larger-than-memory-", dir=arguments.directory))
    try:
        check(folder, int(arguments.frames * GIGA / FRAME_BYTES), arguments.rows)
        if in_group:
            peak = of_group("memory.peak", "memory.max_usage_in_bytes") or 0
            print(f"with what the system keeps of the files, at the peak: {peak / GIGA:.2f} GB")
    finally:
        shutil.rmtree(folder)


def parsed() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--frames", type=float, default=10.0, help="gigabytes of frames (default: %(default)s)")
    add("--memory", type=float, default=2.0, help="gigabytes allowed (default: %(default)s)")
    add("--rows", type=int, default=20_000, help="rows to draw and check (default: %(default)s)")
    place = "where to make a folder for the files, removed at the end (default: %(default)s)"
    add("--directory", type=Path, default=Path(tempfile.gettempdir()), help=place)
    return parser.parse_args()


def limit_memory(gigabytes: float) -> bool:
    """Allow this process so much memory; return whether its control group has a limit too."""
    allowed = int(gigabytes * GIGA)
    resource.setrlimit(resource.RLIMIT_DATA, (allowed, allowed))
    print(f"memory of its own, at most: {gigabytes:g} GB (RLIMIT_DATA)")
    group = of_group("memory.max", "memory.limit_in_bytes")
    if group is None or group >= 1 << 60:
        print("with what the system keeps of the files: no limit")
        return False
    print(f"with what the system keeps of the files: at most {group / GIGA:.2f} GB (control group)")
    return True


def check(folder: Path, capacity: int, rows: int) -> None:
    """Fill a buffer one and a tenth times and draw from it."""
    replay = per.ReplayBuffer(
        capacity,
        {
            "obs": per.Field(STACK_SHAPE, "uint8", stack_axis=0),
            "action": per.Field((), "int64"),
            "reward": per.Field(),
        },
        directory=folder,
        seed=1,
    )
    added = capacity + capacity // 10
    least_shown = max(1, added // 10)
    own = 0
    print(f"capacity: {capacity:,} transitions of {STACK_SHAPE} bytes and their successors")
    began = time.perf_counter()
    for step in STEPS.played(added):
        if step["action"] % least_shown == 0:
            own = max(own, own_bytes())
        replay.add(*step.values())
    took = time.perf_counter() - began
    print(f"added: {added:,} steps, {1e6 * took / added:.0f} us each, those of the game included")
    on_disk = sum(512 * path.stat().st_blocks for path in folder.iterdir())
    print(f"files: {on_disk / GIGA:.2f} GB in {len(list(folder.iterdir()))} files")
    print(f"replay.nbytes: {replay.nbytes / GIGA:.2f} GB")

    rng = np.random.default_rng(0)
    read, drawn, seconds, seen = bytes_read(), 0, 0.0, set()
    while drawn < rows:
        began = time.perf_counter()
        batch = replay.sample(BATCH, beta=0.5)
        seconds += time.perf_counter() - began
        require_right(batch, added, capacity)
        replay.update_priorities(batch.ids, rng.standard_t(3, BATCH))
        seen.update(batch.ids.tolist())
        drawn += BATCH
        own = max(own, own_bytes())
    print(f"drawn: {drawn:,} rows, {len(seen):,} different ones, every pixel of each was right")
    print(f"a draw of {BATCH}: {1e3 * seconds / (drawn // BATCH):.1f} ms")
    print(f"read from disk meanwhile: {(bytes_read() - read) / GIGA:.2f} GB")
    print(f"memory of its own, at the peak: {own / GIGA:.2f} GB (RssAnon)")


def require_right(batch: per.Batch, added: int, capacity: int) -> None:
    """Compare a batch with the steps of the game."""
    rows = batch.action
    if not np.array_equal(rows, batch.ids) or rows.min() < added - capacity:
        sys.exit(f"wrong rows: ids {batch.ids}, of steps {rows}")
    ends = STEPS.ends(rows) | (rows == added - 1)
    right = (
        np.array_equal(batch.obs, STEPS.obs_of(rows)),
        np.array_equal(batch.next_obs, STEPS.next_obs_of(rows)),
        np.array_equal(batch.terminated, ends),
    )
    if not all(right):
        sys.exit(f"wrong content in ids {batch.ids}: obs, next_obs, terminated right: {right}")


def own_bytes() -> int:
    """Return the memory of this process that no file stands behind."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("RssAnon:")[1].split()[0])


def bytes_read() -> int:
    """Return how many bytes this process has made the disk read."""
    return int(Path("/proc/self/io").read_text().split("read_bytes:")[1].split()[0])


def of_group(*names: str) -> int | None:
    """Return a number of this process's control group: of version 2, or of version 1."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for root, kind in (("/sys/fs/cgroup", ""), ("/sys/fs/cgroup/memory", "memory")):
            if kind != controllers:
                continue
            for name in names:
                file = Path(root + path, name)
                if file.exists() and file.read_text().strip().isdigit():
                    return int(file.read_text())
    return None


if __name__ == "__main__":
    main()
