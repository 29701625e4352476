"""A rank order with what only tests ask of it: all slots in order, draws as arrays, whole loads."""

import numpy as np

from prioritized_replay.sampling.power_law import PowerLaw
from prioritized_replay.sampling.rank_order import RankOrder


class WatchedOrder(RankOrder):
    """The same order, looked at from outside."""

    __slots__ = ()

    def rebuild(self, slots: np.ndarray, priorities: np.ndarray) -> None:
        """Forget all rows and load these."""
        self.clear()
        if len(slots):
            self.set(np.ascontiguousarray(slots, np.int64), np.ascontiguousarray(priorities))

    def insert_run(self, first: int, count: int, priority: float) -> None:
        """Enter `count` slots from `first` on, around the ring, all at one priority."""
        self.set((first + np.arange(count)) % self.capacity, np.full(count, priority))

    def slots_in_order(self) -> np.ndarray:
        """Return all slots, the highest priority first."""
        slots = [self._slot_at(position) for position in range(len(self))]
        return np.array(slots[::-1], np.int64)

    def draw(self, uniforms: np.ndarray, law: PowerLaw) -> tuple[np.ndarray, np.ndarray]:
        """Return a slot for each uniform, and its probability."""
        slots, probabilities = np.empty(len(uniforms), np.int64), np.empty(len(uniforms))
        self.draw_into(uniforms, law, False, slots, probabilities)
        return slots, probabilities

    def ranges(self, slots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the best rank of the tie group of each slot, from 1, and the group's size."""
        starts, stops = self._ranges(slots)
        return len(self) + 1 - stops, stops - starts
