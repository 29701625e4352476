"""The scenarios: one module for each group, one short function for each rule."""

from __future__ import annotations

from collections.abc import Sequence

from prioritized_replay.conformance.scenario import Scenario
from prioritized_replay.conformance.scenarios import boundaries, law, n_step, weights

SCENARIOS: Sequence[Scenario] = [
    value
    for module in (law, weights, boundaries, n_step)
    for value in vars(module).values()
    if isinstance(value, Scenario)
]
"""All of them, group by group."""

GROUPS: Sequence[str] = list(dict.fromkeys(each.group for each in SCENARIOS))
