"""NIfTI headers: the scale factor and offset of voxel values, read alike everywhere."""

from __future__ import annotations

import contextlib
import gzip
import weakref
import zlib
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
    """The image of a NIfTI file, its voxels not read yet. The file is opened once and closed with the image."""
    with contextlib.ExitStack() as opened:
        file = opened.enter_context(Path(path).open("rb"))
        stream: Any = gzip.GzipFile(fileobj=file) if Path(path).suffix.lower() == ".gz" else file
        head = b""
        with contextlib.suppress(OSError, EOFError, zlib.error):
            head = stream.read(_Header2.sizeof_hdr)
        for cls in (_Nifti1, _Nifti2):
            header: Any = cls.header_class
            if header.may_contain_header(head):
                stream.seek(0)
                image = cls.from_stream(stream)
                weakref.finalize(image, opened.pop_all().close)
                return image
    return nibabel.load(path)  # says what the file is instead
