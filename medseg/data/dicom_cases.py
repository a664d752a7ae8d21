"""Cases of DICOM: series chosen in folders and zip archives, with ids that tell nothing of a patient."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medseg.data.case import Case, matched
from medseg.dicom import holds_dicom, require_extra
from medseg.transforms.reader import IMAGE_SUFFIXES, is_dicom

if TYPE_CHECKING:
    from medseg.dicom.series import Series

__all__ = ["case_id_of", "dicom_cases", "is_dicom_input"]

logger = logging.getLogger("medseg")


def is_dicom_input(path: Path) -> bool:
    """Whether a file, or a folder without images of other formats, holds DICOM."""
    if not path.is_dir():
        return is_dicom(path)
    images = (file.name.lower().endswith(IMAGE_SUFFIXES) for file in path.iterdir() if file.name[0] != ".")
    return not any(images) and holds_dicom(path)


def case_id_of(series: Series, folder: Path, pattern: str | None) -> str:
    """The series' name, or what ``pattern`` finds in its folder below ``folder``.

    Raises:
        ConfigError: it finds nothing.
    """
    if pattern is None:
        return series.name
    return matched(pattern, Path(os.path.relpath(series.container, folder)).as_posix(), "--case_pattern")


def dicom_cases(paths: Sequence[Path], wanted: str | None = None, pattern: str | None = None) -> list[Case]:
    """A case per chosen series; what is skipped is logged.

    Args:
        paths: of ``is_dicom_input``.
        wanted: which series (``medseg.dicom.series.choose``).
        pattern: regular expression for the case id in the folder of a series; default: its name, a hash.

    Raises:
        ConfigError: the extra ``dicom`` is missing, or the pattern finds nothing.
        DataError: no series is left, or a file is damaged.
    """
    require_extra()
    from medseg.dicom.series import choose

    cases: dict[str, Case] = {}
    for path in paths:
        chosen = choose([path], wanted)
        for note in chosen.notes:
            logger.info("%s", note)
        for warning in chosen.warnings:
            logger.warning("%s", warning)
        root = path if path.is_dir() else path.parent
        cases |= {item.path: Case(case_id_of(item, root, pattern), (item.path,)) for item in chosen.series}
    return list(cases.values())
