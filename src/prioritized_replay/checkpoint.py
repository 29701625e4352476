"""Checkpoints: named arrays in a folder, complete or not there, read without running any of it.

Each piece of a buffer is one ``.npy`` file; ``MANIFEST.json`` names those that belong together,
with their sizes and checksums, and putting it in place is the commit. This module knows files and
arrays; what is in them is the business of whoever offers the pieces.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import re
import stat
import threading
import zlib
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = [
    "FILE",
    "MANIFEST",
    "PIECE",
    "CheckpointError",
    "Contents",
    "Piece",
    "Reader",
    "Saver",
    "following",
    "sync_folder",
]

Array = NDArray[Any]

FORMAT = "prioritized-replay checkpoint"
VERSION = 1
MANIFEST = "MANIFEST.json"
UNFINISHED = MANIFEST + ".new"
PIECE = 1 << 22
"""Bytes of a piece at most, where it is one of many."""
LONGEST_MANIFEST = 1 << 26
FILE = re.compile(r"([a-z0-9_]+(?:-[a-z0-9_]+)*)\.g([0-9]{1,18})\.npy", re.ASCII)
"""Names of the files of pieces, with a generation."""
LAST = 10**18 - 1  # as a number in the name of a file
ROUNDS = 2  # of writing while the buffer is in use; what changed meanwhile is written again
AT_ONCE = 2  # checksums of one piece are computed while another is written
KEPT_RECORDS = 4
MOST_COPIED = 1 << 25  # bytes copied with the lock held, rather than written
LONGEST_READ = 1 << 22


class CheckpointError(ValueError):
    """A checkpoint is missing, damaged, or not one that this version can read."""


class Piece(NamedTuple):
    """One array of a checkpoint."""

    name: str
    """Lower-case words and numbers, joined by hyphens."""
    version: Hashable
    """Equal for two pieces of one name if their contents are; None where that is not known."""
    read: Callable[[], Array]
    """Returns the array, C-contiguous: a view or a copy."""


class Contents(NamedTuple):
    """All that a checkpoint holds."""

    description: dict[str, Any]
    """What was built, in plain values that JSON has."""
    state: dict[str, Any]
    """Plain values that JSON has."""
    pieces: list[Piece]


class Entry(NamedTuple):
    """A piece as it lies in the folder."""

    version: Hashable
    file: str
    nbytes: int
    crc32: int


class Saver:
    """Saves the contents of one buffer, to any number of folders.

    It remembers what it wrote: of the next checkpoint in the same folder only the pieces whose
    version is another are written.
    """

    def __init__(self) -> None:
        self._busy = threading.Lock()
        self._records: dict[Path, tuple[bytes, dict[str, Entry]]] = {}

    def save(
        self,
        path: str | os.PathLike[str],
        lock: AbstractContextManager[Any],
        contents: Callable[[], Contents],
    ) -> None:
        """Put a checkpoint of the contents into a folder, in the place of the one there.

        Parameters
        ----------
        path : path
            The folder; it is created if it is not there.
        lock : Lock
            While it is held, the contents stay as they are. It is held for as long as it takes to
            list the pieces, and once for copying those that changed during the save or have no
            version; what of these is beyond 32 MiB is written with the lock held. It is not held
            while files are forced to disk.
        contents : callable
            Returns the contents of now; called with the lock held.

        Raises
        ------
        OSError
            If a file cannot be written. The checkpoint that was there still is.
        """
        folder = _folder(path)
        with self._busy:
            folder.mkdir(parents=True, exist_ok=True)
            sizes = _pieces_in(folder)
            entries = self._still_there(folder, sizes)
            generation = following({_generation(file) for file in sizes})
            written: set[str] = set()
            text = b""

            def write(piece: Piece, durable: bool) -> None:
                file = f"{piece.name}.g{generation}.npy"
                written.add(file)
                nbytes, crc32 = _write(folder, file, piece.read(), durable)
                entries[piece.name] = Entry(piece.version, file, nbytes, crc32)

            def changed(pieces: Iterable[Piece]) -> list[Piece]:
                known = {name: entry.version for name, entry in entries.items()}
                return [p for p in pieces if p.version is None or known.get(p.name) != p.version]

            try:
                for _ in range(ROUNDS):
                    with lock:
                        pieces = contents().pieces
                    lasting = [piece for piece in changed(pieces) if piece.version is not None]
                    _in_threads(lambda piece: write(piece, True), lasting)
                with lock:
                    last = contents()
                    copied, large = _copied(changed(last.pieces))
                    for piece in large:
                        write(piece, False)
                for piece in copied:
                    write(piece, True)
                for piece in large:
                    _sync(folder / entries[piece.name].file)
                entries = {piece.name: entries[piece.name] for piece in last.pieces}
                text = _manifest(generation, last, entries)
                _commit(folder, text)
            except BaseException:
                if _read(folder / MANIFEST) != text:  # or it was interrupted after the commit
                    for file in written:
                        with contextlib.suppress(OSError):
                            (folder / file).unlink()
                raise
            self._remember(folder, text, entries)
            kept = {entry.file for entry in entries.values()}
            for file in (sizes.keys() | written) - kept:
                with contextlib.suppress(OSError):  # the next save tries again
                    (folder / file).unlink()

    def loaded(self, reader: Reader, pieces: Iterable[Piece]) -> None:
        """Take what was just loaded as saved: these pieces are as they lie in the folder."""
        entries = {
            piece.name: reader.entries[piece.name]._replace(version=piece.version)
            for piece in pieces
            if piece.version is not None and piece.name in reader.entries
        }
        self._remember(reader.folder, reader.text, entries)

    def _remember(self, folder: Path, text: bytes, entries: dict[str, Entry]) -> None:
        folder = folder.resolve()
        self._records.pop(folder, None)
        self._records[folder] = hashlib.sha256(text).digest(), entries
        while len(self._records) > KEPT_RECORDS:
            del self._records[next(iter(self._records))]

    def _still_there(self, folder: Path, sizes: Mapping[str, int]) -> dict[str, Entry]:
        """Return the pieces of the checkpoint that is there, if it is this saver's last one."""
        digest, entries = self._records.get(folder.resolve(), (b"", {}))
        if hashlib.sha256(_read(folder / MANIFEST)).digest() != digest:
            return {}  # somebody else's
        return {n: entry for n, entry in entries.items() if sizes.get(entry.file) == entry.nbytes}


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
                name: self._entry(name, **entry) for name, entry in manifest["files"].items()
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
            crc = zlib.crc32(found)
            rest = _bytes_of(array)
            while rest:
                count = file.readinto(rest[:LONGEST_READ])
                if not count:
                    raise CheckpointError(f"{path} is damaged: it ends early")
                crc = zlib.crc32(rest[:count], crc)
                rest = rest[count:]
            if file.read(1):
                raise CheckpointError(f"{path} is damaged: it goes on beyond its end")
        if crc != self.entries[name].crc32:
            raise CheckpointError(f"{path} is damaged: its checksum is another")

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

    def _entry(self, name: str, *, file: str, bytes: int, crc32: int) -> Entry:
        """Return the entry of a file, as the manifest spells it."""
        match = FILE.fullmatch(file)
        if not match or match[1] != name or type(bytes) is not int or type(crc32) is not int:
            raise CheckpointError(f"names no file of a checkpoint: {file!r}")
        return Entry(None, file, bytes, crc32)

    def _checked(
        self, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]
    ) -> tuple[Path, bytes]:
        """Return where a piece lies and how it must begin; its size is as it must be."""
        if name not in self.entries:
            raise self.error(f"is incomplete: it names no file of {name}")
        entry = self.entries[name]
        path = self.folder / entry.file
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
        size = _size_of(path)
        if size != entry.nbytes:
            raise CheckpointError(f"{path} is damaged: it has {size} bytes, not {entry.nbytes}")
        return path, header


