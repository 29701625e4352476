"""A distribution with a uniform and a recent share beside it. It does not know how batches differ.

P(i) = (1 - u - r) P_distribution(i) + u / size + r / n for the newest n rows, else without the
last term. Where no row has a mass, the two shares make up the whole.
"""

from __future__ import annotations

import numpy as np

from prioritized_replay.sampling import _draw_kernels as draw_kernels
from prioritized_replay.sampling.distribution import Distribution, Floats, Ints
from prioritized_replay.sampling.live import Live

__all__ = ["Mixture"]


class Mixture:
    """The single-draw probabilities that are really in force, and draws by them.

    Parameters
    ----------
    distribution : Distribution
        It has been told of all rows whenever a method is called.
    live : Live
        Which slots can be drawn.
    uniform_mix : float
        The share u of draws that are uniform over the live rows.
    recent_mix : float
        The share r of draws that are uniform over the newest rows; u + r <= 1.
    recent : int
        How many rows are the newest, n; at most those that are live.
    """

    def __init__(
        self,
        distribution: Distribution,
        live: Live,
        uniform_mix: float,
        recent_mix: float,
        recent: int,
    ) -> None:
        self._distribution = distribution
        self._live = live
        self._uniform, self._recent = uniform_mix, recent_mix
        self._window = recent
        self.plain = uniform_mix == 0.0 and recent_mix == 0.0
        """Whether nothing is mixed in."""

    @property
    def _size(self) -> int:
        return self._live.size

    def drawable(self) -> int:
        """Return how many slots have a positive probability. O(n) with a recent share alone."""
        if self.plain:
            return self._distribution.drawable()
        if self._uniform:
            return self._size
        drawable = self._distribution.drawable()
        if self._recent and drawable < self._size:
            drawable += int(np.count_nonzero(self._distribution.masses(self._newest()) == 0.0))
        return drawable

    def draw(self, uniforms: Floats, stratified: bool, slots: Ints, probabilities: Floats) -> None:
        """Write a slot for each uniform, and its probability, as :meth:`Distribution.draw`."""
        if self.plain:
            self._distribution.draw(uniforms, stratified, slots, probabilities)
            return
        points = uniforms
        if stratified:
            points = np.empty(uniforms.size)
            draw_kernels.stratify(uniforms, points)
        uniform, recent = self._shares()
        share = 1.0 - uniform - recent if self._distribution.drawable() else 0.0
        prioritized = points < share
        newest = points >= share + uniform if recent else np.zeros(points.size, np.bool_)
        anywhere = ~(prioritized | newest)
        if prioritized.any():
            found = np.empty(np.count_nonzero(prioritized), np.int64)
            chances = np.empty(found.size)
            self._distribution.draw(points[prioritized] / share, False, found, chances)
            slots[prioritized] = found
        for which, first, width, count in (
            (anywhere, share, uniform, self._size),
            (newest, share + uniform, recent, self._newest_count()),
        ):
            if which.any():
                shares = (points[which] - first) / width * count
                places = np.clip(shares.astype(np.int64), 0, count - 1)
                slots[which] = self._live.at(places + (self._size - count))
        probabilities[:] = self.probabilities(slots)

    def probabilities(self, slots: Ints) -> Floats:
        """Return the probability of each of these live slots in one draw. O(B)."""
        probabilities = self._distribution.probabilities(slots)
        if self.plain:
            return probabilities
        uniform, recent = self._shares()
        share = 1.0 - uniform - recent if self._distribution.drawable() else 0.0
        mixed = share * probabilities + uniform / max(self._size, 1)
        if recent:
            count = self._newest_count()
            mixed[self._live.among_newest(slots, count)] += recent / max(count, 1)
        return mixed

    def rates(self, slots: Ints) -> Floats:
        """Return numbers in proportion to the probabilities of these live slots. O(B).

        Masses, where nothing is mixed in: they have not underflowed as P may have.
        """
        return self._distribution.masses(slots) if self.plain else self.probabilities(slots)

    def least_probability(self) -> float:
        """Return the least positive probability.

        Notes
        -----
        O(1), with a recent share O(n), or O(N) where the least mass is that of a recent row.
        """
        distribution = self._distribution
        if self.plain:
            return distribution.least_probability()
        least = 0.0
        every = distribution.drawable() == self._size
        if every:
            least = distribution.least_probability()
        uniform, recent = self._shares()
        share = 1.0 - uniform - recent if distribution.drawable() else 0.0
        if not recent:
            return share * least + uniform / max(self._size, 1)
        chances = distribution.probabilities(self._newest())
        if every and (chances > least).all():  # the row of the least mass is not a recent one
            return share * least + uniform / self._size
        probabilities = self.probabilities(self._live.all())
        return float(probabilities[probabilities > 0.0].min())

    def _shares(self) -> tuple[float, float]:
        """Return the uniform and the recent share in force."""
        if self._distribution.drawable():
            return self._uniform, self._recent
        total = self._uniform + self._recent
        return self._uniform / total, self._recent / total

    def _newest_count(self) -> int:
        return min(self._window, self._size)

    def _newest(self) -> Ints:
        """Return the slots of the newest rows, int64[n]."""
        return self._live.at(np.arange(self._size - self._newest_count(), self._size))
