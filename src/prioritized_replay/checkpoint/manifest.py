"""The manifest of a checkpoint: which files belong together, with sizes and checksums."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from prioritized_replay.checkpoint.files import Array, CheckpointError, _opened, _size_of

FORMAT = "prioritized-replay checkpoint"
VERSION = 4
MANIFEST = "MANIFEST.json"
UNFINISHED = MANIFEST + ".new"
PIECE = 1 << 22
"""Bytes of a piece at most, where it is one of many."""
LONGEST_MANIFEST = 1 << 26
MOST_EXTRA = 256
"""Names that a caller may give bytes to."""
MOST_EXTRA_BYTES = 1 << 34
"""Bytes that a caller may add to a checkpoint, all names together."""

REMEDY = "copy it again from where it came from, or load another checkpoint"


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


def _read(path: Path) -> bytes:
    """Return the manifest that is there, if it can be one."""
    try:
        return _text_of(path)
    except (CheckpointError, OSError):
        return b"no file"


# --- the manifest ---------------------------------------------------------------------------


def _canonical(manifest: Mapping[str, Any]) -> bytes:
    return (json.dumps(manifest, indent=1, allow_nan=False) + "\n").encode("ascii")


def _manifest(
    generation: int,
    contents: Contents,
    entries: Mapping[str, Entry],
    extra: Mapping[str, Entry],
) -> bytes:
    """Return the text of a manifest. Its own checksum is that of the text without it."""
    body = {
        "format": FORMAT,
        "version": VERSION,
        "generation": generation,
        "buffer": contents.description,
        "state": contents.state,
        "files": _listed(entries),
        "extra": _listed(extra),
    }
    return _canonical({**body, "sha256": hashlib.sha256(_canonical(body)).hexdigest()})


def _listed(entries: Mapping[str, Entry]) -> dict[str, dict[str, Any]]:
    return {
        name: {"file": entry.file, "bytes": entry.nbytes, "crc32": entry.crc32}
        for name, entry in entries.items()
    }


def _text_of(path: Path) -> bytes:
    if not os.path.lexists(path):
        raise CheckpointError(f"there is no checkpoint in {path.parent}: {path.name} is missing")
    size = _size_of(path)
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
    if manifest.get("sha256") != digest:
        raise CheckpointError(
            f"is damaged: checksum mismatch: expected {manifest.get('sha256')!r:.80} as it says, "
            f"found {digest!r}: {REMEDY}"
        )
    if text != _canonical({**body, "sha256": digest}):
        raise CheckpointError(
            "is damaged: expected its values spelled as they are saved, found other spaces, "
            f"numbers or order: {REMEDY}"
        )
    return manifest
