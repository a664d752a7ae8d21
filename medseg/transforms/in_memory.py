"""Images that are in memory, in the place of their paths: whatever reads a file takes them alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import nibabel
import numpy as np
import torch
from monai.data import MetaTensor
from monai.utils import MetaKeys, SpaceKeys

from medseg.errors import DataError
from medseg.transforms.nifti import NiftiReader

__all__ = ["InMemory"]


class InMemory(str):
    """A path, or what sentences call an image without one, together with the image as a reader gives it.

    Attributes:
        array: voxels ``(*spatial)``, or with an axis of channels that ``meta`` names.
        meta: at least ``affine`` (index -> RAS mm), ``spatial_shape`` and ``original_channel_dim``.
    """

    array: np.ndarray
    meta: Mapping[Any, Any]

    def __new__(cls, name: str, array: np.ndarray, meta: Mapping[Any, Any]) -> InMemory:
        image = super().__new__(cls, name)
        image.array, image.meta = array, meta
        return image

    @classmethod
    def of(
        cls,
        item: Any,
        spatial_dims: int,
        *,
        spacing: float | Sequence[float] | None = None,
        affine: Any = None,
        name: str = "image",
    ) -> InMemory:
        """A nibabel image, a MetaTensor, or an array or tensor with its place.

        Args:
            item: the image. An array or a tensor is ``(*spatial)`` or, with channels, ``(C, *spatial)``.
            spatial_dims: number of spatial axes of the network that takes it.
            spacing: mm per axis, of an array alone, whose axes are taken to run to the right, the front and the top;
            affine: or index -> RAS mm, 4 x 4.
            name: for sentences.

        Raises:
            DataError: another type or number of axes, or an array without a place, or any other image with one.
        """
        if isinstance(item, nibabel.spatialimages.SpatialImage):
            _refuse_place(item, spacing, affine)
            return cls._of_nibabel(item, name)
        if isinstance(item, MetaTensor):
            _refuse_place(item, spacing, affine)
            return cls._of_array(item.detach().cpu().numpy(), item.affine.numpy(), spatial_dims, name)
        if isinstance(item, torch.Tensor):
            item = item.detach().cpu().numpy()
        if not isinstance(item, np.ndarray):
            raise DataError(
                f"{name} is of type {type(item).__name__}; a path, a NumPy array with its spacing, a nibabel image or "
                "a MetaTensor is expected. Convert it."
            )
        return cls._of_array(item, _affine(item, spatial_dims, spacing, affine, name), spatial_dims, name)

    @classmethod
    def _of_nibabel(cls, item: Any, name: str) -> InMemory:
        nifti = nibabel.Nifti1Image.from_image(item)
        # Without the file: what the object says counts, also where it was changed since it was loaded.
        image = type(nifti)(np.asanyarray(nifti.dataobj), None, nifti.header)
        return cls(name, *NiftiReader().get_data(image))

    @classmethod
    def _of_array(cls, array: np.ndarray, affine: np.ndarray, spatial_dims: int, name: str) -> InMemory:
        if array.ndim - spatial_dims not in (0, 1):
            raise DataError(
                f"{name} has shape {array.shape}; {spatial_dims} spatial axes are expected, after one of channels "
                "where there are several. Reshape it."
            )
        full = np.eye(4)
        size = len(affine) - 1
        full[:size, :size], full[:size, 3] = affine[:size, :size], affine[:size, -1]
        meta = {
            MetaKeys.AFFINE: full,
            MetaKeys.ORIGINAL_AFFINE: full.copy(),
            MetaKeys.SPACE: SpaceKeys.RAS,
            MetaKeys.SPATIAL_SHAPE: np.array(array.shape[-spatial_dims:]),
            MetaKeys.ORIGINAL_CHANNEL_DIM: 0 if array.ndim > spatial_dims else float("nan"),
        }
        return cls(name, array, meta)


def _refuse_place(item: Any, spacing: Any, affine: Any) -> None:
    if spacing is not None or affine is not None:
        raise DataError(
            f"{type(item).__name__} knows its own place; expected spacing or affine with a NumPy array alone. Leave it "
            "out, or give the array."
        )


def _affine(
    array: np.ndarray, spatial_dims: int, spacing: float | Sequence[float] | None, affine: Any, name: str
) -> np.ndarray:
    if (spacing is None) == (affine is None):
        given = "neither spacing nor affine" if spacing is None else "both spacing and affine"
        raise DataError(
            f"{name} is an array with {given}; one of them is expected, in mm. For example spacing=(1.5, 1.5, 3)."
        )
    if affine is not None:
        matrix = np.asarray(affine, dtype=float)
        if matrix.shape != (4, 4):
            raise DataError(f"affine of {name} has shape {matrix.shape}; 4 x 4 is expected. Give index -> RAS mm.")
        return matrix
    try:
        sizes = np.asarray(spacing, dtype=float)
    except (TypeError, ValueError):
        sizes = np.zeros((0,))
    if sizes.shape not in ((), (spatial_dims,)):
        raise DataError(
            f"spacing {spacing} of {name} (shape {array.shape}): one number, or {spatial_dims} of them, are expected."
        )
    if not (np.isfinite(sizes) & (sizes > 0)).all():
        raise DataError(
            f"spacing {spacing} of {name}: numbers above 0 are expected, in mm. A mirrored image has an affine."
        )
    return np.diag([*np.broadcast_to(sizes, spatial_dims), *[1.0] * (4 - spatial_dims)])
