"""What a sampler asks of a distribution over slots: the protocol that every distribution follows.

A distribution knows the priorities that it was given, and draws slots by them. It knows nothing of
draw modes, of the priority with which a new row enters, or of transitions: :class:`.Sampler` joins
one distribution with those.

A new one is one file: a frozen specification, a dataclass that has a method ``distribution`` and
is named in :data:`prioritized_replay.sampling.SPECIFICATIONS`, and a class that follows
:class:`Distribution`.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

__all__ = ["HUGE", "INT64", "TINY", "Distribution", "Fused"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

TINY = float(np.finfo(np.float64).tiny)
HUGE = float(np.finfo(np.float64).max)
INT64 = np.dtype(np.int64)  # NumPy looks for it each time where it is given the type


class Distribution(Protocol):
    """A probability for each live slot, from priorities.

    Slots are int64[B] in [0, N), priorities and probabilities float64[B]. Arguments have been
    checked; what :meth:`set` is given is finite and >= 0, and at most :attr:`most`.

    Where it has an attribute ``gaps`` that is True, a buffer of sequences can use it. Then
    :meth:`set` may be given -1 as well: such a slot is not live until it gets another priority.

    Ctrl-C may interrupt any call. If :meth:`set` or :meth:`clear` is then called again with the
    same arguments, the result must be that of one complete call.

    A worked example is on the page :doc:`/own_sampler`, and in the file ``tests/pser.py``.
    """

    @property
    def alpha(self) -> float:
        """How much priorities count; 0 makes all slots equally likely."""

    @property
    def most(self) -> float:
        """The largest priority that can be used."""

    @property
    def uses_priorities(self) -> bool:
        """Whether priorities matter. If not, each counts as 1, and a checkpoint keeps none."""

    @property
    def nbytes(self) -> int:
        """Bytes held."""

    def set_alpha(self, alpha: float, slots: Ints, largest: float) -> None:
        """Change alpha.

        Parameters
        ----------
        alpha : float
            >= 0.
        slots : int64[size]
            All live slots.
        largest : float
            The largest priority with which a row may enter later.

        Raises
        ------
        ValueError
            If alpha is out of range, or a priority too large for it; nothing has changed then.
        """

    def set(self, slots: Ints, priorities: Floats) -> None:
        """Give slots their priorities, wherever they were; of duplicates the last counts."""

    def draw(self, uniforms: Floats, stratified: bool, slots: Ints, probabilities: Floats) -> None:
        """Write a slot for each uniform of [0, 1), and its probability in one draw.

        Where ``stratified``, uniform i of B stands for the point (i + u) / B. Some slot can be
        drawn, or this is not called.
        """

    def probabilities(self, slots: Ints) -> Floats:
        """Return the probability of each of these live slots in one draw."""

    def masses(self, slots: Ints) -> Floats:
        """Return numbers in proportion to the probabilities of these live slots."""

    def priorities(self, slots: Ints) -> Floats:
        """Return the priorities of these live slots."""

    def drawable(self) -> int:
        """Return how many slots have a positive probability."""

    def least_probability(self) -> float:
        """Return the least positive probability."""

    def largest_priority(self) -> float:
        """Return the largest priority of a live slot."""

    def clear(self) -> None:
        """Forget all slots."""


@runtime_checkable
class Fused(Protocol):
    """Methods that a distribution may have as well, to save time: one compiled call each.

    For a distribution without them, the sampler does the same in a slower way. Each call does all
    of its work or none, the counters included: see ``sampling/_ring_kernels.py``.

    Every distribution of this library has them.
    """

    def tell(self, counters: Ints, entering: Floats) -> None:
        """Give the rows that wait their priorities, and count them as received."""

    def update(
        self, counters: Ints, ids: Ints, td_errors: Floats, eps: float, min_priority: float
    ) -> int:
        """Give rows the priorities max(abs(td_error) + eps, min_priority).

        Ids of overwritten rows are counted.

        Returns how many rows are still there, or a number below 0 for what is refused.
        """
