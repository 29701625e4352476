"""The step size of each arm of a comparison, chosen by one procedure, on seeds of its own.

Knows factors of the preset's step size, seeds and the file of the tries; knows nothing of how a
run is trained or of what is compared afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prioritized_replay.experiments.compare.arms import Arm, Run, run_of
from prioritized_replay.experiments.compare.results import mean_height
from prioritized_replay.experiments.compare.trials import Outcome
from prioritized_replay.experiments.tables import append_rows, read_rows, write_rows

TUNING = "tuning.csv"
FIRST_SEED = 10_000
"""Seeds from here on choose step sizes; no comparison counts so far."""


@dataclass(frozen=True)
class Try:
    """One run that helps to choose a step size, a row of ``tuning.csv``.

    Attributes
    ----------
    env_id, arm, seed, steps
        What was trained.
    factor, learning_rate : float
        The first step size, as a factor of the preset's and as it is.
    area : float
        Mean height of the evaluation curve, which decides.
    """

    env_id: str
    arm: str
    factor: float
    learning_rate: float
    seed: int
    steps: int
    area: float


class StepSizes:
    """The tries of one comparison, in a file of its folder, and what they say.

    Parameters
    ----------
    path : pathlib.Path
        The folder of the comparison, which is there.
    factors : sequence of float
        Of the preset's step size; none: every arm keeps the preset's.
    seeds : int
        How many seeds each of them is tried with.

    Raises
    ------
    ValueError
        The file is not what it should be.
    """

    def __init__(self, path: Path, factors: Sequence[float], seeds: int) -> None:
        self._file, self._factors, self._seeds = path / TUNING, factors, seeds
        self.tries = read_rows(self._file, Try)
        if factors:
            write_rows(self._file, Try, self.tries)  # without what an interrupted run left

    def missing(self, env_id: str, arms: Iterable[Arm], **overrides: Any) -> dict[Run, float]:
        """Return the runs that are still to be made, each with its factor."""
        done = {(one.arm, one.factor, one.seed) for one in self.tries}
        return {
            run_of(env_id, arm, seed, step_size=factor, **overrides): factor
            for seed in range(FIRST_SEED, FIRST_SEED + self._seeds)
            for factor in self._factors
            for arm in arms
            if (arm, factor, seed) not in done
        }

    def append(self, run: Run, factor: float, outcome: Outcome) -> None:
        """Keep a finished try."""
        config = run.config
        one = Try(
            env_id=config.env_id,
            arm=run.arm,
            factor=factor,
            learning_rate=config.learning_rate,
            seed=config.seed,
            steps=config.steps,
            area=mean_height(outcome.curve),
        )
        append_rows(self._file, Try, [one])
        self.tries.append(one)

    def chosen(self, arm: Arm) -> float:
        """Return the factor with the highest mean over seeds; the smallest of several; or 1."""
        return max(
            sorted(self._factors),
            key=lambda factor: np.mean(
                [one.area for one in self.tries if (one.arm, one.factor) == (arm, factor)]
            ),
            default=1.0,
        )
