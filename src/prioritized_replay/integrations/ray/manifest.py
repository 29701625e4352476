"""The folder of a checkpoint of several shards: complete, or it does not exist. It knows files.

``sharded.json`` names the set in force, ``a`` or ``b``: a folder with one checkpoint for each
shard, one for the writer's windows and one, of an empty buffer, for the fields and the sampler.
A save writes the other set, and then replaces the file in one step.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from prioritized_replay.checkpoint.files import CheckpointError

__all__ = ["FILE", "next_set", "read_manifest", "write_manifest"]

FILE = "sharded.json"
FORMAT = 1
NAMES = (
    *("shards", "capacity", "samples_per_insert", "tolerance", "block", "timeout", "num_envs"),
    *("autoreset", "protected", "coordinator", "generator", "written", "entropy"),
)


def next_set(folder: Path) -> str:
    """Return the name of the set that is not in force."""
    try:
        return "b" if read_manifest(folder)["set"] == "a" else "a"
    except CheckpointError:
        return "a"


def write_manifest(folder: Path, name: str, values: dict[str, Any]) -> None:
    """Let a set be the one in force. It is complete and on disk.

    Raises
    ------
    OSError
        If the file cannot be written; the one that was there still is.
    """
    text = json.dumps({"format": FORMAT, "set": name, **values}, indent=1)
    beside = folder / f"{FILE}.new"
    with beside.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(folder / FILE)
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return what :func:`write_manifest` was given, and ``set``.

    Raises
    ------
    CheckpointError
        If there is none, or it is damaged or of another version.
    """
    try:
        text = (folder / FILE).read_text()
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(
            f"path must be the folder of a ShardedReplay that was saved, got {str(folder)!r}, "
            f"which has no {FILE}"
        ) from None
    try:
        values: dict[str, Any] = json.loads(text)
        if values["format"] != FORMAT:
            raise CheckpointError(
                f"{folder / FILE} must be of format {FORMAT}, got {values['format']}"
            )
        if values["set"] not in ("a", "b") or not set(NAMES) <= set(values):
            raise ValueError
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{folder / FILE} is damaged") from None
    return values
