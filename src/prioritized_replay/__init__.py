"""Prioritized experience replay: proportional and exact rank-based sampling for any training loop.

>>> import prioritized_replay as per
"""

from prioritized_replay.batch import Batch
from prioritized_replay.casting import Field
from prioritized_replay.checkpoint import CheckpointError
from prioritized_replay.per import PER
from prioritized_replay.replay import ReplayBuffer
from prioritized_replay.samplers import Proportional, RankBased, Uniform
from prioritized_replay.schedules import constant, exponential, linear

__all__ = [
    "PER",
    "Batch",
    "CheckpointError",
    "Field",
    "Proportional",
    "RankBased",
    "ReplayBuffer",
    "Uniform",
    "constant",
    "exponential",
    "linear",
]

__version__ = "0.1.0"
