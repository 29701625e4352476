"""Results as tables of words: the same ones on the screen and on the page.

Knows results and how numbers read best; knows neither rich nor Sphinx, which only draw them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from benchmarks import (
    episode_measures,
    gains,
    index_measures,
    limits,
    measures,
    note_measures,
    ray_measures,
    sb3_measures,
    sequence_measures,
    stack_measures,
    vector_measures,
)
from benchmarks.results import Ratio, Results
from benchmarks.targets import (
    EPISODE_TARGETS,
    INDEX_TARGETS,
    RAY_TARGETS,
    SEQUENCE_TARGETS,
    STACK_TARGETS,
    VECTOR_TARGETS,
    Target,
    Verdict,
    judge,
)
from prioritized_replay.conformance.adapters import ALL_STACKS
from prioritized_replay.conformance.subject import LAWS

Cells = list[list[str]]
"""A heading line and the lines below it."""

LIMITS = (
    limits.COPY, limits.ROWS, limits.CHASE, stack_measures.STACKS, sequence_measures.COPY,
)  # fmt: skip
NARROW = "\N{NO-BREAK SPACE}"


def times_as_fast(results: Results) -> Cells:
    """Return how many times as fast ours is as the fastest peer: measures down, laws across."""
    return [
        ["", *LAWS],
        *([gain.what, *(_peer(gain.by_law.get(law)) for law in LAWS)]
          for gain in gains.gains(results)),
    ]  # fmt: skip


def _peer(found: tuple[float, str] | None) -> str:
    return "" if found is None else f"{ratio(found[0])} {found[1]}"


def ratio(value: float) -> str:
    """Return two digits of a ratio.

    Examples
    --------
    >>> ratio(3.871), ratio(0.848), ratio(12.4)
    ('3.9×', '0.85×', '12×')
    """
    digits = 2 if value < 1 else 1 if value < 10 else 0
    return f"{value:.{digits}f}\N{MULTIPLICATION SIGN}"


def costs(results: Results) -> Cells:
    """Return where ours takes more than the least peer of something other than time of a call."""
    return [
        ["", "ours", "least of the others", "whose"],
        *([cost.what, cost.ours, cost.least, cost.peer] for cost in gains.costs(results)),
    ]


def targets(results: Results) -> Cells:
    """Return every target, what was measured, and whether that is enough."""
    return [
        ["measure", "target", "measured", "middle half", "against", "met"],
        *([v.target.what, _bound(v), *_measured(v)] for v in judge(results)),
    ]


def some_targets(results: Results, wanted: Sequence[Target]) -> Cells:
    """Return those of some targets that were measured."""
    there = [v for v in judge(results, wanted) if v.figure is not None]
    return [
        ["measure", "target", "measured", "middle half", "met"],
        *([v.target.what, _bound(v), *_measured(v)[:2], _measured(v)[3]] for v in there),
    ]


def _bound(verdict: Verdict) -> str:
    sign = (
        "\N{GREATER-THAN OR EQUAL TO}" if verdict.target.at_least else "\N{LESS-THAN OR EQUAL TO}"
    )
    return f"{sign}{NARROW}{verdict.target.bound:g}{NARROW}{verdict.target.unit}"


def _measured(verdict: Verdict) -> list[str]:
    figure, unit = verdict.figure, verdict.target.unit
    if figure is None:
        return ["not measured", "", "", ""]
    against = figure.against if figure.against not in gains.OUR_NAMES else ""
    return [
        f"{number(figure.value)}{NARROW}{unit}",
        _middle(figure.low, figure.high).strip("()"),
        against,
        "yes" if verdict.met else "NO",
    ]


def times(results: Results, wanted: Sequence[str], laws: Sequence[str]) -> Cells:
    """Return medians in microseconds for one call, the middle half of the rounds in brackets.

    Parameters
    ----------
    results : Results
        What was measured.
    wanted : sequence of str
        The measures, a line for each with every size and batch.
    laws : sequence of str
        Of the contenders that get a column; limits that were timed with them get one as well.
    """
    rows = [row for row in results.timings if row.measure in wanted]
    kept = {row.name for row in results.contenders if row.law in laws} | set(LIMITS)
    names = _columns(row.contender for row in rows if row.contender in kept)
    lines: dict[tuple[str, int, int], dict[str, str]] = {}
    for row in rows:
        if row.contender in kept:
            cell = f"{microseconds(row.seconds)} {_middle(1e6 * row.low, 1e6 * row.high)}"
            lines.setdefault((row.measure, row.size, row.batch), {})[row.contender] = cell
    return [
        ["measure", "rows", "batch", *names],
        *(
            [measure, f"{size:,}", str(batch), *(cells.get(name, "") for name in names)]
            for (measure, size, batch), cells in lines.items()
        ),
    ]


def compared(results: Results, laws: Sequence[str] = LAWS) -> Cells:
    """Return ours beside the fastest peer of the same kind, one line per measure, size and batch.

    Rank-based sampling is compared with proportional sampling: no peer has the former.
    """
    table: Cells = [["measure", "rows", "batch", "ours", "fastest peer", "takes", "middle half"]]
    best: dict[tuple[str, int, int, str], Ratio] = {}
    for row in gains.against_peers(results):
        key = (row.measure, row.size, row.batch, row.contender)
        if results.law(row.contender) in laws and (key not in best or row.ratio < best[key].ratio):
            best[key] = row
    for row in best.values():
        table.append(_ratio_line(row))
    return table


def weak(results: Results) -> Cells:
    """Return every measure in which some peer of the same kind takes less time than ours."""
    table: Cells = [["measure", "rows", "batch", "ours", "peer", "takes", "middle half"]]
    return [*table, *(_ratio_line(row) for row in gains.against_peers(results) if row.ratio < 1.0)]


def _ratio_line(row: Ratio) -> list[str]:
    return [
        *(row.measure, f"{row.size:,}", str(row.batch), row.contender, row.against),
        f"{number(row.ratio)}{NARROW}x",
        _middle(row.low, row.high).strip("()"),
    ]


def _middle(low: float, high: float) -> str:
    return f"({number(low)}{NARROW}to{NARROW}{number(high)})"


def vector(results: Results) -> Cells:
    """Return medians of a step of many environments, a line for each way to add it."""
    wanted = (vector_measures.ADD, vector_measures.FLOAT64, vector_measures.COLD,
              vector_measures.STACKS)  # fmt: skip
    rows = [row for row in results.timings if row.measure in wanted]
    streams = sorted({row.batch for row in rows})
    lines: dict[tuple[str, str], dict[int, str]] = {}
    for row in rows:
        cell = f"{microseconds(row.seconds)} {_middle(1e6 * row.low, 1e6 * row.high)}"
        lines.setdefault((row.measure, row.contender), {})[row.batch] = cell
    return [
        ["measure", "contender", *(f"E = {count}" for count in streams)],
        *([*key, *(cells.get(count, "") for count in streams)] for key, cells in lines.items()),
    ]


def notes(results: Results) -> Cells:
    """Return how many times as long calls take that keep notes as calls that keep none."""
    table: Cells = [["measure", "rows", "with notes", "middle half"]]
    for row in results.ratios:
        if row.measure.startswith(note_measures.NOTE):
            measure = row.measure.removeprefix(note_measures.NOTE)
            times = f"{row.ratio:.3f}{NARROW}x"
            middle = f"{row.low:.3f}{NARROW}to{NARROW}{row.high:.3f}"
            table.append([measure, f"{row.size:,}", times, middle])
    return table


def through_ray(results: Results) -> Cells:
    """Return times of calls through Ray, and rows of a second."""
    table: Cells = [["measure", "contender", "milliseconds", "middle half", "rows a second"]]
    wanted = (
        ray_measures.AHEAD, ray_measures.BACK, ray_measures.DRAW, ray_measures.INSERT
    )  # fmt: skip
    for row in results.timings:
        if row.measure in wanted:
            rows = ray_measures.rows_per_second(row)
            empty = row.contender == ray_measures.CALL
            middle = _middle(1e3 * row.low, 1e3 * row.high).strip("()")
            speed = "" if empty else f"{rows:,.0f}"
            table.append([row.measure, row.contender, number(1e3 * row.seconds), middle, speed])
    return table


def sb3(results: Results) -> Cells:
    """Return steps of a second of Stable-Baselines3's algorithms, with its replay and with ours."""
    table: Cells = [["algorithm", "its own replay", "prioritized", "times as fast", "middle half"]]
    for row in results.ratios:
        if row.measure.startswith(sb3_measures.STEP):
            key = (row.measure, row.size, row.batch)
            found = (results.timing(*key, name) for name in (row.against, row.contender))
            speeds = [number(1 / timing.seconds) for timing in found if timing]
            times, middle = f"{row.ratio:.3f}", f"{row.low:.3f}{NARROW}to{NARROW}{row.high:.3f}"
            table.append([row.measure.removeprefix(sb3_measures.STEP), *speeds, times, middle])
    return table


