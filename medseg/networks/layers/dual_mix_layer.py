"""Dual-mix attention (DMA; QTSeg, arXiv 2412.17241): tokens attend to spatially and to channel-wise re-weighted
features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medseg.networks.layers.token_attention import TokenAttention, TokenMLP
from medseg.networks.recording import full_precision

__all__ = ["DualMixLayer"]


class SpatialGate(nn.Module):
    """``s = g * sigmoid(conv([channel mean, channel max])) + g`` with a 7 x 7 kernel (after CBAM, Woo et al. 2018).

    ``pixels: (B, H * W, C)`` -> the same.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, pixels: Tensor, size: list[int]) -> Tensor:
        summary = torch.stack((pixels.mean(dim=2), pixels.amax(dim=2)), dim=1)
        gate = self.conv(summary.unflatten(2, size)).sigmoid().flatten(2).transpose(1, 2)
        return torch.addcmul(pixels, pixels, gate)


class ChannelAttention(nn.Module):
    """``c = gamma * softmax(rowmax(A) - A) g + g`` with ``A = g g^T`` over pixels (after DANet, Fu et al. 2019).

    The subtraction turns likeness round: a channel draws on those that are unlike it.
    ``pixels: (B, H * W, C)`` -> the same.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, pixels: Tensor) -> Tensor:
        if torch.jit.is_scripting():
            weights = _unlikeness(pixels)
        else:
            with full_precision(pixels):  # sums over all pixels need float32's digits and range
                weights = _unlikeness(pixels)
        return torch.baddbmm(pixels, pixels, self.gamma * weights.to(pixels.dtype).transpose(1, 2))


def _unlikeness(pixels: Tensor) -> Tensor:
    """(B, H * W, C) -> weights (B, C, C)."""
    half = pixels.dtype == torch.float16 or pixels.dtype == torch.bfloat16
    full = pixels.float() if half else pixels
    likeness = full.transpose(1, 2) @ full
    return (likeness.amax(dim=2, keepdim=True) - likeness).softmax(dim=2)


class DualMixLayer(nn.Module):
    """Tokens attend to both mixtures of the features; the features then attend to the tokens.

    The tokens' MLP comes before its norm and its residual is the layer's input; the features see the tokens before
    that MLP, and carry no norm.
    ``tokens: (B, T, channels)``, ``pixels: (B, H * W, channels)``, ``positions: (H * W, channels)`` -> tokens, pixels.
    """

    def __init__(self, channels: int, num_heads: int, mlp_dim: int) -> None:
        super().__init__()
        self.spatial_gate = SpatialGate()
        self.channel_attention = ChannelAttention()
        self.spatial_mix = TokenAttention(channels, num_heads)
        self.channel_mix = TokenAttention(channels, num_heads)
        self.norm1 = nn.LayerNorm(channels)
        self.mlp = TokenMLP(channels, mlp_dim, nn.GELU())
        self.norm2 = nn.LayerNorm(channels)
        self.feature_mix = TokenAttention(channels, num_heads)

    def forward(self, tokens: Tensor, pixels: Tensor, positions: Tensor, size: list[int]) -> tuple[Tensor, Tensor]:
        placed = pixels + positions
        spatial, channel = self.spatial_gate(placed, size), self.channel_attention(placed)
        mixed = self.spatial_mix(tokens, spatial, spatial) + self.channel_mix(tokens, channel, channel)
        mixed = self.norm1(mixed + tokens)
        pixels = pixels + self.feature_mix(spatial + channel + positions, mixed, mixed)
        return self.norm2(self.mlp(mixed)) + tokens, pixels
