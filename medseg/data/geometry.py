"""Checks of grids: one image's own, and whether two files lie on one grid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from medseg.data.files import Volume
from medseg.data.findings import Finding, by
from medseg.transforms.grid import GRID_TOLERANCE, corner_distance
from medseg.transforms.nifti import Placement

__all__ = ["check_grid", "check_same_grid", "far_spacing", "ras_axes"]

_INDEPENDENT = 1e-3  # volume spanned by the unit axes; 1 for perpendicular ones, 0.17 for a shear of 80 degrees
_LEAST_SHEAR = 0.01  # degrees; below lies the rounding of headers
_MOST_SHEAR = 10.0  # degrees: distances along the axes are wrong by up to 9 %; affine registration stays below
_LEAST_SPACING, _MOST_SPACING = 0.0005, 100.0  # mm: from half a micrometre; beyond lie wrong units
_SMALL_SPACING = 0.01  # mm: below lie microscopes, and metres that are not said to be metres
_SAME_SPACING = 1e-2  # relative
_FAR = 20.0  # ratio of mean voxel sizes: beyond it, a scan has no voxel or a thousand for one of the other
_OTHER_UNITS = {"m": "metres", "µm": "micrometres"}


def ras_axes(volume: Volume) -> tuple[int, ...]:
    """The file's axes that run (mostly) to the right, to the front and up; 2D: as they are."""
    spacing = volume.spacing
    if len(spacing) != 3:
        return tuple(range(len(spacing)))
    order = np.argsort(np.argmax(np.abs(volume.affine[:3, :3]) / np.array(spacing), axis=0), kind="stable")
    return tuple(int(axis) for axis in order)


def check_grid(volume: Volume) -> Iterator[Finding]:
    """Spacing, affine and number of voxels per axis of one file, and what its header leaves open."""
    if not all(np.isfinite(size) and size > 0 for size in volume.header_spacing):
        yield Finding(
            f"spacing {by(volume.header_spacing)} mm is not valid; positive numbers are expected",
            "Fix the header, for example with nibabel's set_zooms.",
        )
        return
    if not np.isfinite(volume.affine).all():
        yield Finding("the affine holds NaN or infinity; numbers are expected", "Fix the header's sform or qform.")
        return
    angle = _shear(volume)
    if angle is None:
        yield Finding(
            "the affine has determinant 0; three independent axes are expected", "Fix the header's sform or qform."
        )
        return
    if not volume.photo:
        yield from _check_shear(angle, nifti=volume.placement is not None)
        yield from _check_spacing(volume)
    if volume.placement is not None:
        yield from _check_placement(volume, volume.placement)
    if len(volume.shape) == 3 and 1 in volume.shape:
        yield Finding(
            f"axis {volume.shape.index(1)} has 1 voxel (shape {by(volume.shape)}); a volume is expected",
            "Store the slice as a 2D image (PNG, TIFF or 2D NIfTI) and use a 2D network.",
        )


def _shear(volume: Volume) -> float | None:
    """The largest deviation of two axes from a right angle, in degrees; ``None`` if they span no volume."""
    axes = volume.affine[:3, : len(volume.shape)]
    lengths = np.linalg.norm(axes, axis=0)
    if lengths.min() == 0:
        return None
    cosines = (axes / lengths).T @ (axes / lengths)
    if np.linalg.det(cosines) < _INDEPENDENT**2:
        return None
    return float(np.degrees(np.arcsin(np.abs(np.triu(cosines, 1)).max())))


def _check_shear(angle: float, *, nifti: bool) -> Iterator[Finding]:
    if angle > _MOST_SHEAR:
        yield Finding(
            f"axes are not perpendicular ({angle:.3g}° shear); at most {_MOST_SHEAR:g}° are expected",
            "Resample it to perpendicular axes, for example with nibabel.processing.resample_to_output.",
        )
    elif angle > _LEAST_SHEAR:
        yield Finding(
            f"axes are not perpendicular ({angle:.2g}° shear); right angles are expected",
            "Label maps lie where the image lies; distances in mm are approximate."
            if nifti
            else "Distances in mm are approximate, and programs based on ITK read the shear of label maps (NIfTI) as "
            "none: resample the image to perpendicular axes, or save it as NIfTI.",
            warning=True,
        )


