"""Volumes and label maps to one isotropic spacing, cropped to the labels, as for Hermes (arXiv 2306.02416).

Image: B-splines in the plane, the nearest slice along z; label: nearest. Two things are different: directions and
origins are kept, so that results can be laid over the source, and labels never pass through B-splines.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medseg.errors import DataError

if TYPE_CHECKING:
    import SimpleITK

    Pair = tuple[SimpleITK.Image, SimpleITK.Image]  # image and label on one grid

__all__ = ["crop_to_label", "pairs_from_files", "read_pair", "refuse_other_grid", "resample", "to_form", "to_isotropic"]

_DIFFERENCE = 0.01  # mm, of spacings that count as equal


def to_isotropic(
    image: SimpleITK.Image, spacing: float = 1.5, *, label: bool = False, along_z: bool = True
) -> SimpleITK.Image:
    """Resample x and y first, then z (unless not ``along_z``); voxels outside become 0, pixels keep their type."""
    import SimpleITK as sitk

    plane = sitk.sitkNearestNeighbor if label else sitk.sitkBSpline
    steps = [((0, 1), plane), ((2,), sitk.sitkNearestNeighbor)]
    return resample(image, spacing, steps if along_z else steps[:1])


def resample(image: SimpleITK.Image, spacing: float, steps: Sequence[tuple[Collection[int], int]]) -> SimpleITK.Image:
    """Bring axes to ``spacing`` mm, step by step: in each its axes (0 is x), by its SimpleITK interpolator."""
    import SimpleITK as sitk

    origin, direction = image.GetOrigin(), image.GetDirection()
    image = sitk.Image(image)  # at 0 and unturned, ties between two voxels do not depend on where the patient lay
    image.SetOrigin((0.0, 0.0, 0.0))
    image.SetDirection(np.eye(3).ravel().tolist())
    image.SetSpacing([round(mm, 5) for mm in image.GetSpacing()])  # NIfTI holds 0.8 as 0.80000001
    for axes, interpolator in steps:
        old, size = image.GetSpacing(), image.GetSize()
        new = [spacing if axis in axes else old[axis] for axis in range(3)]
        voxels = [max(1, round(n * a / b)) for n, a, b in zip(size, old, new, strict=True)]
        image = sitk.Resample(
            image, voxels, sitk.Transform(), interpolator, image.GetOrigin(), new, image.GetDirection(), 0
        )
    image.SetOrigin(origin)
    image.SetDirection(direction)
    return image


def crop_to_label(image: SimpleITK.Image, label: SimpleITK.Image, context: Sequence[int], least: int = 0) -> Pair:
    """The box of all labels above 0 and ``context`` (z, y, x) voxels around it; all where there is no label.

    An axis where the box has fewer than ``least`` voxels gets half of what it lacks in addition, on both sides.
    """
    import SimpleITK as sitk

    places = np.argwhere(sitk.GetArrayViewFromImage(label) > 0)
    if len(places) == 0:
        return image, label
    low, high, shape = places.min(0), places.max(0) + 1, np.asarray(label.GetSize()[::-1])
    reach = np.asarray(context) + np.maximum(least - (high - low), 0) // 2
    low, high = np.maximum(low - reach, 0), np.minimum(high + reach, shape)
    box = tuple(slice(int(a), int(b)) for a, b in zip(low[::-1], high[::-1], strict=True))
    return image[box], label[box]


def read_pair(image_file: Path, label_file: Path, spacing: Sequence[float] | None = None) -> Pair:
    """Read image and label; the label takes the image's geometry.

    Args:
        image_file: any volume that SimpleITK reads.
        label_file: its label map on the same grid.
        spacing: (x, y, z) in mm, where the files' own is wrong.

    Raises:
        DataError: unequal grids.
    """
    import SimpleITK as sitk

    image, label = sitk.ReadImage(str(image_file)), sitk.ReadImage(str(label_file))
    refuse_other_grid(image, label, image_file.name, label_file.name)
    if spacing is not None:
        image.SetSpacing(tuple(spacing))
    label.CopyInformation(image)
    return image, label


def refuse_other_grid(image: SimpleITK.Image, label: SimpleITK.Image, image_name: str, label_name: str) -> None:
    """Raise ``DataError`` where numbers of voxels or spacings differ; the names are for its sentence."""
    near = image.GetDimension() == label.GetDimension() and np.allclose(
        image.GetSpacing(), label.GetSpacing(), atol=_DIFFERENCE
    )
    if image.GetSize() != label.GetSize() or not near:
        raise DataError(
            f"{label_name} has {label.GetSize()} voxels of {label.GetSpacing()} mm, {image_name} "
            f"{image.GetSize()} of {image.GetSpacing()}; expected one grid. Get the files again."
        )


def to_form(pair: Pair, *, isotropic: bool, context: Sequence[int] | None) -> Pair:
    """Bring a pair to 1.5 mm and crop it to its labels, each where it is asked for."""
    image, label = pair
    if isotropic:
        image, label = to_isotropic(image), to_isotropic(label, label=True)
    return crop_to_label(image, label, context) if context is not None else (image, label)


def pairs_from_files(
    sources: Mapping[str, tuple[Path, Path]],
    *,
    isotropic: bool,
    context: Sequence[int] | None,
    spacings: Mapping[str, Sequence[float]] | None = None,
) -> Callable[[str], Pair]:
    """What makes a case of its image and label files: ``read_pair``, with a spacing of its own, then ``to_form``."""

    def make(name: str) -> Pair:
        return to_form(read_pair(*sources[name], (spacings or {}).get(name)), isotropic=isotropic, context=context)

    return make
