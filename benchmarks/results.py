"""What was measured, and the file that keeps it: plain rows, written as JSON and read back.

Knows names and numbers; knows nothing of how they were measured or of what they should be.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from dataclasses import asdict, dataclass, field, fields
from importlib import metadata
from pathlib import Path
from typing import Any, Self

from prioritized_replay import __version__

FILE = "benchmarks.json"
FORMAT = 1

_PACKAGES = (
    *("numpy", "numba", "cpprb", "tianshou", "stable-baselines3", "torchrl", "torch"),
    "gymnasium",
    "ray",
)


@dataclass(frozen=True)
class Participant:
    """A contender that took part, and how it was used."""

    name: str
    library: str
    law: str
    settings: dict[str, str]


@dataclass(frozen=True)
class Absence:
    """Something that was not measured, and why."""

    what: str
    why: str


@dataclass(frozen=True)
class Timing:
    """Time of one call: the median over rounds, and its quartiles.

    Attributes
    ----------
    measure : str
        What one call does.
    size, batch : int
        Rows in the memory; rows drawn or added by one call.
    contender : str
        Whose time it is.
    seconds, low, high : float
        Median and quartiles over rounds, of the mean time of a call in a round.
    rounds, calls : int
        Rounds, and calls in each.
    """

    measure: str
    size: int
    batch: int
    contender: str
    seconds: float
    low: float
    high: float
    rounds: int
    calls: int


@dataclass(frozen=True)
class Ratio:
    """How many times longer ``against`` takes than ``contender``, round by round in turns."""

    measure: str
    size: int
    batch: int
    contender: str
    against: str
    ratio: float
    low: float
    high: float


@dataclass(frozen=True)
class Footprint:
    """Bytes per transition: as the library says, and as the process grew. None: not known."""

    contender: str
    size: int
    reserved: float | None
    resident: float | None


@dataclass(frozen=True)
class Start:
    """Seconds in new processes: median, least and most."""

    what: str
    seconds: float
    least: float
    most: float
    runs: int


@dataclass(frozen=True)
class Check:
    """What the checks of a contender found."""

    contender: str
    size: int
    found: str


@dataclass
class Results:
    """Everything that one run of the benchmark found out."""

    made: dict[str, str] = field(default_factory=dict)
    workload: dict[str, str] = field(default_factory=dict)
    contenders: list[Participant] = field(default_factory=list)
    absent: list[Absence] = field(default_factory=list)
    timings: list[Timing] = field(default_factory=list)
    ratios: list[Ratio] = field(default_factory=list)
    footprints: list[Footprint] = field(default_factory=list)
    starts: list[Start] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    training: dict[str, Any] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Write everything as JSON, in one step."""
        beside = path.with_suffix(".part")
        text = json.dumps({"format": FORMAT} | _rounded(asdict(self)), indent=1, allow_nan=False)
        beside.write_text(text + "\n", encoding="utf-8")
        beside.replace(path)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what :meth:`write` wrote.

        Raises
        ------
        ValueError
            The file is not one of these, or from another version.
        """
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            if kept.pop("format") != FORMAT:
                raise ValueError(f"its format is not {FORMAT}")
            for name, kind in _ROWS.items():
                kept[name] = [kind(**row) for row in kept[name]]
            return cls(**kept)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{path} is no file of python -m benchmarks: {error}") from error

    def timing(self, measure: str, size: int, batch: int, contender: str) -> Timing | None:
        """Return one timing, or None if there is none."""
        key = (measure, size, batch, contender)
        for row in self.timings:
            if (row.measure, row.size, row.batch, row.contender) == key:
                return row
        return None

    def law(self, contender: str) -> str | None:
        """Return how a contender draws; None for what is none, such as a limit."""
        return next((row.law for row in self.contenders if row.name == contender), None)


_ROWS: dict[str, Any] = {
    "contenders": Participant,
    "absent": Absence,
    "timings": Timing,
    "ratios": Ratio,
    "footprints": Footprint,
    "starts": Start,
    "checks": Check,
}
assert _ROWS.keys() <= {f.name for f in fields(Results)}


def _rounded(value: Any) -> Any:
    """Five digits are more than a measurement has, and keep the file readable."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_rounded(inner) for inner in value]
    return value


def surroundings() -> dict[str, str]:
    """Return the machine and the versions that a measurement was made with."""
    memory = _meminfo("MemTotal")
    made = {
        "processor": _processor(),
        "cores": f"{_usable_cores()} usable of {os.cpu_count()}, one used",
        "memory": "unknown" if memory is None else f"{memory / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.machine()}",
        "Python": platform.python_version(),
        "prioritized-replay": __version__,
    }
    for package in _PACKAGES:
        try:
            made[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return made


def load() -> str:
    """Return what else the machine is doing: the mean number of busy processes of a minute."""
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"


def available_bytes() -> int | None:
    """Return how much memory is free for a new buffer; None where the system does not say."""
    return _meminfo("MemAvailable")


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _meminfo(name: str) -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return 1024 * int(line.split()[1])
    except OSError:  # no Linux
        pass
    return None


def _processor() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return " ".join(line.split(":", 1)[1].split())
    return platform.processor() or platform.machine()
