"""A layer of multi-query mask decoding (MQM; QTSeg, arXiv 2412.17241v1)."""

from __future__ import annotations

from torch import Tensor, nn

from medseg.networks.layers.token_attention import TokenAttention, TokenMLP

__all__ = ["TwoWayLayer"]


class TwoWayLayer(nn.Module):
    """Tokens attend to themselves, then to the pixels; then the pixels to the tokens.

    Unlike in SAM, tokens carry no positional term. The ``first`` layer has no residual around the self-attention.
    ``tokens: (B, T, channels)``, ``pixels: (B, H * W, channels)``, ``positions: (H * W, channels)`` -> tokens, pixels.
    ``size``, (H, W), plays no part here.
    """

    def __init__(self, channels: int, num_heads: int, mlp_dim: int, *, first: bool) -> None:
        super().__init__()
        self.self_attention = TokenAttention(channels, num_heads, reduction=1)
        self.tokens_to_pixels = TokenAttention(channels, num_heads)
        self.mlp = TokenMLP(channels, mlp_dim, nn.ReLU())
        self.pixels_to_tokens = TokenAttention(channels, num_heads)
        self.norm1, self.norm2, self.norm3, self.norm4 = (nn.LayerNorm(channels) for _ in range(4))
        self.first = first

    def forward(self, tokens: Tensor, pixels: Tensor, positions: Tensor, size: list[int]) -> tuple[Tensor, Tensor]:
        attended = self.self_attention(tokens, tokens, tokens)
        tokens = self.norm1(attended if self.first else tokens + attended)
        placed = pixels + positions
        tokens = self.norm2(tokens + self.tokens_to_pixels(tokens, placed, pixels))
        tokens = self.norm3(tokens + self.mlp(tokens))
        return tokens, self.norm4(pixels + self.pixels_to_tokens(placed, tokens, tokens))