def episodes(results: Results) -> Cells:
    """Return how long a million steps take that are added as episodes, and one by one."""
    ways = episode_measures
    table: Cells = [["measure", "way", "seconds for a million steps", "times add_episode"]]
    beside = {(row.measure, row.against): row for row in results.ratios}
    for row in results.timings:
        if row.measure in (ways.EPISODES, ways.NEW, ways.STACKS):
            of = beside.get((row.measure, row.contender))
            table.append([
                f"{row.measure}, {row.size:,} rows",
                row.contender,
                f"{number(1e6 * row.seconds)} {_middle(1e6 * row.low, 1e6 * row.high)}",
                f"{number(of.ratio)} {_middle(of.low, of.high)}" if of else "",
            ])  # fmt: skip
    return table


def growth(results: Results) -> Cells:
    """Return how many times longer a cycle takes in the largest memory than in the smallest."""
    table = [["from", "to", "batch", "times as long", "middle half"]]
    for row in results.ratios:
        if row.measure == measures.GROWTH:
            ends = [row.contender, f"{row.size:,} rows", str(row.batch)]
            table.append([*ends, number(row.ratio), _middle(row.low, row.high).strip("()")])
    return table


def index(results: Results) -> Cells:
    """Return the time of the sampler alone, of a buffer, and of what both have to do."""
    ways = index_measures
    head = ["sampler", "items", "batch", "index", "buffer", "search and update"]
    table: Cells = [[*head, "index / buffer", "middle half", "search and update / buffer"]]
    rows = {
        (row.size, row.batch, row.against): row
        for row in results.ratios
        if row.measure == ways.INDEX
    }
    for (size, batch, name), row in rows.items():
        law = name.removeprefix(ways.index_name(""))
        if name != ways.index_name(law):
            continue
        names = (name, ways.buffer_name(law), ways.shared_name(law))
        times = [results.timing(ways.INDEX, size, batch, one) for one in names]
        least = rows.get((size, batch, ways.shared_name(law)))
        table.append(
            [
                law, f"{size:,}", str(batch),
                *("" if timing is None else microseconds(timing.seconds) for timing in times),
                number(row.ratio), _middle(row.low, row.high).strip("()"),
                "" if least is None else number(least.ratio),
            ]
        )  # fmt: skip
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


