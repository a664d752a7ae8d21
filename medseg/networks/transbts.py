"""TransBTS: a convolutional encoder, a transformer on its coarsest features, and a convolutional decoder
(Wang et al., MICCAI 2021, arXiv 2103.04430).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from monai.networks.blocks import Convolution
from monai.networks.layers.factories import Conv, Dropout, Norm
from monai.utils import ensure_tuple_rep
from torch import Tensor, nn

from medseg.errors import ConfigError
from medseg.networks.layers.padding import crop_to, pad_to_multiples
from medseg.networks.layers.transformer_layer import TransformerLayer
from medseg.networks.registry import PlannedFor, register

__all__ = ["TransBTS"]

_STEP = 8  # the encoder halves three times
_BLOCKS = (1, 2, 2, 4)  # residual blocks per level


class ResidualBlock(nn.Module):
    """``x + conv2(relu(norm2(conv1(relu(norm1(x))))))`` with group norms; (B, channels, *spatial) -> the same."""

    def __init__(self, spatial_dims: int, channels: int, norm_groups: int) -> None:
        super().__init__()
        conv: type[nn.Module] = Conv[Conv.CONV, spatial_dims]
        self.norm1 = nn.GroupNorm(norm_groups, channels)
        self.conv1 = conv(channels, channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(norm_groups, channels)
        self.conv2 = conv(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv2(F.relu(self.norm2(self.conv1(F.relu(self.norm1(x))))))
        return x + y


class ConvPair(nn.Sequential):
    """Convolution, batch norm, ReLU; twice. Then, with as many channels out as in and ``residual``, the input."""

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int, *, residual: bool = True) -> None:
        unit: dict[str, Any] = {"act": "relu", "norm": "batch"}
        super().__init__(
            Convolution(spatial_dims, in_channels, out_channels, **unit),
            Convolution(spatial_dims, out_channels, out_channels, **unit),
        )
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for unit in self:
            y = unit(y)
        return x + y if self.residual else y


class UpStep(nn.Module):
    """1x1 convolution, doubling, concatenation (the skip first), 1x1 convolution; nothing is normalised."""

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        conv: type[nn.Module] = Conv[Conv.CONV, spatial_dims]
        self.reduce = conv(in_channels, out_channels, 1)
        self.up = Conv[Conv.CONVTRANS, spatial_dims](out_channels, out_channels, 2, stride=2)
        self.merge = conv(2 * out_channels, out_channels, 1)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        y: Tensor = self.merge(torch.cat((skip, self.up(self.reduce(x))), 1))
        return y


@register(
    "transbts",
    title="TransBTS",
    spatial_dims=(2, 3),
    channels=(1, 5),
    parameters=31510213,
    setting="FLARE 2021, patch 96, 5 channels",
    paper="TransBTS: Multimodal Brain Tumor Segmentation Using Transformer, MICCAI 2021, arXiv 2103.04430",
)
class TransBTS(nn.Module):
    """TransBTS.

    ``x: (B, in_channels, *spatial)``, any size -> logits ``(B, out_channels, *spatial)``, one tensor. Sizes that 8 does
    not divide are zero-padded at the end of each axis and the logits cropped back. Patches of ``img_size`` are the
    published use; for others the learned positions are interpolated.

    The released program drops channels after the first convolution in evaluation too, so that two predictions of one
    image differ; here that dropout is of the training alone. Its count of 31 577 285 includes 67 072 parameters that it
    never uses and that are not made here.

    Args:
        spatial_dims: 2 or 3 (published: 3).
        img_size: patch that the learned positions are for; one number or one per axis.
        base_channels: channels of the finest level; they double with each of the three others.
        embed_dim: channels of a token, a multiple of ``num_heads``.
        num_heads, num_layers: numbers of heads and layers of the transformer.
        mlp_dim: hidden channels of its feed-forward layers.
        dropout_rate: dropout of tokens and feed-forward layers.
        attn_dropout_rate: dropout of attention weights and of the attention's output.
        stem_dropout_rate: dropout of whole channels after the first convolution.
        norm_groups: groups of the encoder's group norms; it divides ``base_channels``.

    Raises:
        ConfigError: arguments that do not fit together.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        *,
        img_size: int | Sequence[int] = 96,
        base_channels: int = 16,
        embed_dim: int = 512,
        num_heads: int = 8,
        num_layers: int = 4,
        mlp_dim: int = 4096,
        dropout_rate: float = 0.1,
        attn_dropout_rate: float = 0.1,
        stem_dropout_rate: float = 0.2,
        norm_groups: int = 8,
    ) -> None:
        super().__init__()
        if spatial_dims not in (2, 3):
            raise ConfigError(f"spatial_dims is {spatial_dims}, expected 2 or 3.")
        if embed_dim % num_heads or base_channels % norm_groups:
            raise ConfigError(
                f"embed_dim is {embed_dim} and base_channels {base_channels}, expected multiples of num_heads "
                f"({num_heads}) and of norm_groups ({norm_groups}); change one of each pair."
            )
        conv: type[nn.Module] = Conv[Conv.CONV, spatial_dims]
        widths = [base_channels * 2**level for level in range(len(_BLOCKS))]
        wide = widths[-1]
        self.multiples = [_STEP] * spatial_dims
        self.stem = nn.Sequential(
            conv(in_channels, base_channels, 3, padding=1), Dropout[Dropout.DROPOUT, spatial_dims](stem_dropout_rate)
        )
        self.levels = nn.ModuleList(
            nn.Sequential(*(ResidualBlock(spatial_dims, width, norm_groups) for _ in range(number)))
            for width, number in zip(widths, _BLOCKS, strict=True)
        )
        self.downs = nn.ModuleList(conv(width, 2 * width, 3, stride=2, padding=1) for width in widths[:-1])
        self.downs.append(nn.Identity())  # the coarsest level ends there
        self.embed = nn.Sequential(Norm[Norm.BATCH, spatial_dims](wide), nn.ReLU(), conv(wide, embed_dim, 3, padding=1))
        self.grid = [math.ceil(n / _STEP) for n in ensure_tuple_rep(img_size, spatial_dims)]
        self.positions = nn.Parameter(torch.zeros(1, math.prod(self.grid), embed_dim))
        self.token_dropout = nn.Dropout(dropout_rate)
        self.transformer = nn.Sequential(
            *(
                TransformerLayer(embed_dim, num_heads, mlp_dim, dropout=dropout_rate, attn_dropout=attn_dropout_rate)
                for _ in range(num_layers)
            )
        )
        self.maps = nn.Sequential(
            ConvPair(spatial_dims, embed_dim, wide, residual=False), ConvPair(spatial_dims, wide, wide)
        )
        self.ups = nn.ModuleList(UpStep(spatial_dims, 2 * width, width) for width in widths[-2::-1])
        self.decoders = nn.ModuleList(ConvPair(spatial_dims, width, width) for width in widths[-2::-1])
        self.head = conv(base_channels, out_channels, 1)

    @classmethod
    def planned_arguments(cls, plan: PlannedFor) -> dict[str, Any]:
        """Positions for the patch; on a CPU half the channels, and a transformer of two narrow layers."""
        light = {"base_channels": 8, "embed_dim": 64, "num_heads": 4, "num_layers": 2, "mlp_dim": 128}
        return {"img_size": list(plan.roi_size), **(light if plan.light else {})}

    def forward(self, x: Tensor) -> Tensor:
        size = list(x.shape[2:])
        x = self.stem(pad_to_multiples(x, self.multiples, normalizes=True))
        skips: list[Tensor] = []
        for level, down in zip(self.levels, self.downs):
            skips.append(level(x))
            x = down(skips[-1])
        x = self.embed(skips.pop())
        grid = list(x.shape[2:])
        tokens = self.transformer(self.token_dropout(x.flatten(2).transpose(1, 2) + self._positions(grid)))
        x = self.maps(tokens.transpose(1, 2).unflatten(2, grid))
        for up, decoder in zip(self.ups, self.decoders):
            x = decoder(up(x, skips.pop()))
        return crop_to(self.head(x), size)

    def _positions(self, grid: list[int]) -> Tensor:
        """(1, N, embed_dim) for a grid of tokens."""
        if grid == self.grid:
            return self.positions
        mode = "bilinear" if len(grid) == 2 else "trilinear"
        table = self.positions.transpose(1, 2).unflatten(2, self.grid)
        return F.interpolate(table, size=grid, mode=mode, align_corners=False).flatten(2).transpose(1, 2)
