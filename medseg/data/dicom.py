"""One DICOM series as a volume: slices in the order of their positions, and none of the patient's data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medseg.errors import DataError

if TYPE_CHECKING:
    import SimpleITK

__all__ = ["read_series"]

_SAME = 0.01  # mm: positions that count as one
_UNEVEN = 0.1  # share of the slice spacing by which a gap may differ


def read_series(folder: Path, num_slices: int | None = None) -> tuple[SimpleITK.Image, list[Path]]:
    """The series of a folder.

    Args:
        folder: holds the files of one series, or of several.
        num_slices: picks, among several, the series of as many slices.

    Returns:
        The volume with geometry and rescaled intensities (Hounsfield units), without any tag; its files in the
        order of the slices.

    Raises:
        DataError: no series or several, a slice twice, a gap. Sentences name numbers and files, never a tag's text.
    """
    import SimpleITK as sitk

    reader = sitk.ImageSeriesReader
    names = [reader.GetGDCMSeriesFileNames(str(folder), uid) for uid in reader.GetGDCMSeriesIDs(str(folder))]
    series = _select(folder, [[Path(name) for name in files] for files in names], num_slices)
    _refuse_uneven(folder, series)
    volume = sitk.ReadImage([str(file) for file in series])
    bare = sitk.GetImageFromArray(sitk.GetArrayViewFromImage(volume))  # pixels alone
    bare.SetOrigin(volume.GetOrigin())
    bare.SetSpacing(volume.GetSpacing())
    bare.SetDirection(volume.GetDirection())
    return bare, series


def _select(folder: Path, series: Sequence[list[Path]], num_slices: int | None) -> list[Path]:
    fitting = [files for files in series if num_slices in (None, len(files))]
    if len(fitting) == 1:
        return fitting[0]
    counts = ", ".join(str(len(files)) for files in series) or "no"
    wanted = "one series" if num_slices is None else f"one series of {num_slices} slices"
    raise DataError(
        f"{folder} holds {len(series)} DICOM series with {counts} slices; expected {wanted}. Leave the files of that "
        "series alone in the folder, or copy it from the archive again."
    )


def _refuse_uneven(folder: Path, files: Sequence[Path]) -> None:
    positions = _positions(files)
    if len(positions) < 2:
        return
    gaps = np.diff(positions)
    usual = float(np.median(gaps))
    worst = int(np.argmax(np.abs(gaps - usual)))
    pair = f"{files[worst].name} and {files[worst + 1].name}"
    if gaps.min() < _SAME:
        worst = int(np.argmin(gaps))
        raise DataError(
            f"{folder}: {files[worst].name} and {files[worst + 1].name} are at one position; expected each slice once. "
            "Remove the one that does not belong to the series."
        )
    if abs(gaps[worst] - usual) > _UNEVEN * usual:
        raise DataError(
            f"{folder}: {gaps[worst]:.2f} mm between {pair}, {usual:.2f} mm elsewhere; expected even gaps. A slice is "
            "missing or does not belong there; copy the series again."
        )


def _positions(files: Sequence[Path]) -> np.ndarray:
    """Places of the slices along their normal, in mm."""
    import SimpleITK as sitk

    places = []
    for file in files:
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(file))
        reader.ReadImageInformation()
        normal = np.reshape(reader.GetDirection(), (3, 3))[:, 2]
        places.append(float(np.dot(normal, reader.GetOrigin())))
    return np.array(places)
