"""Output blocks of SSH-UNet: from the features of three axis-swapped views to logits.

View 0 is the volume, view 1 has dimensions 2 and 3 swapped, view 2 dimensions 2 and 4. Each swap is its own inverse.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medseg.networks.kernels.channels_last import InstanceNorm, PointwiseConv, channels_last
from medseg.networks.layers.unet_blocks import BasicBlock, UpBlock

__all__ = ["SumViews", "ViewFusionNetwork", "swap_view"]


def swap_view(x: Tensor, view: int) -> Tensor:
    """``x: (B, C, D, H, W)`` into the frame of a view, or back."""
    return x if view == 0 else x.transpose(2, 2 + view)


class SumViews(nn.Module):
    """Sum of the views in the volume's frame, then two 1x1x1 convolutions with instance norm between."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = PointwiseConv(in_channels, in_channels)
        self.norm = InstanceNorm(in_channels)
        self.act = nn.LeakyReLU(0.01, inplace=True)
        self.conv = PointwiseConv(in_channels, out_channels)

    def merge(self, merged: Tensor | None, features: Tensor, view: int) -> Tensor:
        """Add a view's features (B, in_channels, *spatial) to those of the views before, which may be overwritten."""
        features = swap_view(features, view)
        if merged is None:
            return features
        return merged + features if torch.is_grad_enabled() else merged.add_(features)

    def fuse(self, merged: Tensor) -> Tensor:
        """Logits (B, out_channels, *spatial)."""
        logits: Tensor = self.conv(self.act(self.norm(self.conv1(channels_last(merged)))))
        return logits


class ViewFusionNetwork(nn.Module):
    """VFN: class logits of each view, concatenated, refined by a small 3D U-Net of three halvings.

    ``align=False`` concatenates each view in its own swapped frame, as the published weights need (cubes only).
    """

    def __init__(self, in_channels: int, out_channels: int, *, align: bool) -> None:
        super().__init__()
        k, two, one = out_channels, (2, 2, 2), (1, 1, 1)
        self.align = align
        self.conv = PointwiseConv(in_channels, k)
        self.conv1 = BasicBlock(3 * k, 6 * k, stride=two)
        self.conv2 = BasicBlock(6 * k, 9 * k, stride=two)
        self.bottleneck = BasicBlock(9 * k, 12 * k, stride=two)
        self.up2 = UpBlock(12 * k, 9 * k, two, BasicBlock(18 * k, 9 * k, stride=one))
        self.up1 = UpBlock(9 * k, 6 * k, two, BasicBlock(12 * k, 6 * k, stride=one))
        self.up = UpBlock(6 * k, 3 * k, two, BasicBlock(6 * k, 3 * k, stride=one))
        self.out = PointwiseConv(3 * k, k)

    def merge(self, merged: Tensor | None, features: Tensor, view: int) -> Tensor:
        """Append a view's logits to those of the views before."""
        logits = self.conv(features)
        if self.align:
            logits = swap_view(logits, view)
        return logits if merged is None else torch.cat((merged, logits), dim=1)

    def fuse(self, merged: Tensor) -> Tensor:
        """Logits (B, out_channels, *spatial)."""
        full = channels_last(merged)
        half = self.conv1(full)
        quarter = self.conv2(half)
        x = self.up2(self.bottleneck(quarter), quarter)
        logits: Tensor = self.out(self.up(self.up1(x, half), full))
        return logits
