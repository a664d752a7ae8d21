"""Whether two arrays lie on one grid, and the label put exactly onto its image's."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from monai.transforms import Transform

from medseg.errors import DataError

__all__ = ["GRID_TOLERANCE", "SameGridd", "corner_distance"]

GRID_TOLERANCE = 0.1  # voxels: two grids whose corners are nearer than this are one grid


def corner_distance(shape: Sequence[int], affine: np.ndarray, other: np.ndarray) -> float:
    """The largest distance in mm between corresponding corners of two grids of one shape (4 x 4 affines)."""
    padded = [*shape, 1, 1][:3]
    corners = np.stack(np.meshgrid(*[(0, n - 1) for n in padded], (1,), indexing="ij")).reshape(4, -1)
    return float(np.linalg.norm(((affine - other) @ corners)[:3], axis=0).max())


class SameGridd(Transform):
    """Give ``label`` the affine of ``image`` (both ``(C, *spatial)``).

    Headers of one grid often differ in their last digits, and resampling could then round to two shapes.

    Raises:
        DataError: another shape, or corners more than a tenth of a voxel apart.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        image, label = result["image"], result["label"]
        shape = tuple(image.shape[1:])
        if tuple(label.shape[1:]) != shape:
            raise DataError(f"image {shape}, label {tuple(label.shape[1:])} voxels; fix the pair, see `medseg check`.")
        if len(shape) == 3:  # photographs have no place in the world
            distance = corner_distance(shape, image.affine.numpy(), label.affine.numpy())
            spacing = np.linalg.norm(image.affine.numpy()[:3, :3], axis=0).min()
            if distance > GRID_TOLERANCE * spacing:
                raise DataError(
                    f"the label's corners are up to {distance:.3g} mm from the image's; see `medseg check`."
                )
        label.affine = image.affine.clone()
        return result
