"""Tables of command-line options and presets, read from the dataclasses behind them.

``options-of`` lists the fields of a dataclass with their defaults and documentation, as the command
line spells them. ``presets-of`` lists what each preset changes.
"""

from __future__ import annotations

import dataclasses
from importlib import import_module
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective


def load(path: str) -> Any:
    module, name = path.rsplit(".", 1)
    return getattr(import_module(module), name)


def documentation(kind: type) -> dict[str, str]:
    """Return the documentation of a dataclass's fields, its parents' included."""
    found: dict[str, str] = {}
    for parent in reversed(kind.__mro__[:-1]):
        analyzer = ModuleAnalyzer.for_module(parent.__module__)
        analyzer.analyze()
        for (owner, name), lines in analyzer.attr_docs.items():
            if owner == parent.__name__:
                found[name] = " ".join(line.strip() for line in lines if line.strip())
    return found


def spelled(name: str) -> str:
    return "--" + name.replace("_", "-")


def told(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def table(head: list[str], rows: list[list[nodes.Node | str]], widths: list[int]) -> nodes.table:
    group = nodes.tgroup(cols=len(head))
    group += [nodes.colspec(colwidth=width) for width in widths]
    for section, lines in ((nodes.thead(), [head]), (nodes.tbody(), rows)):
        for line in lines:
            row = nodes.row()
            for cell in line:
                content = nodes.paragraph("", cell) if isinstance(cell, str) else cell
                row += nodes.entry("", content)
            section += row
        group += section
    return nodes.table("", group, classes=["settings"])


class OptionsOf(SphinxDirective):
    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        kind = load(self.arguments[0])
        meaning = documentation(kind)
        rows: list[list[nodes.Node | str]] = []
        for field in dataclasses.fields(kind):
            required = field.default is dataclasses.MISSING
            positional = required or "Positional" in str(field.type)
            name = field.name.upper() if positional else spelled(field.name)
            default = "" if required else told(field.default)
            literal = nodes.paragraph("", "", nodes.literal("", name))
            text = nodes.paragraph()
            text += self.parse_inline(meaning[field.name])[0]
            rows.append([literal, default, text])
        return [table(["option", "default", "meaning"], rows, [24, 16, 60])]


class PresetsOf(SphinxDirective):
    required_arguments = 1  # the function
    option_spec: ClassVar = {"name": directives.unchanged_required}
    has_content = True  # the environments, one a line

    def run(self) -> list[nodes.Node]:
        preset = load(self.arguments[0])
        plain = preset("another")
        rows: list[list[nodes.Node | str]] = []
        for env_id in self.content:
            tuned = preset(env_id, *([self.options["name"]] if "name" in self.options else []))
            differ = [
                f"{spelled(field.name)} {told(getattr(tuned, field.name))}"
                for field in dataclasses.fields(tuned)
                if field.name != "env_id"
                and getattr(tuned, field.name) != getattr(plain, field.name)
            ]
            if not differ:
                raise self.error(f"{env_id} has no preset")
            settings = nodes.paragraph()
            for index, text in enumerate(differ):
                settings += [nodes.Text(", " if index else ""), nodes.literal("", text)]
            rows.append([env_id, settings])
        return [table(["environment", "settings"], rows, [20, 80])]


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("options-of", OptionsOf)
    app.add_directive("presets-of", PresetsOf)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
