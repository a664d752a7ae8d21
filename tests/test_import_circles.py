"""No module of medseg imports one that leads back to it, be it inside a function or for annotations only."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "medseg"


def _module(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {_module(path): path for path in PACKAGE.rglob("*.py")}


@cache
def _imports(module: str) -> list[tuple[str, str, str]]:
    """The names that a module imports from medseg: as it calls them, from which module, and as that calls them (empty
    for the whole module).
    """
    found = []
    for node in ast.walk(ast.parse(FILES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: an import starts with medseg, not with a dot"
            found += [(alias.asname or alias.name, node.module or "", alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            found += [(alias.asname or alias.name, alias.name, "") for alias in node.names]
    return [item for item in found if item[1].split(".")[0] == PACKAGE.name]


def _home(module: str, name: str) -> str:
    """The module that a name comes from, through the ``__init__`` files that pass it on."""
    if f"{module}.{name}" in FILES:
        return f"{module}.{name}"
    for known, source, original in _imports(module) if FILES[module].name == "__init__.py" else ():
        if known == name:
            return _home(source, original)
    return module


def _graph() -> dict[str, set[str]]:
    graph = {module: {_home(*item[1:]) for item in _imports(module)} - {module} for module in FILES}
    return graph | {PACKAGE.name: set()}  # the public face, which imports when it is asked


def _circles(graph: dict[str, set[str]]) -> Iterator[str]:
    """One circle after the other, each opened at its last arrow before the next is looked for."""
    while True:
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            circle = error.args[1]  # each module is imported by the one that follows
            yield " <- ".join(circle)
            graph[circle[1]].discard(circle[0])
        else:
            return


def test_modules_import_in_no_circle() -> None:
    assert list(_circles(_graph())) == []


@pytest.mark.parametrize("lazy", [False, True])
def test_a_circle_is_found(lazy: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("from medseg.b import f\n")
    (tmp_path / "b.py").write_text("def f():\n    from medseg import a\n" if lazy else "import medseg.a\n")
    (tmp_path / "__init__.py").write_text("")
    files = {"medseg": "__init__.py", "medseg.a": "a.py", "medseg.b": "b.py"}
    monkeypatch.setitem(globals(), "FILES", {module: tmp_path / name for module, name in files.items()})
    _imports.cache_clear()
    assert len(list(_circles(_graph()))) == 1
    _imports.cache_clear()
