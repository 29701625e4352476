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


class TestProportionalWithLeastPriority(Contract):
    """As LAP has it; `priorities` are those that errors gave, none below 1."""

    specification = per.Proportional(alpha=0.6, eps=0.0, min_priority=1.0)

    def law(self, priorities, alpha):
        assert priorities.min() >= 1.0
        return proportional_law(priorities, alpha)


class WithRecentRows:
    """A mixture: 0.5 by the law of the other class, 0.2 uniform, 0.3 over the newest five."""

    def law(self, priorities, alpha):
        own = super().law(priorities, alpha)
        newest = np.zeros(len(own))
        newest[-5:] = 1.0 / min(5, len(own))
        return 0.5 * own + 0.2 / len(own) + 0.3 * newest


class TestProportionalWithRecentRows(WithRecentRows, TestProportional):
    specification = per.Proportional(uniform_mix=0.2, recent_mix=0.3, recent=5)


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


class TestRankBasedWithRecentRows(WithRecentRows, TestRankBased):
    specification = per.RankBased(uniform_mix=0.2, recent_mix=0.3, recent=5)
