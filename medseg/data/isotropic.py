"""Volumes and label maps to one isotropic spacing, cropped to the labels, as for Hermes (arXiv 2306.02416).

Image: B-splines in the plane, the nearest slice along z; label: nearest. Two things are different: directions and
origins are kept, so that results can be laid over the source, and labels never pass through B-splines.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medseg.data.convert import convert_files
from medseg.data.datalist import assign_folds, write_datalist
from medseg.errors import DataError

if TYPE_CHECKING:
    import SimpleITK

__all__ = ["convert_pair", "crop_to_label", "prepare_isotropic", "to_isotropic"]

_DIFFERENCE = 0.01  # mm, of spacings that count as equal


def to_isotropic(image: SimpleITK.Image, spacing: float = 1.5, *, label: bool = False) -> SimpleITK.Image:
    """Resample x and y first, then z; voxels outside become 0, pixels keep their type."""
    import SimpleITK as sitk

    origin, direction = image.GetOrigin(), image.GetDirection()
    image = sitk.Image(image)  # at 0 and unturned, ties between two voxels do not depend on where the patient lay
    image.SetOrigin((0.0, 0.0, 0.0))
    image.SetDirection(np.eye(3).ravel().tolist())
    image.SetSpacing([round(mm, 5) for mm in image.GetSpacing()])  # NIfTI holds 0.8 as 0.80000001
    plane = sitk.sitkNearestNeighbor if label else sitk.sitkBSpline
    for axes, interpolator in (((0, 1), plane), ((2,), sitk.sitkNearestNeighbor)):
        old, size = image.GetSpacing(), image.GetSize()
        new = [spacing if axis in axes else old[axis] for axis in range(3)]
        voxels = [max(1, round(n * a / b)) for n, a, b in zip(size, old, new, strict=True)]
        image = sitk.Resample(
            image, voxels, sitk.Transform(), interpolator, image.GetOrigin(), new, image.GetDirection(), 0
        )
    image.SetOrigin(origin)
    image.SetDirection(direction)
    return image


def crop_to_label(
    image: SimpleITK.Image, label: SimpleITK.Image, context: Sequence[int]
) -> tuple[SimpleITK.Image, SimpleITK.Image]:
    """The box of all labels above 0 and ``context`` (z, y, x) voxels around it; all where there is no label."""
    import SimpleITK as sitk

    places = np.argwhere(sitk.GetArrayViewFromImage(label) > 0)
    if len(places) == 0:
        return image, label
    reach, shape = np.asarray(context), np.asarray(label.GetSize()[::-1])
    low, high = np.maximum(places.min(0) - reach, 0), np.minimum(places.max(0) + 1 + reach, shape)
    box = tuple(slice(int(a), int(b)) for a, b in zip(low[::-1], high[::-1], strict=True))
    return image[box], label[box]


def convert_pair(
    source: tuple[Path, Path],
    targets: tuple[Path, Path],
    *,
    context: Sequence[int] | None = (20, 20, 20),
    spacing: Sequence[float] | None = None,
) -> None:
    """Read image and label, bring them to 1.5 mm, and write both.

    Args:
        source: image and label files on one grid.
        targets: where they go.
        context: voxels (z, y, x) around the labels that are kept; ``None`` crops nothing.
        spacing: (x, y, z) in mm, where the files' own is wrong.

    Raises:
        DataError: unequal grids.
    """
    import SimpleITK as sitk

    image, label = (sitk.ReadImage(str(path)) for path in source)
    near = np.allclose(image.GetSpacing(), label.GetSpacing(), atol=_DIFFERENCE)
    if image.GetSize() != label.GetSize() or not near:
        raise DataError(
            f"{source[1].name} has {label.GetSize()} voxels of {label.GetSpacing()} mm, {source[0].name} "
            f"{image.GetSize()} of {image.GetSpacing()}; expected one grid. Get the files again."
        )
    if spacing is not None:
        image.SetSpacing(tuple(spacing))
    label.CopyInformation(image)
    image, label = to_isotropic(image), to_isotropic(label, label=True)
    if context is not None:
        image, label = crop_to_label(image, label, context)
    for volume, path in zip((image, label), targets, strict=True):
        sitk.WriteImage(volume, str(path), useCompression=True)


def prepare_isotropic(
    table: Mapping[str, Any],
    sources: Mapping[str, tuple[Path, Path]],
    sections: Mapping[str, Collection[str]],
    path: Path,
    *,
    context: Sequence[int] | None,
    spacings: Mapping[str, Sequence[float]] | None = None,
    num_folds: int = 5,
    seed: int = 0,
) -> Path:
    """Convert all cases to ``NAME.nii.gz`` and ``NAME_gt.nii.gz`` beside the datalist, which is written last.

    Args:
        table: the datalist without its sections.
        sources: case -> image and label.
        sections: ``validation`` and ``test`` -> cases; the others are for training.
        path: the datalist.
        context, spacings: of ``convert_pair``; spacings by case.
        num_folds, seed: of the training cases.

    Raises:
        CasesFailed: some cases cannot be converted; the others are done.
    """
    folder = path.parent

    def convert(name: str, temporary: Path) -> None:
        # The image is renamed last: where it is, its label is.
        label = folder / f"{name}_gt.nii.gz"
        part = label.with_name(f".partial_{label.name}")
        convert_pair(sources[name], (temporary, part), context=context, spacing=(spacings or {}).get(name))
        part.replace(label)

    convert_files([(name, folder / f"{name}.nii.gz") for name in sources], convert)
    entries = {
        name: {"image": f"{name}.nii.gz", "label": f"{name}_gt.nii.gz", "case_id": name}
        for name in sorted(sources, key=_number)
    }
    held_out = {name for names in sections.values() for name in names}
    training = assign_folds([entry for name, entry in entries.items() if name not in held_out], num_folds, seed)
    listed = {key: [entries[name] for name in names] for key, names in sections.items()}
    return write_datalist({**table, "training": training, **listed}, path, folder)


def _number(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isdigit() else (0, name)
