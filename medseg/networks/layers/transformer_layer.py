"""Pre-norm transformer layer on tokens (Vaswani et al. 2017, in the order of ViT, arXiv 2010.11929)."""

from __future__ import annotations

import torch.nn.functional as F
from monai.networks.blocks import MLPBlock
from torch import Tensor, nn

__all__ = ["SelfAttention", "TransformerLayer"]


class SelfAttention(nn.Module):
    """Multi-head self-attention of tokens ``(B, N, channels)``; queries, keys and values have no bias.

    MONAI's ``SABlock`` keeps the N x N matrix of every layer, or with flash attention drops in evaluation too.
    """

    def __init__(self, channels: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.out = nn.Linear(channels, channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        q, k, v = self.qkv(tokens).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        dropped = self.dropout.p if self.training else 0.0
        attended = F.scaled_dot_product_attention(q, k, v, dropout_p=dropped)
        y: Tensor = self.dropout(self.out(attended.transpose(1, 2).flatten(2)))
        return y


class TransformerLayer(nn.Module):
    """``x += drop(attention(norm(x)))``, ``x += mlp(norm(x))``, with exact GELU; (B, N, channels) -> the same."""

    def __init__(
        self, channels: int, num_heads: int, mlp_dim: int, *, dropout: float = 0.0, attn_dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attention = SelfAttention(channels, num_heads, attn_dropout)
        self.dropout = nn.Dropout(dropout)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = MLPBlock(channels, mlp_dim, dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.dropout(self.attention(self.norm1(tokens)))
        y: Tensor = tokens + self.mlp(self.norm2(tokens))
        return y
