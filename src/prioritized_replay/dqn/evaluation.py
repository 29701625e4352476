"""How good a network is: complete episodes, played greedily, and what their returns say.

Knows Gymnasium and a network that gives action values; knows nothing of training or replay.
"""

import difflib
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
import torch
from torch import nn

Float64s = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Evaluation:
    """The outcome of some complete episodes.

    Attributes
    ----------
    returns : float64[episodes]
        Undiscounted sum of rewards of each episode.
    lengths : int64[episodes]
        Steps of each episode.
    mean, std : float
        Mean and standard deviation (population) of the returns.
    iqm : float
        Interquartile mean: the mean of the middle half of the sorted returns.
    interval : tuple of two floats
        95 % bootstrap confidence interval of the mean.
    """

    returns: Float64s
    lengths: Int64s
    mean: float
    std: float
    iqm: float
    interval: tuple[float, float]


def evaluate(
    network: nn.Module,
    env_id: str,
    episodes: int,
    seed: int,
    *,
    epsilon: float = 0.0,
    num_envs: int = 10,
    device: str | torch.device = "cpu",
) -> Evaluation:
    raise NotImplementedError
