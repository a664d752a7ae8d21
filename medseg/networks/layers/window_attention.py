"""Attention in windows of a grid of tokens, shifted by half a window in every other block (Swin, arXiv 2103.14030, in
the form of nnFormer, arXiv 2109.03201). Features are channels-last: (B, *grid, C).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from monai.networks.blocks import MLPBlock
from monai.networks.layers import DropPath
from torch import Tensor, nn

__all__ = ["WindowAttention", "WindowBlock"]

_EXPANSION = 4
_MASKED = -100.0  # added to the scores of tokens that only the roll has made neighbours [parity: no infinity]


class WindowAttention(nn.Module):
    """Multi-head attention within windows of ``window`` tokens per axis; (B, *grid, channels) -> the same.

    Grids that the window does not divide are padded by zero tokens, which are keys like others [parity].

    Args:
        spatial_dims: number of axes of the grid.
        channels: number of channels of a token.
        num_heads: heads; they divide the channels.
        window: tokens per axis of a window.
        shift: tokens by which the grid is rolled before it is cut into windows.
        cross: queries are the input as it is; keys and values are made of a second input of its shape.
    """

    def __init__(
        self, spatial_dims: int, channels: int, num_heads: int, *, window: int, shift: int = 0, cross: bool = False
    ) -> None:
        super().__init__()
        self.num_heads, self.window, self.shift = num_heads, window, shift
        self.masked = _MASKED
        self.project = nn.Linear(channels, (2 if cross else 3) * channels)
        self.out = nn.Linear(channels, channels)
        self.bias_table = nn.Parameter(torch.empty((2 * window - 1) ** spatial_dims, num_heads))
        nn.init.trunc_normal_(self.bias_table, std=0.02)
        self.register_buffer("index", _relative_index(spatial_dims, window), persistent=False)
        self.index: Tensor

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        size = [int(n) for n in x.shape[1:-1]]
        padded = [n + -n % self.window for n in size]
        windows = self._cut(x)
        if context is None:
            q, k, v = self.project(windows).unflatten(3, (3, -1)).unbind(3)
        else:
            q = windows
            k, v = self.project(self._cut(context)).unflatten(3, (2, -1)).unbind(3)
        q, k, v = [part.unflatten(3, (self.num_heads, -1)).transpose(2, 3).flatten(1, 2) for part in (q, k, v)]
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=self._scores(padded).to(q.dtype))
        windows = self.out(attended.unflatten(1, (-1, self.num_heads)).transpose(2, 3).flatten(3))
        y = _join(windows, padded, self.window)
        if self.shift:
            y = y.roll([self.shift] * len(size), [axis + 1 for axis in range(len(size))])
        for axis, n in enumerate(size, 1):
            y = y.narrow(axis, 0, n)
        return y

    def _cut(self, x: Tensor) -> Tensor:
        """(B, *grid, C), padded and rolled -> (B, windows, tokens, C)."""
        pads: list[int] = []
        for n in x.shape[1:-1]:
            pads = [0, -int(n) % self.window] + pads
        x = F.pad(x, [0, 0] + pads)
        if self.shift:
            x = x.roll([-self.shift] * (x.dim() - 2), [axis + 1 for axis in range(x.dim() - 2)])
        return _partition(x, self.window)

    def _scores(self, grid: list[int]) -> Tensor:
        """What is added to the scores: (1, windows * heads, tokens, tokens)."""
        tokens = self.index.shape[0]
        bias = self.bias_table[self.index.flatten()].view(1, tokens, tokens, -1).permute(0, 3, 1, 2)
        if self.shift:
            region = torch.zeros([1] + grid + [1], device=bias.device)
            for axis, n in enumerate(grid):
                place = torch.arange(n, device=bias.device)
                part = (place >= n - self.window).int() + (place >= n - self.shift).int()
                region = 3 * region + part.view([-1 if i == axis + 1 else 1 for i in range(region.dim())])
            region = _partition(region, self.window)[0]
            bias = bias + self.masked * (region != region.transpose(1, 2))[:, None]
        else:
            count = 1
            for n in grid:
                count *= n // self.window
            bias = bias.expand(count, -1, -1, -1)
        return bias.flatten(0, 1)[None]


class WindowBlock(nn.Module):
    """``x += drop_path(attention(norm1(x)))``, ``x += drop_path(mlp(norm2(x)))``; (B, *grid, channels) -> the same.

    With ``cross`` the block joins decoder features and a skip: the first line is ``x + skip +
    drop_path(attention(norm1(x), norm1(skip)))``.

    Args:
        spatial_dims, channels, num_heads, window, shift, cross: arguments of ``WindowAttention``.
        drop_path: chance that a sample skips a branch in training.
    """

    def __init__(
        self,
        spatial_dims: int,
        channels: int,
        num_heads: int,
        *,
        window: int,
        shift: int = 0,
        cross: bool = False,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attention = WindowAttention(spatial_dims, channels, num_heads, window=window, shift=shift, cross=cross)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = MLPBlock(channels, _EXPANSION * channels)

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        if skip is None:
            x = x + self.drop_path(self.attention(self.norm1(x)))
        else:
            x = x + skip + self.drop_path(self.attention(self.norm1(x), self.norm1(skip)))
        y: Tensor = x + self.drop_path(self.mlp(self.norm2(x)))
        return y


def _relative_index(spatial_dims: int, window: int) -> Tensor:
    """Row of the bias table for each ordered pair of a window's tokens, (tokens, tokens).

    Of the first of three axes the published step is 3 w - 1, not (2 w - 1)^2, so that several offsets share a row and
    others are never used [parity]; in 2D all rows are used.
    """
    steps = {2: (2 * window - 1, 1), 3: (3 * window - 1, 2 * window - 1, 1)}[spatial_dims]
    places = torch.cartesian_prod(*[torch.arange(window)] * spatial_dims)
    offsets = places[:, None] - places[None] + window - 1
    index: Tensor = (offsets * torch.tensor(steps)).sum(-1)
    return index


def _partition(x: Tensor, window: int) -> Tensor:
    """(B, *grid, C) -> (B, windows, tokens of a window, C)."""
    dims = x.dim() - 2
    for axis in range(dims, 0, -1):
        x = x.unflatten(axis, (-1, window))
    x = x.permute([0] + [1 + 2 * axis for axis in range(dims)] + [2 + 2 * axis for axis in range(dims)] + [-1])
    return x.flatten(dims + 1, 2 * dims).flatten(1, dims)


def _join(windows: Tensor, grid: list[int], window: int) -> Tensor:
    """The inverse of ``_partition``."""
    dims = len(grid)
    x: Tensor = windows.unflatten(2, [window] * dims).unflatten(1, [n // window for n in grid])
    pairs = [1 + i // 2 + dims * (i % 2) for i in range(2 * dims)]
    x = x.permute([0] + pairs + [-1])
    for axis in range(1, dims + 1):
        x = x.flatten(axis, axis + 1)
    return x
