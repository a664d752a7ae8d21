"""Semantic maps: tokens that summarise a feature map, and their fusion over scales (MedFormer, arXiv 2203.00131)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medseg.networks.layers.preactivation import same_conv
from medseg.networks.layers.prior_attention import feed_forward
from medseg.networks.layers.unet_blocks import Triple

__all__ = ["MapFusion", "SemanticMap"]


class SemanticMap(nn.Module):
    """``(B, C, D, H, W) -> (B, count, C)``: means of features under ``count`` learned weightings of voxels."""

    def __init__(self, channels: int, count: int, kernel_size: Triple) -> None:
        super().__init__()
        self.features = same_conv(channels, channels, kernel_size)
        self.weights = same_conv(channels, count, kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        weights = self.weights(x).flatten(2).softmax(-1)
        y: Tensor = weights @ self.features(x).flatten(2).transpose(1, 2)
        return y


class _SelfAttention(nn.Module):
    """Layer norm and multi-head self-attention of ``(B, N, channels)``; the residual is the caller's."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.split = (3, heads, channels // heads)
        inner = heads * (channels // heads)
        self.norm = nn.LayerNorm(channels, eps=1e-4)
        self.to_qkv = nn.Linear(channels, 3 * inner, bias=False)
        self.to_out = nn.Linear(inner, channels)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.to_qkv(self.norm(x)).unflatten(-1, self.split).permute(2, 0, 3, 1, 4).unbind(0)
        y: Tensor = self.to_out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return y


class MapFusion(nn.Module):
    """A transformer over the semantic maps ``(B, M, C_i)`` of several scales together; maps of the same shapes out."""

    def __init__(self, map_channels: Sequence[int], channels: int, heads: int, depth: int) -> None:
        super().__init__()
        self.project_in = nn.ModuleList(nn.Linear(c, channels, bias=False) for c in map_channels)
        self.attention = nn.ModuleList(_SelfAttention(channels, heads) for _ in range(depth))
        self.mlps = nn.ModuleList(feed_forward(channels, channels) for _ in range(depth))
        self.project_out = nn.ModuleList(nn.Linear(channels, c, bias=False) for c in map_channels)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        x = torch.cat([project(maps[i]) for i, project in enumerate(self.project_in)], 1)
        for attention, mlp in zip(self.attention, self.mlps):
            x = x + attention(x)
            x = x + mlp(x)
        parts = x.split([m.shape[1] for m in maps], 1)
        return [project(parts[i]) for i, project in enumerate(self.project_out)]
