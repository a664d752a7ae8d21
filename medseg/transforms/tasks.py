"""Transforms for several data sets together: what each case names, and logits of its tasks to label indices."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import InvertibleTransform, Transform

from medseg.labels import LabelSpace
from medseg.transforms.label import LogitsToLabelsd
from medseg.transforms.to_source import ToSourceGridd

__all__ = ["CaseFactsd", "TasksToLabelsd", "TasksToSourceGridd"]


class CaseFactsd(Transform):
    """Complete ``dataset`` and ``modality`` (``""`` and ``unknown``): batches need the same entries of every case."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        return {"dataset": "", "modality": "unknown", **data}


class TasksToLabelsd(LogitsToLabelsd):
    """Logits ``(T, *spatial)`` of the tasks of the case's ``dataset`` -> label indices ``(1, *spatial)``, int16.

    Channels are in the order of ``LabelSpace.dataset_tasks``; what follows them (null tasks) is ignored. Tasks are
    binary problems of their own: a voxel gets the label with the largest logit if that is above ``threshold``.
    """

    def _labels(self, logits: torch.Tensor, data: Mapping[Hashable, Any]) -> torch.Tensor:
        tasks = self.label_space.dataset_tasks(data.get("dataset"))
        indices = torch.tensor([*tasks.values()], dtype=torch.int16, device=logits.device)
        best, winner = logits[: len(indices)].max(0, keepdim=True)
        return torch.where(best > self.threshold, indices[winner], indices.new_zeros(()))


class TasksToSourceGridd(ToSourceGridd):
    """``ToSourceGridd`` for tasks: the probability of each goes back to the source image's grid by itself, and a voxel
    gets the label with the largest one above 0.5.

    Args:
        tasks: names, in the order of the channels; ``None``: those of ``LabelSpace.asked_labels`` for the case.
        keys, transform, label_space, orig_keys: arguments of ``ToSourceGridd``.
    """

    def __init__(
        self,
        keys: KeysCollection,
        transform: InvertibleTransform,
        label_space: LabelSpace,
        tasks: Sequence[str] | None = None,
        orig_keys: str = "image",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, transform, label_space, orig_keys, allow_missing_keys=allow_missing_keys)
        self.tasks = tasks

    def _exclusive(self, dataset: str | None) -> tuple[Sequence[int], float]:
        return self.label_space.asked_labels(self.tasks, dataset), 0.5
