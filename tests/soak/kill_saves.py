"""Kill a process again and again while it adds and saves, and reopen what it left.

    python -m tests.soak.kill_saves --kills 200

Each new process goes on where the last checkpoint says. What it draws is compared, bit for bit,
with a buffer that was never interrupted; and no checkpoint may be older than the last one that a
process said was complete.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from tests.checkpoint_driving import Case, World, drive, skipped

import prioritized_replay as per
from prioritized_replay.checkpoint import manifest

CASES = [
    Case("frames", "proportional", 3, "same_step"),
    Case("rows", "rank", 3),
    Case("found", "uniform", 1),
    Case("nested", "proportional", 1, "next_step", sequence="overlapping"),
]
SMALL_PIECE = 12_000  # bytes: many files, so that a kill has something to come between
LONGEST = 0.5  # seconds from the first save of a process to its end
MOST_STEPS = 10_000
COMPARED = 5  # steps after each reopening


def steps_of(replay: per.ReplayBuffer, case: Case) -> int:
    """Return after how many steps a buffer that was never interrupted has the same statistics."""
    reference, world, found = case.buffer(), World(case), replay.stats()
    for step in range(MOST_STEPS):
        if reference.stats() == found:
            return step
        drive(reference, world, step, 1)
    raise AssertionError("what came back never was")


def add_and_save(folder: Path, case: Case, flushing: bool) -> None:
    """Go on from the checkpoint, if there is one, until killed."""
    manifest.PIECE = SMALL_PIECE
    where = {"directory": folder} if flushing else {}
    if (folder / manifest.MANIFEST).exists():
        replay = per.ReplayBuffer.load(folder, **where)
    else:
        replay = case.buffer(**where)
    step = steps_of(replay, case)
    world = skipped(World(case), step)
    while True:
        if flushing:
            replay.flush()
        else:
            replay.save(folder)
        print(step, flush=True)
        drive(replay, world, step, 3)
        step += 3


def killed_after(folder: Path, case: Case, flushing: bool, seconds: float) -> int:
    """Run a process for so long after its first save, kill it; return what it last announced."""
    root = Path(__file__).parents[2]
    program = [sys.executable, "-m", "tests.soak.kill_saves", "--child", str(folder)]
    program += ["--case", str(CASES.index(case)), *(["--flush"] if flushing else [])]
    environment = os.environ | {"PYTHONPATH": f"{root}{os.pathsep}{root / 'src'}"}
    process = subprocess.Popen(program, stdout=subprocess.PIPE, env=environment, cwd=root)
    assert process.stdout is not None
    first = process.stdout.readline()
    assert first, "the process ended by itself"
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    announced = [first, *process.stdout]  # to its end
    timer.join()
    process.stdout.close()
    assert process.wait() < 0, "the process ended by itself"
    return int(announced[-1 if announced[-1].endswith(b"\n") else -2])


def survive(folder: Path, case: Case, kills: int, flushing: bool, seed: int) -> int:
    """Kill and reopen so often; return how many steps were made in all."""
    rng = random.Random(seed)
    manifest.PIECE = SMALL_PIECE
    reference, world = case.buffer(), World(case)
    expected: list[str] = []
    step = 0
    for _ in range(kills):
        announced = killed_after(folder, case, flushing, rng.random() * LONGEST)
        replay = per.ReplayBuffer.load(folder)
        step = steps_of(replay, case)
        assert step >= announced, f"step {announced} was saved, {step} came back"
        while len(expected) < step + COMPARED:
            expected += drive(reference, world, len(expected), 1)
        seen = drive(replay, skipped(World(case), step), step, COMPARED)
        assert seen == expected[step : step + COMPARED], f"another buffer at step {step}"
    return step


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, default=0)
    parser.add_argument("--flush", action="store_true")
    parser.add_argument("--child", type=Path)
    options = parser.parse_args()
    if options.child is not None:
        add_and_save(options.child, CASES[options.case], options.flush)
    total = 0
    for number, case in enumerate(CASES):
        for flushing in (False, True):
            kills = (options.kills + 2 * number + flushing) // (2 * len(CASES))
            with tempfile.TemporaryDirectory() as folder:
                steps = survive(Path(folder), case, kills, flushing, options.seed)
            total += kills
            how = "flush" if flushing else "save"
            streams = World(case).count
            each = f"n_step {case.n_step}" if case.sequence is None else "sequences"
            what = f"{case.storage}, {case.sampler}, {each}, {streams} stream(s)"
            print(f"{what}, {how}: {kills} kills, {steps} steps, all reopened", flush=True)
    print(f"{total} kills survived")


if __name__ == "__main__":
    main()
