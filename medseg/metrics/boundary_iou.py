"""Boundary IoU (Cheng et al. 2021): IoU of the inner bands of two masks, which large objects do not flatter."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.ndimage import binary_erosion, distance_transform_edt

from medseg.metrics.overlap import overlap

__all__ = ["boundary_iou", "boundary_iou_mm"]


def boundary_iou(prediction: np.ndarray, reference: np.ndarray, *, share: float = 0.02) -> float:
    """IoU of bands as wide as ``share`` of the image's diagonal in pixels, at least one; NaN of two empty masks.

    The band is the mask less its erosion by the full square; outside the image is background.

    Args:
        prediction, reference: boolean masks ``(H, W)``.
    """
    width = max(1, round(share * math.hypot(*prediction.shape)))
    square = np.ones((3,) * prediction.ndim, dtype=bool)
    bands = [mask & ~binary_erosion(mask, square, iterations=width) for mask in (prediction, reference)]
    return overlap(*bands).iou


def boundary_iou_mm(prediction: np.ndarray, reference: np.ndarray, spacing: Sequence[float], *, width: float) -> float:
    """IoU of bands of ``width`` mm, of masks ``(*spatial)`` with voxels of ``spacing`` mm; not the published measure.

    A voxel is in the band if its centre is within ``width`` of the nearest voxel centre outside the mask.
    """
    bands = []
    for mask in (prediction, reference):
        inside = (slice(1, -1),) * mask.ndim
        bands.append(mask & (distance_transform_edt(np.pad(mask, 1), sampling=spacing)[inside] <= width))
    return overlap(*bands).iou
