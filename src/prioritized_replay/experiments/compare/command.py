"""``per compare``: several samplers on one environment, each with several seeds.

Knows arms, seeds and progress bars; knows nothing of how a run is trained or its result kept.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args

import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from prioritized_replay.experiments.compare.arms import Arm, Run, run_of
from prioritized_replay.experiments.compare.results import (
    CURVES,
    RESULTS,
    Point,
    Result,
    ResultFiles,
)
from prioritized_replay.experiments.compare.summary import decimals, summarize
from prioritized_replay.experiments.compare.trials import Outcome, train_all
from prioritized_replay.experiments.compare.tuning import FIRST_SEED, TUNING, StepSizes
from prioritized_replay.runs.console import say
from prioritized_replay.runs.evaluate import say_default_limit
from prioritized_replay.runs.files import replace_file
from prioritized_replay.training.bounds import Within
from prioritized_replay.training.config import TrainConfig
from prioritized_replay.training.presets import preset

FIGURE = "comparison.png"
_MOST_WORKERS = 256


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """What is compared: which samplers, on what, how often, and where the results go."""

    env_id: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ENV_ID")]
    """Gymnasium environment, for example CartPole-v1; trained with its preset."""

    seeds: int | tuple[int, ...] = 10
    """How many seeds, counted from 0, or which ones; every arm gets the same."""

    arms: tuple[Arm, ...] = ("rank", "proportional", "uniform")
    """Samplers to compare. lap: no priority below 1, no weights; alpha-0: a control for uniform."""

    tune: tuple[float, ...] = ()
    """Factors of the preset's step size to try for each arm beforehand; each arm gets its best."""

    tuning_seeds: int = 5
    """With how many other seeds each factor is tried."""

    steps: int | None = None
    """Environment steps of each run; None: as the preset says."""

    learning_rate: float | None = None
    """Step size of each run, the last one in proportion; None: as the preset says."""

    workers: int = 2
    """Runs at a time, each in a process of its own with one thread."""

    output: Path | None = None
    """Folder for the results; None: runs/compare-ENV_ID. Finished runs found there are kept."""

    def __post_init__(self) -> None:
        if isinstance(self.seeds, int) and self.seeds < 1:
            raise ValueError(f"seeds must be >= 1, or a list of seeds, got {self.seeds}")
        if isinstance(self.seeds, int) and self.seeds > FIRST_SEED:
            raise ValueError(f"seeds must be <= {FIRST_SEED:,}, got {self.seeds}")
        if self.tune and max(self.seed_list, default=0) >= FIRST_SEED:
            raise ValueError(
                f"seeds must be < {FIRST_SEED:,} with tune, which takes the others, "
                f"got {max(self.seed_list)}"
            )
        for factor in self.tune:
            if not 0.0 < factor < math.inf:
                raise ValueError(f"tune must be factors > 0, got {factor}")
        if _repeats(self.tune) or len(self.tune) == 1:
            raise ValueError(f"tune must be two or more different factors, got {self.tune}")
        if self.learning_rate is not None and not 0.0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate must be > 0, got {self.learning_rate}")
        Within(1, FIRST_SEED).check("tuning_seeds", self.tuning_seeds, int)
        if min(self.seed_list, default=-1) < 0 or _repeats(self.seed_list):
            raise ValueError(f"seeds must be different numbers >= 0, got {self.seeds}")
        for arm in self.arms:
            if arm not in get_args(Arm):
                raise ValueError(f"arms must be of {', '.join(get_args(Arm))}, got {arm!r}")
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

    def overrides(self) -> dict[str, Any]:
        """Return what is changed in the preset, for all arms."""
        changed: dict[str, Any] = {} if self.steps is None else {"steps": self.steps}
        if self.learning_rate is not None:
            pattern = preset(self.env_id)
            last = pattern.learning_rate_end * (self.learning_rate / pattern.learning_rate)
            changed |= {"learning_rate": self.learning_rate, "learning_rate_end": last}
        return changed

    def runs(self, step_sizes: Mapping[Arm, float] | None = None) -> list[Run]:
        """Return what is to be trained: seed by seed, so that arms can soon be compared.

        Parameters
        ----------
        step_sizes : mapping of arm to float, optional
            Factors of the preset's step size.
        """
        factors = step_sizes or {}
        return [
            run_of(self.env_id, arm, seed, step_size=factors.get(arm, 1.0), **self.overrides())
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
    pattern = preset(config.env_id, threads=1, **config.overrides())
    threshold = _threshold_of(pattern)
    folder = config.folder()
    files = ResultFiles(folder, pattern, config.tune, config.tuning_seeds)
    step_sizes = StepSizes(folder, config.tune, config.tuning_seeds)
    if pattern.eval_max_steps is None:
        say_default_limit(console, config.env_id)
    try:
        _tune(config, step_sizes, console)
        factors = {arm: step_sizes.chosen(arm) for arm in config.arms}
        done = {(result.arm, result.seed) for result in files.results}
        runs = config.runs(factors)
        missing = [run for run in runs if (run.arm, run.config.seed) not in done]
        say(
            console,
            f"{config.env_id}, {pattern.steps:,} steps: {len(missing)} runs to do, "
            f"{len(runs) - len(missing)} done before; results in {folder}",
        )
        failures = 0
        for run, outcome in _finished(missing, config.workers, console):
            if isinstance(outcome, str):
                failures += 1
                say(console, f"{_name(run)}: failed, {outcome}")
                continue
            result = Result.of(run, outcome, threshold)
            files.append(
                result,
                [Point(config.env_id, run.arm, run.config.seed, *at) for at in outcome.curve],
            )
            say(console, f"{_name(run)} {_line(result)}")
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


def _tune(config: CompareConfig, step_sizes: StepSizes, console: Console) -> None:
    """Choose a step size for each arm, where that is asked for.

    Raises
    ------
    RuntimeError
        Some tries failed: the arms would not have been treated alike.
    """
    if not config.tune:
        return
    # The area decides: nobody looks at a final evaluation.
    tries = step_sizes.missing(
        config.env_id, config.arms, final_eval_episodes=1, **config.overrides()
    )
    if tries:
        say(console, f"{len(tries)} runs to choose step sizes, kept in {TUNING}")
    failures = 0
    for run, outcome in _finished(list(tries), config.workers, console):
        if isinstance(outcome, str):
            failures += 1
            say(console, f"{_name(run)}: failed, {outcome}")
            continue
        step_sizes.append(run, tries[run], outcome)
        say(console, f"{_name(run)} step size x {tries[run]:<4g} {outcome.wall_seconds:6.1f} s")
    if failures:
        raise RuntimeError(
            f"{failures} of {len(tries)} tries of a step size failed, see above; the same command "
            "tries again"
        )
    for arm in config.arms:
        say(console, f"{arm:<12} step size x {step_sizes.chosen(arm):g}")


def _finished(
    runs: list[Run], workers: int, console: Console
) -> Iterator[tuple[Run, Outcome | str]]:
    """Train, and yield each run that is finished with its outcome, or why it failed."""
    by_config = {run.config: run for run in runs}
    with _Bars(console, runs) as bars:
        for config, message in train_all(list(by_config), workers):
            run = by_config[config]
            if isinstance(message, int):
                bars.advance(run, message)
            else:
                bars.finish(run)
                yield run, message


class _Bars:
    """A bar for all and one for each run in progress; no bars where there is no terminal."""

    def __init__(self, console: Console, runs: list[Run]) -> None:
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
        self._all = self._bars.add_task("all runs", total=sum(run.config.steps for run in runs))
        self._tasks: dict[Run, TaskID] = {}

    def __enter__(self) -> _Bars:
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bars.stop()

    def advance(self, run: Run, step: int) -> None:
        if run not in self._tasks:
            name = f"{run.arm}, seed {run.config.seed}"
            self._tasks[run] = self._bars.add_task(name, total=run.config.steps)
        task = self._tasks[run]
        before = next(t.completed for t in self._bars.tasks if t.id == task)
        self._bars.update(task, completed=step)
        self._bars.advance(self._all, step - before)

    def finish(self, run: Run) -> None:
        self.advance(run, run.config.steps)
        self._bars.remove_task(self._tasks.pop(run))


def _threshold_of(config: TrainConfig) -> float:
    """Return the return from which the environment is solved; raise if it cannot be trained on."""
    from prioritized_replay.envs.make import spec_of
    from prioritized_replay.training.build import check_trainable

    check_trainable(config)
    threshold = spec_of(config.env_id).reward_threshold
    return math.nan if threshold is None else float(threshold)


def _name(run: Run) -> str:
    return f"{run.arm:<12} seed {run.config.seed:<5}"


def _line(result: Result) -> str:
    known = not math.isnan(result.threshold)
    verdict = ("reached" if result.reached else "not reached") if known else ""
    final = f"{result.final_mean:{decimals(result.final_mean)}}"
    return f"return {final:>8}  {verdict:<11}  {result.wall_seconds:6.1f} s"


def _repeats(values: tuple[Any, ...]) -> bool:
    return len(set(values)) < len(values)
