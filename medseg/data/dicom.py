"""One DICOM series as a volume: slices in the order of their positions, and none of the patient's data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medseg.errors import DataError
from medseg.transforms.grid import GRID_TOLERANCE

if TYPE_CHECKING:
    import SimpleITK

__all__ = ["read_series"]

_SAME = 0.01  # mm: positions that count as one
_UNEVEN = 0.1  # share of the slice spacing by which a gap may differ
_RESCALING = (("0028|1053", 1.0), ("0028|1052", 0.0))  # tags of slope and intercept, and what holds without them


@dataclass(frozen=True)
class _Slice:
    """The header of one file.

    Attributes:
        file: its path.
        size: columns and rows.
        spacing: mm between columns and between rows.
        axes: (3, 3); unit vectors along columns, rows and the normal.
        origin: (3,) mm, of the first pixel.
        scale: rescale slope and intercept.
    """

    file: Path
    size: tuple[int, int]
    spacing: tuple[float, float]
    axes: np.ndarray
    origin: np.ndarray
    scale: tuple[float, float]

    @property
    def place(self) -> float:
        """mm along the normal."""
        return float(self.axes[:, 2] @ self.origin)


def read_series(folder: Path, num_slices: int | None = None) -> tuple[SimpleITK.Image, list[Path]]:
    """The series of a folder.

    Args:
        folder: holds the files of one series, or of several.
        num_slices: picks, among several, the series of as many slices.

    Returns:
        The volume with geometry and rescaled intensities (Hounsfield units), without any tag; its files in the
        order of the slices.

    Raises:
        DataError: no series or several; a file that cannot be read or is not one grey slice; slices of several sizes,
            spacings, rescalings or orientations; a slice twice, a gap, a tilted gantry. Sentences name numbers and
            files, never a tag's text.
    """
    import SimpleITK as sitk

    reader = sitk.ImageSeriesReader
    names = [reader.GetGDCMSeriesFileNames(str(folder), uid) for uid in reader.GetGDCMSeriesIDs(str(folder))]
    _refuse_damaged(folder, {Path(name) for found in names for name in found})
    files = _select(folder, [[Path(name) for name in found] for found in names], num_slices)
    slices = [_header(file) for file in files]
    _refuse_mixed(folder, slices)
    slices.sort(key=lambda one: one.place)
    _refuse_uneven(folder, slices)
    _refuse_displaced(folder, slices)
    series = [one.file for one in slices]
    try:
        volume = sitk.ReadImage([str(file) for file in series])
    except RuntimeError:  # its text can hold tags
        raise DataError(
            f"{folder}: the pixels of its {len(series)} slices cannot be read; copy the series again."
        ) from None
    bare = sitk.GetImageFromArray(sitk.GetArrayViewFromImage(volume))  # pixels alone
    gap = (slices[-1].place - slices[0].place) / (len(slices) - 1) if len(slices) > 1 else volume.GetSpacing()[2]
    bare.SetOrigin(slices[0].origin.tolist())
    bare.SetSpacing((*slices[0].spacing, gap))
    bare.SetDirection(slices[0].axes.ravel().tolist())
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


def _refuse_damaged(folder: Path, known: Collection[Path]) -> None:
    """Files that GDCM leaves out in silence, since it cannot read their tags."""
    for file in sorted(path for path in folder.glob("*") if path.is_file() and path not in known):
        with file.open("rb") as stream:
            dicom = stream.read(132)[128:] == b"DICM" or file.suffix.lower() == ".dcm"
        if dicom and file.name != "DICOMDIR" and not file.name.startswith("."):
            raise DataError(
                f"{file} is damaged or not an image; expected slices alone. Copy it again, or take it away."
            )


def _header(file: Path) -> _Slice:
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(file))
    try:
        reader.ReadImageInformation()
        scale = tuple(
            float(reader.GetMetaData(tag)) if reader.HasMetaDataKey(tag) else usual for tag, usual in _RESCALING
        )
    except (RuntimeError, ValueError):  # their texts can hold tags
        raise DataError(f"{file} cannot be read as a DICOM image; copy the file again.") from None
    if not (np.isfinite(scale).all() and scale[0]):
        raise DataError(
            f"{file} has rescale slope {scale[0]:g} and intercept {scale[1]:g}; expected numbers and a slope other "
            "than 0. Export the series again."
        )
    columns, rows, frames = (*reader.GetSize(), 1)[:3]
    if frames > 1 or reader.GetNumberOfComponents() > 1:
        raise DataError(
            f"{file} holds {frames} frames of {reader.GetNumberOfComponents()} values per pixel; expected one slice of "
            "grey values per file. Convert it to NIfTI, for example with dcm2niix."
        )
    return _Slice(
        file=file,
        size=(columns, rows),
        spacing=(float(reader.GetSpacing()[0]), float(reader.GetSpacing()[1])),
        axes=np.reshape(reader.GetDirection(), (3, 3)),
        origin=np.array(reader.GetOrigin()),
        scale=(scale[0], scale[1]),
    )


def _refuse_mixed(folder: Path, slices: Sequence[_Slice]) -> None:
    """What all slices must share; the rarer kind, such as a localiser, is named."""
    for what, tolerance, values in (
        ("columns×rows", 0.0, [one.size for one in slices]),
        ("pixel spacing in mm", 1e-3, [one.spacing for one in slices]),
        ("directions of columns and rows", 5e-3, [tuple(one.axes[:, :2].T.ravel()) for one in slices]),
        ("rescale slope and intercept", 0.0, [one.scale for one in slices]),
    ):
        usual = Counter(values).most_common(1)[0][0]
        others = [index for index, value in enumerate(values) if np.abs(np.subtract(value, usual)).max() > tolerance]
        if others:
            found, expected = (", ".join(f"{n:g}" for n in numbers) for numbers in (values[others[0]], usual))
            raise DataError(
                f"{folder}: {what} {found} in {_named([slices[index] for index in others])}, {expected} in the other "
                f"{len(slices) - len(others)} slices; expected equal ones in a series. Take the files that do not "
                "belong to the volume (a localiser, for example) out of the folder."
            )


def _named(slices: Sequence[_Slice]) -> str:
    shown = ", ".join(one.file.name for one in slices[:3])
    return f"{shown} and {len(slices) - 3} more" if len(slices) > 3 else shown


def _refuse_uneven(folder: Path, slices: Sequence[_Slice]) -> None:
    if len(slices) < 2:
        return
    gaps = np.diff([one.place for one in slices])
    usual = float(np.median(gaps))
    if gaps.min() < _SAME:
        worst = int(np.argmin(gaps))
        raise DataError(
            f"{folder}: {_pair(slices, worst)} are at one position; expected each slice once. "
            "Remove the one that does not belong to the series."
        )
    worst = int(np.argmax(np.abs(gaps - usual)))
    if abs(gaps[worst] - usual) > _UNEVEN * usual:
        raise DataError(
            f"{folder}: {gaps[worst]:.2f} mm between {_pair(slices, worst)}, {usual:.2f} mm elsewhere; expected even "
            "gaps. A slice is missing or does not belong there; copy the series again."
        )


def _refuse_displaced(folder: Path, slices: Sequence[_Slice]) -> None:
    """Slices that a volume of straight axes and even gaps would move: with a tilted gantry, they lie side by side."""
    first, last = slices[0], slices[-1]
    normal, depth = first.axes[:, 2], last.place - first.place
    for index, one in enumerate(slices[1:], 1):
        step = one.origin - first.origin
        ahead = float(normal @ step)
        aside = float(np.linalg.norm(step - ahead * normal))
        if aside > GRID_TOLERANCE * min(first.spacing):
            raise DataError(
                f"{folder}: {one.file.name} lies {ahead:.2f} mm behind {first.file.name} and {aside:.2f} mm aside "
                f"({np.degrees(np.arctan2(aside, ahead)):.1f}° of tilt); expected slices straight behind each other. "
                "Convert the series to NIfTI with a program that corrects the gantry's tilt, such as dcm2niix."
            )
        even = depth * index / (len(slices) - 1)
        if abs(ahead - even) > _UNEVEN * depth / (len(slices) - 1):
            raise DataError(
                f"{folder}: {one.file.name} lies {ahead:.2f} mm behind {first.file.name}; expected {even:.2f} mm, from "
                "even gaps. Resample the series to even gaps, and store it as NIfTI."
            )


def _pair(slices: Sequence[_Slice], index: int) -> str:
    return f"{slices[index].file.name} and {slices[index + 1].file.name}"
