"""``metrics.csv``: its columns, the row of one report, and how it is read again.

Knows progress reports and text; knows nothing of the rest of a run.
"""

import csv
import math
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np
import numpy.typing as npt

from prioritized_replay.runs.files import one_line, read_file
from prioritized_replay.training.progress import Progress

METRICS = "metrics.csv"
_LARGEST = 1 << 28
_LONGEST_LINE = 1 << 16

_NUMBERS = tuple(
    f.name for f in fields(Progress) if f.name not in ("steps", "evaluation", "is_best", "workers")
)
COLUMNS = (
    *_NUMBERS,
    "seconds",
    "evaluation_mean",
    "evaluation_std",
    "evaluation_iqm",
    "evaluation_low",
    "evaluation_high",
    "is_best",
)
# How TensorBoard groups them. What is not named here is only in the CSV.
TAGS = {
    "mean_return": "return/mean_of_last_100",
    "last_return": "return/last_episode",
    "evaluation_mean": "evaluation/mean",
    "evaluation_iqm": "evaluation/iqm",
    "loss": "learning/loss",
    "td_error": "learning/td_error",
    "learning_rate": "learning/learning_rate",
    "epsilon": "exploration/epsilon",
    "beta": "replay/beta",
    "effective_sample_size": "replay/effective_sample_size",
    "steps_per_second": "speed/steps_per_second",
}

Row = dict[str, float]


class Kept(NamedTuple):
    """The first rows of a ``metrics.csv``."""

    rows: int
    """How many, the header not counted."""
    text: bytes
    """The header and these rows."""


def row_of(progress: Progress, seconds: float) -> Row:
    """Return one report as a number for each column; NaN where there is none.

    Parameters
    ----------
    progress : Progress
    seconds : float
        Wall time since the run began.
    """
    row = {name: float(getattr(progress, name)) for name in _NUMBERS}
    evaluation = progress.evaluation
    nan = math.nan
    low, high = evaluation.interval if evaluation else (nan, nan)
    return {
        **row,
        "seconds": round(seconds, 3),
        "evaluation_mean": evaluation.mean if evaluation else nan,
        "evaluation_std": evaluation.std if evaluation else nan,
        "evaluation_iqm": evaluation.iqm if evaluation else nan,
        "evaluation_low": low,
        "evaluation_high": high,
        "is_best": float(progress.is_best),
    }


def write_header(file: TextIO) -> None:
    """Write the names of the columns."""
    csv.writer(file).writerow(COLUMNS)


def write_row(file: TextIO, row: Row) -> None:
    """Write one report; NaN becomes an empty cell."""
    csv.writer(file).writerow([cell(row[column]) for column in COLUMNS])


def read_metrics(path: Path) -> dict[str, npt.NDArray[np.float64]]:
    """Return every column, float64[reports] each; an empty cell is NaN.

    Raises
    ------
    ValueError
        The file is missing, damaged or larger than 256 MiB.
    """
    try:
        lines = read_file(path, _LARGEST).decode("utf-8").splitlines()
        rows = list(csv.DictReader(lines))
        return {c: np.array([float(row[c] or "nan") for row in rows]) for c in COLUMNS}
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read: {one_line(error)}") from error


def rows_until(path: Path, step: int, columns: tuple[str, ...] = COLUMNS) -> Kept:
    """Return the whole rows up to the report of a step; what follows, damaged or not, is left out.

    Parameters
    ----------
    path : pathlib.Path
    step : int
    columns : tuple of str
        The header of the file; the step is the first one.

    Raises
    ------
    OSError
        The file cannot be read.
    """
    kept: list[bytes] = []
    size = 0
    with path.open("rb") as file:
        while (line := file.readline(_LONGEST_LINE)) and size < _LARGEST:
            try:
                cells = line.decode("ascii").rstrip("\r\n").split(",")
                whole = line.endswith(b"\n") and len(cells) == len(columns)
                mine = float(cells[0]) <= step if kept else tuple(cells) == columns
            except ValueError:
                break
            if not (whole and mine):
                break
            kept.append(line)
            size += len(line)
    return Kept(max(len(kept) - 1, 0), b"".join(kept))


def cell(value: float) -> str:
    """Return a number as it is written; NaN is empty."""
    if math.isnan(value):
        return ""
    return str(int(value)) if value.is_integer() else f"{value:.8g}"
