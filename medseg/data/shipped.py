"""The datalists that come with medseg, by name: ``btcv``, ``hermes/universal``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

__all__ = ["find_list", "shipped_name"]

_INSTALLED = Path(__file__).parents[1] / "_data_json"
_FOLDER = _INSTALLED if _INSTALLED.is_dir() else Path(__file__).parents[2] / "data_json"  # of a checkout
_SUFFIXES = (".json", ".yaml")


def find_list(path: str | Path) -> Path:
    """The file of a datalist: ``path`` itself, unless it is the name of a shipped one and no file."""
    name = shipped_name(path)
    return Path(path) if name is None else next(_files(name))


def shipped_name(path: str | Path) -> str | None:
    """``path`` as the name of a shipped datalist; ``None`` where it is a file, or not the name of one."""
    named = Path(path)
    plain = not named.suffix and not named.is_absolute() and ".." not in named.parts and named.parts
    return named.as_posix() if plain and not named.is_file() and next(_files(named.as_posix()), None) else None


def _files(name: str) -> Iterator[Path]:
    return (file for file in (_FOLDER / f"{name}{suffix}" for suffix in _SUFFIXES) if file.is_file())
