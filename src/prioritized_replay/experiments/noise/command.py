"""``per reproduce noise``: all runs of the chain with noise, table, CSV files and figure.

The task itself is in :mod:`~prioritized_replay.experiments.noise.task`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import get_args

from rich.console import Console
from rich.table import Table

from prioritized_replay.experiments.choices import require_numbers, require_seeds, require_some_of
from prioritized_replay.experiments.noise.results import (
    RESULTS,
    SUMMARY,
    NoiseMeasure,
    NoiseRun,
    measures,
)
from prioritized_replay.experiments.noise.task import (
    SOLVED,
    STEP_SIZES,
    TUNING_SEEDS,
    UPDATES,
    Arm,
    mistakes_after,
    solved,
    tuned_step_size,
)
from prioritized_replay.experiments.progress import progress_bar
from prioritized_replay.experiments.tables import write_rows
from prioritized_replay.runs.console import say
from prioritized_replay.runs.files import replace_file

FIGURE = "noise.png"
MOST_UPDATES = 1_000_000
LARGEST_SIGMA = 100.0


@dataclass(frozen=True, kw_only=True)
class NoiseConfig:
    """How much noise, which ways of replay, how long, how often, and where the results go."""

    sigmas: tuple[float, ...] = (0.0, 0.5, 1.0, 2.0, 4.0)
    """Standard deviations of the noise on the rewards of half of the states. The reward is 1."""

    updates: int = UPDATES
    """Updates of 32 rows after which the values are compared with the true ones."""

    seeds: int = 20
    """How many seeds, counted from 0: other rows, other noise, other first values."""

    arms: tuple[Arm, ...] = get_args(Arm)
    """Ways of replay: with or without weights; with a floor under the priorities, full weights or a
    half of uniform draws, or without them."""

    output: Path = Path("runs/noise")
    """Folder for the results; earlier ones are replaced."""

    def __post_init__(self) -> None:
        require_numbers("sigmas", self.sigmas, 0.0, LARGEST_SIGMA)
        if not 1 <= self.updates <= MOST_UPDATES:
            raise ValueError(f"updates must be in [1, {MOST_UPDATES:,}], got {self.updates:,}")
        require_seeds(self.seeds)
        require_some_of("arms", self.arms, get_args(Arm))


def reproduce(config: NoiseConfig) -> None:
    """Make all runs, print their errors, write two CSV files and a figure.

    The step size of each arm is chosen for each sigma, on seeds of its own. Nothing is written
    before the end.

    Parameters
    ----------
    config : NoiseConfig
        What to run.
    """
    from prioritized_replay.experiments.noise.figure import draw_noise

    console = Console()
    config.output.mkdir(parents=True, exist_ok=True)
    runs = []
    tuning = len(STEP_SIZES) * len(TUNING_SEEDS)
    with progress_bar(console) as progress:
        each = len(config.arms) * (tuning + config.seeds)
        task = progress.add_task("", total=each * len(config.sigmas))
        for sigma in sorted(config.sigmas):
            runs += [
                NoiseRun(sigma, SOLVED, seed, math.nan, *astuple(solved(sigma, seed)))
                for seed in range(config.seeds)
            ]
            for arm in config.arms:
                progress.update(task, description=f"sigma = {sigma:g}, {arm}")
                step_size = tuned_step_size(sigma, arm, config.updates)
                progress.advance(task, tuning)
                for seed in range(config.seeds):
                    found = mistakes_after(sigma, arm, seed, step_size, config.updates)
                    runs.append(NoiseRun(sigma, arm, seed, step_size, *astuple(found)))
                    progress.advance(task)
            if not console.is_terminal:
                say(console, f"sigma = {sigma:g}: done")
    found_measures = measures(runs)
    write_rows(config.output / RESULTS, NoiseRun, runs)
    write_rows(config.output / SUMMARY, NoiseMeasure, found_measures)
    replace_file(config.output / FIGURE, lambda file: draw_noise(found_measures, file))
    console.print(_table(found_measures, config.seeds))
    say(console, f"In {config.output}: {RESULTS}, {SUMMARY}, {FIGURE}")


def _table(found: Sequence[NoiseMeasure], seeds: int) -> Table:
    table = Table(
        title=f"error of the values: median of {seeds} seeds, 95 % interval", title_justify="left"
    )
    sigmas = sorted({measure.sigma for measure in found})
    table.add_column("arm", no_wrap=True)
    for sigma in sigmas:
        table.add_column(f"sigma = {sigma:g}", justify="right")
    value = {(m.sigma, m.arm, m.measure): m.value for m in found}
    for arm in dict.fromkeys(measure.arm for measure in found):
        cells = [[value[s, arm, m] for m in ("error", "low", "high")] for s in sigmas]
        table.add_row(arm, *(f"{e:.3f} ({low:.3f} to {high:.3f})" for e, low, high in cells))
    return table
