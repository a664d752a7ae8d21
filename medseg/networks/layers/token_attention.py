"""Attention between a few tokens and the pixels of a feature map (after SAM's decoder, Kirillov et al. 2023)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["TokenAttention", "TokenMLP", "position_map"]


class TokenAttention(nn.Module):
    """Multi-head attention of inner width ``channels / reduction``.

    ``query: (B, Q, channels)``, ``key`` and ``value: (B, K, channels)`` -> ``(B, Q, channels)``.
    """

    def __init__(self, channels: int, num_heads: int, reduction: int = 2) -> None:
        super().__init__()
        inner = channels // reduction
        self.num_heads = num_heads
        self.query = nn.Linear(channels, inner)
        self.key = nn.Linear(channels, inner)
        self.value = nn.Linear(channels, inner)
        self.out = nn.Linear(inner, channels)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        attended = F.scaled_dot_product_attention(
            self._heads(self.query(query)), self._heads(self.key(key)), self._heads(self.value(value))
        )
        y: Tensor = self.out(attended.transpose(1, 2).flatten(2))
        return y

    def _heads(self, x: Tensor) -> Tensor:
        """(B, N, inner) -> (B, heads, N, inner / heads)."""
        heads: Tensor = x.unflatten(2, (self.num_heads, -1)).transpose(1, 2)
        return heads


class TokenMLP(nn.Module):
    """Two linear layers with ``activation`` between, on each token."""

    def __init__(self, channels: int, hidden: int, activation: nn.Module) -> None:
        super().__init__()
        self.linear1 = nn.Linear(channels, hidden)
        self.linear2 = nn.Linear(hidden, channels)
        self.activation = activation

    def forward(self, tokens: Tensor) -> Tensor:
        y: Tensor = self.linear2(self.activation(self.linear1(tokens)))
        return y


def position_map(frequencies: Tensor, height: int, width: int) -> Tensor:
    """Random Fourier features of pixel centres: ``frequencies (2, channels / 2)`` -> ``(height * width, channels)``.

    ``[sin p, cos p]`` with ``p = 2 pi (x, y) frequencies``, x and y from -1 to 1 (Tancik et al. 2020).
    """
    x, y = _centres(frequencies, width), _centres(frequencies, height)
    phases = x[None, :, None] * frequencies[0] + y[:, None, None] * frequencies[1]
    phases = (2 * math.pi * phases).flatten(0, 1)
    return torch.cat((phases.sin(), phases.cos()), dim=1)


def _centres(like: Tensor, count: int) -> Tensor:
    return (torch.arange(count, device=like.device, dtype=like.dtype) * 2 + 1) / count - 1
