"""Checkpoints: named arrays in a folder, complete or not there, read without running any of it.

Each piece of a buffer is one ``.npy`` file; ``MANIFEST.json`` names those that belong together,
with their sizes and checksums, and putting it in place is the commit. This module knows files and
arrays; what is in them is the business of whoever offers the pieces.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from prioritized_replay.checkpoint.files import (
    EXTRA,
    LONGEST_NAME,
    NAME,
    _bytes_of,
    _folder,
    _generation,
    _npy,
    _pieces_in,
    _sync,
    _write,
    following,
    sync_folder,
)
from prioritized_replay.checkpoint.loading import Reader
from prioritized_replay.checkpoint.manifest import (
    MANIFEST,
    MOST_EXTRA,
    MOST_EXTRA_BYTES,
    UNFINISHED,
    Contents,
    Entry,
    Piece,
    _manifest,
    _read,
)
from prioritized_replay.checkpoint.ownership import MOST_SAVED, Ownership

ROUNDS = 2  # of writing while the buffer is in use; what changed meanwhile is written again
AT_ONCE = 2  # checksums of one piece are computed while another is written
MOST_COPIED = 1 << 25  # bytes copied with the lock held, rather than written


class Saver:
    """Saves the contents of one buffer, to any number of folders.

    It remembers what it wrote: of the next checkpoint in the same folder only the pieces whose
    version is another are written. A folder that it saves to belongs to it from then on.

    Parameters
    ----------
    ownership : Ownership, optional
        Of the buffer.
    """

    def __init__(self, ownership: Ownership | None = None) -> None:
        self._ownership = Ownership() if ownership is None else ownership
        self._records: dict[Path, tuple[bytes, dict[str, Entry]]] = {}

    def save(
        self,
        path: str | os.PathLike[str],
        lock: AbstractContextManager[Any],
        contents: Callable[[], Contents],
        extra: Mapping[str, bytes] | None = None,
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
        extra : mapping of str to bytes, optional
            Bytes of the caller's, committed together with the contents.

        Raises
        ------
        ValueError
            If ``extra`` has a name or a value that a checkpoint cannot hold.
        FileExistsError
            If the folder belongs to another live buffer.
        OSError
            If a file cannot be written. The checkpoint that was there still is.
        """
        folder = _folder(path).absolute()  # the process may work in another directory meanwhile
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(f"path must be a folder or not exist, got {folder}")
        extra = _checked_extra(extra)
        with self._ownership.saving: self._save(folder, lock, contents, extra)  # fmt: skip

    def _save(
        self,
        folder: Path,
        lock: AbstractContextManager[Any],
        contents: Callable[[], Contents],
        extra: Mapping[str, bytes],
    ) -> None:
        """See :meth:`save`; nobody else is saving this buffer."""
        with lock: pieces = contents().pieces  # fmt: skip
        # What cannot be saved at all has left no trace.
        folder.mkdir(parents=True, exist_ok=True)
        self._ownership.take_checkpoint(folder, continues=self._is_latest(folder))
        sizes = _pieces_in(folder)
        entries = self._still_there(folder, sizes)
        generation = following({_generation(file) for file in sizes})
        written: set[str] = set()
        text = b""

        def write(piece: Piece, durable: bool) -> None:
            file = f"{piece.name}.g{generation}.npy"
            written.add(file)
            nbytes, crc32 = _write(folder, file, _npy(piece.read()), durable)
            entries[piece.name] = Entry(piece.version, file, nbytes, crc32)

        def write_extra(name: str, value: bytes) -> Entry:
            file = f"{EXTRA}{name}.g{generation}.bin"
            written.add(file)
            return Entry(None, file, *_write(folder, file, [memoryview(value)], True))

        def changed(pieces: Iterable[Piece]) -> list[Piece]:
            known = {name: entry.version for name, entry in entries.items()}
            return [p for p in pieces if p.version is None or known.get(p.name) != p.version]

        def finish() -> tuple[Contents, list[Piece], list[Piece]]:
            last = contents()
            copied, large = _copied(changed(last.pieces))
            for piece in large:
                write(piece, False)
            return last, copied, large

        try:
            extras = {name: write_extra(name, value) for name, value in extra.items()}
            for number in range(ROUNDS):
                if number > 0:
                    with lock: pieces = contents().pieces  # fmt: skip
                lasting = [piece for piece in changed(pieces) if piece.version is not None]
                _in_threads(lambda piece: write(piece, True), lasting)
            with lock: last, copied, large = finish()  # fmt: skip
            for piece in copied:
                write(piece, True)
            for piece in large:
                _sync(folder / entries[piece.name].file)
            entries = {piece.name: entries[piece.name] for piece in last.pieces}
            text = _manifest(generation, last, entries, extras)
            _commit(folder, text)
        except BaseException:
            if _read(folder / MANIFEST) != text:  # or it was interrupted after the commit
                for file in written:
                    with contextlib.suppress(OSError):
                        (folder / file).unlink()
            raise
        self._remember(folder, text, entries)
        kept = {entry.file for entry in (*entries.values(), *extras.values())}
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
        while len(self._records) > MOST_SAVED:
            del self._records[next(iter(self._records))]

    def _is_latest(self, folder: Path) -> bool:
        """Return whether the checkpoint that is there is this saver's last one."""
        digest, _ = self._records.get(folder.resolve(), (b"", {}))
        return hashlib.sha256(_read(folder / MANIFEST)).digest() == digest

    def _still_there(self, folder: Path, sizes: Mapping[str, int]) -> dict[str, Entry]:
        """Return the pieces of the checkpoint that is there, if it is this saver's last one."""
        if not self._is_latest(folder):
            return {}  # somebody else's
        _, entries = self._records[folder.resolve()]
        return {n: entry for n, entry in entries.items() if sizes.get(entry.file) == entry.nbytes}