def memory(results: Results, of_stacks: bool = False) -> Cells:
    """Return bytes per transition: as the library says, and as its process grew."""
    table = [["contender", "rows", "bytes it says", "bytes its process grew by"]]
    for row in results.footprints:
        if (row.contender in _STACKS) != of_stacks or row.contender in _OF_STEPS:
            continue
        known = ["" if x is None else f"{x:,.0f}" for x in (row.reserved, row.resident)]
        table.append([row.contender, f"{row.size:,}", *known])
    return table


def files(results: Results) -> Cells:
    """Return times in files beside those in RAM, with the pages cached."""
    table = [["measure", "rows", "batch", "in RAM", "in files", "times as long", "middle half"]]
    for row in results.ratios:
        if stack_measures.TWINS.get(row.against) != row.contender:
            continue
        both = [
            results.timing(row.measure, row.size, row.batch, name)
            for name in (row.contender, row.against)
        ]
        table.append(
            [
                row.measure.removeprefix(stack_measures.IN_FILES), f"{row.size:,}", str(row.batch),
                *("" if timing is None else microseconds(timing.seconds) for timing in both),
                number(row.ratio), _middle(row.low, row.high).strip("()"),
            ]
        )  # fmt: skip
    return table


def sequence_bytes(results: Results) -> Cells:
    """Return the bytes of a step in a buffer of sequences, beside those of a transition."""
    ways = sequence_measures
    table: Cells = [["steps", "rows", "transitions", "sequences", "times as many"]]
    said = {(row.contender, row.size): row.reserved for row in results.footprints}
    for row in results.ratios:
        if row.measure.startswith(ways.BYTES):
            kept = row.measure.removeprefix(f"{ways.BYTES}, ")
            both = (
                said.get((f"{name}, {kept}", row.size)) for name in (row.contender, row.against)
            )
            cells = ["" if value is None else f"{value:,.1f}" for value in both]
            table.append([kept, f"{row.size:,}", *cells, f"{row.ratio:.3f}"])
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


def pairs(what: Mapping[str, str]) -> Cells:
    """Return a mapping as a table of two columns."""
    return [["what", "value"], *([name, value] for name, value in what.items())]


def training(results: Results) -> Cells:
    """Return the speed of each DQN training, median over seeds, and its returns, means."""
    table = [
        [
            "contender", "steps per second", "times stable-baselines3",
            "return in training", "return of the last network",
        ]
    ]  # fmt: skip
    columns = ("steps_per_second", "times_sb3", "training_return", "score")
    for name, row in results.training.get("summary", {}).items():
        values = [row[column] for column in columns]
        table.append([name, *("" if value is None else number(value) for value in values)])
    return table


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


