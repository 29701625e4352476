"""Locks on files. A lock ends with the process that holds it, however the process ends."""

from __future__ import annotations

import sys

__all__ = ["lock_file", "unlock_file"]

if sys.platform == "win32":
    import msvcrt
    import os

    def lock_file(descriptor: int) -> None:
        """Lock an open file, without waiting.

        Raises
        ------
        OSError
            If somebody else holds the lock (BlockingIOError or PermissionError), or the file
            system has no locks.
        """
        os.lseek(descriptor, 0, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

    def unlock_file(descriptor: int) -> None:
        """Let others lock the file."""
        os.lseek(descriptor, 0, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def lock_file(descriptor: int) -> None:
        """Lock an open file, without waiting.

        Raises
        ------
        OSError
            If somebody else holds the lock (BlockingIOError or PermissionError), or the file
            system has no locks.
        """
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def unlock_file(descriptor: int) -> None:
        """Let others lock the file, also where a forked child has it open."""
        fcntl.flock(descriptor, fcntl.LOCK_UN)
