"""How much memory a run's replay may come to need, and how much the machine has left.

Knows fields and the operating system; knows nothing of training.
"""

import math
import os

import numpy as np

from prioritized_replay.replay import ReplayBuffer


def bytes_when_full(memory: ReplayBuffer, frames: int = 1) -> int:
    """Return about how many bytes a new buffer will have when it is full.

    Parameters
    ----------
    memory : ReplayBuffer
        Empty. Of large observations it then has only the rows that refer to them.
    frames : int
        Of each observation, of which each step brings one that is new.
    """
    obs = memory.fields["obs"]
    shape, dtype = getattr(obs, "shape", ()), getattr(obs, "dtype", "uint8")
    each = math.prod(shape) * np.dtype(dtype).itemsize
    rows_hold_them = memory.nbytes >= 2 * each * memory.capacity
    return memory.nbytes + (0 if rows_hold_them else memory.capacity * each // frames)


def bytes_available() -> int | None:
    """Return how many bytes of memory could be used now, or None where that is not told."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows
        return None
