"""The floor plan: a room imports only from floors below its own, and from its own without a circle of rooms."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "medseg"

# From the bottom up; rooms of one floor may import from those further left, so that there is no circle.
FLOORS = (
    ("errors", "faults", "free_memory", "lean", "settings", "storage", "shipped", "version", "labels", "networks"),
    ("dicom", "transforms", "metrics", "losses", "optimizers", "weights"),
    ("data", "datasets"),
    ("inferers", "engines"),
    ("reports", "submission"),
    ("bundle",),
    ("workflows",),
    ("cli",),
)
PLACE = {room: (floor, number) for floor, rooms in enumerate(FLOORS) for number, room in enumerate(rooms)}


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything of medseg that a module imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from ((node.lineno, name) for name in names if name.startswith("medseg."))


def room_of(dotted: str) -> str:
    return dotted.split(".")[1]


def test_every_room_has_a_floor() -> None:
    rooms = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert rooms - {"__init__"} == set(PLACE)


def test_imports_run_downwards() -> None:
    upwards = []
    for path in sorted(PACKAGE.rglob("*.py")):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room == "__init__":
            continue  # the public face, which imports when it is asked
        for line, name in imported(path):
            other = room_of(name)
            if other in PLACE and PLACE[other] > PLACE[room]:
                upwards.append(f"{path.relative_to(PACKAGE)}:{line} imports {name}")
    assert upwards == []
