"""Tables of ``per check``: its scenarios, from the code, and results, from the files it wrote.

``conformance-scenarios`` lists every scenario with its rule and its source. The others take a
folder: every ``*.json`` in it is the report of one memory, as ``per check --json`` writes it, and
adding a file is all that it takes to show another one.

.. code:: rst

   .. conformance-results:: results/conformance
      :command: per check MODULE:FACTORY --json FILE

``conformance-results`` has a line for each memory, ``conformance-failures`` what failed and how to
see it again, ``conformance-not-claimed`` which scenarios are not claimed and why,
``conformance-caught`` by which scenario each of our wrong memories is caught.
"""

from __future__ import annotations

import tomllib
from html import escape
from pathlib import Path
from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from measured import Measured, table_of
from settings import table
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from prioritized_replay.conformance.memories.wrong import CAUGHT_BY
from prioritized_replay.conformance.report import Report
from prioritized_replay.conformance.scenarios import GROUPS, SCENARIOS

OURS = "prioritized-replay"


def in_order(reports: list[Report]) -> list[Report]:
    """Ours first, the others by their names."""
    return sorted(reports, key=lambda report: (report.library != OURS, report.memory.lower()))


class Scenarios(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        shown: list[nodes.Node] = []
        for group in GROUPS:
            rows: list[list[nodes.Node | str]] = [
                [nodes.paragraph("", "", nodes.literal("", each.name)), each.rule, each.source]
                for each in SCENARIOS
                if each.group == group
            ]
            shown.append(nodes.rubric("", group))
            shown.append(table(["scenario", "rule", "source"], rows, [30, 40, 30]))
        return shown


class OfReports(Measured):
    """What the directives share: the reports in a folder."""

    required_arguments = 1
    option_spec: ClassVar = {"command": directives.unchanged_required}

    def reports(self) -> list[Report]:
        self.env.note_reread()  # a file more is no change of any file that was read
        folder = Path(self.env.relfn2path(self.arguments[0])[1])
        return in_order([Report.read(path) for path in sorted(folder.glob("*.json"))])

    def run(self) -> list[nodes.Node]:
        reports = self.reports()
        return self.shown(reports) if reports else self.absent()

    def shown(self, reports: list[Report]) -> list[nodes.Node]:
        """What of them is to be seen; there is one at least."""
        raise NotImplementedError


class Results(OfReports):
    def shown(self, reports: list[Report]) -> list[nodes.Node]:
        cells = [["memory", "version", "pass", "fail", "not claimed", "seconds", *GROUPS]]
        for report in reports:
            counts = [str(each) for each in report.counts().values()]
            counts.append("\N{EN DASH}" if report.seconds is None else f"{report.seconds:.0f}")
            cells.append(
                [report.memory, report.version, *counts]
                + [share(report, group) for group in GROUPS]
            )
        return [table_of(cells)]


def share(report: Report, group: str) -> str:
    """How many pass of those that are claimed."""
    counts = report.counts(group)
    claimed = counts["pass"] + counts["fail"]
    return (
        f"{counts['pass']}\N{NO-BREAK SPACE}of\N{NO-BREAK SPACE}{claimed}"
        if claimed
        else "\N{EN DASH}"
    )


class Failures(OfReports):
    def shown(self, reports: list[Report]) -> list[nodes.Node]:
        shown: list[nodes.Node] = []
        for report in reports:
            if not report.failures:
                continue
            shown.append(nodes.rubric("", f"{report.memory} ({report.library} {report.version})"))
            shown.append(nodes.paragraph("", report.settings))
            for line in report.failures:
                item = nodes.paragraph()
                item += [nodes.literal("", line.name), nodes.Text(f": {line.rule} ")]
                item += [nodes.emphasis("", "Seen: "), nodes.Text(line.seen)]
                program = nodes.literal_block(line.reproduction, line.reproduction)
                program["language"] = "python"
                shown += [
                    item,
                    nodes.raw("", "<details><summary>To see it</summary>", format="html"),
                    program,
                    *self.alone(report, line.name),
                    nodes.raw("", "</details>", format="html"),
                ]
        whole = [report for report in reports if not report.failures]
        if whole:
            shown.append(nodes.paragraph("", "Of these nothing that is claimed fails:"))
            said = [nodes.paragraph("", f"{each.memory}: {each.settings}") for each in whole]
            shown.append(nodes.bullet_list("", *[nodes.list_item("", each) for each in said]))
        return shown

    def alone(self, report: Report, scenario: str) -> list[nodes.Node]:
        """The program in ``reproductions`` that uses the library alone, and what it printed."""
        folder = Path(self.env.relfn2path(self.arguments[0])[1]) / "reproductions"
        library = report.memory.partition(",")[0]
        shared = folder / "shared.toml"
        causes = tomllib.loads(shared.read_text()) if shared.is_file() else {}
        if cause := causes.get(library, {}).get(scenario):
            said = nodes.paragraph("", "The cause is shown with the library alone at ")
            said += [nodes.literal("", cause), nodes.Text(".")]
            return [said]
        program = folder / f"{library}-{scenario}.py"
        if not program.is_file() or not program.with_suffix(".txt").is_file():
            return []
        source, printed = program.read_text(), program.with_suffix(".txt").read_text()
        block = nodes.literal_block(source, source)
        block["language"] = "python"
        return [
            nodes.paragraph("", "With the library alone:"),
            block,
            nodes.paragraph("", "It prints:"),
            nodes.literal_block(printed, printed, language="text"),
        ]


class NotClaimed(OfReports):
    def shown(self, reports: list[Report]) -> list[nodes.Node]:
        shown: list[nodes.Node] = []
        for report in reports:
            scenarios: dict[str, list[str]] = {}
            for line in report.lines:
                if line.outcome == "not claimed" and not line.seen.startswith("not a rule for"):
                    scenarios.setdefault(line.seen, []).append(line.name)
            items = [
                nodes.list_item("", nodes.paragraph("", f"{reason}: {', '.join(names)}"))
                for reason, names in scenarios.items()
            ]
            if not items:
                continue
            count = sum(map(len, scenarios.values()))
            head = f"<details><summary>{escape(report.memory)}: {count}</summary>"
            shown += [
                nodes.raw("", head, format="html"),
                nodes.bullet_list("", *items),
                nodes.raw("", "</details>", format="html"),
            ]
        return shown


class Caught(OfReports):
    def run(self) -> list[nodes.Node]:
        reports = {report.factory.partition(":")[2]: report for report in self.reports()}
        rows: list[list[nodes.Node | str]] = []
        for factory, scenario in CAUGHT_BY.items():
            if factory not in reports:
                return self.absent()
            report = reports[factory]
            (line,) = [line for line in report.lines if line.name == scenario]
            counts = report.counts()
            name = nodes.paragraph("", "", nodes.literal("", scenario))
            fails = f"{counts['fail']} of {counts['pass'] + counts['fail']}"
            rows.append([report.settings, name, line.outcome, line.seen, fails])
        head = ["what is wrong", "caught by", "result", "seen", "fail in all"]
        return [table(head, rows, [30, 25, 8, 27, 10])]


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("conformance-scenarios", Scenarios)
    app.add_directive("conformance-results", Results)
    app.add_directive("conformance-failures", Failures)
    app.add_directive("conformance-not-claimed", NotClaimed)
    app.add_directive("conformance-caught", Caught)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
