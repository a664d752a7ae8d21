"""Depthwise-separable blocks of 3D features: two convolutions, an inverted bottleneck, and patch merging."""

from __future__ import annotations

import itertools
import math

import torch
from monai.networks.blocks import ChannelSELayer
from torch import Tensor, nn

from medseg.networks.kernels.channels_last import instance_norm
from medseg.networks.layers.preactivation import NORM_EPS, preactivate, same_conv
from medseg.networks.layers.unet_blocks import Triple

__all__ = ["InvertedBottleneck", "PatchMerging", "separable_conv"]


def separable_conv(in_channels: int, out_channels: int, kernel_size: Triple) -> nn.Sequential:
    """A depthwise convolution and a pointwise one, without bias, norm or activation."""
    return nn.Sequential(
        same_conv(in_channels, in_channels, kernel_size, groups=in_channels),
        same_conv(in_channels, out_channels, (1, 1, 1)),
    )


class InvertedBottleneck(nn.Module):
    """``x + project(SE(depthwise(a(expand(a(x))))))`` with ``a`` = instance norm, ReLU; only a norm before ``project``.

    ``(B, channels, D, H, W)`` in and out; inside ``expansion`` times as many channels (MBConv of MobileNetV3).
    """

    def __init__(self, channels: int, expansion: int, kernel_size: Triple) -> None:
        super().__init__()
        inner = expansion * channels
        self.eps = NORM_EPS
        self.expand = same_conv(channels, inner, (1, 1, 1)) if expansion > 1 else None
        self.depthwise = same_conv(inner, inner, kernel_size, groups=inner)
        self.gate = ChannelSELayer(3, inner, r=4)
        self.project = same_conv(inner, channels, (1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else self.expand(preactivate(x))
        y = self.gate(self.depthwise(preactivate(y)))
        change: Tensor = self.project(instance_norm(y, eps=self.eps))
        return x + change


class PatchMerging(nn.Module):
    """The voxels of each ``scale`` block become channels, normalised and reduced by a separable convolution.

    ``(B, in_channels, D, H, W) -> (B, out_channels, ...)``, sizes divided by ``scale``, which must divide them.
    """

    def __init__(self, in_channels: int, out_channels: int, scale: Triple, kernel_size: Triple) -> None:
        super().__init__()
        self.scale = scale
        self.offsets = list(itertools.product(*map(range, scale)))
        self.reduce = separable_conv(math.prod(scale) * in_channels, out_channels, kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        a, b, c = self.scale
        parts = [x[:, :, i::a, j::b, k::c] for i, j, k in self.offsets]
        y: Tensor = self.reduce(instance_norm(torch.cat(parts, 1)))
        return y
