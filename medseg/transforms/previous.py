"""The label map of an earlier stage beside the image: a key of its own that the preprocessing and the augmentation move
with the image, then one channel per label.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import Transform

from medseg.transforms.grid import SameGridd

__all__ = ["PREVIOUS", "PreviousChannelsd", "PreviousMapd"]

PREVIOUS = "previous"  # key of the label map, (1, *spatial)


class PreviousMapd(Transform):
    """Add the label map of an earlier stage, float32, on the grid of the image as it was read.

    Args:
        stage: case with its ``image`` (C, *spatial) -> label indices (1, *spatial).

    Raises:
        DataError: the label map lies on another grid than the image.
    """

    def __init__(self, stage: Callable[[Mapping[Hashable, Any]], MetaTensor]) -> None:
        self.stage = stage

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        pair = SameGridd()({"image": data["image"], "label": self.stage(data).float()})
        return {**data, PREVIOUS: pair["label"]}


class PreviousChannelsd(Transform):
    """Put the label map behind the channels of the image, one of 0 and 1 for each label.

    Args:
        labels: number of labels without the background.
    """

    def __init__(self, labels: int) -> None:
        self.labels = labels

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        image, label = result["image"], torch.as_tensor(result.pop(PREVIOUS)).as_subclass(torch.Tensor)
        channels = torch.cat([label == index for index in range(1, self.labels + 1)]).to(image.dtype)
        joined = torch.cat([image.as_subclass(torch.Tensor), channels])
        result["image"] = MetaTensor(joined).copy_meta_from(image) if isinstance(image, MetaTensor) else joined
        return result
