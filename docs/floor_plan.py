"""The floor plan as a drawing: rooms by floor, in the order that ``tests/test_floors.py`` holds imports to."""

from __future__ import annotations

import ast
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[1]
_WIDTH, _FLOOR, _GAP, _LEFT = 960, 74, 10, 30


def floors() -> tuple[tuple[str, ...], ...]:
    """Rooms of each floor, from the bottom up."""
    tree = ast.parse((ROOT / "tests" / "test_floors.py").read_text(encoding="utf-8"))
    values = [
        node.value for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "FLOORS"
    ]
    found: tuple[tuple[str, ...], ...] = ast.literal_eval(values[0])
    return found


def about(room: str) -> str:
    """First line of a room's docstring."""
    place = ROOT / "medseg" / room
    path = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or room).partition("\n")[0]


def floor_plan() -> str:
    """The drawing (SVG)."""
    plan = floors()
    height = len(plan) * (_FLOOR + _GAP) + 40
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" role="img" '
        'aria-label="Floors of the package: a room imports only from floors below">',
        f'<rect width="{_WIDTH}" height="{height}" fill="#fff"/>',
    ]
    for number, rooms in enumerate(plan):
        top = height - 30 - (number + 1) * (_FLOOR + _GAP) + _GAP
        parts.append(f'<text x="4" y="{top + _FLOOR / 2 + 5}" font-size="14" fill="#666">{number}</text>')
        free = _WIDTH - _LEFT - 2 - (len(rooms) - 1) * _GAP
        letters = sum(len(room) + 4 for room in rooms)
        left = float(_LEFT)
        for room in rooms:
            width = free * (len(room) + 4) / letters
            size = min(17.0, (width - 10) / len(room) * 1.7)
            parts += [
                f'<g><title>{escape(about(room))}</title><rect x="{left:.0f}" y="{top}" width="{width:.0f}" '
                f'height="{_FLOOR}" rx="6" fill="#e3eefa" stroke="#35608f"/>',
                f'<text x="{left + width / 2:.0f}" y="{top + _FLOOR / 2 + 6}" font-size="{size:.0f}" fill="#12324f" '
                f'text-anchor="middle">{room}</text></g>',
            ]
            left += width + _GAP
    parts.append(
        f'<text x="{_LEFT}" y="{height - 8}" font-size="14" fill="#444">A room imports only from floors below its own; '
        "on one floor, only from rooms further left.</text></svg>"
    )
    return "\n".join(parts) + "\n"
