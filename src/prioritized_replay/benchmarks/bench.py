"""The benchmark from one end to the other: who takes part, what is measured, where it is kept.

Knows the parts and their order; knows nothing of how any of them is measured.
"""

from __future__ import annotations

import dataclasses
import datetime
import sys
import time
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from prioritized_replay.benchmarks import measures, report
from prioritized_replay.benchmarks.contenders import OURS, Contender, OursInFiles
from prioritized_replay.benchmarks.measures import measure_adding, measure_cycles, measure_worst
from prioritized_replay.benchmarks.peers import MODULES, PEERS, Peer, missing
from prioritized_replay.benchmarks.processes import measure_footprint, measure_starts
from prioritized_replay.benchmarks.results import FILE, Absence, Results, Taking, load, surroundings
from prioritized_replay.benchmarks.session import Session
from prioritized_replay.benchmarks.stack_contenders import OURS_STACKS, PEERS_STACKS
from prioritized_replay.benchmarks.stack_measures import (
    measure_files,
    measure_stack_footprints,
    measure_stacks,
)
from prioritized_replay.benchmarks.stacks import Stacks
from prioritized_replay.benchmarks.timing import Clock, Effort
from prioritized_replay.benchmarks.workload import Workload, described

Part = Literal["add", "replay", "worst", "memory", "start", "training", "stacks", "files"]
MANY_STACKS, SOME_STACKS, FEW_STACKS = 1_000_000, 50_000, 5_000


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """What is measured, beside whom, how thoroughly, and where the results go."""

    parts: tuple[Part, ...] = get_args(Part)
    """What to measure: adding rows; drawing with updates, at every size; hard priorities; bytes
    per transition; new processes; the training of a DQN; stacks of frames, their bytes among it;
    rows in files."""

    peers: tuple[Peer, ...] = get_args(Peer)
    """Libraries to measure beside; one that is not installed is named as such and left out."""

    sizes: tuple[int, ...] = (10_000, 1_000_000, 10_000_000)
    """Rows in memory. The largest of at most a million also serves add, worst, memory and files."""

    batches: tuple[int, ...] = (32, 256, 1024)
    """Rows of a batch."""

    rounds: int = 40
    """Rounds of each measurement, at most: everybody takes one turn in each."""

    seconds: float = 6.0
    """After so many seconds a measurement begins no further rounds."""

    clock: Clock = "wall"
    """What is timed: the time that passes, or, on a machine that is busy with other work as well,
    the time that this process computes."""

    quick: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Try it out: no size above a million, at most 10 rounds and 1 second each."""

    output: Path = Path("runs/bench")
    """Folder for benchmarks.json and the figures; earlier ones are replaced."""

    def __post_init__(self) -> None:
        for name, allowed in (("parts", get_args(Part)), ("peers", get_args(Peer))):
            chosen = getattr(self, name)
            if len(set(chosen)) < len(chosen) or not set(chosen) <= set(allowed):
                raise ValueError(
                    f"{name} must be different ones of {', '.join(allowed)}, got {chosen}"
                )
        if not self.parts:
            raise ValueError("parts must be one or more, got none")
        for name, least in (("sizes", 100), ("batches", 1)):
            numbers = getattr(self, name)
            if not numbers or min(numbers) < least or len(set(numbers)) < len(numbers):
                raise ValueError(f"{name} must be different numbers >= {least}, got {numbers}")
        if self.rounds < 2:
            raise ValueError(f"rounds must be >= 2, got {self.rounds}")
        if not self.seconds > 0:
            raise ValueError(f"seconds must be > 0, got {self.seconds}")

    @property
    def effort(self) -> Effort:
        """How long a measurement may take."""
        if self.quick:
            return Effort(min(self.rounds, 10), min(self.seconds, 1.0), self.clock)
        return Effort(self.rounds, self.seconds, self.clock)

    @property
    def used_sizes(self) -> tuple[int, ...]:
        """The sizes, smallest first, without those that a quick run leaves out."""
        sizes = tuple(sorted(self.sizes))
        return (
            tuple(size for size in sizes if size <= 1_000_000) or sizes[:1] if self.quick else sizes
        )

    @property
    def stack_sizes(self) -> tuple[int, int]:
        """Rows of the memories of stacks: of everybody's, and of ours whose bytes are counted."""
        some, many = (FEW_STACKS, SOME_STACKS) if self.quick else (SOME_STACKS, MANY_STACKS)
        return min(some, self.one_size), min(many, self.one_size)

    @property
    def one_size(self) -> int:
        """The size for what is measured at one size only."""
        sizes = self.used_sizes
        return max((size for size in sizes if size <= 1_000_000), default=sizes[0])


@dataclass
class _Screen:
    """One line on what happens now: a bar in a terminal, nothing elsewhere but the parts."""

    console: Console
    progress: Progress = field(init=False)

    def __post_init__(self) -> None:
        self.progress = Progress(
            TextColumn("{task.description:<64}"),
            BarColumn(bar_width=None),
            TimeElapsedColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
            expand=True,
            auto_refresh=False,  # its thread would run beside what is timed
        )
        self._task = self.progress.add_task("", total=None)

    def say(self, line: str) -> None:
        self.progress.update(self._task, description=line, refresh=True)

    def part(self, name: str, done: int, parts: int) -> None:
        self.progress.update(
            self._task, completed=done, total=parts, description=name, refresh=True
        )
        if not self.console.is_terminal:
            self.console.print(f"{name} ...", highlight=False)


