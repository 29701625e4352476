"""Hostile arguments, for a moment; ``tests/soak/fuzz.py`` goes on for longer."""

from collections import Counter

import pytest
from tests.soak.fuzz import Fuzz


@pytest.mark.parametrize("seed", [11, 12, 13])
@pytest.mark.slow
def test_every_call_works_or_says_why_not_and_changes_nothing(seed):
    fuzz = Fuzz(seed)
    fuzz.run(1_500)
    outcomes = Counter()
    for (_, outcome), count in fuzz.outcomes.items():
        outcomes[outcome] += count
    assert outcomes["worked"] > fuzz.calls / 4
    assert outcomes["ValueError"] > fuzz.calls / 4
    assert outcomes["KeyError"]
