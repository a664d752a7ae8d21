"""NIfTI headers: the scale factor and offset of voxel values, read alike everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np

__all__ = ["ignored_scale", "image_class", "open_nifti"]


def _usable(header: Any) -> tuple[float | None, float | None]:
    """Scale factor and offset; a factor of 0, NaN or infinity leaves the stored values, such an offset counts as 0.

    NIfTI defines the 0. Of numbers that are not finite ITK makes the same; nibabel refuses such an offset.
    """
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or not np.isfinite(slope):
        return None, None
    return slope, inter if np.isfinite(inter) else 0.0


def ignored_scale(header: Any) -> str:
    """What a header as stored (read without a check) says of the scale that cannot be used; empty if nothing."""
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or not np.isfinite(slope):
        return f"header scale factor (scl_slope) is {slope:g}; ignored"
    return "" if np.isfinite(inter) else f"header offset (scl_inter) is {inter:g}; ignored"


class _Header1(nibabel.Nifti1Header):
    def get_slope_inter(self) -> tuple[float | None, float | None]:
        return _usable(self)


class _Header2(nibabel.Nifti2Header):
    def get_slope_inter(self) -> tuple[float | None, float | None]:
        return _usable(self)


class _Nifti1(nibabel.Nifti1Image):
    header_class = _Header1


class _Nifti2(nibabel.Nifti2Image):
    header_class = _Header2


def image_class(head: bytes) -> Any:
    """The class that reads a file that begins with these four bytes (the header's size: 348, or 540 of NIfTI-2)."""
    return _Nifti2 if 540 in (int.from_bytes(head[:4], e) for e in ("little", "big")) else _Nifti1


def open_nifti(path: str | Path) -> Any:
    """The image of a NIfTI file, its voxels not read yet."""
    sniff = None
    for cls in (_Nifti1, _Nifti2):
        fits, sniff = cls.path_maybe_image(path, sniff)
        if fits:
            return cls.from_filename(path)
    return nibabel.load(path)  # says what the file is instead
