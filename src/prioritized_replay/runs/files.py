"""Files of a run: written beside and put in place whole, read back within bounds.

Knows files; knows nothing of what is in them.
"""

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

LARGEST_JSON = 1 << 26
_UNFINISHED = ".unfinished"


def replace_file(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Put a new file in place of the one at ``path``, in one step.

    It is written beside and renamed when it is whole and on disk. So a process that is killed
    leaves the old file or the new one, and a link at ``path`` is replaced, not followed.

    Parameters
    ----------
    path : pathlib.Path
        The file; its folder must exist.
    write : callable
        Writes the content to the open file that it is given.

    Raises
    ------
    OSError
        The file cannot be written. The old one is still there.
    """
    beside = path.with_name(path.name + _UNFINISHED)
    beside.unlink(missing_ok=True)  # of a killed process, or somebody's link
    try:
        with beside.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def replace_text(path: Path, text: str) -> None:
    """Put a text in place of the file at ``path``; see :func:`replace_file`."""
    replace_file(path, lambda file: file.write(text.encode("utf-8")))


def is_unfinished(name: str) -> str | None:
    """Return the file that a name was to become, if it is the name of an unfinished one."""
    return name.removesuffix(_UNFINISHED) if name.endswith(_UNFINISHED) else None


def read_file(path: Path, most: int) -> bytes:
    """Return the content of a regular file of at most so many bytes.

    Its size is looked at before it is read, and a pipe is not waited for.

    Raises
    ------
    FileNotFoundError
        There is no regular file at ``path``.
    ValueError
        It is larger.
    OSError
        It cannot be read.
    """
    # Without O_NONBLOCK, opening a pipe would wait for somebody to write to it.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise FileNotFoundError(f"{path} is no regular file")
        if found.st_size > most:
            raise ValueError(f"{path} must have at most {most:,} bytes, got {found.st_size:,}")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(found.st_size)
    finally:
        os.close(descriptor)


def read_json(path: Path) -> Any:
    """Return what a JSON file says.

    Raises
    ------
    ValueError
        It is not JSON in UTF-8, or larger than 64 MiB.
    FileNotFoundError, OSError, RecursionError
        There is no such file, it cannot be read, or it is nested too deeply.
    """
    return json.loads(read_file(path, LARGEST_JSON).decode("utf-8"))


def one_line(error: BaseException) -> str:
    """Return an error of ours, or of reading text, as one short line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
