"""``per check``: chooses scenarios, runs them with one memory, prints and writes the results."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from prioritized_replay.conformance.factories import adapter_of
from prioritized_replay.conformance.report import Report, check
from prioritized_replay.conformance.scenario import Scenario
from prioritized_replay.conformance.scenarios import GROUPS, SCENARIOS
from prioritized_replay.runs.console import say
from prioritized_replay.runs.files import replace_text

OURS = "prioritized_replay.conformance.memories.ours:proportional"
_STYLES = {"pass": "green", "fail": "bold red", "not claimed": "dim"}


@dataclass(frozen=True)
class CheckOptions:
    """Options of ``per check``."""

    memory: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODULE:FACTORY")] = OURS
    """A callable without arguments that returns an Adapter: module:name, or path/file.py:name."""

    only: tuple[str, ...] = ()
    """Groups or scenarios to run, instead of all."""

    seed: int = 0
    """Of the memories and of the numbers that scenarios choose."""

    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Write the report as JSON."""

    markdown: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Write the report as Markdown."""

    list: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """List the scenarios, each with its rule, and run none."""

    show: Annotated[str | None, tyro.conf.arg(metavar="SCENARIO")] = None
    """Print a program of at most 20 lines that runs one scenario with the memory, and run none."""


def run(options: CheckOptions, console: Console) -> int:
    """Do what the options say. Return 1 if something that is claimed fails, else 0.

    Raises
    ------
    ValueError
        There is no such memory, group or scenario.
    OSError
        A file cannot be written.
    """
    chosen = chosen_scenarios(options.only)
    if options.list:
        _say_list(chosen, console)
        return 0
    if options.show is not None:
        (scenario,) = chosen_scenarios([_one(options.show)])
        say(console, f"# {scenario.rule}\n# {scenario.source}")
        say(console, scenario.reproduction(options.memory, options.seed))
        return 0
    for path in (options.json, options.markdown):
        if path is not None and not path.parent.is_dir():
            raise FileNotFoundError(f"{path} cannot be written: there is no folder {path.parent}")
        if path is not None and path.is_dir():
            raise ValueError(f"{path} cannot be written: it is a folder")
    report = _checked(options, chosen, console)
    _say_report(report, console)
    if options.json is not None:
        replace_text(options.json, report.to_json())
    if options.markdown is not None:
        replace_text(options.markdown, report.to_markdown())
    return 1 if report.failures else 0


def chosen_scenarios(names: Sequence[str]) -> list[Scenario]:
    """Return the scenarios of groups and names, all where there are none.

    Raises
    ------
    ValueError
        A name is neither a group nor a scenario.

    Examples
    --------
    >>> [scenario.group for scenario in chosen_scenarios(["nan-is-refused"])]
    ['numerics']
    """
    known = [*GROUPS, *(each.name for each in SCENARIOS)]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"groups: {', '.join(GROUPS)}"
            raise ValueError(f"there is no group or scenario {name!r}; {hint}")
    return [each for each in SCENARIOS if not names or {each.name, each.group} & {*names}]


def _one(name: str) -> str:
    if name in GROUPS:
        raise ValueError(f"show takes one scenario, got the group {name!r}")
    return name


def _checked(options: CheckOptions, chosen: Sequence[Scenario], console: Console) -> Report:
    adapter = adapter_of(options.memory)
    progress = Progress(
        TextColumn("{task.description:<44}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        console=console,
        disable=not console.is_terminal,
        expand=True,
        transient=True,
    )
    with progress:
        task = progress.add_task("", total=len(chosen), completed=-1)

        def show(scenario: Scenario) -> None:
            progress.update(task, description=scenario.name, advance=1)

        return check(adapter, chosen, options.memory, options.seed, show)


def _say_list(chosen: Sequence[Scenario], console: Console) -> None:
    for group in dict.fromkeys(each.group for each in chosen):
        rows = [(each.name, Text(each.rule)) for each in chosen if each.group == group]
        _say_group(console, group, [(Text(name), rule) for name, rule in rows])
    say(console, f"\n{len(chosen)} scenarios")


def _say_report(report: Report, console: Console) -> None:
    say(console, f"{report.memory}: {report.library} {report.version}. {report.settings}")
    for group in report.groups:
        rows = [
            (
                Text.assemble((f"{line.outcome:<11}", _STYLES[line.outcome]), "  ", line.name),
                Text(line.seen, no_wrap=True, overflow="ellipsis"),
            )
            for line in report.lines
            if line.group == group
        ]
        _say_group(console, group, rows)
    for line in report.failures:
        console.print(Text(f"\n! {line.name}", style=_STYLES["fail"]))
        say(console, f"  rule:   {line.rule}\n  source: {line.source}\n  seen:   {line.seen}")
        say(console, f"  show:   per check {report.factory} --show {line.name}")
    say(console, f"\n{report.summary}, in {report.seconds:.0f} seconds")


def _say_group(console: Console, group: str, rows: Sequence[tuple[Text, Text]]) -> None:
    say(console, "")
    console.print(Text(group, style="bold"))
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True, min_width=max(len(name) for name, _ in rows))
    table.add_column(min_width=20)
    for row in rows:
        table.add_row(*row)
    console.print(table)
