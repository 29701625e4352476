"""Draws of a batch and its rows in one compiled call, for the distributions that we know.

It knows which kernel goes with which distribution. Any other distribution draws its slots first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prioritized_replay.batches import _batch_kernels as kernels
from prioritized_replay.batches.builder import BatchCall
from prioritized_replay.sampling.distribution import Distribution, Floats
from prioritized_replay.sampling.proportional import ProportionalDistribution
from prioritized_replay.sampling.rank_based import RankBasedDistribution
from prioritized_replay.sampling.uniform import UniformDistribution

__all__ = ["fused_draw"]


def fused_draw(distribution: Distribution) -> Callable[[Any, Floats, bool, BatchCall], int] | None:
    """Return what draws from a distribution and fills a batch in one call, or None.

    It is called with the distribution, a block of uniforms as from :meth:`UniformStream.block_for`,
    whether the draw is stratified, and the call that describes the batch. It returns 0, or one more
    than the place of a slot that no row has: :meth:`.BatchBuilder.refused` makes the error.
    """
    return _FUSED.get(type(distribution))


def _uniform(
    distribution: UniformDistribution, numbers: Floats, stratified: bool, call: BatchCall
) -> int:
    strange: int = kernels.sample_ring(distribution.counters, numbers, stratified, *call)
    return strange


def _proportional(
    distribution: ProportionalDistribution, numbers: Floats, stratified: bool, call: BatchCall
) -> int:
    strange: int = kernels.sample_masses(*distribution.arrays, numbers, stratified, *call)
    return strange


def _rank_based(
    distribution: RankBasedDistribution, numbers: Floats, stratified: bool, call: BatchCall
) -> int:
    law = distribution.law
    strange: int = kernels.sample_rows(
        *distribution.order.arrays, law.alpha, law.constant, law.table, numbers, stratified, *call
    )
    if strange < 0:
        raise distribution.order.damage()
    return strange


_FUSED: dict[type, Callable[[Any, Floats, bool, BatchCall], int]] = {
    UniformDistribution: _uniform,
    ProportionalDistribution: _proportional,
    RankBasedDistribution: _rank_based,
}
