"""Which live buffer a folder belongs to: two must never write to the same one.

The owner holds a lock on the folder itself, so nothing is written for it. The system drops the lock
when the process ends, however it ends: an owner that has crashed blocks nobody.
"""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from weakref import WeakSet

from prioritized_replay.file_locks import lock_file, unlock_file

__all__ = ["MOST_SAVED", "FolderLock", "Ownership"]

MOST_SAVED = 4
"""Checkpoint folders that a buffer stays the owner of, the latest ones: each takes a descriptor."""
# Windows opens no folder, and so has no locks on them.
FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC if hasattr(os, "O_DIRECTORY") else None


class FolderLock:
    """A lock on a folder, held until it is released or the object is gone.

    Where folders cannot be locked there is no protection and no error. That is Windows, and some
    network file systems; on others, two machines do not see each other's locks.

    Parameters
    ----------
    folder : pathlib.Path
        It must exist.
    argument : str
        The argument of the caller that named the folder, for the error.
    saving : Lock, optional
        Held while its buffer saves to the folder. Without one, the folder is never handed over.

    Raises
    ------
    FileExistsError
        If another buffer holds the lock, in this process or in another one.
    OSError
        If the folder cannot be opened.
    """

    def __init__(self, folder: Path, argument: str, saving: threading.Lock | None = None) -> None:
        self._saving = saving
        self._process = os.getpid()
        self._descriptor = -1
        if FLAGS is None:
            return
        _locks.add(self)  # first: a process that is forked meanwhile finds it
        try:
            self._descriptor = os.open(folder, FLAGS)
            lock_file(self._descriptor)
        except BlockingIOError:
            self.release()
            raise FileExistsError(
                f"{argument} must belong to one live buffer, got {folder}, which another one is "
                "using: name another folder, or first let go of that buffer (del, or end its "
                "process)"
            ) from None
        except OSError:
            if self._descriptor < 0:
                raise
            self.release()  # no locks here
        except BaseException:
            self.release()
            raise

    def is_on(self, folder: Path) -> bool:
        """Return whether this is the lock on a folder, whatever path leads there."""
        if self._descriptor < 0:
            return False
        try:
            return os.path.samestat(os.fstat(self._descriptor), folder.stat())
        except OSError:
            return False

    def hand_over(self) -> None:
        """Let another buffer of this process have the folder, unless this one is saving to it."""
        if self._saving is not None and self._saving.acquire(blocking=False):
            try:
                self.release()
            finally:
                self._saving.release()

    def release(self) -> None:
        """Let others have the folder. In a forked process the parent keeps it."""
        if self._descriptor < 0:
            return
        # Unlocked first: an interrupt may then cost a descriptor, and never leaves a lock.
        if os.getpid() == self._process:
            with contextlib.suppress(OSError):
                unlock_file(self._descriptor)
        descriptor, self._descriptor = self._descriptor, -1
        os.close(descriptor)

    def __del__(self) -> None:
        # Late in the life of the interpreter, parts of it are missing.
        with contextlib.suppress(Exception):
            self.release()


class Ownership:
    """The folders that belong to one buffer: its directory, and where it saves checkpoints.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> one, other = Ownership(), Ownership()
    >>> one.take_directory(folder)
    >>> one.take_checkpoint(folder)
    >>> other.take_checkpoint(folder)
    Traceback (most recent call last):
    FileExistsError: path must belong to one live buffer, got ..., which another one is using: ...
    >>> one.release()
    >>> other.take_checkpoint(folder)
    """

    def __init__(self) -> None:
        self.saving = threading.Lock()
        """Held while the buffer saves a checkpoint."""
        self._directory: FolderLock | None = None
        self._saved: list[FolderLock] = []  # the latest one last

    def take_directory(self, folder: Path) -> None:
        """Own the folder that holds the buffer's rows, for as long as this object lives.

        Raises
        ------
        FileExistsError
            If it belongs to another buffer.
        """
        self._directory = FolderLock(folder, "directory")

    def take_checkpoint(self, folder: Path, *, continues: bool = False) -> None:
        """Own a folder that the buffer saves to, until it has saved to four others.

        Parameters
        ----------
        folder : pathlib.Path
            It must exist.
        continues : bool
            Whether the checkpoint in it was loaded, or saved, by this buffer. Then another buffer
            of this process has to give way: a notebook may still hold the one that was saved when
            the one that was loaded goes on.

        Raises
        ------
        FileExistsError
            If it belongs to another buffer.
        """
        if self._directory is not None and self._directory.is_on(folder):
            return
        latest = next((lock for lock in self._saved if lock.is_on(folder)), None)
        if latest is None:
            if continues:
                for lock in list(_locks):
                    if lock.is_on(folder):
                        lock.hand_over()
            latest = FolderLock(folder, "path", self.saving)
        locks = [*(lock for lock in self._saved if lock is not latest), latest]
        self._saved = locks[-MOST_SAVED:]  # those that are gone release themselves

    def release(self) -> None:
        """Let others have all of them."""
        for lock in (*self._saved, self._directory):
            if lock is not None:
                lock.release()


_locks: WeakSet[FolderLock] = WeakSet()


def _leave_to_parent() -> None:
    """Close all of them in a forked child, so that they end with the parent."""
    for lock in list(_locks):
        lock.release()


with contextlib.suppress(AttributeError):  # Windows has no fork
    os.register_at_fork(after_in_child=_leave_to_parent)
