"""The map of the code, drawn from its own imports.

    python docs/extensions/architecture.py          # print the wings, floor by floor
    python docs/extensions/architecture.py MAP.svg  # write the picture

A *wing* is a folder or a module directly below the package. It imports another wing where one of
its modules does. The floor of a wing is one above the highest wing that it imports, so every arrow
points down. The directive ``architecture-map`` puts the picture and a table of all imports into a
page when it is built, so neither can fall behind the code.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

PACKAGE = Path(__file__).parents[2] / "src" / "prioritized_replay"

# Sizes of the picture, in units of the SVG.
WIDTH, ROW, HEIGHT, CHARACTER, PADDING, MARGIN = 760, 78, 34, 8.2, 24, 20


@dataclass
class Wing:
    """A folder or module directly below the package."""

    name: str
    is_folder: bool
    modules: int = 0
    imports: set[str] = field(default_factory=set)
    floor: int = 0

    @property
    def label(self) -> str:
        return f"{self.name}/" if self.is_folder else f"{self.name}.py"


def modules_imported(file: Path, package: Path, public: set[str]) -> Iterator[str]:
    """Yield the wings that a module imports when it runs, its own included."""
    inside = (package.name, *file.relative_to(package).parts[:-1])
    for node in running_nodes(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            targets = [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = inside[: len(inside) - node.level + 1] if node.level else ()
            base += tuple(node.module.split(".")) if node.module else ()
            # "from package import x" imports a wing, or a public name, which does not count
            targets = [(*base, alias.name) for alias in node.names]
        else:
            continue
        for target in targets:
            if target[0] == package.name and target[1:] and target[1] not in public:
                yield target[1]


def running_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Yield all nodes but those that only a type checker sees."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        yield child
        yield from running_nodes(child)


def public_names(package: Path) -> set[str]:
    """Return the names that the package's own ``__init__`` takes from its modules."""
    tree = ast.parse((package / "__init__.py").read_text(encoding="utf-8"))
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    return {alias.asname or alias.name for node in imports for alias in node.names}


def wings_of(package: Path = PACKAGE) -> dict[str, Wing]:
    """Return the wings of a package, with their imports and floors."""
    public = public_names(package)
    wings: dict[str, Wing] = {}
    for file in sorted(package.rglob("*.py")):
        top = file.relative_to(package).parts[0]
        if top == "__init__.py":
            continue
        name = top.removesuffix(".py")
        wing = wings.setdefault(name, Wing(name, is_folder=not top.endswith(".py")))
        wing.modules += 1
        wing.imports |= set(modules_imported(file, package, public)) - {name}
    for wing in wings.values():
        wing.imports &= wings.keys()
    for wing in wings.values():
        wing.floor = floor_of(wing.name, wings, ())
    return wings


def floor_of(name: str, wings: dict[str, Wing], below: tuple[str, ...]) -> int:
    # imports in a circle fail ``make layers``; here one of their arrows points up
    importers = {other for other, wing in wings.items() if name in wing.imports} - {name, *below}
    return max((1 + floor_of(other, wings, (*below, name)) for other in importers), default=0)


def direct(name: str, wings: dict[str, Wing]) -> list[str]:
    """Return the imports that do not follow from other imports."""
    imports = wings[name].imports
    return sorted(
        other
        for other in imports
        if not any(other in reached(via, wings) for via in imports - {other})
    )


def reached(name: str, wings: dict[str, Wing]) -> set[str]:
    found: set[str] = set()
    waiting = list(wings[name].imports)
    while waiting:
        other = waiting.pop()
        if other not in found:
            found.add(other)
            waiting += wings[other].imports
    return found


def places(wings: dict[str, Wing]) -> dict[str, tuple[float, float, float]]:
    """Return left edge, upper edge and width of each box.

    Wings of a floor stand side by side, each below the middle of those that import it.
    """
    floors = range(max(wing.floor for wing in wings.values()) + 1)
    boxes: dict[str, tuple[float, float, float]] = {}
    for floor in floors:
        y = MARGIN + floor * ROW

        def middle(wing: Wing) -> float:
            above = [
                left + width / 2
                for name, (left, _, width) in boxes.items()
                if wing.name in direct(name, wings)
            ]
            return sum(above) / len(above) if above else WIDTH / 2

        row = sorted(
            (wing for wing in wings.values() if wing.floor == floor),
            key=lambda wing: (middle(wing), wing.name),
        )
        widths = [PADDING + CHARACTER * len(wing.label) for wing in row]
        gap = (WIDTH - sum(widths)) / (len(row) + 1)
        x = gap
        for wing, width in zip(row, widths, strict=True):
            boxes[wing.name] = (x, y, width)
            x += width + gap
    return boxes


