"""Residual blocks that normalise and activate before each convolution, for features in channels-last memory.

Instance norm has no weights here, so that a block's convolution and its shortcut share one normalised input.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from medseg.networks.kernels.channels_last import instance_norm
from medseg.networks.layers.unet_blocks import Triple

__all__ = ["NORM_EPS", "PreActBlock", "preactivate", "same_conv"]

NORM_EPS = 1e-4  # of the published networks' pre-activations; their other instance norms have torch's 1e-5


def preactivate(x: Tensor, eps: float = NORM_EPS) -> Tensor:
    """Instance norm and ReLU of ``x: (B, C, D, H, W)``, which stays as it is."""
    return F.relu(instance_norm(x, eps=eps), inplace=True)


def same_conv(
    in_channels: int, out_channels: int, kernel_size: Triple, stride: Triple = (1, 1, 1), *, groups: int = 1
) -> nn.Conv3d:
    """A convolution without bias and with odd kernels that keeps sizes, or divides them by its stride, rounding up."""
    d, h, w = (k // 2 for k in kernel_size)
    return nn.Conv3d(in_channels, out_channels, kernel_size, stride, (d, h, w), groups=groups, bias=False)


class PreActBlock(nn.Module):
    """``y = conv2(a(conv1(a(x)))) + s(x)`` with ``a`` = instance norm, ReLU.

    ``s`` is the identity, or, where channels or size change, a convolution of ``a(x)`` with the same kernel.
    ``(B, in_channels, D, H, W) -> (B, out_channels, ...)``, sizes divided by the stride, rounded up.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Triple = (3, 3, 3), stride: Triple = (1, 1, 1)
    ) -> None:
        super().__init__()
        self.conv1 = same_conv(in_channels, out_channels, kernel_size, stride)
        self.conv2 = same_conv(out_channels, out_channels, kernel_size)
        changes = in_channels != out_channels or max(stride) > 1
        self.shortcut = same_conv(in_channels, out_channels, kernel_size, stride) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        active = preactivate(x)
        y: Tensor = self.conv2(preactivate(self.conv1(active)))
        return y + (x if self.shortcut is None else self.shortcut(active))
