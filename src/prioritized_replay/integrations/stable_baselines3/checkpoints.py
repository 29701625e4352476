"""Replay buffers of Stable-Baselines3's algorithms in checkpoint folders, where theirs pickle."""

from __future__ import annotations

import os
from typing import Any

from prioritized_replay.integrations.stable_baselines3.buffer import PrioritizedReplayBuffer

__all__ = ["ReplayInFolder"]


class ReplayInFolder:
    """Saves and loads the replay buffer of an algorithm; put before its class among the bases."""

    replay_buffer: Any

    def save_replay_buffer(self, path: Any) -> None:
        """Save the replay buffer to a folder.

        Parameters
        ----------
        path : path
            The folder; it is created if it is not there.

        Raises
        ------
        TypeError
            If it is an open file.
        """
        self._prioritized().save(_folder(path))

    def load_replay_buffer(self, path: Any, truncate_last_traj: bool = True) -> None:
        """Load the replay buffer from a folder.

        Parameters
        ----------
        path : path
            The folder.
        truncate_last_traj : bool
            Whether the environments begin new episodes with the next step.

        Raises
        ------
        TypeError
            If it is an open file.
        ValueError
            As :meth:`PrioritizedReplayBuffer.load`.
        """
        self._prioritized().load(_folder(path), truncate_last_traj)

    def _prioritized(self) -> PrioritizedReplayBuffer:
        if not isinstance(self.replay_buffer, PrioritizedReplayBuffer):
            raise TypeError(
                "replay_buffer_class must be PrioritizedReplayBuffer, "
                f"got {type(self.replay_buffer).__name__}"
            )
        return self.replay_buffer


def _folder(path: Any) -> str | os.PathLike[str]:
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"path must be that of a folder, got {type(path).__name__}")
    return path
