"""NumPy-style docstrings, with the types as plain text.

Napoleon does the parsing. Two of its habits do not fit types such as ``float32[B, 1]``: it looks
them up as classes, and it takes what stands before a colon in an attribute's text for a type.
"""

from __future__ import annotations

from sphinx.application import Sphinx
from sphinx.ext.napoleon import Config, NumpyDocstring

CONFIG = Config(napoleon_use_param=False, napoleon_use_rtype=False)


class Docstring(NumpyDocstring):
    def _parse_attributes_section(self, section: str) -> list[str]:
        return self._format_fields("Attributes", self._consume_fields())


def process(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    if what != "attribute":
        kind = "method" if what == "property" else what
        lines[:] = Docstring(list(lines), CONFIG, app, kind, name, obj, options).lines()


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", process)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
