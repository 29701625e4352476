"""What a person sees while a run trains: a live panel in a terminal, sparse lines elsewhere.

Knows progress reports and rich; knows nothing of how a run is made or kept.
"""

import itertools
import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from prioritized_replay.training.config import TrainConfig
from prioritized_replay.training.progress import Progress

_WIDEST = 100  # columns; more would only pull the numbers apart
_NARROW = 76  # below, the two columns of numbers are set under each other
_SPARK = 20
_LEVELS = "▁▂▃▄▅▆▇█"
_STARTING = "[dim]starting; the first run on a machine compiles the replay, some 10 seconds[/]"
REPLAY_NAMES = {"rank": "rank-based", "proportional": "proportional", "uniform": "uniform"}


@dataclass(frozen=True)
class Resumed:
    """Where an earlier process left a run: its step, of how many, and the best (mean, step)."""

    step: int
    steps: int
    best: tuple[float, int] | None = None


class Display(Protocol):
    """Shows a run from its start to its end; used as a context manager."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def show(self, progress: Progress) -> None:
        """Show where the run stands."""


class LivePanel:
    """A panel that redraws itself in a terminal.

    Parameters
    ----------
    console : rich.console.Console
        A terminal.
    config : TrainConfig
    where : str
        The run folder, for the title.
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
        self._config = config
        self._resumed = resumed
        self._where = where
        self._threshold = threshold
        self._ascii = console.options.ascii_only
        self._clock = _Clock()
        self._progress: Progress | None = None
        self._evaluated: tuple[float, int] | None = None  # mean, step
        self._best = resumed.best if resumed else None
        self._returns: list[float] = []
        self._spinner = Spinner("line" if self._ascii else "dots", _STARTING)
        self._live = Live(get_renderable=self._draw, console=console, refresh_per_second=4)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def show(self, progress: Progress) -> None:
        """Show where the run stands."""
        self._clock.tick(progress)
        if not math.isnan(progress.mean_return):
            self._returns.append(progress.mean_return)
        if progress.evaluation is not None:
            self._evaluated = progress.evaluation.mean, progress.step
            if progress.is_best:
                self._best = self._evaluated
        self._progress = progress

    def _draw(self) -> Panel:
        config, progress, resumed = self._config, self._progress, self._resumed
        since = f", resumed at step {resumed.step:,}" if resumed else ""
        return Panel(
            self._spinner if progress is None else self._body(progress),
            title=f"[bold]{escape(config.env_id)}[/], {REPLAY_NAMES[config.replay]} replay, "
            f"seed {config.seed}{since}",
            title_align="left",
            subtitle=f"[dim]{escape(self._where)}   Ctrl-C stops and saves[/]",
            subtitle_align="left",
            border_style="blue",
            padding=(0, 1),
            width=min(self._console.width - 2, _WIDEST),  # the terminal writes ^C beside it
        )

    def _body(self, progress: Progress) -> Group:
        waiting = progress.updates == 0 and self._clock.silence() > 2.0
        between = self._spinner if waiting else Text()
        return Group(self._bar(progress), between, self._numbers(progress))

    def _bar(self, progress: Progress) -> Table:
        grid = Table.grid(padding=(0, 2), expand=True)
        grid.add_column(ratio=1)
        for _ in range(3):
            grid.add_column(no_wrap=True, justify="right")
        left = self._clock.left(progress)
        grid.add_row(
            ProgressBar(total=progress.steps, completed=progress.step),
            f"[bold]{progress.step / progress.steps:.0%}[/]",
            f"{progress.step:,} of {progress.steps:,} steps",
            f"[bold]{'-' if math.isnan(left) else clock_time(left)}[/] left",
        )
        return grid

    def _numbers(self, progress: Progress) -> Table:
        grid = Table.grid(padding=(0, 2), expand=True)
        grid.add_column(style="dim", no_wrap=True)
        grid.add_column(justify="right", no_wrap=True, min_width=7)
        grid.add_column(ratio=1, no_wrap=True, overflow="crop")
        if self._console.width >= _NARROW:
            grid.add_column(style="dim", no_wrap=True)
            grid.add_column(justify="right", no_wrap=True, min_width=10)
        spark = "" if self._ascii else sparkline(self._returns, _SPARK)
        best, evaluated = self._best, self._evaluated
        goal = "" if self._threshold is None else f"[dim]solved at {self._threshold:g}[/]"
        left = (
            ("mean return", _number(progress.mean_return), f"[blue]{spark}[/]"),
            ("evaluation", _mean(evaluated), _at(evaluated)),
            ("best", f"[bold green]{_mean(best)}[/]", _at(best)),
            ("episodes", f"{progress.episodes:,}", goal),
            ("updates", f"{progress.updates:,}", ""),
        )
        ess, batch = progress.effective_sample_size, self._config.batch_size
        right = (
            ("epsilon", f"{progress.epsilon:.3f}"),
            ("beta", f"{progress.beta:.3f}"),
            ("loss", _number(progress.loss, "{:.4f}")),
            ("effective sample size", f"{_number(ess)} of {batch}"),
            ("steps per second", _number(progress.steps_per_second, "{:,.0f}")),
        )
        if self._console.width < _NARROW:
            for cells in (*left, *right):
                grid.add_row(*cells)
        else:
            for here, beside in zip(left, right, strict=True):
                grid.add_row(*here, *beside)
        return grid


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
        self._clock = _Clock()
        self._said = time.monotonic()
        goal = "" if threshold is None else f", solved at {threshold:g}"
        replay = REPLAY_NAMES[config.replay]
        steps = resumed.steps if resumed else config.steps
        since = f", resumed at step {resumed.step:,}" if resumed else ""
        self._head = (
            f"{config.env_id} with {replay} replay, seed {config.seed}, {steps:,} steps"
            f"{since}{goal}; run folder {where}"
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
            f"return {_number(progress.mean_return):>7}",
            f"loss {_number(progress.loss, '{:.3g}')}",
            f"{_number(progress.steps_per_second, '{:,.0f}')} steps/s",
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


class _Clock:
    """Seconds left, from the pace of the last reports, evaluations included."""

    def __init__(self) -> None:
        self._learning = False
        self._ticks: deque[tuple[float, int]] = deque([(time.monotonic(), 0)], maxlen=60)

    def tick(self, progress: Progress) -> None:
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
    """Whether a panel can be redrawn there: a terminal, and not a dumb one."""
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


def _number(value: float, form: str = "{:.1f}") -> str:
    return "-" if math.isnan(value) else form.format(value)


def _mean(judged: tuple[float, int] | None) -> str:
    return "-" if judged is None else f"{judged[0]:.1f}"


def _at(judged: tuple[float, int] | None) -> str:
    return "" if judged is None else f"[dim]at {judged[1]:,}[/]"
