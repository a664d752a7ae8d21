"""QTSeg's decoder: one token per class meets the features of each level, coarse to fine, and ends as the class's
1 x 1 kernel (arXiv 2412.17241).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medseg.networks.layers.token_attention import TokenAttention, position_map

__all__ = ["QueryDecoder"]

# (channels, whether it is the first) -> a layer that maps (tokens, pixels, positions, size) to (tokens, pixels)
MakeLayer = Callable[[int, bool], nn.Module]


class Enlarge(nn.Module):
    """A transposed convolution of kernel and stride 2, layer norm over channels, GELU; each pixel becomes four.

    Stride equals kernel, so it is a matrix product per pixel: rows of pixels ``(B, N, in_channels)`` ->
    ``(B, N * 4, out_channels)``, the four in the order (0, 0), (0, 1), (1, 0), (1, 1). ``in_place`` puts them where
    they belong.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(in_channels, out_channels, 2, 2)
        self.norm = nn.LayerNorm(out_channels, eps=1e-6)

    def forward(self, pixels: Tensor) -> Tensor:
        weight = self.conv.weight.permute(2, 3, 1, 0).flatten(0, 2)
        four = F.linear(pixels, weight).unflatten(2, (4, -1)).flatten(1, 2)
        return F.gelu(self.norm(four + self.conv.bias))


def in_place(pixels: Tensor, size: tuple[int, int], times: int) -> Tensor:
    """Rows ``(B, H * W * 4 ** times, C)``, enlarged ``times`` times from ``size`` (H, W), as an image in channels-last
    memory: ``(B, H * 2 ** times, W * 2 ** times, C)``.
    """
    shape = (pixels.shape[0], *size, *(2, 2) * times, pixels.shape[-1])
    rows, columns = ((axis, *range(axis + 2, 3 + 2 * times, 2)) for axis in (1, 2))
    image = pixels.reshape(shape).permute(0, *rows, *columns, 3 + 2 * times)
    return image.reshape(shape[0], size[0] * 2**times, size[1] * 2**times, shape[-1])


class DecoderLevel(nn.Module):
    """Layers, a last attention of the tokens, one MLP per token, and the step to the next finer level.

    Args:
        channels: of this level.
        next_channels: of the tokens that leave it.
        num_tokens: one per class.
        num_heads: of the last attention.
        layers: see ``MakeLayer``.
        enlarge: what enlarges the pixels, one or two in a row.
    """

    def __init__(
        self,
        channels: int,
        next_channels: int,
        num_tokens: int,
        num_heads: int,
        layers: Iterable[nn.Module],
        enlarge: Iterable[Enlarge],
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
        self.enlarge = nn.Sequential(*enlarge)

    def forward(self, tokens: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """``tokens: (B, T, channels)``, ``image: (B, H, W, channels)`` -> tokens, rows of enlarged pixels."""
        size = (image.shape[1], image.shape[2])
        positions = position_map(self.frequencies, *size)
        entered, pixels = tokens, image.flatten(1, 2)
        for layer in self.layers:
            tokens, pixels = layer(tokens, pixels, positions, size)
        tokens = self.final_norm(tokens + self.final_attention(tokens + entered, pixels + positions, pixels))
        tokens = torch.stack([head(token) for head, token in zip(self.heads, tokens.unbind(1), strict=True)], dim=1)
        return tokens, self.enlarge(pixels)


class QueryDecoder(nn.Module):
    """Features at strides 8, 16, 32 with 4, 8, 16 times ``width`` channels -> logits ``(B, num_tokens, H, W)`` at
    stride 2.

    Args:
        num_tokens: one per class.
        width: channels of the finest level, divided by four.
        depths: number of layers at strides 8, 16, 32.
        num_heads: of the attentions.
        layer: see ``MakeLayer``.
    """

    def __init__(self, num_tokens: int, width: int, depths: Sequence[int], num_heads: int, layer: MakeLayer) -> None:
        super().__init__()
        fine, middle, coarse = 4 * width, 8 * width, 16 * width
        self.tokens = nn.Embedding(num_tokens, coarse)
        self.levels = nn.ModuleList(
            DecoderLevel(
                channels, after, num_tokens, num_heads, (layer(channels, i == 0) for i in range(depth)), enlarge
            )
            for channels, after, depth, enlarge in (
                (fine, fine, depths[0], (Enlarge(fine, fine // 2), Enlarge(fine // 2, fine))),
                (middle, fine, depths[1], (Enlarge(middle, fine),)),
                (coarse, middle, depths[2], (Enlarge(coarse, middle),)),
            )
        )

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        tokens, pixels = self.kernels_and_pixels(features)
        logits = pixels @ tokens.transpose(1, 2)
        size = (features[0].shape[2], features[0].shape[3])
        return in_place(logits, size, times=2).permute(0, 3, 1, 2)

    def kernels_and_pixels(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The tokens of the last level ``(B, num_tokens, C)``, and the rows of pixels that they are multiplied with
        (not yet ``in_place``).
        """
        tokens = self.tokens.weight.expand(features[0].shape[0], -1, -1)
        enlarged: Tensor | None = None
        for level in (2, 1, 0):
            image = features[level].permute(0, 2, 3, 1)
            if enlarged is not None:
                coarser = features[level + 1]
                image = image + in_place(enlarged, (coarser.shape[2], coarser.shape[3]), times=1)
            tokens, enlarged = self.levels[level](tokens, image)
        assert enlarged is not None
        return tokens, enlarged
