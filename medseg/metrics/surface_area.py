"""HD95 and surface Dice by the area of surfaces (Nikolov et al. 2018, arXiv 1809.04430).

Surfaces lie between voxels: every 2 x 2 x 2 neighbourhood that is not all inside or all outside has a marching-cubes
area, by which its distance to the other surface counts. ``cases`` has MONAI's form, which counts border voxels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from monai.metrics.utils import get_mask_edges
from scipy.ndimage import binary_opening
from scipy.spatial import KDTree

from medseg.metrics.box import bounding_box

__all__ = ["area_surface_scores"]


def area_surface_scores(
    prediction: np.ndarray,
    reference: np.ndarray,
    spacing: Sequence[float],
    tolerance: float | None = None,
    *,
    opening: bool = True,
) -> tuple[float, float]:
    """HD95 in mm and surface Dice of two boolean masks ``(*spatial)``.

    Args:
        spacing: voxel size in mm.
        tolerance: tolerance of the surface Dice in mm; ``None`` is the mean of ``spacing``.
        opening: for HD95, and of the prediction only, specks are removed first (binary opening by the cross), as in
            the neural-operator papers.

    Returns:
        HD95, the larger of both directions' distance within which 95 % of the area lies: infinite without a prediction;
        surface Dice. Both are NaN where the reference is empty.
    """
    if not reference.any():
        return math.nan, math.nan
    prediction, reference = _common_box(prediction, reference)
    surface = _Surface(reference, spacing)
    limit = float(np.mean(spacing)) if tolerance is None else tolerance
    both = _distances(_Surface(prediction, spacing), surface)
    within = sum(float(areas[distances <= limit].sum()) for distances, areas in both)
    surface_dice = within / sum(float(areas.sum()) for _, areas in both)
    opened = binary_opening(prediction) if opening else prediction
    if not opened.any():
        return math.inf, surface_dice
    if (opened != prediction).any():
        both = _distances(_Surface(opened, spacing), surface)
    return max(_percentile(distances, areas, 0.95) for distances, areas in both), surface_dice


class _Surface:
    """The elements of a mask's surface: their places in mm ``(elements, dims)`` and their areas."""

    def __init__(self, mask: np.ndarray, spacing: Sequence[float]) -> None:
        volume = torch.from_numpy(np.ascontiguousarray(mask, dtype=bool))
        edges, _, areas, _ = get_mask_edges(volume, volume, crop=False, spacing=tuple(spacing))
        self.places = np.argwhere(edges.numpy()) * np.asarray(spacing, dtype=float)
        self.areas = areas.double().numpy()[edges.numpy()]

    def distances(self, other: _Surface) -> np.ndarray:
        """Distance of each element to the other surface; infinite where that is empty."""
        if not len(other.places):
            return np.full(len(self.places), math.inf)
        found: np.ndarray = KDTree(other.places, leafsize=32).query(self.places)[0]
        return found


def _distances(first: _Surface, second: _Surface) -> list[tuple[np.ndarray, np.ndarray]]:
    """For either surface, the distance of its elements to the other, and their areas."""
    return [(first.distances(second), first.areas), (second.distances(first), second.areas)]


def _common_box(*masks: np.ndarray) -> list[np.ndarray]:
    """The part of the masks that holds their voxels, and a voxel around it, which may lie outside the image."""
    padded = [np.pad(mask, 1) for mask in masks]
    box = bounding_box(np.logical_or.reduce(padded))
    return [mask[box] for mask in padded]


def _percentile(distances: np.ndarray, areas: np.ndarray, share: float) -> float:
    """The first distance up to which at least ``share`` of the area lies."""
    order = np.argsort(distances)
    covered = np.cumsum(areas[order]) / areas.sum()
    return float(distances[order][min(int(np.searchsorted(covered, share)), len(order) - 1)])