def _folder(path: Any) -> Path:
    if not isinstance(path, (str, os.PathLike)):
        raise ValueError(f"path must be a path, got {path!r}")
    return Path(path)


# --- files ----------------------------------------------------------------------------------


def _header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """Return what an .npy file begins with. NumPy's own writer may change with its version."""
    descr = np.lib.format.dtype_to_descr(dtype)
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {tuple(map(int, shape))!r}, }}"
    data = text.encode()
    version, width = (1, 2) if len(data) < 60_000 else (2, 4)
    if not text.isascii():
        version, width = 3, 4
    size = 8 + width + len(data) + 1
    data += b" " * (-size % 64) + b"\n"
    return b"\x93NUMPY" + bytes([version, 0]) + len(data).to_bytes(width, "little") + data


def _bytes_of(array: Array) -> memoryview:
    assert array.flags.c_contiguous
    flat = array.reshape(-1)
    return flat.view(np.uint8).data if flat.size else memoryview(b"")


def _copied(pieces: Iterable[Piece]) -> tuple[list[Piece], list[Piece]]:
    """Return copies of pieces, for as long as there is room for them, and the other pieces."""
    copied, others = [], []
    room = MOST_COPIED
    for piece in pieces:
        array = piece.read()
        if array.nbytes > room:
            others.append(piece)
            continue
        room -= array.nbytes
        # Byte by byte: NumPy may leave out what lies between the fields of rows.
        data = np.frombuffer(bytearray(_bytes_of(array)), array.dtype, array.size)
        copied.append(piece._replace(read=partial(data.reshape, array.shape)))
    return copied, others


