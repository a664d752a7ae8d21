"""One image reader for every format that medseg takes, dispatching to MONAI's readers and SimpleITK."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK
from monai.data import ImageReader, NibabelReader, PILReader
from monai.utils import MetaKeys, SpaceKeys, ensure_tuple

__all__ = ["IMAGE_SUFFIXES", "VolumeReader", "is_2d_file"]

_NIFTI = (".nii", ".nii.gz")
_ITK = (".nrrd", ".mha", ".mhd")
_PHOTO = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
IMAGE_SUFFIXES = (*_NIFTI, *_ITK, *_PHOTO)


def is_2d_file(path: str | Path) -> bool:
    """Whether the format holds 2D images (PNG, JPEG, TIFF, BMP)."""
    return str(path).lower().endswith(_PHOTO)


class SimpleITKReader(ImageReader):
    """NRRD and MetaImage through SimpleITK, with arrays in (x, y, z) order and an RAS affine as for NIfTI."""

    def verify_suffix(self, filename: Any) -> bool:
        return all(str(name).lower().endswith(_ITK) for name in ensure_tuple(filename))

    def read(self, data: Any, **kwargs: Any) -> list[SimpleITK.Image]:
        return [SimpleITK.ReadImage(str(name)) for name in ensure_tuple(data)]

    def get_data(self, img: Any) -> tuple[np.ndarray, dict]:
        arrays = [np.moveaxis(SimpleITK.GetArrayFromImage(image), *_to_xyz(image)) for image in ensure_tuple(img)]
        first = ensure_tuple(img)[0]
        components = first.GetNumberOfComponentsPerPixel()
        meta = {
            MetaKeys.AFFINE: itk_affine(first),
            MetaKeys.ORIGINAL_AFFINE: itk_affine(first),
            MetaKeys.SPACE: SpaceKeys.RAS,
            MetaKeys.SPATIAL_SHAPE: np.array(first.GetSize()),
            MetaKeys.ORIGINAL_CHANNEL_DIM: -1 if components > 1 else float("nan"),
        }
        if len(arrays) == 1:
            return arrays[0], meta
        meta[MetaKeys.ORIGINAL_CHANNEL_DIM] = 0
        return np.stack(arrays), meta


def _to_xyz(image: SimpleITK.Image) -> tuple[list[int], list[int]]:
    """SimpleITK arrays are (z, y, x[, component]); move them to (x, y, z[, component])."""
    axes = list(range(image.GetDimension()))
    return axes, axes[::-1]


def itk_affine(image: SimpleITK.Image) -> np.ndarray:
    """Index -> RAS millimetres, 4 x 4 (ITK's own frame is LPS)."""
    dims = image.GetDimension()
    direction = np.array(image.GetDirection()).reshape(dims, dims)
    affine = np.eye(4)
    affine[:dims, :dims] = direction * np.array(image.GetSpacing())
    affine[:dims, 3] = image.GetOrigin()
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


class VolumeReader(ImageReader):
    """Reads NIfTI, NRRD, MetaImage and 2D images; several files of one case become channels in the order given.

    2D images keep (row, column) order; colour images come as channels.
    """

    def verify_suffix(self, filename: Any) -> bool:
        return all(str(name).lower().endswith(IMAGE_SUFFIXES) for name in ensure_tuple(filename))

    def _reader_of(self, filename: Any) -> ImageReader:
        # A new reader each time: MONAI's keep the last file names, and caches are filled by several threads.
        first = str(ensure_tuple(filename)[0]).lower()
        if first.endswith(_NIFTI):
            return NibabelReader()
        if first.endswith(_ITK):
            return SimpleITKReader()
        if first.endswith(_PHOTO):
            return PILReader(reverse_indexing=False)
        raise ValueError(f"Cannot read '{Path(first).suffix}'. Known: {' '.join(IMAGE_SUFFIXES)}.")

    def read(self, data: Any, **kwargs: Any) -> Any:
        reader = self._reader_of(data)
        return [(reader, reader.read(data, **kwargs))]

    def get_data(self, img: Any) -> tuple[np.ndarray, dict]:
        reader, images = img[0]
        return reader.get_data(images)
