"""Tables of ``python -m benchmarks``, made from its file as on the screen.

.. code:: rst

   .. benchmark-table:: results/benchmarks/benchmarks.json
      :command: make bench
      :show: targets

``show`` is the name of a table in ``benchmarks.report``. A table without a line
becomes the text of ``otherwise``. ``with`` names the files of other runs, whose results are shown
in the same table. ``benchmark-gains`` draws the table ``gains`` as bars, in HTML: they follow the
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
    }

    def run(self) -> list[nodes.Node]:
        results = self.results()
        if results is None:
            return self.absent()
        return [nodes.raw("", bars(gains.gains(results)), format="html")]


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
    return {"parallel_read_safe": True, "parallel_write_safe": True}
