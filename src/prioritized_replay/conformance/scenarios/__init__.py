"""The scenarios: one module for each group, one short function for each rule."""

from __future__ import annotations

from collections.abc import Sequence

from prioritized_replay.conformance.scenario import Scenario
from prioritized_replay.conformance.scenarios import (
    boundaries,
    concurrency,
    dtypes,
    law,
    memory,
    n_step,
    numerics,
    persistence,
    staleness,
    vector_environments,
    weights,
)

_MODULES = (
    *(law, weights, boundaries, n_step, vector_environments, dtypes, staleness, numerics),
    *(memory, persistence, concurrency),
)

SCENARIOS: Sequence[Scenario] = [
    value for module in _MODULES for value in vars(module).values() if isinstance(value, Scenario)
]
"""All of them, group by group."""

GROUPS: Sequence[str] = list(dict.fromkeys(each.group for each in SCENARIOS))
