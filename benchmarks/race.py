"""The race from one end to the other: who takes part, what is measured, where it is kept."""

from __future__ import annotations

import dataclasses
import datetime
import sys
import time
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks import measures, report
from benchmarks.episode_measures import measure_episodes
from benchmarks.index_measures import measure_index
from benchmarks.measures import measure_adding, measure_cycles, measure_worst
from benchmarks.note_measures import measure_note
from benchmarks.options import BenchConfig, Part
from benchmarks.processes import measure_footprint, measure_starts
from benchmarks.ray_measures import measure_ray
from benchmarks.results import FILE, Absence, Participant, Results, load, surroundings
from benchmarks.sequence_measures import measure_sequences
from benchmarks.session import Session
from benchmarks.stack_measures import measure_files, measure_stack_footprints, measure_stacks
from benchmarks.vector_measures import measure_vectors
from benchmarks.vector_memories import OURS_VECTOR, PEERS_VECTOR, OursVectorStacks, VectorMemory
from prioritized_replay.conformance.adapters import MODULES, PEERS, PEERS_STACKS, missing
from prioritized_replay.conformance.adapters.ours import OURS, OURS_STACKS, OursInFiles
from prioritized_replay.conformance.stacks import Stacks
from prioritized_replay.conformance.subject import Subject
from prioritized_replay.conformance.workload import Workload, described


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
    from benchmarks.figures import draw

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


def _taking_part(config: BenchConfig, results: Results) -> list[type[Subject]]:
    """Return who takes part; note how each is used, and who is missing."""
    kinds = list(OURS)
    for peer in config.peers:
        why = missing(peer)
        if why is None:
            kinds += PEERS[peer]
        else:
            results.absent.append(Absence(peer, why))
    kinds = measures.in_order(kinds)
    results.contenders = list(map(_participant, kinds))
    return kinds


def _participant(kind: type[Subject] | type[VectorMemory]) -> Participant:
    return Participant(kind.name, kind.library, kind.law, dict(kind.settings))


def _one_thread() -> None:
    """Everybody computes with one thread, so that cores are not what is compared."""
    if "torch" in sys.modules:
        import_module("torch").set_num_threads(1)


def _measure(part: Part, config: BenchConfig, session: Session, kinds: list[type[Subject]]) -> None:
    results = session.results
    if part == "add":
        measure_adding(session, kinds, config.one_size)
    elif part == "replay":
        measure_cycles(session, kinds, config.used_sizes, config.batches)
    elif part == "vector":
        _measure_vectors(config, session)
    elif part == "note":
        measure_note(session, config.one_size)
    elif part == "index":
        measure_index(session, config.one_size)
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
        session.results.contenders.append(_participant(OursInFiles))
        measure_files(session, config.one_size)
    elif part == "sb3":
        _measure_sb3(session)
    elif part == "sequences":
        measure_sequences(session, config.peers, config.sequence_sizes, config.one_size)
    elif part == "ray":
        measure_ray(session, config.one_size)
    elif part == "episodes":
        measure_episodes(session, config.one_size, config.stack_sizes[0])
    else:
        _measure_training(config, session)


def _measure_vectors(config: BenchConfig, session: Session) -> None:
    peers: list[type[VectorMemory]] = []
    for peer in config.peers:
        if missing(peer) is None:
            peers += PEERS_VECTOR.get(peer, ())
    kinds: list[type[VectorMemory]] = [*OURS_VECTOR, OursVectorStacks, *peers]
    session.results.contenders += map(_participant, kinds)
    measure_vectors(session, peers, config.one_size, config.stack_sizes[0])


def _measure_stacks(config: BenchConfig, session: Session) -> None:
    kinds = list(OURS_STACKS)
    for peer in config.peers:
        if missing(peer) is None:
            kinds += PEERS_STACKS.get(peer, ())
    session.results.contenders += map(_participant, kinds)
    some, many = config.stack_sizes
    of_stacks = dataclasses.replace(session, workload=Stacks())
    measure_stacks(of_stacks, kinds, some)
    measure_stack_footprints(of_stacks, kinds, some, many)


def _measure_sb3(session: Session) -> None:
    why = missing("stable-baselines3")
    if why is None:
        from benchmarks.sb3_measures import measure_sb3

        _one_thread()
        measure_sb3(session)
    else:
        session.results.absent.append(Absence("training with Stable-Baselines3", why))


def _measure_training(config: BenchConfig, session: Session) -> None:
    from benchmarks.training import measure_training

    session.say("training a DQN beside others")
    settings: dict[str, Any] = {}
    if config.quick:
        settings = {"seeds": (0,), "steps": 5_000, "episodes": 5}
    session.results.training = measure_training(**settings)


def _command(config: BenchConfig) -> str:
    """Return the command that measures the same again."""
    words, plain = ["python -m benchmarks"], BenchConfig()
    names = ("parts", "peers", "sizes", "batches", "sequence_steps", "rounds", "seconds", "clock")
    for name in (*names, "quick"):
        value = getattr(config, name)
        if value != getattr(plain, name):
            told = value if isinstance(value, tuple) else () if value is True else (value,)
            words += [f"--{name.replace('_', '-')}", *map(str, told)]
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
