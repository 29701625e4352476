"""Distributions over slots: which slot stands at a point of [0, 1), and with what probability P.

A distribution knows the priorities it was given. It knows nothing of draw modes, of what priority
a new row gets, or of transitions: :mod:`.sampler` joins one distribution with those.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
INT64 = np.dtype(np.int64)
BatchCall = tuple[Any, ...]
"""What a kernel needs to fill a batch, see :class:`Blocks`: a law hands it on unseen."""
TINY = float(np.finfo(np.float64).tiny)
HUGE = float(np.finfo(np.float64).max)


class Distribution(Protocol):
    """What a sampler asks of a law: slots int64[B], priorities and probabilities float64[B]."""

    alpha: float
    most: float
    """The largest priority that the law takes."""

    @property
    def nbytes(self) -> int:
        """Bytes held."""

    def require(self, priorities: Floats, name: str) -> None:
        """Raise ValueError, blaming the argument ``name``, at a priority that is too large."""

    def set_alpha(self, alpha: float, slots: Ints, largest: float) -> None:
        """Change alpha, given all live slots and the largest priority that may yet come."""

    def set(self, slots: Ints, priorities: Floats, name: str) -> float:
        """Give slots their priorities, of duplicates the last; return the largest of these.

        The array of priorities is used up. Raise ValueError, blaming the argument ``name``, at one
        that is too large.
        """

    def fill(self, first: int, count: int, priority: float) -> None:
        """Give ``count`` slots from ``first`` on, modulo N, one priority."""

    def draw(self, uniforms: Floats, stratified: bool, slots: Ints, probabilities: Floats) -> None:
        """Write a slot for each uniform of [0, 1), and its probability; see :func:`_kernels.point`.

        Some slot must be drawable.
        """

    def sample(self, uniforms: Floats, first: int, stratified: bool, frame: BatchCall) -> None:
        """Draw the same way with the uniforms from ``first`` on, and fill the batch of a frame."""

    def update(
        self, ids: Ints, td_errors: Floats, eps: float, first_id: int, next_id: int
    ) -> tuple[int, float]:
        """Give rows the priorities abs(td_error) + eps, see :func:`_kernels.priorities_of`.

        Returns how many are still there, or less than 0 where an id or error is refused, and the
        largest priority. Nothing has changed if that is infinite: one was too large.
        """

    def probabilities(self, slots: Ints) -> Floats:
        """Return P of live slots."""

    def masses(self, slots: Ints) -> Floats:
        """Return numbers in proportion to P of live slots."""

    def priorities(self, slots: Ints) -> Floats:
        """Return the priorities of live slots."""

    def drawable(self) -> int:
        """Return how many slots have a positive probability."""

    def least_probability(self) -> float:
        """Return the least positive probability."""

    def largest_priority(self) -> float:
        """Return the largest priority of a live slot."""

    def clear(self) -> None:
        """Forget all slots."""
