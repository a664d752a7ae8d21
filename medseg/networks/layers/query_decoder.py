"""QTSeg's decoder: one token per class meets the features of each level, coarse to fine, and ends as the class's
1 x 1 kernel (arXiv 2412.17241).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medseg.networks.kernels.row_parts import row_parts
from medseg.networks.layers.token_attention import TokenAttention, position_map

__all__ = ["QueryDecoder"]

# (channels, whether it is the first) -> a layer that maps (tokens, pixels, positions, size) to (tokens, pixels)
MakeLayer = Callable[[int, bool], nn.Module]


class Enlarge(nn.Module):
    """A transposed convolution of kernel and stride 2, layer norm over channels, GELU; each pixel becomes four.

    Stride equals kernel, so it is a matrix product per pixel: rows of pixels ``(B, N, in_channels)`` ->
    ``(B, N * 4, out_channels)``, the four in the order (0, 0), (0, 1), (1, 0), (1, 1).
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(in_channels, out_channels, 2, 2)
        self.norm = nn.LayerNorm(out_channels, eps=1e-6)

    def forward(self, pixels: Tensor) -> Tensor:
        bias = self.conv.bias
        assert bias is not None
        four = F.linear(pixels, self.conv.weight.permute(2, 3, 1, 0).flatten(0, 2), bias.repeat(4))
        return F.gelu(self.norm(four.unflatten(2, (4, -1)).flatten(1, 2)))


def in_place(pixels: Tensor, before: Tensor) -> Tensor:
    """What ``Enlarge`` makes of the pixels of ``before: (B, H, W, ...)``, as an image ``(B, 2 H, 2 W, C)``."""
    image = pixels.unflatten(1, (before.shape[1], before.shape[2], 2, 2)).transpose(2, 3)
    x: Tensor = image.flatten(3, 4).flatten(1, 2)
    return x


class DecoderLevel(nn.Module):
    """Layers, a last attention of the tokens, and one MLP per token.

    Args:
        channels: number of channels of this level.
        next_channels: number of channels of the tokens that leave it.
        num_tokens: one per class.
        num_heads: number of heads of the last attention.
        layers: see ``MakeLayer``.
    """

    def __init__(
        self, channels: int, next_channels: int, num_tokens: int, num_heads: int, layers: Iterable[nn.Module]
    ) -> None:
        super().__init__()
        self.frequencies: Tensor
        self.register_buffer("frequencies", torch.randn(2, channels // 2))
        self.layers = nn.ModuleList(layers)
        self.final_attention = TokenAttention(channels, num_heads)
        self.final_norm = nn.LayerNorm(channels)
        self.heads = nn.ModuleList(
            nn.Sequential(
                nn.Linear(channels, channels),
                nn.ReLU(),
                nn.Linear(channels, channels),
                nn.ReLU(),
                nn.Linear(channels, next_channels),
            )
            for _ in range(num_tokens)
        )

    def forward(self, tokens: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """``tokens: (B, T, channels)``, ``image: (B, H, W, channels)`` -> the next level's tokens, and pixels
        ``(B, H * W, channels)`` that are still to be enlarged.
        """
        size = [image.shape[1], image.shape[2]]
        positions = position_map(self.frequencies, size[0], size[1])
        entered, pixels = tokens, image.flatten(1, 2)
        for layer in self.layers:
            tokens, pixels = layer(tokens, pixels, positions, size)
        tokens = self.final_norm(tokens + self.final_attention(tokens + entered, pixels + positions, pixels))
        tokens = torch.stack([head(tokens[:, i]) for i, head in enumerate(self.heads)], dim=1)
        return tokens, pixels


class QueryDecoder(nn.Module):
    """Features at strides 8, 16, 32 with 4, 8, 16 times ``width`` channels -> logits ``(B, num_tokens, H, W)`` at
    stride 2.

    Args:
        num_tokens: one per class.
        width: channels of the finest level, divided by four.
        depths: number of layers at strides 8, 16, 32.
        num_heads: number of heads of the attentions.
        layer: see ``MakeLayer``.
    """

    def __init__(self, num_tokens: int, width: int, depths: Sequence[int], num_heads: int, layer: MakeLayer) -> None:
        super().__init__()
        fine, middle, coarse = 4 * width, 8 * width, 16 * width
        self.tokens = nn.Parameter(torch.randn(num_tokens, coarse))
        self.levels = nn.ModuleList(
            DecoderLevel(channels, after, num_tokens, num_heads, (layer(channels, i == 0) for i in range(depth)))
            for channels, after, depth in zip((fine, middle, coarse), (fine, fine, middle), depths, strict=True)
        )
        self.enlarge = nn.ModuleList(
            [
                nn.Sequential(Enlarge(fine, fine // 2), Enlarge(fine // 2, fine)),
                nn.Sequential(Enlarge(middle, fine)),
                nn.Sequential(Enlarge(coarse, middle)),
            ]
        )

    def forward(self, features: list[Tensor]) -> Tensor:
        tokens = self.tokens.expand(features[0].shape[0], -1, -1)
        fine, middle, coarse = [feature.permute(0, 2, 3, 1) for feature in features]
        tokens, pixels = self.levels[2](tokens, coarse)
        middle = middle + in_place(self.enlarge[2](pixels), coarse)
        tokens, pixels = self.levels[1](tokens, middle)
        fine = fine + in_place(self.enlarge[1](pixels), middle)
        tokens, pixels = self.levels[0](tokens, fine)
        logits = torch.cat([self.enlarge[0](part) @ tokens.transpose(1, 2) for part in row_parts(pixels)], dim=1)
        # Rows hold the 4 x 4 pixels of each pixel at stride 8, ordered by the first and then the second enlargement.
        blocks = logits.unflatten(1, (-1, 2, 2, 2, 2)).permute(0, 6, 2, 4, 3, 5, 1).flatten(1, 5)
        return F.pixel_shuffle(blocks.unflatten(2, (fine.shape[1], fine.shape[2])), 4)
