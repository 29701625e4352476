"""Memory for what a buffer keeps: arrays of 8-byte words, in RAM or in files mapped into memory.

It knows nothing of what the words mean. Whoever uses them sees no difference between the two.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prioritized_replay.checkpoint.manifest import MANIFEST
from prioritized_replay.checkpoint.ownership import Ownership
from prioritized_replay.fields import arguments

__all__ = [
    "CACHE_LINE",
    "WORD",
    "Memory",
    "OverLimit",
    "Words",
    "memory_limit",
    "reopened",
]

Words = NDArray[np.uint64]

WORD = 8
CACHE_LINE = 64
SUFFIX = ".words"
CANNOT_RESERVE = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS)  # what some file systems answer
ZEROS = bytes(1 << 20)


class OverLimit(MemoryError, ValueError):
    """More memory would be needed than ``max_bytes`` allows."""


class Memory:
    """Gives out arrays of words, and counts their bytes.

    Parameters
    ----------
    directory : path, optional
        Where to keep the words, in files mapped into memory, one for each array. It is created
        if it is not there. RAM if None.
    max_bytes : int, optional
        What may be held at most; no limit if None.
    ownership : Ownership, optional
        Becomes the owner of ``directory``, before anything in there is looked at or removed.

    Raises
    ------
    ValueError
        If ``directory`` is no path, or ``max_bytes`` no integer >= 1.
    NotADirectoryError
        If ``directory`` is something else.
    FileExistsError
        If it belongs to a live buffer, or holds words or a checkpoint already and is not a
        ``Reopened`` one.

    Notes
    -----
    Files stay when the buffer goes.

    Examples
    --------
    >>> memory = Memory(max_bytes=1000)
    >>> memory.words("rows", 100).sum(), memory.nbytes
    (np.uint64(0), 800)
    >>> memory.words("more", 100)
    Traceback (most recent call last):
    prioritized_replay.storage.memory.OverLimit: max_bytes must be >= 1600, got 1000
    """

    def __init__(
        self,
        directory: str | os.PathLike[str] | None = None,
        max_bytes: int | None = None,
        ownership: Ownership | None = None,
    ) -> None:
        self.max_bytes = None if max_bytes is None else arguments.integer("max_bytes", max_bytes)
        self._held: dict[str, int] = {}  # bytes counted, by the names of arrays
        self._paths: dict[str, Path] = {}  # of files, from before they are made
        self._ownership = Ownership() if ownership is None else ownership
        self.directory = None if directory is None else self._taken(directory)

    @property
    def nbytes(self) -> int:
        """Bytes held, those reserved for others among them. O(arrays)."""
        return sum(self._held.values())

    @property
    def names(self) -> list[str]:
        """Names of the arrays given out, and of files that an interrupted call has left."""
        return list(self._held | self._paths)

    def words(self, name: str, count: int, beside: int = 0) -> Words:
        """Return ``count`` words that are 0 and begin with a cache line.

        They stay for as long as the array or a view of it is in use.

        Parameters
        ----------
        name : str
            Of the file, without its suffix.
        count : int
            Number of words.
        beside : int
            Bytes to be counted with them that the caller keeps elsewhere.

        Returns
        -------
        uint64[count]

        Raises
        ------
        OverLimit
            If ``max_bytes`` would be passed.
        OSError
            If the file is there already, cannot be written, or the disk has too little room: all
            of it is reserved here. Whatever is raised, neither a file nor a count remains.

        Notes
        -----
        O(1) where neither RAM nor the file system has to write zeros, else O(count).
        """
        assert count >= 1
        self._require(count * WORD + beside)
        if self.directory is None:
            words = np.zeros(count + CACHE_LINE // WORD - 1, np.uint64)
            shift = (-words.ctypes.data % CACHE_LINE) // WORD
            words = words[shift : shift + count]
        else:
            words = np.ndarray(count, np.uint64, self._map(name, count * WORD))
        self._held[name] = count * WORD + beside
        return words

    def reserve(self, name: str, nbytes: int) -> None:
        """Count bytes that lie elsewhere.

        Parameters
        ----------
        name : str
            What they are for. Of a name that is known, this many in the place of those before.
        nbytes : int
            How many.

        Raises
        ------
        OverLimit
            If ``max_bytes`` would be passed.
        """
        self._require(nbytes - self._held.get(name, 0))
        self._held[name] = nbytes

    def release(self, name: str) -> None:
        """Release an array of words that is no longer used, and remove its file.

        Parameters
        ----------
        name : str
            As it was called. A name that is not known is no error.
        """
        self._held.pop(name, None)
        path = self._paths.get(name)
        if path is not None:
            with contextlib.suppress(OSError):  # Windows removes no file that is mapped
                path.unlink()
            self._paths.pop(name, None)

    def discard(self) -> None:
        """Remove the files again and let others have the directory; no buffer could be made.

        Arrays in them stay valid; where a file in use cannot be removed (Windows), it stays.
        """
        for path in list(self._paths.values()):
            with contextlib.suppress(OSError):
                path.unlink()
        self._ownership.release()

    def _taken(self, directory: Any) -> Path:
        """Return the path of a directory that is this memory's own now, and has no words."""
        path = _path_of(directory)
        path.mkdir(parents=True, exist_ok=True)
        try:
            self._ownership.take_directory(path)
            if isinstance(directory, Reopened):
                for words in path.glob("*" + SUFFIX):  # what a process left that has ended
                    words.unlink()
            else:
                _require_new(path)
        except BaseException:
            self._ownership.release()
            raise
        return path

    def _require(self, nbytes: int) -> None:
        needed = self.nbytes + nbytes
        if self.max_bytes is not None and needed > self.max_bytes:
            raise OverLimit(f"max_bytes must be >= {needed}, got {self.max_bytes}")

    def _map(self, name: str, nbytes: int) -> mmap.mmap:
        """Create a file of zeros and map it; views of the mapping keep it alive."""
        assert self.directory is not None
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / (name + SUFFIX)
        assert path.parent == self.directory, "a name is no path"
        if path.exists():
            raise FileExistsError(f"directory must have no file {path.name}, got {path}")
        self._paths[name] = path
        with path.open("x+b", buffering=0) as file:
            try:
                _fill(file, nbytes)
                mapping = mmap.mmap(file.fileno(), nbytes, access=mmap.ACCESS_WRITE)
            except BaseException:
                file.close()  # or Windows could not remove it
                self.release(name)
                raise
        if hasattr(mmap, "MADV_RANDOM"):
            # Rows are drawn from anywhere: reading on beyond them took 12 times as long per draw
            # where memory was short (10 GB, 2 GB allowed).
            mapping.madvise(mmap.MADV_RANDOM)
        return mapping


