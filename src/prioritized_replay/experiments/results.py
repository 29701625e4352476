"""The results of a comparison: one row for each finished run, kept in files that survive.

Knows the two tables and their CSV files; knows nothing of training or of summaries.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np

from prioritized_replay.dqn.config import TrainConfig
from prioritized_replay.experiments.trials import Outcome

RESULTS, CURVES, SETTINGS = "results.csv", "curves.csv", "settings.json"


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
    def of(cls, config: TrainConfig, outcome: Outcome, threshold: float) -> Self:
        """Judge the outcome of a run."""
        solved = [step for step, value in outcome.curve if value >= threshold]
        return cls(
            env_id=config.env_id,
            arm=config.replay,
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
        Of any run that is compared there: they differ in arm and seed only.

    Raises
    ------
    FileExistsError
        The folder holds runs with other settings; nothing was changed.
    """

    def __init__(self, path: Path, config: TrainConfig) -> None:
        self._results, self._curves = path / RESULTS, path / CURVES
        # Seeds and arms may be added later; all else has to be the same for all.
        settings = {**config.to_dict(), "replay": None, "seed": None}
        kept = path / SETTINGS
        if kept.exists():
            for name, value in json.loads(kept.read_text(encoding="utf-8")).items():
                if value != settings.get(name):
                    raise FileExistsError(
                        f"{path} holds runs with {name} {value}, not {settings.get(name)}: choose "
                        "another folder with --output"
                    )
        elif self._results.exists():
            raise FileExistsError(
                f"{path} has results but no {SETTINGS}: choose another folder with --output"
            )
        path.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        self.results = _read(self._results, Result)
        done = {(result.arm, result.seed) for result in self.results}
        self.points = [p for p in _read(self._curves, Point) if (p.arm, p.seed) in done]
        _write(self._results, Result, self.results)
        _write(self._curves, Point, self.points)

    def append(self, result: Result, points: list[Point]) -> None:
        """Keep a finished run. Its row in the results comes last, and means that it is whole."""
        _append(self._curves, points)
        _append(self._results, [result])
        self.points += points
        self.results.append(result)


Row = TypeVar("Row", Result, Point)

# A cell of each type, by its name: NaN is an empty cell, a truth value 1 or 0.
_FROM_CELL: dict[str, Callable[[str], Any]] = {
    "str": str,
    "int": int,
    "float": lambda cell: float(cell or "nan"),
    "bool": lambda cell: bool(int(cell)),
}


def _to_cell(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    return "" if isinstance(value, float) and math.isnan(value) else value


def _read(path: Path, kind: type[Row]) -> list[Row]:
    """Read what is whole: a last line without its end was cut off."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines.pop()
    names = [field.name for field in fields(kind)]
    rows = csv.DictReader(lines)
    if lines and rows.fieldnames != names:
        raise FileExistsError(
            f"{path} does not have the columns {', '.join(names)}: choose another folder with "
            "--output"
        )
    types = {field.name: str(field.type) for field in fields(kind)}
    return [kind(**{name: _FROM_CELL[types[name]](row[name]) for name in names}) for row in rows]


def _write(path: Path, kind: type[Row], rows: list[Row]) -> None:
    """Replace the file in one step."""
    beside = path.with_suffix(".part")
    beside.write_text(",".join(field.name for field in fields(kind)) + "\n", encoding="utf-8")
    _append(beside, rows)
    beside.replace(path)


def _append(path: Path, rows: Sequence[Row]) -> None:
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([_to_cell(getattr(r, f.name)) for f in fields(r)] for r in rows)
