"""Draw the packages of keras_qat and their imports, as read from the code, to docs/images/packages.svg.

    .venv/bin/python docs/site/packages.py

A package stands above all that it imports. An arrow that a longer way implies is left out, and so are the arrows to the
bottom row, which nearly all packages use. Nothing is imported: the code is read as text.
"""

import ast
from collections import defaultdict
from collections.abc import Mapping
from functools import cache
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "keras_qat"
PICTURE = ROOT / "docs" / "images" / "packages.svg"

_WIDTH, _BOX_HEIGHT, _ROW_HEIGHT, _GAP = 1180, 46, 86, 18
_CHARACTER = 6.1
_STYLE = """
  .box{fill:#e8f0fe;stroke:#3f51b5;stroke-width:1} .name{font:600 14px sans-serif;fill:#1a237e}
  .what{font:11px sans-serif;fill:#37474f} path{fill:none;stroke:#78909c;stroke-width:1.2}
"""


def read_imports() -> Mapping[str, frozenset[str]]:
    """{package: the packages that it imports}; modules of the root count as packages."""
    imports: dict[str, set[str]] = defaultdict(set)
    for path in sorted(SOURCE.rglob("*.py")):
        package = path.relative_to(SOURCE).with_suffix("").parts[0]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "keras_qat":
                inside = (node.module or "").split(".")[1:2]
                imports[package].update(inside or [alias.name for alias in node.names])
        imports[package].discard(package)
    known = frozenset(imports) - {"__init__"}
    return {package: frozenset(imports[package] & known) for package in sorted(known) if not package.startswith("_")}


def rows_of(imports: Mapping[str, frozenset[str]]) -> list[list[str]]:
    """The packages in rows, from the bottom up: each above all that it imports."""

    @cache
    def row(package: str) -> int:
        return 1 + max((row(other) for other in imports[package] if other in imports), default=-1)

    rows: dict[int, list[str]] = defaultdict(list)
    for package in imports:
        rows[row(package)].append(package)
    return [rows[place] for place in sorted(rows)]


def direct(imports: Mapping[str, frozenset[str]]) -> list[tuple[str, str]]:
    """The imports that no longer way implies."""

    @cache
    def reached(package: str) -> frozenset[str]:
        return imports[package].union(*(reached(other) for other in imports[package] if other in imports))

    return [
        (package, other)
        for package, others in imports.items()
        for other in sorted(others & imports.keys())
        if not any(other in reached(between) for between in others - {other} if between in imports)
    ]


def purpose(package: str) -> str:
    """The first sentence of a package's docstring, as much of it as fits a box."""
    path = SOURCE / package / "__init__.py"
    tree = ast.parse((path if path.exists() else SOURCE / f"{package}.py").read_text(encoding="utf-8"))
    return (ast.get_docstring(tree) or "").partition("\n")[0].split(". ")[0].rstrip(".").replace("`", "")


def draw() -> str:
    """The picture as SVG."""
    imports = read_imports()
    rows = rows_of(imports)
    boxes: dict[str, tuple[float, float, float]] = {}
    for place, row in enumerate(reversed(rows)):
        width = min(300.0, (_WIDTH - _GAP * (len(row) + 1)) / len(row))
        left = (_WIDTH - len(row) * width - (len(row) - 1) * _GAP) / 2
        for column, package in enumerate(row):
            boxes[package] = (left + column * (width + _GAP), 20 + place * _ROW_HEIGHT, width)
    height = 20 + len(rows) * _ROW_HEIGHT
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img">',
        "<title>The packages of keras_qat; each stands above all that it imports</title>",
        f"<style>{_STYLE}</style>",
        (
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
            '<path d="M0 0L8 4L0 8z" style="fill:#78909c;stroke:none"/></marker></defs>'
        ),
    ]
    for package, other in direct(imports):
        if other in rows[0]:
            continue
        (x1, y1, w1), (x2, y2, w2) = boxes[package], boxes[other]
        start, end, y = x1 + w1 / 2, x2 + w2 / 2, y1 + _BOX_HEIGHT
        bend = (y2 - y) / 2
        lines.append(
            f'<path marker-end="url(#tip)" d="M{start:.0f} {y:.0f}C{start:.0f} {y + bend:.0f} '
            f'{end:.0f} {y2 - bend:.0f} {end:.0f} {y2:.0f}"/>'
        )
    for package, (x, y, width) in boxes.items():
        text = purpose(package)
        room = int((width - 16) / _CHARACTER)
        shown = text if len(text) <= room else text[: room - 1].rstrip() + "…"
        lines += [
            (
                f'<g><title>{escape(text)}</title><rect class="box" x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" '
                f'height="{_BOX_HEIGHT}" rx="6"/><text class="name" x="{x + 8:.0f}" y="{y + 19:.0f}">{package}</text>'
                f'<text class="what" x="{x + 8:.0f}" y="{y + 36:.0f}">{escape(shown)}</text></g>'
            )
        ]
    return "\n".join([*lines, "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
