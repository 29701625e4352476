"""The results of a comparison: one row for each finished run, kept in files that survive.

Knows the two tables and their CSV files; knows nothing of training or of summaries.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from prioritized_replay.experiments.compare.arms import SETTINGS as ARMS
from prioritized_replay.experiments.compare.arms import Run
from prioritized_replay.experiments.compare.trials import Outcome
from prioritized_replay.experiments.tables import append_rows, read_rows, write_rows
from prioritized_replay.runs.files import one_line, read_json, replace_text
from prioritized_replay.training.config import TrainConfig

RESULTS, CURVES, SETTINGS = "results.csv", "curves.csv", "settings.json"
_OF_ONE_RUN = sorted({"seed", *(name for arm in ARMS.values() for name in arm)})


@dataclass(frozen=True)
class Result:
    """One finished run, a row of ``results.csv``.

    Attributes
    ----------
    env_id, arm, seed, steps
        What was trained, and for how many environment steps.
    best_step : int
        Step of the best model, by the evaluations during training.
    final_mean, final_iqm : float
        Mean and interquartile mean return of that model, over episodes that chose nothing.
    threshold : float
        The return from which the environment counts as solved; NaN if it names none.
    reached : bool
        Whether ``final_mean`` is at least that.
    steps_to_threshold : int
        Step of the first evaluation during training whose mean return was at least the threshold.
        Censored: where none was, it is ``steps``, and ``censored`` is true.
    censored : bool
        See above.
    area : float
        Area under the evaluation curve, divided by its length: the mean return in between.
    wall_seconds, steps_per_second : float
        Of the whole run with its evaluations; of the training alone.
    """

    env_id: str
    arm: str
    seed: int
    steps: int
    best_step: int
    final_mean: float
    final_iqm: float
    threshold: float
    reached: bool
    steps_to_threshold: int
    censored: bool
    area: float
    wall_seconds: float
    steps_per_second: float

    @classmethod
    def of(cls, run: Run, outcome: Outcome, threshold: float) -> Self:
        """Judge the outcome of a run."""
        config = run.config
        solved = [step for step, value in outcome.curve if value >= threshold]
        return cls(
            env_id=config.env_id,
            arm=run.arm,
            seed=config.seed,
            steps=config.steps,
            best_step=outcome.best_step,
            final_mean=outcome.final_mean,
            final_iqm=outcome.final_iqm,
            threshold=threshold,
            reached=outcome.final_mean >= threshold,
            steps_to_threshold=solved[0] if solved else config.steps,
            censored=not solved,
            area=mean_height(outcome.curve),
            wall_seconds=round(outcome.wall_seconds, 2),
            steps_per_second=round(outcome.steps_per_second, 1),
        )


@dataclass(frozen=True)
class Point:
    """One evaluation during training, a row of ``curves.csv``."""

    env_id: str
    arm: str
    seed: int
    step: int
    evaluation_mean: float


def mean_height(curve: Iterable[tuple[int, float]]) -> float:
    """Return the area under a curve of straight lines, divided by its length.

    Examples
    --------
    >>> mean_height([(100, 0.0), (200, 10.0), (400, 10.0)])
    8.333333333333334
    """
    steps, values = map(np.asarray, zip(*curve, strict=True))
    if steps.size == 1:
        return float(values[0])
    return float(np.trapezoid(values, steps) / (steps[-1] - steps[0]))


class ResultFiles:
    """The finished runs of one comparison, in a folder, each appended as soon as it is finished.

    Opening a folder removes what an interrupted run left half written.

    Parameters
    ----------
    path : pathlib.Path
        The folder; made if it is missing.
    config : TrainConfig
        Of any run that is compared there: they differ in seed and arm, and in what the arm sets.
    step_sizes : sequence of float
        Factors of the step size among which one is chosen for each arm; none: the preset's.
    tuning_seeds : int
        With how many seeds each of them is tried.

    Raises
    ------
    FileExistsError
        The folder holds runs with other settings; nothing was changed.
    ValueError
        A file there is not what it should be; nothing was changed.
    """

    def __init__(
        self,
        path: Path,
        config: TrainConfig,
        step_sizes: Sequence[float] = (),
        tuning_seeds: int = 0,
    ) -> None:
        self._results, self._curves = path / RESULTS, path / CURVES
        # Seeds and arms may be added later; all else has to be the same for all.
        settings = {**config.to_dict(), **dict.fromkeys(_OF_ONE_RUN)}
        tuning: dict[str, Any] = {
            "step_sizes": list(step_sizes),
            "tuning_seeds": tuning_seeds if step_sizes else 0,
        }
        settings |= tuning
        kept = path / SETTINGS
        if kept.exists():
            # A folder of before there was tuning was not tuned.
            untuned = {"step_sizes": [], "tuning_seeds": 0}
            for name, value in (untuned | _settings_in(kept)).items():
                if name in _OF_ONE_RUN:
                    continue
                if value != settings.get(name):
                    raise FileExistsError(
                        f"{path} holds runs with {name} {value}, not {settings.get(name)}: choose "
                        "another folder with --output"
                    )
        elif self._results.exists():
            raise FileExistsError(
                f"{path} has results but no {SETTINGS}: choose another folder with --output"
            )
        self.results = read_rows(self._results, Result)
        done = {(result.arm, result.seed) for result in self.results}
        self.points = [p for p in read_rows(self._curves, Point) if (p.arm, p.seed) in done]
        path.mkdir(parents=True, exist_ok=True)
        replace_text(kept, json.dumps(settings, indent=2) + "\n")
        write_rows(self._results, Result, self.results)
        write_rows(self._curves, Point, self.points)

    def append(self, result: Result, points: list[Point]) -> None:
        """Keep a finished run. Its row in the results comes last, and means that it is whole."""
        append_rows(self._curves, Point, points)
        append_rows(self._results, Result, [result])
        self.points += points
        self.results.append(result)


def _settings_in(path: Path) -> dict[str, Any]:
    try:
        found = read_json(path)
        if not isinstance(found, dict):
            raise ValueError(f"it must hold an object, got {type(found).__name__}")
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read: {one_line(error)}") from error
    return found