def picture(wings: dict[str, Wing]) -> str:
    """Return an SVG that takes its colours from the page."""
    boxes = places(wings)
    floors = max(wing.floor for wing in wings.values()) + 1
    height = 2 * MARGIN + (floors - 1) * ROW + HEIGHT
    lines = []
    for name in wings:
        x, y, width = boxes[name]
        for other in direct(name, wings):
            left, top, wide = boxes[other]
            x1, y1, x2, y2 = x + width / 2, y + HEIGHT, left + wide / 2, top - 3
            bend = (y2 - y1) / 2
            lines.append(
                f'<path d="M{x1:.0f} {y1:.0f} C{x1:.0f} {y1 + bend:.0f} '
                f'{x2:.0f} {y2 - bend:.0f} {x2:.0f} {y2:.0f}" marker-end="url(#arrow)"/>'
            )
    for name, wing in wings.items():
        x, y, width = boxes[name]
        kind = "folder" if wing.is_folder else "module"
        middle = f'x="{x + width / 2:.0f}" y="{y + HEIGHT / 2 + 5:.0f}"'
        box = (
            f'<rect class="{{}}" x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" '
            f'height="{HEIGHT}" rx="5"/>'
        )
        lines.append(
            f'<g class="{kind}">{box.format("ground")}{box.format("tint")}'
            f"<text {middle}>{escape(wing.label)}</text></g>"
        )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
            'role="img" aria-label="Wings of the package, each above those that it imports">',
            "<style>",
            "path { fill: none; stroke: currentColor; stroke-width: 1.1; opacity: 0.45; }",
            "marker path { fill: currentColor; stroke: none; opacity: 1; }",
            ".ground { fill: var(--color-background-primary, white); }",
            ".tint { stroke: currentColor; fill: #2a6fbb; fill-opacity: 0.14; }",
            ".module .tint { fill: #888; fill-opacity: 0.12; stroke-dasharray: 4 3; }",
            "text { font: 14px monospace; text-anchor: middle; fill: currentColor; }",
            "</style>",
            '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" '
            'markerHeight="8" orient="auto"><path d="M0 0 L8 4 L0 8 z"/></marker></defs>',
            *lines,
            "</svg>",
        ]
    )


def listing(wings: dict[str, Wing]) -> list[tuple[str, int, str]]:
    """Return label, number of modules and imports of each wing, highest floor first."""
    in_order = sorted(wings.values(), key=lambda wing: (wing.floor, wing.name))
    return [
        (wing.label, wing.modules, ", ".join(wings[name].label for name in sorted(wing.imports)))
        for wing in in_order
    ]


def setup(app: Sphinx) -> dict[str, bool]:
    from docutils import nodes
    from settings import table
    from sphinx.util.docutils import SphinxDirective

    class ArchitectureMap(SphinxDirective):
        def run(self) -> list[nodes.Node]:
            for file in PACKAGE.rglob("*.py"):
                self.env.note_dependency(str(file))
            wings = wings_of()
            drawing = f'<div class="map">\n{picture(wings)}\n</div>'
            rows = [
                [nodes.paragraph("", "", nodes.literal("", label)), str(modules), imports or "none"]
                for label, modules, imports in listing(wings)
            ]
            imports = table(["wing", "modules", "imports"], rows, [25, 15, 60])
            return [nodes.raw("", drawing, format="html"), imports]

    app.add_directive("architecture-map", ArchitectureMap)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


if __name__ == "__main__":
    if sys.argv[1:]:
        Path(sys.argv[1]).write_text(picture(wings_of()) + "\n", encoding="utf-8")
    else:
        for label, modules, imports in listing(wings_of()):
            print(f"{label:14}{modules:4}  {imports}")
