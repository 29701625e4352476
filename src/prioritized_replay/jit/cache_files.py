"""Files that a later process can rely on: knows folders and bytes, nothing of what the bytes mean.

A file is found whole, as it was written, or not at all:

- it is written under another name and then renamed, so a process that is killed leaves no half;
- its checksum covers a key, all that the content depends on, and is verified in every reading.

What is read here will be run, so nobody else may have written it. A folder is opened once, and no
link on the way to it is followed that somebody else could have put there. Owner and mode of the
folder and of the file are asked of what was opened, never of a path.

A file's name is ``<group>.<name>-<environment>-<origin>-<more>``. The origin is what a group was
made from. Writing deletes the files of the same group and environment that have another origin.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import os
import secrets
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from prioritized_replay.file_locks import lock_file, unlock_file

CHECKSUM = 32  # bytes
LONGEST = 1 << 28  # bytes of a file; a kernel has some hundred thousand
ABANDONED = 3600.0  # seconds after which nobody is still writing a temporary file
BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
OPENED = (
    getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    | getattr(os, "O_NONBLOCK", 0)
)  # fmt: skip


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


class Folder:
    """A folder that was opened and found to be nobody else's.

    Parameters
    ----------
    path : pathlib.Path
        Where it is.
    descriptor : int or None
        Of the open folder. None on Windows, where a user's folders are closed to others anyway.
    """

    def __init__(self, path: Path, descriptor: int | None) -> None:
        self.path = path
        self.descriptor = descriptor

    def open(self, name: str, flags: int) -> int:
        """Open a file and return its descriptor, if nobody else may write the file."""
        file = os.open(self._at(name), flags | OPENED, 0o600, dir_fd=self.descriptor)
        try:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                raise PermissionError(f"{self.path / name} is no regular file")
            if self.descriptor is not None and (
                status.st_uid not in trusted() or status.st_mode & BY_OTHERS
            ):
                raise PermissionError(f"{self.path / name} can be written by others")
        except BaseException:
            os.close(file)
            raise
        return file

    def replace(self, old: str, new: str) -> None:
        """Put a file in the place of another."""
        here = self.descriptor
        os.replace(self._at(old), self._at(new), src_dir_fd=here, dst_dir_fd=here)

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._at(name), dir_fd=self.descriptor)

    def names(self) -> list[str]:
        """Return the names of what is in the folder."""
        return os.listdir(self.path if self.descriptor is None else self.descriptor)

    def age(self, name: str) -> float:
        """Return the seconds since a file was written."""
        status = os.stat(self._at(name), dir_fd=self.descriptor, follow_symlinks=False)
        return time.time() - status.st_mtime

    def _at(self, name: str) -> str | Path:
        return self.path / name if self.descriptor is None else name


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Folder]:
    """Open a folder, or raise PermissionError where others may write it or a folder above it."""
    if sys.platform == "win32":
        yield Folder(path, None)
        return
    descriptor = _descend(path)
    try:
        yield Folder(path, descriptor)
    finally:
        os.close(descriptor)


def _descend(path: Path) -> int:
    """Open a folder from the root on, one name at a time, and check each on the way."""
    real = Path(os.path.realpath(path.parent), path.name)
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(real.anchor, flags)
    try:
        names = real.parts[1:]
        for depth in range(len(names) + 1):
            status = os.fstat(descriptor)
            mine = status.st_uid in trusted()
            writable = bool(status.st_mode & BY_OTHERS)
            # In a sticky folder, as /tmp, others can neither remove nor rename what is ours.
            sticky = bool(status.st_mode & stat.S_ISVTX) and depth < len(names)
            if not mine or (writable and not sticky):
                raise PermissionError(
                    f"{Path(real.anchor, *names[:depth])} can be written by others"
                )
            if depth < len(names):
                deeper = os.open(names[depth], flags, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = deeper
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def trusted() -> set[int]:
    """Return the users whose files may be run: root, this one, and who could change this file."""
    users = {0, os.getuid()}
    with contextlib.suppress(OSError):
        users.add(os.stat(__file__).st_uid)
    return users


def read(name: str, key: bytes) -> bytes | None:
    """Return the content of a file, or None; one that is damaged is deleted."""
    for path in folders():
        with contextlib.suppress(OSError), opened(path) as folder:
            with open(folder.open(name, os.O_RDONLY), "rb") as file:
                data = file.read(LONGEST)
            content = data[CHECKSUM:]
            if data[:CHECKSUM] == checksum(key, content):
                return content
            folder.remove(name)
    return None


def write(name: str, key: bytes, content: bytes) -> None:
    """Make the file anew in the first folder that takes it, or raise why the last did not."""
    problem = None
    for path in folders():
        try:
            make(path)
            with opened(path) as folder:
                delete_outdated(folder, name)
                _put(folder, name, checksum(key, content) + content)
        except OSError as error:
            problem = error
        else:
            return
    if problem is not None:
        raise problem


def _put(folder: Folder, name: str, data: bytes) -> None:
    """Write a file under another name, and then give it its own."""
    draft = f"{name}-{secrets.token_hex(4)}.tmp"
    try:
        with open(folder.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
            file.write(data)
        folder.replace(draft, name)
    except BaseException:
        folder.remove(draft)
        raise


def checksum(key: bytes, content: bytes) -> bytes:
    """Return what a file begins with."""
    return hashlib.blake2b(content, key=hashlib.sha256(key).digest(), digest_size=CHECKSUM).digest()


def make(folder: Path) -> None:
    """Make a folder that all may read, and only its owner write, and those above it likewise."""
    missing = []
    for path in (folder, *folder.parents):
        if path.is_dir():
            break
        missing.append(path)
    for path in reversed(missing):
        path.mkdir(mode=0o755, exist_ok=True)
    with opened(folder):
        pass


def delete_outdated(folder: Folder, name: str) -> None:
    """Delete the files of other origin, and what killed processes have left."""
    first, environment, origin, _ = name.split("-")
    group = first.rpartition(".")[0]
    for found in folder.names():
        with contextlib.suppress(OSError):
            parts = found.split("-")
            if found.endswith(".tmp"):
                outdated = folder.age(found) > ABANDONED
            else:
                outdated = (
                    len(parts) == 4
                    and parts[0].rpartition(".")[0] == group
                    and parts[1] == environment
                    and parts[2] != origin
                )
            if outdated:
                folder.remove(found)


class Lock:
    """Held by one process at a time, among those that keep their files in one folder.

    It ends with the process, however that ends. Where files cannot be locked, everybody has it.
    """

    def __init__(self) -> None:
        self.file: int | None = None

    def take(self) -> bool:
        """Return at once whether this process has the lock now."""
        for path in folders():
            with contextlib.suppress(OSError):
                make(path)
                with opened(path) as folder:
                    file = folder.open("lock", os.O_RDWR | os.O_CREAT)
                try:
                    lock_file(file)
                except OSError as error:
                    os.close(file)
                    return not isinstance(error, (BlockingIOError, PermissionError))
                self.file = file
                return True
        return True

    def release(self) -> None:
        """Let another process take it."""
        if self.file is not None:
            file, self.file = self.file, None
            with contextlib.suppress(OSError):
                unlock_file(file)
            os.close(file)
