"""Voxels of each lesion, so that patches can be drawn around lesions of all sizes alike."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.transforms import MapTransform
from scipy import ndimage

__all__ = ["LesionsToIndicesd"]


class LesionsToIndicesd(MapTransform):
    """Flat indices of the voxels of each lesion, in the place of those of each label (``ClassesToIndicesd``): the
    first entry is empty, for the background.

    A lesion is a connected component, over edges and corners, of all labels above 0 together.

    Args:
        keys: label map, (1, *spatial).
        max_samples: voxels that are kept of a lesion, evenly spaced.
        indices_postfix: ending of the key of the result.
    """

    def __init__(self, keys: KeysCollection, max_samples: int, indices_postfix: str = "_cls_indices") -> None:
        super().__init__(keys)
        self.max_samples = max_samples
        self.indices_postfix = indices_postfix

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            foreground = np.asarray(result[key][0]) > 0
            lesions, _ = ndimage.label(foreground, structure=np.ones((3,) * foreground.ndim))
            voxels = np.flatnonzero(foreground)
            order = np.argsort(lesions.ravel()[voxels], kind="stable")
            ends = np.cumsum(np.bincount(lesions.ravel()[voxels])[1:])
            found = np.split(voxels[order], ends[:-1]) if len(voxels) else []
            result[f"{key}{self.indices_postfix}"] = [voxels[:0], *map(self._some, found)]
        return result

    def _some(self, voxels: np.ndarray) -> np.ndarray:
        return voxels[:: -(-len(voxels) // self.max_samples)]
