"""``per reproduce cliffwalk``: all runs of the paper's Blind Cliffwalk, table, CSV and figure.

The task itself is in :mod:`~prioritized_replay.experiments.cliffwalk.task`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from rich.console import Console
from rich.table import Table

from prioritized_replay.experiments.cliffwalk.runs import CliffwalkRun, median_updates
from prioritized_replay.experiments.cliffwalk.task import Arm, Cliffwalk, Features, updates_to_learn
from prioritized_replay.experiments.progress import progress_bar
from prioritized_replay.experiments.tables import write_rows
from prioritized_replay.runs.console import say
from prioritized_replay.runs.files import replace_file

RESULTS, FIGURE = "cliffwalk.csv", "cliffwalk.png"
LARGEST_N = 20  # 2 million transitions; the time doubles with each state more
MOST_SEEDS = 10_000

# How long a run takes, in updates that draw by priority. For the progress bar only.
_WORK = {"uniform": 0.1, "oracle": 0.02, "greedy": 0.02, "proportional": 1.3, "rank": 1.5}


@dataclass(frozen=True, kw_only=True)
class CliffwalkConfig:
    """Which rows of states, which ways of replay, how often, and where the results go."""

    max_n: int = 16
    """Longest row of states; all from 2 on are tried. The memory holds 2^(n+1) - 2 transitions."""

    seeds: int = 10
    """How many seeds, counted from 0: memories in other orders, other first values."""

    arms: tuple[Arm, ...] = ("uniform", "oracle", "greedy", "proportional", "rank")
    """Ways of replay to compare."""

    features: tuple[Features, ...] = ("tabular", "linear")
    """Representations: one weight for each value, or with a constant feature that all share."""

    output: Path = Path("runs/cliffwalk")
    """Folder for cliffwalk.csv and cliffwalk.png; earlier ones are replaced."""

    def __post_init__(self) -> None:
        if not 2 <= self.max_n <= LARGEST_N:
            raise ValueError(f"max_n must be in [2, {LARGEST_N}], got {self.max_n}")
        if self.seeds < 1:
            raise ValueError(f"seeds must be >= 1, got {self.seeds}")
        if self.seeds > MOST_SEEDS:
            raise ValueError(f"seeds must be <= {MOST_SEEDS:,}, got {self.seeds}")
        for name, chosen, allowed in (
            ("arms", self.arms, get_args(Arm)),
            ("features", self.features, get_args(Features)),
        ):
            if not chosen or len(set(chosen)) < len(chosen) or not set(chosen) <= set(allowed):
                raise ValueError(
                    f"{name} must be one or more different ones of {', '.join(allowed)}, "
                    f"got {chosen}"
                )


def reproduce(config: CliffwalkConfig) -> None:
    """Make all runs, print their medians, write ``cliffwalk.csv`` and ``cliffwalk.png``.

    Nothing is written before the end.

    Parameters
    ----------
    config : CliffwalkConfig
        What to run.
    """
    from prioritized_replay.experiments.cliffwalk.figure import draw_cliffwalk

    console = Console()
    config.output.mkdir(parents=True, exist_ok=True)
    runs = []
    progress = progress_bar(console)
    sizes = range(2, config.max_n + 1)
    work = {n: Cliffwalk(n).transitions * config.seeds * len(config.features) for n in sizes}
    total = sum(work.values()) * sum(_WORK[arm] for arm in config.arms)
    with progress:
        task = progress.add_task("", total=total)
        for n in sizes:
            for features in config.features:
                for arm in config.arms:
                    progress.update(task, description=f"n = {n}, {features}, {arm}")
                    for seed in range(config.seeds):
                        updates = updates_to_learn(n, arm, features, seed)
                        size = Cliffwalk(n).transitions
                        runs.append(CliffwalkRun(n, size, features, arm, seed, updates))
                        progress.advance(task, size * _WORK[arm])
            if not console.is_terminal:
                say(console, f"n = {n:<3} {Cliffwalk(n).transitions:>9,} transitions: done")
    write_rows(config.output / RESULTS, CliffwalkRun, runs)
    replace_file(config.output / FIGURE, lambda file: draw_cliffwalk(runs, file))
    for features in config.features:
        console.print(_table(features, [run for run in runs if run.features == features]))
    say(console, f"In {config.output}: {RESULTS}, {FIGURE}")


def _table(features: str, runs: Sequence[CliffwalkRun]) -> Table:
    arms = list(dict.fromkeys(run.arm for run in runs))
    seeds = len({run.seed for run in runs})
    table = Table(title=f"{features}: updates, median of {seeds} seeds", title_justify="left")
    for heading in ("n", "transitions", *arms):
        table.add_column(heading, justify="right")
    for n in sorted({run.n for run in runs}):
        of_n = [run for run in runs if run.n == n]
        medians = (median_updates([run for run in of_n if run.arm == arm]) for arm in arms)
        cells = [f"{m:,.0f}" if math.isfinite(m) else "not learnt" for m in medians]
        table.add_row(str(n), f"{of_n[0].transitions:,}", *cells)
    return table