_STACKS = {kind.name for kind in ALL_STACKS}
_OF_STEPS = {
    f"{name}, {kept}"
    for name in (sequence_measures.TRANSITIONS, sequence_measures.OF_SEQUENCES)
    for kept in sequence_measures.KEPT
}
_STACK_TIMES = (stack_measures.ADD, stack_measures.SAMPLE, stack_measures.LOOP)
_SEQUENCE_DRAWS = (sequence_measures.DRAW, sequence_measures.ADD_AND_DRAW)
_SEQUENCES = (
    sequence_measures.UPDATE, sequence_measures.CYCLE, *_SEQUENCE_DRAWS,
    *map(sequence_measures.copied, sequence_measures.WIDTHS),
)  # fmt: skip
_ADDING = (measures.ADD, measures.ADD_WITH_ERROR, measures.EXTEND, measures.LOOP)
_PRIORITIZED = ("proportional", "rank")

TABLES: Mapping[str, Callable[[Results], Cells]] = {
    "gains": times_as_fast,
    "costs": costs,
    "targets": targets,
    "compared": compared,
    "weak": weak,
    "adding": lambda results: times(results, _ADDING, _PRIORITIZED),
    "adding uniform": lambda results: times(results, _ADDING, ("uniform",)),
    "cycles": lambda results: times(results, (measures.CYCLE,), _PRIORITIZED),
    "uniform draws": lambda results: times(results, (measures.SAMPLE,), ("uniform",)),
    "access": lambda results: times(results, (limits.CHASE,), ()),
    "growth": growth,
    "worst": worst,
    "memory": memory,
    "vector": vector,
    "vector targets": lambda results: some_targets(results, VECTOR_TARGETS),
    "notes": notes,
    "ray": through_ray,
    "ray targets": lambda results: some_targets(results, RAY_TARGETS),
    "index": index,
    "index targets": lambda results: some_targets(results, INDEX_TARGETS),
    "stack targets": lambda results: some_targets(results, STACK_TARGETS),
    "stacks": lambda results: times(results, _STACK_TIMES, _PRIORITIZED),
    "uniform stacks": lambda results: times(results, _STACK_TIMES, ("uniform",)),
    "stack memory": lambda results: memory(results, of_stacks=True),
    "files": files,
    "episodes": episodes,
    "episode targets": lambda results: some_targets(results, EPISODE_TARGETS),
    "sequences": lambda results: times(results, _SEQUENCES, _PRIORITIZED),
    "uniform sequences": lambda results: times(results, _SEQUENCE_DRAWS, ("uniform",)),
    "sequence bytes": sequence_bytes,
    "sequence targets": lambda results: some_targets(results, SEQUENCE_TARGETS),
    "starts": starts,
    "training": training,
    "sb3": sb3,
    "settings": settings,
    "absent": absent,
    "checks": checks,
    "machine": lambda results: pairs(results.made),
    "data": lambda results: pairs(results.workload),
    "limits": lambda results: pairs(
        limits.MEANING
        | vector_measures.MEANING
        | ray_measures.MEANING
        | {stack_measures.STACKS: stack_measures.MEANING}
        | {sequence_measures.COPY: sequence_measures.MEANING}
    ),
}
"""Every table, by the name that the page uses."""

SHOWN = {
    "gains": "how many times as fast as the fastest peer",
    "costs": "what it costs",
    "targets": "targets",
    "compared": "ours beside the fastest peer: how many times as long the peer takes",
    "growth": "growth with the rows in memory",
    "worst": "awkward priorities",
    "memory": "bytes per transition",
    "vector": "a step of each of E environments, microseconds",
    "vector targets": "targets, steps of many environments",
    "notes": "calls that keep notes, in times of calls that keep none",
    "ray": "through Ray, 1024 rows",
    "ray targets": "targets, through Ray",
    "index": "the sampler alone beside a buffer, sample + update, microseconds",
    "index targets": "targets, the sampler alone",
    "stack targets": "targets, stacks of frames",
    "stacks": "stacks of frames, microseconds",
    "uniform stacks": "stacks of frames, uniform memories, microseconds",
    "stack memory": "bytes per transition, stacks of frames",
    "files": "rows in files, pages cached, beside rows in RAM: microseconds",
    "episodes": "whole episodes, beside one call a step",
    "episode targets": "targets, whole episodes",
    "sequences": "sequences, microseconds",
    "uniform sequences": "sequences drawn uniformly, microseconds",
    "sequence bytes": "bytes of a step, of sequences beside single transitions",
    "sequence targets": "targets, sequences",
    "starts": "new processes",
    "training": "training a DQN",
    "sb3": "Stable-Baselines3's algorithms: steps of a second with its own replay and with ours",
    "absent": "left out",
}
"""The tables of the screen, with their titles."""
