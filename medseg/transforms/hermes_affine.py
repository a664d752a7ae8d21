"""Affine augmentation of the Hermes recipe (arXiv 2306.02416): rotation, scaling and shear about a crop's centre.

Coordinates are those of ``torch.nn.functional.affine_grid``: x, y, z along W, H, D, each from -1 to 1 over the crop.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.config import KeysCollection
from monai.transforms import CenterSpatialCrop, MapTransform, RandomizableTransform, RandSpatialCropd
from torch import Tensor

__all__ = ["RandHermesAffined", "affine_matrix", "warp"]


def affine_matrix(degrees: Sequence[float], scales: Sequence[float], shears: Sequence[float]) -> np.ndarray:
    """``Rx Ry Rz S`` as (3, 4), without translation.

    Args:
        degrees: rotation about x, y and z.
        scales: the diagonal of S.
        shears: its other entries: xy, xz, yx, yz, zx, zy.
    """
    (cx, cy, cz), (sx, sy, sz) = (f(np.deg2rad(degrees)) for f in (np.cos, np.sin))
    rotation_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    rotation_y = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])  # the published sign, opposite to the usual one
    rotation_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    xy, xz, yx, yz, zx, zy = shears
    scaling = np.array([[scales[0], xy, xz], [yx, scales[1], yz], [zx, zy, scales[2]]])
    return np.hstack([rotation_x @ rotation_y @ rotation_z @ scaling, np.zeros((3, 1))])


def warp(volume: Tensor, matrix: np.ndarray, mode: str) -> Tensor:
    """Sample ``volume: (C, D, H, W)`` at the transformed places, zeros outside; ``mode`` bilinear or nearest."""
    plain = torch.as_tensor(volume).float()[None]
    grid = F.affine_grid(torch.from_numpy(matrix).float()[None], list(plain.shape), align_corners=True)
    return F.grid_sample(plain, grid, mode=mode, padding_mode="zeros", align_corners=True)[0].to(volume.dtype)


class RandHermesAffined(RandomizableTransform, MapTransform):
    """With ``prob`` an affine map and the centre of ``roi_size``, else a random crop of that size.

    Angles are -30 to 30 degrees, scales 0.7 to 1 / 0.7 and shears -0.1 to 0.1 per axis.

    Args:
        keys: volumes ``(C, D, H, W)`` of one size, larger than ``roi_size`` by what rotation cuts off.
        modes: interpolation of each key, ``bilinear`` or ``nearest``.
    """

    def __init__(
        self,
        keys: KeysCollection,
        roi_size: Sequence[int],
        modes: Sequence[str],
        prob: float = 0.5,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        self.modes = modes
        self.centre = CenterSpatialCrop(tuple(roi_size))
        self.crop = RandSpatialCropd(keys, roi_size=tuple(roi_size), random_size=False)

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> Any:
        super().set_random_state(seed, state)
        self.crop.set_random_state(state=self.R)
        return self

    def randomize(self, data: Any = None) -> None:
        super().randomize(None)
        bounds = ((-30, 30, 3), (0.7, 1 / 0.7, 3), (-0.1, 0.1, 6))
        self.matrix = affine_matrix(*([*self.R.uniform(low, high, n)] for low, high, n in bounds))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        self.randomize()
        if not self._do_transform:
            return dict(self.crop(dict(data)))
        result = dict(data)
        for key, mode in self.key_iterator(result, self.modes):
            result[key] = self.centre(warp(torch.as_tensor(result[key]), self.matrix, mode))
        return result
