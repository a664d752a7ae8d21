"""Label maps between raw voxel values and the label space."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.utils import convert_to_tensor

from medseg.labels import LabelSpace
from medseg.transforms.each_key import EachKey

__all__ = ["EncodeLabelsd", "LogitsToLabelsd"]


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
