"""What a run of ``per train`` recorded over time, as far as it says something of its replay.

Knows settings and metrics; imports nothing that they name, and judges nothing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from prioritized_replay.checkpoint.saving import has_checkpoint

Floats = NDArray[np.float64]

CONFIG = "config.json"  # as runs/records.py has it, which imports torch
CHECKPOINT = "checkpoint"  # as runs/folder.py has it
SHARDED = "sharded.json"  # as integrations/ray/manifest.py has it, which imports Ray


@dataclass(frozen=True, eq=False)
class Record:
    """The settings of a run that its replay depends on, and its metrics.

    Attributes
    ----------
    env_id, replay : str
        The environment, and "rank", "proportional" or "uniform".
    alpha, beta_start, beta_end : float
        The exponents in force.
    min_priority : float
        The least priority of a transition; above 0 (LAP), the loss does what weights would.
    batch_size, steps : int
        Transitions of an update, and environment steps of the whole run.
    metrics : dict of str to float64[reports]
        The columns of ``metrics.csv``, NaN where a cell is empty.
    """

    env_id: str
    replay: str
    alpha: float
    beta_start: float
    beta_end: float
    min_priority: float
    batch_size: int
    steps: int
    metrics: dict[str, Floats]

    def last(self, column: str) -> float:
        """Return the latest value of a column, 0 where there is none."""
        values = self.metrics[column]
        return float(values[-1]) if values.size else 0.0

    @property
    def draws(self) -> int:
        """How many transitions the updates have drawn."""
        return int(self.last("updates")) * self.batch_size


def is_run(path: Path) -> bool:
    """Return whether a folder is that of a run."""
    return (path / CONFIG).is_file()


def checkpoint_in(path: Path) -> Path | None:
    """Return the checkpoint that a run has kept: one that is complete has none."""
    folder = path / CHECKPOINT
    return folder if has_checkpoint(folder) else None


def shards_in(path: Path) -> list[Path]:
    """Return the checkpoints of the shards in that of a ShardedReplay; [] if it is none."""
    try:
        values = json.loads((path / SHARDED).read_text(encoding="utf-8"))
        folder = path / str(values["set"])
        found = [folder / f"shard-{number}" for number in range(int(values["shards"]))]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return found if all(shard.is_dir() for shard in found) else []


def read_record(path: Path) -> Record:
    """Return what a run recorded. Its environment is not made, nor its module imported.

    Raises
    ------
    ValueError
        Its settings or its metrics are missing or damaged.
    """
    from prioritized_replay.runs.metrics import METRICS, read_metrics
    from prioritized_replay.runs.records import read_config

    config, policy = read_config(path / CONFIG)
    metrics = read_metrics(path / METRICS)
    for column in ("step", "updates", "episodes"):
        if not np.isfinite(metrics[column]).all():
            raise ValueError(f"{path / METRICS} must have a number in each cell of {column}")
    return Record(
        env_id=config.env_id,
        replay=config.replay,
        alpha=0.0 if config.replay == "uniform" else config.effective_alpha,
        beta_start=config.effective_beta_start,
        beta_end=config.beta_end,
        min_priority=config.min_priority if config.replay == "proportional" else 0.0,
        batch_size=config.batch_size,
        steps=policy.steps,
        metrics=metrics,
    )
