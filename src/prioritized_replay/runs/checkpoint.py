"""The checkpoint of a run: what the learner knows and what its replay holds, as of one moment.

Knows files, torch's way to write tensors and the replay's own checkpoints; knows nothing of what a
learner is. Nothing that is read back is executed: the manifest is JSON, the learner is loaded with
``weights_only``, the replay by :meth:`ReplayBuffer.load`.
"""

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import torch

from prioritized_replay.checkpoint.files import FILE, CheckpointError, following, sync_folder
from prioritized_replay.replay import ReplayBuffer
from prioritized_replay.runs.tensors import tensors_in
from prioritized_replay.training.room import bytes_available

# Putting the manifest in place is the commit: it names a learner's file and a replay's manifest by
# their digests. Meanwhile the older pair stays whole: learners have numbers in their names, and
# the files of the older replay, which are never changed, have a second name in "previous".
_MANIFEST = "checkpoint.json"
_LEARNER = re.compile(r"learner\.g([0-9]{1,18})\.pt", re.ASCII)
_REPLAY, _PREVIOUS = "replay", "previous"
_REPLAYS_MANIFEST = "MANIFEST.json"
_FORMAT = "prioritized-replay run checkpoint"
_VERSION = 1
_LARGEST_LEARNER = 1 << 33
_LONGEST = {_MANIFEST: 1 << 16, _REPLAYS_MANIFEST: 1 << 26}

State = dict[str, Any]