def _write(folder: Path, file: str, array: Array, durable: bool) -> tuple[int, int]:
    """Write one array; return its size and its checksum, of what was handed to the system."""
    assert FILE.fullmatch(file)
    header = _header(array.dtype, array.shape)
    data = _bytes_of(array)
    path = folder / file
    with contextlib.suppress(FileNotFoundError):
        path.unlink()  # of an earlier round
    with path.open("xb", buffering=0) as out:
        for part in (memoryview(header), data):
            while part:
                part = part[out.write(part) :]
        if durable:
            os.fsync(out.fileno())
    return len(header) + len(data), zlib.crc32(data, zlib.crc32(header))


def _in_threads(write: Callable[[Piece], None], pieces: list[Piece]) -> None:
    """Write pieces, a few at once: the long work of each releases the GIL."""
    if len(pieces) < AT_ONCE:
        for piece in pieces:
            write(piece)
        return
    pool = ThreadPoolExecutor(AT_ONCE)
    try:
        for _ in pool.map(write, pieces):
            pass
    finally:
        pool.shutdown(cancel_futures=True)


def _sync(path: Path) -> None:
    """Force a file to disk."""
    with path.open("r+b", buffering=0) as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Force the names in a folder to disk, where the system can."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _commit(folder: Path, text: bytes) -> None:
    """Put a manifest in place, once all that it names is on disk."""
    is_first = not os.path.lexists(folder / MANIFEST)
    sync_folder(folder)
    unfinished = folder / UNFINISHED
    unfinished.unlink(missing_ok=True)  # it might be a link to something else
    with unfinished.open("xb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, folder / MANIFEST)
    sync_folder(folder)
    if is_first:  # the folder may be new itself, and those that it is in
        for parent in folder.absolute().parents:
            with contextlib.suppress(OSError):  # not ours to open
                sync_folder(parent)


def _pieces_in(folder: Path) -> dict[str, int]:
    """Return the files of a folder that look like pieces, and their sizes."""
    with os.scandir(folder) as found:
        return {
            item.name: item.stat(follow_symlinks=False).st_size
            for item in found
            if FILE.fullmatch(item.name)
        }


def _generation(file: str) -> int:
    match = FILE.fullmatch(file)
    assert match
    return int(match[2])


def following(numbers: Collection[int]) -> int:
    """Return a number for new files: the next one, or where that is too long, one that is free."""
    number = 1 + max(numbers, default=0)
    return number if number <= LAST else next(k for k in itertools.count(1) if k not in numbers)


def _size_of(path: Path) -> int:
    """Return the size of a file that lies in its folder itself."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing") from None
    if not stat.S_ISREG(found.st_mode):
        raise CheckpointError(f"{path} is no file")
    return found.st_size


def _read(path: Path) -> bytes:
    """Return the manifest that is there, if it can be one."""
    try:
        return _text_of(path)
    except (CheckpointError, OSError):
        return b"no file"


def _opened(path: Path) -> Any:
    try:
        return path.open("rb", buffering=0)
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing") from None


# --- the manifest ---------------------------------------------------------------------------


def _canonical(manifest: Mapping[str, Any]) -> bytes:
    return (json.dumps(manifest, indent=1, allow_nan=False) + "\n").encode("ascii")


def _manifest(generation: int, contents: Contents, entries: Mapping[str, Entry]) -> bytes:
    """Return the text of a manifest. Its own checksum is that of the text without it."""
    body = {
        "format": FORMAT,
        "version": VERSION,
        "generation": generation,
        "buffer": contents.description,
        "state": contents.state,
        "files": {
            name: {"file": entry.file, "bytes": entry.nbytes, "crc32": entry.crc32}
            for name, entry in entries.items()
        },
    }
    return _canonical({**body, "sha256": hashlib.sha256(_canonical(body)).hexdigest()})


def _text_of(path: Path) -> bytes:
    try:
        size = _size_of(path)
    except NotADirectoryError:
        raise CheckpointError(f"{path} is missing") from None
    if size > LONGEST_MANIFEST:
        raise CheckpointError(f"{path} must have at most {LONGEST_MANIFEST} bytes, got {size}")
    with _opened(path) as file:
        text = b""
        while part := file.read(LONGEST_MANIFEST + 1 - len(text)):
            text += part
    return text


def _parsed(text: bytes) -> dict[str, Any]:
    """Return a manifest that is, byte for byte, as it was written."""
    manifest = json.loads(text.decode("ascii"))
    if type(manifest) is not dict or manifest.get("format") != FORMAT:
        raise CheckpointError(f"must be of the format {FORMAT!r}")
    if manifest.get("version") != VERSION:
        raise CheckpointError(
            f"must be of version {VERSION} of the format, got {manifest.get('version')!r}"
        )
    body = {name: value for name, value in manifest.items() if name != "sha256"}
    digest = hashlib.sha256(_canonical(body)).hexdigest()
    if text != _canonical({**body, "sha256": digest}):
        raise CheckpointError("is damaged: its checksum is another")
    return manifest
