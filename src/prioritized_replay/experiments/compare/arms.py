"""The arms of a comparison: what each of them changes in the settings of a training.

Knows the names of arms and settings; knows nothing of seeds, files or how a run is trained.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from prioritized_replay.training.config import TrainConfig
from prioritized_replay.training.presets import preset

Arm = Literal["rank", "proportional", "lap", "alpha-0", "uniform"]

SETTINGS: Mapping[Arm, Mapping[str, Any]] = {
    "rank": {"replay": "rank"},
    "proportional": {"replay": "proportional"},
    # Fujimoto et al. 2020: no priority is below 1, where the Huber loss turns linear; no weights.
    "lap": {
        "replay": "proportional",
        "alpha": 0.4,
        "priority_eps": 0.0,
        "min_priority": 1.0,
        "beta_start": 0.0,
        "beta_end": 0.0,
    },
    # The control: all of the machinery of priorities, and the law of uniform replay.
    "alpha-0": {"replay": "proportional", "alpha": 0.0},
    "uniform": {"replay": "uniform"},
}


class Run(NamedTuple):
    """One training of a comparison."""

    arm: Arm
    config: TrainConfig


def run_of(env_id: str, arm: Arm, seed: int, *, step_size: float = 1.0, **overrides: Any) -> Run:
    """Return the training of an arm with a seed: the preset, and what the arm changes in it.

    Parameters
    ----------
    env_id : str
        The environment.
    arm : str
        A key of :data:`SETTINGS`.
    seed : int
        Of the training.
    step_size : float
        A factor of the preset's step sizes, the first and the last.
    **overrides
        Fields of :class:`~prioritized_replay.training.TrainConfig`, the same for all arms.

    Examples
    --------
    >>> run_of("CartPole-v1", "alpha-0", 3, step_size=0.5).config.learning_rate
    0.0005
    """
    pattern = preset(env_id, **overrides)
    return Run(
        arm,
        dataclasses.replace(
            pattern,
            **SETTINGS[arm],
            seed=seed,
            threads=1,
            learning_rate=pattern.learning_rate * step_size,
            learning_rate_end=pattern.learning_rate_end * step_size,
        ),
    )
