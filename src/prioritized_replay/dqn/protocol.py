"""What the agent asks of a learner: one protocol for the plain one and the fast one.

Axes: B batch, E environments.
"""

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from prioritized_replay.batch import Batch


class Learner(Protocol):
    """What the agent asks: an update is ``gradient``, ``step`` and, when due, ``move_target``."""

    optimizer: torch.optim.Optimizer

    def gradient(self, batch: Batch) -> Tensor:
        """Leave the gradient with the parameters; return td errors float32[B], all finite."""

    def undo(self) -> None:
        """Restore what the forward passes of ``gradient`` changed in the network, if anything."""

    def step(self, learning_rate: float | None) -> None:
        """Move the online network; None keeps the optimizer's own step size."""

    def stepped(self) -> bool | None:
        """Return whether the step after the latest gradient was made, None if that is unknown."""

    def move_target(self, share: float) -> None:
        """Move the target network by this share; a second call for one gradient does nothing."""

    def best_actions(self, observations: Any, *, explore: bool) -> npt.NDArray[np.int64]:
        """Return the number of the best action for arrays of E observations."""
