"""Loss of task-conditioned networks: each image is judged on its own tasks only (Hermes, arXiv 2306.02416, section 4).

A *pair* is an image with one of its tasks. Every term is a mean over the annotated pairs of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medseg.errors import ConfigError
from medseg.losses.region_loss import summable

__all__ = ["TaskLoss", "TaskTarget", "masked_bce", "masked_tversky", "modality_loss"]

_EPS = 1e-6


class TaskTarget(NamedTuple):
    """What a batch is judged by.

    Attributes:
        masks: ``(B, T, *spatial)``, 1 where the task's structure is.
        annotated: ``(B, T)``, bool; false for null tasks.
        modality: ``(B,)`` ids, -1 where it is not known.
        valid: ``(B, 1, *spatial)``, bool, false for ignored voxels; ``None`` where there are none.
    """

    masks: Tensor
    annotated: Tensor
    modality: Tensor
    valid: Tensor | None = None


def _mean(per_pair: Tensor, annotated: Tensor) -> Tensor:
    """Mean over the annotated pairs; 0 without any."""
    return torch.where(annotated, per_pair, 0).sum() / annotated.sum().clamp(min=1)


def masked_bce(logits: Tensor, masks: Tensor, annotated: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean over pairs of the voxels' mean binary cross-entropy; shapes as in ``TaskTarget``."""
    logits = summable(logits)
    voxelwise = F.binary_cross_entropy_with_logits(logits, masks.to(logits.dtype), reduction="none")
    if valid is None:
        return _mean(voxelwise.flatten(2).mean(2), annotated)
    counts = valid.flatten(2).sum(2).clamp(min=1)
    return _mean((voxelwise * valid).flatten(2).sum(2) / counts, annotated)


def masked_tversky(
    logits: Tensor,
    masks: Tensor,
    annotated: Tensor,
    valid: Tensor | None = None,
    *,
    alpha: float | None = None,
    bounds: tuple[float, float] = (0.2, 0.8),
) -> Tensor:
    """Mean over pairs of ``1 - TP / (TP + alpha FP + (1 - alpha) FN)``, with soft counts.

    Without ``alpha`` each pair has its own: its share of false positives among its errors, ``FP / (FP + FN)``, kept
    within ``bounds``, and differentiated through, as published. 0.5 is the Dice loss. A structure that is not in the
    patch gives 1 and no gradient: it is taught by the cross-entropy alone.
    """
    probabilities = summable(logits).sigmoid()
    target = masks.to(probabilities.dtype)
    if valid is not None:
        probabilities, target = probabilities * valid, target * valid
    hit = (probabilities * target).flatten(2).sum(2)
    extra = probabilities.flatten(2).sum(2) - hit
    missed = target.flatten(2).sum(2) - hit
    weight = (extra / (extra + missed + _EPS)).clamp(*bounds) if alpha is None else alpha
    return _mean(1 - hit / (hit + weight * extra + (1 - weight) * missed + _EPS), annotated)


def modality_loss(logits: Tensor, modality: Tensor) -> Tensor:
    """Cross-entropy of ``logits (B, M)`` over the images whose modality is known; 0 without any."""
    known = modality >= 0
    losses = F.cross_entropy(logits, modality.clamp(min=0), reduction="none")
    return torch.where(known, losses, 0).sum() / known.sum().clamp(min=1)


class TaskLoss(nn.Module):
    """Binary cross-entropy + adaptive Tversky of each head, + modality cross-entropy.

    ``forward(prediction, target: TaskTarget) -> scalar``; ``prediction`` is what a task-conditioned network returns:
    logits ``(B, T, *spatial)`` or a list of heads, all at full size; with ``return_modality`` the pair of that and
    modality logits.

    Args:
        modality_weight: weight of the modality's term; 0.01 as published.
        alpha: weight of false positives in the Tversky term; ``None`` adapts it (``masked_tversky``).
        head_weights: one per head; by default equal, with sum 1, as published for two.
    """

    def __init__(
        self, modality_weight: float = 0.01, alpha: float | None = None, head_weights: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        self.modality_weight = modality_weight
        self.alpha = alpha
        self.head_weights = head_weights

    def forward(self, prediction: Tensor | Sequence[Tensor] | tuple[Any, ...], target: TaskTarget) -> Tensor:
        logits, kind = prediction if isinstance(prediction, tuple) else (prediction, None)
        heads = [logits] if isinstance(logits, Tensor) else list(logits)
        weights = [1 / len(heads)] * len(heads) if self.head_weights is None else self.head_weights
        if len(weights) != len(heads):
            raise ConfigError(f"{len(weights)} head_weights for a network of {len(heads)} heads; give one each.")
        total = sum((w * self._segmentation(head, target) for w, head in zip(weights, heads, strict=True)), 0.0)
        if kind is not None:
            total = total + self.modality_weight * modality_loss(kind, target.modality)
        return torch.as_tensor(total)

    def _segmentation(self, logits: Tensor, target: TaskTarget) -> Tensor:
        where = (target.masks, target.annotated, target.valid)
        return masked_bce(logits, *where) + masked_tversky(logits, *where, alpha=self.alpha)
