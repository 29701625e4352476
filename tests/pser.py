"""Prioritized sequence experience replay (Brittain et al. 2019) as a sampler of one's own.

A surprising transition makes those that led to it more likely as well: each of the `window`
transitions before it has at least its priority times decay**k, k steps before.
"""

from dataclasses import dataclass

import numpy as np

from prioritized_replay.sampling import SPECIFICATIONS
from prioritized_replay.sampling.sum_tree import SumTree


@dataclass(frozen=True)
class PSER:
    """P(i) in proportion to max_k (decay**k priority_{i + k})**alpha, for k = 0 .. window."""

    alpha: float = 0.6
    eps: float = 0.01
    decay: float = 0.7
    window: int = 5

    def distribution(self, capacity, counters, note):
        return PSERDistribution(capacity, self)


class PSERDistribution:
    """The state of one buffer: what is true are the priorities, the tree follows from them.

    At the seam of a full ring the newest row looks at the oldest ones, as if they came after it.
    """

    most = 1e150  # no sum of powers overflows
    uses_priorities = True

    def __init__(self, capacity, specification):
        self.alpha = float(specification.alpha)
        self._factors = specification.decay ** np.arange(
            1 + min(specification.window, capacity - 1)
        )
        self._own = np.zeros(capacity)
        self._live = np.zeros(capacity, bool)
        self._tree = SumTree(capacity)

    @property
    def nbytes(self):
        return self._own.nbytes + self._live.nbytes + self._tree.nbytes

    def set_alpha(self, alpha, slots, largest):
        self.alpha = alpha
        self._update(slots)

    def set(self, slots, priorities):
        self._own[slots] = priorities
        self._live[slots] = True
        before = (slots[:, None] - np.arange(self._factors.size)) % self._own.size
        self._update(np.unique(before[self._live[before]]))

    def _update(self, slots):
        after = (slots[:, None] + np.arange(self._factors.size)) % self._own.size
        largest = (self._own[after] * self._factors).max(axis=1, initial=0.0)
        self._tree.set(slots, largest**self.alpha)

    def draw(self, uniforms, stratified, slots, probabilities):
        self._tree.draw(uniforms, stratified, slots, probabilities)

    def probabilities(self, slots):
        return self._tree.masses(slots) / self._tree.total

    def masses(self, slots):
        return self._tree.masses(slots)

    def priorities(self, slots):
        return self._own[slots]

    def drawable(self):
        return self._tree.positive

    def least_probability(self):
        masses = self._tree.masses(np.flatnonzero(self._live))
        return masses[masses > 0.0].min() / self._tree.total

    def largest_priority(self):
        return self._own[self._live].max()

    def clear(self):
        self._own[:], self._live[:] = 0.0, False
        self._tree.clear()


SPECIFICATIONS.append(PSER)  # the one line that lets a checkpoint name it
