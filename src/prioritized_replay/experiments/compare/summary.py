"""The summary of a comparison: a table of all samplers, and differences seed by seed."""

import math
from collections.abc import Iterable
from typing import get_args

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from prioritized_replay.experiments.compare.arms import Arm
from prioritized_replay.experiments.compare.results import Result
from prioritized_replay.runs.console import say
from prioritized_replay.training.statistics import (
    Estimate,
    bootstrap,
    mean,
    probability_of_improvement,
)


def summarize(results: list[Result], console: Console) -> None:
    """Print how the arms did, each with 95 % bootstrap intervals over seeds, and how they differ.

    Differences are seed by seed, over the seeds that both arms have finished.
    """
    arms = {arm: [r for r in results if r.arm == arm] for arm in get_args(Arm)}
    arms = {arm: sorted(rows, key=lambda r: r.seed) for arm, rows in arms.items() if rows}
    first = results[0]
    places = decimals(max(abs(row.final_mean) for row in results))
    goal = "" if math.isnan(first.threshold) else f"{first.threshold:g}"
    table = Table(
        title=f"{first.env_id}, {first.steps:,} steps: IQM over seeds, 95 % interval below",
        title_justify="left",
        show_lines=True,
    )
    # Whole at 80 columns; the speed, which depends on what else the machine did, is in the CSV.
    table.add_column("arm", no_wrap=True)
    for heading in (
        f"reached\n{goal}",
        f"median steps\nto {goal}",
        "final return",
        "mean of\nthe curve",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for arm, rows in arms.items():
        reached, steps = f"{len(rows)} seeds", ""
        if goal:
            censored = sum(row.censored for row in rows)
            reached = f"{sum(row.reached for row in rows)} of {len(rows)}"
            steps = f"{np.median(_values(rows, 'steps_to_threshold')):,.0f}\n{censored} never"
        table.add_row(
            arm,
            reached,
            steps,
            _interval(bootstrap(_values(rows, "final_mean")), "\n", places),
            _interval(bootstrap(_values(rows, "area")), "\n", places),
        )
    console.print(table)
    if goal and any(row.censored for row in results):
        say(
            console,
            f"A run without any evaluation of {goal} or more during training counts with all its "
            f"{first.steps:,} steps.",
        )
    baseline = "uniform" if "uniform" in arms else list(arms)[-1]
    for arm, rows in arms.items():
        theirs = {row.seed: row for row in arms[baseline]}
        pairs = [(row, theirs[row.seed]) for row in rows if row.seed in theirs]
        if arm == baseline or not pairs:
            continue
        parts = []
        for label, name in (("final return", "final_mean"), ("mean of the curve", "area")):
            ours, other = (_values(side, name) for side in zip(*pairs, strict=True))
            parts.append(f"{label} {_interval(bootstrap(ours - other, mean), ' ', '+' + places)}")
        say(console, f"{arm} minus {baseline}, {len(pairs)} pairs: {'; '.join(parts)}")
        better = probability_of_improvement(_values(rows, "area"), _values(arms[baseline], "area"))
        say(
            console,
            f"  a run of {arm} has the higher mean of the curve with probability "
            f"{_interval(better, form='.2f')}",
        )


def decimals(value: float) -> str:
    """Return the format of returns that are as large as this one.

    Examples
    --------
    >>> f"{-105.512:{decimals(-105.512)}}", f"{0.7138:{decimals(0.7138)}}"
    ('-105.5', '0.714')
    """
    return ".3f" if abs(value) <= 1.0 else ".1f"


def _values(rows: Iterable[Result], name: str) -> npt.NDArray[np.float64]:
    return np.array([getattr(row, name) for row in rows], np.float64)


def _interval(estimate: Estimate, gap: str, form: str) -> str:
    return f"{estimate.value:{form}}{gap}({estimate.low:{form}} to {estimate.high:{form}})"
