"""Transforms for several data sets together: what each case names, and logits of its tasks to label indices."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform

from medseg.labels import LabelSpace

__all__ = ["CaseFactsd", "TasksToLabelsd"]


class CaseFactsd(Transform):
    """Complete ``dataset`` and ``modality`` (``""`` and ``unknown``): batches need the same entries of every case."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        return {"dataset": "", "modality": "unknown", **data}


class TasksToLabelsd(MapTransform):
    """Logits ``(T, *spatial)`` of the tasks of the case's ``dataset`` -> label indices ``(1, *spatial)``, int16.

    Channels are in the order of ``LabelSpace.dataset_tasks``; what follows them (null tasks) is left out. Tasks are
    binary problems of their own: a voxel gets the label with the largest logit if that is above ``threshold``.
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

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        indices = torch.tensor([*self.label_space.dataset_tasks(result.get("dataset")).values()], dtype=torch.int16)
        for key in self.key_iterator(result):
            logits = torch.as_tensor(result[key])[: len(indices)].cpu()
            best, winner = logits.max(0, keepdim=True)
            labels = torch.where(best > self.threshold, indices[winner], torch.tensor(0, dtype=torch.int16))
            meta = result[key].meta if isinstance(result[key], MetaTensor) else None
            result[key] = MetaTensor(labels, meta=meta)
        return result
