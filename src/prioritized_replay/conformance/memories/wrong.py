"""Five memories that are wrong in one thing each, as published code has been.

``per check`` must catch each of them by a scenario that names its fault: :data:`CAUGHT_BY`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prioritized_replay.conformance.memories.plain import Floats, PlainMemory, plain
from prioritized_replay.conformance.memory import Adapter, Array, Step, Wanted
from prioritized_replay.conformance.subject import Law


class EqualRanks(PlainMemory):
    """All ranks are 1: the errors are sorted along the wrong axis."""

    def masses(self) -> Floats:
        """Return ranks of a column (N, 1), sorted along its one element."""
        column = np.abs(np.array(self.errors))[:, None]
        ranks = np.argsort(-column, axis=1) + 1
        return np.asarray(np.ravel(ranks) ** -self.wanted.alpha)


class NominalWeights(PlainMemory):
    """A fifth of the draws is uniform, and the weights do not know it."""

    def places(self, batch_size: int, masses: Floats) -> NDArray[np.int64]:
        """Return places drawn by the law, and now and then by none."""
        by_law = super().places(batch_size, masses)
        by_none = self.rng.integers(masses.size, size=batch_size)
        return np.where(self.rng.random(batch_size) < 0.2, by_none, by_law)


class CrossingWindows(PlainMemory):
    """Windows go on over the end of an episode."""

    def follow(self, stream: int, step: Step) -> None:
        """Wait for n steps, whatever happens to the episode."""
        window = self.windows[stream]
        window.append(step)
        if len(window) == self.wanted.n_step:
            self.close(window)


class DriftingTree(PlainMemory):
    """Sums of masses are kept in float32, and what changes is added to them."""

    def __init__(self, law: Law, wanted: Wanted) -> None:
        super().__init__(law, wanted)
        self.leaves = 1 << (wanted.capacity - 1).bit_length()
        self.tree = np.zeros(2 * self.leaves, np.float32)

    def clear(self) -> None:
        """Empty the tree too."""
        super().clear()
        self.tree[:] = 0.0

    def places(self, batch_size: int, masses: Floats) -> NDArray[np.int64]:
        """Bring the tree up to date, and descend from its root for each draw."""
        first = self.added - len(self.rows)
        for place, mass in enumerate(masses.astype(np.float32)):
            self._add_difference((first + place) % self.wanted.capacity, mass)
        slots = [self._found(self.rng.random()) for _ in range(batch_size)]
        return (np.array(slots) - first) % self.wanted.capacity % len(self.rows)

    def update(self, ids: Any, td_errors: Array) -> int | None:
        """Set errors, and have each reach the tree before the next."""
        applied = super().update(ids, td_errors)
        masses = self.masses().astype(np.float32)
        oldest = self.added - len(self.rows)
        for number in ids:
            if number >= oldest:
                self._add_difference(number % self.wanted.capacity, masses[number - oldest])
        return applied

    def _add_difference(self, slot: int, mass: np.float32) -> None:
        node = slot + self.leaves
        difference = mass - self.tree[node]
        while node and difference:
            self.tree[node] += difference
            node //= 2

    def _found(self, share: float) -> int:
        node, target = 1, np.float32(share) * self.tree[1]
        while node < self.leaves:
            node *= 2
            if target >= self.tree[node]:
                target -= self.tree[node]
                node += 1
        return node - self.leaves


class LateUpdates(PlainMemory):
    """Rows are named by the slots they lie in: a late error reaches the row that came after."""

    def ids(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return slots of the ring."""
        return super().ids(places) % self.wanted.capacity

    def update(self, ids: Any, td_errors: Array) -> int | None:
        """Set errors of what lies in the slots now."""
        newest = (self.added - 1) % self.wanted.capacity
        ages = (newest - np.asarray(ids)) % self.wanted.capacity
        return super().update(self.added - 1 - ages, td_errors)


def equal_ranks() -> Adapter:
    """Return the adapter of the memory whose ranks are all 1."""
    return plain("rank", EqualRanks, "all ranks equal")


def nominal_weights() -> Adapter:
    """Return the adapter of the memory whose weights are of another law than its draws."""
    return plain("proportional", NominalWeights, "weights of the nominal law")


def crossing_windows() -> Adapter:
    """Return the adapter of the memory whose windows cross the ends of episodes."""
    return plain("proportional", CrossingWindows, "windows across episodes")


def drifting_tree() -> Adapter:
    """Return the adapter of the memory whose sums drift."""
    return plain("proportional", DriftingTree, "a float32 tree of differences")


def late_updates() -> Adapter:
    """Return the adapter of the memory whose late errors reach new rows."""
    return plain("proportional", LateUpdates, "late updates reach new rows")


CAUGHT_BY: Mapping[str, str] = {
    "equal_ranks": "ranks-are-not-all-equal",
    "nominal_weights": "weights-match-the-draws",
    "crossing_windows": "windows-never-cross-an-end",
    "drifting_tree": "sums-do-not-drift",
    "late_updates": "a-late-error-does-not-reach-the-new-row",
}
"""The factory of each, and the scenario that names its fault."""
