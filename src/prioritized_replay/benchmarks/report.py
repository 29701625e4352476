"""Results as tables of words: the same ones on the screen and on the page.

Knows results and how numbers read best; knows neither rich nor Sphinx, which only draw them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from prioritized_replay.benchmarks import limits, measures
from prioritized_replay.benchmarks.results import Results
from prioritized_replay.benchmarks.targets import Verdict, judge

Cells = list[list[str]]
"""A heading line and the lines below it."""

LIMITS = (limits.COPY, limits.ROWS, limits.CHASE)
NARROW = "\N{NO-BREAK SPACE}"


def targets(results: Results) -> Cells:
    """Return every target, what was measured, and whether that is enough."""
    table = [["measure", "target", "measured", "middle half", "against", "met"]]
    for verdict in judge(results):
        table.append([verdict.target.what, _bound(verdict), *_measured(verdict)])
    return table


def _bound(verdict: Verdict) -> str:
    sign = "\N{GREATER-THAN OR EQUAL TO}" if verdict.target.at_least else "\N{LESS-THAN OR EQUAL TO}"
    return f"{sign}{NARROW}{verdict.target.bound:g}{NARROW}{verdict.target.unit}"


def _measured(verdict: Verdict) -> list[str]:
    figure, unit = verdict.figure, verdict.target.unit
    if figure is None:
        return ["not measured", "", "", ""]
    against = figure.against if figure.against not in _OURS else ""
    value, low, high = (number(x) for x in (figure.value, figure.low, figure.high))
    return [
        f"{value}{NARROW}{unit}",
        f"{low} to {high}".replace(" ", NARROW),
        against,
        "yes" if verdict.met else "NO",
    ]


_OURS = ("ours, proportional", "ours, rank-based", "ours, uniform")


def times(results: Results, wanted: Sequence[str]) -> Cells:
    """Return the medians of some measures, one line per measure, size and batch.

    Each line names the time of every contender in microseconds for one call, with the middle half
    of the rounds in brackets.
    """
    rows = [row for row in results.timings if row.measure in wanted]
    names = _columns(row.contender for row in rows)
    lines: dict[tuple[str, int, int], dict[str, str]] = {}
    for row in rows:
        cell = f"{microseconds(row.seconds)} ({microseconds(row.low)} to {microseconds(row.high)})"
        cell = cell.replace(" to ", f"{NARROW}to{NARROW}")
        lines.setdefault((row.measure, row.size, row.batch), {})[row.contender] = cell
    return [
        ["measure", "rows", "batch", *names],
        *(
            [measure, f"{size:,}", str(batch), *(cells.get(name, "") for name in names)]
            for (measure, size, batch), cells in lines.items()
        ),
    ]


def ratios(results: Results, wanted: Sequence[str]) -> Cells:
    """Return how many times longer everybody takes than each of ours, round by round."""
    rows = [row for row in results.ratios if row.measure in wanted]
    names = _columns(row.against for row in rows)
    lines: dict[tuple[str, int, int, str], dict[str, str]] = {}
    for row in rows:
        cell = f"{number(row.ratio)} ({number(row.low)} to {number(row.high)})"
        key = (row.measure, row.size, row.batch, row.contender)
        lines.setdefault(key, {})[row.against] = cell.replace(" to ", f"{NARROW}to{NARROW}")
    return [
        ["measure", "rows", "batch", "ours", *names],
        *(
            [measure, f"{size:,}", str(batch), ours, *(cells.get(name, "") for name in names)]
            for (measure, size, batch, ours), cells in lines.items()
        ),
    ]


def growth(results: Results) -> Cells:
    """Return how many times longer a cycle takes in the largest memory than in the smallest."""
    table = [["from", "to", "batch", "times as long", "middle half"]]
    for row in results.ratios:
        if row.measure == measures.GROWTH:
            ends = [row.contender, f"{row.size:,} rows", str(row.batch)]
            middle = f"{number(row.low)} to {number(row.high)}".replace(" ", NARROW)
            table.append([*ends, number(row.ratio), middle])
    return table


def worst(results: Results) -> Cells:
    """Return the time with awkward priorities, and against random ones of the same contender."""
    table: Cells = [["priorities", "contender", "microseconds", "times random ones"]]
    for case in measures.WORST:
        for row in results.timings:
            if row.measure != f"worst: {case}":
                continue
            plain = results.timing("worst: random", row.size, row.batch, row.contender)
            # Overwriting adds as many rows as it draws: that is no longer the same work.
            alike = plain is not None and case not in ("random", "overwriting")
            slower = number(row.seconds / plain.seconds) if plain is not None and alike else ""
            table.append([case, row.contender, microseconds(row.seconds), slower])
    return table


def memory(results: Results) -> Cells:
    """Return bytes per transition: as the library says, and as its process grew."""
    table = [["contender", "rows", "bytes it says", "bytes its process grew by"]]
    for row in results.footprints:
        known = ["" if x is None else f"{x:,.0f}" for x in (row.reserved, row.resident)]
        table.append([row.contender, f"{row.size:,}", *known])
    return table


def starts(results: Results) -> Cells:
    """Return how long new processes take to get going."""
    table = [["what a new process does", "seconds", "least and most", "processes"]]
    for row in results.starts:
        ends = f"{row.least:.2f} to {row.most:.2f}".replace(" ", NARROW)
        table.append([row.what, f"{row.seconds:.2f}", ends, str(row.runs)])
    return table


def settings(results: Results) -> Cells:
    """Return how each contender was used."""
    table = [["contender", "setting", "value"]]
    for taking in results.contenders:
        table += [[taking.name, name, value] for name, value in taking.settings.items()]
    return table


def pairs(what: Mapping[str, str], head: tuple[str, str] = ("what", "value")) -> Cells:
    """Return a mapping as a table of two columns."""
    return [list(head), *([name, value] for name, value in what.items())]


def absent(results: Results) -> Cells:
    """Return what was not measured, and why."""
    return [["not measured", "why"], *([row.what, row.why] for row in results.absent)]


def checks(results: Results) -> Cells:
    """Return what the checks found."""
    table = [["contender", "rows", "found"]]
    return [*table, *([row.contender, f"{row.size:,}", row.found] for row in results.checks)]


def microseconds(seconds: float) -> str:
    """Return a time in microseconds.

    Examples
    --------
    >>> microseconds(1.234e-6), microseconds(0.0123), microseconds(4.2e-8)
    ('1.23', '12,300', '0.042')
    """
    return number(1e6 * seconds)


def number(value: float) -> str:
    """Return three digits of a number, more of those above 1,000.

    Examples
    --------
    >>> number(9.876), number(12345.6), number(0.5), number(456.7)
    ('9.88', '12,346', '0.5', '457')
    """
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.3g}"


def _columns(names: Iterable[str]) -> list[str]:
    """Contenders in the order in which they come, limits last."""
    there = list(dict.fromkeys(names))
    return [n for n in there if n not in LIMITS] + [n for n in LIMITS if n in there]
