"""A live panel in a terminal, which shows how a run trains.

Knows progress reports and rich; knows nothing of how a run is made or saved.
"""

import math
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from prioritized_replay.runs.display import (
    REPLAY_NAMES,
    Clock,
    Resumed,
    actors_line,
    clock_time,
    number,
    shards_line,
    sparkline,
)
from prioritized_replay.training.config import TrainConfig
from prioritized_replay.training.progress import Progress

_WIDEST = 100  # columns; more would only pull the numbers apart
_NARROW = 76  # below, the two columns of numbers are set under each other
_SPARK = 20
_STARTING = "[dim]starting; the first run on a machine compiles the replay, some 10 seconds[/]"


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
        self._clock = Clock()
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
        parts = [self._bar(progress), between, self._numbers(progress)]
        if progress.workers is not None:
            lines = actors_line(progress.workers), shards_line(progress.workers)
            parts += (Text(line, style="dim", no_wrap=True, overflow="ellipsis") for line in lines)
        return Group(*parts)

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
            ("mean return", number(progress.mean_return), f"[blue]{spark}[/]"),
            ("evaluation", _mean(evaluated), _at(evaluated)),
            ("best", f"[bold green]{_mean(best)}[/]", _at(best)),
            ("episodes", f"{progress.episodes:,}", goal),
            ("updates", f"{progress.updates:,}", ""),
        )
        ess, batch = progress.effective_sample_size, self._config.batch_size
        right = (
            ("epsilon", f"{progress.epsilon:.3f}"),
            ("beta", f"{progress.beta:.3f}"),
            ("loss", number(progress.loss, "{:.4f}")),
            ("effective sample size", f"{number(ess)} of {batch}"),
            ("steps per second", number(progress.steps_per_second, "{:,.0f}")),
        )
        if self._console.width < _NARROW:
            for cells in (*left, *right):
                grid.add_row(*cells)
        else:
            for here, beside in zip(left, right, strict=True):
                grid.add_row(*here, *beside)
        return grid


def _mean(judged: tuple[float, int] | None) -> str:
    return "-" if judged is None else f"{judged[0]:.1f}"


def _at(judged: tuple[float, int] | None) -> str:
    return "" if judged is None else f"[dim]at {judged[1]:,}[/]"
