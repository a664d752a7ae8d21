"""Cases of DICOM: series chosen in folders and zip archives, with ids that tell nothing of a patient."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medseg.data.case import Case, matched
from medseg.dicom import holds_dicom, require_extra
from medseg.errors import DataError
from medseg.transforms.reader import IMAGE_SUFFIXES, is_dicom

if TYPE_CHECKING:
    import SimpleITK

    from medseg.dicom.series import Series

__all__ = ["case_id_of", "dicom_cases", "is_dicom_input", "series_of"]

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
        paths: paths that ``is_dicom_input`` takes.
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


def series_of(folder: str | Path, number: int) -> tuple[SimpleITK.Image, Series]:
    """A folder's one series of ``number`` slices, and its volume.

    Raises:
        DataError: there is none, or there are several; the slices are not a volume.
    """
    require_extra()
    from medseg.dicom.series import scan
    from medseg.dicom.volume import read_voxels
    from medseg.transforms.nrrd import as_itk

    found = scan(folder).series
    fitting = [series for series in found if len(series.frames) == number]
    if len(fitting) != 1:
        counts = ", ".join(str(len(series.frames)) for series in found) or "no"
        raise DataError(
            f"{folder} holds {len(found)} DICOM series with {counts} slices; expected one series of {number} slices. "
            "Leave the files of that series alone in the folder, or copy it from the archive again."
        )
    return as_itk(read_voxels(fitting[0]), fitting[0].stack.affine), fitting[0]
