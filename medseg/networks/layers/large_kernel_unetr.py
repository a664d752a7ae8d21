"""The skeleton that 3D UX-Net and 3D RepUX-Net share: a convolutional encoder of four stages with large depth-wise
kernels, and the decoder of UNETR from MONAI's blocks (Lee et al., ICLR 2023, arXiv 2209.15076).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.networks.blocks import UnetOutBlock, UnetrBasicBlock, UnetrUpBlock
from monai.networks.layers.factories import Conv
from torch import Tensor, nn

from medseg.errors import ConfigError
from medseg.networks.layers.padding import crop_to, pad_to_multiples
from medseg.networks.registry import PlannedFor

__all__ = ["ChannelNorm", "LargeKernelUNETR"]

_STEP = 16  # the encoder halves four times


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each voxel, with weight and bias per channel. (B, C, *spatial) -> the same."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        shape = [-1] + [1] * (x.dim() - 2)
        variance, mean = torch.var_mean(x.float() if x.dtype != torch.float64 else x, 1, correction=0, keepdim=True)
        normed = ((x - mean) * torch.rsqrt(variance + self.eps)).to(x.dtype)
        return self.weight.view(shape) * normed + self.bias.view(shape)


class LargeKernelUNETR(nn.Module):
    """``x: (B, in_channels, *spatial)``, any size -> logits ``(B, out_channels, *spatial)``, one tensor.

    Sizes that 16 does not divide are zero-padded at the end of each axis and the logits cropped back. A volume that
    would keep one voxel at the bottleneck, where nothing could be normalised, is padded further along its last axis.

    Args:
        spatial_dims: 2 or 3.
        block: (channels, number of the block from 0 on) -> a block of the stages; sizes and channels stay.
        depths: blocks per stage.
        feature_size: channels of the stages, at strides 2, 4, 8, 16.
        hidden_size: channels of the bottleneck.
        norm_name, res_block: arguments of MONAI's UNETR blocks.

    Raises:
        ConfigError: arguments that do not fit together.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        block: Callable[[int, int], nn.Module],
        *,
        depths: Sequence[int],
        feature_size: Sequence[int],
        hidden_size: int,
        norm_name: str | tuple[Any, ...],
        res_block: bool,
    ) -> None:
        super().__init__()
        if spatial_dims not in (2, 3):
            raise ConfigError(f"spatial_dims is {spatial_dims}, expected 2 or 3.")
        if len(feature_size) != 4 or len(depths) != 4 or min(*feature_size, hidden_size) < 1 or min(depths) < 0:
            raise ConfigError(
                f"feature_size is {list(feature_size)}, depths {list(depths)} and hidden_size {hidden_size}; expected "
                "four numbers of channels and of blocks, one per stage, and a positive width."
            )
        self.multiples = [_STEP] * spatial_dims
        conv: type[nn.Module] = Conv[Conv.CONV, spatial_dims]
        widths = list(feature_size)
        self.downsamples = nn.ModuleList(
            [nn.Sequential(conv(in_channels, widths[0], 7, stride=2, padding=3), ChannelNorm(widths[0]))]
        )
        for narrow, wide in zip(widths, widths[1:], strict=False):
            self.downsamples.append(nn.Sequential(ChannelNorm(narrow), conv(narrow, wide, 2, stride=2)))
        first = [sum(depths[:stage]) for stage in range(4)]
        self.stages = nn.ModuleList(
            nn.Sequential(*(block(width, start + i) for i in range(depth)))
            for width, depth, start in zip(widths, depths, first, strict=True)
        )
        self.norms = nn.ModuleList(map(ChannelNorm, widths))

        common: dict[str, Any] = {"kernel_size": 3, "norm_name": norm_name, "res_block": res_block}
        levels = [in_channels, *widths]
        self.skips = nn.ModuleList(
            UnetrBasicBlock(spatial_dims, narrow, wide, stride=1, **common)
            for narrow, wide in zip(levels, [*widths, hidden_size], strict=True)
        )
        self.upsamples = nn.ModuleList(
            UnetrUpBlock(spatial_dims, wide, narrow, upsample_kernel_size=2, **common)
            for wide, narrow in zip([hidden_size, *widths[:0:-1]], widths[::-1], strict=True)
        )
        self.refine = UnetrBasicBlock(spatial_dims, widths[0], widths[0], stride=1, **common)
        self.head = UnetOutBlock(spatial_dims, widths[0], out_channels)

    def encode(self, x: Tensor) -> list[Tensor]:
        """Normalised features of the four stages, finest first; ``x``'s size is a multiple of 16."""
        features: list[Tensor] = []
        for down, stage, norm in zip(self.downsamples, self.stages, self.norms):
            x = stage(down(x))
            features.append(norm(x))
        return features

    def forward(self, x: Tensor) -> Tensor:
        size = list(x.shape[2:])
        x = pad_to_multiples(x, self.multiples, normalizes=True)
        levels = [x] + self.encode(x)
        skips = [skip(levels[i]) for i, skip in enumerate(self.skips)]
        hidden = skips.pop()
        for up in self.upsamples:
            hidden = up(hidden, skips.pop())
        return crop_to(self.head(self.refine(hidden)), size)

    @classmethod
    def planned_arguments(cls, plan: PlannedFor) -> dict[str, Any]:
        """On a CPU a twentieth of the published width, and one block per stage."""
        if not plan.light:
            return {}
        return {"depths": [1, 1, 1, 1], "feature_size": [8, 16, 32, 48], "hidden_size": 64}
