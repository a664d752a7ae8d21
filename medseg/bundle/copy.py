"""Copy of a bundle's texts: what a run needs of it, and nothing that could run."""

from __future__ import annotations

import shutil
from pathlib import Path

__all__ = ["copy_texts"]

_PARTS = {  # folder -> suffixes; large or executable files have no place in either
    "configs": (".yaml", ".yml", ".json"),
    "docs": (".md", ".txt", ".rst", ".png", ".jpg", ".svg"),
}


def copy_texts(bundle: str | Path, target: str | Path) -> None:
    """Copy configs, docs and the licence of a bundle; no links, no Python, no weights."""
    root = Path(bundle)
    files = [
        path
        for part, suffixes in _PARTS.items()
        for path in sorted((root / part).rglob("*"))
        if path.suffix.lower() in suffixes
    ]
    for path in (*files, root / "LICENSE"):
        if path.is_file() and not _is_linked(path, root):
            copy = Path(target) / path.relative_to(root)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)


def _is_linked(path: Path, root: Path) -> bool:
    """Whether the file, or a folder between it and the root, is a link."""
    inner = path.relative_to(root)
    return any((root / part).is_symlink() for part in (inner, *inner.parents) if part.parts)
