"""Which paths are DICOM, what a series is called, and the files below a folder, in a zip archive, or one by itself.

A series is named by a path as other images are: ``<folder or zip>/CT_1f0c2a9b3d.series``. No file has that name; the
name is made of the modality and a hash of the series' UID, so that nothing of the patient is in it.
"""

from __future__ import annotations

import importlib.util
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from medseg.errors import ConfigError, DataError

__all__ = ["SERIES", "Source", "container_of", "holds_dicom", "may_be_dicom", "listing", "require_extra", "sources"]

SERIES = ".series"
_SUFFIXES = (SERIES, ".dcm", ".dicom", ".ima", ".zip")
_PREAMBLE = 128  # bytes before the letters DICM


def require_extra() -> None:
    """Raise ``ConfigError`` where the extra is not installed."""
    missing = [name for name in ("pydicom", "highdicom") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"DICOM needs the extra `dicom` ({', '.join(missing)} not installed): pip install 'medseg[dicom]'."
        )


def may_be_dicom(path: str | Path) -> bool:
    """Whether a path stands for DICOM unless its name says otherwise: a series, a folder, a zip archive, or a file."""
    if str(path).lower().endswith(_SUFFIXES):
        return True
    try:
        return Path(path).is_dir() or (Path(path).is_file() and _has_preamble(Path(path)))
    except (OSError, ValueError):  # no permission, or a name that no file can have
        return False


def _has_preamble(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(_PREAMBLE + 4)[_PREAMBLE:] == b"DICM"


def holds_dicom(folder: Path) -> bool:
    """Whether a file of DICOM or a zip archive lies anywhere below a folder."""
    return any(may_be_dicom(Path(place) / name) for place, _, names in os.walk(folder) for name in names)


def container_of(path: str | Path) -> Path:
    """What has to be there: the folder or zip of a series, else the path itself."""
    return Path(path).parent if str(path).endswith(SERIES) else Path(path)


@dataclass(frozen=True)
class Source:
    """A file, or a member of a zip archive, whose bytes never reach the disk.

    Attributes:
        path: the file or archive.
        member: name in the archive.
    """

    path: Path
    member: str = ""

    def open(self) -> BinaryIO:
        """The bytes, for reading."""
        if not self.member:
            return self.path.open("rb")
        return cast(BinaryIO, zipfile.ZipFile(self.path).open(self.member))

    @property
    def folder(self) -> Path:
        """Folder, or the archive."""
        return self.path if self.member else self.path.parent

    @property
    def name(self) -> str:
        """File name."""
        return Path(self.member or self.path).name


def sources(path: Path) -> list[Source]:
    """All files that may be DICOM, in order, those in zip archives too; hidden ones and directories of media (DICOMDIR)
    are skipped.

    Raises:
        DataError: a zip archive is damaged.
    """
    files = [Path(folder) / name for folder, _, names in os.walk(path) for name in names] if path.is_dir() else [path]
    found = [source for file in sorted(files) for source in (_members(file) if _is_zip(file) else [Source(file)])]
    return [source for source in found if not source.name.startswith(".") and source.name != "DICOMDIR"]


def _is_zip(path: Path) -> bool:
    return path.suffix.lower() == ".zip"


def _members(path: Path) -> list[Source]:
    try:
        with zipfile.ZipFile(path) as archive:
            return [Source(path, item.filename) for item in archive.infolist() if not item.is_dir()]
    except zipfile.BadZipFile:
        raise DataError(f"{path.name} is not a valid zip archive; copy it again, or move it away.") from None


def listing(path: Path) -> tuple[tuple[str, int, int], ...]:
    """Names, sizes and times of the files below a path, by which a change is noticed."""
    files = [Path(folder) / name for folder, _, names in os.walk(path) for name in names] if path.is_dir() else [path]
    stamps = [(str(file), file.stat()) for file in sorted(files)]
    return tuple((name, status.st_size, status.st_mtime_ns) for name, status in stamps)
