"""``actors.csv`` and ``shards.csv``: a line for each actor and each shard at every report.

Knows what a report says of them, and text; knows nothing of the rest of a run.
"""

import csv
from collections.abc import Iterator
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from prioritized_replay.runs.files import replace_file
from prioritized_replay.runs.metrics import cell, rows_until
from prioritized_replay.training.progress import Progress
from prioritized_replay.training.workers import ActorReport, ShardReport

ACTORS, SHARDS = "actors.csv", "shards.csv"
_TABLES: dict[str, Any] = {ACTORS: ActorReport, SHARDS: ShardReport}


def columns_of(table: str) -> tuple[str, ...]:
    """Return the columns of a table, the step first.

    Examples
    --------
    >>> columns_of("shards.csv")
    ('step', 'shard', 'rows', 'mass', 'draws')
    """
    return ("step", *(field.name for field in fields(_TABLES[table])))


class WorkerMetrics:
    """Both tables of a run; a file is made when its first line is written.

    Parameters
    ----------
    folder : pathlib.Path
        The run's.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, TextIO] = {}

    def log(self, progress: Progress) -> None:
        """Append what a report says of actors and shards, if it has any."""
        if progress.workers is None:
            return
        for table, rows in ((ACTORS, progress.workers.actors), (SHARDS, progress.workers.shards)):
            file = self._open(table)
            writer = csv.writer(file)
            for row in rows:
                writer.writerow([cell(float(value)) for value in (progress.step, *astuple(row))])
            file.flush()

    def resume_from(self, reported: int) -> None:
        """Drop what was logged after the report of a step."""
        self.close()
        for table in _TABLES:
            path = self._folder / table
            if path.is_file():
                replace_file(path, _writing(rows_until(path, reported, columns_of(table)).text))

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()
        self._files.clear()

    def _open(self, table: str) -> TextIO:
        if table not in self._files:
            path = self._folder / table
            is_new = not path.exists()
            self._files[table] = path.open("a", newline="", encoding="utf-8")
            if is_new:
                csv.writer(self._files[table]).writerow(columns_of(table))
        return self._files[table]


def _writing(text: bytes) -> Any:
    def write(file: BinaryIO) -> None:
        file.write(text)

    return write


def scalars(progress: Progress) -> Iterator[tuple[str, float]]:
    """Yield what TensorBoard shows of actors and shards: its name and its value."""
    if progress.workers is None:
        return
    for actor in progress.workers.actors:
        yield f"actors/{actor.actor}_steps_per_second", actor.steps_per_second
        yield f"actors/{actor.actor}_mean_return", actor.mean_return
        yield f"actors/{actor.actor}_parameter_age", actor.parameter_age
    for shard in progress.workers.shards:
        yield f"shards/{shard.shard}_rows", float(shard.rows)
        yield f"shards/{shard.shard}_draws", float(shard.draws)
