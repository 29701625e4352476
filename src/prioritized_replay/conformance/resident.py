"""How much memory this process holds. Knows Linux; elsewhere nothing is claimed."""

from __future__ import annotations

import gc
import os
from pathlib import Path

from prioritized_replay.conformance.memory import NotClaimed

_STATM = Path("/proc/self/statm")


def resident_bytes() -> int:
    """Return the bytes of this process that are in memory, whoever asked for them.

    Raises
    ------
    NotClaimed
        The system has no /proc.
    """
    gc.collect()
    if not _STATM.exists():
        raise NotClaimed("memory can be measured on Linux only")
    return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
