"""Random faults of a label map, with which a network learns not to trust the stage before it.

Source: the cascade of nnU-Net (Isensee et al. 2021), whose values are in ``bundle/base/cascade.yaml``.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform
from scipy import ndimage

__all__ = ["RandMorphologyd", "RandRemoveComponentd"]


class RandLabelsd(RandomizableTransform, MapTransform):
    """Base: with ``prob`` every label of a label map is changed, in random order.

    Args:
        keys: label maps, (1, *spatial).
        prob: probability per label map.
    """

    def __init__(self, keys: KeysCollection, prob: float) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        self.randomize(None)
        for key in self.key_iterator(result) if self._do_transform else ():
            labels = np.array(result[key][0])
            for value in self.R.permutation(np.unique(labels[labels > 0])):
                self.change(labels, value)
            result[key] = torch.from_numpy(labels)[None]
        return result

    @abstractmethod
    def change(self, labels: np.ndarray, value: int) -> None:
        """Change a label of a label map ``(*spatial)`` in place."""


class RandMorphologyd(RandLabelsd):
    """Each label is grown, shrunk, closed or opened by a ball of its own; voxels that it leaves become background.

    Args:
        keys, prob: as above.
        radius: least and largest radius in voxels.
    """

    def __init__(self, keys: KeysCollection, prob: float, radius: Sequence[float]) -> None:
        super().__init__(keys, prob)
        self.radius = (radius[0], radius[1])

    def change(self, labels: np.ndarray, value: int) -> None:
        changed, radius = _CHANGES[self.R.randint(len(_CHANGES))], self.R.uniform(*self.radius)
        margin = math.ceil(radius) + 1  # the box alone: a distance transform of the whole patch takes long
        box = ndimage.find_objects(labels == value, max_label=1)[0]
        if box is None:  # a label before it grew over all of it
            return
        inside = labels[tuple(slice(max(0, one.start - margin), one.stop + margin) for one in box)]
        before = inside == value
        inside[before] = 0
        inside[changed(before, radius)] = value


class RandRemoveComponentd(RandLabelsd):
    """Of each label one connected component, over edges and corners, becomes background.

    Args:
        keys, prob: as above.
        largest: share of the voxels of the label map from which on a component stays.
    """

    def __init__(self, keys: KeysCollection, prob: float, largest: float) -> None:
        super().__init__(keys, prob)
        self.largest = largest

    def change(self, labels: np.ndarray, value: int) -> None:
        components, _ = ndimage.label(labels == value, structure=np.ones((3,) * labels.ndim))
        sizes = np.bincount(components.ravel())
        small = [number for number in range(1, len(sizes)) if sizes[number] < self.largest * labels.size]
        if small:
            labels[components == small[self.R.randint(len(small))]] = 0


def _grown(mask: np.ndarray, radius: float) -> np.ndarray:
    """All voxels within ``radius`` of the mask: its dilation by a ball."""
    if not mask.any():
        return mask
    near: np.ndarray = ndimage.distance_transform_edt(~mask) <= radius
    return near


def _shrunk(mask: np.ndarray, radius: float) -> np.ndarray:
    return ~_grown(~mask, radius)


_CHANGES: tuple[Callable[[np.ndarray, float], np.ndarray], ...] = (
    _grown,
    _shrunk,
    lambda mask, radius: _shrunk(_grown(mask, radius), radius),
    lambda mask, radius: _grown(_shrunk(mask, radius), radius),
)
