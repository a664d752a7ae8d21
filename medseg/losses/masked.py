"""Dice + cross-entropy for label maps with ignored voxels, and for overlapping regions.

Where nothing is ignored and labels are exclusive, ``monai.losses.DiceCELoss`` does the same; generated bundles then
name that class.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from medseg.labels import IGNORE, LabelSpace
from medseg.losses.region_loss import summable

__all__ = ["MaskedDiceCELoss"]


class MaskedDiceCELoss(nn.Module):
    """Mean over channels of soft Dice loss, plus cross-entropy, over the voxels that are not ignored.

    Softmax: one problem over background and labels. Sigmoid: one binary problem per channel (region or label).

    Args:
        label_space: gives mode, channels and regions.
        include_background: whether channel 0 counts in the Dice term (softmax).
        smooth: added to numerator and denominator of the Dice term.
        batch: whether the Dice term is of the whole batch, not the mean of its samples'.

    ``forward(logits (B, C, *spatial), labels (B, 1, *spatial) label indices) -> scalar``.
    Source: nnU-Net's loss (Isensee et al. 2021), with masks as in its region-based and ignore-label training.
    """

    def __init__(
        self,
        label_space: LabelSpace,
        *,
        include_background: bool = False,
        smooth: float = 1e-5,
        batch: bool = False,
    ) -> None:
        super().__init__()
        self.mode = label_space.mode
        self.include_background = include_background
        self.smooth = smooth
        self.batch = batch
        self.channels = label_space.num_channels
        self.members = list(label_space.targets.values())

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        logits = summable(logits)
        valid = labels != IGNORE
        safe = torch.where(valid, labels, 0).long()
        if self.mode == "softmax":
            probabilities = logits.softmax(1)
            target = F.one_hot(safe[:, 0], self.channels).movedim(-1, 1).to(logits.dtype)
            wanted = torch.where(valid, labels, IGNORE)[:, 0].long()
            total = F.cross_entropy(logits, wanted, ignore_index=IGNORE, reduction="sum")
            crossentropy = total / valid.sum().clamp(min=1)
            if not self.include_background:
                probabilities, target = probabilities[:, 1:], target[:, 1:]
        else:
            probabilities = logits.sigmoid()
            target = torch.cat([sum((safe == m) for m in members).to(logits.dtype) for members in self.members], 1)  # type: ignore
            voxelwise = F.binary_cross_entropy_with_logits(logits, target, reduction="none") * valid
            crossentropy = voxelwise.sum() / (valid.sum() * logits.shape[1]).clamp(min=1)
        axes = (*([0] if self.batch else []), *range(2, logits.dim()))
        overlap = (probabilities * target * valid).sum(axes)
        total = ((probabilities + target) * valid).sum(axes)
        dice = 1 - (2 * overlap + self.smooth) / (total + self.smooth)
        return dice.mean() + crossentropy
