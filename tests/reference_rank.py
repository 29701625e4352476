"""Slow, obvious twins of PowerLaw and RankOrder: sorted lists and direct sums."""

import math


def mass_of_ranks(first, last, alpha):
    """Sum of r**-alpha over the ranks first..last, correctly rounded."""
    return math.fsum(float(r) ** -alpha for r in range(first, last + 1))


class SortedRanks:
    """The same face as RankOrder over a plain dictionary."""

    def __init__(self, capacity):
        self.capacity = capacity
        self.priority = {}

    def set(self, slots, priorities):
        self.priority.update(zip(slots.tolist(), priorities.tolist(), strict=True))

    def insert_run(self, first_slot, count, priority):
        for k in range(count):
            self.priority[(first_slot + k) % self.capacity] = priority

    def slots_in_order(self):
        return sorted(self.priority, key=lambda slot: (-self.priority[slot], -slot))

    def group(self, slot):
        """First and last rank of the rows of equal priority."""
        own = self.priority[slot]
        first = 1 + sum(priority > own for priority in self.priority.values())
        return first, first - 1 + sum(priority == own for priority in self.priority.values())

    def probability(self, slot, alpha):
        first, last = self.group(slot)
        mass = mass_of_ranks(first, last, alpha) / (last - first + 1)
        return mass / mass_of_ranks(1, len(self.priority), alpha)

    def draw(self, uniform, alpha):
        """Walk along rank 1, 2, ..., each row as wide as its probability."""
        walked = 0.0
        for slot in self.slots_in_order():
            walked += self.probability(slot, alpha)
            if walked > uniform:
                break
        return slot
