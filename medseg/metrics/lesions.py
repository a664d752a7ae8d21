"""Detection of lesions: which connected parts of two masks meet, by size, and the volume of those that do not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import generate_binary_structure, label

from medseg.errors import ConfigError

__all__ = ["SizeBin", "components", "detect_lesions", "unmatched_volumes"]

_RANKS = {6: 1, 18: 2, 26: 3}  # neighbours -> number of axes along which a neighbour may differ


@dataclass(frozen=True)
class SizeBin:
    """Lesions of ``lower < ml <= upper`` of one scan.

    Attributes:
        reference: number of reference lesions, by their own volume.
        found: number of those that the prediction meets.
        predicted: number of predicted lesions, by their own volume.
        false: number of those that meet no reference lesion.
    """

    lower: float
    upper: float
    reference: int
    found: int
    predicted: int
    false: int


def components(mask: np.ndarray, connectivity: int = 26) -> tuple[np.ndarray, int]:
    """Connected parts of a boolean mask ``(*spatial)``, numbered from 1, and their number.

    Args:
        connectivity: 6 (faces), 18 (and edges) or 26 neighbours (and corners) of a voxel.

    Raises:
        ConfigError: another number of neighbours.
    """
    if connectivity not in _RANKS:
        raise ConfigError(f"{connectivity} is not a valid number of neighbours of a voxel; choose 6, 18 or 26.")
    numbered, count = label(mask, generate_binary_structure(mask.ndim, min(_RANKS[connectivity], mask.ndim)))
    return numbered, int(count)


def detect_lesions(
    prediction: np.ndarray,
    reference: np.ndarray,
    spacing: Sequence[float],
    *,
    edges_ml: Sequence[float] = (0.0, 0.1, 1.0),
    connectivity: int = 26,
    iou: float | None = None,
) -> tuple[SizeBin, ...]:
    """Count lesions by size; summed over scans, sensitivity is found / reference and false positives are false / scans.

    Args:
        prediction, reference: boolean masks ``(*spatial)``.
        spacing: voxel size in mm.
        edges_ml: lower edges of the bins in ml, ascending; the last bin has no upper one.
        connectivity: neighbours of a voxel.
        iou: lesions meet if their IoU is above this; ``None``: if they share a voxel.
    """
    parts, part_count = components(prediction, connectivity)
    lesions, lesion_count = components(reference, connectivity)
    part_sizes = np.bincount(parts.ravel(), minlength=part_count + 1)
    lesion_sizes = np.bincount(lesions.ravel(), minlength=lesion_count + 1)
    both = prediction & reference
    pairs, shared = np.unique(np.stack([lesions[both], parts[both]]), axis=1, return_counts=True)
    if iou is not None:
        pairs = pairs[:, shared / (lesion_sizes[pairs[0]] + part_sizes[pairs[1]] - shared) > iou]
    found, true = (np.zeros(count + 1, dtype=bool) for count in (lesion_count, part_count))
    found[pairs[0]], true[pairs[1]] = True, True
    lesion_bins, part_bins = (_bins(sizes[1:], spacing, edges_ml) for sizes in (lesion_sizes, part_sizes))
    return tuple(
        SizeBin(
            lower,
            upper,
            int((lesion_bins == index).sum()),
            int(found[1:][lesion_bins == index].sum()),
            int((part_bins == index).sum()),
            int((~true[1:][part_bins == index]).sum()),
        )
        for index, (lower, upper) in enumerate(zip(edges_ml, [*edges_ml[1:], math.inf], strict=True))
    )


def _bins(sizes: np.ndarray, spacing: Sequence[float], edges_ml: Sequence[float]) -> np.ndarray:
    """Index of each size's bin; -1 below the first edge."""
    volumes = np.round(sizes * math.prod(spacing) / 1000, 9)  # 50 voxels of 2 mm³ are 0.1 ml, not a digit more
    bins: np.ndarray = np.searchsorted(np.asarray(edges_ml), volumes, side="left") - 1
    return bins


def unmatched_volumes(
    prediction: np.ndarray, reference: np.ndarray, spacing: Sequence[float], *, connectivity: int = 18
) -> tuple[float, float]:
    """False-positive and false-negative volume in ml: parts that do not meet the other mask at all, as autoPET's."""
    voxel = math.prod(spacing) / 1000
    volumes = []
    for mask, other in ((prediction, reference), (reference, prediction)):
        numbered, count = components(mask, connectivity)
        alone = np.ones(count + 1, dtype=bool)
        alone[0] = False
        alone[numbered[other]] = False
        volumes.append(int(alone[numbered].sum()) * voxel)
    return volumes[0], volumes[1]
