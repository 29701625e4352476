"""How the settings of the imbalanced digits were chosen: every arm with several, on other seeds.

``python -m prioritized_replay.experiments.imbalanced.tuning FILE`` makes all runs, writes them to a
CSV file and prints the best of each arm. The test images of the reported runs are not looked at.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np

from prioritized_replay.experiments.imbalanced.task import Arm, Settings, train
from prioritized_replay.experiments.tables import write_rows

SEEDS = tuple(range(1_000, 1_006))
STEPS = 1_000
RARE_SHARES = (0.01, 0.05)
STEP_SIZES: dict[Arm, tuple[float, ...]] = {  # on to where the best is not the last
    "uniform": (0.1, 0.3, 1.0, 3.0),
    "proportional": (0.1, 0.3, 1.0, 3.0),
    "corrected": (0.1, 0.3, 1.0, 3.0),
    "weighted": (0.01, 0.03, 0.1, 0.3, 1.0),
}
ALPHAS = (0.5, 1.0)


@dataclass(frozen=True)
class Trial:
    """One run, a row of the file; its error is that of the end, on images kept for choosing."""

    arm: str
    step_size: float
    alpha: float
    rare_share: float
    seed: int
    error: float


def tune(arms: tuple[Arm, ...] = get_args(Arm)) -> list[Trial]:
    """Run some arms with every setting."""
    trials = []
    for arm in arms:
        alphas = ALPHAS if arm in ("proportional", "corrected") else ALPHAS[-1:]
        for settings in [Settings(size, a) for size in STEP_SIZES[arm] for a in alphas]:
            for share in RARE_SHARES:
                points = train(arm, share, SEEDS, STEPS, settings, tuning=True)
                trials += [
                    Trial(arm, settings.step_size, settings.alpha, share, p.seed, p.error)
                    for p in points
                    if p.step == STEPS
                ]
    return trials


def best(trials: list[Trial], arm: str) -> Settings:
    """Return the settings of the least mean error of one arm, over shares and seeds."""
    errors: dict[Settings, list[float]] = {}
    for trial in trials:
        if trial.arm == arm:
            errors.setdefault(Settings(trial.step_size, trial.alpha), []).append(trial.error)
    return min(errors, key=lambda settings: float(np.mean(errors[settings])))


if __name__ == "__main__":
    found = tune()
    write_rows(Path(sys.argv[1]), Trial, found)
    for name in get_args(Arm):
        print(name, best(found, name))
