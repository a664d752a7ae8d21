"""Label maps between raw voxel values and the label space, and back to the source grid."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import Invertd, InvertibleTransform
from monai.utils import convert_to_tensor

from medseg.labels import LabelSpace
from medseg.transforms.each_key import EachKey

__all__ = ["EncodeLabelsd", "LogitsToLabelsd", "ToSourceGridd"]


class EncodeLabelsd(EachKey):
    """Raw voxel values ``(1, *spatial)`` -> label indices (int16), by the case's ``dataset`` entry where it has one."""

    def __init__(self, keys: KeysCollection, label_space: LabelSpace, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.label_space = label_space

    def change(self, value: Any, data: Mapping[Hashable, Any]) -> Any:
        raw = convert_to_tensor(value, track_meta=True)
        indices = self.label_space.encode(raw.numpy(), data.get("dataset"))
        return MetaTensor(torch.from_numpy(indices), meta=raw.meta, applied_operations=raw.applied_operations)


class LogitsToLabelsd(EachKey):
    """Logits ``(C, *spatial)`` -> label indices ``(1, *spatial)``, int16, on the grid they are on.

    Args:
        keys: what to convert.
        label_space: softmax takes the largest channel, the first of equal ones; sigmoid all above ``threshold``.
        threshold: 0 for logits, 0.5 for probabilities.
    """

    def __init__(
        self,
        keys: KeysCollection,
        label_space: LabelSpace,
        threshold: float = 0.0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.label_space = label_space
        self.threshold = threshold

    def change(self, value: Any, data: Mapping[Hashable, Any]) -> Any:
        labels = self._labels(torch.as_tensor(value), data)
        return MetaTensor(labels.cpu(), meta=value.meta if isinstance(value, MetaTensor) else None)

    def _labels(self, logits: torch.Tensor, data: Mapping[Hashable, Any]) -> torch.Tensor:
        if self.label_space.mode == "softmax":
            return logits.argmax(0, keepdim=True).to(torch.int16)
        return torch.from_numpy(self.label_space.compose((logits > self.threshold).cpu().numpy()))[None]


class ToSourceGridd(EachKey):
    """Logits on the model's grid -> label indices in the original image space, class by class.

    Equal to "probabilities, inverse of every channel with linear interpolation, argmax" (or a threshold of 0.5 per
    region), but with label-size buffers: one class's probabilities at a time go through the inverse, and a running
    maximum is kept. Probabilities, not logits, are inverted: outside a crop all of them are 0, which means background.

    Args:
        keys: logits ``(C, *spatial)``.
        transform: the preprocessing that took the image from the source grid.
        label_space: tells softmax from sigmoid and how regions make a label map.
        orig_keys: the image whose record of operations is undone.
        probabilities: the input holds probabilities already, or votes, such as those of an ensemble.

    The result is ``(1, *source spatial)``, int16, with the source's affine.
    """

    def __init__(
        self,
        keys: KeysCollection,
        transform: InvertibleTransform,
        label_space: LabelSpace,
        orig_keys: str = "image",
        *,
        probabilities: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.label_space = label_space
        self.orig_key = orig_keys
        self.probabilities = probabilities
        self.inverse = Invertd(keys="pred", transform=transform, orig_keys=orig_keys, nearest_interp=False)

    def _invert(self, channel: torch.Tensor, image: MetaTensor) -> MetaTensor:
        probabilities = MetaTensor(channel[None].cpu(), meta=image.meta)
        inverted: MetaTensor = self.inverse({"pred": probabilities, self.orig_key: image})["pred"]
        return inverted

    def _channels(self, values: torch.Tensor) -> Iterator[torch.Tensor]:
        """The probabilities of one channel after the other."""
        if self.probabilities:
            yield from values
        elif self.label_space.mode == "sigmoid":
            yield from (torch.sigmoid(channel) for channel in values)
        else:
            peak = values.amax(0)
            total = torch.zeros_like(peak)
            for channel in values:
                total += (channel - peak).exp_()
            yield from ((channel - peak).exp_().div_(total) for channel in values)

    def change(self, value: Any, data: Mapping[Hashable, Any]) -> MetaTensor:
        logits, image = torch.as_tensor(value).float(), data[self.orig_key]
        channels = (self._invert(channel, image) for channel in self._channels(logits))
        best = next(channels)
        if self.label_space.mode == "sigmoid":
            binary = np.stack([(m[0] > 0.5).numpy() for m in (best, *channels)])
            return MetaTensor(torch.from_numpy(self.label_space.compose(binary))[None], meta=best.meta)
        labels = torch.zeros(best.shape, dtype=torch.int16)
        for index, inverted in enumerate(channels, 1):
            higher = inverted.as_tensor() > best.as_tensor()  # the first class wins a tie, as with argmax
            labels[higher] = index
            torch.maximum(best.as_tensor(), inverted.as_tensor(), out=best.as_tensor())
        return MetaTensor(labels, meta=best.meta)
