"""Hostile arguments, for a moment; ``tests/soak/fuzz.py`` goes on for longer."""

import pytest
from tests.soak.fuzz import Fuzz


@pytest.mark.parametrize("seed", [11, 12, 13])
def test_every_call_works_or_says_why_not_and_changes_nothing(seed):
    fuzz = Fuzz(seed)
    fuzz.run(1_500)
    outcomes = {outcome for _, outcome in fuzz.outcomes}
    assert {"worked", "ValueError", "KeyError", "TypeError"} <= outcomes
