"""``per compare``: several samplers on one environment, each with several seeds.

Knows arms, seeds and progress bars; knows nothing of how a run is trained or its result kept.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args

import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from prioritized_replay.experiments.compare.results import (
    CURVES,
    RESULTS,
    Point,
    Result,
    ResultFiles,
)
from prioritized_replay.experiments.compare.summary import decimals, summarize
from prioritized_replay.experiments.compare.trials import Outcome, train_all
from prioritized_replay.runs.console import say
from prioritized_replay.runs.evaluate import say_default_limit
from prioritized_replay.runs.files import replace_file
from prioritized_replay.training.bounds import Within
from prioritized_replay.training.config import Replay, TrainConfig
from prioritized_replay.training.presets import preset

FIGURE = "comparison.png"
_MOST_SEEDS = 10_000
_MOST_WORKERS = 256


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """What is compared: which samplers, on what, how often, and where the results go."""

    env_id: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ENV_ID")]
    """Gymnasium environment, for example CartPole-v1; trained with its preset."""

    seeds: int | tuple[int, ...] = 10
    """How many seeds, counted from 0, or which ones; every arm gets the same."""

    arms: tuple[Replay, ...] = ("rank", "proportional", "uniform")
    """Samplers to compare."""

    steps: int | None = None
    """Environment steps of each run; None: as the preset says."""

    workers: int = 2
    """Runs at a time, each in a process of its own with one thread."""

    output: Path | None = None
    """Folder for the results; None: runs/compare-ENV_ID. Finished runs found there are kept."""

    def __post_init__(self) -> None:
        if isinstance(self.seeds, int) and self.seeds < 1:
            raise ValueError(f"seeds must be >= 1, or a list of seeds, got {self.seeds}")
        if isinstance(self.seeds, int) and self.seeds > _MOST_SEEDS:
            raise ValueError(f"seeds must be <= {_MOST_SEEDS:,}, got {self.seeds}")
        if min(self.seed_list, default=-1) < 0 or _repeats(self.seed_list):
            raise ValueError(f"seeds must be different numbers >= 0, got {self.seeds}")
        for arm in self.arms:
            if arm not in get_args(Replay):
                raise ValueError(f"arms must be of {', '.join(get_args(Replay))}, got {arm!r}")
        if not self.arms or _repeats(self.arms):
            raise ValueError(f"arms must be one or more different ones, got {self.arms}")
        Within(1, _MOST_WORKERS).check("workers", self.workers, int)

    @property
    def seed_list(self) -> tuple[int, ...]:
        """The seeds, one by one."""
        return tuple(range(self.seeds)) if isinstance(self.seeds, int) else self.seeds

    def folder(self) -> Path:
        """Return where the results go.

        Examples
        --------
        >>> CompareConfig(env_id="ALE/Pong-v5").folder().as_posix()
        'runs/compare-ALE-Pong-v5'
        """
        if self.output is not None:
            return self.output
        environment = re.sub(r"[^\w.-]+", "-", self.env_id)
        return Path("runs") / f"compare-{environment}"

    def runs(self) -> list[TrainConfig]:
        """Return what is to be trained: seed by seed, so that arms can soon be compared."""
        chosen: dict[str, Any] = {} if self.steps is None else {"steps": self.steps}
        return [
            preset(self.env_id, replay=arm, seed=seed, threads=1, **chosen)
            for seed in self.seed_list
            for arm in self.arms
        ]


def compare(config: CompareConfig) -> None:
    """Train every arm with every seed, keep the results, draw the curves, print the summary.

    Finished runs in the output folder are not repeated, so an interrupted comparison can be
    continued, and seeds or arms can be added.

    Parameters
    ----------
    config : CompareConfig
        What to compare.

    Raises
    ------
    ValueError, ImportError
        The environment cannot be used; nothing was written then.
    FileExistsError
        The output folder holds runs with other settings.
    RuntimeError
        Some runs failed; the others are kept.
    """
    console = Console()
    runs = config.runs()
    threshold = _threshold_of(runs[0])
    folder = config.folder()
    files = ResultFiles(folder, runs[0])
    done = {(result.arm, result.seed) for result in files.results}
    missing = [run for run in runs if (run.replay, run.seed) not in done]
    say(
        console,
        f"{config.env_id}, {runs[0].steps:,} steps: {len(missing)} runs to do, "
        f"{len(runs) - len(missing)} done before; results in {folder}",
    )
    if runs[0].eval_max_steps is None:
        say_default_limit(console, config.env_id)
    failures = 0
    try:
        with _Bars(console, missing) as bars:
            for run, message in train_all(missing, config.workers):
                if isinstance(message, Outcome):
                    result = Result.of(run, message, threshold)
                    files.append(
                        result,
                        [Point(run.env_id, run.replay, run.seed, *at) for at in message.curve],
                    )
                    bars.finish(run, _line(result))
                elif isinstance(message, str):
                    failures += 1
                    bars.finish(run, f"{run.replay:<12} seed {run.seed}: failed, {message}")
                else:
                    bars.advance(run, message)
    except KeyboardInterrupt:
        say(
            console,
            f"Stopped: {len(files.results)} finished runs are kept in {folder}; "
            "the same command continues from there.",
        )
        raise
    if files.results:
        from prioritized_replay.experiments.compare.figure import draw_comparison

        points = files.points
        replace_file(folder / FIGURE, lambda file: draw_comparison(points, threshold, file))
        summarize(files.results, console)
        say(console, f"In {folder}: {RESULTS}, {CURVES}, {FIGURE}")
    if failures:
        raise RuntimeError(
            f"{failures} of {len(missing)} runs failed, see above; the same command tries again"
        )


class _Bars:
    """A bar for all and one for each run in progress; no bars where there is no terminal."""

    def __init__(self, console: Console, runs: list[TrainConfig]) -> None:
        self._console = console
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            expand=True,
        )
        self._all = self._bars.add_task("all runs", total=sum(run.steps for run in runs))
        self._tasks: dict[TrainConfig, TaskID] = {}

    def __enter__(self) -> _Bars:
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bars.stop()

    def advance(self, run: TrainConfig, step: int) -> None:
        if run not in self._tasks:
            name = f"{run.replay}, seed {run.seed}"
            self._tasks[run] = self._bars.add_task(name, total=run.steps)
        task = self._tasks[run]
        before = next(t.completed for t in self._bars.tasks if t.id == task)
        self._bars.update(task, completed=step)
        self._bars.advance(self._all, step - before)

    def finish(self, run: TrainConfig, line: str) -> None:
        self.advance(run, run.steps)
        self._bars.remove_task(self._tasks.pop(run))
        say(self._console, line)


def _threshold_of(config: TrainConfig) -> float:
    """Return the return from which the environment is solved; raise if it cannot be trained on."""
    from prioritized_replay.envs.make import spec_of
    from prioritized_replay.training.build import check_trainable

    check_trainable(config)
    threshold = spec_of(config.env_id).reward_threshold
    return math.nan if threshold is None else float(threshold)


def _line(result: Result) -> str:
    known = not math.isnan(result.threshold)
    verdict = ("reached" if result.reached else "not reached") if known else ""
    final = f"{result.final_mean:{decimals(result.final_mean)}}"
    return (
        f"{result.arm:<12} seed {result.seed:<4} return {final:>8}  {verdict:<11}  "
        f"{result.wall_seconds:6.1f} s"
    )


def _repeats(values: tuple[Any, ...]) -> bool:
    return len(set(values)) < len(values)
