"""``per reproduce chain``: all runs of the chain with shared features, table, CSV files and figure.

The task itself is in :mod:`~prioritized_replay.experiments.chain.task`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from rich.console import Console
from rich.table import Table

from prioritized_replay.experiments.chain.learner import Arm
from prioritized_replay.experiments.chain.results import (
    RESULTS,
    SUMMARY,
    ChainMeasure,
    ChainRun,
    estimate,
    measures,
)
from prioritized_replay.experiments.chain.task import Chain, tuned_step_size, updates_to_learn
from prioritized_replay.experiments.choices import require_numbers, require_seeds, require_some_of
from prioritized_replay.experiments.progress import progress_bar
from prioritized_replay.experiments.tables import write_rows
from prioritized_replay.runs.console import say
from prioritized_replay.runs.files import replace_file

FIGURE = "chain.png"
LONGEST = 256
TUNING = 12  # the step size is found in about the time of so many runs; for the progress bar only


@dataclass(frozen=True, kw_only=True)
class ChainConfig:
    """Which chains, which ways of replay, how often, and where the results go."""

    lengths: tuple[int, ...] = (8, 16, 32, 64)
    """Numbers of states n. The memory holds a random walk of 4 n^2 steps."""

    seeds: int = 20
    """How many seeds, counted from 0: other walks, other first values."""

    arms: tuple[Arm, ...] = get_args(Arm)
    """Ways of replay: uniform; by error, proportional or by rank, with or without weights; LAP,
    with its floor of 1 or a tenth of that."""

    output: Path = Path("runs/chain")
    """Folder for the results; earlier ones are replaced."""

    def __post_init__(self) -> None:
        require_numbers("lengths", self.lengths, 2, LONGEST)
        require_seeds(self.seeds)
        require_some_of("arms", self.arms, get_args(Arm))


def reproduce(config: ChainConfig) -> None:
    """Make all runs, print their medians, write two CSV files and a figure.

    The step size of each arm is chosen for each length, on seeds of its own. Nothing is written
    before the end.

    Parameters
    ----------
    config : ChainConfig
        What to run.
    """
    from prioritized_replay.experiments.chain.figure import draw_chain

    console = Console()
    config.output.mkdir(parents=True, exist_ok=True)
    runs = []
    lengths = sorted(config.lengths)
    with progress_bar(console) as progress:
        each = len(config.arms) * (TUNING + config.seeds)
        task = progress.add_task("", total=sum(each * n**2 for n in lengths))
        for n in lengths:
            for arm in config.arms:
                progress.update(task, description=f"n = {n}, {arm}")
                step_size = tuned_step_size(n, arm)
                progress.advance(task, TUNING * n**2)
                for seed in range(config.seeds):
                    found = updates_to_learn(n, arm, seed, step_size)
                    size = Chain(n).transitions
                    runs.append(ChainRun(n, size, arm, seed, step_size, found.values, found.policy))
                    progress.advance(task, n**2)
            if not console.is_terminal:
                say(console, f"n = {n:<3} {Chain(n).transitions:>7,} transitions: done")
    write_rows(config.output / RESULTS, ChainRun, runs)
    write_rows(config.output / SUMMARY, ChainMeasure, measures(runs))
    replace_file(config.output / FIGURE, lambda file: draw_chain(runs, file))
    for of in ("values", "policy"):
        console.print(_table(of, runs))
    say(console, f"In {config.output}: {RESULTS}, {SUMMARY}, {FIGURE}")


def _table(of: str, runs: Sequence[ChainRun]) -> Table:
    seeds = len({run.seed for run in runs})
    table = Table(
        title=f"updates until the {of} {'are' if of == 'values' else 'is'} right: median of "
        f"{seeds} seeds, 95 % interval",
        title_justify="left",
    )
    lengths = sorted({run.n for run in runs})
    table.add_column("arm", no_wrap=True)
    for n in lengths:
        table.add_column(f"n = {n}", justify="right")
    for arm in dict.fromkeys(run.arm for run in runs):
        cells = []
        for n in lengths:
            group = [run for run in runs if (run.n, run.arm) == (n, arm)]
            middle = estimate(group, of)
            cells.append(f"{middle.value:,.0f} ({middle.low:,.0f} to {middle.high:,.0f})")
        table.add_row(arm, *cells)
    return table
