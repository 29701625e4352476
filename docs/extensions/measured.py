"""Figures and tables made from measured files, so that no number is typed into a page.

``measured-figure`` shows a picture. ``measured-table`` reads a CSV with one row per run and shows
one cell per group of runs: their median, and in brackets the smallest and the largest.
``comparison-table`` reads the results of ``per compare`` and shows what that command prints.
``environments-table`` shows one line for each of several such results. Where a file is not there,
they say which command makes it. The role ``measured`` is one number of a file, in a sentence.

.. code:: rst

   .. measured-table:: results/cliffwalk.csv
      :command: per reproduce cliffwalk
      :rows: n
      :columns: replay
      :value: updates
      :where: features=tabular

   after :measured:`results/chain/chain-summary.csv value n=64 arm=rank measure=values` updates
"""

from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

import numpy as np
from docutils import nodes
from docutils.parsers.rst import directives
from docutils.parsers.rst.directives.images import Figure
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective, SphinxRole

from prioritized_replay.training.statistics import Estimate, bootstrap, mean

Run = dict[str, str]


ENVIRONMENTS = [
    *("environment", "steps", "seconds", "final return", "solved at", "runs that reach it"),
    *("best policy", "runs as good"),
]


def number(text: str) -> float | str:
    """Numbers sort as numbers, everything else as text after them."""
    try:
        return float(text)
    except ValueError:
        return text


def in_order(labels: Iterable[str]) -> list[str]:
    return sorted(set(labels), key=lambda label: (isinstance(number(label), str), number(label)))


def shown(value: float) -> str:
    if value == math.inf:
        return "not learnt"
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:,.4g}"


def summary(values: list[float]) -> str:
    """Median, and smallest to largest where there is more than one value."""
    middle = shown(statistics.median(values))
    return middle + (in_brackets(shown(min(values)), shown(max(values))) if values[1:] else "")


def in_brackets(low: str, high: str) -> str:
    """A range that stays on one line, be it the next one."""
    return f" ({low} to {high})".replace(" ", "\N{NO-BREAK SPACE}").replace("\xa0(", " (")


def pivot(runs: list[Run], row: str, column: str, value: str, order: list[str]) -> list[list[str]]:
    """Lay runs out as a table: a heading line, then one line per value of ``row``."""
    columns = order or in_order(run[column] for run in runs)
    table = [[row, *columns]]
    for label in in_order(run[row] for run in runs):
        line = [label]
        for name in columns:
            found = [run[value] for run in runs if (run[row], run[column]) == (label, name)]
            line.append(cell(found))
        table.append(line)
    return table


def cell(found: list[str]) -> str:
    """A word as it is, numbers summed up; one that is empty stands for never."""
    if len(found) == 1 and found[0] and isinstance(number(found[0]), str):
        return found[0]
    return summary([float(text or "inf") for text in found]) if found else ""


def runs_in(path: Path) -> list[Run]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def interval(estimate: Estimate, form: str = ",.1f") -> str:
    value, low, high = (f"{x:{form}}" for x in (estimate.value, estimate.low, estimate.high))
    return value + in_brackets(low, high)


def comparison(runs: list[Run]) -> list[list[str]]:
    """One line per arm, uniform last, and for every other arm its difference from uniform."""
    threshold = float(runs[0]["threshold"])
    head = ["arm", f"runs that reach {threshold:g}", "final return", "against uniform"]
    table = [[*head, f"steps to {threshold:g}, median"]]
    names = sorted({run["arm"] for run in runs}, key=lambda arm: (arm == "uniform", arm))
    arms = {arm: {run["seed"]: run for run in runs if run["arm"] == arm} for arm in names}
    for arm, by_seed in arms.items():
        rows = list(by_seed.values())
        never = sum(int(row["censored"]) for row in rows)
        pairs = [
            float(row["final_mean"]) - float(arms["uniform"][seed]["final_mean"])
            for seed, row in by_seed.items()
            if arm != "uniform" and seed in arms.get("uniform", {})
        ]
        steps = statistics.median(float(row["steps_to_threshold"]) for row in rows)
        table.append(
            [
                arm,
                f"{sum(int(row['reached']) for row in rows)} of {len(rows)}",
                interval(bootstrap(np.array([float(row["final_mean"]) for row in rows]))),
                interval(bootstrap(np.array(pairs), mean), "+,.1f") if pairs else "",
                f"{steps:,.0f}" + (f"; {never} never" if never else ""),
            ]
        )
    return table


def environment(runs: list[Run], best: dict[tuple[str, str], float]) -> list[str]:
    """What the runs of one comparison got to, as a line of a table with ENVIRONMENTS above it.

    ``best`` holds what the best policy gets with the same environment and seed, where it is known.
    """
    threshold = runs[0]["threshold"]  # empty where the environment names none
    reached = sum(int(run["reached"]) for run in runs)
    known = [
        (float(run["final_mean"]), best[key])
        for run in runs
        if (key := (run["env_id"], run["seed"])) in best
    ]
    good = sum(final >= most - 1e-9 for final, most in known)
    return [
        runs[0]["env_id"],
        f"{int(runs[0]['steps']):,}",
        summary([round(float(run["wall_seconds"])) for run in runs]),
        summary([float(run["final_mean"]) for run in runs]),
        shown(float(threshold)) if threshold else "",
        f"{reached} of {len(runs)}" if threshold else "",
        summary([most for _, most in known]) if known else "",
        f"{good} of {len(known)}" if known else "",
    ]


