"""What a shard has taken, in a small file that outlives its process. It knows numbers only.

A shard may be killed together with the only process that knew of its last rows. So it writes down
each block of rows before it answers. Its next generation, if it comes to the same machine, reads
how many rows are gone, and which blocks were the last: some may not have been answered, and their
sender has sent them to another shard.
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["LAST", "NO_TICKET", "Ledger", "Left", "ledger_file", "remove_ledgers"]

Ints = NDArray[np.int64]

LAST = 256
"""Blocks that are remembered: far more than are written down and not answered yet."""
NO_TICKET = 0
"""Of an entry that is no block: the ring was made, or emptied."""
FORMAT = 1
HEAD = 3  # format, generation, entries
ENTRY = 4  # ticket, first, stop, size


class Left(NamedTuple):
    """What a generation of a shard has left."""

    generation: int
    issued: int
    """Rows that its buffer was ever given."""
    size: int
    """Rows that were there."""
    blocks: Ints
    """int64[M, 3]: the last blocks, each with its ticket and the numbers from first to stop."""


class Ledger:
    """Writes down what a generation of a shard takes. It is there until :meth:`remove`.

    A process that is killed between any two steps leaves an entry whole, or not at all.

    Parameters
    ----------
    path : path
        The file. One that is there is replaced.
    generation : int
        Of the shard.
    issued, size : int
        Rows that its buffer was ever given, and that are there.

    Raises
    ------
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     ledger = Ledger(Path(folder) / "shard-0", 2, 100, 100)
    ...     ledger.note(7, 100, 110, 110)
    ...     Ledger.read(Path(folder) / "shard-0")
    Left(generation=2, issued=110, size=110, blocks=array([[  7, 100, 110]]))
    """

    def __init__(self, path: Path, generation: int, issued: int, size: int) -> None:
        self._path = path
        beside = path.with_name(f"{path.name}.new")
        numbers = np.zeros(HEAD + LAST * ENTRY, np.int64)
        numbers[:2] = FORMAT, generation
        numbers.tofile(beside)
        self._numbers = np.memmap(beside, np.int64, "r+")
        self.note(NO_TICKET, issued, issued, size)
        beside.replace(path)

    def note(self, ticket: int, first: int, stop: int, size: int) -> None:
        """Write down a block: its rows have the numbers from first to stop, and size are there."""
        entries = int(self._numbers[2])
        at = HEAD + entries % LAST * ENTRY
        self._numbers[at : at + ENTRY] = ticket, first, stop, size
        self._numbers[2] = entries + 1  # last, one store: now the entry is there

    def remove(self) -> None:
        """Delete the file; what is noted later is lost."""
        with contextlib.suppress(OSError):
            self._path.unlink()

    @staticmethod
    def read(path: Path) -> Left | None:
        """Return what a generation has left at a path; None where there is nothing of the kind."""
        numbers = np.zeros(0, np.int64)
        with contextlib.suppress(OSError):
            numbers = np.fromfile(path, np.int64)
        if numbers.size != HEAD + LAST * ENTRY or numbers[0] != FORMAT or numbers[2] < 1:
            return None
        entries = int(numbers[2])
        kept = numbers[HEAD:].reshape(LAST, ENTRY)
        _, _, issued, size = kept[(entries - 1) % LAST].tolist()
        # The oldest entry may be half written over: it was answered long ago.
        blocks = kept[np.arange(max(0, entries - LAST + 1), entries) % LAST]
        blocks = blocks[blocks[:, 0] != NO_TICKET, :3]
        return Left(int(numbers[1]), issued, size, blocks)


def ledger_file(name: str, shard: int) -> Path:
    """Return the path of a shard's ledger, one on each machine."""
    return Path(tempfile.gettempdir()) / f"prioritized-{name}-{shard}"


def remove_ledgers(name: str) -> None:
    """Delete the ledgers that shards have left on this machine."""
    for file in Path(tempfile.gettempdir()).glob(f"prioritized-{name}-*"):
        with contextlib.suppress(OSError):
            file.unlink()
