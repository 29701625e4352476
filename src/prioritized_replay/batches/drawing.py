"""Draws in one compiled call, with rows or without, for the distributions that we know.

It knows which kernel goes with which distribution. Any other distribution draws its slots first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prioritized_replay.batches import _batch_kernels as kernels
from prioritized_replay.sampling.distribution import Distribution, Floats, Ints
from prioritized_replay.sampling.proportional import ProportionalDistribution
from prioritized_replay.sampling.rank_based import RankBasedDistribution
from prioritized_replay.sampling.uniform import UniformDistribution

__all__ = ["DrawCall", "FusedDraw", "fused_draw", "fused_draw_alone"]

INT32 = np.dtype(np.int32)

FusedDraw = Callable[[Any, Floats, bool, Any], int]
"""From a distribution, a block of uniforms as from :meth:`UniformStream.block_for`, whether the
draw is stratified, and a call, that a kernel completes, to 0, or to one more than the place of a
slot that no row has."""

DrawCall = tuple[
    NDArray[np.uint8], int, int, float, float, float, Ints, Floats, Ints, NDArray[np.float32]
]
"""The arguments of :func:`_kernels.complete_draw` after the block of uniforms."""


def fused_draw(distribution: Distribution) -> FusedDraw | None:
    """Return what draws from a distribution and fills a batch in one call, or None.

    The call is a :data:`.BatchCall`. :meth:`.BatchBuilder.refused` makes the error.
    """
    return _WITH_ROWS.get(type(distribution))


def fused_draw_alone(distribution: Distribution) -> FusedDraw | None:
    """Return what draws ids and weights from a distribution in one call, or None.

    The call is a :data:`DrawCall`. :func:`.no_such_slot` makes the error.
    """
    return _ALONE.get(type(distribution))


def _by_ring(kernel: Any) -> FusedDraw:
    def draw(
        distribution: UniformDistribution, numbers: Floats, stratified: bool, call: Any
    ) -> int:
        strange: int = kernel(distribution.counters, numbers, stratified, *call)
        return strange

    return draw


def _by_mass(kernel: Any) -> FusedDraw:
    def draw(
        distribution: ProportionalDistribution, numbers: Floats, stratified: bool, call: Any
    ) -> int:
        strange: int = kernel(*distribution.arrays, numbers, stratified, *call)
        return strange

    return draw


def _by_rank(kernel: Any, alone: bool) -> FusedDraw:
    def draw(
        distribution: RankBasedDistribution, numbers: Floats, stratified: bool, call: Any
    ) -> int:
        law = distribution.law
        # A block of a batch has room for what the search notes.
        scratch = (np.empty(3 * call[-1].size, INT32),) if alone else ()
        strange: int = kernel(
            *distribution.order.arrays, law.alpha, law.constant, law.table, *scratch,
            numbers, stratified, *call,
        )  # fmt: skip
        if strange < 0:
            raise distribution.order.damage()
        return strange

    return draw


_WITH_ROWS: dict[type, FusedDraw] = {
    UniformDistribution: _by_ring(kernels.sample_ring),
    ProportionalDistribution: _by_mass(kernels.sample_masses),
    RankBasedDistribution: _by_rank(kernels.sample_rows, alone=False),
}
_ALONE: dict[type, FusedDraw] = {
    UniformDistribution: _by_ring(kernels.draw_ring_alone),
    ProportionalDistribution: _by_mass(kernels.draw_masses_alone),
    RankBasedDistribution: _by_rank(kernels.draw_rows_alone, alone=True),
}
