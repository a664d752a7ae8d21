"""Transforms for several data sets together: what each case names, and logits of its tasks to label indices."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.transforms import Transform

from medseg.transforms.label import LogitsToLabelsd

__all__ = ["CaseFactsd", "TasksToLabelsd"]


class CaseFactsd(Transform):
    """Complete ``dataset`` and ``modality`` (``""`` and ``unknown``): batches need the same entries of every case."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        return {"dataset": "", "modality": "unknown", **data}


class TasksToLabelsd(LogitsToLabelsd):
    """Logits ``(T, *spatial)`` of the tasks of the case's ``dataset`` -> label indices ``(1, *spatial)``, int16.

    Channels are in the order of ``LabelSpace.dataset_tasks``; what follows them (null tasks) is left out. Tasks are
    binary problems of their own: a voxel gets the label with the largest logit if that is above ``threshold``.
    """

    def _labels(self, logits: torch.Tensor, data: Mapping[Hashable, Any]) -> torch.Tensor:
        tasks = self.label_space.dataset_tasks(data.get("dataset"))
        indices = torch.tensor([*tasks.values()], dtype=torch.int16, device=logits.device)
        best, winner = logits[: len(indices)].max(0, keepdim=True)
        return torch.where(best > self.threshold, indices[winner], indices.new_zeros(()))
