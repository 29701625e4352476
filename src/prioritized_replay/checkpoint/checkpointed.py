"""What a part of a buffer offers so that checkpoints can hold it."""

from __future__ import annotations

from typing import Any, Protocol

from prioritized_replay.checkpoint.loading import Reader
from prioritized_replay.checkpoint.manifest import Piece

__all__ = ["Checkpointed"]


class Checkpointed(Protocol):
    """A part whose state goes into a checkpoint as named arrays and plain values.

    No two parts of one buffer use the same name. What follows from the rest, such as a tree over
    priorities, is computed anew and not kept.
    """

    def pieces(self) -> list[Piece]:
        """Return the arrays. Reading them may wait, until a later change of the part."""
        ...

    def state(self) -> dict[str, Any]:
        """Return the rest, in values that JSON has."""
        ...

    def restore(self, reader: Reader) -> None:
        """Restore the state into a new part that was made with the same arguments.

        Raises
        ------
        CheckpointError
            If the checkpoint does not fit; what has changed then is not defined.
        """
        ...
