"""Multi-head attention between patches of Hartley modes (HartleyMHA, arXiv 2310.04466)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from medseg.networks.kernels.blocked_attention import attend
from medseg.networks.layers.conv_units import activation_layer
from medseg.networks.layers.hartley import kept, mirror_sum, padded

__all__ = ["HartleyAttention"]


class HartleyAttention(nn.Module):
    """Sums over products of cas (B, channels, *2m + 1) -> coefficients of such, by self-attention of the modes.

    Tokens are patches of ``patch_size`` neighbouring modes. Scores are ``act(q^T k / sqrt(numbers per token))``; there
    is no softmax. Heads have as many channels as the input, and the last map brings their concatenation back.
    """

    def __init__(self, channels: int, num_heads: int, patch_size: Sequence[int], activation: str = "selu") -> None:
        super().__init__()
        self.num_heads = num_heads
        self.patch_size = list(patch_size)
        self.weight_query, self.weight_key, self.weight_value = (
            nn.Parameter(torch.empty(num_heads, channels, channels)) for _ in range(3)
        )
        self.weight_out = nn.Parameter(torch.empty(channels, num_heads * channels))
        for weight in self.parameters():
            nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
        self.act = activation_layer(activation)

    def forward(self, products: Tensor) -> Tensor:
        x = kept(mirror_sum(products), half=False)
        grid = list(x.shape[2:])
        x = self._grouped(x)
        scaled = self.weight_query / math.sqrt(x.shape[1] * x.shape[2])
        weight = torch.cat((scaled, self.weight_key, self.weight_value)).flatten(0, 1).to(x.dtype)
        projected = (weight @ x.flatten(2)).unflatten(2, x.shape[2:]).unflatten(1, (3 * self.num_heads, -1))
        query, key, value = projected.flatten(2, 3).mT.chunk(3, 1)  # (B, heads, tokens, channels * patch)
        if torch.jit.is_scripting():
            y = (self.act(query @ key.mT) @ value).mT
        else:
            y = attend(query, key, value, self.act).mT
        y = self.weight_out.to(x.dtype) @ y.unflatten(2, x.shape[1:3]).flatten(1, 2).flatten(2)
        y = self._ungrouped(y.unflatten(2, x.shape[2:]), grid)
        return mirror_sum(padded(y, list(products.shape[2:]), half=False))

    def _grouped(self, x: Tensor) -> Tensor:
        """(B, C, *grid) -> (B, C, patch, tokens). Maps between channels follow, which are many times as many then."""
        dims = len(self.patch_size)
        for axis, p in enumerate(self.patch_size):
            x = x.unflatten(2 + 2 * axis, (-1, p))
        tokens = [2 + 2 * axis for axis in range(dims)]
        return x.permute([0, 1] + [axis + 1 for axis in tokens] + tokens).flatten(2, 1 + dims).flatten(3)

    def _ungrouped(self, x: Tensor, grid: list[int]) -> Tensor:
        """The way back, (B, C, patch, tokens) -> (B, C, *grid)."""
        dims = len(self.patch_size)
        tokens = [int(n) // p for n, p in zip(grid, self.patch_size)]
        x = x.unflatten(3, tokens).unflatten(2, self.patch_size)
        pairs = [2 + i // 2 + dims * (1 - i % 2) for i in range(2 * dims)]
        image: Tensor = x.permute([0, 1] + pairs).flatten(2).unflatten(2, [int(n) for n in grid])
        return image
