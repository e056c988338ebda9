"""Draws what docs/architecture.md shows, from the sources: who imports whom, and the life cycle of a request.

`python make/diagrams.py` writes docs/imports.svg and docs/life-cycle.svg; a test compares them with the sources.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path

import grimp
from life_cycle import LIFE_CYCLE, moves
from life_cycle import drawing as life_cycle_drawing

PACKAGE = "fairprefix"
OPENED = {"fairprefix.adapters"}
"""Folders whose parts are shown by themselves."""
FOLDER = Path(__file__).parents[1] / "docs"
IMPORTS = FOLDER / "imports.svg"

WIDE, HIGH, ACROSS, DOWN, MARGIN = 132, 34, 24, 46, 16
"""Of a box, and between boxes, in pixels."""
STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#1d2733;text-anchor:middle;dominant-baseline:central}"
    "rect{fill:#eef3f8;stroke:#5b7a99}path{fill:none;stroke:#7d8b99;marker-end:url(#tip)}"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}rect{fill:#22303d;stroke:#7fa3c7}}"
)
TIP = (
    '<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<path d="M0 0 8 4 0 8z" style="fill:#7d8b99;marker-end:none"/></marker>'
)

Imports = Mapping[str, set[str]]


def package_imports() -> dict[str, set[str]]:
    """Return which package of ours imports which other ones."""
    graph = grimp.build_graph(PACKAGE, cache_dir=None)
    packages = _packages(graph)
    found: dict[str, set[str]] = {name: set() for name in packages}
    for module in graph.modules:
        importer = _owner(module, packages)
        for other in graph.find_modules_directly_imported_by(module) if importer else ():
            imported = _owner(other, packages)
            if importer and imported and imported != importer:
                found[importer].add(imported)
    return found


def _packages(graph: grimp.ImportGraph) -> set[str]:
    shown: set[str] = set()
    for child in graph.find_children(PACKAGE):
        inside = graph.find_children(child)
        if child in OPENED:
            shown |= inside
        elif inside:
            shown.add(child)
    return shown


def _owner(module: str, packages: Iterable[str]) -> str | None:
    return next((name for name in packages if module == name or module.startswith(f"{name}.")), None)


def levels(imports: Imports) -> list[list[str]]:
    """Return the packages in rows: each one above everything that it imports.

    Raises:
        ValueError: packages import each other in a circle.
    """
    height: dict[str, int] = {}
    while len(height) < len(imports):
        ready = [name for name in imports if name not in height and imports[name] <= height.keys()]
        if not ready:
            raise ValueError(f"a circle among {sorted(imports.keys() - height.keys())}")
        height |= {name: 1 + max((height[other] for other in imports[name]), default=-1) for name in ready}
    rows = [sorted(name for name, at in height.items() if at == row) for row in range(max(height.values()) + 1)]
    return rows[::-1]


def direct(imports: Imports) -> dict[str, set[str]]:
    """Return the imports that do not follow from others: what is drawn."""

    def reached(name: str) -> set[str]:
        return imports[name] | {far for other in imports[name] for far in reached(other)}

    return {
        name: {other for other in others if not any(other in reached(via) for via in others - {other})}
        for name, others in imports.items()
    }


def drawing(imports: Imports) -> str:
    """Return the picture."""
    rows = levels(imports)
    most = max(map(len, rows))
    width = most * (WIDE + ACROSS) - ACROSS + 2 * MARGIN
    height = len(rows) * (HIGH + DOWN) - DOWN + 2 * MARGIN
    place = {
        name: (
            (width - len(row) * (WIDE + ACROSS) + ACROSS) // 2 + column * (WIDE + ACROSS),
            MARGIN + line * (HIGH + DOWN),
        )
        for line, row in enumerate(rows)
        for column, name in enumerate(row)
    }
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="Which package imports which">',
        f"<style>{STYLE}</style>",
        f"<defs>{TIP}</defs>",
    ]
    for name, others in sorted(direct(imports).items()):
        parts += [_arrow(place[name], place[other]) for other in sorted(others)]
    parts += [_box(name, *place[name]) for name in sorted(place)]
    return "\n".join([*parts, "</svg>", ""])


def _arrow(above: tuple[int, int], below: tuple[int, int]) -> str:
    x, y, to_x, to_y = above[0] + WIDE // 2, above[1] + HIGH, below[0] + WIDE // 2, below[1]
    middle = (y + to_y) // 2
    return f'<path d="M{x} {y}C{x} {middle} {to_x} {middle} {to_x} {to_y}"/>'


def _box(name: str, x: int, y: int) -> str:
    label = escape(name.removeprefix(f"{PACKAGE}."))
    return (
        f'<rect x="{x}" y="{y}" width="{WIDE}" height="{HIGH}" rx="6"/>'
        f'<text x="{x + WIDE // 2}" y="{y + HIGH // 2}">{label}</text>'
    )


if __name__ == "__main__":
    IMPORTS.write_text(drawing(package_imports()), encoding="utf-8")
    LIFE_CYCLE.write_text(life_cycle_drawing(moves()), encoding="utf-8")