class RunCheckpoint:
    """A folder for the checkpoint of a run; it need not be there yet.

    Parameters
    ----------
    folder : pathlib.Path
        What else is in it is left alone.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def exists(self) -> bool:
        """Whether there is a checkpoint, be it damaged."""
        return (self.folder / _MANIFEST).is_file()

    def save(self, learner: State, replay: ReplayBuffer) -> None:
        """Put a checkpoint in the place of the one there, which counts until this one is whole.

        Parameters
        ----------
        learner : dict
            Tensors and plain values, in dicts and lists.
        replay : ReplayBuffer

        Raises
        ------
        OSError
            It cannot be written. The checkpoint that was there still is.

        Notes
        -----
        O(size of the learner), and what changed in the replay since it was saved here before. The
        disk needs room for both learners and for what changed; where it knows no hard links, for
        the replay twice.
        """
        if self.folder.is_symlink():
            raise OSError(
                f"{self.folder} must be a folder, got a link: put the folder itself there"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        number = following({int(match[1]) for match in self._learners()})
        file = self.folder / f"learner.g{number}.pt"
        buffer = io.BytesIO()
        torch.save(learner, buffer)
        data = buffer.getvalue()
        text = b""
        try:
            _write(file, data)
            self._keep_replay()
            replay.save(self.folder / _REPLAY)
            text = _manifest(
                {
                    "format": _FORMAT,
                    "version": _VERSION,
                    "learner": {"file": file.name, "bytes": len(data), "sha256": _sha256(data)},
                    "replay": {"manifest_sha256": self._digest_of(_REPLAY)},
                }
            )
            self._commit(text)
        except BaseException:
            if not text or self._text() != text:  # or it was interrupted after the commit
                file.unlink(missing_ok=True)
            raise
        for match in self._learners():
            if match[0] != file.name:
                (self.folder / match[0]).unlink(missing_ok=True)
        _remove_replay(self.folder / _PREVIOUS)

    def load(self) -> tuple[State, ReplayBuffer]:
        """Return the learner, on the CPU, and the replay of the last complete checkpoint.

        Raises
        ------
        CheckpointError
            There is none, or it is damaged or of another version; a ValueError.
        MemoryError, OSError
            There is no room for it.
        """
        manifest = self._parsed()
        path = self.folder / manifest["learner"]["file"]
        most = min(_LARGEST_LEARNER, bytes_available() or _LARGEST_LEARNER)
        if manifest["learner"]["bytes"] > most:
            raise CheckpointError(
                f"{path} must have at most {most:,} bytes, got {manifest['learner']['bytes']:,}"
            )
        data = _read(path, manifest["learner"]["bytes"])
        if _sha256(data) != manifest["learner"]["sha256"]:
            raise CheckpointError(f"{path} is damaged or missing: its checksum is another")
        for replay in (_REPLAY, _PREVIOUS):
            if self._digest_of(replay) == manifest["replay"]["manifest_sha256"]:
                return _learner(data, path), ReplayBuffer.load(self.folder / replay)
        raise CheckpointError(
            f"{self.folder / _REPLAY} is damaged or missing: it is not the one of {_MANIFEST}"
        )

    def remove(self) -> None:
        """Remove the checkpoint, and what unfinished ones have left, and nothing else."""
        if self.folder.is_symlink():
            self.folder.unlink()  # where it leads to is not ours
            return
        (self.folder / _MANIFEST).unlink(missing_ok=True)
        (self.folder / f"{_MANIFEST}.new").unlink(missing_ok=True)
        for match in self._learners():
            (self.folder / match[0]).unlink(missing_ok=True)
        for replay in (_REPLAY, _PREVIOUS):
            _remove_replay(self.folder / replay)
        _remove_empty(self.folder)

    def _keep_replay(self) -> None:
        """See to it that the replay of the checkpoint in force outlives the saving of another."""
        try:
            wanted = self._parsed()["replay"]["manifest_sha256"]
        except CheckpointError:
            return  # there is none
        if self._digest_of(_REPLAY) != wanted:
            return  # an earlier saving was killed: what counts is in "previous" already
        source, target = self.folder / _REPLAY, self.folder / _PREVIOUS
        _remove_replay(target)
        target.mkdir(exist_ok=True)
        for file in _replays_files(source):
            _link(file, target / file.name)
        sync_folder(target)
        sync_folder(self.folder)

    def _commit(self, text: bytes) -> None:
        unfinished = self.folder / f"{_MANIFEST}.new"
        unfinished.unlink(missing_ok=True)
        _write(unfinished, text)
        sync_folder(self.folder)
        os.replace(unfinished, self.folder / _MANIFEST)
        sync_folder(self.folder)

    def _text(self) -> bytes:
        return _read(self.folder / _MANIFEST, _LONGEST[_MANIFEST])

    def _parsed(self) -> State:
        """Return the manifest: as it was written, byte for byte."""
        path, text = self.folder / _MANIFEST, self._text()
        if not text:
            raise CheckpointError(
                f"there is no checkpoint in {self.folder}: {_MANIFEST} is missing"
            )
        try:
            found = json.loads(text)
            version = found["version"] if found["format"] == _FORMAT else None
            body = {name: value for name, value in found.items() if name != "sha256"}
            intact = _manifest(body) == text
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise CheckpointError(f"{path} is damaged: {type(error).__name__} {error}") from None
        if version != _VERSION:
            raise CheckpointError(
                f"{path} must be of version {_VERSION} of the format {_FORMAT!r}, got {version!r}"
            )
        if not intact:
            raise CheckpointError(f"{path} is damaged: its checksum is another")
        try:
            learner, replay = found["learner"], found["replay"]
            sound = (
                _LEARNER.fullmatch(learner["file"])
                and type(learner["bytes"]) is int
                and isinstance(learner["sha256"], str)
                and isinstance(replay["manifest_sha256"], str)
            )
        except (TypeError, KeyError):
            sound = None
        if not sound:
            raise CheckpointError(f"{path} is damaged: it names no learner and replay")
        return dict(found)

    def _digest_of(self, replay: str) -> str:
        text = _read(self.folder / replay / _REPLAYS_MANIFEST, _LONGEST[_REPLAYS_MANIFEST])
        return _sha256(text) if text else "none"

    def _learners(self) -> list[re.Match[str]]:
        if not self.folder.is_dir():
            return []
        return [match for name in os.listdir(self.folder) if (match := _LEARNER.fullmatch(name))]


def _learner(data: bytes, path: Path) -> State:
    """Return what was saved as the learner, if it is nothing but tensors and plain values."""
    try:
        state = tensors_in(data)
        if not isinstance(state, dict):
            raise ValueError("it is no dict")
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged: {error}") from None
    return state


def _manifest(body: State) -> bytes:
    def text(content: State) -> bytes:
        return (json.dumps(content, indent=1) + "\n").encode("ascii")

    return text({**body, "sha256": _sha256(text(body))})


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _read(path: Path, most: int) -> bytes:
    """Return a file, or nothing if it is not there or has more than so many bytes."""
    if not path.is_file():  # to open a pipe would be to wait
        return b""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            return file.read(size) if size <= most else b""
    except FileNotFoundError:
        return b""


def _write(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # not every file system can
        shutil.copyfile(source, target)
        with target.open("r+b") as file:
            os.fsync(file.fileno())


def _replays_files(folder: Path) -> list[Path]:
    """Return the files of a replay's checkpoint, its manifest last."""
    return [
        *(file for file in folder.glob("*.npy") if FILE.fullmatch(file.name) and file.is_file()),
        *(file for file in (folder / _REPLAYS_MANIFEST,) if file.is_file()),
    ]


def _remove_replay(folder: Path) -> None:
    """Remove a replay's checkpoint, its manifest first: what is left then counts as none."""
    if folder.is_symlink():
        folder.unlink()  # what is elsewhere is not ours
        return
    files = [*reversed(_replays_files(folder)), folder / f"{_REPLAYS_MANIFEST}.new"]
    for file in files:
        file.unlink(missing_ok=True)
    _remove_empty(folder)


def _remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):  # it is not there, or not ours alone
        folder.rmdir()
