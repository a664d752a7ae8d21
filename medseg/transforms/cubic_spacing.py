"""Resampling to a spacing by nnU-Net's rules."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from scipy import ndimage

from medseg.transforms.spacing import OwnSpacingd

__all__ = ["CubicSpacingd"]

_ANISOTROPY = 3.0  # nnU-Net: an axis that is coarser than the finest by more than this is resampled by itself
_SMALL = 1e-3  # voxels


class CubicSpacingd(OwnSpacingd):
    """Resampling as nnU-Net does it: images (mode ``bilinear``) by cubic splines, labels (``nearest``) by the linearly
    resampled mask of each, of which the largest wins.

    Along an axis that is more than three times as coarse as the finest, before or after, both take the nearest slice.
    The grid, and its record for the way back, are those of ``OwnSpacingd``.
    """

    def __call__(self, data: Mapping[Hashable, Any], lazy: bool | None = None) -> dict[Hashable, Any]:
        result = super().__call__(data, lazy)
        for key, mode in self.key_iterator(data, self.mode):
            _resample(data[key], result[key], labels=mode == "nearest")
        return result


def _resample(source: MetaTensor, target: MetaTensor, *, labels: bool) -> None:
    """The values of ``target``, from ``source`` ``(C, *spatial)`` whose axes it shares."""
    dims = source.dim() - 1
    way = np.linalg.solve(np.asarray(source.affine, dtype=float), np.asarray(target.affine, dtype=float))
    scale, shift = np.diag(way)[:dims], way[:dims, dims]
    if source.shape == target.shape and np.allclose(scale, 1, atol=_SMALL) and np.allclose(shift, 0, atol=_SMALL):
        return
    coarse = _coarse_axis(source.pixdim[:dims].tolist(), target.pixdim[:dims].tolist())
    for values, resampled in zip(source.as_tensor().numpy(), target.as_tensor(), strict=True):
        made = _labels if labels else _spline
        resampled.copy_(torch.from_numpy(made(values, scale, shift, tuple(resampled.shape), coarse)))


def _coarse_axis(*spacings: Sequence[float]) -> int | None:
    """The axis of the first spacing that has one so coarse; ``None`` where two are."""
    for mm in spacings:
        if max(mm) > _ANISOTROPY * min(mm):
            coarsest = [axis for axis, one in enumerate(mm) if np.isclose(one, max(mm))]
            return coarsest[0] if len(coarsest) == 1 else None
    return None


def _spline(
    values: np.ndarray,
    scale: np.ndarray,
    shift: np.ndarray,
    shape: tuple[int, ...],
    coarse: int | None,
    order: int = 3,
) -> np.ndarray:
    """Values ``(*spatial)`` at ``scale * voxel + shift``, by splines of an order, across ``coarse`` the nearest."""
    values = values.astype(np.float32, copy=False)
    if coarse is None:
        found: np.ndarray = ndimage.affine_transform(values, scale, shift, shape, order=order, mode="nearest")
        return found
    across = np.arange(len(shape)) == coarse
    plane = tuple(np.where(across, values.shape, shape).tolist())
    values = ndimage.affine_transform(
        values, np.where(across, 1, scale), np.where(across, 0, shift), plane, order=order, mode="nearest"
    )
    places = np.rint(scale[coarse] * np.arange(shape[coarse]) + shift[coarse]).clip(0, values.shape[coarse] - 1)
    nearest: np.ndarray = values.take(places.astype(int), axis=coarse)
    return nearest


def _labels(
    values: np.ndarray, scale: np.ndarray, shift: np.ndarray, shape: tuple[int, ...], coarse: int | None
) -> np.ndarray:
    """Label values ``(*spatial)``; of equal shares the lower value."""
    result, largest = np.zeros(shape, np.float32), np.full(shape, -1.0, np.float32)
    for value in np.unique(values):
        share = _spline(values == value, scale, shift, shape, coarse, order=1)
        np.copyto(result, value, where=share > largest)
        np.maximum(share, largest, out=largest)
    return result