def benchmark(config: BenchConfig) -> Results:
    """Measure everything asked for, show it, and write ``benchmarks.json`` and the figures.

    Nothing is written before the end.

    Parameters
    ----------
    config : BenchConfig
        What to measure.

    Returns
    -------
    Results
        What was written.
    """
    from prioritized_replay.benchmarks.figures import draw

    console = Console()
    config.output.mkdir(parents=True, exist_ok=True)
    results = Results()
    screen = _Screen(console)
    began = time.monotonic()
    load_before = load()
    with screen.progress:
        screen.say("looking for the other libraries")
        kinds = _taking_part(config, results)
        _one_thread()
        session = Session(Workload(), config.effort, results, screen.say)
        for done, part in enumerate(config.parts):
            screen.part(part, done, len(config.parts))
            _measure(part, config, session, kinds)
    results.workload = described(session.workload)
    results.made = {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "command": _command(config),
        "clock": "time that passes" if config.clock == "wall" else "time that the process computes",
        "took": f"{(time.monotonic() - began) / 60:.1f} minutes",
        "busy processes of the machine": f"{load_before} when it began, {load()} when it ended",
        **surroundings(),
    }
    results.write(config.output / FILE)
    draw(results, config.output)
    show(results, console)
    console.print(f"\nwritten: {config.output / FILE}, figures beside it", highlight=False)
    return results


def _taking_part(config: BenchConfig, results: Results) -> list[type[Contender]]:
    """Return who takes part; note how each is used, and who is missing."""
    kinds = list(OURS)
    for peer in config.peers:
        why = missing(peer)
        if why is None:
            kinds += PEERS[peer]
        else:
            results.absent.append(Absence(peer, why))
    kinds = measures.in_order(kinds)
    results.contenders = list(map(_taking, kinds))
    return kinds


def _taking(kind: type[Contender]) -> Taking:
    return Taking(kind.name, kind.library, kind.law, dict(kind.settings))


def _one_thread() -> None:
    """Everybody computes with one thread, so that cores are not what is compared."""
    if "torch" in sys.modules:
        import_module("torch").set_num_threads(1)


def _measure(
    part: Part, config: BenchConfig, session: Session, kinds: list[type[Contender]]
) -> None:
    results = session.results
    if part == "add":
        measure_adding(session, kinds, config.one_size)
    elif part == "replay":
        measure_cycles(session, kinds, config.used_sizes, config.batches)
    elif part == "worst":
        measure_worst(session, kinds, config.one_size)
    elif part == "memory":
        for kind in kinds:
            session.say(f"bytes per transition: {kind.name}")
            try:
                results.footprints.append(measure_footprint(kind, config.one_size))
            except RuntimeError as error:
                if kind in OURS:
                    raise
                results.absent.append(Absence(f"{kind.name}, bytes per transition", str(error)))
    elif part == "start":
        libraries = {kind.library for kind in kinds}
        modules = [module for peer, module in MODULES.items() if peer in libraries]
        results.starts = measure_starts(2 if config.quick else 6, modules, session.say)
    elif part == "stacks":
        _measure_stacks(config, session)
    elif part == "files":
        session.results.contenders.append(_taking(OursInFiles))
        measure_files(session, config.one_size)
    else:
        _measure_training(config, session)


def _measure_stacks(config: BenchConfig, session: Session) -> None:
    kinds = list(OURS_STACKS)
    for peer in config.peers:
        if missing(peer) is None:
            kinds += PEERS_STACKS.get(peer, ())
    session.results.contenders += map(_taking, kinds)
    some, many = config.stack_sizes
    of_stacks = dataclasses.replace(session, workload=Stacks())
    measure_stacks(of_stacks, kinds, some)
    measure_stack_footprints(of_stacks, kinds, some, many)


def _measure_training(config: BenchConfig, session: Session) -> None:
    from prioritized_replay.benchmarks.training import measure_training

    session.say("training a DQN beside others")
    settings: dict[str, Any] = {}
    if config.quick:
        settings = {"seeds": (0,), "steps": 5_000, "episodes": 5}
    session.results.training = measure_training(**settings)


def _command(config: BenchConfig) -> str:
    """Return the command that measures the same again."""
    words, plain = ["per bench"], BenchConfig()
    for name in ("parts", "peers", "sizes", "batches", "rounds", "seconds", "clock", "quick"):
        value = getattr(config, name)
        if value != getattr(plain, name):
            told = value if isinstance(value, tuple) else () if value is True else (value,)
            words += [f"--{name}", *map(str, told)]
    return " ".join(words)


def show(results: Results, console: Console) -> None:
    """Print the tables of what was measured; those without a row are left out."""
    for name, title in report.SHOWN.items():
        head, *lines = report.TABLES[name](results)
        if lines:
            table = Table(*head, title=title, title_justify="left", header_style="bold")
            for line in lines:
                table.add_row(*line)
            console.print(table)
