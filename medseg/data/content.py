"""What files and volumes hold, as a hash: equal for copies, links and other spellings of a path."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import BinaryIO

import numpy as np

from medseg.dicom import SERIES, require_extra

__all__ = ["content_hash", "voxel_hash"]

_BLOCK = 1 << 20

_known: dict[tuple[tuple[str, int, int, int], ...], str] = {}  # stamps of files -> hash

_DATA_FILE = re.compile(rb"^ElementDataFile\s*=\s*(.+?)\s*$", re.MULTILINE)


def content_hash(path: str | Path, opened: BinaryIO | None = None) -> str:
    """SHA-256 of a file's bytes, in hexadecimal; of a MetaImage header with those of its data file, of a DICOM series
    or folder of its name and its files.

    Args:
        path: the file.
        opened: it, where it is open already, so that it is opened once.

    Raises:
        OSError: the file cannot be read.
    """
    if str(path).endswith(SERIES) or Path(path).is_dir():
        return _series_hash(path)
    path = Path(path).resolve()
    key = tuple((str(file), *_stamps(file)) for file in (path, *_data_file(path)))
    if key not in _known:
        digest = hashlib.sha256()
        for file, *_ in key:
            if opened is not None:
                _add(digest, opened)
            else:
                with Path(file).open("rb") as stream:
                    _add(digest, stream)
        _known[key] = digest.hexdigest()
    return _known[key]


def _series_hash(path: str | Path) -> str:
    require_extra()
    from medseg.dicom.series import find_series

    series = find_series(path)
    return hashlib.sha256("\n".join([series.name, *map(content_hash, series.files)]).encode()).hexdigest()


def _add(digest: hashlib._Hash, stream: BinaryIO) -> None:
    stream.seek(0)
    while block := stream.read(_BLOCK):
        digest.update(block)


def voxel_hash(array: np.ndarray) -> str:
    """SHA-256 of shape and values: equal also for copies in another voxel type, compression or format."""
    digest = hashlib.sha256(str(array.shape).encode())
    flat = array.ravel(order="F")  # as NIfTI, NRRD and MetaImage store it: no copy
    for start in range(0, flat.size, _BLOCK):
        with np.errstate(over="ignore", invalid="ignore"):
            digest.update(np.ascontiguousarray(flat[start : start + _BLOCK], np.float32).data)
    return digest.hexdigest()


def _stamps(file: Path) -> tuple[int, int, int]:
    """What changes when a file is written, also where its time is set back."""
    status = file.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _data_file(path: Path) -> list[Path]:
    """The file that a ``.mhd`` header names for its voxels."""
    if path.suffix.lower() != ".mhd":
        return []
    found = _DATA_FILE.search(path.read_bytes()[: 1 << 16])
    file = path.parent / found[1].decode(errors="replace") if found else path
    return [file] if file != path and file.is_file() else []
