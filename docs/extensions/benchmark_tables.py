"""Tables of ``python -m benchmarks``, made from its file as on the screen.

.. code:: rst

   .. benchmark-table:: results/benchmarks/benchmarks.json
      :command: make bench
      :show: targets

``show`` is the name of a table in ``benchmarks.report``. A table without a line
becomes the text of ``otherwise``. ``with`` names the files of other runs, whose results are shown
in the same table. ``benchmark-footprints`` draws bytes per transition as bars, and
``benchmark-gains`` the table ``gains``, in HTML: they follow the
width and the colours of the page.
"""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from measured import Measured, table_of
from sphinx.application import Sphinx

from benchmarks import gains, report
from benchmarks.results import Results
from prioritized_replay.conformance.subject import LAWS

LONGEST = 8.0  # times as fast: longer bars are cut, or the others could not be told apart
WORDS = {"settings", "machine", "data", "limits", "absent", "checks"}  # tables of hardly a number


class OfBenchmarks(Measured):
    """What the two directives share: the results of one run, or of several."""

    def results(self) -> Results | None:
        """Return what was measured, or None where the first file is missing."""
        found = [self.file()]
        if "with" in self.options:
            for other in self.options["with"].split():
                name, path = self.env.relfn2path(other)
                self.env.note_dependency(name)
                found.append(Path(path))
        if not found[0].exists():
            return None
        there = [Results.read(path) for path in found if path.exists()]
        return gains.together(there) if there[1:] else there[0]


class BenchmarkTable(OfBenchmarks):
    required_arguments = 1
    option_spec: ClassVar = {
        "command": directives.unchanged_required,
        "show": directives.unchanged_required,
        "otherwise": directives.unchanged,
        "with": directives.unchanged_required,
    }

    def run(self) -> list[nodes.Node]:
        results = self.results()
        if results is None:
            return self.absent()
        cells = report.TABLES[self.options["show"]](results)
        if len(cells) == 1:
            return self.parse_text_to_nodes(self.options.get("otherwise", "Not measured."))
        table = table_of(cells)
        table["classes"] += ["benchmark", *(["words"] if self.options["show"] in WORDS else [])]
        return [table]


class BenchmarkGains(OfBenchmarks):
    required_arguments = 1
    option_spec: ClassVar = {
        "command": directives.unchanged_required,
        "with": directives.unchanged_required,
        "only": directives.unchanged_required,  # the names of some measures, separated by ;
    }

    def run(self) -> list[nodes.Node]:
        results = self.results()
        if results is None:
            return self.absent()
        measured = gains.gains(results)
        if "only" in self.options:
            by_name = {gain.what: gain for gain in measured}
            wanted = [name.strip() for name in self.options["only"].split(";")]
            if unknown := [name for name in wanted if name not in by_name]:
                raise self.error(f"no measure {unknown[0]!r}; there are: {'; '.join(by_name)}")
            measured = [by_name[name] for name in wanted]
        return [nodes.raw("", bars(measured), format="html")]


class BenchmarkFootprints(OfBenchmarks):
    required_arguments = 1
    option_spec: ClassVar = {"command": directives.unchanged_required}

    def run(self) -> list[nodes.Node]:
        results = self.results()
        if results is None:
            return self.absent()
        least = min(row.size for row in results.footprints)  # the size that all of them have
        rows = [row for row in results.footprints if row.size == least and row.resident]
        most = max(row.resident for row in rows)
        lines = ['<div class="gains" style="--even: 0">']
        for row in rows:
            kind = "proportional" if row.contender.startswith("ours") else "uniform"
            lines.append(
                f'<div class="what">{escape(row.contender)}</div><div class="bars">'
                f'<div class="{kind}" style="--length: {100 * row.resident / most:.2f}%">'
                f"<i></i><b>{row.resident:,.0f}</b></div></div>"
            )
        return [nodes.raw("", "\n".join([*lines, "</div>"]), format="html")]


def bars(measured: list[gains.Gain]) -> str:
    """Return the gains as bars, a group for each measure, and a line where ours is as fast."""
    most = max((times for gain in measured for times, _ in gain.by_law.values()), default=1.0)
    most = min(max(most, 1.0), LONGEST)
    lines = [f'<div class="gains" style="--even: {1 / most:.4f}">', '<p class="key">']
    lines += [f'<span class="{law}">{law}</span>' for law in LAWS]
    lines += ["<span>line: as fast as the fastest peer</span></p>"]
    for gain in measured:
        lines.append(f'<div class="what">{escape(gain.what)}</div><div class="bars">')
        for law in LAWS:
            if law in gain.by_law:
                times, peer = gain.by_law[law]
                title = f"{law}: {report.ratio(times)} as fast as {peer}"
                kind = f"{law} cut" if times > most else law
                length = 100 * min(times / most, 1.0)
                lines.append(
                    f'<div class="{kind}" style="--length: {length:.2f}%" '
                    f'title="{escape(title)}"><i></i><b>{report.ratio(times)}</b></div>'
                )
        lines.append("</div>")
    return "\n".join([*lines, "</div>"])


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("benchmark-table", BenchmarkTable)
    app.add_directive("benchmark-gains", BenchmarkGains)
    app.add_directive("benchmark-footprints", BenchmarkFootprints)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
