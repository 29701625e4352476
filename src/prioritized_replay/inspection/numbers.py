"""The numbers that both the summary and the page show, each with what it means.

Knows portraits and records; does not know how they are shown.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from prioritized_replay.inspection.charts import number
from prioritized_replay.inspection.portrait import Portrait
from prioritized_replay.inspection.record import Record

Floats = NDArray[np.float64]

PARTS = 10  # of the ages: the newest tenth, ...


def of_memory(portrait: Portrait) -> list[tuple[str, str, str]]:
    """Return name, value and remark of what a memory holds."""
    stats, census = portrait.stats, portrait.census
    rows = [
        ("held", f"{portrait.size:,}", portrait.summary),
        ("ids issued", f"{portrait.issued:,}", f"{portrait.rows:,} rows are kept"),
    ]
    if not portrait.size:
        return rows
    quantiles = " / ".join(
        number(stats[f"priority_{name}"]) for name in ("p05", "p25", "p50", "p75", "p95")
    )
    most = float(census.probabilities.max()) * portrait.size
    ages = portrait.ages
    rows += [
        ("priorities", number(stats["priority_p50"]), f"5, 25, 50, 75, 95 %: {quantiles}"),
        ("highest", number(float(census.priorities.max())), "priority"),
        ("new rows enter at", number(stats["largest_priority"]), "priority"),
        ("most likely row", f"{number(most)}x", "as often as in uniform draws"),
        ("mean age", number(float(ages.mean())), "rows that have come since, of those kept"),
        (
            "age of a draw",
            number(float(ages @ census.probabilities)),
            "the same, of the next draw in the mean",
        ),
        ("never drawn", f"{stats['never_drawn']:.1%}", "of those kept; see below"),
        ("stale updates", f"{int(stats['stale_updates']):,}", "came after their rows had gone"),
    ]
    if census.last_batch:
        ess = stats["effective_sample_size"]
        rows.append(("last batch", number(ess), f"effective sample size of {census.last_batch}"))
    return rows


def of_run(record: Record) -> list[tuple[str, str, str]]:
    """Return name, value and remark of what a run recorded."""
    steps, updates = int(record.last("step")), int(record.last("updates"))
    rows = [
        ("steps", f"{steps:,}", f"of {record.steps:,}"),
        ("updates", f"{updates:,}", f"of {record.batch_size} rows each"),
    ]
    if updates:
        ess = record.metrics["effective_sample_size"]
        known = ess[np.isfinite(ess)]
        rows += [
            (
                "draws per step",
                number(record.draws / max(steps, 1)),
                "how often a row was drawn, in the mean of the run",
            ),
            ("beta", number(record.last("beta")), f"from {record.beta_start:g}"),
        ]
        if known.size:
            rows.append(
                ("batches are worth", number(float(np.median(known))), "equal rows, median report")
            )
    return rows


def by_age(portrait: Portrait) -> tuple[Floats, Floats]:
    """Return of each tenth of the rows, the newest first: its share of draws, and never drawn."""
    census = portrait.census
    parts = np.array_split(np.arange(portrait.size)[::-1], min(PARTS, max(portrait.size, 1)))
    draws = np.array([census.probabilities[part].sum() for part in parts])
    never = np.array([1.0 - census.drawn[part].mean() if part.size else 0.0 for part in parts])
    return draws, never
