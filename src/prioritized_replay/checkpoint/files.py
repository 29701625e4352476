"""Files of a checkpoint: their names, their bytes, and forcing them to disk."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import stat
import zlib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
NAME = re.compile(r"[a-z0-9_]+(?:-[a-z0-9_]+)*", re.ASCII)
"""Names of pieces: lower-case letters, digits and underscores, in words joined by hyphens."""
FILE = re.compile(rf"({NAME.pattern})\.g([0-9]{{1,18}})\.(npy|bin)", re.ASCII)
"""Names of files: of a piece (.npy) or of the caller's bytes (.bin), with a generation."""
EXTRA = "extra-"
"""Prefix of the files of the caller's bytes. It keeps them clear of names a system reserves."""
LONGEST_NAME = 64
LAST = 10**18 - 1
"""The largest generation."""


class CheckpointError(ValueError):
    """A checkpoint is missing, damaged, or not one that this version can read."""


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


def _write(folder: Path, file: str, parts: Sequence[memoryview], durable: bool) -> tuple[int, int]:
    """Write one file; return its size and its checksum, of what was handed to the system."""
    assert FILE.fullmatch(file)
    size = crc = 0
    path = folder / file
    with contextlib.suppress(FileNotFoundError):
        path.unlink()  # of an earlier round
    with path.open("xb", buffering=0) as out:
        for part in parts:
            rest = part
            while rest:
                rest = rest[out.write(rest) :]
            size, crc = size + len(part), zlib.crc32(part, crc)
        if durable:
            os.fsync(out.fileno())
    return size, crc


def _npy(array: Array) -> tuple[memoryview, memoryview]:
    """Return the parts of the .npy file of an array."""
    return memoryview(_header(array.dtype, array.shape)), _bytes_of(array)


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


def _pieces_in(folder: Path) -> dict[str, int]:
    """Return the files of a folder that look like files of a checkpoint, and their sizes."""
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


def _opened(path: Path) -> Any:
    try:
        return path.open("rb", buffering=0)
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing") from None
