"""How a memory fared in all scenarios: as a value, as JSON and as Markdown.

Knows results; knows neither the terminal nor how they came about.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prioritized_replay.conformance.memory import Adapter, Wanted
from prioritized_replay.conformance.scenario import Outcome, Scenario, judge

OUTCOMES: Sequence[Outcome] = ("pass", "fail", "not claimed")


@dataclass(frozen=True)
class Line:
    """One scenario's result. ``reproduction`` is a short program, where the memory failed."""

    name: str
    group: str
    rule: str
    source: str
    outcome: str
    seen: str
    reproduction: str = ""


@dataclass(frozen=True)
class Report:
    """All results of one memory.

    Attributes
    ----------
    memory, library, version, law, settings : str
        As its adapter says.
    factory : str
        By which name it was found.
    seed : int
    suite : str
        Version of this package, whose scenarios they are.
    lines : list of Line
    seconds : float, optional
        Wall time of all scenarios together; None if it was not measured.
    """

    memory: str
    library: str
    version: str
    law: str
    settings: str
    factory: str
    seed: int
    suite: str
    lines: Sequence[Line]
    seconds: float | None = None

    def counts(self, group: str | None = None) -> dict[str, int]:
        """Return how many passed, failed and are not claimed, of all or of one group."""
        found = Counter(line.outcome for line in self.lines if group in (None, line.group))
        return {outcome: found[outcome] for outcome in OUTCOMES}

    @property
    def groups(self) -> list[str]:
        """The groups, in the order of the lines."""
        return list(dict.fromkeys(line.group for line in self.lines))

    @property
    def failures(self) -> list[Line]:
        """What was claimed and failed."""
        return [line for line in self.lines if line.outcome == "fail"]

    @property
    def summary(self) -> str:
        """The counts in words."""
        counts = self.counts()
        return f"{counts['pass']} pass, {counts['fail']} fail, {counts['not claimed']} not claimed"

    def to_json(self) -> str:
        """Return the report as a JSON text; :meth:`from_json` reads it back."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Report:
        """Read a report.

        Raises
        ------
        ValueError
            The text is no report.
        """
        try:
            values: dict[str, Any] = json.loads(text)
            return cls(**values | {"lines": [Line(**line) for line in values["lines"]]})
        except (TypeError, KeyError, ValueError) as error:
            raise ValueError(f"this is no report of per check: {error}") from error

    @classmethod
    def read(cls, path: Path) -> Report:
        """Read the file that ``per check --json`` wrote."""
        return cls.from_json(path.read_text(encoding="utf-8"))

    def to_markdown(self) -> str:
        """Return the report as Markdown: counts, a table of all results, failures to reproduce."""
        parts = [
            f"# {self.memory}\n\n{self.library} {self.version}: {self.summary}. {self.settings}",
            _table(
                ["group", *OUTCOMES],
                [[group, *map(str, self.counts(group).values())] for group in self.groups],
            ),
        ]
        parts += [
            f"## {line.name}\n\n{line.rule} Source: {line.source}.\n\nSeen: {line.seen}\n\n"
            f"```python\n{line.reproduction}\n```"
            for line in self.failures
        ]
        rows = [[line.name, line.rule, line.outcome, line.seen] for line in self.lines]
        parts.append("## All scenarios\n\n" + _table(["scenario", "rule", "result", "seen"], rows))
        return "\n\n".join(parts) + "\n"


def check(
    adapter: Adapter,
    scenarios: Iterable[Scenario],
    factory: str,
    seed: int = 0,
    before_each: Callable[[Scenario], None] = lambda scenario: None,
) -> Report:
    """Run scenarios, one after the other.

    Parameters
    ----------
    adapter : Adapter
    scenarios : iterable of Scenario
    factory : str
        The adapter's ``MODULE:FACTORY``, for the programs that reproduce failures.
    seed : int
    before_each : callable
        Is told the scenario that comes next.
    """
    from prioritized_replay import __version__

    with contextlib.suppress(Exception):  # if it cannot be made, the scenarios say so
        adapter.make(Wanted())  # imports the library now: no call of a scenario waits for that
    lines = []
    began = time.perf_counter()
    for each in scenarios:
        before_each(each)
        result = judge(each, adapter, seed)
        failed = result.outcome == "fail"
        program = each.reproduction(factory, seed) if failed else ""
        lines.append(
            Line(
                each.name, each.group, each.rule, each.source, result.outcome, result.seen, program
            )
        )
    return Report(
        adapter.name, adapter.library, adapter.version, adapter.law, adapter.settings,
        factory, seed, __version__, lines, round(time.perf_counter() - began, 1),
    )  # fmt: skip


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |"
        for line in lines
    )
