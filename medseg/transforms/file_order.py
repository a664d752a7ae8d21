"""Arrays in the order of their file, for weights that were trained on arrays whose directions nobody looked at."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform, MapTransform, Orientation
from monai.transforms.spatial.functional import orientation

__all__ = ["FileOrderd"]


class _FileOrder(Orientation):
    """No axis is flipped; inverted as any orientation."""

    def __call__(self, data_array: torch.Tensor, lazy: bool | None = None) -> torch.Tensor:
        dims = data_array.dim() - 1
        affine = data_array.affine if isinstance(data_array, MetaTensor) else torch.eye(dims + 1)
        reverse = np.array([[dims - 1 - axis, 1] for axis in range(dims)])
        return orientation(data_array, affine.numpy(), reverse, lazy=False, transform_info=self.get_transform_info())


class FileOrderd(MapTransform, InvertibleTransform):
    """``(C, x, y, z)`` as NIfTI stores it -> ``(C, z, y, x)``, whatever the directions are.

    SimpleITK gives arrays in this order, and programs that pass them on as they are train on it.
    """

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.order = _FileOrder(axcodes="RAS")

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        return {**data, **{key: self.order(data[key]) for key in self.key_iterator(dict(data))}}

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        return {**data, **{key: self.order.inverse(data[key]) for key in self.key_iterator(dict(data))}}
