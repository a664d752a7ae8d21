"""Surfaces of labels, seen along an axis of the volume."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import gaussian_filter

from medseg.labels.colors import rgb_of

__all__ = ["surfaces"]

_SMOOTH = 1.0  # voxels, of the surface that is shaded
_OPACITY = 0.6  # of a label that lies before another one
_LIGHT = np.array([-0.45, -0.6, 0.66])  # from the upper left of the viewer
_AMBIENT = 0.3


def surfaces(
    labels: np.ndarray, spacing: Sequence[float], axis: int, colors: Sequence[str], *, from_end: bool
) -> np.ndarray:
    """What one sees of a label map along an axis: ``(rows, columns, 3)`` in [0, 1], black outside all labels.

    Each label is lit by the slope of its surface. What lies behind another label shines through.

    Args:
        labels: label indices ``(*spatial)``; the first of the two other axes runs to the right, the second down.
        spacing: mm per voxel.
        axis: axis to look along.
        colors: ``#rrggbb`` of each index from 1.
        from_end: whether the viewer stands at the end of the axis.
    """
    ahead = np.moveaxis(labels, axis, 0)[:: -1 if from_end else 1].swapaxes(1, 2)  # depth, row, column
    across, down = (mm for i, mm in enumerate(spacing) if i != axis)
    depths, shades = [], []
    there = np.unique(ahead[ahead > 0])
    for index in there:
        hit = ahead == index
        seen = hit.any(axis=0)
        depth = np.where(seen, hit.argmax(axis=0) * spacing[axis], np.inf)
        depths.append(depth)
        shades.append(_lit(depth, seen, down, across)[..., None] * (np.array(rgb_of(colors[index - 1])) / 255))
    picture = np.zeros((*ahead.shape[1:], 3))
    if not depths:
        return picture
    order = np.argsort(-np.stack(depths), axis=0)  # what is not there first, then from behind to the front
    for rank in order:
        depth = np.take_along_axis(np.stack(depths), rank[None], axis=0)[0]
        shade = np.take_along_axis(np.stack(shades), rank[None, ..., None], axis=0)[0]
        opacity = np.where(picture.any(axis=-1), _OPACITY, 1.0) * np.isfinite(depth)
        picture = picture * (1 - opacity[..., None]) + shade * opacity[..., None]
    return picture


def _lit(depth: np.ndarray, seen: np.ndarray, down: float, across: float) -> np.ndarray:
    """Brightness of a surface ``(rows, columns)``."""
    weight = gaussian_filter(seen.astype(float), _SMOOTH)
    smooth = gaussian_filter(np.where(seen, depth, 0.0), _SMOOTH) / np.maximum(weight, 1e-6)
    if min(smooth.shape) < 2:
        return seen.astype(float)
    slope_down, slope_across = np.gradient(smooth, down, across)
    normal = np.stack([slope_across, slope_down, np.ones_like(smooth)])  # towards the viewer
    light = np.tensordot(_LIGHT / np.linalg.norm(_LIGHT), normal, axes=1) / np.linalg.norm(normal, axis=0)
    brightness: np.ndarray = (_AMBIENT + (1 - _AMBIENT) * light.clip(0)) * seen
    return brightness
