"""``per reproduce imbalanced``: all runs of the imbalanced digits, table, CSV files and figure.

The task itself is in :mod:`~prioritized_replay.experiments.imbalanced.task`.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from rich.console import Console
from rich.table import Table

from prioritized_replay.experiments.imbalanced.results import (
    RESULTS,
    SUMMARY,
    Measure,
    ResultFile,
    measures,
)
from prioritized_replay.experiments.imbalanced.task import Arm, Point, train
from prioritized_replay.experiments.progress import progress_bar
from prioritized_replay.experiments.tables import write_rows
from prioritized_replay.runs.console import say
from prioritized_replay.runs.files import replace_file

FIGURE = "imbalanced.png"
SIDE_BY_SIDE = 10  # networks that one process trains as a stack
MOST_SEEDS = 10_000
MOST_STEPS = 10_000_000
MOST_WORKERS = 256


@dataclass(frozen=True, kw_only=True)
class ImbalancedConfig:
    """How rare the rare classes are, which ways to draw, how often, and where the results go."""

    seeds: int = 30
    """How many seeds, counted from 0: other rare images, other first values."""

    steps: int = 1_000
    """Minibatches of 64 images that each network learns from."""

    rare_shares: tuple[float, ...] = (0.01, 0.05)
    """Shares of the training images of classes 0 to 4 that are kept, at least one image of each."""

    arms: tuple[Arm, ...] = ("uniform", "proportional", "corrected", "weighted")
    """Ways to draw: uniform; by loss; by loss, with full importance-sampling weights; by class."""

    workers: int = 1
    """Processes at a time, each with one thread."""

    output: Path = Path("runs/imbalanced")
    """Folder for the results. Finished runs found there are kept."""

    def __post_init__(self) -> None:
        for name, value, most in (
            ("seeds", self.seeds, MOST_SEEDS),
            ("steps", self.steps, MOST_STEPS),
            ("workers", self.workers, MOST_WORKERS),
        ):
            if not 1 <= value <= most:
                raise ValueError(f"{name} must be in [1, {most:,}], got {value:,}")
        shares = self.rare_shares
        if not shares or len(set(shares)) < len(shares) or not all(0 < s <= 1 for s in shares):
            raise ValueError(
                f"rare_shares must be one or more different numbers in (0, 1], got {shares}"
            )
        allowed, arms = get_args(Arm), self.arms
        if not arms or len(set(arms)) < len(arms) or not set(arms) <= set(allowed):
            raise ValueError(
                f"arms must be one or more different ones of {', '.join(allowed)}, got {arms}"
            )


_Job = tuple[Arm, float, tuple[int, ...], int]
"""Arm, share, seeds and steps of networks that are trained side by side."""


def reproduce(config: ImbalancedConfig) -> None:
    """Make the runs that are missing, print the errors, write two CSV files and a figure.

    Finished runs in the output folder are not repeated, so an interrupted command can be continued,
    and seeds can be added.

    Parameters
    ----------
    config : ImbalancedConfig
        What to run.

    Raises
    ------
    FileExistsError
        The output folder holds runs of another length.
    """
    from prioritized_replay.experiments.imbalanced.figure import draw_imbalanced

    console = Console()
    file = ResultFile(config.output, config.steps)
    jobs = _missing(config, file)
    wanted = config.seeds * len(config.arms) * len(config.rare_shares)
    left = sum(len(job[2]) for job in jobs)
    say(console, f"{left} runs to do, {wanted - left} done before; results in {config.output}")
    progress = progress_bar(console)
    try:
        with progress:
            bar = progress.add_task("", total=left)
            for (arm, share, seeds, _), points in _train_all(jobs, config.workers):
                file.append(points)
                done = f"{share:.0%} rare, {arm}, seeds {seeds[0]} to {seeds[-1]}"
                progress.update(bar, advance=len(seeds), description=done)
                if not console.is_terminal:
                    say(console, f"{done}: done")
    except KeyboardInterrupt:
        say(
            console,
            f"Stopped: finished runs are kept in {config.output}; the same command continues.",
        )
        raise
    points, found = file.points, measures(file.points)
    write_rows(config.output / SUMMARY, Measure, found)
    replace_file(config.output / FIGURE, lambda png: draw_imbalanced(points, png))
    for share in sorted({measure.rare_share for measure in found}):
        console.print(_table(share, [m for m in found if m.rare_share == share]))
    say(console, f"In {config.output}: {RESULTS}, {SUMMARY}, {FIGURE}")


def _missing(config: ImbalancedConfig, file: ResultFile) -> list[_Job]:
    """Return what is to be trained: some seeds of every arm first, so that arms can be compared."""
    jobs: list[_Job] = []
    for first in range(0, config.seeds, SIDE_BY_SIDE):
        block = range(first, min(first + SIDE_BY_SIDE, config.seeds))
        for share in config.rare_shares:
            for arm in config.arms:
                seeds = tuple(seed for seed in block if not file.has(share, arm, seed))
                if seeds:
                    jobs.append((arm, share, seeds, config.steps))
    return jobs


def _train_all(jobs: Sequence[_Job], workers: int) -> Iterator[tuple[_Job, list[Point]]]:
    """Yield each job with its points, in processes of their own, as they are finished."""
    if not jobs:
        return
    context = multiprocessing.get_context("spawn")  # a fork would copy torch's threads' locks
    pool = ProcessPoolExecutor(min(workers, len(jobs)), context, _begin)
    try:
        running = {pool.submit(train, *job): job for job in jobs}
        for future in as_completed(running):
            yield running[future], future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)  # what has begun takes some seconds more


def _begin() -> None:
    """Prepare a process: one thread, and Ctrl-C is for the one that collects the results."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)


def _table(share: float, found: Sequence[Measure]) -> Table:
    arms: dict[str, dict[str, float]] = {}
    for measure in found:
        arms.setdefault(measure.arm, {})[measure.measure] = measure.value
    table = Table(
        title=f"{share:.0%} of classes 0 to 4: mean error in %, 95 % interval",
        title_justify="left",
    )
    table.add_column("arm", no_wrap=True)
    for heading in ("all classes", "classes 0 to 4", "minus uniform"):
        table.add_column(heading, justify="right", no_wrap=True)
    for arm, value in arms.items():
        table.add_row(
            arm,
            "{error:.1f} ({low:.1f} to {high:.1f})".format(**value),
            "{rare:.1f}".format(**value),
            "{difference:+.1f} ({least:+.1f} to {most:+.1f})".format(**value)
            if "difference" in value
            else "",
        )
    return table
