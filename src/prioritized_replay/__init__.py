"""Prioritized experience replay: proportional and exact rank-based sampling for any training loop.

>>> import prioritized_replay as per
"""

from prioritized_replay.batch import Batch
from prioritized_replay.checkpoint.files import CheckpointError
from prioritized_replay.fields.field import Field
from prioritized_replay.index import Draw, PrioritizedIndex
from prioritized_replay.per import PER
from prioritized_replay.replay import ReplayBuffer
from prioritized_replay.sampling import Proportional, RankBased, Uniform
from prioritized_replay.schedules import constant, exponential, linear
from prioritized_replay.streams.sequences import Sequence

__all__ = [
    "PER",
    "Batch",
    "CheckpointError",
    "Draw",
    "Field",
    "PrioritizedIndex",
    "Proportional",
    "RankBased",
    "ReplayBuffer",
    "Sequence",
    "Uniform",
    "constant",
    "exponential",
    "linear",
]

__version__ = "0.1.0"

_WINGS = (
    *("streams", "batches", "offline", "sampling", "storage", "fields", "checkpoint", "jit"),
    *("dqn", "envs", "training", "apex", "runs", "experiments", "conformance", "inspection"),
    "integrations",
)


def __dir__() -> list[str]:
    """Return what is meant to be used: the public names, and the wings of the house."""
    return [*__all__, *_WINGS, "__version__", "__doc__"]
