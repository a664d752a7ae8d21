"""Distances between the border voxels of two masks, computed once, and the scores of which each names its definition.

A border voxel is in the mask and has a face neighbour outside it; outside the image counts as outside. The 95th
percentile of one pair of masks can be 23 mm *directed* and 0 mm *pooled*: a number without its definition is none.
``surface_area`` weights surfaces by their area instead.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from monai.metrics.utils import get_edge_surface_distance

from medseg.metrics.box import bounding_box

__all__ = ["SurfaceDistances", "surface_distances"]


@dataclass(frozen=True)
class SurfaceDistances:
    """Distances in mm of each border voxel to the other mask's nearest one; none, and every score NaN, if one is empty.

    Attributes:
        to_reference: distances of the prediction's border voxels.
        to_prediction: distances of the reference's border voxels.
    """

    to_reference: np.ndarray
    to_prediction: np.ndarray

    @property
    def _defined(self) -> bool:
        return bool(len(self.to_reference) and len(self.to_prediction))

    @property
    def _pooled(self) -> np.ndarray:
        return np.concatenate([self.to_reference, self.to_prediction])

    def hausdorff(self, percentile: float = 95) -> float:
        """``directed``: the larger of both directions' percentiles; MONAI, Metrics Reloaded."""
        if not self._defined:
            return math.nan
        return max(_percentile(one, percentile) for one in (self.to_reference, self.to_prediction))

    def pooled_hausdorff(self, percentile: float = 95) -> float:
        """``pooled``: percentile of both directions' distances together; medpy, nnU-Net v1."""
        return _percentile(self._pooled, percentile) if self._defined else math.nan

    @property
    def assd(self) -> float:
        """Average symmetric surface distance: mean of both directions' distances together; MONAI, medpy 0.5."""
        return float(self._pooled.mean(dtype=float)) if self._defined else math.nan

    @property
    def masd(self) -> float:
        """Mean of the two directed means; Metrics Reloaded."""
        if not self._defined:
            return math.nan
        return float(self.to_reference.mean(dtype=float) + self.to_prediction.mean(dtype=float)) / 2

    def surface_dice(self, tolerance: float) -> float:
        """Share of border voxels within ``tolerance`` mm of the other mask's."""
        return float((self._pooled <= np.float32(tolerance)).mean()) if self._defined else math.nan


def _percentile(distances: np.ndarray, percentile: float) -> float:
    """Linear interpolation in single precision, to the digits of MONAI's ``compute_hausdorff_distance``."""
    return float(torch.quantile(torch.from_numpy(distances), percentile / 100))


def surface_distances(prediction: np.ndarray, reference: np.ndarray, spacing: Sequence[float]) -> SurfaceDistances:
    """Distances between two boolean masks ``(*spatial)`` with voxels of ``spacing`` mm."""
    if not prediction.any() or not reference.any():
        return SurfaceDistances(np.empty(0), np.empty(0))
    box = bounding_box(prediction | reference)
    first, second = (torch.from_numpy(np.ascontiguousarray(m[box], dtype=bool)) for m in (prediction, reference))
    _, distances, _ = get_edge_surface_distance(first, second, spacing=list(spacing), symmetric=True)
    return SurfaceDistances(*(one.numpy() for one in distances))