class Measured(SphinxDirective):
    """What the directives share: where the file is, and what to say when it is not."""

    def file(self) -> Path:
        name, path = self.env.relfn2path(self.arguments[0])
        self.env.note_dependency(name)
        return Path(path)

    def absent(self) -> list[nodes.Node]:
        command = self.options["command"]
        return self.parse_text_to_nodes(f"Not measured in this checkout; ``{command}`` does it.")


class MeasuredFigure(Measured):
    required_arguments = 1
    has_content = True
    option_spec: ClassVar = {"command": directives.unchanged_required, **Figure.option_spec}

    def run(self) -> list[nodes.Node]:
        if not self.file().exists():
            return self.absent()
        options = [f"   :{k}: {v}" for k, v in self.options.items() if k != "command"]
        lines = [f".. figure:: {self.arguments[0]}", *options, ""]
        lines += [f"   {line}" for line in self.content]
        parent = nodes.Element()
        self.state.nested_parse(StringList(lines, self.get_source_info()[0]), 0, parent)
        return parent.children


class MeasuredTable(Measured):
    required_arguments = 1
    option_spec: ClassVar = {
        "command": directives.unchanged_required,
        "rows": directives.unchanged_required,
        "columns": directives.unchanged_required,
        "value": directives.unchanged_required,
        "where": directives.unchanged,  # name=value, more of them separated by spaces
        "order": directives.unchanged,  # the columns in this order, separated by spaces
        "otherwise": directives.unchanged,  # the text where no row is wanted
    }

    def run(self) -> list[nodes.Node]:
        path = self.file()
        if not path.exists():
            return self.absent()
        wanted = dict(pair.split("=", 1) for pair in self.options.get("where", "").split())
        runs = [run for run in runs_in(path) if wanted.items() <= run.items()]
        if not runs and "otherwise" in self.options:
            return self.parse_text_to_nodes(self.options["otherwise"])
        if not runs:
            raise self.error(f"{self.arguments[0]} has no row with {wanted}")
        order = self.options.get("order", "").split()
        cells = pivot(
            runs, self.options["rows"], self.options["columns"], self.options["value"], order
        )
        return [table_of(cells)]


class ComparisonTable(Measured):
    required_arguments = 1
    option_spec: ClassVar = {"command": directives.unchanged_required}

    def run(self) -> list[nodes.Node]:
        path = self.file()
        return [table_of(comparison(runs_in(path)))] if path.exists() else self.absent()


class EnvironmentsTable(SphinxDirective):
    has_content = True  # the results of several comparisons, one file a line
    option_spec: ClassVar = {
        "command": directives.unchanged_required,
        "arm": directives.unchanged,
        "best": directives.unchanged,  # the file with what the best policies get
    }

    def run(self) -> list[nodes.Node]:
        name, path = self.env.relfn2path(self.options["best"])
        self.env.note_dependency(name)
        best = {(line["env_id"], line["seed"]): float(line["mean"]) for line in runs_in(Path(path))}
        cells = [ENVIRONMENTS]
        absent = []
        for line in self.content:
            name, path = self.env.relfn2path(line.strip())
            self.env.note_dependency(name)
            if not Path(path).exists():
                absent.append(line.strip())
                continue
            runs = runs_in(Path(path))
            mine = [run for run in runs if run["arm"] == self.options["arm"]]
            cells.append(environment(mine, best))
        made: list[nodes.Node] = [table_of(cells)]
        if absent:
            text = f"Not in this checkout: {', '.join(absent)}; ``{self.options['command']}``."
            made += self.parse_text_to_nodes(text)
        return made


class MeasuredNumber(SphinxRole):
    """The file, the column, and name=value of the one row: ``file.csv column name=value ...``."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        file, column, *wanted = self.text.split()
        name, path = self.env.relfn2path(file)
        self.env.note_dependency(name)
        return [nodes.Text(number_in(Path(path), column, wanted))], []


def number_in(path: Path, column: str, wanted: list[str]) -> str:
    """The one cell of a file that is meant; where there is no file, that it is not measured."""
    if not path.exists():
        return "(not measured)"
    cells = dict(pair.split("=", 1) for pair in wanted)
    (row,) = [run for run in runs_in(path) if cells.items() <= run.items()]
    return shown(float(row[column]))


def table_of(cells: list[list[str]]) -> nodes.table:
    group = nodes.tgroup(cols=len(cells[0]))
    group += [nodes.colspec(colwidth=1) for _ in cells[0]]
    head, body = nodes.thead(), nodes.tbody()
    for index, line in enumerate(cells):
        row = nodes.row()
        for text in line:
            row += nodes.entry("", nodes.paragraph("", text))
        (body if index else head).append(row)
    group += [head, body]
    return nodes.table("", group, classes=["measured"])


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("measured-figure", MeasuredFigure)
    app.add_directive("measured-table", MeasuredTable)
    app.add_directive("comparison-table", ComparisonTable)
    app.add_directive("environments-table", EnvironmentsTable)
    app.add_role("measured", MeasuredNumber())
    return {"parallel_read_safe": True, "parallel_write_safe": True}
