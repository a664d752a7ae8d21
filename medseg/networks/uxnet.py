"""3D UX-Net: a UNETR whose encoder is of ConvNeXt-like blocks with large depth-wise kernels (Lee et al., ICLR 2023,
arXiv 2209.15076).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.networks.layers import DropPath
from monai.networks.layers.factories import Conv
from torch import Tensor, nn

from medseg.errors import ConfigError
from medseg.networks.layers.large_kernel import DepthwiseConv
from medseg.networks.layers.large_kernel_unetr import ChannelNorm, LargeKernelUNETR
from medseg.networks.registry import register

__all__ = ["UXBlock", "UXNet"]

_EXPANSION = 4


class UXBlock(nn.Module):
    """``y = x + drop_path(gamma * reduce(GELU(expand(norm(conv(x))))))``; (B, channels, *spatial) -> the same.

    ``expand`` and ``reduce`` are 1x1x1 convolutions in groups: four numbers per channel, so that channels do not mix.
    """

    def __init__(
        self,
        spatial_dims: int,
        channels: int,
        kernel_size: int | Sequence[int],
        *,
        drop_path: float,
        layer_scale: float,
        method: str,
    ) -> None:
        super().__init__()
        pointwise: type[nn.Module] = Conv[Conv.CONV, spatial_dims]
        self.conv = DepthwiseConv(spatial_dims, channels, kernel_size, method=method)
        self.norm = ChannelNorm(channels)
        self.expand = pointwise(channels, _EXPANSION * channels, 1, groups=channels)
        self.act = nn.GELU()
        self.reduce = pointwise(_EXPANSION * channels, channels, 1, groups=channels)
        self.gamma = nn.Parameter(torch.full((channels,), layer_scale)) if layer_scale > 0 else None
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        y = self.reduce(self.act(self.expand(self.norm(self.conv(x)))))
        if self.gamma is not None:
            y = self.gamma.view([-1] + [1] * (x.dim() - 2)) * y
        change: Tensor = self.drop_path(y)
        return x + change


@register(
    "uxnet",
    title="3D UX-Net",
    spatial_dims=(2, 3),
    channels=(1, 5),
    parameters=53006069,
    setting="FLARE 2021, kernel 7, 5 channels",
    paper="3D UX-Net, ICLR 2023, arXiv 2209.15076",
    bf16_time=0.7,
)
class UXNet(LargeKernelUNETR):
    """3D UX-Net. Sizes, shapes and errors are those of ``LargeKernelUNETR``.

    Args:
        spatial_dims: 2 or 3 (published: 3).
        kernel_size: size of the depth-wise convolutions, odd; one number or one per axis (published: 7, and 21).
        depths: blocks per stage.
        feature_size: channels of the four stages.
        hidden_size: channels of the bottleneck.
        norm_name, res_block: arguments of MONAI's UNETR blocks.
        drop_path_rate: stochastic depth, a probability that rises linearly from 0 at the first block.
        layer_scale_init_value: first value of each block's ``gamma``; 0 leaves ``gamma`` out.
        conv_method: how the depth-wise convolutions are computed, see ``DepthwiseConv``; the results are equal.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int | Sequence[int] = 7,
        depths: Sequence[int] = (2, 2, 2, 2),
        feature_size: Sequence[int] = (48, 96, 192, 384),
        hidden_size: int = 768,
        norm_name: str | tuple[Any, ...] = "instance",
        res_block: bool = True,
        drop_path_rate: float = 0.0,
        layer_scale_init_value: float = 1e-6,
        conv_method: str = "auto",
    ) -> None:
        if not 0 <= drop_path_rate < 1:
            raise ConfigError(f"drop_path_rate is {drop_path_rate}, expected a probability from 0 to below 1.")
        last = max(1, sum(depths) - 1)
        super().__init__(
            spatial_dims,
            in_channels,
            out_channels,
            lambda channels, number: UXBlock(
                spatial_dims,
                channels,
                kernel_size,
                drop_path=drop_path_rate * number / last,
                layer_scale=layer_scale_init_value,
                method=conv_method,
            ),
            depths=depths,
            feature_size=feature_size,
            hidden_size=hidden_size,
            norm_name=norm_name,
            res_block=res_block,
        )
