"""Checks of grids: one image's own, and whether two files lie on one grid."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from medseg.data.files import Volume
from medseg.data.findings import Finding, by
from medseg.transforms.grid import GRID_TOLERANCE, corner_distance

__all__ = ["check_grid", "check_same_grid", "ras_axes", "spacing_of"]

_INDEPENDENT = 1e-3  # volume spanned by the unit axes; 1 for perpendicular ones, 0.17 for a shear of 80 degrees


def spacing_of(volume: Volume) -> tuple[float, ...]:
    """mm per voxel and axis, source orientation."""
    return tuple(float(s) for s in np.linalg.norm(volume.affine[:3, :3], axis=0)[: len(volume.shape)])


def ras_axes(volume: Volume) -> tuple[int, ...]:
    """The file's axes that run (mostly) to the right, to the front and up; 2D: as they are."""
    spacing = spacing_of(volume)
    if len(spacing) != 3:
        return tuple(range(len(spacing)))
    order = np.argsort(np.argmax(np.abs(volume.affine[:3, :3]) / np.array(spacing), axis=0), kind="stable")
    return tuple(int(axis) for axis in order)


def check_grid(volume: Volume) -> Iterator[Finding]:
    """Spacing, affine and number of voxels per axis of one file."""
    spacing = np.array(volume.header_spacing)
    if not (np.isfinite(spacing).all() and (spacing > 0).all()):
        yield Finding(
            f"spacing {by(volume.header_spacing)} mm is not valid; positive numbers are expected",
            "Mend the header, for example with nibabel's set_zooms.",
        )
        return
    if not np.isfinite(volume.header_affine).all():
        yield Finding("the affine holds NaN or infinity; numbers are expected", "Mend the header's sform or qform.")
        return
    axes = volume.header_affine[:3, :3]
    lengths = np.linalg.norm(axes, axis=0)
    if lengths.min() == 0 or abs(np.linalg.det(axes / lengths)) < _INDEPENDENT:
        yield Finding(
            "the affine has determinant 0; three independent axes are expected", "Mend the header's sform or qform."
        )
        return
    if len(volume.shape) == 3 and 1 in volume.shape:
        yield Finding(
            f"axis {volume.shape.index(1)} has 1 voxel (shape {by(volume.shape)}); a volume is expected",
            "Store the slice as a 2D image (PNG, TIFF or 2D NIfTI) and use a 2D network.",
        )


def check_same_grid(image: Volume, other: Volume, what: str) -> Iterator[Finding]:
    """Whether ``other`` (``what``: "label" or "channel 1") has the image's shape and place.

    Corners less than a tenth of a voxel apart count as equal.
    """
    if other.shape != image.shape:
        yield Finding(
            f"image {by(image.shape)}, {what} {by(other.shape)} voxels; one grid is expected",
            f"Fix the pair: resample the {what} to the image's grid.",
        )
        return
    spacing, other_spacing = spacing_of(image), spacing_of(other)
    if image.photo or other.photo:
        return  # a format without physical size lies where its partner lies
    if not np.allclose(spacing, other_spacing, rtol=1e-2):
        yield Finding(
            f"image spacing {by(spacing)} mm, {what} spacing {by(other_spacing)} mm; one grid is expected",
            f"Fix the pair: resample the {what} to the image's grid.",
        )
        return
    offset = corner_distance(image.shape, image.affine, other.affine)
    if offset > GRID_TOLERANCE * min(spacing):
        yield Finding(
            f"the {what}'s corners are up to {offset:.3g} mm from the image's; "
            f"at most {GRID_TOLERANCE * min(spacing):.2g} mm ({GRID_TOLERANCE} voxel) are expected",
            f"Resample the {what} to the image's grid; if only its header is wrong, copy the image's affine to it.",
        )
