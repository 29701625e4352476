"""What only a new process shows: how long a start takes, and how much memory is really used.

Knows how to start Python and read one line of JSON from it; run as a module it is that process.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import prioritized_replay
from benchmarks.results import Footprint, Start
from prioritized_replay.conformance.adapters import ALL_STACKS, PEERS
from prioritized_replay.conformance.adapters.ours import OURS
from prioritized_replay.conformance.subject import Subject

_ROOT = Path(__file__).parent.parent  # where `python -m benchmarks` finds this package
CACHE = "NUMBA_CACHE_DIR"  # where the library's compiled loops are kept, if set

IMPORT, FOUNDATION = "import prioritized_replay", "import numpy, numba"
FIRST, LATER = "first cycle after installation", "first cycle of a later process"

_IMPORT = """
import time
began = time.perf_counter()
import {module}
print(time.perf_counter() - began)
"""
_FIRST_CYCLE = """
import time
began = time.perf_counter()
import numpy as np
import prioritized_replay as per
fields = {{"obs": per.Field((16,)), "action": per.Field((), "int64"), "reward": per.Field()}}
replay = per.ReplayBuffer(10_000, fields, sampler=per.{sampler}())
for step in range(64):
    replay.add(np.full(16, step), 0, 1.0, np.full(16, step + 1), False)
batch = replay.sample(32)
replay.update_priorities(batch.ids, batch.reward)
print(time.perf_counter() - began)
"""


@contextmanager
def empty_cache() -> Iterator[dict[str, str]]:
    """Give an environment in which nothing has been compiled yet, until the end of the block.

    Compiled code is looked for beside the package too, so it is one of a copy.
    """
    source = Path(prioritized_replay.__file__).parent
    with tempfile.TemporaryDirectory(prefix="per-bench-") as folder:
        copy = Path(folder, source.name)
        shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
        caches = dict.fromkeys(("XDG_CACHE_HOME", "LOCALAPPDATA"), str(Path(folder, "caches")))
        yield {"PYTHONPATH": folder, CACHE: str(Path(folder, "kernels")), **caches}


def measure_starts(runs: int, modules: Iterable[str], say: Callable[[str], None]) -> list[Start]:
    """Time imports, and the first add, draw and update of a process with and without a cache.

    Parameters
    ----------
    runs : int
        Processes for each; those that have to compile everything are two at most.
    modules : iterable of str
        Those that users of the peers import.
    say : callable
        Takes one line on what happens now.
    """
    times: dict[str, list[float]] = {}
    imports = {IMPORT: "prioritized_replay", FOUNDATION: "numpy, numba"}
    imports |= {f"import {module}": module for module in modules}
    for run in range(runs + 1):
        for what, module in imports.items():
            say(f"starting: {what}")
            taken = _seconds(_IMPORT.format(module=module))
            if run:  # the first one loads the files from the disk
                times.setdefault(what, []).append(taken)
    for sampler in ("Proportional", "RankBased"):
        for _ in range(min(runs, 2)):
            with empty_cache() as environment:
                program = _FIRST_CYCLE.format(sampler=sampler)
                say(f"starting: {FIRST}, {sampler}")
                first = _seconds(program, environment)
                times.setdefault(f"{FIRST}, {sampler}", []).append(first)
                say(f"starting: {LATER}, {sampler}")
                later = [_seconds(program, environment) for _ in range(max(1, runs // 2))]
                times.setdefault(f"{LATER}, {sampler}", []).extend(later)
    return [
        Start(what, float(np.median(taken)), min(taken), max(taken), len(taken))
        for what, taken in times.items()
    ]


def measure_footprint(kind: type[Subject], size: int) -> Footprint:
    """Fill a memory in a new process and see how much that process grew.

    Parameters
    ----------
    kind : Subject class
        Whose.
    size : int
        N.
    """
    # Only with a fixed threshold does glibc give large freed blocks back, so that what was freed
    # before the memory was filled does not make it look smaller.
    environment = {"MALLOC_MMAP_THRESHOLD_": "65536"}
    done = _run([sys.executable, "-m", __name__, kind.__name__, str(size)], environment)
    told = json.loads(done)
    return Footprint(kind.name, size, told["reserved"], told["resident"])


def _seconds(program: str, environment: Mapping[str, str] | None = None) -> float:
    return float(_run([sys.executable, "-c", program], environment))


def _run(words: list[str], environment: Mapping[str, str] | None = None) -> str:
    env = os.environ | {"RL_WARNINGS": "0"} | dict(environment or {})
    done = subprocess.run(words, capture_output=True, text=True, env=env, cwd=_ROOT, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise RuntimeError(f"a process of the benchmark failed: {said[-1]}")
    return done.stdout.strip().splitlines()[-1]


def resident_bytes() -> int | None:
    """Return the bytes of this process that are in memory; None where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:  # no Linux
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def _filled(kind: type[Subject], size: int) -> dict[str, Any]:
    workload = kind.workload()
    errors = workload.errors(size)
    small = kind(100)  # loads and compiles what has to be, before memory is looked at
    small.fill(workload, workload.errors(100))
    small.sample(10)
    gc.collect()
    before = resident_bytes()
    contender = kind(size)
    contender.fill(workload, errors)
    contender.sample(10)
    gc.collect()
    after = resident_bytes()
    grown = None if before is None or after is None else (after - before) / size
    reserved = contender.nbytes
    return {"reserved": None if reserved is None else reserved / size, "resident": grown}


def main(words: list[str]) -> None:
    """Be the new process: fill the named contender and print its bytes per row."""
    known = (*OURS, *(k for ks in PEERS.values() for k in ks), *ALL_STACKS)
    kinds = {kind.__name__: kind for kind in known}
    print(json.dumps(_filled(kinds[words[0]], int(words[1]))))


if __name__ == "__main__":
    main(sys.argv[1:])
