"""The display of a run: what a terminal shows, what a pipe gets, and the clock behind both."""

import io
import math
import re

import pytest
from rich.console import Console
from tests.reports import evaluation, progress

from prioritized_replay.runs import display
from prioritized_replay.runs.display import PlainLines, Resumed, live, sparkline
from prioritized_replay.runs.panel import LivePanel
from prioritized_replay.training.presets import preset

CONFIG = preset("CartPole-v1", steps=1_000, seed=7)


def terminal(width: int) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=width, legacy_windows=False)


def picture(panel: LivePanel, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, height=30)
    console.print(panel._draw())
    return console.file.getvalue()


@pytest.mark.parametrize("width", [58, 80, 120])
def test_the_panel_shows_where_the_run_stands(width):
    panel = LivePanel(terminal(width), CONFIG, "runs/a", threshold=475.0)
    panel.show(progress(250, evaluation=evaluation(100.0, 120.0), is_best=True))
    panel.show(progress(500, evaluation=evaluation(90.0)))
    panel.show(progress(750, mean_return=44.25))
    shown = picture(panel, width)
    words = " ".join(shown.split())
    for part in (
        "CartPole-v1, rank-based replay, seed 7",
        "75%",
        "750 of 1,000 steps",
        "mean return 44.2",
        "evaluation 90.0 at 500",
        "best 110.0 at 250",
        "solved at 475",
        "epsilon 0.250",
        "beta 0.750",
        "loss 0.1250",
        "effective sample size 12.5 of 64",
        "steps per second 900",
        "updates 375",
        "runs/a",
    ):
        assert part in words, part
    lines = shown.splitlines()
    assert {len(line) for line in lines} == {min(width - 2, 100)}
    assert len(lines) == (9 if width >= 80 else 14)


def test_the_panel_is_whole_before_there_are_numbers():
    panel = LivePanel(terminal(80), CONFIG, "runs/a")
    assert "starting" in picture(panel, 80)
    nan = math.nan
    panel.show(
        progress(
            500,
            updates=0,
            mean_return=nan,
            last_return=nan,
            loss=nan,
            td_error=nan,
            effective_sample_size=nan,
        )
    )
    shown = picture(panel, 80)
    assert "nan" not in shown
    assert "effective sample size - of 64" in " ".join(shown.split())


def test_names_are_not_taken_for_markup():
    panel = LivePanel(terminal(80), preset("a[red]b-v0"), "runs/[bold]")
    panel.show(progress(500))
    assert "a[red]b-v0" in picture(panel, 80)
    assert "runs/[bold]" in picture(panel, 80)


def test_a_terminal_without_unicode_gets_no_bars():
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    panel = LivePanel(Console(file=file, force_terminal=True, width=80), CONFIG, "runs/a")
    for step in (100, 200, 300):
        panel.show(progress(step, mean_return=float(step)))
    with panel:
        pass
    file.flush()
    assert b"mean return" in file.buffer.getvalue()


def test_plain_lines_are_sparse_and_plain(monkeypatch):
    console = Console(file=io.StringIO(), width=40)
    now = 0.0
    monkeypatch.setattr(display.time, "monotonic", lambda: now)
    with PlainLines(console, CONFIG, "runs/a", threshold=475.0) as lines:
        for step in range(100, 1_001, 100):
            now += 1.0
            judged = evaluation(50.0, 60.0) if step == 500 else None
            lines.show(progress(step, evaluation=judged, is_best=judged is not None))
        now += 60.0
        lines.show(progress(1_000))
    head, first, second = console.file.getvalue().splitlines()
    assert head == (
        "CartPole-v1 with rank-based replay, seed 7, 1,000 steps, solved at 475; run folder runs/a"
    )
    assert re.fullmatch(
        r" +500 steps  return +20\.5  evaluation +55\.0, best so far  loss 0\.125"
        r"  900 steps/s  0:05 left",
        first,
    )
    assert re.fullmatch(
        r" +1,000 steps  return +20\.5  loss 0\.125  900 steps/s  0:00 left", second
    )


def test_time_left_is_judged_by_the_learning_part_alone(monkeypatch):
    now = 0.0
    monkeypatch.setattr(display.time, "monotonic", lambda: now)
    clock = display.Clock()
    now = 1.0  # before learning: fast
    clock.tick(progress(500, updates=0))
    assert math.isnan(clock.left(progress(500)))
    now = 21.0  # the first update compiled for long
    clock.tick(progress(600))
    assert math.isnan(clock.left(progress(600)))
    now = 22.0
    clock.tick(progress(700))
    assert clock.left(progress(700)) == pytest.approx(3.0)
    now = 23.5  # and it keeps moving between two reports
    assert clock.left(progress(700)) == pytest.approx(1.5)
    assert clock.silence() == 1.5


def test_only_a_terminal_gets_the_panel(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # colours may be wanted in a file, a panel is not
    assert not live(Console(file=io.StringIO()))


def test_a_real_terminal_gets_the_panel(monkeypatch):
    pty = pytest.importorskip("pty")
    monkeypatch.setenv("TERM", "xterm")
    leader, follower = pty.openpty()
    with open(leader, "rb"), open(follower, "w") as file:
        assert live(Console(file=file))
        monkeypatch.setenv("TERM", "dumb")
        assert not live(Console(file=file))


def test_a_flat_or_empty_sparkline():
    assert sparkline([], 5) == ""
    assert sparkline([2.0, 2.0], 5) == "▁▁"
    assert len(sparkline(list(range(1_000)), 20)) == 20


def test_a_resumed_run_says_so_and_knows_its_best():
    resumed = Resumed(600, 2_000, best=(81.25, 400))
    panel = LivePanel(terminal(120), CONFIG, "runs/a", resumed=resumed)
    assert "seed 7, resumed at step 600" in picture(panel, 120)
    panel.show(progress(700, steps_per_second=math.nan))
    words = " ".join(picture(panel, 120).split())
    assert "best 81.2 at 400" in words
    assert "steps per second - " in words
    panel.show(progress(800, evaluation=evaluation(90.0), is_best=True))
    assert "best 90.0 at 800" in " ".join(picture(panel, 120).split())

    console = Console(file=io.StringIO(), width=200)
    with PlainLines(console, CONFIG, "runs/a", resumed=resumed) as lines:
        lines.show(progress(700, evaluation=evaluation(1.0), steps_per_second=math.nan))
    head, line, _ = console.file.getvalue().split("\n")
    assert "seed 7, 2,000 steps, resumed at step 600; run folder runs/a" in head
    assert line.endswith(" - steps/s")
