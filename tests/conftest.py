"""For all tests: what medseg remembers of a user stays out of the home folder; where the originals' full sets are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from full_set import FULL_SET


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """``pytest -m gpu`` reads the GPU's tests alone: a machine with a GPU need not have what the others import."""
    asked = config.option.markexpr == "gpu" and collection_path.parent == Path(__file__).parent
    return True if asked and collection_path.name not in ("gpu", "conftest.py") else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first, so that no process is left with one of them when the others are done."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True, scope="session")
def _state_folder(tmp_path_factory) -> Iterator[Path]:
    before = os.environ.get("XDG_STATE_HOME")
    folder = tmp_path_factory.mktemp("state")
    os.environ["XDG_STATE_HOME"] = str(folder)  # started commands inherit it
    yield folder
    os.environ.pop("XDG_STATE_HOME")
    if before is not None:
        os.environ["XDG_STATE_HOME"] = before


@pytest.fixture(scope="session")
def full_set() -> Path:
    """Folder of the full sets of the originals' numbers; a clone has the small ones in ``tests/parity`` only."""
    if not FULL_SET.is_dir():
        pytest.skip(f"the full sets of the originals' numbers are not at {FULL_SET}; tests/parity holds small ones")
    return FULL_SET
