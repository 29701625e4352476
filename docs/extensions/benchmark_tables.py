"""Tables of ``python -m benchmarks``, made from its file as on the screen.

.. code:: rst

   .. benchmark-table:: results/benchmarks/benchmarks.json
      :command: make bench
      :show: targets

``show`` is the name of a table in ``benchmarks.report``. A table without a line
becomes the text of ``otherwise``.
"""

from __future__ import annotations

from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from measured import Measured, table_of
from sphinx.application import Sphinx

from benchmarks import report
from benchmarks.results import Results

WORDS = {"settings", "machine", "data", "limits", "absent", "checks"}  # tables of hardly a number


class BenchmarkTable(Measured):
    required_arguments = 1
    option_spec: ClassVar = {
        "command": directives.unchanged_required,
        "show": directives.unchanged_required,
        "otherwise": directives.unchanged,
    }

    def run(self) -> list[nodes.Node]:
        path = self.file()
        if not path.exists():
            return self.absent()
        cells = report.TABLES[self.options["show"]](Results.read(path))
        if len(cells) == 1:
            return self.parse_text_to_nodes(self.options.get("otherwise", "Not measured."))
        table = table_of(cells)
        table["classes"] += ["benchmark", *(["words"] if self.options["show"] in WORDS else [])]
        return [table]


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("benchmark-table", BenchmarkTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
