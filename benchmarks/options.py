"""What the race measures, and how thoroughly."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

import tyro

from benchmarks.timing import Clock, Effort
from prioritized_replay.conformance.adapters import Peer

Part = Literal[
    "add", "episodes", "replay", "vector", "note", "index", "worst", "memory", "start", "training",
    "stacks", "files", "sb3", "sequences", "ray",
]  # fmt: skip
SEQUENCE_SIZES, LEAST_STEPS = (1_000_000, 10_000_000, 100_000_000), 1_000
MANY_STACKS, SOME_STACKS, FEW_STACKS = 1_000_000, 50_000, 5_000


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """What is measured, beside whom, how thoroughly, and where the results go."""

    parts: tuple[Part, ...] = get_args(Part)
    """What to measure: adding rows; whole episodes; drawing with updates, at every size; adding
    steps of many environments at once; what it costs that a call may be interrupted; the sampler
    alone beside a buffer; hard priorities; bytes per transition; new processes; the training of a
    DQN; stacks of frames, their bytes among it; rows in files; the algorithms of
    Stable-Baselines3, with its replay and with ours; sequences of steps; rows through Ray."""

    peers: tuple[Peer, ...] = get_args(Peer)
    """Libraries to measure beside; one that is not installed is named as such and left out."""

    sizes: tuple[int, ...] = (10_000, 1_000_000, 10_000_000)
    """Rows in memory. The largest of at most a million also serves add, worst, memory, files and
    episodes."""

    batches: tuple[int, ...] = (32, 256, 1024)
    """Rows of a batch."""

    sequence_steps: int = 100_000_000
    """Steps of the largest memory of sequences; a hundred million take 8 GB."""

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
        if self.sequence_steps < LEAST_STEPS:
            raise ValueError(f"sequence_steps must be >= {LEAST_STEPS}, got {self.sequence_steps}")
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
    def sequence_sizes(self) -> tuple[int, ...]:
        """Steps of the memories of sequences, smallest first: of those up to the largest."""
        most = min(self.sequence_steps, 1_000_000) if self.quick else self.sequence_steps
        return (*(size for size in SEQUENCE_SIZES if size < most), most)

    @property
    def one_size(self) -> int:
        """The size for what is measured at one size only."""
        sizes = self.used_sizes
        return max((size for size in sizes if size <= 1_000_000), default=sizes[0])
