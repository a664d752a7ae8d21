"""Loss of learning without forgetting (in the spirit of Li and Hoiem 2016, arXiv 1606.09282): a task loss, and how far
the answers for old tasks are from those of an earlier network.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from medseg.losses.tasks import TaskLoss, TaskTarget, masked_bce

__all__ = ["DistilledLoss"]


class DistilledLoss(nn.Module):
    """``loss`` of an image's own tasks + ``weight`` times the binary cross-entropy of old tasks against the
    probabilities of an earlier network, mean over heads, tasks and voxels that are not ignored. It has its minimum
    where both answer the same; Dice has not.

    ``forward(prediction, target: TaskTarget) -> scalar``; ``prediction`` is what
    ``medseg.engines.DistillingInferer`` returns.
    """

    def __init__(self, loss: TaskLoss, weight: float = 1.0) -> None:
        super().__init__()
        self.loss = loss
        self.weight = weight

    def forward(self, prediction: Sequence[Any], target: TaskTarget) -> Tensor:
        logits, old, answers, *kind = prediction  # old: a list of heads
        known = torch.ones(answers.shape[:2], dtype=torch.bool, device=answers.device)
        drift = torch.stack([masked_bce(head, answers.sigmoid(), known, target.valid) for head in old]).mean()
        x: Tensor = self.loss((logits, *kind) if kind else logits, target) + self.weight * drift
        return x