def _check_spacing(volume: Volume) -> Iterator[Finding]:
    spacing, place = volume.spacing, volume.placement
    unit = place.unit if place is not None else "mm"
    if min(spacing) < _LEAST_SPACING or max(spacing) > _MOST_SPACING:
        yield Finding(
            f"spacing {by(spacing)} mm{f' (the header is in {unit})' if unit in _OTHER_UNITS else ''}; "
            f"{_LEAST_SPACING:g} to {_MOST_SPACING:g} mm are expected",
            "Fix the header's unit or voxel size, for example with nibabel's set_xyzt_units, or set_sform and "
            "set_qform.",
        )
    elif unit in _OTHER_UNITS:
        yield Finding(
            f"spacing is {by(volume.header_spacing)}; the header says {_OTHER_UNITS[unit]}, where mm is expected",
            f"It is taken as {by(spacing)} mm. If that is wrong, fix the header: nibabel's set_xyzt_units('mm').",
            warning=True,
        )
    elif min(spacing) < _SMALL_SPACING:
        yield Finding(
            f"spacing is {by(spacing)} mm; {_SMALL_SPACING:g} mm or more is expected",
            "If the numbers are metres, say so in the header: nibabel's set_xyzt_units('meter').",
            warning=True,
        )


def _check_placement(volume: Volume, place: Placement) -> Iterator[Finding]:
    spacing, dims = volume.spacing, len(volume.shape)
    voxel = place.voxel[:dims]
    if place.qform is not None:
        apart = corner_distance(volume.shape, place.affine, place.qform)
        if not apart <= GRID_TOLERANCE * min(spacing):  # also where the qform holds no numbers
            far = f"{apart:.3g} mm apart" if np.isfinite(apart) else "at different places"
            yield Finding(
                f"qform and sform place the voxels {far}; one place is expected",
                "The sform is used, as nibabel and FSL do. Label maps carry both, so that each program puts them on "
                "the image.",
                warning=True,
            )
    if not np.allclose(voxel, spacing, rtol=_SAME_SPACING):
        yield Finding(
            f"voxel size is {by(voxel)} mm by pixdim and {by(spacing)} mm by the {place.form}; one size is expected",
            f"The {place.form}'s is used. If pixdim is right, fix the header: nibabel's set_sform.",
            warning=True,
        )
    if place.form == "pixdim" and dims == 3:
        yield Finding(
            "qform and sform have code 0, so that the header does not say where the voxels lie; a code above 0 is "
            "expected",
            "The axes are taken to run to the left, front and top, as nibabel and FSL do. If that is wrong, set the "
            "sform.",
            warning=True,
        )


def far_spacing(spacing: Sequence[float], usual: Sequence[float]) -> bool:
    """Whether two voxel sizes are so far apart that one of them must be in another unit."""
    return bool(abs(np.mean(np.log(spacing)) - np.mean(np.log(usual))) > np.log(_FAR))


def check_same_grid(image: Volume, other: Volume, what: str, *, of: str = "image") -> Iterator[Finding]:
    """Whether ``other`` (``what``: "label" or "channel 1") has the shape and place of the image, or what it is called.

    Corners less than a tenth of a voxel apart count as equal.
    """
    if other.shape != image.shape:
        remedy = f"Fix the pair: resample the {what} to the {of}'s grid."
        if image.orientation != other.orientation and other.shape == image.shape[::-1]:
            remedy = f"The image's orientation tag (EXIF) is applied: rotate the {what} as well, or remove the tag."
        yield Finding(f"{of} {by(image.shape)}, {what} {by(other.shape)} voxels; one grid is expected", remedy)
        return
    spacing, other_spacing = image.spacing, other.spacing
    if image.photo or other.photo:
        return  # a format without physical size lies where its partner lies
    if not np.allclose(spacing, other_spacing, rtol=_SAME_SPACING):
        yield Finding(
            f"{of} spacing {by(spacing)} mm, {what} spacing {by(other_spacing)} mm; one grid is expected",
            f"Fix the pair: resample the {what} to the {of}'s grid.",
        )
        return
    offset = corner_distance(image.shape, image.affine, other.affine)
    if offset > GRID_TOLERANCE * min(spacing):
        yield Finding(
            f"the {what}'s corners are up to {offset:.3g} mm from the {of}'s; "
            f"at most {GRID_TOLERANCE * min(spacing):.2g} mm ({GRID_TOLERANCE} voxel) are expected",
            f"Resample the {what} to the {of}'s grid; if only its header is wrong, copy the {of}'s affine to it.",
        )
