"""The tests of finished runs, in a file that survives, and what they amount to.

Knows rows and intervals; knows nothing of training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt

from prioritized_replay.experiments.imbalanced.task import Arm, Point, evaluated_at
from prioritized_replay.experiments.tables import append_rows, read_rows, write_rows
from prioritized_replay.training.statistics import Estimate

Floats = npt.NDArray[np.float64]

RESULTS, SUMMARY = "imbalanced.csv", "imbalanced-summary.csv"


class ResultFile:
    """All tests of the runs in a folder, each run appended as soon as it is finished.

    Opening removes what an interrupted command left half written.

    Parameters
    ----------
    folder : pathlib.Path
        Made if it is missing.
    steps : int
        Of every run there.

    Raises
    ------
    FileExistsError
        The folder holds runs of another length; nothing was changed.
    ValueError
        The file there is not what it should be; nothing was changed.
    """

    def __init__(self, folder: Path, steps: int) -> None:
        self._path = folder / RESULTS
        runs: dict[tuple[float, str, int], list[Point]] = {}
        for point in read_rows(self._path, Point):
            runs.setdefault((point.rare_share, point.arm, point.seed), []).append(point)
        moments = evaluated_at(steps)
        for tests in runs.values():
            if [test.step for test in tests] != moments[: len(tests)]:
                raise FileExistsError(
                    f"{folder} holds runs of another length than {steps:,} steps: choose another "
                    "folder with --output"
                )
        self.points = [p for tests in runs.values() if len(tests) == len(moments) for p in tests]
        folder.mkdir(parents=True, exist_ok=True)
        write_rows(self._path, Point, self.points)

    def has(self, rare_share: float, arm: str, seed: int) -> bool:
        """Return whether a run is finished."""
        key = rare_share, arm, seed
        return any((p.rare_share, p.arm, p.seed) == key for p in self.points)

    def append(self, points: list[Point]) -> None:
        """Keep finished runs."""
        append_rows(self._path, Point, points)
        self.points += points


def mean_of(values: Floats) -> Estimate:
    """Return the mean of one number per seed, with its 95 % bootstrap interval (BCa).

    Where all are equal, as a single one is, the interval has no width.

    Examples
    --------
    >>> mean_of(np.array([0.25, 0.25]))
    Estimate(value=0.25, low=0.25, high=0.25)
    """
    from scipy.stats import bootstrap

    middle = float(values.mean())
    if np.ptp(values) == 0.0:
        return Estimate(middle, middle, middle)
    found = bootstrap((values,), np.mean, random_state=np.random.default_rng(0))
    low, high = found.confidence_interval
    return Estimate(middle, float(low), float(high))


@dataclass(frozen=True)
class Measure:
    """One number, in percent, about one arm: a row of ``imbalanced-summary.csv``.

    Attributes
    ----------
    rare_share, arm
        See :class:`~prioritized_replay.experiments.imbalanced.command.ImbalancedConfig`.
    measure : str
        Of the errors after the last step: ``error``, the mean over seeds, between ``low`` and
        ``high``; ``rare``, that of classes 0 to 4; ``difference``, the mean of this arm minus the
        uniform one, seed by seed, between ``least`` and ``most``. Ends are those of 95 % intervals.
    value : float
    """

    rare_share: float
    arm: str
    measure: str
    value: float


def measures(points: Sequence[Point]) -> list[Measure]:
    """Return what finished runs amount to, share by share and arm by arm."""
    last = max(point.step for point in points)
    ends: dict[tuple[float, str], dict[int, Point]] = {}
    for point in points:
        if point.step == last:
            ends.setdefault((point.rare_share, point.arm), {})[point.seed] = point
    found = []
    order = get_args(Arm)
    for share, arm in sorted(ends, key=lambda key: (key[0], order.index(key[1]))):
        seeds = ends[share, arm]
        overall = mean_of(np.array([p.error for p in seeds.values()]))
        rare = float(np.mean([p.rare_error for p in seeds.values()]))
        numbers = {"error": overall.value, "low": overall.low, "high": overall.high, "rare": rare}
        theirs = ends.get((share, "uniform"), {})
        pairs = [p.error - theirs[seed].error for seed, p in seeds.items() if seed in theirs]
        if arm != "uniform" and pairs:
            less = mean_of(np.array(pairs))
            numbers |= {"difference": less.value, "least": less.low, "most": less.high}
        found += [Measure(share, arm, name, round(100 * x, 2)) for name, x in numbers.items()]
    return found
