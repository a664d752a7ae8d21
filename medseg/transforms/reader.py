"""One image reader for every format that medseg takes, dispatching to MONAI's readers and SimpleITK."""

from __future__ import annotations

import functools
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import nibabel
import numpy as np
from monai.data import ImageReader
from monai.utils import MetaKeys, SpaceKeys, ensure_tuple

from medseg.dicom import may_be_dicom, require_extra
from medseg.errors import DataError
from medseg.faults import as_ours
from medseg.labels import whole_values
from medseg.transforms.in_memory import InMemory
from medseg.transforms.nifti import NiftiReader
from medseg.transforms.picture import PictureReader

__all__ = [
    "IMAGE_SUFFIXES",
    "KNOWN",
    "VolumeReader",
    "as_numbers",
    "is_2d_file",
    "is_dicom",
    "itk_affine",
    "simple_itk",
    "stem_of",
]

# MONAI's LoadImage also starts every reader of its own, and one of them reports at length that it lacks a GPU codec.
logging.getLogger("monai.data.nvimgcodec_pydicom_plugin").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", message="NvImgCodecPydicomReader", category=UserWarning)
# What readers print of files that they then read or refuse: the checks say it in sentences with the case.
nibabel.imageglobals.logger.setLevel(logging.CRITICAL)
warnings.filterwarnings("ignore", module=r"PIL\.")

_NIFTI = (".nii", ".nii.gz")
_ITK = (".nrrd", ".mha", ".mhd")
_PHOTO = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
_UNIT = "ITK_VoxelUnits"  # MetaImage's DistanceUnits, which ITK keeps and does not apply
IMAGE_SUFFIXES = (*_NIFTI, *_ITK, *_PHOTO)
KNOWN = f"{' '.join(IMAGE_SUFFIXES)}, DICOM"  # for sentences


def is_2d_file(path: str | Path) -> bool:
    """Whether the format holds 2D images (PNG, JPEG, TIFF, BMP)."""
    return str(path).lower().endswith(_PHOTO)


def is_dicom(path: str | Path) -> bool:
    """Whether a path stands for a DICOM series: its name, a folder, a zip archive or a file of it."""
    return not str(path).lower().endswith(IMAGE_SUFFIXES) and may_be_dicom(path)


def stem_of(path: str | Path) -> str:
    """The file name without its image suffix; other dots are part of the name."""
    name = Path(path).name
    for suffix in sorted(IMAGE_SUFFIXES, key=len, reverse=True):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return Path(name).stem


def as_numbers(array: np.ndarray, *, mask: bool) -> np.ndarray:
    """The values of a file's voxels as everything in medseg sees them.

    Args:
        array: values as read, scaled by the header.
        mask: a label map: whole numbers by ``whole_values``. An image keeps its type, to become float32 where it is
            used.

    Raises:
        DataError: numbers that float32 does not hold; NaN and infinity that the file itself has are left to the check.
    """
    if mask:
        return np.require(whole_values(array), requirements="W")  # Pillow's are read-only, which torch dislikes
    if array.dtype.kind == "f" and array.dtype.itemsize > 4:
        largest = float(np.finfo(np.float32).max)
        for value in (np.fmin.reduce(array, axis=None), np.fmax.reduce(array, axis=None)):
            if abs(value) > largest and np.isfinite(value):
                raise DataError(
                    f"voxel values up to {value:.3g}; numbers within ±{largest:.1g} (float32) are expected. "
                    "Export the image again: such numbers come from a damaged file or a wrong scale factor."
                )
    return array


@functools.cache
def simple_itk() -> ModuleType:
    """SimpleITK, of 90 MiB, when a file needs it; silent for the same reason as the readers above."""
    import SimpleITK

    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    module: ModuleType = SimpleITK
    return module


class SimpleITKReader(ImageReader):
    """NRRD and MetaImage through SimpleITK, with arrays in (x, y, z) order and an RAS affine as for NIfTI."""

    def verify_suffix(self, filename: Any) -> bool:
        return all(str(name).lower().endswith(_ITK) for name in ensure_tuple(filename))

    def read(self, data: Any, **kwargs: Any) -> list[Any]:
        return [simple_itk().ReadImage(str(name)) for name in ensure_tuple(data)]

    def get_data(self, img: Any) -> tuple[np.ndarray, dict[Any, Any]]:
        first = ensure_tuple(img)[0]
        unit = first.GetMetaData(_UNIT) if first.HasMetaDataKey(_UNIT) else "mm"
        if unit != "mm":
            raise DataError(
                f"unit of length is {unit} in the header; mm is expected, as which programs read the numbers. Give its "
                "spacing and origin in mm, and its DistanceUnits as mm."
            )
        array = np.moveaxis(simple_itk().GetArrayFromImage(first), *_to_xyz(first))
        last = first.GetNumberOfComponentsPerPixel() > 1 or first.GetDimension() > 3  # axis of channels, as in NIfTI
        meta = {
            MetaKeys.AFFINE: itk_affine(first),
            MetaKeys.ORIGINAL_AFFINE: itk_affine(first),
            MetaKeys.SPACE: SpaceKeys.RAS,
            MetaKeys.SPATIAL_SHAPE: np.array(first.GetSize()[:3]),
            MetaKeys.ORIGINAL_CHANNEL_DIM: -1 if last else float("nan"),
        }
        return array, meta


