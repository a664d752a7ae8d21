"""Batches of several data sets for task-conditioned networks: ``prepare_batch`` of MONAI's trainers and evaluators."""

from __future__ import annotations

from typing import Any

import torch
from monai.engines import PrepareBatch
from torch import Tensor

from medseg.labels import IGNORE, LabelSpace
from medseg.losses import TaskTarget
from medseg.networks.kernels.queued_copy import queued_copy

__all__ = ["PreparePasses", "PrepareTasks"]


class PrepareTasks(PrepareBatch):
    """Asks the network for the tasks of each image's own data set.

    A batch is ``{"image": (B, C, *spatial), "label": (B, 1, *spatial) label indices, "dataset": B names, "modality": B
    names}``; without a data set the label table's own holds, without a modality it is unknown. The network is called
    as ``network(image, tasks=(B, T), modality=(B,))`` with T the largest number of tasks in the batch, the others
    padded with the null task, -1; ids are on the CPU, where the network checks them. Masks are made here, on the
    training's device, from one map of label indices.

    Args:
        label_space: gives tasks and modalities.
        training: the target is a ``TaskTarget``, and the network is asked for the modality as well if it can tell;
            else (evaluation) it is the label map.
        null_tasks: further null tasks in every row. Networks without ``mask_null`` were trained with 1, and want 1.
        modality_loss: whether the network is asked for the modality in training; not where it has no such head.
    """

    def __init__(
        self, label_space: LabelSpace, training: bool = True, null_tasks: int = 0, modality_loss: bool = True
    ) -> None:
        self.label_space = label_space
        self.training = training
        self.null_tasks = null_tasks
        self.modality_loss = modality_loss

    def __call__(
        self,
        batchdata: dict[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Any, tuple[()], dict[str, Any]]:
        image = batchdata["image"].to(device, non_blocking=non_blocking, **kwargs)
        label = batchdata["label"].to(device, non_blocking=non_blocking) if "label" in batchdata else None
        tables = [self.label_space.dataset_tasks(name) for name in batchdata.get("dataset", [""] * len(image))]
        width = max(map(len, tables)) + self.null_tasks
        tasks = torch.tensor([[*table, *[-1] * (width - len(table))] for table in tables])
        kinds = [self.label_space.modality_id(name) for name in batchdata.get("modality", [""] * len(image))]
        modality = torch.tensor(kinds)
        conditions: dict[str, Any] = {"tasks": tasks, "modality": modality}
        if not self.training or label is None:
            return image, label, (), conditions
        # No voxel has the index 0 of a null task: its mask is empty.
        indices = torch.tensor([[*table.values(), *[IGNORE - 1] * (width - len(table))] for table in tables])
        spatial = (1,) * (label.dim() - 2)
        masks = label == queued_copy(indices, label.device).view(*indices.shape, *spatial)
        valid = label != IGNORE if self.label_space.has_ignore else None
        if self.modality_loss:
            conditions["return_modality"] = True
        annotated, kind = (queued_copy(one, label.device) for one in (tasks >= 0, modality))
        return image, TaskTarget(masks, annotated, kind, valid), (), conditions


class PreparePasses(PrepareBatch):
    """What ``medseg.inferers.TaskPasses`` is called with, for images that need not be of a known data set: the names of
    their data sets, and their modalities' ids ``(B,)``.
    """

    def __init__(self, label_space: LabelSpace) -> None:
        self.label_space = label_space

    def __call__(
        self,
        batchdata: dict[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, None, tuple[()], dict[str, Any]]:
        image = batchdata["image"].to(device, non_blocking=non_blocking, **kwargs)
        kinds = [self.label_space.modality_id(name) for name in batchdata.get("modality", [""] * len(image))]
        datasets = list(batchdata.get("dataset", [""] * len(image)))
        return image, None, (), {"datasets": datasets, "modality": torch.tensor(kinds)}