def memory_limit() -> int:
    """Return how many bytes of memory the machine has, or where it does not say, no limit."""
    most = (1 << 63) - 1
    with contextlib.suppress(AttributeError, ValueError, OSError):  # not on Windows
        most = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return most


class Reopened(os.PathLike[str]):
    """The directory of a buffer that is being loaded from the checkpoint in it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __fspath__(self) -> str:
        return os.fspath(self._path)


def reopened(
    directory: str | os.PathLike[str], checkpoint: str | os.PathLike[str]
) -> str | os.PathLike[str]:
    """Return the directory for a buffer that is loaded from a checkpoint.

    If the checkpoint is in it, :class:`Memory` will remove the words that a process left there.

    Raises
    ------
    ValueError, NotADirectoryError
        If it is no path, or of something else than a directory.
    """
    folder = _path_of(directory)
    if not (folder.is_dir() and folder.samefile(checkpoint)):
        return directory
    return Reopened(folder)


def _path_of(directory: Any) -> Path:
    """Return the path of a directory, or of none yet."""
    if not isinstance(directory, (str, os.PathLike)):
        raise ValueError(f"directory must be a path, got {arguments.shown(directory)}")
    path = Path(directory).absolute()  # the process may work in another directory later
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"directory must be a directory or not exist, got {path}")
    return path


def _require_new(path: Path) -> None:
    """Raise where a directory holds words or a checkpoint."""
    found = next(path.glob("*" + SUFFIX), path / MANIFEST)
    if found.name != MANIFEST or found.exists():
        raise FileExistsError(
            f"directory must not hold another buffer's files, got {path} with {found.name}: "
            "load it with ReplayBuffer.load, or name a new directory"
        )


def _fill(file: FileIO, nbytes: int) -> None:
    """Give a file so many zeros, so that no write to them can find the disk full.

    A hole would be quicker to make, but the write that finds no room for it ends the process.
    """
    if hasattr(os, "posix_fallocate"):
        try:
            return os.posix_fallocate(file.fileno(), 0, nbytes)
        except OSError as error:
            if error.errno not in CANNOT_RESERVE:
                raise
    left = nbytes
    while left:
        left -= file.write(ZEROS[:left])
    os.fsync(file.fileno())  # over a network, only this tells of a full disk
