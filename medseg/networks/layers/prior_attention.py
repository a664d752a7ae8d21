"""Attention between context priors and features (Hermes, arXiv 2306.02416, section 3.3)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from medseg.networks.layers.priors import Chosen, PriorTable

__all__ = ["CrossAttention", "PriorFusion", "feed_forward", "mlp"]

_HEAD_CHANNELS = 32  # as published; channels that it does not divide get fewer inner ones


def mlp(in_channels: int, hidden_channels: int, out_channels: int) -> nn.Sequential:
    """Linear, GELU, linear, over the last axis."""
    return nn.Sequential(nn.Linear(in_channels, hidden_channels), nn.GELU(), nn.Linear(hidden_channels, out_channels))


def feed_forward(channels: int, hidden_channels: int) -> nn.Sequential:
    """Layer norm and ``mlp`` of tokens ``(B, N, channels)``; the residual is the caller's."""
    return nn.Sequential(nn.LayerNorm(channels, eps=1e-4), mlp(channels, hidden_channels, channels))


class CrossAttention(nn.Module):
    """Multi-head attention of tokens ``queries: (B, N, C)`` to ``context: (B, M, C)``, both normalised first.

    ``forward(queries, context, keys=None) -> (B, N, C)``; ``keys (B, 1, 1, M)`` says which tokens may be read.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = channels // _HEAD_CHANNELS
        inner = self.heads * _HEAD_CHANNELS
        self.norm_queries = nn.LayerNorm(channels)
        self.norm_context = nn.LayerNorm(channels)
        self.to_queries = nn.Linear(channels, inner, bias=False)
        self.to_keys_values = nn.Linear(channels, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, channels)

    def forward(self, queries: Tensor, context: Tensor, keys: Tensor | None = None) -> Tensor:
        q = self.to_queries(self.norm_queries(queries))
        k, v = self.to_keys_values(self.norm_context(context)).chunk(2, dim=-1)
        q, k, v = [part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (q, k, v)]
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=keys)
        y: Tensor = self.to_out(found.transpose(1, 2).flatten(2))
        return y


class _PriorBlock(nn.Module):
    """Priors read the features, then features read the priors that resulted; each followed by an MLP."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.read = CrossAttention(channels)
        self.prior_mlp = feed_forward(channels, 4 * channels)
        self.write = CrossAttention(channels)
        self.feature_mlp = feed_forward(channels, 4 * channels)

    def forward(self, features: Tensor, priors: Tensor, keys: Tensor | None) -> tuple[Tensor, Tensor]:
        priors = priors + self.read(priors, features)
        priors = priors + self.prior_mlp(priors)
        features = features + self.write(features, priors, keys)
        return features + self.feature_mlp(features), priors


class PriorFusion(nn.Module):
    """The prior table of one scale and ``depth`` blocks of attention between it and the features.

    ``forward(x: (B, C, D, H, W), chosen) -> (features, posterior priors (B, T + 10, C))``; at least 32 channels.
    """

    def __init__(self, num_tasks: int, num_modalities: int, channels: int, depth: int) -> None:
        super().__init__()
        self.priors = PriorTable(num_tasks, num_modalities, channels)
        self.blocks = nn.ModuleList(_PriorBlock(channels) for _ in range(depth))

    def forward(self, x: Tensor, chosen: Chosen) -> tuple[Tensor, Tensor]:
        features, priors = x.flatten(2).transpose(1, 2), self.priors(chosen)
        for block in self.blocks:
            features, priors = block(features, priors, chosen.keys)
        return features.transpose(1, 2).unflatten(2, x.shape[2:]), priors
