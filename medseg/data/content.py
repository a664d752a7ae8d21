"""What a file holds, as a hash: equal for copies, links and other spellings of a path."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from pathlib import Path

__all__ = ["content_hash"]

_DATA_FILE = re.compile(rb"^ElementDataFile\s*=\s*(.+?)\s*$", re.MULTILINE)


def content_hash(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal; of a MetaImage header with those of its data file.

    Raises:
        OSError: the file cannot be read.
    """
    path = Path(path).resolve()
    stamps = tuple((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in (path, *_data_file(path)))
    return _hash(stamps)


@lru_cache(maxsize=1 << 16)
def _hash(stamps: tuple[tuple[str, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for file, _, _ in stamps:
        with Path(file).open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _data_file(path: Path) -> list[Path]:
    """The file that a ``.mhd`` header names for its voxels."""
    if path.suffix.lower() != ".mhd":
        return []
    found = _DATA_FILE.search(path.read_bytes()[: 1 << 16])
    file = path.parent / found[1].decode(errors="replace") if found else path
    return [file] if file != path and file.is_file() else []
