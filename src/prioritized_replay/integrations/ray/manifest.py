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
from prioritized_replay.checkpoint.saving import has_checkpoint

__all__ = ["FILE", "next_set", "read_manifest", "require_shards", "write_manifest"]

FILE = "sharded.json"
FORMAT = 1
NUMBER = (int, float)
OPTIONAL = type(None)
KINDS: dict[str, tuple[type, ...]] = {
    "shards": (int,),
    "capacity": (int,),
    "samples_per_insert": (*NUMBER, OPTIONAL),
    "tolerance": (*NUMBER, OPTIONAL),
    "block": (int,),
    "timeout": NUMBER,
    "num_envs": (int, OPTIONAL),
    "autoreset": (str, OPTIONAL),
    "protected": (bool,),
    "coordinator": (dict,),
    "generator": (dict,),
    "written": (list,),
    "entropy": (int,),
}
"""What the file holds."""


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
        if values["set"] not in ("a", "b"):
            raise ValueError
        if not all(isinstance(values[name], kinds) for name, kinds in KINDS.items()):
            raise ValueError
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{folder / FILE} is damaged") from None
    return values


def require_shards(parts: Path, shards: int) -> None:
    """Refuse a set that lacks a shard's checkpoint: the shard would begin without its rows.

    Raises
    ------
    CheckpointError
    """
    missing = [k for k in range(shards) if not has_checkpoint(parts / f"shard-{k}")]
    if missing:
        raise CheckpointError(
            f"{parts} must hold a checkpoint of each of {shards} shards, and shard-{missing[0]} is "
            "missing"
        )