def has_checkpoint(folder: Path) -> bool:
    """Return whether there is a checkpoint in a folder, be it damaged."""
    return (folder / MANIFEST).is_file()


def remove_checkpoint(folder: Path) -> None:
    """Remove a checkpoint, and what unfinished ones have left, and nothing else.

    The manifest goes first: what is left after an interruption counts as none. The folder goes too
    if nothing else is in it.
    """
    if folder.is_symlink():
        return folder.unlink()  # where it leads to is not ours
    if not folder.is_dir():
        return None
    for name in (MANIFEST, UNFINISHED, *_pieces_in(folder)):
        path = folder / name
        if path.is_symlink() or not path.is_dir():
            path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # it is not ours alone
        folder.rmdir()


def _checked_extra(extra: Mapping[str, bytes] | None) -> dict[str, bytes]:
    """Return the caller's bytes, if their names and sizes are what a checkpoint can hold."""
    if extra is None:
        return {}
    if not isinstance(extra, Mapping):
        raise ValueError(f"extra must be a mapping of str to bytes, got {type(extra).__name__}")
    if len(extra) > MOST_EXTRA:
        raise ValueError(f"extra must have at most {MOST_EXTRA} names, got {len(extra)}")
    for name, value in extra.items():
        if not isinstance(name, str) or not NAME.fullmatch(name) or len(name) > LONGEST_NAME:
            raise ValueError(
                "extra must have names of lower-case letters, digits and underscores, with "
                f"hyphens between words, at most {LONGEST_NAME} characters long, got {name!r}"
            )
        if not isinstance(value, bytes):
            raise ValueError(f"extra[{name!r}] must be bytes, got {type(value).__name__}")
    total = sum(map(len, extra.values()))
    if total > MOST_EXTRA_BYTES:
        raise ValueError(f"extra must have at most {MOST_EXTRA_BYTES} bytes in all, got {total}")
    return dict(extra)


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
