"""The voxels of a series: rescaled slice by slice, PET as SUVbw, tilted gantries upright; no tag comes along."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom

from medseg.dicom.frames import Frame
from medseg.dicom.series import Series
from medseg.dicom.suv import suv_factor
from medseg.errors import DataError

__all__ = ["read_voxels"]


def read_voxels(series: Series) -> np.ndarray:
    """Voxels (columns, rows, slices) on ``series.stack.affine``; int16 where that holds them, else float32.

    Raises:
        DataError: the slices are not a volume, or cannot be read; of PET also what ``suv_factor`` says.
    """
    frames = series.stack.frames
    whole = all(float(number).is_integer() for frame in frames for number in frame.scale)
    slices: list[Any] = [None] * len(frames)
    places: dict[Any, list[int]] = {}
    for place, frame in enumerate(frames):
        places.setdefault(frame.source, []).append(place)
    for own in places.values():
        header, arrays = _pixels([frames[place] for place in own])
        factor = suv_factor(header) if series.modality == "PT" else 1.0
        for place, array in zip(own, arrays, strict=True):
            slope, intercept = frames[place].scale
            slices[place] = (
                array if factor == slope == 1 and not intercept else array * (slope * factor) + intercept * factor
            )
    limits = np.iinfo(np.int16)
    small = all(limits.min <= array.min() and array.max() <= limits.max for array in slices)
    kind = np.int16 if whole and small and series.modality != "PT" else np.float32
    return series.stack.volume([array.astype(kind) for array in slices])


def _pixels(frames: Sequence[Frame]) -> tuple[pydicom.Dataset, list[np.ndarray]]:
    """Header and stored values (rows, columns) of frames of one file."""
    try:
        with frames[0].source.open() as stream:
            header = pydicom.dcmread(stream)
        array = _decoded(header, frames)
        array = array if array.ndim == 3 else array[None]
        return header, [array[frame.index] for frame in frames]
    except Exception:  # decoders raise anything, and their texts can hold tags
        numbers = ", ".join(str(frame.number) for frame in frames[:3])
        raise DataError(
            f"the pixels of slice {numbers} cannot be read; expected uncompressed ones, RLE, JPEG, JPEG-LS or JPEG "
            "2000. Copy the series again."
        ) from None


def _decoded(header: pydicom.Dataset, frames: Sequence[Frame]) -> np.ndarray:
    """By pydicom, or what it has no decoder for (lossless JPEG) by GDCM, which rescales: that is undone."""
    try:
        array: np.ndarray = header.pixel_array
        return array
    except RuntimeError:
        if len(frames) > 1 or not header.file_meta.TransferSyntaxUID.is_compressed:
            raise
    import SimpleITK

    slope, intercept = frames[0].scale
    with tempfile.TemporaryDirectory() as folder:  # GDCM reads files alone
        pydicom.dcmwrite(Path(folder) / "slice.dcm", header)
        values = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(Path(folder) / "slice.dcm")))[0]
    stored: np.ndarray = np.rint((values - intercept) / slope).astype(np.int32)
    return stored
