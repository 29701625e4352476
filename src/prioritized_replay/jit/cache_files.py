"""Files that a later process can rely on: knows folders and bytes, nothing of what the bytes mean.

A file is found whole, as it was written, or not at all:

- it is written under another name and then renamed, so whoever is killed leaves nothing half done;
- its checksum covers a key, all that the content depends on, and is verified in every reading.

A file's name is ``<group>.<name>-<environment>-<origin>-<more>``. What a group was made from, its
origin, changes: writing deletes the files of the same group and environment with another origin.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import os
import secrets
import sys
import time
from pathlib import Path
from typing import BinaryIO

CHECKSUM = 32  # bytes
ABANDONED = 3600.0  # seconds after which nobody is still writing a temporary file


def digest(content: bytes) -> str:
    """Return a name for a content."""
    return hashlib.blake2b(content, digest_size=CHECKSUM).hexdigest()


@functools.cache
def folders() -> tuple[Path, ...]:
    """Where files are looked for and, in the first that can be written, kept."""
    own = f"prioritized_replay-{digest(os.fsencode(__file__))[:12]}"  # for this installation
    found = []
    with contextlib.suppress(OSError):  # raised where the current folder has been deleted
        chosen = os.environ.get("NUMBA_CACHE_DIR")
        found += [Path(chosen).absolute() / own] if chosen else []
    with contextlib.suppress(NotImplementedError):  # raised by a Python that caches nothing
        found.append(Path(importlib.util.cache_from_source(__file__)).parent / "kernels")
    home = Path(os.path.expanduser("~"))
    if sys.platform == "win32":
        found.append(Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / own)
    elif sys.platform == "darwin":
        found.append(home / "Library" / "Caches" / own)
    else:
        found.append(Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / own)
    return tuple(found)


def read(name: str, key: bytes) -> bytes | None:
    """Return the content of a file, or None; one that is damaged is deleted."""
    for folder in folders():
        with contextlib.suppress(OSError):
            check_owner(folder)
            data = (folder / name).read_bytes()
            content = data[CHECKSUM:]
            if data[:CHECKSUM] == checksum(key, content):
                return content
            (folder / name).unlink()
    return None


def write(name: str, key: bytes, content: bytes) -> None:
    """Make the file anew in the first folder that takes it, or raise why the last did not."""
    problem = None
    for folder in folders():
        draft = folder / f"{name}-{secrets.token_hex(4)}.tmp"
        try:
            make(folder)
            delete_outdated(folder, name)
            try:
                draft.write_bytes(checksum(key, content) + content)
                draft.replace(folder / name)
            finally:
                draft.unlink(missing_ok=True)
        except OSError as error:
            problem = error
        else:
            return
    if problem is not None:
        raise problem


def checksum(key: bytes, content: bytes) -> bytes:
    """Return what a file begins with."""
    return hashlib.blake2b(content, key=hashlib.sha256(key).digest(), digest_size=CHECKSUM).digest()


def make(folder: Path) -> None:
    """Make a folder that all may read, and only its owner write."""
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    check_owner(folder)


def check_owner(folder: Path) -> None:
    """Refuse a folder that others may write: what is read there will be run."""
    if sys.platform != "win32":
        trusted = {0, os.getuid()}
        with contextlib.suppress(OSError):
            trusted.add(os.stat(__file__).st_uid)  # who could change this file as well
        status = folder.lstat()
        if status.st_uid not in trusted or status.st_mode & 0o022:
            raise PermissionError(f"{folder} can be written by others")


def delete_outdated(folder: Path, name: str) -> None:
    """Delete the files of other origin, and what killed processes have left."""
    first, environment, origin, _ = name.split("-")
    group = first.partition(".")[0]
    for path in folder.iterdir():
        with contextlib.suppress(OSError):
            parts = path.name.split("-")
            if path.suffix == ".tmp":
                outdated = time.time() - path.stat().st_mtime > ABANDONED
            else:
                outdated = (
                    len(parts) == 4
                    and parts[0].partition(".")[0] == group
                    and parts[1] == environment
                    and parts[2] != origin
                )
            if outdated:
                path.unlink()


if sys.platform == "win32":
    import msvcrt

    def lock_file(file: BinaryIO) -> None:
        """Lock a file for this process, or raise."""
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

    def unlock_file(file: BinaryIO) -> None:
        """Let others lock it."""
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def lock_file(file: BinaryIO) -> None:
        """Lock a file for this process, or raise."""
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def unlock_file(file: BinaryIO) -> None:
        """Let others lock it, also where a forked child has it open."""
        fcntl.flock(file, fcntl.LOCK_UN)


class Lock:
    """Held by one process at a time, among those that keep their files in one folder.

    It ends with the process, however that ends. Where files cannot be locked, everybody has it.
    """

    def __init__(self) -> None:
        self.file: BinaryIO | None = None

    def take(self) -> bool:
        """Return at once whether this process has the lock now."""
        for folder in folders():
            with contextlib.suppress(OSError):
                make(folder)
                file = (folder / "lock").open("ab")
                try:
                    lock_file(file)
                except OSError as error:
                    file.close()
                    return not isinstance(error, (BlockingIOError, PermissionError))
                self.file = file
                return True
        return True

    def release(self) -> None:
        """Let another process take it."""
        if self.file is not None:
            with self.file, contextlib.suppress(OSError):
                unlock_file(self.file)
            self.file = None
