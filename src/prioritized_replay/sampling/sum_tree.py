"""Trees of fan-out 8 over slots: sums with prefix search, and minima. They know only numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from prioritized_replay.sampling import _tree_kernels as tree_kernels

__all__ = ["MinTree", "SumTree"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FANOUT = 8


class SumTree:
    """Masses of N slots, their sum, and the slot under any point of [0, sum).

    The tree holds float64 masses, 8 children to a node. A parent is the left-to-right sum of
    its children, recomputed after every change and never adjusted by a difference, so that it
    equals that sum bit for bit after any history.

    Parameters
    ----------
    capacity : int
        Number of slots N, >= 1.

    Examples
    --------
    >>> tree = SumTree(4)
    >>> tree.set(np.array([0, 2, 3]), np.array([5.0, 3.0, 2.0]))
    >>> tree.total
    10.0
    >>> slots, masses = tree.find(np.array([0.0, 4.9, 5.0, 7.9, 8.0, 9.9]))
    >>> slots
    array([0, 0, 2, 2, 3, 3])
    """

    def __init__(self, capacity: int) -> None:
        self._tree, self._starts, self.levels = _allocate(capacity, 0.0)
        self._leaves = self.levels[0][:capacity]
        self.arrays = self._tree, self._starts
        """What kernels take as `tree` and `starts`."""

    @property
    def total(self) -> float:
        """Sum of all masses. O(1)."""
        return float(self._tree[0])

    @property
    def positive(self) -> int:
        """Number of slots whose mass is positive. O(1)."""
        return int(self._tree.item(tree_kernels.POSITIVE))

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self._tree.nbytes

    def masses(self, slots: Ints | slice) -> Floats:
        """Return the masses of ``slots``, float64[B]. O(B)."""
        return self._leaves[slots]

    def set(self, slots: Ints, masses: Floats) -> None:
        """Set the masses (finite, >= 0) of ``slots``; of duplicates the last wins. O(B log N)."""
        tree_kernels.set_masses(self._tree, self._starts, slots, masses)

    def find(self, targets: Floats) -> tuple[Ints, Floats]:
        """Find the slots whose shares of [0, total) hold the targets.

        Parameters
        ----------
        targets : float64[B]
            Points of [0, total); one at or beyond the total counts as the largest below it.

        Returns
        -------
        slots : int64[B]
            Slots of positive mass, provided that the total is positive.
        masses : float64[B]
            Their masses.

        Notes
        -----
        O(B log N). The first child whose running sum exceeds the target is entered, and the
        rest of the target is kept below that child's mass.
        """
        slots = np.empty(targets.size, np.int64)
        masses = targets.copy()
        tree_kernels.find_masses(self._tree, self._starts, masses, slots)
        return slots, masses

    def draw(self, uniforms: Floats, stratified: bool, slots: Ints, probabilities: Floats) -> None:
        """Draw a slot for each uniform, by its mass; write its share of the total too.

        Parameters
        ----------
        uniforms : float64[B]
            In [0, 1).
        stratified : bool
            Whether the i-th of them is to be put into the i-th of B equal parts of [0, 1).
        slots : int64[B]
            To be written.
        probabilities : float64[B]
            To be written, > 0.

        Notes
        -----
        O(B log N). The total must be positive.
        """
        tree_kernels.draw_masses(
            self._tree, self._starts, uniforms, stratified, slots, probabilities
        )

    def clear(self) -> None:
        """Set every mass to 0. O(N)."""
        self._tree[:] = 0.0

    def check(self) -> None:
        """Raise AssertionError, with its numbers, at a parent that is not its children's sum."""
        for level, (children, parents) in enumerate(
            zip(self.levels[:-1], self.levels[1:], strict=True), 1
        ):
            sums = np.zeros(children.size // FANOUT)
            for k in range(FANOUT):  # left to right, as the kernel adds
                sums = sums + children[k::FANOUT]
            wrong = np.flatnonzero(sums != parents[: sums.size])
            assert wrong.size == 0, (
                f"level {level} node {wrong[0]} is {parents[wrong[0]]!r}, "
                f"its children sum to {sums[wrong[0]]!r}"
            )


class MinTree:
    """Values of N slots and the least of them; an unset slot is infinite.

    Parameters
    ----------
    capacity : int
        Number of slots N, >= 1.

    Examples
    --------
    >>> tree = MinTree(3)
    >>> tree.least
    inf
    >>> tree.set(np.array([0, 1]), np.array([2.0, 0.5]))
    >>> tree.least
    0.5
    """

    def __init__(self, capacity: int) -> None:
        self._tree, self._starts, self.levels = _allocate(capacity, np.inf)

    @property
    def least(self) -> float:
        """The least value. O(1)."""
        return float(self.levels[-1][0])

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self._tree.nbytes

    def set(self, slots: Ints, values: Floats) -> None:
        """Set the values of ``slots``; of duplicates the last wins. O(B log N)."""
        tree_kernels.set_minima(self._tree, self._starts, slots, values)

    def clear(self) -> None:
        """Forget every value. O(N)."""
        self._tree[:] = np.inf


def _allocate(capacity: int, value: float) -> tuple[Floats, Ints, list[Floats]]:
    """Return one array for a whole tree, where each level starts in it, and a view of each."""
    counts = [-(-capacity // FANOUT) * FANOUT]
    while counts[-1] > FANOUT:
        counts.append(-(-counts[-1] // FANOUT**2) * FANOUT)
    counts.append(1)
    widths = [*counts[:-1], FANOUT]  # the root has a cache line of its own
    starts = np.array([sum(widths[level + 1 :]) for level in range(len(widths))], np.int64)
    size = int(starts[0]) + counts[0]
    memory = np.zeros(size + FANOUT)  # zeros: pages of a large, empty tree are not touched
    shift = (-memory.ctypes.data % 64) // memory.itemsize  # nodes on cache lines
    tree = memory[shift : shift + size]
    if value != 0.0:
        tree[:] = value
    levels = [tree[start : start + count] for start, count in zip(starts, counts, strict=True)]
    return tree, starts, levels
