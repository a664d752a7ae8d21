"""Pearson's correlation as a loss (Wong and Moradi, MLMI 2022, arXiv 2201.03644)."""

from __future__ import annotations

from torch import Tensor

from medseg.losses.region_loss import RegionLoss

__all__ = ["PearsonLoss"]

_SMOOTH = 1e-7  # of the published program, added to the product of the sums of squares


class PearsonLoss(RegionLoss):
    """``(1 - r) / 2`` with r the correlation of probabilities and target over the voxels of a sample and channel.

    It is 0 for a perfect prediction and 1 for its opposite; a channel without a voxel in the target has r = 0, so it
    adds 0.5 and no gradient. Arguments as of ``RegionLoss``.

    ``forward(input (B, C, *spatial), target (B, C or 1, *spatial)) -> scalar``, (B, C) without reduction.
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        p, y, valid = self.prepared(input, target)
        voxels = valid.sum(2, keepdim=True).clamp(min=1)
        p = (p - p.sum(2, keepdim=True) / voxels) * valid
        y = (y - y.sum(2, keepdim=True) / voxels) * valid
        correlation = (p * y).sum(2) / (p.square().sum(2) * y.square().sum(2) + _SMOOTH).sqrt()
        return self.reduced((1 - correlation) / 2)
