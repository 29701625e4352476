"""Reading a checkpoint: every value is checked before it is used, and no code is run."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike

from prioritized_replay.checkpoint.files import (
    EXTRA,
    FILE,
    NAME,
    Array,
    CheckpointError,
    _bytes_of,
    _folder,
    _header,
    _opened,
    _size_of,
)
from prioritized_replay.checkpoint.manifest import (
    MANIFEST,
    MOST_EXTRA,
    MOST_EXTRA_BYTES,
    REMEDY,
    Entry,
    _parsed,
    _read,
    _text_of,
)

LONGEST_READ = 1 << 22
Built = TypeVar("Built")
NOT_DESCRIBED = (
    *(ValueError, TypeError, KeyError, AttributeError),
    *(RecursionError, OverflowError),
)
"""What may be raised where something is built of values that describe nothing."""
TRIES = 10  # to read a checkpoint that another buffer replaces meanwhile


def read_checkpoint(
    path: str | os.PathLike[str], most_bytes: int, build: Callable[[Reader], Built]
) -> Built:
    """Return what is built of a checkpoint; where it is replaced meanwhile, begin again.

    Parameters
    ----------
    path, most_bytes
        As for :class:`Reader`.
    build : callable
        Reads everything that it needs.

    Raises
    ------
    CheckpointError
        If there is none, or it is damaged or of another version.
    """
    for _ in range(TRIES):
        reader = Reader(path, most_bytes)
        try:
            return build(reader)
        except CheckpointError as error:
            if not reader.replaced():
                raise
            missed = str(error)  # the error itself holds what was built
    raise CheckpointError(
        f"{reader.folder} must stay the same while it is read, got another checkpoint each of "
        f"{TRIES} times, at last where {missed}: load it when it is saved to less often"
    )


class Reader:
    """A checkpoint that is there: its manifest has been checked, its pieces are when read.

    Parameters
    ----------
    path : path
        The folder.
    most_bytes : int
        No array may be larger.

    Raises
    ------
    CheckpointError
        If there is none, or it is damaged or of another version.
    """

    def __init__(self, path: str | os.PathLike[str], most_bytes: int) -> None:
        self.folder = _folder(path)
        self.most_bytes = most_bytes
        self.text = _text_of(self.folder / MANIFEST)
        try:
            manifest = _parsed(self.text)
            self.description: Any = manifest["buffer"]
            self._state: dict[str, Any] = dict(manifest["state"])
            self.entries = {
                name: self._entry(name, f"{name}.npy", **entry)
                for name, entry in manifest["files"].items()
            }
            self._extra = {
                name: self._entry(name, f"{EXTRA}{name}.bin", **entry)
                for name, entry in manifest["extra"].items()
            }
        except CheckpointError as error:
            raise self.error(str(error)) from None
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise self.error(f"is damaged: {type(error).__name__} {error}") from None
        self._unread = set(self.entries)
        self._unread_state = set(self._state)

    def error(self, message: str) -> CheckpointError:
        """Return the error that blames the manifest."""
        return CheckpointError(f"{self.folder / MANIFEST} {message}")

    def not_described(self, thing: str, error: BaseException) -> CheckpointError:
        """Return the error for a manifest of which ``thing`` cannot be built."""
        return self.error(
            f"must describe {thing} that this version can build, got one that fails with "
            f"{type(error).__name__}: {error}: load another checkpoint, or load it with the "
            "version that saved it"
        )

    def replaced(self) -> bool:
        """Return whether there is another checkpoint in the folder by now."""
        return _read(self.folder / MANIFEST) != self.text

    def __contains__(self, name: str) -> bool:
        return name in self.entries

    def integer(self, name: str, low: int, high: int) -> int:
        """Return an integer of the state, low <= integer <= high."""
        value = self._value(name)
        if type(value) is not int or not low <= value <= high:
            raise self.error(f"must have {name} in [{low}, {high}], got {value!r}")
        return value

    def number(self, name: str, low: float, high: float) -> float:
        """Return a floating number of the state, low <= number <= high."""
        value = self._value(name)
        if type(value) is not float or not low <= value <= high:
            raise self.error(f"must have {name} in [{low}, {high}], got {value!r}")
        return value

    def flag(self, name: str) -> bool:
        """Return a truth value of the state."""
        value = self._value(name)
        if type(value) is not bool:
            raise self.error(f"must have {name} true or false, got {value!r}")
        return value

    def integers(self, name: str, most: int) -> list[int]:
        """Return a list of at most so many integers >= 0 of the state."""
        value = self._value(name)
        if (
            type(value) is not list
            or len(value) > most
            or not all(type(item) is int and item >= 0 for item in value)
        ):
            raise self.error(f"must have at most {most} integers >= 0 as {name}")
        return value

    def plain(self, name: str) -> Any:
        """Return any value of the state."""
        return self._value(name)

    def require(self, name: str, dtype: DTypeLike, shape: tuple[int, ...]) -> None:
        """Make sure that a piece has this dtype and shape, by its size; it is not read."""
        self._checked(name, np.dtype(dtype), shape)

    def array(self, name: str, dtype: DTypeLike, shape: tuple[int, ...]) -> Array:
        """Return a piece as a new array.

        Raises
        ------
        CheckpointError
            If its file is missing or damaged, or has another dtype or shape.
        """
        dtype = np.dtype(dtype)
        self._checked(name, dtype, shape)
        array = np.empty(shape, dtype)
        self.fill(name, array)
        return array

    def fill(self, name: str, array: Array) -> None:
        """Read a piece into a C-contiguous array of its dtype and shape; see :meth:`array`."""
        path, header = self._checked(name, array.dtype, array.shape)
        self._unread.discard(name)
        with _opened(path) as file:
            found = file.read(len(header))
            if found != header:
                raise CheckpointError(f"{path} is damaged: it has another header")
            crc = self._read(path, file, _bytes_of(array), zlib.crc32(found))
        self._verify(path, crc, self.entries[name])

    @staticmethod
    def _read(path: Path, file: Any, rest: memoryview, crc: int) -> int:
        """Fill memory with what is left of a file; return the checksum of all of it."""
        while rest:
            count = file.readinto(rest[:LONGEST_READ])
            if not count:
                raise CheckpointError(
                    f"{path} is damaged: {len(rest)} bytes are missing at its end"
                )
            crc = zlib.crc32(rest[:count], crc)
            rest = rest[count:]
        if file.read(1):
            raise CheckpointError(f"{path} is damaged: it is longer than the manifest says")
        return crc

    @staticmethod
    def _verify(path: Path, crc: int, entry: Entry) -> None:
        if crc != entry.crc32:
            raise CheckpointError(
                f"{path} is damaged: checksum mismatch: expected {entry.crc32:#010x}, "
                f"found {crc:#010x}: {REMEDY}"
            )

    def _sized(self, entry: Entry) -> Path:
        """Return where a file lies, if it has the size that the manifest gives."""
        path = self.folder / entry.file
        size = _size_of(path)
        if size != entry.nbytes:
            raise CheckpointError(f"{path} is damaged: expected {entry.nbytes} bytes, found {size}")
        return path

    def extra(self) -> dict[str, bytes]:
        """Return the bytes that the caller saved with the buffer, by their names.

        Raises
        ------
        CheckpointError
            If a file is missing or damaged, or there is more than a caller may save.
        """
        if len(self._extra) > MOST_EXTRA:
            raise self.error(f"must have at most {MOST_EXTRA} extra, got {len(self._extra)}")
        total = sum(entry.nbytes for entry in self._extra.values())
        most = min(MOST_EXTRA_BYTES, self.most_bytes)
        if total > most:
            raise self.error(f"must have at most {most} bytes of extra, got {total}")
        return {name: self._bytes(entry) for name, entry in self._extra.items()}

    def _bytes(self, entry: Entry) -> bytes:
        """Return the content of a file that is no array."""
        path = self._sized(entry)
        data = bytearray(entry.nbytes)
        with _opened(path) as file:
            crc = self._read(path, file, memoryview(data), 0)
        self._verify(path, crc, entry)
        return bytes(data)

    def finish(self) -> None:
        """Make sure that nothing was left unread."""
        if self._unread or self._unread_state:
            names = ", ".join(sorted(self._unread | self._unread_state)[:3])
            raise self.error(f"names what is not part of such a buffer: {names}")

    def _value(self, name: str) -> Any:
        if name not in self._state:
            raise self.error(f"is incomplete: it has no {name}")
        self._unread_state.discard(name)
        return self._state[name]

    @staticmethod
    def _entry(name: str, expected: str, *, file: str, bytes: int, crc32: int) -> Entry:
        """Return the entry of a file, as the manifest spells it."""
        match = FILE.fullmatch(file)
        sound = match and f"{match[1]}.{match[3]}" == expected and NAME.fullmatch(name)
        if not sound or type(bytes) is not int or type(crc32) is not int or bytes < 0:
            raise CheckpointError(f"names no file of a checkpoint: {file!r}")
        return Entry(None, file, bytes, crc32)

    def _checked(
        self, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]
    ) -> tuple[Path, bytes]:
        """Return where a piece lies and how it must begin; its size is as it must be."""
        if name not in self.entries:
            raise self.error(f"is incomplete: it names no file of {name}")
        entry = self.entries[name]
        header = _header(dtype, shape)
        nbytes = dtype.itemsize
        for length in shape:
            nbytes *= length
        if nbytes > self.most_bytes:
            raise self.error(f"must not have arrays above {self.most_bytes} bytes, got {nbytes}")
        if entry.nbytes != len(header) + nbytes:
            raise self.error(
                f"must give {entry.file} {len(header) + nbytes} bytes, got {entry.nbytes}"
            )
        return self._sized(entry), header
