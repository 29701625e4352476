"""The checkpoint of a run: what the learner knows and what its replay holds, as of one moment.

It is a checkpoint of the replay with the learner among its extra bytes, so one commit puts both in
place. Knows torch's way to write tensors; knows nothing of what a learner is. Nothing that is read
back is executed: the learner is loaded with ``weights_only``, the replay by
:meth:`ReplayBuffer.load`.
"""

import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from prioritized_replay.checkpoint.files import CheckpointError
from prioritized_replay.checkpoint.saving import has_checkpoint, remove_checkpoint
from prioritized_replay.replay import ReplayBuffer
from prioritized_replay.runs.tensors import tensors_in

LEARNER = "learner"
SHARDED = "sharded.json"
"""Of a replay in shards: says which of two sets of checkpoints, a or b, is in force."""
_PARTS = "[ab]/*"  # the checkpoints of a set

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
        """Return whether there is a checkpoint, be it damaged."""
        return has_checkpoint(self.folder) or (self.folder / SHARDED).is_file()

    def save(self, learner: State, replay: Any) -> None:
        """Put a checkpoint in the place of the one there, which counts until this one is whole.

        Parameters
        ----------
        learner : dict
            Tensors and plain values, in dicts and lists.
        replay : ReplayBuffer or Shards

        Raises
        ------
        OSError
            It cannot be written. The checkpoint that was there still is.

        Notes
        -----
        O(size of the learner), and what changed in the replay since it was saved here before. The
        disk needs room for both learners and for what changed.
        """
        if self.folder.is_symlink():
            raise OSError(
                f"{self.folder} must be a folder, got a link: put the folder itself there"
            )
        data = io.BytesIO()
        torch.save(learner, data)
        replay.save(self.folder, extra={LEARNER: data.getvalue()})

    def load(self, kind: Callable[[Path], Any] = ReplayBuffer.load) -> tuple[State, Any]:
        """Return the learner, on the CPU, and the replay of the last complete checkpoint.

        Parameters
        ----------
        kind : callable
            What loads the replay.

        Raises
        ------
        CheckpointError
            There is none, or it is damaged or of another version; a ValueError.
        MemoryError, OSError
            There is no room for it.
        """
        replay = kind(self.folder)
        try:
            return self._learner_in(replay.extra.get(LEARNER)), replay
        except BaseException:
            if not isinstance(replay, ReplayBuffer):
                replay.close()  # it has processes
            raise

    def _learner_in(self, data: bytes | None) -> State:
        if data is None:
            raise CheckpointError(f"{self.folder} must hold a learner, got a replay without one")
        try:
            learner = tensors_in(data)
            if not isinstance(learner, dict):
                raise ValueError("it is no dict")
        except ValueError as error:
            raise CheckpointError(f"the learner in {self.folder} is damaged: {error}") from None
        return learner

    def remove(self) -> None:
        """Remove the checkpoint, and what unfinished ones have left, and nothing else."""
        (self.folder / SHARDED).unlink(missing_ok=True)
        for part in self.folder.glob(_PARTS):
            remove_checkpoint(part)
            with contextlib.suppress(OSError):  # something else is in it
                part.parent.rmdir()
        remove_checkpoint(self.folder)
