"""Which slots to draw, and with what probability. It never sees a row.

A distribution of one's own follows :class:`Distribution`; its specification is added to
:data:`SPECIFICATIONS`, so that checkpoints can name it.
"""

from prioritized_replay.sampling.distribution import Distribution, Fused
from prioritized_replay.sampling.proportional import Proportional
from prioritized_replay.sampling.rank_based import RankBased
from prioritized_replay.sampling.specifications import Specification
from prioritized_replay.sampling.uniform import Uniform

__all__ = [
    "SPECIFICATIONS",
    "Distribution",
    "Fused",
    "Proportional",
    "RankBased",
    "Specification",
    "Uniform",
]

SPECIFICATIONS: list[type[Specification]] = [Uniform, Proportional, RankBased]
"""The kinds of sampler that a checkpoint may name."""
