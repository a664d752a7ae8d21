"""A mask as polygons between its pixels, and back: a pixel is in the mask where its centre is in a polygon."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from scipy.spatial.distance import cdist
from skimage.draw import polygon
from skimage.measure import find_contours, points_in_poly

__all__ = ["fill", "outlines"]


def outlines(mask: np.ndarray) -> list[np.ndarray]:
    """Closed polygons (points, 2) of (column, row) around a mask (rows, columns).

    Points lie half-way between pixels. A hole is joined to the polygon around it by a line there and back (the keyhole
    of PS3.3 C.8.8.6), so that readers that know no holes see them too.
    """
    found = [contour[:-1, ::-1] - 1 for contour in find_contours(np.pad(mask, 1).astype(np.uint8), 0.5)]
    outer = [contour for contour in found if _area(contour) > 0]
    holes = [contour for contour in found if _area(contour) <= 0]
    outer.sort(key=_area)
    for hole in holes:
        around = next(i for i, contour in enumerate(outer) if points_in_poly(hole[:1], contour)[0])
        outer[around] = _joined(outer[around], hole)
    return outer


def _area(contour: np.ndarray) -> float:
    """Signed; find_contours turns one way around masks and the other way around holes."""
    x, y = contour.T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def _joined(contour: np.ndarray, hole: np.ndarray) -> np.ndarray:
    start, end = np.unravel_index(np.argmin(cdist(contour, hole)), (len(contour), len(hole)))
    return np.concatenate([contour[: start + 1], hole[end:], hole[: end + 1], contour[start:]])


def fill(polygons: Iterable[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """The mask (rows, columns) of polygons (points, 2) of (column, row); one inside another is a hole."""
    mask = np.zeros(shape, bool)
    for points in polygons:
        rows, columns = polygon(points[:, 1], points[:, 0], shape)
        mask[rows, columns] ^= True
    return mask
