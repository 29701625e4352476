"""What a draw for Stable-Baselines3's algorithms holds."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["Observations", "PrioritizedSamples"]

Ints = NDArray[np.int64]
Observations = torch.Tensor | dict[str, torch.Tensor]
"""Of a space that is no Dict, or of one that is."""


class PrioritizedSamples(NamedTuple):
    """A drawn batch: what Stable-Baselines3's ``ReplayBufferSamples`` has, weights and ids.

    Attributes
    ----------
    observations, next_observations : tensor[B, ...], or dict of such
        Of the dtypes of the space, or float32 where VecNormalize has normalized them.
    actions : tensor[B, A]
        As the algorithm gave them: continuous ones are scaled to [-1, 1].
    dones : float32[B, 1]
        1 where the episode ended in a terminal state. A time limit is none.
    rewards : float32[B, 1]
        n-step returns where ``n_steps`` > 1.
    discounts : float32[B, 1], or None where ``n_steps`` is 1
        gamma**m of a window of m steps; 0 where ``dones`` is 1.
    weights : float32[B, 1]
        Importance-sampling weights, for the loss of each transition.
    ids : int64[B], as a NumPy array
        For :meth:`PrioritizedReplayBuffer.update_priorities`.
    """

    observations: Observations
    actions: torch.Tensor
    next_observations: Observations
    dones: torch.Tensor
    rewards: torch.Tensor
    discounts: torch.Tensor | None
    weights: torch.Tensor
    ids: Ints
