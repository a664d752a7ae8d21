"""Augmentation of whole batches on the training's device: ``prepare_batch`` of MONAI's trainer."""

from __future__ import annotations

from typing import Any

import torch
from monai.engines import PrepareBatch, default_prepare_batch
from monai.transforms import Compose
from torch import Tensor

from medseg.transforms.delayed import DRAWN, Delayed, change_batch

__all__ = ["PrepareAugmented"]


class PrepareAugmented(PrepareBatch):
    """Moves a batch to the device, and makes the random changes there that its cases only drew.

    Args:
        transform: the chain that the cases come from; without ``Delayed`` steps the batch stays as it is.
    """

    def __init__(self, transform: Compose) -> None:
        self.steps = [step for step in transform.transforms if isinstance(step, Delayed)]

    def __call__(
        self,
        batchdata: dict[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor]:
        batch: Any = default_prepare_batch(batchdata, device, non_blocking, **kwargs)
        if not self.steps:
            return batch[0], batch[1]
        return change_batch(self.steps, batch[0], batch[1], batchdata[DRAWN], non_blocking=non_blocking)
