"""Attention in both directions between a feature map and a few tokens (MedFormer, arXiv 2203.00131), with priors among
the tokens (Hermes, arXiv 2306.02416).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medseg.networks.kernels.channels_last import instance_norm
from medseg.networks.layers.depthwise import InvertedBottleneck, separable_conv
from medseg.networks.layers.preactivation import preactivate, same_conv
from medseg.networks.layers.priors import Chosen, PriorTable
from medseg.networks.layers.unet_blocks import Triple

__all__ = ["BidirectionalAttention", "PriorExchange"]


class BidirectionalAttention(nn.Module):
    """Features attend to tokens and tokens to features, by the same scores; then an inverted bottleneck.

    ``forward(x (B, in_channels, D, H, W), tokens (B, M, out_channels), keys=None) -> (features (B, out_channels, D, H,
    W), tokens)``; ``keys (B, 1, 1, M)`` says which tokens the features may read. Of the inner channels the heads are
    the fastest index, as the published weights have it.

    Args:
        token_projection: without it the tokens take what they found as it is.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        heads: int,
        *,
        kernel_size: Triple,
        expansion: int,
        token_projection: bool = True,
    ) -> None:
        super().__init__()
        self.split = (out_channels // heads, heads)
        inner = heads * (out_channels // heads)
        self.norm_tokens = nn.LayerNorm(out_channels)
        self.feature_queries_values = separable_conv(in_channels, 2 * inner, kernel_size)
        self.token_queries_values = nn.Linear(out_channels, 2 * inner, bias=False)
        self.feature_out = separable_conv(inner, out_channels, kernel_size)
        self.token_out = nn.Linear(inner, out_channels, bias=False) if token_projection else nn.Identity()
        self.shortcut = same_conv(in_channels, out_channels, (1, 1, 1)) if in_channels != out_channels else None
        self.bottleneck = InvertedBottleneck(out_channels, expansion, kernel_size)

    def forward(self, x: Tensor, tokens: Tensor, keys: Tensor | None = None) -> tuple[Tensor, Tensor]:
        features = self.feature_queries_values(instance_norm(x)).flatten(2).transpose(1, 2)
        feature_q, feature_v = [self._heads(part) for part in features.chunk(2, -1)]
        asking = self.token_queries_values(self.norm_tokens(tokens))
        token_q, token_v = [self._heads(part) for part in asking.chunk(2, -1)]
        found = self._merge(F.scaled_dot_product_attention(feature_q, token_q, token_v, attn_mask=keys))
        told = self._merge(F.scaled_dot_product_attention(token_q, feature_q, feature_v))
        y = self.feature_out(found.transpose(1, 2).unflatten(2, x.shape[2:]))
        y = y + (x if self.shortcut is None else self.shortcut(preactivate(x)))
        return self.bottleneck(y), tokens + self.token_out(told)

    def _heads(self, x: Tensor) -> Tensor:
        """``(B, N, inner) -> (B, heads, N, head channels)``."""
        heads: Tensor = x.unflatten(-1, self.split).permute(0, 3, 1, 2)
        return heads

    def _merge(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1).flatten(2)


class PriorExchange(nn.Module):
    """The prior table of one scale, and attention between the features and all tokens: semantic maps, then priors.

    ``forward(x, maps (B, M, C), chosen) -> (features, maps, posterior priors (B, T + 10, C))``.
    """

    def __init__(
        self, num_tasks: int, num_modalities: int, channels: int, blocks: list[BidirectionalAttention]
    ) -> None:
        super().__init__()
        self.priors = PriorTable(num_tasks, num_modalities, channels)
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor, maps: Tensor, chosen: Chosen) -> tuple[Tensor, Tensor, Tensor]:
        count = maps.shape[1]
        tokens = torch.cat((maps, self.priors(chosen)), 1)
        keys = chosen.keys
        if keys is not None:
            keys = F.pad(keys, (count, 0), value=1.0)
        for block in self.blocks:
            x, tokens = block(x, tokens, keys)
        return x, tokens[:, :count], tokens[:, count:]
