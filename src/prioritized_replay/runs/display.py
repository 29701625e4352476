"""What a person sees while a run trains: what every display has, and plain lines.

Knows progress reports and rich; knows nothing of how a run is made or saved.
"""

import itertools
import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console

from prioritized_replay.training.config import TrainConfig
from prioritized_replay.training.progress import Progress
from prioritized_replay.training.workers import Workers

_LEVELS = "▁▂▃▄▅▆▇█"
REPLAY_NAMES = {"rank": "rank-based", "proportional": "proportional", "uniform": "uniform"}


@dataclass(frozen=True)
class Resumed:
    """Where a run is resumed: its step, the steps of the whole run, the best (mean, step)."""

    step: int
    steps: int
    best: tuple[float, int] | None = None


class Display(Protocol):
    """What shows a run from its start to its end; a context manager."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def show(self, progress: Progress) -> None:
        """Show a report."""


class PlainLines:
    """A line at each evaluation, and one at least every half minute: for files and pipes.

    Parameters
    ----------
    console : rich.console.Console
    config : TrainConfig
    where : str
        The run folder.
    threshold : float, optional
        The return from which the environment counts as solved.
    resumed : Resumed, optional
        Where an earlier process left the run.
    """

    def __init__(
        self,
        console: Console,
        config: TrainConfig,
        where: str,
        threshold: float | None = None,
        resumed: Resumed | None = None,
    ) -> None:
        self._console = console
        self._clock = Clock()
        self._said = time.monotonic()
        goal = "" if threshold is None else f", solved at {threshold:g}"
        replay = REPLAY_NAMES[config.replay]
        steps = resumed.steps if resumed else config.steps
        since = f", resumed at step {resumed.step:,}" if resumed else ""
        crew = f", {plural(config.actors, 'actor')}" if config.actors else ""
        self._head = (
            f"{config.env_id} with {replay} replay, seed {config.seed}, {steps:,} steps"
            f"{crew}{since}{goal}; run folder {where}"
        )

    def __enter__(self) -> Self:
        self._say(self._head)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return

    def show(self, progress: Progress) -> None:
        """Print a line if there is reason to."""
        self._clock.tick(progress)
        evaluation = progress.evaluation
        if evaluation is None and time.monotonic() - self._said < 30.0:
            return
        parts = [
            f"{progress.step:>9,} steps",
            f"return {number(progress.mean_return):>7}",
            f"loss {number(progress.loss, '{:.3g}')}",
            f"{number(progress.steps_per_second, '{:,.0f}')} steps/s",
        ]
        left = self._clock.left(progress)
        if not math.isnan(left):
            parts.append(f"{clock_time(left)} left")
        if evaluation is not None:
            best = ", best so far" if progress.is_best else ""
            parts.insert(2, f"evaluation {evaluation.mean:>7.1f}{best}")
        self._say("  ".join(parts))

    def _say(self, line: str) -> None:
        self._said = time.monotonic()
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


class Clock:
    """Seconds left, from the pace of the last reports, evaluations included."""

    def __init__(self) -> None:
        self._learning = False
        self._ticks: deque[tuple[float, int]] = deque([(time.monotonic(), 0)], maxlen=60)

    def tick(self, progress: Progress) -> None:
        """Note when a report came."""
        if not self._learning:  # the pace before, and while kernels are compiled, says nothing
            self._ticks.clear()
        self._learning = progress.updates > 0
        self._ticks.append((time.monotonic(), progress.step))

    def silence(self) -> float:
        """Seconds since the last report."""
        return time.monotonic() - self._ticks[-1][0]

    def left(self, progress: Progress) -> float:
        """Seconds to the end; NaN while there is no pace to judge by."""
        (then, first), (now, last) = self._ticks[0], self._ticks[-1]
        if last == first:
            return math.nan
        return max(0.0, (now - then) / (last - first) * (progress.steps - last) - self.silence())


def live(console: Console) -> bool:
    """Return whether a console can redraw a panel: it is a terminal, and not a dumb one."""
    return console.file.isatty() and not console.is_dumb_terminal


def sparkline(values: Sequence[float], width: int) -> str:
    """Return the values as a row of at most ``width`` bars, from their least to their greatest.

    Examples
    --------
    >>> sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8)
    '▁▂▃▄▅▆▇█'
    >>> sparkline([3, 3, 3, 3, 7, 7], 3)
    '▁▁█'
    """
    if not values:
        return ""
    width = min(width, len(values))
    edges = [len(values) * i // width for i in range(width + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in itertools.pairwise(edges)]
    low, span = min(means), max(means) - min(means)
    if span == 0.0:
        return _LEVELS[0] * width
    return "".join(_LEVELS[round((mean - low) / span * (len(_LEVELS) - 1))] for mean in means)


def clock_time(seconds: float) -> str:
    """Return minutes and seconds, or hours, minutes and seconds.

    Examples
    --------
    >>> clock_time(62.4), clock_time(3_725)
    ('1:02', '1:02:05')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def plural(count: int, noun: str) -> str:
    """Return a count with its noun.

    Examples
    --------
    >>> plural(1, "actor"), plural(4, "shard")
    ('1 actor', '4 shards')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def actors_line(workers: Workers) -> str:
    """Return in a line how fast actors play, and how old their parameters are.

    Examples
    --------
    >>> from prioritized_replay.training.workers import ActorReport
    >>> fast = ActorReport(0, 0.4, 1_000, 812.4, 20.0, 150.0, 0)
    >>> slow = ActorReport(1, 0.4, 1_000, 645.0, 20.0, 150.0, 0)
    >>> actors_line(Workers((fast, slow), ()))
    '2 actors, 645 to 812 steps/s each, parameters 150 updates old'
    """
    actors = workers.actors
    speeds = _span([actor.steps_per_second for actor in actors])
    ages = [a.parameter_age for a in actors if not math.isnan(a.parameter_age)]
    age = f"{sum(ages) / len(ages):,.0f}" if ages else "-"
    return f"{plural(len(actors), 'actor')}, {speeds} steps/s each, parameters {age} updates old"


def shards_line(workers: Workers) -> str:
    """Return in a line how full the shards are, and what was lost with those that died.

    Examples
    --------
    >>> from prioritized_replay.training.workers import ShardReport
    >>> shards = ShardReport(0, 980, 12.5, 64), ShardReport(1, 10, 0.2, 64)
    >>> shards_line(Workers((), shards, rows_lost=970))
    '2 shards, 10 to 980 rows each, 970 rows lost'
    """
    shards, lost = workers.shards, workers.rows_lost
    said = f"{plural(len(shards), 'shard')}, {_span([float(s.rows) for s in shards])} rows each"
    return said + (f", {lost:,} rows lost" if lost else "")


def _span(values: Sequence[float]) -> str:
    known = [f"{value:,.0f}" for value in sorted(values) if not math.isnan(value)]
    if not known:
        return "-"
    return known[0] if known[0] == known[-1] else f"{known[0]} to {known[-1]}"


def number(value: float, form: str = "{:.1f}") -> str:
    """Return a number as text; NaN is a dash."""
    return "-" if math.isnan(value) else form.format(value)
