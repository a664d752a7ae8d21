"""Multi-head attention between patches of Hartley modes (HartleyMHA, arXiv 2310.04466)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from medseg.networks.layers.channels_last import recording
from medseg.networks.layers.conv_units import activation_layer
from medseg.networks.layers.hartley import kept, mirror_sum, padded

__all__ = ["HartleyAttention", "attend"]

_BLOCK = {"cpu": 2**18}  # scores at once: they fit a core's second-level cache
_BLOCK_ELSEWHERE = 2**26


def attend(query: Tensor, key: Tensor, value: Tensor, act: Callable[[Tensor], Tensor]) -> Tensor:
    """``act(query key^T) value`` for (B, heads, tokens, channels), in blocks of queries.

    The scores of all pairs of tokens never exist at once; where gradients are needed, they are computed again.
    ``act`` may overwrite its input.
    """

    def scored(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return act(query @ key.transpose(-2, -1)) @ value

    tokens = key.shape[-2]
    length = max(1, _BLOCK.get(query.device.type, _BLOCK_ELSEWHERE) // tokens)
    if recording() or query.shape[-2] <= length:
        return scored(query, key, value)
    if torch.is_grad_enabled():
        parts = [checkpoint(scored, part, key, value, use_reentrant=False) for part in query.split(length, -2)]
        return torch.cat(parts, -2)
    out = query.new_empty(*query.shape[:-1], value.shape[-1])
    for result, q, k, v in zip(*(x.flatten(0, 1) for x in (out, query, key, value)), strict=True):
        for part, block in zip(result.split(length), q.split(length), strict=True):
            torch.mm(act(block @ k.t()), v, out=part)
    return out


class HartleyAttention(nn.Module):
    """Sums over products of cas (B, channels, *2m + 1) -> coefficients of such, by self-attention of the modes.

    Tokens are patches of ``patch_size`` neighbouring modes. Scores are ``act(q^T k / sqrt(numbers per token))``; there
    is no softmax. Heads have as many channels as the input, and the last map brings their concatenation back.
    """

    def __init__(self, channels: int, num_heads: int, patch_size: Sequence[int], activation: str = "selu") -> None:
        super().__init__()
        self.num_heads = num_heads
        self.patch_size = tuple(patch_size)
        self.weight_query, self.weight_key, self.weight_value = (
            nn.Parameter(torch.empty(num_heads, channels, channels)) for _ in range(3)
        )
        self.weight_out = nn.Parameter(torch.empty(channels, num_heads * channels))
        for weight in self.parameters():
            nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
        self.act = activation_layer(activation)

    def forward(self, products: Tensor) -> Tensor:
        x = kept(mirror_sum(products))
        grid = x.shape[2:]
        weight = torch.cat((self.weight_query, self.weight_key, self.weight_value)).flatten(0, 1).to(x.dtype)
        projected = (weight @ x.flatten(2)).unflatten(2, grid).unflatten(1, (3 * self.num_heads, -1))
        query, key, value = self._tokens(projected).chunk(3, 1)
        y = attend(query / math.sqrt(query.shape[-1]), key, value, self.act)
        y = self._modes(y, grid).flatten(1, 2)
        y = (self.weight_out.to(x.dtype) @ y.flatten(2)).unflatten(2, grid)
        return mirror_sum(padded(y, products.shape[2:]))

    def _tokens(self, x: Tensor) -> Tensor:
        """(B, heads, C, *grid) -> (B, heads, tokens, C * patch)."""
        dims = len(self.patch_size)
        for axis, p in enumerate(self.patch_size):
            x = x.unflatten(3 + 2 * axis, (-1, p))
        tokens = list(range(3, 3 + 2 * dims, 2))
        x = x.permute(0, 1, *tokens, 2, *(axis + 1 for axis in tokens))
        return x.flatten(2 + dims).flatten(2, 1 + dims)

    def _modes(self, x: Tensor, grid: Sequence[int]) -> Tensor:
        """The way back, (B, heads, tokens, C * patch) -> (B, heads, C, *grid)."""
        dims = len(self.patch_size)
        tokens = [int(n) // p for n, p in zip(grid, self.patch_size, strict=True)]
        x = x.unflatten(3, (-1, *self.patch_size)).unflatten(2, tokens)
        pairs = [axis for j in range(dims) for axis in (2 + j, 3 + dims + j)]
        x = x.permute(0, 1, 2 + dims, *pairs)
        return x.flatten(3).unflatten(3, tuple(int(n) for n in grid))
