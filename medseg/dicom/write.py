"""A label map as DICOM on the slices of its series: DICOM-SEG or RTSTRUCT."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

from medseg.dicom.algorithm import Algorithm
from medseg.dicom.segment import segments_of
from medseg.dicom.series import Series, choose, find_series
from medseg.dicom.stack import Stack
from medseg.dicom.write_rtstruct import write_rtstruct
from medseg.dicom.write_seg import write_seg
from medseg.errors import DataError
from medseg.labels import LabelSpace

__all__ = ["write_dicom"]

_SAME = 0.1  # voxels between corners of one grid


def write_dicom(
    label_map: nibabel.Nifti1Image, space: LabelSpace, source: Path, path: Path, algorithm: Algorithm
) -> None:
    """Write label indices.

    Args:
        label_map: array of label indices.
        space: their names and codes.
        source: the series, or a folder with the series on whose grid the label map lies.
        path: ``.seg.dcm``, else RTSTRUCT.
        algorithm: what drew them.

    Raises:
        DataError: no series of the folder has the label map's grid.
    """
    candidates = [find_series(source)] if source.suffix == ".series" else choose([source], "all").series
    for series in candidates:
        indices = _on(series, np.asarray(label_map.dataobj), label_map.affine)
        if indices is not None:
            write = write_seg if path.name.endswith(".seg.dcm") else write_rtstruct
            write(indices, series, segments_of(space), algorithm, path)
            return
    listed = ", ".join(f"{series.name} ({'×'.join(map(str, series.stack.shape))})" for series in candidates[:5])
    raise DataError(
        f"no series in {source} has the grid of the image ({'×'.join(map(str, label_map.shape))} voxels): {listed}. "
        "Expected the series that the image was made from. Name its folder with --dicom_reference."
    )


def _on(series: Series, indices: np.ndarray, affine: np.ndarray) -> np.ndarray | None:
    """The label map with the axes of the series; ``None`` where their grids differ."""
    try:
        stack: Stack = series.stack
    except DataError:  # not a volume, so not the image's series
        return None
    turn = io_orientation(np.linalg.inv(stack.affine) @ affine)
    turned = apply_orientation(indices, turn)
    placed = affine @ inv_ornt_aff(turn, indices.shape)
    if turned.shape != stack.shape:
        return None
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in stack.shape], (1,))).reshape(4, -1)
    distance = np.linalg.norm((placed - stack.affine) @ corners, axis=0).max()
    return turned if distance <= _SAME * min(np.linalg.norm(stack.affine[:3, :3], axis=0)) else None
