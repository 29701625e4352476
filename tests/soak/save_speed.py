"""Save and load a buffer of Atari size: time beside a plain copy of the same files, and memory.

    python -m tests.soak.save_speed --rows 1000000 --folder /somewhere/with/room

A plain copy reads the files of the checkpoint, which are cached or not as memory allows, and writes
and forces them to disk as well. Linux only.
"""

import argparse
import os
import shutil
import threading
import time
from pathlib import Path

import numpy as np

import prioritized_replay as per

SIDE = 84
BLOCK = 1000


def filled(rows: int) -> per.ReplayBuffer:
    """Return a full buffer of stacks of four frames, all different."""
    fields = {
        "obs": per.Field((4, SIDE, SIDE), "uint8", stack_axis=0),
        "action": per.Field((), "int64"),
        "reward": per.Field(),
    }
    replay = per.ReplayBuffer(rows, fields, seed=1)
    for first in range(0, rows, BLOCK):
        add_block(replay, first)
    return replay


def add_block(replay: per.ReplayBuffer, first: int) -> None:
    rng = np.random.default_rng(first)
    frames = rng.integers(0, 256, (BLOCK + 4, SIDE, SIDE), dtype=np.uint8)
    stacks = np.lib.stride_tricks.sliding_window_view(frames, 4, axis=0).transpose(0, 3, 1, 2)
    columns = {
        "obs": stacks[:BLOCK],
        "next_obs": stacks[1 : BLOCK + 1],
        "action": np.arange(first, first + BLOCK) % 18,
        "reward": np.zeros(BLOCK, np.float32),
        "terminated": np.zeros(BLOCK, bool),
    }
    replay.extend(columns)


def memory(name: str) -> int:
    """Return bytes of memory of this process: VmRSS now, VmHWM at most."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name + ":"))


def measured(what, *args):
    """Return what a call took in seconds, and how far memory rose above where it began."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = memory("VmRSS")
    start = time.perf_counter()
    what(*args)
    return time.perf_counter() - start, memory("VmHWM") - before


def copy(source: Path, target: Path) -> None:
    target.mkdir()
    for path in source.iterdir():
        shutil.copyfile(path, target / path.name)
        with (target / path.name).open("r+b") as file:
            os.fsync(file.fileno())


def busy(replay: per.ReplayBuffer, stop: threading.Event, waits: list[float]) -> None:
    """Sample until told to stop, and note how long each call took."""
    while not stop.is_set():
        start = time.perf_counter()
        replay.sample(32)
        waits.append(time.perf_counter() - start)
        time.sleep(0.001)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, required=True)
    options = parser.parse_args()
    replay = filled(options.rows)
    replay.sample(32)
    print(f"{options.rows} rows, {replay.nbytes / 1e9:.2f} GB", flush=True)
    checkpoint, copied = options.folder / "checkpoint", options.folder / "copied"
    for what, new in (("full", 0), ("nothing new", 0), ("5 % newer rows", options.rows // 20)):
        for block in range(0, new, BLOCK):
            add_block(replay, options.rows + block)
        seconds, rise = measured(replay.save, checkpoint)
        share = 100 * rise / replay.nbytes
        print(
            f"save, {what}: {seconds:.2f} s, peak + {rise / 1e6:.0f} MB, {share:.1f} %", flush=True
        )
    shutil.rmtree(checkpoint)
    stop, waits = threading.Event(), []
    thread = threading.Thread(target=busy, args=(replay, stop, waits))
    thread.start()
    seconds, _ = measured(replay.save, checkpoint)
    stop.set()
    thread.join()
    print(f"save, full, another thread sampling: {seconds:.2f} s; its longest wait "
          f"{1e3 * max(waits):.0f} ms, median {1e3 * float(np.median(waits)):.2f} ms")  # fmt: skip
    for _ in range(2):
        seconds, _ = measured(copy, checkpoint, copied)
        shutil.rmtree(copied)
        shutil.rmtree(checkpoint)
        again, _ = measured(replay.save, checkpoint)
        print(
            f"plain copy: {seconds:.2f} s; save: {again:.2f} s, {seconds / again:.2f}", flush=True
        )
    size = sum(path.stat().st_size for path in checkpoint.iterdir())
    print(f"{size / 1e9:.2f} GB in {len(list(checkpoint.iterdir()))} files")
    nbytes = replay.nbytes
    del replay
    seconds, rise = measured(per.ReplayBuffer.load, checkpoint)
    print(f"load: {seconds:.2f} s, peak {rise / nbytes:.3f} of the buffer's bytes")


if __name__ == "__main__":
    main()