def _to_xyz(image: _Placed) -> tuple[list[int], list[int]]:
    """SimpleITK arrays are (z, y, x[, component]); move them to (x, y, z[, component])."""
    axes = list(range(image.GetDimension()))
    return axes, axes[::-1]


class _Placed(Protocol):
    """An image of SimpleITK, which has no types, or a reader that has read a header."""

    def GetDimension(self) -> int: ...
    def GetDirection(self) -> Sequence[float]: ...
    def GetSpacing(self) -> Sequence[float]: ...
    def GetOrigin(self) -> Sequence[float]: ...


def itk_affine(image: _Placed) -> np.ndarray:
    """Index -> RAS millimetres, 4 x 4 (ITK's own frame is LPS), of an image or of a reader that has read a header."""
    axes = image.GetDimension()
    dims = min(axes, 3)
    direction = np.array(image.GetDirection()).reshape(axes, axes)
    affine = np.eye(4)
    affine[:dims, :dims] = (direction * np.array(image.GetSpacing()))[:dims, :dims]
    affine[:dims, 3] = image.GetOrigin()[:dims]
    flipped: np.ndarray = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    return flipped


class DicomReader(ImageReader):
    """A DICOM series, named as ``medseg.dicom`` names it, or by a folder, zip archive or file that holds it."""

    def verify_suffix(self, filename: Any) -> bool:
        return all(is_dicom(name) for name in ensure_tuple(filename))

    def read(self, data: Any, **kwargs: Any) -> Any:
        require_extra()
        from medseg.dicom.series import find_series

        return find_series(ensure_tuple(data)[0])

    def get_data(self, img: Any) -> tuple[np.ndarray, dict[Any, Any]]:
        from medseg.dicom.volume import read_voxels

        array, affine = read_voxels(img), img.stack.affine
        meta = {
            MetaKeys.AFFINE: affine.copy(),
            MetaKeys.ORIGINAL_AFFINE: affine.copy(),
            MetaKeys.SPACE: SpaceKeys.RAS,
            MetaKeys.SPATIAL_SHAPE: np.array(array.shape),
            MetaKeys.ORIGINAL_CHANNEL_DIM: float("nan"),
        }
        return array, meta


class VolumeReader(ImageReader):
    """Reads NIfTI, NRRD, MetaImage, DICOM and 2D images; several files of one case become channels in the order given.

    2D images keep (row, column) order; colour images come as channels. An ``InMemory`` image may take
    the place of a path.

    Args:
        mask: the files are label maps: 2D images are read for the values, not the colours, of their pixels, and values
            are whole numbers (``as_numbers``).

    Raises:
        DataError: an image or a number that cannot be used (by ``get_data``).
    """

    def __init__(self, *, mask: bool = False) -> None:
        super().__init__()
        self.mask = mask

    def verify_suffix(self, filename: Any) -> bool:
        return all(str(name).lower().endswith(IMAGE_SUFFIXES) or is_dicom(name) for name in ensure_tuple(filename))

    def _reader_of(self, filename: str) -> ImageReader:
        # A new reader each time: MONAI's keep the last file names, and caches are filled by several threads.
        name = filename.lower()
        if name.endswith(_NIFTI):
            return NiftiReader()
        if name.endswith(_ITK):
            return SimpleITKReader()
        if name.endswith(_PHOTO):
            return PictureReader(mask=self.mask)
        if is_dicom(filename):
            return DicomReader()
        raise ValueError(f"Cannot read '{Path(name).suffix}'. Known: {KNOWN}.")

    def read(self, data: Any, **kwargs: Any) -> Any:
        # An error waits for get_data: after one of read, LoadImaged would try its own readers.
        return [
            item if isinstance(item, InMemory) else (str(item), *self._read_one(str(item), kwargs))
            for item in ensure_tuple(data)
        ]

    def _read_one(self, name: str, arguments: Any) -> tuple[ImageReader | None, Any]:
        try:
            reader = self._reader_of(name)
            return reader, reader.read(name, **arguments)
        except Exception as error:
            return None, error

    def get_data(self, img: Any) -> tuple[np.ndarray, dict[Any, Any]]:
        """The array and its metadata.

        Raises:
            DataError: a file is missing, damaged or cannot be read.
            ResourceError: the machine is out of memory.
        """
        # File by file: MONAI's readers refuse channels whose affines differ in the last digits, as headers do.
        read = ((item.array, dict(item.meta)) if isinstance(item, InMemory) else _data(*item) for item in img)
        parts = [(as_numbers(array, mask=self.mask), meta) for array, meta in read]
        array, meta = parts[0]
        if len(parts) == 1:
            return array, meta
        channels = [_channel_first(*part) for part in parts]
        return np.concatenate(channels), {**meta, MetaKeys.ORIGINAL_CHANNEL_DIM: 0}


def _data(name: str, reader: ImageReader | None, image: Any) -> tuple[np.ndarray, dict[Any, Any]]:
    try:
        if reader is None:
            raise image
        return reader.get_data(image)
    except Exception as error:
        ours = as_ours(error, name)
        if ours is error:
            raise
        if ours is not None:
            raise ours from error
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(f"{name} cannot be read ({lines[-1].strip()}); copy or export the file again.") from error


def _channel_first(array: np.ndarray, meta: dict[Any, Any]) -> np.ndarray:
    channel_dim = meta[MetaKeys.ORIGINAL_CHANNEL_DIM]
    return array[None] if np.isnan(channel_dim) else np.moveaxis(array, int(channel_dim), 0)
